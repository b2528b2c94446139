//! Weights and limits of block devices: `linux.resources.blockIO` (runtime-spec, config-linux.md, "Block IO").

use anyhow::Result;
use serde_json::Value;

use crate::options::Blocks;
use crate::translate::object;

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
    use serde_json::json;

    use super::*;
    use crate::device::OnDevice;

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
