//! `--volumes-from`: another container's mounts, those that its user or its image asked for.

use std::path::Path;
use std::str::FromStr;

use ::container::{ContainerId, Directories, NameError};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::container;
use crate::mount::{Mount, Source, is_below};

/// `CONTAINER[:ro|rw]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VolumesFrom {
    id: ContainerId,
    read_only: bool,
}

impl FromStr for VolumesFrom {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (id, mode) = text.split_once(':').unwrap_or((text, "rw"));
        if !["ro", "rw"].contains(&mode) {
            return Err("not CONTAINER[:ro|rw]".to_owned());
        }
        let id = id.parse().map_err(|error: NameError| error.to_string())?;
        Ok(Self { id, read_only: mode == "ro" })
    }
}

/// Returns the mounts of the containers that `given` names, but those on whose places its `own` are.
pub(crate) fn mounts(given: &[VolumesFrom], own: &[&Mount], directories: &Directories) -> Result<Vec<Mount>> {
    let mut borrowed: Vec<Mount> = Vec::new();
    for from in given {
        let bundle = directories.bundle(&from.id);
        let path = bundle.join(container::CONFIG);
        ensure!(path.exists(), "no container {} to take volumes from", from.id);
        let text = sys::file::read_regular(&path).with_context(|| format!("read {}", path.display()))?;
        let config: Value = serde_json::from_slice(&text).with_context(|| format!("{} is not JSON", path.display()))?;
        let entries = config["mounts"].as_array().into_iter().flatten();
        for mount in entries.filter_map(|entry| borrow(entry, &bundle, from.read_only)) {
            if !own.iter().copied().chain(&borrowed).any(|other| other.destination == mount.destination) {
                borrowed.push(mount);
            }
        }
    }
    Ok(borrowed)
}

/// Returns a mount of another container's config.json, if it is not one that every container has.
fn borrow(entry: &Value, bundle: &Path, read_only: bool) -> Option<Mount> {
    let (destination, source) = (entry["destination"].as_str()?, entry["source"].as_str()?);
    let options: Vec<&str> = entry["options"].as_array()?.iter().filter_map(Value::as_str).collect();
    let recursive = options.contains(&"rbind");
    let kernel_s = ["/dev", "/proc", "/sys"].iter().any(|own| is_below(destination, own));
    // Its hosts file and the like are that container's own.
    let bundle_s = Path::new(source).starts_with(bundle) && !Path::new(source).starts_with(bundle.join("volumes"));
    if kernel_s || bundle_s || !(recursive || options.contains(&"bind")) {
        return None;
    }
    Some(Mount {
        source: Source::Host { path: source.to_owned(), create: false },
        destination: destination.to_owned(),
        read_only: read_only || options.contains(&"ro"),
        propagation: None,
        recursive,
        relabel: false,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_every_container_has_is_not_borrowed() {
        let bundle = Path::new("/c/web");
        let entry = |destination: &str, source: &str, options: &[&str]| json!({"destination": destination, "type": "bind", "source": source, "options": options});
        for (mount, want) in [
            (entry("/data", "/srv", &["rbind", "ro", "rprivate"]), Some((true, true))),
            (entry("/data", "/c/web/volumes/1", &["rbind", "rprivate"]), Some((true, false))),
            (entry("/file", "/srv/file", &["bind"]), Some((false, false))),
            (entry("/etc/hosts", "/c/web/hosts", &["rbind", "rprivate"]), None),
            (entry("/dev/init", "/bin/bundle", &["bind", "ro"]), None),
            (entry("/tmp", "tmpfs", &["nosuid"]), None),
        ] {
            let borrowed = borrow(&mount, bundle, false);
            assert_eq!(borrowed.map(|mount| (mount.recursive, mount.read_only)), want, "{mount}");
        }
    }

    #[test]
    fn the_mode_follows_the_name() {
        let from = |id: &str, read_only| Some(VolumesFrom { id: id.parse().unwrap(), read_only });
        for (text, want) in [("web", from("web", false)), ("web:ro", from("web", true)), ("web:x", None), (":ro", None)]
        {
            assert_eq!(text.parse().ok(), want, "{text}");
        }
    }
}
