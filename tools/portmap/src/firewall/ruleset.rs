//! The rules that read the maps. They never change, however much is published, but for those of maps that are there only
//! where they are needed: for ranges, for ports with conditions, and for each length of containers' networks' prefixes.
//!
//! - what is sent to an address of the host's own is looked up, on its way in and when the host itself sends it;
//! - what a published port makes turn back gets the host's address as its source: from 127.0.0.0/8, where the answer
//!   could not be routed, and from the container's own network, where it would not come by the host.

use std::net::Ipv6Addr;

use netlink::nft::expression::{
    Base, Comparison, Meta, compare, destination_is_local, is_in, jump, look_up, mask, masquerade, meta, payload,
    translate_destination, translated,
};
use netlink::nft::{Expression, Family, Field, Hook, Set, Table};
use netlink::{Batch, flag};

use super::entry::{self, ADDRESS, ADDRESS_RANGE, ANY, HAIRPIN, INTERVALS, RANGE};
use super::guard;
use super::index::INDEX;

const NAT: &str = "nat";
const POSTROUTING: &str = "postrouting";

/// Adds the table, its chains and rules, and what every table has of maps to a batch.
pub(super) fn write(batch: &mut Batch, table: Table<'_>, is_owned: bool) {
    batch.push(&if is_owned { table.create_owned() } else { table.create() }, flag::CREATE);
    let key = [address(table.family).field, Field::PROTOCOL, Field::PORT];
    let index = Set { name: INDEX, key: &[Field::MARK, Field::MARK], data: &key, interval: false };
    batch.push(&table.create_set(&index), flag::CREATE);
    if is_owned && table.family == Family::Ip {
        // What this process holds outlives a flush, which takes the other guard away.
        guard::write(batch, table);
    }
    for (chain, hook, _) in chains(table.family) {
        batch.push(&table.create_chain(chain, hook), flag::CREATE);
    }
    for (chain, _, rule) in chains(table.family) {
        if let Some(rule) = rule {
            batch.push(&table.create_rule(chain, &rule, None), flag::CREATE | flag::APPEND);
        }
    }
    for map in ALWAYS {
        write_set(batch, table, map);
    }
}

/// The maps that every table has.
pub(super) const ALWAYS: [&str; 2] = [ADDRESS, ANY];

/// The number of rules that a whole table has, beside those of its sets.
pub(super) const RULES: usize = 3;

/// Adds a set to a batch, and the rule that reads it, whose comment is the set's name.
pub(super) fn write_set(batch: &mut Batch, table: Table<'_>, name: &str) {
    let address = address(table.family);
    let fields = [address.field, address.field, Field::PROTOCOL, Field::PORT];
    let values = [address.field, Field::PORT];
    // A range's ports keep their numbers.
    let has_ports = ![ADDRESS_RANGE, RANGE].contains(&name);
    let addresses = entry::addresses(name);
    let prefix = name.strip_prefix(HAIRPIN).and_then(|prefix| prefix.parse().ok());
    let (chain, key, data, rule) = if let Some(prefix) = prefix {
        (POSTROUTING, &fields[..2], &[][..], turn_back(address, name, prefix))
    } else {
        (NAT, &fields[2 - addresses..], &values[..=usize::from(has_ports)], lookup(address, name, addresses, has_ports))
    };
    let interval = INTERVALS.contains(&name);
    batch.push(&table.create_set(&Set { name, key, data, interval }), flag::CREATE);
    batch.push(&table.create_rule(chain, &rule, Some(name)), flag::CREATE | flag::APPEND);
}

/// Masquerades packets from a container's own network, where prefixes are of this length:
/// `ip saddr & 255.255.0.0 . ip daddr @hairpin16`. One set of networks as intervals would be copied at each change.
fn turn_back(address: Address, set: &str, prefix: u32) -> Rule {
    let bits = u128::MAX.checked_shl(128 - prefix).unwrap_or_default();
    let own_network = [
        payload(Base::Network, address.source, address.length, 0),
        mask(0, &bits.to_be_bytes()[..address.length as usize]),
        payload(Base::Network, address.destination, address.length, address.length / 4),
        is_in(set, 0),
        masquerade(),
    ];
    translated().into_iter().chain(own_network).collect()
}

/// `dnat to [ip daddr . [ip saddr .]] meta l4proto . th dport map @…`
fn lookup(address: Address, map: &str, addresses: usize, has_ports: bool) -> Rule {
    let words = address.length / 4;
    let mut rule = Vec::new();
    let mut start = 0;
    for offset in [address.destination, address.source].into_iter().take(addresses) {
        rule.push(payload(Base::Network, offset, address.length, start));
        start += words;
    }
    rule.extend([
        meta(Meta::Protocol, start),
        payload(Base::Transport, 2, 2, start + 1),
        look_up(map, 0),
        translate_destination(address.family, 0, has_ports.then_some(words)),
    ]);
    rule
}

type Rule = Vec<Expression>;

/// How a family's addresses lie in packets and in registers.
#[derive(Clone, Copy)]
struct Address {
    family: Family,
    field: Field,
    /// In bytes.
    length: u32,
    source: u32,
    destination: u32,
}

fn address(family: Family) -> Address {
    match family {
        Family::Ip => Address { family, field: Field::IPV4, length: 4, source: 12, destination: 16 },
        Family::Ip6 | Family::Inet => Address { family, field: Field::IPV6, length: 16, source: 8, destination: 24 },
    }
}

/// Returns the chains, with the rule that each always has.
fn chains(family: Family) -> [(&'static str, Option<Hook<'static>>, Option<Rule>); 4] {
    let address = address(family);
    let nat = |number, priority| Some(Hook { kind: "nat", number, priority });
    // What is sent to a link's own address is left to the process beside: nobody forwards the answer.
    let near =
        [payload(Base::Network, 24, 2, 0), mask(0, &[0xff, 0xc0]), compare(0, Comparison::Unequal, &[0xfe, 0x80])];
    let near = near.into_iter().filter(|_| family == Family::Ip6);
    let to_nat: Vec<_> = near.chain(destination_is_local()).chain([jump(NAT)]).collect();
    [
        (NAT, None, None),
        ("prerouting", nat(Hook::PREROUTING, -100), Some(to_nat.clone())),
        ("output", nat(Hook::OUTPUT, -100), Some(output(address, to_nat))),
        (POSTROUTING, nat(Hook::POSTROUTING, 100), Some(from_loopback(address))),
    ]
}

/// `::1` is left alone: IPv6 has no `route_localnet`, so a connection that was translated would hang instead of being
/// refused, or served by a proxy.
fn output(address: Address, to_nat: Rule) -> Rule {
    let not_loopback = [
        payload(Base::Network, address.destination, address.length, 0),
        compare(0, Comparison::Unequal, &Ipv6Addr::LOCALHOST.octets()),
    ];
    not_loopback.into_iter().filter(|_| address.family == Family::Ip6).chain(to_nat).collect()
}

/// Masquerades what comes from 127.0.0.0/8 or `::1`, which nobody could answer.
fn from_loopback(address: Address) -> Rule {
    let own = if address.family == Family::Ip { vec![127] } else { Ipv6Addr::LOCALHOST.octets().to_vec() };
    let length = if address.family == Family::Ip { 1 } else { address.length };
    let from = [payload(Base::Network, address.source, length, 0), compare(0, Comparison::Equal, &own), masquerade()];
    translated().into_iter().chain(from).collect()
}
