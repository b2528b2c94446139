//! Mappings as elements of maps, and back.

use std::net::IpAddr;

use netlink::nft::{Element, Family, Table};
use netlink::route::{Cidr, octets};
use netlink::{Raw, flag};
use record::Protocol;

use crate::condition::{Range, SourceCondition};
use crate::mapping::{Hairpin, Mapping, MappingStep};
use crate::owner::MappingOwner;
use crate::spec::{Span, any};

use super::Place;

/// The maps whose keys are intervals. They are only there where they are needed, and always read.
pub(super) const INTERVALS: [&str; 3] = [ADDRESS_RANGE, RANGE, CONDITIONAL];

/// One address of the host, one port.
pub(super) const ADDRESS: &str = "addr";
/// Every address of the host, one port.
pub(super) const ANY: &str = "any";
/// One address of the host, a range of ports that keep their numbers.
pub(super) const ADDRESS_RANGE: &str = "addr_range";
/// Every address of the host, a range of ports that keep their numbers.
pub(super) const RANGE: &str = "range";
/// One port for some: ranges of the host's addresses and of the clients'. Its rule nft cannot read back.
pub(super) const CONDITIONAL: &str = "conditional";
/// Begins the names of the sets of networks and containers in them: behind it stands the length of the networks' prefix.
/// Older versions have one set, with networks as intervals.
pub(super) const HAIRPIN: &str = "hairpin";

/// Returns the name of the set of hairpins in networks with a prefix of this length.
pub(super) fn hairpins(prefix: u8) -> String {
    format!("{HAIRPIN}{prefix}")
}

/// Returns the family of an address.
pub(super) fn family(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::Ip } else { Family::Ip6 }
}

/// Returns the table that a mapping is in.
pub(super) fn place_of(mapping: &Mapping) -> Place {
    (family(mapping.target), mapping.held_by)
}

/// Returns the table that a step changes.
pub(super) fn place(step: &MappingStep) -> Place {
    match step {
        MappingStep::Withdraw(mapping) | MappingStep::Publish(mapping) => place_of(mapping),
        MappingStep::RemoveHairpin(hairpin) | MappingStep::AddHairpin(hairpin) => {
            (family(hairpin.target), hairpin.held_by)
        }
    }
}

/// Returns the set or map that a step changes.
pub(super) fn set(step: &MappingStep) -> String {
    match step {
        MappingStep::Withdraw(mapping) | MappingStep::Publish(mapping) => map(mapping).to_owned(),
        MappingStep::RemoveHairpin(hairpin) | MappingStep::AddHairpin(hairpin) => hairpins(hairpin.network.prefix),
    }
}

/// Returns the message that does a step, with its flags.
pub(super) fn message(step: &MappingStep, table: Table<'_>) -> (Raw, u16) {
    let element = match step {
        MappingStep::Withdraw(mapping) | MappingStep::Publish(mapping) => mapping_element(mapping),
        MappingStep::RemoveHairpin(hairpin) | MappingStep::AddHairpin(hairpin) => hairpin_element(hairpin),
    };
    let set = set(step);
    if step.adds() { (element.create(table, &set), flag::CREATE) } else { (element.delete(table, &set), 0) }
}

/// Returns the map that a mapping is in.
pub(super) fn map(mapping: &Mapping) -> &'static str {
    if mapping.condition.is_some() {
        return CONDITIONAL;
    }
    match (mapping.host_ip, mapping.host.len()) {
        (Some(_), 0) => ADDRESS,
        (None, 0) => ANY,
        (Some(_), _) => ADDRESS_RANGE,
        (None, _) => RANGE,
    }
}

/// Returns how many addresses a map's keys begin with: the host's, then the client's.
pub(super) fn addresses(map: &str) -> usize {
    match map {
        ANY | RANGE => 0,
        ADDRESS | ADDRESS_RANGE => 1,
        _ => 2,
    }
}

/// Returns the number of bytes of a family's addresses.
pub(super) fn address_length(family: Family) -> usize {
    if family == Family::Ip { 4 } else { 16 }
}

/// Returns the key of a port of any address.
pub(super) fn port_key(protocol: Protocol, port: u16) -> Vec<u8> {
    [&[number(protocol), 0, 0, 0], &padded(port)[..]].concat()
}

/// Returns the key of a port of a mapping's address; where it has none, of 0.0.0.0 or `::`.
pub(super) fn full_key(mapping: &Mapping, port: u16) -> Vec<u8> {
    let address = mapping.host_ip.unwrap_or_else(|| any(mapping.target.is_ipv4()));
    [octets(address), port_key(mapping.protocol, port)].concat()
}

fn mapping_element(mapping: &Mapping) -> Element {
    let key = |port, end: fn(Range) -> IpAddr| {
        let some = mapping.condition.map(|condition| [end(condition.destination), end(condition.source)]);
        let addresses = some.map_or_else(|| mapping.host_ip.into_iter().collect(), Vec::from);
        [addresses.into_iter().flat_map(octets).collect(), port_key(mapping.protocol, port)].concat()
    };
    let is_range = mapping.host.len() > 0;
    let mut data = octets(mapping.target);
    if !is_range {
        data.extend(padded(mapping.port));
    }
    Element {
        key: key(mapping.host.first, |range| range.0),
        key_end: (is_range || mapping.condition.is_some()).then(|| key(mapping.host.last, |range| range.1)),
        data: Some(data),
        comment: Some(mapping.owner.to_string()),
    }
}

fn hairpin_element(hairpin: &Hairpin) -> Element {
    let key = [octets(hairpin.network.network().address), octets(hairpin.target)].concat();
    Element { key, comment: Some(hairpin.owner.to_string()), ..Element::default() }
}

/// Reads an element of a map of ports; what is none of ours is passed over.
pub(super) fn read_mapping(place: Place, map: &str, element: &Element) -> Option<Mapping> {
    let (family, held_by) = place;
    let (mut key, mut end) = (&element.key[..], element.key_end.as_ref().unwrap_or(&element.key).as_slice());
    let mut ranges = Vec::new();
    for _ in 0..addresses(map) {
        let ((first, rest), (last, end_rest)) = (split_address(family, key)?, split_address(family, end)?);
        ranges.push(Range(first, last));
        (key, end) = (rest, end_rest);
    }
    let (target, data) = split_address(family, element.data.as_deref()?)?;
    let (first, last) = (port(key.get(4..6)?)?, port(end.get(4..6)?)?);
    let mapping = Mapping {
        host_ip: ranges.first().map(|range| range.0),
        protocol: protocol(*key.first()?)?,
        host: Span { first, last },
        target,
        port: if data.is_empty() { first } else { port(data.get(..2)?)? },
        condition: None,
        owner: owner(element),
        held_by,
    };
    Some(match ranges[..] {
        [destination, source] => mapping.under(SourceCondition { source, destination }),
        _ => mapping,
    })
}

/// Reads an element of a set of hairpins.
pub(super) fn read_hairpin(place: Place, set: &str, element: &Element) -> Option<Hairpin> {
    let (family, held_by) = place;
    let (first, rest) = split_address(family, &element.key)?;
    let (target, _) = split_address(family, rest)?;
    let network = match &element.key_end {
        Some(end) => network(first, split_address(family, end)?.0),
        None => Cidr { address: first, prefix: set.strip_prefix(HAIRPIN)?.parse().ok()? },
    };
    Some(Hairpin { network, target, owner: owner(element), held_by })
}

/// An element of somebody else's has an owner without a name.
fn owner(element: &Element) -> MappingOwner {
    element.comment.as_deref().and_then(MappingOwner::parse).unwrap_or_default()
}

fn network(first: IpAddr, last: IpAddr) -> Cidr {
    let prefix = match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => (first.to_bits() ^ last.to_bits()).leading_zeros(),
        (IpAddr::V6(first), IpAddr::V6(last)) => (first.to_bits() ^ last.to_bits()).leading_zeros(),
        _ => Cidr::of(first).prefix.into(),
    };
    Cidr { address: first, prefix: u8::try_from(prefix).unwrap_or_default() }
}

fn split_address(family: Family, bytes: &[u8]) -> Option<(IpAddr, &[u8])> {
    match family {
        Family::Ip => bytes.split_first_chunk::<4>().map(|(octets, rest)| ((*octets).into(), rest)),
        Family::Ip6 | Family::Inet => bytes.split_first_chunk::<16>().map(|(octets, rest)| ((*octets).into(), rest)),
    }
}

/// Returns a number as it lies in registers.
pub(super) fn padded(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

fn port(bytes: &[u8]) -> Option<u16> {
    bytes.try_into().ok().map(u16::from_be_bytes)
}

/// Returns a protocol's number (`IPPROTO_*`).
pub(crate) fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

fn protocol(number: u8) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|protocol| self::number(*protocol) == number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_is_read_from_the_element_that_was_made_of_it() {
        for (host_ip, ports, target, map) in [
            (None, (8080, 8080), "10.88.0.2", ANY),
            (Some("127.0.0.1"), (8080, 8080), "10.88.0.2", ADDRESS),
            (None, (7000, 7010), "10.88.0.2", RANGE),
            (Some("203.0.113.1"), (7000, 7010), "10.88.0.2", ADDRESS_RANGE),
            (None, (8080, 8080), "fd88::2", ANY),
            (Some("fd03::1"), (7000, 7010), "fd88::2", ADDRESS_RANGE),
        ] {
            let mapping = Mapping {
                host_ip: host_ip.map(|ip| ip.parse().unwrap()),
                protocol: Protocol::Udp,
                host: Span { first: ports.0, last: ports.1 },
                target: target.parse().unwrap(),
                port: if ports.0 == ports.1 { 80 } else { ports.0 },
                condition: None,
                owner: MappingOwner { id: "web".to_owned(), ..MappingOwner::default() },
                held_by: Some(7),
            };
            assert_eq!(self::map(&mapping), map);
            let element = mapping_element(&mapping);
            assert_eq!(read_mapping((family(mapping.target), Some(7)), map, &element), Some(mapping));
        }
    }

    #[test]
    fn a_mapping_for_some_is_read_from_its_element() {
        for (source, destination, host_ip, target) in [
            (("10.0.0.0", "10.255.255.255"), ("0.0.0.0", "255.255.255.255"), None, "10.88.0.2"),
            (("0.0.0.0", "255.255.255.255"), ("127.0.0.1", "127.0.0.1"), Some("127.0.0.1"), "10.88.0.2"),
            (("fd00::", "fd00::ffff"), ("::", "fbff::"), None, "fd88::2"),
        ] {
            let range = |(first, last): (&str, &str)| Range(first.parse().unwrap(), last.parse().unwrap());
            let mapping = Mapping {
                host_ip: host_ip.map(|ip| ip.parse().unwrap()),
                protocol: Protocol::Tcp,
                host: Span { first: 8080, last: 8080 },
                target: target.parse().unwrap(),
                port: 80,
                condition: Some(SourceCondition { source: range(source), destination: range(destination) }),
                owner: MappingOwner { id: "web".to_owned(), ..MappingOwner::default() },
                held_by: None,
            };
            assert_eq!(map(&mapping), CONDITIONAL);
            let element = mapping_element(&mapping);
            assert_eq!(read_mapping((family(mapping.target), None), CONDITIONAL, &element), Some(mapping));
        }
    }

    #[test]
    fn a_hairpin_is_read_from_its_element() {
        for (network, prefix, target) in
            [("10.88.0.0", 16, "10.88.0.2"), ("fd88::", 64, "fd88::2"), ("0.0.0.0", 0, "10.0.0.1")]
        {
            let hairpin = Hairpin {
                network: Cidr { address: network.parse().unwrap(), prefix },
                target: target.parse().unwrap(),
                owner: MappingOwner::default(),
                held_by: None,
            };
            let element = hairpin_element(&hairpin);
            let place = (family(hairpin.target), None);
            assert_eq!(read_hairpin(place, &hairpins(prefix), &element).as_ref(), Some(&hairpin));
            let key = |source| [octets(source), octets(hairpin.target)].concat();
            let older = Element { key_end: Some(key(hairpin.network.last())), ..element };
            assert_eq!(read_hairpin(place, HAIRPIN, &older), Some(hairpin));
        }
    }
}
