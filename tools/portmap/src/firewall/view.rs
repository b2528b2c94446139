//! What of ours the firewall has, read as far as a plan needs it: of thousands of mappings only those that matter.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::Context;
use netlink::nft::{Element, Family, Rule, Table, TableAnswer};
use netlink::{Raw, Socket, unless};
use rustix::io::Errno;

use crate::host;
use crate::mapping::{Mapping, MappingStep, Published};

use super::entry::{ADDRESS, ANY, HAIRPIN, INTERVALS};
use super::{FAMILIES, Place, entry, generation, guard, index, name, refused, ruleset};

/// Whoever wants more ports than this reads all mappings.
const MANY: usize = 256;

/// What of ours is there, as far as it was asked for.
#[derive(Debug)]
pub(crate) struct View<'a> {
    pub(super) socket: &'a mut Socket,
    /// The rule set's generation when the reading began.
    pub(super) generation: Option<u32>,
    /// What is known so far.
    pub(crate) known: Published,
    pub(super) tables: Vec<Found>,
    /// Whether the guard of 127.0.0.0/8 has its rule, where it is there.
    pub(super) guard: Option<bool>,
    asked: BTreeSet<(Family, String, Vec<u8>)>,
    lists: BTreeMap<(Family, u32), Vec<Vec<u8>>>,
}

/// A table that is there.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) place: Place,
    /// Whether it has all its rules, and its index.
    pub(super) is_whole: bool,
    /// Whether all its mappings are known.
    is_read: bool,
    /// The number of its mappings.
    pub(super) count: usize,
    /// The rules that read its sets, with those sets' names as comments.
    pub(super) readers: Vec<Rule>,
}

impl Found {
    /// Returns the sets that are read.
    pub(super) fn sets(&self) -> Vec<String> {
        self.readers.iter().filter_map(|rule| rule.comment.clone()).collect()
    }
}

impl<'a> View<'a> {
    /// Reads what tables are there, what processes hold, and what no index finds.
    pub(super) fn open(socket: &'a mut Socket) -> anyhow::Result<Self> {
        let generation = generation(socket)?;
        let (known, tables, guard, asked, lists) = Default::default();
        let mut view = Self { socket, generation, known, tables, guard, asked, lists };
        for answer in view.dump(&Table::dump())? {
            let answer = TableAnswer::read(&answer);
            if (answer.family, answer.name.as_str()) == (guard::TABLE.family.number(), guard::TABLE.name) {
                view.guard = Some(view.dump(&guard::TABLE.dump_rules(None))?.len() == guard::RULES);
            }
            let family = FAMILIES.into_iter().find(|family| family.number() == answer.family);
            let place = family.map(|family| (family, answer.owner)).filter(|place| answer.name == name(*place));
            if let Some(place) = place {
                view.read_table(place)?;
            }
        }
        Ok(view)
    }

    /// Reads all.
    pub(crate) fn read_all(&mut self) -> anyhow::Result<&Published> {
        FAMILIES.into_iter().try_for_each(|family| self.read_rest((family, None)))?;
        Ok(&self.known)
    }

    /// Returns all.
    pub(crate) fn read(mut self) -> anyhow::Result<Published> {
        self.read_all()?;
        Ok(self.known)
    }

    /// Reads what an owner has, and all for its addresses.
    pub(crate) fn read_owner(&mut self, id: &str) -> anyhow::Result<&Published> {
        for family in FAMILIES {
            let list = self.list(family, index::of_owner(id))?;
            self.find(family, &list, None)?;
            let own = self.known.mappings.iter().filter(|mapping| mapping.owner.id == id);
            let targets: BTreeSet<IpAddr> = own.map(|mapping| mapping.target).collect();
            targets.into_iter().try_for_each(|target| self.read_target(target))?;
        }
        Ok(&self.known)
    }

    /// Reads all that is there for a container's address.
    pub(crate) fn read_target(&mut self, target: IpAddr) -> anyhow::Result<()> {
        let family = entry::family(target);
        let list = self.list(family, index::of_target(target))?;
        self.find(family, &list, Some(target))
    }

    /// Reads what could have one of the mappings' ports.
    pub(crate) fn read_ports(&mut self, mappings: &[Mapping]) -> anyhow::Result<()> {
        for family in FAMILIES {
            let own = || mappings.iter().filter(|mapping| entry::family(mapping.target) == family);
            let ports = || own().flat_map(|mapping| mapping.host.ports().map(move |port| (mapping, port)));
            if ports().count() > MANY {
                self.read_rest((family, None))?;
                continue;
            }
            let mut keys = Vec::new();
            for (mapping, port) in ports() {
                keys.push(entry::full_key(&Mapping { host_ip: None, ..mapping.clone() }, port));
                match mapping.host_ip {
                    Some(_) => keys.push(entry::full_key(mapping, port)),
                    None => keys.extend(self.list(family, index::of_port(mapping.protocol, port))?),
                }
            }
            self.find(family, &keys, None)?;
        }
        Ok(())
    }

    /// Tells whether all tables of ports have their rules.
    pub(crate) fn is_whole(&self) -> bool {
        self.tables.iter().all(|table| table.is_whole)
    }

    /// Tells whether 127.0.0.0/8 is open to neighbours and containers.
    pub(crate) fn is_open(&self) -> anyhow::Result<bool> {
        let guards = |table: &Found| table.place.0 == Family::Ip && table.place.1.is_some();
        let is_guarded = self.guard == Some(true) || self.tables.iter().any(guards);
        Ok(!is_guarded && !host::localnets()?.is_empty())
    }

    pub(super) fn table(&self, place: Place) -> Option<&Found> {
        self.tables.iter().find(|table| table.place == place)
    }

    /// Counts what there will be: before a table goes that others have written to, too, it is read.
    pub(super) fn count(&mut self, steps: &[MappingStep]) -> anyhow::Result<()> {
        for family in FAMILIES {
            if self.left((family, None), steps) == 0 {
                self.read_rest((family, None))?;
            }
        }
        Ok(())
    }

    /// Returns how many mappings a table will have.
    pub(super) fn left(&self, place: Place, steps: &[MappingStep]) -> usize {
        let of = |step: &MappingStep| match step {
            MappingStep::Withdraw(mapping) | MappingStep::Publish(mapping) => entry::place_of(mapping) == place,
            MappingStep::RemoveHairpin(_) | MappingStep::AddHairpin(_) => false,
        };
        let number = |adds| steps.iter().filter(|step| of(step) && step.adds() == adds).count();
        (self.table(place).map_or(0, |table| table.count) + number(true)).saturating_sub(number(false))
    }

    /// Tells whether anything of IPv4 will be published.
    pub(super) fn has_ipv4(&self, steps: &[MappingStep]) -> bool {
        let places = self.tables.iter().map(|table| table.place).chain(steps.iter().map(entry::place));
        let places: BTreeSet<Place> = places.filter(|place| place.0 == Family::Ip).collect();
        places.into_iter().any(|place| self.left(place, steps) > 0)
    }

    /// Returns all that will be in a table, as steps.
    pub(super) fn all_of(&self, place: Place, steps: &[MappingStep]) -> Vec<MappingStep> {
        let mappings = self.known.mappings.iter().filter(|m| entry::place_of(m) == place).cloned();
        let hairpins = self.known.hairpins.iter().filter(|h| (entry::family(h.target), h.held_by) == place).cloned();
        let mut all: Vec<MappingStep> =
            mappings.map(MappingStep::Publish).chain(hairpins.map(MappingStep::AddHairpin)).collect();
        for step in steps.iter().filter(|step| entry::place(step) == place) {
            match step {
                MappingStep::Withdraw(gone) => {
                    all.retain(|step| !matches!(step, MappingStep::Publish(there) if there == gone));
                }
                MappingStep::RemoveHairpin(gone) => {
                    all.retain(|step| !matches!(step, MappingStep::AddHairpin(there) if there == gone));
                }
                MappingStep::Publish(_) | MappingStep::AddHairpin(_) => all.push(step.clone()),
            }
        }
        all
    }

    /// Reads a list of the index of what is not held.
    pub(super) fn list(&mut self, family: Family, list: u32) -> anyhow::Result<Vec<Vec<u8>>> {
        if let Some(known) = self.lists.get(&(family, list)) {
            return Ok(known.clone());
        }
        let mut entries: Vec<Vec<u8>> = Vec::new();
        if self.table((family, None)).is_none() {
            return Ok(entries);
        }
        loop {
            let some = if list == index::COUNT { 1 } else { entries.len().clamp(2, MANY) };
            let keys = entries.len()..entries.len() + some;
            let keys: Vec<_> = keys.map(|number| (index::INDEX.to_owned(), index::key(list, number))).collect();
            let read: Vec<_> = self.elements(family, &keys)?.into_iter().map_while(|e| e?.data).collect();
            entries.extend_from_slice(&read);
            if list == index::COUNT || read.len() < some {
                self.lists.insert((family, list), entries.clone());
                return Ok(entries);
            }
        }
    }

    /// Reads the elements that entries of the index are for.
    fn find(&mut self, family: Family, entries: &[Vec<u8>], target: Option<IpAddr>) -> anyhow::Result<()> {
        let place = (family, None);
        if self.table(place).is_none_or(|table| table.is_read) {
            return Ok(());
        }
        let mut keys: Vec<_> = entries.iter().filter_map(|entry| index::element(family, entry, target)).collect();
        keys.retain(|(map, key)| self.asked.insert((family, map.clone(), key.clone())));
        let elements = self.elements(family, &keys)?;
        for ((map, _), element) in keys.iter().zip(elements) {
            self.take(place, map, element.iter());
        }
        Ok(())
    }

    fn elements(&mut self, family: Family, keys: &[(String, Vec<u8>)]) -> anyhow::Result<Vec<Option<Element>>> {
        let name = name((family, None));
        let table = Table { family, name: &name };
        let requests: Vec<Raw> = keys.iter().map(|(map, key)| Element::find(key, table, map)).collect();
        let answers = self.socket.fetch_each(&requests).map_err(refused).context("read nftables' maps")?;
        Ok(answers.iter().map(|answer| Element::read(answer.as_ref()?).pop()).collect())
    }

    fn take<'e>(&mut self, place: Place, map: &str, elements: impl Iterator<Item = &'e Element>) {
        if map.starts_with(HAIRPIN) {
            self.known.hairpins.extend(elements.filter_map(|e| entry::read_hairpin(place, map, e)));
        } else {
            self.known.mappings.extend(elements.filter_map(|e| entry::read_mapping(place, map, e)));
        }
    }

    /// Reads what a table is like. Of one that is not whole, or that a process holds, all is read.
    fn read_table(&mut self, place: Place) -> anyhow::Result<()> {
        let name = name(place);
        let rules = self.dump(&Table { family: place.0, name: &name }.dump_rules(None))?;
        let readers: Vec<Rule> = rules.iter().map(Rule::read).filter(|rule| rule.comment.is_some()).collect();
        let found = Found { place, is_whole: false, is_read: false, count: 0, readers };
        let sets = found.sets();
        let is_read = |set: &&str| sets.iter().any(|other| other == set);
        let has_rules = rules.len() == ruleset::RULES + sets.len() && ruleset::ALWAYS.iter().all(&is_read);
        self.tables.push(found);
        self.read_maps(place, INTERVALS.into_iter().filter(|set| !has_rules || is_read(set)))?;
        let list = if place.1.is_none() { self.list(place.0, index::COUNT)? } else { Vec::new() };
        let count = list.first().and_then(|entry| index::count(entry)).filter(|_| has_rules);
        if let Some(table) = self.tables.last_mut() {
            // Nobody but its process changes what is held.
            table.is_whole = place.1.is_some() || count.is_some();
            table.count = count.unwrap_or_default();
        }
        if count.is_none() { self.read_rest(place) } else { Ok(()) }
    }

    /// Reads what an index finds, unless that was done.
    fn read_rest(&mut self, place: Place) -> anyhow::Result<()> {
        if self.table(place).is_none_or(|table| table.is_read) {
            return Ok(());
        }
        let is_listed = |mapping: &Mapping| entry::place_of(mapping) == place && index::is_listed(mapping);
        self.known.mappings.retain(|mapping| !is_listed(mapping));
        self.known.hairpins.retain(|hairpin| (entry::family(hairpin.target), hairpin.held_by) != place);
        let sets = self.table(place).map(Found::sets).unwrap_or_default();
        let hairpins = sets.iter().map(String::as_str).filter(|set| set.starts_with(HAIRPIN));
        self.read_maps(place, [ADDRESS, ANY, HAIRPIN].into_iter().chain(hairpins))?;
        let count = self.known.mappings.iter().filter(|mapping| entry::place_of(mapping) == place).count();
        if let Some(table) = self.tables.iter_mut().find(|table| table.place == place) {
            (table.is_read, table.count) = (true, count);
        }
        Ok(())
    }

    fn read_maps<'m>(&mut self, place: Place, maps: impl Iterator<Item = &'m str>) -> anyhow::Result<()> {
        let name = name(place);
        for map in maps {
            let answers = self.dump(&Element::dump(Table { family: place.0, name: &name }, map))?;
            self.take(place, map, answers.iter().flat_map(Element::read).collect::<Vec<_>>().iter());
        }
        Ok(())
    }

    /// Dumps; nothing where what was asked for is not there.
    fn dump(&mut self, request: &Raw) -> anyhow::Result<Vec<Raw>> {
        let answers = unless(Errno::NOENT, self.socket.dump(request));
        answers.map(Option::unwrap_or_default).map_err(refused).context("read nftables' rule set")
    }
}
