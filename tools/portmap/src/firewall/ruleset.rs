//! The rules that read the maps. They never change, however much is published, but for one more where a port has
//! conditions:
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
use super::{Shape, guard};

const NAT: &str = "nat";
const LOOPBACK: u8 = 127;

/// Adds the table, its sets, its chains and its rules to a batch; rules that are there are replaced.
pub(super) fn write(batch: &mut Batch, table: Table<'_>, shape: Shape) {
    batch.push(&if shape.is_owned { table.create_owned() } else { table.create() }, flag::CREATE);
    let ip = address(table.family).field;
    for set in sets(&[ip, ip, Field::PROTOCOL, Field::PORT], &[ip, Field::PORT], shape.has_conditions) {
        batch.push(&table.create_set(&set), flag::CREATE);
    }
    if shape.is_owned && table.family == Family::Ip {
        // What this process holds outlives a flush, which takes the other guard away.
        guard::write(batch, table);
    }
    for (chain, hook, _) in chains(table.family, shape.has_conditions) {
        batch.push(&table.create_chain(chain, hook), flag::CREATE);
        batch.push(&table.flush_chain(chain), 0);
    }
    for (chain, _, rules) in chains(table.family, shape.has_conditions) {
        for rule in rules {
            batch.push(&table.create_rule(chain, &rule, None), flag::CREATE | flag::APPEND);
        }
    }
}

/// Returns the number of rules that a whole table has.
pub(super) fn rule_count(family: Family, shape: Shape) -> usize {
    let guards = usize::from(shape.is_owned && family == Family::Ip);
    guards + chains(family, shape.has_conditions).iter().map(|(_, _, rules)| rules.len()).sum::<usize>()
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

/// Every key is a part of the longest one: two addresses, the protocol and the port. Values are an address and a port.
fn sets<'a>(key: &'a [Field; 4], value: &'a [Field; 2], has_conditions: bool) -> Vec<Set<'a>> {
    let set = |name, key, data, interval| Set { name, key, data, interval };
    let mut sets = vec![
        set(ADDRESS, &key[1..], &value[..], false),
        set(ANY, &key[2..], &value[..], false),
        set(ADDRESS_RANGE, &key[1..], &value[..1], true),
        set(RANGE, &key[2..], &value[..1], true),
        set(HAIRPIN, &key[..2], &[], true),
    ];
    sets.extend(has_conditions.then(|| set(CONDITIONAL, &key[..], &value[..], true)));
    sets
}

fn chains(family: Family, has_conditions: bool) -> Vec<(&'static str, Option<Hook<'static>>, Rules)> {
    let address = address(family);
    let nat = |number, priority| Some(Hook { kind: "nat", number, priority });
    // What is sent to a link's own address is left to the process beside: nobody forwards the answer.
    let near =
        [payload(Base::Network, 24, 2, 0), mask(0, &[0xff, 0xc0]), compare(0, Comparison::Unequal, &[0xfe, 0x80])];
    let near = near.into_iter().filter(|_| family == Family::Ip6);
    let to_nat: Vec<_> = near.chain(destination_is_local()).chain([jump(NAT)]).collect();
    vec![
        (NAT, None, lookups(address, has_conditions)),
        ("prerouting", nat(Hook::PREROUTING, -100), vec![to_nat.clone()]),
        ("output", nat(Hook::OUTPUT, -100), output(address, to_nat)),
        ("postrouting", nat(Hook::POSTROUTING, 100), masquerades(address)),
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
fn lookups(address: Address, has_conditions: bool) -> Rules {
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
    let always = [
        rule(ADDRESS, true, true),
        rule(ANY, false, true),
        rule(ADDRESS_RANGE, true, false),
        rule(RANGE, false, false),
    ];
    always.into_iter().chain(has_conditions.then(|| conditional_lookup(address))).collect()
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

fn masquerades(address: Address) -> Rules {
    let own_network = translated()
        .into_iter()
        .chain([
            payload(Base::Network, address.source, address.length, 0),
            payload(Base::Network, address.destination, address.length, address.length / 4),
            is_in(HAIRPIN, 0),
            masquerade(),
        ])
        .collect();
    if address.family == Family::Ip6 {
        return vec![own_network];
    }
    let from_loopback = translated()
        .into_iter()
        .chain([payload(Base::Network, address.source, 1, 0), compare(0, Comparison::Equal, &[LOOPBACK]), masquerade()])
        .collect();
    vec![from_loopback, own_network]
}
