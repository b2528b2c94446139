//! From where and to which of the host's addresses a port is open: a CNI configuration's `conditionsV4` and
//! `conditionsV6`, read from iptables' arguments into pairs of address ranges that have nothing in common.

use std::net::IpAddr;

use anyhow::{Context, bail, ensure};
use netlink::route::Cidr;
use serde::{Deserialize, Serialize};

use crate::spec::any;

/// So many pairs are more than anybody writes. Each is an element in the firewall for each port.
const PAIRS: usize = 4096;

/// The first and the last of addresses that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Range(pub(crate) IpAddr, pub(crate) IpAddr);

impl Range {
    /// Returns all addresses of the family.
    pub(crate) fn all(is_ipv4: bool) -> Self {
        Cidr { address: any(is_ipv4), prefix: 0 }.into()
    }

    /// Tells whether they share an address.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.common(other).is_some()
    }

    fn common(self, other: Self) -> Option<Self> {
        let common = Self(self.0.max(other.0), self.1.min(other.1));
        (common.0 <= common.1 && self.0.is_ipv4() == other.0.is_ipv4()).then_some(common)
    }

    /// Returns what is left without the other's.
    fn without(self, other: Self) -> Vec<Self> {
        let Some(common) = self.common(other) else { return vec![self] };
        let below = (self.0 < common.0).then(|| Self(self.0, beside(common.0, u128::wrapping_sub)));
        let above = (common.1 < self.1).then(|| Self(beside(common.1, u128::wrapping_add), self.1));
        below.into_iter().chain(above).collect()
    }
}

impl From<Cidr> for Range {
    fn from(cidr: Cidr) -> Self {
        Self(cidr.network().address, cidr.last())
    }
}

fn beside(address: IpAddr, step: fn(u128, u128) -> u128) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let bits = step(address.to_bits().into(), 1);
            IpAddr::V4(u32::try_from(bits).unwrap_or(u32::MAX).into())
        }
        IpAddr::V6(address) => IpAddr::V6(step(address.to_bits(), 1).into()),
    }
}

/// A connection meets it that comes from one of the sources and asks for one of the destinations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SourceCondition {
    pub(crate) source: Range,
    pub(crate) destination: Range,
}

impl SourceCondition {
    /// Tells whether a connection could meet both.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.source.overlaps(other.source) && self.destination.overlaps(other.destination)
    }

    fn is_ipv4(&self) -> bool {
        self.source.0.is_ipv4()
    }

    fn is_sound(&self) -> bool {
        let Self { source, destination } = self;
        let ends = [source.0, source.1, destination.0, destination.1];
        let one_family = ends.iter().all(|end| end.is_ipv4() == self.is_ipv4());
        one_family && source.0 <= source.1 && destination.0 <= destination.1
    }
}

/// The conditions of both families, one of which has to be met. A family of which none is there is open to all. In
/// `portmap list` where a CNI configuration had some.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Conditions(pub(crate) Vec<SourceCondition>);

record::part! { Conditions: "conditions" by "portmap"; }

impl Conditions {
    /// Reads one family's arguments of iptables.
    pub(crate) fn parse(words: &[String], is_ipv4: bool) -> anyhow::Result<Self> {
        let all = vec![Range::all(is_ipv4)];
        let (mut sources, mut destinations) = (all.clone(), all);
        let mut words = words.iter().map(|word| word.trim());
        while let Some(word) = words.next() {
            let is_negated = word == "!";
            let option = if is_negated { words.next().context("nothing follows !")? } else { word };
            let side = match option {
                "-s" | "--source" | "--src" => &mut sources,
                "-d" | "--destination" | "--dst" => &mut destinations,
                other => bail!("{other} is not supported: only -s and -d are"),
            };
            let list = words.next().with_context(|| format!("nothing follows {option}"))?;
            let ranges = ranges(list, is_ipv4).with_context(|| format!("{option} {list}"))?;
            // iptables takes each option once, and all of them have to be met: so several become what they have in
            // common.
            *side = if is_negated { without(side, &ranges) } else { common(side, &ranges) };
        }
        ensure!(!sources.is_empty() && !destinations.is_empty(), "no address meets all of them");
        ensure!(sources.len() * destinations.len() <= PAIRS, "more than {PAIRS} pairs of networks");
        let pairs = sources.iter().flat_map(|source| {
            destinations.iter().map(|destination| SourceCondition { source: *source, destination: *destination })
        });
        Ok(Self(pairs.collect()))
    }

    /// Refuses what [`Conditions::parse`] does not make: a list may come from anywhere.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let unsound = self.0.iter().find(|condition| !condition.is_sound());
        let Some(SourceCondition { source, destination }) = unsound else { return Ok(()) };
        bail!("conditions: {}-{} to {}-{} is not a range", source.0, source.1, destination.0, destination.1)
    }

    /// Returns those for a port on this address of the host, or on every one; `None` where it is open to all.
    pub(crate) fn at(&self, host_ip: Option<IpAddr>, is_ipv4: bool) -> Option<Vec<SourceCondition>> {
        let mut own = self.0.iter().filter(|condition| condition.is_ipv4() == is_ipv4).peekable();
        own.peek()?;
        let here = host_ip.map_or_else(|| Range::all(is_ipv4), |host_ip| Range(host_ip, host_ip));
        let at = own.filter_map(|own| Some(SourceCondition { destination: own.destination.common(here)?, ..*own }));
        // A list has those of every address of the host, one of which may be part of another.
        Some(distinct(at))
    }
}

/// Reads networks and addresses with commas between them; what they share is there once.
fn ranges(list: &str, is_ipv4: bool) -> anyhow::Result<Vec<Range>> {
    let mut ranges: Vec<Range> = Vec::new();
    for text in list.split(',').map(str::trim) {
        let alone = format!("{text}/{}", if is_ipv4 { 32 } else { 128 });
        let whole = if text.contains('/') { text } else { &alone };
        let cidr: Cidr = whole.parse().map_err(anyhow::Error::msg)?;
        ensure!(cidr.address.is_ipv4() == is_ipv4, "{text} is an address of the other family");
        // An element stands in the firewall once: what two networks of the list share would be refused the second
        // time.
        ranges.extend(without(&[cidr.into()], &ranges));
    }
    ranges.sort_by_key(|range| range.0);
    Ok(ranges)
}

/// Returns what is there, each once, in the order in which it comes.
pub(crate) fn distinct<T: PartialEq>(all: impl Iterator<Item = T>) -> Vec<T> {
    all.fold(Vec::new(), |mut distinct, one| {
        if !distinct.contains(&one) {
            distinct.push(one);
        }
        distinct
    })
}

fn common(ranges: &[Range], others: &[Range]) -> Vec<Range> {
    ranges.iter().flat_map(|range| others.iter().filter_map(|other| range.common(*other))).collect()
}

fn without(ranges: &[Range], others: &[Range]) -> Vec<Range> {
    others.iter().fold(ranges.to_vec(), |left, other| left.iter().flat_map(|range| range.without(*other)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, is_ipv4: bool) -> anyhow::Result<Conditions> {
        Conditions::parse(&text.split(' ').map(str::to_owned).collect::<Vec<_>>(), is_ipv4)
    }

    /// `first-last`, or nothing for all.
    fn range(text: &str, is_ipv4: bool) -> Range {
        let ends = text.split_once('-').map(|(first, last)| Range(first.parse().unwrap(), last.parse().unwrap()));
        ends.unwrap_or_else(|| Range::all(is_ipv4))
    }

    #[test]
    fn arguments_of_iptables_become_ranges() {
        for (text, want) in [
            ("-s 10.0.0.0/8", &["10.0.0.0-10.255.255.255 "][..]),
            ("--source 10.1.2.3/8 --dst 192.0.2.1", &["10.0.0.0-10.255.255.255 192.0.2.1-192.0.2.1"]),
            ("! -d 192.0.2.0/24", &[" 0.0.0.0-192.0.1.255", " 192.0.3.0-255.255.255.255"]),
            ("! -s 0.0.0.0/1", &["128.0.0.0-255.255.255.255 "]),
            ("! -s 128.0.0.0/1", &["0.0.0.0-127.255.255.255 "]),
            ("-s 10.0.0.2,10.0.0.1,10.0.0.2", &["10.0.0.1-10.0.0.1 ", "10.0.0.2-10.0.0.2 "]),
            ("-s 10.0.0.4/30,10.0.0.0/29", &["10.0.0.0-10.0.0.3 ", "10.0.0.4-10.0.0.7 "]),
            ("-s 10.0.0.0/30 ! -s 10.0.0.1", &["10.0.0.0-10.0.0.0 ", "10.0.0.2-10.0.0.3 "]),
            (
                "! -s 0.0.0.0/2,128.0.0.0/1 -d 192.0.2.1,192.0.2.2",
                &["64.0.0.0-127.255.255.255 192.0.2.1-192.0.2.1", "64.0.0.0-127.255.255.255 192.0.2.2-192.0.2.2"],
            ),
            ("-s fd00::/8", &["fd00::-fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "]),
            ("! -d ::/1", &[" 8000::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]),
        ] {
            let is_ipv4 = !text.contains(':');
            let pair = |text: &&str| {
                let (source, destination) = text.split_once(' ').unwrap();
                SourceCondition { source: range(source, is_ipv4), destination: range(destination, is_ipv4) }
            };
            assert_eq!(parse(text, is_ipv4).unwrap().0, want.iter().map(pair).collect::<Vec<_>>(), "{text}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused_by_name() {
        for (text, want) in [
            ("-i eth0", "-i is not supported: only -s and -d are"),
            ("! -m mark", "-m is not supported: only -s and -d are"),
            ("-s", "nothing follows -s"),
            ("-s 10.0.0.1 !", "nothing follows !"),
            ("-s example.org", "-s example.org: \"example.org\" is not an IP address"),
            ("-d 10.0.0.0/33", "-d 10.0.0.0/33: \"33\" is not a prefix length of 0 to 32"),
            ("-s fd00::/8", "-s fd00::/8: fd00::/8 is an address of the other family"),
            ("-s 10.0.0.1 ! -s 10.0.0.0/8", "no address meets all of them"),
        ] {
            assert_eq!(format!("{:#}", parse(text, true).unwrap_err()), want);
        }
    }

    #[test]
    fn a_ports_own_address_narrows_them() {
        let conditions = parse("! -d 192.0.2.0/24", true).unwrap();
        let at = |ip: &str| conditions.at(Some(ip.parse().unwrap()), true).unwrap();
        assert_eq!(at("192.0.2.7"), []);
        assert_eq!(at("127.0.0.1"), parse("-d 127.0.0.1", true).unwrap().0);
        assert_eq!(conditions.at(None, true), Some(conditions.0.clone()));
        assert_eq!(conditions.at(None, false), None);
        let both = Conditions([conditions.0.clone(), at("127.0.0.1")].concat());
        assert_eq!(both.at(Some("127.0.0.1".parse().unwrap()), true), Some(at("127.0.0.1")));
    }

    #[test]
    fn a_list_with_wrong_ranges_is_refused() {
        let text = r#"[{"source":["10.0.0.2","10.0.0.1"],"destination":["0.0.0.0","255.255.255.255"]}]"#;
        let conditions: Conditions = serde_json::from_str(text).unwrap();
        assert_eq!(
            conditions.check().unwrap_err().to_string(),
            "conditions: 10.0.0.2-10.0.0.1 to 0.0.0.0-255.255.255.255 is not a range"
        );
        assert!(parse("! -d 192.0.2.0/24", true).unwrap().check().is_ok());
    }
}
