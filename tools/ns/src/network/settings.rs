//! What is noted of the networks that were created.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use container::{Directories, NetworkName};

use super::note;
use crate::request::{NetworkDriver, NetworkSettings};

/// Reads what is noted of a network; nothing, where none of that name was created.
pub(crate) fn settings_of(directories: &Directories, network: &str) -> Result<Option<NetworkSettings>> {
    let Ok(name) = network.parse::<NetworkName>() else { return Ok(None) };
    // What cannot be read may say that nobody gets out of it.
    let noted: Option<NetworkSettings> = note::read(&directories.network(&name))?;
    // Earlier versions noted the link alone.
    Ok(noted.map(|noted| {
        if noted.macvlan.is_some() { NetworkSettings { driver: NetworkDriver::Macvlan, ..noted } } else { noted }
    }))
}

/// Returns the networks that were created, by name.
pub(crate) fn created(directories: &Directories) -> Result<Vec<(NetworkName, NetworkSettings)>> {
    let path = directories.networks();
    let entries = sys::file::entries(&path).with_context(|| format!("read {}", path.display()))?;
    let names: BTreeSet<NetworkName> =
        entries.iter().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let known = |name: NetworkName| {
        // One damaged note hides its own network alone.
        let settings = settings_of(directories, &name).map_err(|error| log::warn!("{error:#}"));
        Some((name, settings.ok()??))
    };
    Ok(names.into_iter().filter_map(known).collect())
}
