//! Sizes and CPU counts as docker's users write them.

use std::str::FromStr;

/// A number of bytes: `512m`, `1.5g`, `64k`, `100`.
///
/// Units are powers of 1024, as docker's go-units has them for memory: `m`, `mb` and `mib` are the same. A number
/// without a unit is bytes; never negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub i64);

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || format!("`{text}` is not a size such as 512m or 1.5g");
        let lower = text.to_ascii_lowercase();
        let without_b = lower.strip_suffix("ib").or_else(|| lower.strip_suffix('b')).unwrap_or(&lower);
        let units = [('k', 10), ('m', 20), ('g', 30), ('t', 40), ('p', 50)];
        let (number, shift) = units
            .iter()
            .find_map(|(unit, shift)| Some((without_b.strip_suffix(*unit)?, *shift)))
            .unwrap_or((without_b, 0));
        let thousandths = thousandths(number.trim_end()).ok_or_else(invalid)?;
        // 18 digits and three more are below 2^70, and the shift adds 50 bits: 128 bits hold them.
        let bytes = (thousandths << shift) / 1000;
        i64::try_from(bytes).map(Self).map_err(|_| invalid())
    }
}

/// A limit that may be absent: `-1` means none.
///
/// docker and runc write it so, and cgroups call it `max`. 0 is a limit of 0 here: what it means is its reader's to
/// say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(pub i64);

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "-1" { Ok(Self(-1)) } else { text.parse().map(|Bytes(bytes)| Self(bytes)) }
    }
}

/// A number of CPUs, in thousandths: `1.5` is 1500.
///
/// The kernel's smallest quota is 1 ms in a period of 100 ms (sched-bwc.rst), hence 0.01 is the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpus(pub i64);

impl FromStr for Cpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let thousandths = thousandths(text).and_then(|n| i64::try_from(n).ok()).filter(|n| (10..1 << 40).contains(n));
        thousandths.map(Self).ok_or_else(|| format!("`{text}` is not a number of CPUs such as 1.5 (0.01 at least)"))
    }
}

/// Reads a decimal number without going through floating point; digits after the third do not count.
fn thousandths(text: &str) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) || whole.len() > 18 {
        return None;
    }
    let fraction: String = fraction.chars().chain("000".chars()).take(3).collect();
    Some(format!("0{whole}").parse::<i128>().ok()? * 1000 + fraction.parse::<i128>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_docker_reads_them() {
        for (text, want) in [
            ("100", Some(100)),
            ("64k", Some(65536)),
            ("64K", Some(65536)),
            ("512m", Some(512 << 20)),
            ("512mb", Some(512 << 20)),
            ("512MiB", Some(512 << 20)),
            ("1.5g", Some(3 << 29)),
            ("10b", Some(10)),
            ("1 g", Some(1 << 30)),
            ("", None),
            (".", None),
            ("m", None),
            ("-1", None),
            ("1x", None),
            ("1e3", None),
            ("9223372036854775807p", None),
        ] {
            assert_eq!(text.parse::<Bytes>().ok().map(|Bytes(bytes)| bytes), want, "{text}");
        }
        assert_eq!("-1".parse(), Ok(Limit(-1)));
    }

    #[test]
    fn cpus_are_thousandths() {
        for (text, want) in
            [("1.5", Some(1500)), (".25", Some(250)), ("2", Some(2000)), ("0", None), ("0.001", None), ("x", None)]
        {
            assert_eq!(text.parse::<Cpus>().ok().map(|Cpus(cpus)| cpus), want, "{text}");
        }
    }
}
