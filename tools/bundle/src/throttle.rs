//! Weights and limits of block devices: `linux.resources.blockIO` (runtime-spec, config-linux.md, "Block IO").

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use cli::Bytes;
use serde_json::{Value, json};

use crate::options::Blocks;
use crate::translate::object;

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
        let number = number(value).ok_or_else(|| format!("`{value}` is out of range, or no number"))?;
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
    fn entry(&self, name: &str) -> Result<Value> {
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
    weight.ok_or_else(|| format!("`{text}` is no weight from 10 to 1000"))
}

/// Returns `linux.resources.blockIO`, where there is anything to say.
pub(crate) fn block_io(blocks: &Blocks) -> Result<Option<Value>> {
    let mut limits = vec![("weight", blocks.blkio_weight.filter(|weight| *weight != 0).map(Value::from))];
    for (name, member, devices) in [
        ("weightDevice", "weight", &blocks.blkio_weight_device),
        ("throttleReadBpsDevice", "rate", &blocks.device_read_bps),
        ("throttleWriteBpsDevice", "rate", &blocks.device_write_bps),
        ("throttleReadIOPSDevice", "rate", &blocks.device_read_iops),
        ("throttleWriteIOPSDevice", "rate", &blocks.device_write_iops),
    ] {
        let entries = devices.iter().map(|device| device.entry(member)).collect::<Result<Vec<_>>>()?;
        limits.push((name, (!entries.is_empty()).then_some(Value::Array(entries))));
    }
    Ok(object(limits))
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
    fn what_is_no_block_device_is_refused() {
        let blocks =
            |device: &str| Blocks { device_read_bps: vec![OnDevice::bytes(device).unwrap()], ..Blocks::default() };
        assert_eq!(block_io(&blocks("/dev/null:1")).unwrap_err().root_cause().to_string(), "not a block device");
        assert!(block_io(&blocks("/dev/nope:1")).is_err());
        assert_eq!(
            block_io(&Blocks { blkio_weight: Some(300), ..Blocks::default() }).unwrap(),
            Some(json!({"weight": 300}))
        );
        assert_eq!(block_io(&Blocks { blkio_weight: Some(0), ..Blocks::default() }).unwrap(), None);
    }
}
