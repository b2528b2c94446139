//! Weights and limits of block devices: `linux.resources.blockIO` (runtime-spec, config-linux.md, "Block IO").

use anyhow::Result;
use serde_json::Value;

use crate::request::LimitOptions;
use crate::translate::object;

/// Returns `linux.resources.blockIO`, where there is anything to say.
pub(crate) fn block_io(limits: &LimitOptions) -> Result<Option<Value>> {
    let mut members = vec![("weight", limits.blkio_weight.filter(|weight| *weight != 0).map(Value::from))];
    for (name, member, devices) in [
        ("weightDevice", "weight", &limits.blkio_weight_device),
        ("throttleReadBpsDevice", "rate", &limits.device_read_bps),
        ("throttleWriteBpsDevice", "rate", &limits.device_write_bps),
        ("throttleReadIOPSDevice", "rate", &limits.device_read_iops),
        ("throttleWriteIOPSDevice", "rate", &limits.device_write_iops),
    ] {
        let entries = devices.iter().map(|device| device.entry(member)).collect::<Result<Vec<_>>>()?;
        members.push((name, (!entries.is_empty()).then_some(Value::Array(entries))));
    }
    Ok(object(members))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::device::OnDevice;

    #[test]
    fn what_is_no_block_device_is_refused() {
        let blocks = |device: &str| LimitOptions {
            device_read_bps: vec![OnDevice::bytes(device).unwrap()],
            ..LimitOptions::default()
        };
        assert_eq!(block_io(&blocks("/dev/null:1")).unwrap_err().root_cause().to_string(), "not a block device");
        assert!(block_io(&blocks("/dev/nope:1")).is_err());
        assert_eq!(
            block_io(&LimitOptions { blkio_weight: Some(300), ..LimitOptions::default() }).unwrap(),
            Some(json!({"weight": 300}))
        );
        assert_eq!(block_io(&LimitOptions { blkio_weight: Some(0), ..LimitOptions::default() }).unwrap(), None);
    }
}
