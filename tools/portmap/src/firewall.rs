//! The kernel's firewall as the store of what is published: nftables' maps hold the mappings, their comments the owners.
//! Nothing is kept anywhere else, so nothing can be stale.

mod entry;
mod guard;
mod ruleset;

use anyhow::{Context, bail};
use log::{debug, warn};
use netlink::nft::{Element, Family, Table, TableAnswer};
use netlink::{Batch, Raw, Socket, flag};
use rustix::io::Errno;

use crate::host;
use crate::mapping::{Published, Step};

use entry::MAPS;
pub(crate) use entry::number as protocol_number;

/// The name of our tables; those that a process holds have its socket's number behind it.
const TABLE: &str = "portmap";

/// What is wrong where 127.0.0.0/8 is open.
pub(crate) const OPEN: &str = "127.0.0.0/8 is open to neighbours and containers, since the firewall's table portmap-guard has lost \
                               its rule: `portmap restore` or `portmap gc` mends that";

const FAMILIES: [Family; 2] = [Family::Ip, Family::Ip6];

/// Somebody else changed the rule set while a plan was made from it: so many times it is made anew.
const TRIES: usize = 64;

/// The firewall of the network namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Firewall {
    socket: Socket,
    /// The socket's number, where what it publishes is held by it.
    holder: Option<u32>,
}

/// A table's family, and the number of the socket that holds it.
type Place = (Family, Option<u32>);

/// What of ours is there.
#[derive(Debug, Default)]
struct State {
    published: Published,
    tables: Vec<Found>,
    /// Whether the guard of 127.0.0.0/8 has its rule, where it is there.
    guard: Option<bool>,
}

/// What is published, and what is missing that it needs.
#[derive(Debug)]
pub(crate) struct Audit {
    pub(crate) published: Published,
    /// Whether all tables of ports have their rules.
    pub(crate) is_whole: bool,
    /// Whether 127.0.0.0/8 is open to neighbours and containers.
    pub(crate) is_open: bool,
}

/// A table that is there.
#[derive(Clone, Copy, Debug)]
struct Found {
    place: Place,
    /// Whether it has all its rules.
    is_whole: bool,
    /// Whether it has the map of ports with conditions, and the rule that reads it.
    has_conditions: bool,
}

/// What a table is made of.
#[derive(Clone, Copy, Debug)]
struct Shape {
    is_owned: bool,
    has_conditions: bool,
}

fn name(place: Place) -> String {
    place.1.map_or_else(|| TABLE.to_owned(), |holder| format!("{TABLE}-{holder}"))
}

impl Firewall {
    /// Opens the firewall of the calling thread's network namespace.
    pub(crate) fn open() -> anyhow::Result<Self> {
        let socket = Socket::open(netlink::Family::Netfilter).context("open nftables")?;
        Ok(Self { socket, holder: None })
    }

    /// Opens it as one whose mappings the kernel removes when this is dropped, however the process ends.
    pub(crate) fn open_as_holder() -> anyhow::Result<Self> {
        let firewall = Self::open()?;
        let holder = Some(firewall.socket.number().context("open nftables")?);
        Ok(Self { holder, ..firewall })
    }

    /// Returns what mappings that this publishes are held by.
    pub(crate) fn holder(&self) -> Option<u32> {
        self.holder
    }

    /// Tells whether ports can be translated at all: it needs a privilege, and a kernel that has nftables.
    pub(crate) fn is_usable() -> anyhow::Result<bool> {
        match Self::open().and_then(|mut firewall| firewall.generation()) {
            Err(error) if reason(&error).is_some_and(|errno| sys::file::says_nothing(&errno.into())) => Err(error),
            asked => Ok(asked.is_ok()),
        }
    }

    /// Returns what is published, as far as this user may see it.
    pub(crate) fn visible(&mut self) -> anyhow::Result<Audit> {
        match self.audit() {
            Err(error) if is_denied(&error) => {
                warn!("only what proxies serve is looked at: {error:#}");
                Ok(Audit { published: Published::default(), is_whole: true, is_open: false })
            }
            audited => audited,
        }
    }

    /// Returns what is published.
    pub(crate) fn published(&mut self) -> anyhow::Result<Published> {
        Ok(self.state()?.published)
    }

    /// Returns what is published, and what is missing that it needs.
    pub(crate) fn audit(&mut self) -> anyhow::Result<Audit> {
        let state = self.state()?;
        let guards = |table: &Found| table.is_whole && table.place.0 == Family::Ip && table.place.1.is_some();
        let is_guarded = state.guard == Some(true) || state.tables.iter().any(guards);
        let is_open = !is_guarded && !host::localnets()?.is_empty();
        let is_whole = state.tables.into_iter().all(|table| table.is_whole);
        Ok(Audit { published: state.published, is_whole, is_open })
    }

    /// Makes a plan from what is published, and does it in one transaction, which the kernel does only if nothing was
    /// changed since the plan was made. Returns the steps.
    pub(crate) fn change(
        &mut self,
        mut plan: impl FnMut(&Published) -> anyhow::Result<Vec<Step>>,
    ) -> anyhow::Result<Vec<Step>> {
        for _ in 0..TRIES {
            let generation = self.generation()?;
            let state = self.state()?;
            let steps = plan(&state.published)?;
            let after = after(&state.published, &steps);
            // A killed process that held ports, or a flushed rule set, may have left the switch on without a trace.
            let idle = !has_ipv4(&after) && (state.guard.is_some() || !has_ipv4(&state.published));
            let switched_off = if idle { host::leave_localnets()? } else { Vec::new() };
            let Err(error) = self.apply(&state, &steps, &after, generation) else { return Ok(steps) };
            // The guard is there still.
            switched_off.iter().try_for_each(|interface| host::route_localnet(interface))?;
            match error.errno() {
                Some(Errno::RESTART) => debug!("the firewall changed: plan anew"),
                _ => return Err(refusal(&steps, error)),
            }
        }
        bail!("change the firewall: somebody else changes it all the time")
    }

    /// Closes 127.0.0.0/8 to neighbours and containers.
    pub(crate) fn guard(&mut self) -> anyhow::Result<()> {
        let mut batch = Batch::nftables(None);
        batch.push(&guard::TABLE.create(), flag::CREATE);
        guard::write(&mut batch, guard::TABLE);
        self.socket.batch(&batch.end()).context("guard 127.0.0.0/8")
    }

    fn apply(
        &mut self,
        state: &State,
        steps: &[Step],
        after: &Published,
        generation: Option<u32>,
    ) -> Result<(), netlink::Error> {
        let mut batch = Batch::nftables(generation);
        match (state.guard, has_ipv4(after)) {
            (None | Some(false), true) => {
                batch.push(&guard::TABLE.create(), flag::CREATE);
                guard::write(&mut batch, guard::TABLE);
            }
            (Some(_), false) => batch.push(&guard::TABLE.delete(), 0),
            _ => {}
        }
        let holders = [Some(None), self.holder.map(Some)];
        for place in holders.into_iter().flatten().flat_map(|holder| FAMILIES.map(|family| (family, holder))) {
            let mut needed = after.mappings.iter().filter(|mapping| entry::place_of(mapping) == place).peekable();
            let is_needed = needed.peek().is_some();
            let shape = Shape {
                is_owned: place.1.is_some(),
                has_conditions: needed.any(|mapping| mapping.condition.is_some()),
            };
            let found = state.tables.iter().find(|table| table.place == place);
            let had_conditions = found.is_some_and(|table| table.has_conditions);
            let name = name(place);
            let table = Table { family: place.0, name: &name };
            match (found.map(|table| table.is_whole && had_conditions == shape.has_conditions), is_needed) {
                (None, false) => continue,
                (Some(_), false) => {
                    batch.push(&table.delete(), 0);
                    continue;
                }
                (None | Some(false), true) => ruleset::write(&mut batch, table, shape),
                (Some(true), true) => {}
            }
            for step in steps.iter().filter(|step| entry::place(step) == place) {
                debug!("{step}");
                let (message, flags) = entry::message(step, table);
                batch.push(&message, flags);
            }
            if had_conditions && !shape.has_conditions {
                batch.push(&table.delete_set(entry::CONDITIONAL), 0);
            }
        }
        if batch.is_empty() { Ok(()) } else { self.socket.batch(&batch.end()) }
    }

    fn generation(&mut self) -> anyhow::Result<Option<u32>> {
        let answer = self.socket.fetch(&netlink::nft::generation_request()).map_err(refused);
        Ok(netlink::nft::generation(&answer.context("read nftables' generation")?))
    }

    fn state(&mut self) -> anyhow::Result<State> {
        let mut state = State::default();
        for answer in self.dump(&Table::dump())?.unwrap_or_default() {
            let answer = TableAnswer::read(&answer);
            if (answer.family, answer.name.as_str()) == (guard::TABLE.family.number(), guard::TABLE.name) {
                let rules = self.dump(&guard::TABLE.dump_rules(None))?.unwrap_or_default();
                state.guard = Some(rules.len() == guard::RULES);
            }
            let family = FAMILIES.into_iter().find(|family| family.number() == answer.family);
            let Some(place) = family.map(|family| (family, answer.owner)) else { continue };
            if answer.name != name(place) {
                continue;
            }
            let found = self.read_table(place, &mut state.published)?;
            state.tables.push(found);
        }
        Ok(state)
    }

    /// Reads what is published in a table. Returns what the table is like.
    fn read_table(&mut self, place: Place, published: &mut Published) -> anyhow::Result<Found> {
        let name = name(place);
        let table = Table { family: place.0, name: &name };
        let rules = self.dump(&table.dump_rules(None))?.unwrap_or_default();
        let conditional = self.dump(&Element::dump(table, entry::CONDITIONAL))?;
        let has_conditions = conditional.is_some();
        let elements = conditional.iter().flatten().flat_map(Element::read);
        published.mappings.extend(elements.filter_map(|e| entry::read_conditional(place, &e)));
        let shape = Shape { is_owned: place.1.is_some(), has_conditions };
        let mut is_whole = rules.len() == ruleset::rule_count(place.0, shape);
        for map in MAPS {
            match self.dump(&Element::dump(table, map))? {
                Some(answers) => {
                    let elements = answers.iter().flat_map(Element::read);
                    published.mappings.extend(elements.filter_map(|e| entry::read_mapping(place, map, &e)));
                }
                None => is_whole = false,
            }
        }
        if let Some(answers) = self.dump(&Element::dump(table, entry::HAIRPIN))? {
            let elements = answers.iter().flat_map(Element::read);
            published.hairpins.extend(elements.filter_map(|e| entry::read_hairpin(place, &e)));
        }
        Ok(Found { place, is_whole, has_conditions })
    }

    /// Dumps; `None` where what was asked for is not there.
    fn dump(&mut self, request: &Raw) -> anyhow::Result<Option<Vec<Raw>>> {
        match self.socket.dump(request) {
            Ok(answers) => Ok(Some(answers)),
            Err(error) if error.errno() == Some(Errno::NOENT) => Ok(None),
            Err(error) => Err(refused(error)).context("read nftables' rule set"),
        }
    }
}

/// The kernel's answer to one who may not look.
#[derive(Debug, thiserror::Error)]
#[error("{0}: CAP_NET_ADMIN over the network namespace is needed")]
struct Denied(netlink::Error);

fn refused(error: netlink::Error) -> anyhow::Error {
    if matches!(error.errno(), Some(Errno::PERM | Errno::ACCESS)) { Denied(error).into() } else { error.into() }
}

/// Tells whether a privilege was missing.
pub(crate) fn is_denied(error: &anyhow::Error) -> bool {
    error.is::<Denied>()
}

/// Returns the system's reason for an error of netlink's.
fn reason(error: &anyhow::Error) -> Option<Errno> {
    error.chain().find_map(|cause| cause.downcast_ref::<netlink::Error>()).and_then(netlink::Error::errno)
}

fn has_ipv4(published: &Published) -> bool {
    published.mappings.iter().any(|mapping| mapping.target.is_ipv4())
}

/// What will be published when the steps are done.
fn after(present: &Published, steps: &[Step]) -> Published {
    let mut after = present.clone();
    for step in steps {
        match step {
            Step::Withdraw(mapping) => after.mappings.retain(|other| other != mapping),
            Step::Publish(mapping) => after.mappings.push(mapping.clone()),
            Step::Unloop(hairpin) => after.hairpins.retain(|other| other != hairpin),
            Step::Loop(hairpin) => after.hairpins.push(hairpin.clone()),
        }
    }
    after
}

fn refusal(steps: &[Step], error: netlink::Error) -> anyhow::Error {
    let what = match steps {
        [step] => step.to_string(),
        [step, ..] => format!("{step} and {} more", steps.len() - 1),
        [] => "change the firewall".to_owned(),
    };
    anyhow::Error::from(error).context(what)
}
