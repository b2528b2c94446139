//! What finds a container's elements among those of thousands, since the kernel answers for a key, or tells all: a map of the
//! table's own. Under a number for each owner, each container's address, and each port that is published on single
//! addresses it lists the keys of their elements, counted from 0 on; under 0 it has the number of mappings. Ranges of ports
//! and ports with conditions are not in it: few have any, so they are read whole. Two may share a number: what is found is
//! looked at.

use std::collections::BTreeMap;
use std::net::IpAddr;

use netlink::nft::{Element, Family, Table};
use netlink::route::octets;
use netlink::{Batch, flag};
use record::Protocol;

use crate::mapping::{Mapping, MappingStep};

use super::entry::{self, ADDRESS, ANY};

pub(super) const INDEX: &str = "lists";

/// The list whose one entry is the number of mappings.
pub(super) const COUNT: u32 = 0;

/// What is listed together, by what it is called.
fn list(kind: u8, name: &[u8]) -> u32 {
    container::hash(&[&[kind], name].concat()).max(COUNT + 1)
}

/// Returns the list of an owner's mappings.
pub(super) fn of_owner(id: &str) -> u32 {
    list(b'o', id.as_bytes())
}

/// Returns the list of what is there for a container's address.
pub(super) fn of_target(target: IpAddr) -> u32 {
    list(b't', &octets(target))
}

/// Returns the list of what is published at a port of one of the host's addresses.
pub(super) fn of_port(protocol: Protocol, port: u16) -> u32 {
    list(b'p', &entry::port_key(protocol, port))
}

/// Returns the key of a list's entry.
pub(super) fn key(list: u32, number: usize) -> Vec<u8> {
    [list.to_ne_bytes(), u32::try_from(number).unwrap_or(u32::MAX).to_ne_bytes()].concat()
}

/// Returns the entry that says how many mappings there are, in place of an address.
pub(super) fn of_count(family: Family, count: usize) -> Vec<u8> {
    let mut entry = vec![0; entry::address_length(family) - 4];
    entry.extend(u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
    entry.extend([0; 8]);
    entry
}

/// Reads that entry.
pub(super) fn count(entry: &[u8]) -> Option<usize> {
    let number = entry.len().checked_sub(12).and_then(|start| entry.get(start..)?.first_chunk::<4>());
    number.map(|number| u32::from_be_bytes(*number) as usize)
}

/// Returns the map and the key that an entry is for. That of a hairpin lacks the container's address.
pub(super) fn element(family: Family, entry: &[u8], target: Option<IpAddr>) -> Option<(String, Vec<u8>)> {
    let (address, port) = entry.split_at_checked(entry::address_length(family))?;
    match (port.first()?, address.iter().all(|byte| *byte == 0)) {
        (0, _) => Some((entry::hairpins(*port.get(5)?), [address, &octets(target?)].concat())),
        (_, true) => Some((ANY.to_owned(), port.to_vec())),
        (_, false) => Some((ADDRESS.to_owned(), entry.to_vec())),
    }
}

/// Returns an element's entry, and the lists that it is in.
fn entry(step: &MappingStep) -> Option<(Vec<u8>, Vec<u32>)> {
    match step {
        MappingStep::Withdraw(mapping) | MappingStep::Publish(mapping) => {
            let mut lists = vec![of_owner(&mapping.owner.id), of_target(mapping.target)];
            lists.extend(mapping.host_ip.map(|_| of_port(mapping.protocol, mapping.host.first)));
            is_listed(mapping).then(|| (entry::full_key(mapping, mapping.host.first), lists))
        }
        MappingStep::RemoveHairpin(hairpin) | MappingStep::AddHairpin(hairpin) => {
            let prefix = entry::padded(hairpin.network.prefix.into());
            let network = octets(hairpin.network.network().address);
            Some(([&network[..], &[0; 4], &prefix].concat(), vec![of_target(hairpin.target)]))
        }
    }
}

pub(super) fn is_listed(mapping: &Mapping) -> bool {
    [ADDRESS, ANY].contains(&entry::map(mapping))
}

/// For some lists, what is added to them, and what is taken away.
pub(super) type Changes = BTreeMap<u32, Vec<(bool, Vec<u8>)>>;

/// Returns what steps change.
pub(super) fn changes(steps: &[MappingStep]) -> Changes {
    let mut changes = Changes::new();
    for step in steps {
        let (entry, lists) = entry(step).unwrap_or_default();
        for list in lists {
            changes.entry(list).or_default().push((step.adds(), entry.clone()));
        }
        changes.entry(COUNT).or_default();
    }
    changes
}

/// Returns a list after such changes.
pub(super) fn changed(list: &[Vec<u8>], changes: Vec<(bool, Vec<u8>)>) -> Vec<Vec<u8>> {
    let mut list = list.to_vec();
    for (adds, entry) in changes {
        match list.iter().position(|other| *other == entry) {
            _ if adds => list.push(entry),
            Some(place) => drop(list.swap_remove(place)),
            None => {}
        }
    }
    list
}

/// Adds to a batch what makes one list of another.
pub(super) fn write(batch: &mut Batch, table: Table<'_>, list: u32, old: &[Vec<u8>], new: &[Vec<u8>]) {
    for number in (0..old.len().max(new.len())).filter(|number| old.get(*number) != new.get(*number)) {
        let element =
            |data: &Vec<u8>| Element { key: key(list, number), data: Some(data.clone()), ..Element::default() };
        if let Some(old) = old.get(number) {
            batch.push(&element(old).delete(table, INDEX), 0);
        }
        if let Some(new) = new.get(number) {
            batch.push(&element(new).create(table, INDEX), flag::CREATE);
        }
    }
}
