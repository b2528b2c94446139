//! `config.json` (runtime-spec, config.md), as far as Linux is concerned: what the file says, in its own words. Text is
//! turned into types where it is used; what contradicts itself is refused in `config/check.rs`.

mod check;
mod linux;
mod process;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Deserialize;

pub(crate) use check::sysctl_path;
pub(crate) use linux::*;
pub(crate) use process::*;

/// The whole file. Members that this runtime has no use for are skipped.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Config {
    pub oci_version: String,
    pub root: Option<Root>,
    pub process: Option<Process>,
    #[serde(deserialize_with = "or_default")]
    pub hostname: String,
    #[serde(deserialize_with = "or_default")]
    pub domainname: String,
    #[serde(deserialize_with = "or_default")]
    pub mounts: Vec<Mount>,
    #[serde(deserialize_with = "or_default")]
    pub hooks: Hooks,
    #[serde(deserialize_with = "or_default")]
    pub linux: Linux,
    #[serde(deserialize_with = "or_default")]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Root {
    pub path: PathBuf,
    pub readonly: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Mount {
    pub destination: PathBuf,
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub kind: String,
    #[serde(deserialize_with = "or_default")]
    pub source: String,
    #[serde(deserialize_with = "or_default")]
    pub options: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub uid_mappings: Vec<IdMapping>,
    #[serde(deserialize_with = "or_default")]
    pub gid_mappings: Vec<IdMapping>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Hooks {
    #[serde(deserialize_with = "or_default")]
    pub prestart: Vec<Hook>,
    #[serde(deserialize_with = "or_default")]
    pub create_runtime: Vec<Hook>,
    #[serde(deserialize_with = "or_default")]
    pub create_container: Vec<Hook>,
    #[serde(deserialize_with = "or_default")]
    pub start_container: Vec<Hook>,
    #[serde(deserialize_with = "or_default")]
    pub poststart: Vec<Hook>,
    #[serde(deserialize_with = "or_default")]
    pub poststop: Vec<Hook>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Hook {
    pub path: PathBuf,
    #[serde(deserialize_with = "or_default")]
    pub args: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub env: Vec<String>,
    pub timeout: Option<i64>,
}

impl Config {
    /// Reads and checks `config.json` of a bundle; returns its bytes too, which the state directory keeps.
    pub(crate) fn read(bundle: &Path) -> anyhow::Result<(Self, Vec<u8>)> {
        let path = bundle.join("config.json");
        let text = match crate::file::read_all(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                anyhow::bail!("JSON specification file {} not found", path.display())
            }
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        let config = Self::parse(&text).with_context(|| path.display().to_string())?;
        config.check()?;
        Ok((config, text))
    }

    /// Parses the file's bytes.
    pub(crate) fn parse(text: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(text)
    }

    /// Returns the container's process, which `create` and `run` cannot do without.
    pub(crate) fn process(&self) -> anyhow::Result<&Process> {
        self.process.as_ref().context("config.json: process property must not be empty")
    }
}

/// Reads `null` as the member's absence: Go writes its nil slices so.
pub(super) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
