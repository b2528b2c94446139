//! Devices of the host in the container: `--device`.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use cli::Bytes;
use serde_json::{Value, json};

/// `HOST[:CONTAINER][:PERMISSIONS]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeviceFlag {
    pub(crate) host: PathBuf,
    pub(crate) container: String,
    pub(crate) access: String,
}

impl FromStr for DeviceFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let (host, container, access) = match parts.as_slice() {
            [host] => (*host, *host, "rwm"),
            // Letters of `rwm` before a path: docker's order, by which a container path needs its slash.
            [host, access] if is_access(access) => (*host, *host, *access),
            [host, container] => (*host, *container, "rwm"),
            [host, container, access] if is_access(access) => (*host, *container, *access),
            _ => return Err(format!("`{text}` is not HOST[:CONTAINER][:PERMISSIONS]")),
        };
        if !host.starts_with('/') || !container.starts_with('/') {
            return Err(format!("`{text}`: the path of a device is absolute"));
        }
        Ok(Self { host: host.into(), container: container.to_owned(), access: access.to_owned() })
    }
}

fn is_access(text: &str) -> bool {
    !text.is_empty() && text.len() <= 3 && text.bytes().all(|byte| b"rwm".contains(&byte))
}

/// `c 10:200 rwm`: devices that may be used, by number, whoever makes their files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CgroupRule {
    kind: &'static str,
    /// `None` is any.
    major: Option<u32>,
    minor: Option<u32>,
    access: String,
}

impl FromStr for CgroupRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a rule such as `c 10:200 rwm`");
        let words: Vec<&str> = text.split(' ').collect();
        let [kind, numbers, access] = words.as_slice() else { return Err(wrong()) };
        let kind = ["a", "b", "c"].into_iter().find(|known| known == kind).ok_or_else(wrong)?;
        let (major, minor) = numbers.split_once(':').ok_or_else(wrong)?;
        let number = |text: &str| match text {
            "*" => Ok(None),
            digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().map(Some).map_err(|_| wrong()),
            _ => Err(wrong()),
        };
        if !is_access(access) {
            return Err(wrong());
        }
        Ok(Self { kind, major: number(major)?, minor: number(minor)?, access: (*access).to_owned() })
    }
}

impl CgroupRule {
    /// Returns the entry of `linux.resources.devices`.
    pub(crate) fn rule(&self) -> Value {
        let mut rule = json!({"allow": true, "type": self.kind});
        for (name, number) in [("major", self.major), ("minor", self.minor)] {
            if let Some(number) = number {
                rule[name] = json!(number);
            }
        }
        rule["access"] = json!(self.access);
        rule
    }
}

/// One device as the host has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    path: String,
    kind: &'static str,
    major: u32,
    minor: u32,
    mode: u32,
    uid: u32,
    gid: u32,
    access: String,
}

impl Device {
    /// Returns the entry of `linux.devices`.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "path": self.path, "type": self.kind, "major": self.major, "minor": self.minor,
            "fileMode": self.mode, "uid": self.uid, "gid": self.gid,
        })
    }

    /// Returns the entry of `linux.resources.devices`.
    pub(crate) fn rule(&self) -> Value {
        json!({"allow": true, "type": self.kind, "major": self.major, "minor": self.minor, "access": self.access})
    }

    fn of(path: String, metadata: &Metadata, access: &str) -> Option<Self> {
        let kind = match metadata.file_type() {
            kind if kind.is_char_device() => "c",
            kind if kind.is_block_device() => "b",
            _ => return None,
        };
        let number = metadata.rdev();
        Some(Self {
            path,
            kind,
            major: rustix::fs::major(number),
            minor: rustix::fs::minor(number),
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            access: access.to_owned(),
        })
    }
}

/// Looks a device up on the host. A directory stands for the devices in it.
pub(crate) fn look_up(flag: &DeviceFlag) -> Result<Vec<Device>> {
    // Links are followed: /dev/disk/by-id/ has nothing else, and the container gets the node itself.
    let metadata = fs::metadata(&flag.host).with_context(|| format!("device {}", flag.host.display()))?;
    if !metadata.is_dir() {
        let device = Device::of(flag.container.clone(), &metadata, &flag.access);
        return Ok(vec![device.with_context(|| format!("{} is not a device", flag.host.display()))?]);
    }
    let mut devices = Vec::new();
    collect(&flag.host, &flag.container, &flag.access, &mut devices)
        .with_context(|| format!("devices of {}", flag.host.display()))?;
    ensure!(!devices.is_empty(), "{} holds no device", flag.host.display());
    Ok(devices)
}

/// Returns every device of the host: what `--privileged` gives.
pub(crate) fn all() -> Result<Vec<Device>> {
    let mut devices = Vec::new();
    collect(Path::new("/dev"), "/dev", "rwm", &mut devices).context("devices of /dev")?;
    // What the runtime makes itself, or what differs from container to container.
    let own =
        ["/dev/console", "/dev/full", "/dev/null", "/dev/ptmx", "/dev/random", "/dev/tty", "/dev/urandom", "/dev/zero"];
    devices.retain(|device| !own.contains(&device.path.as_str()));
    Ok(devices)
}

fn collect(directory: &Path, below: &str, access: &str, devices: &mut Vec<Device>) -> io::Result<()> {
    let mut entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
    // The directory's order is the kernel's mood; config.json has to be the same for the same host.
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let path = format!("{below}/{name}");
        // Devices come and go.
        let Some(metadata) = sys::file::there(entry.metadata())? else { continue };
        if metadata.is_dir() {
            if !["pts", "shm", "fd", "mqueue", "hugepages", ".lxc", ".lxd-mounts", ".udev"].contains(&name) {
                collect(&entry.path(), &path, access, devices)?;
            }
        } else {
            devices.extend(Device::of(path, &metadata, access));
        }
    }
    Ok(())
}

/// `DEVICE:NUMBER`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OnDevice {
    device: PathBuf,
    number: u64,
}

impl OnDevice {
    fn parse(text: &str, number: impl Fn(&str) -> Option<u64>) -> Result<Self, String> {
        let (device, value) =
            text.rsplit_once(':').filter(|(device, _)| device.starts_with('/')).ok_or("not DEVICE:NUMBER")?;
        let number = number(value).ok_or_else(|| format!("`{value}` is out of range, or not a number"))?;
        Ok(Self { device: device.into(), number })
    }

    /// Parses a number of bytes a second.
    pub(crate) fn bytes(text: &str) -> Result<Self, String> {
        Self::parse(text, |rate| u64::try_from(rate.parse::<Bytes>().ok()?.0).ok())
    }

    /// Parses a number of operations a second.
    pub(crate) fn operations(text: &str) -> Result<Self, String> {
        Self::parse(text, |rate| rate.parse().ok())
    }

    /// Parses a weight.
    pub(crate) fn weight(text: &str) -> Result<Self, String> {
        Self::parse(text, |weight| weight.parse().ok().filter(|weight| is_weight(*weight)))
    }

    /// Looks the device up on the host.
    pub(crate) fn entry(&self, name: &str) -> Result<Value> {
        let (major, minor) = number(&self.device).with_context(|| format!("device {}", self.device.display()))?;
        Ok(json!({"major": major, "minor": minor, name: self.number}))
    }
}

fn number(device: &Path) -> Result<(u32, u32)> {
    let metadata = fs::metadata(device)?;
    ensure!(metadata.file_type().is_block_device(), "not a block device");
    Ok((rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev())))
}

/// Docker's range; 0 says nothing.
fn is_weight(weight: u64) -> bool {
    weight == 0 || (10..=1000).contains(&weight)
}

/// Parses a weight that is no device's.
pub(crate) fn weight(text: &str) -> Result<u16, String> {
    let weight: Option<u16> = text.parse().ok().filter(|weight| is_weight(u64::from(*weight)));
    weight.ok_or_else(|| format!("`{text}` is not a weight from 10 to 1000"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_behind_the_last_colon() {
        let on = |device: &str, number| Some(OnDevice { device: device.into(), number });
        assert_eq!(OnDevice::bytes("/dev/a:b:1m").ok(), on("/dev/a:b", 1 << 20));
        assert_eq!(OnDevice::operations("/dev/a:7").ok(), on("/dev/a", 7));
        assert_eq!(OnDevice::weight("/dev/a:1000").ok(), on("/dev/a", 1000));
        for wrong in ["/dev/a", "a:1", "/dev/a:", "/dev/a:-1", "/dev/a:x"] {
            assert!(OnDevice::operations(wrong).is_err() && OnDevice::bytes(wrong).is_err(), "{wrong}");
        }
        assert!(OnDevice::weight("/dev/a:5").is_err());
        for (text, want) in [("10", Some(10)), ("0", Some(0)), ("9", None), ("1001", None), ("x", None)] {
            assert_eq!(weight(text).ok(), want, "{text}");
        }
    }

    #[test]
    fn rules_have_numbers_or_any() {
        for (text, want) in [
            ("c 10:200 rwm", Some(json!({"allow": true, "type": "c", "major": 10, "minor": 200, "access": "rwm"}))),
            ("b 8:* r", Some(json!({"allow": true, "type": "b", "major": 8, "access": "r"}))),
            ("a *:* m", Some(json!({"allow": true, "type": "a", "access": "m"}))),
            ("d 1:2 r", None),
            ("c 1:2", None),
            ("c 1 r", None),
            ("c -1:2 r", None),
            ("c +1:2 r", None),
            ("c 1:2 x", None),
            ("c :2 r", None),
            ("c  1:2 r", None),
            ("c 4294967296:2 r", None),
        ] {
            assert_eq!(text.parse::<CgroupRule>().ok().map(|rule| rule.rule()), want, "{text}");
        }
    }

    #[test]
    fn devices_are_read_as_docker_reads_them() {
        for (text, want) in [
            ("/dev/fuse", Some(("/dev/fuse", "/dev/fuse", "rwm"))),
            ("/dev/fuse:r", Some(("/dev/fuse", "/dev/fuse", "r"))),
            ("/dev/a:/dev/b", Some(("/dev/a", "/dev/b", "rwm"))),
            ("/dev/a:/dev/b:mr", Some(("/dev/a", "/dev/b", "mr"))),
            ("/dev/a:/dev/b:x", None),
            ("dev/a", None),
            ("/dev/a:b", None),
            ("", None),
        ] {
            let want = want.map(|(host, container, access)| DeviceFlag {
                host: host.into(),
                container: container.to_owned(),
                access: access.to_owned(),
            });
            assert_eq!(text.parse().ok(), want, "{text}");
        }
    }

    #[test]
    fn a_device_is_looked_up_on_the_host() {
        let devices = look_up(&"/dev/null:/dev/hole:rw".parse().unwrap()).unwrap();
        assert_eq!(devices.len(), 1);
        assert_eq!(devices[0].rule(), json!({"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"}));
        assert!(look_up(&"/etc/passwd".parse().unwrap()).is_err());
        assert!(look_up(&"/dev/no-such-device".parse().unwrap()).is_err());
    }
}
