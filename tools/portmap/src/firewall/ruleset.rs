//! The rules that read the maps. They never change, however much is published, but for one more where a port has
//! conditions, and one for each length of a prefix that containers' networks have:
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

use super::entry::{ADDRESS, ADDRESS_RANGE, ANY, CONDITIONAL, HAIRPIN, RANGE};
use super::guard;
use super::index::INDEX;

const NAT: &str = "nat";
const POSTROUTING: &str = "postrouting";
const LOOPBACK: u8 = 127;

/// Adds the table, its sets, its chains and its rules to a batch.
pub(super) fn write(batch: &mut Batch, table: Table<'_>, is_owned: bool) {
    batch.push(&if is_owned { table.create_owned() } else { table.create() }, flag::CREATE);
    let ip = address(table.family).field;
    let key = [ip, Field::PROTOCOL, Field::PORT];
    for set in sets(&key, &[ip, Field::PORT]) {
        batch.push(&table.create_set(&set), flag::CREATE);
    }
    if is_owned && table.family == Family::Ip {
        // What this process holds outlives a flush, which takes the other guard away.
        guard::write(batch, table);
    }
    for (chain, hook, _) in chains(table.family) {
        batch.push(&table.create_chain(chain, hook), flag::CREATE);
    }
    for (chain, _, rules) in chains(table.family) {
        for rule in rules {
            batch.push(&table.create_rule(chain, &rule, None), flag::CREATE | flag::APPEND);
        }
    }
}

/// Returns the number of rules that a whole table has, beside those of [`write_extra`].
pub(super) fn rule_count(family: Family) -> usize {
    chains(family).iter().map(|(_, _, rules)| rules.len()).sum()
}

/// Tells whether a set, and the rule that has its name as a comment, is there only where it is needed.
pub(super) fn is_extra(set: &str) -> bool {
    set == CONDITIONAL || set.starts_with(HAIRPIN)
}

/// Adds such a set and its rule to a batch.
pub(super) fn write_extra(batch: &mut Batch, table: Table<'_>, name: &str) {
    let address = address(table.family);
    let ip = address.field;
    let prefix = name.strip_prefix(HAIRPIN).and_then(|prefix| prefix.parse().ok());
    let (chain, rule) = match prefix {
        Some(prefix) => (POSTROUTING, turn_back(address, name, prefix)),
        None => (NAT, conditional_lookup(address)),
    };
    let key = [ip, ip, Field::PROTOCOL, Field::PORT];
    let (fields, data) = if prefix.is_some() { (2, &[][..]) } else { (4, &[ip, Field::PORT][..]) };
    batch.push(&table.create_set(&Set { name, key: &key[..fields], data, interval: prefix.is_none() }), flag::CREATE);
    batch.push(&table.create_rule(chain, &rule, Some(name)), flag::CREATE | flag::APPEND);
}

/// Masquerades packets from a container's own network, where prefixes are of this length:
/// `ip saddr & 255.255.0.0 . ip daddr @hairpin16`. One set of networks as intervals would be copied at each change.
fn turn_back(address: Address, set: &str, prefix: u32) -> Vec<Expression> {
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

type Rules = Vec<Vec<Expression>>;

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

/// Every key is a part of the longest one: an address, the protocol and the port. Values are an address and a port.
fn sets<'a>(key: &'a [Field; 3], value: &'a [Field; 2]) -> [Set<'a>; 5] {
    let set = |name, key, data, interval| Set { name, key, data, interval };
    [
        set(ADDRESS, &key[..], &value[..], false),
        set(ANY, &key[1..], &value[..], false),
        set(ADDRESS_RANGE, &key[..], &value[..1], true),
        set(RANGE, &key[1..], &value[..1], true),
        set(INDEX, &[Field::MARK, Field::MARK], &key[..], false),
    ]
}

fn chains(family: Family) -> Vec<(&'static str, Option<Hook<'static>>, Rules)> {
    let address = address(family);
    let nat = |number, priority| Some(Hook { kind: "nat", number, priority });
    // What is sent to a link's own address is left to the process beside: nobody forwards the answer.
    let near =
        [payload(Base::Network, 24, 2, 0), mask(0, &[0xff, 0xc0]), compare(0, Comparison::Unequal, &[0xfe, 0x80])];
    let near = near.into_iter().filter(|_| family == Family::Ip6);
    let to_nat: Vec<_> = near.chain(destination_is_local()).chain([jump(NAT)]).collect();
    vec![
        (NAT, None, lookups(address)),
        ("prerouting", nat(Hook::PREROUTING, -100), vec![to_nat.clone()]),
        ("output", nat(Hook::OUTPUT, -100), output(address, to_nat)),
        (POSTROUTING, nat(Hook::POSTROUTING, 100), masquerades(address)),
    ]
}

/// `::1` is left alone: IPv6 has no `route_localnet`, so a connection that was translated would hang instead of being
/// refused, or served by a proxy.
fn output(address: Address, to_nat: Vec<Expression>) -> Rules {
    if address.family == Family::Ip {
        return vec![to_nat];
    }
    let not_loopback = [
        payload(Base::Network, address.destination, address.length, 0),
        compare(0, Comparison::Unequal, &Ipv6Addr::LOCALHOST.octets()),
    ];
    vec![not_loopback.into_iter().chain(to_nat).collect()]
}

/// `dnat to [ip daddr .] meta l4proto . th dport map @…`, for each of the maps: the narrower ones first.
fn lookups(address: Address) -> Rules {
    let words = address.length / 4;
    let rule = |map, with_address: bool, with_port: bool| {
        let start = if with_address { words } else { 0 };
        let mut rule = Vec::new();
        if with_address {
            rule.push(payload(Base::Network, address.destination, address.length, 0));
        }
        rule.push(meta(Meta::Protocol, start));
        rule.push(payload(Base::Transport, 2, 2, start + 1));
        rule.push(look_up(map, 0));
        rule.push(translate_destination(address.family, 0, with_port.then_some(words)));
        rule
    };
    vec![rule(ADDRESS, true, true), rule(ANY, false, true), rule(ADDRESS_RANGE, true, false), rule(RANGE, false, false)]
}

/// `dnat to ip daddr . ip saddr . meta l4proto . th dport map @conditional`.
fn conditional_lookup(address: Address) -> Vec<Expression> {
    let words = address.length / 4;
    vec![
        payload(Base::Network, address.destination, address.length, 0),
        payload(Base::Network, address.source, address.length, words),
        meta(Meta::Protocol, 2 * words),
        payload(Base::Transport, 2, 2, 2 * words + 1),
        look_up(CONDITIONAL, 0),
        translate_destination(address.family, 0, Some(words)),
    ]
}

/// What comes from 127.0.0.0/8 could not be answered.
fn masquerades(address: Address) -> Rules {
    let from_loopback =
        [payload(Base::Network, address.source, 1, 0), compare(0, Comparison::Equal, &[LOOPBACK]), masquerade()];
    let rule: Vec<_> = translated().into_iter().chain(from_loopback).collect();
    if address.family == Family::Ip { vec![rule] } else { Vec::new() }
}
