//! The kernel's firewall as the store of what is published: nftables' maps hold the mappings, their comments the owners.
//! Nothing is kept anywhere else, so nothing can be stale.

mod entry;
mod guard;
mod index;
mod ruleset;
mod view;

use anyhow::{Context, Result, bail};
use log::{debug, warn};
use netlink::nft::{Family, Table};
use netlink::{Batch, Socket, flag};
use rustix::io::Errno;

use crate::host;
use crate::mapping::{self, Mapping, MappingStep};

pub(crate) use entry::number as protocol_number;
pub(crate) use view::View;

/// The name of our tables; those that a process holds have its socket's number behind it.
const TABLE: &str = "portmap";

/// What is wrong where 127.0.0.0/8 is open.
pub(crate) const OPEN: &str = "127.0.0.0/8 is open to neighbours and containers, since the firewall's table portmap-guard has lost \
                               its rule: `portmap restore` or `portmap gc` mends that";

pub(crate) const FAMILIES: [Family; 2] = [Family::Ip, Family::Ip6];

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

fn name(place: Place) -> String {
    place.1.map_or_else(|| TABLE.to_owned(), |holder| format!("{TABLE}-{holder}"))
}

impl Firewall {
    /// Opens the firewall of the calling thread's network namespace.
    pub(crate) fn open() -> Result<Self> {
        let socket = Socket::open(netlink::NetlinkFamily::Netfilter).context("open nftables")?;
        Ok(Self { socket, holder: None })
    }

    /// Opens it as one whose mappings the kernel removes when this is dropped, however the process ends.
    pub(crate) fn open_as_holder() -> Result<Self> {
        let firewall = Self::open()?;
        let holder = Some(firewall.socket.number().context("open nftables")?);
        Ok(Self { holder, ..firewall })
    }

    /// Returns what mappings that this publishes are held by.
    pub(crate) fn holder(&self) -> Option<u32> {
        self.holder
    }

    /// Tells whether ports can be translated at all: it needs a privilege, and a kernel that has nftables.
    pub(crate) fn is_usable() -> Result<bool> {
        match Self::open().and_then(|mut firewall| generation(&mut firewall.socket)) {
            Err(error) if reason(&error).is_some_and(|errno| sys::file::says_nothing(&errno.into())) => Err(error),
            asked => Ok(asked.is_ok()),
        }
    }

    /// Looks at what is there, if this user may.
    pub(crate) fn visible(&mut self) -> Result<Option<View<'_>>> {
        match self.view() {
            Err(error) if is_denied(&error) => {
                warn!("only what proxies serve is looked at: {error:#}");
                Ok(None)
            }
            view => view.map(Some),
        }
    }

    /// Looks at what is there.
    pub(crate) fn view(&mut self) -> Result<View<'_>> {
        View::open(&mut self.socket)
    }

    /// Withdraws those mappings of an owner, or of all, that `leaves` says. Returns the steps.
    pub(crate) fn withdraw(
        &mut self,
        owner: Option<&str>,
        leaves: impl Fn(&Mapping) -> bool,
    ) -> Result<Vec<MappingStep>> {
        self.change(|view| {
            let present = if let Some(id) = owner { view.read_owner(id)? } else { view.read_all()? };
            Ok(mapping::withdraw(present, &leaves))
        })
    }

    /// Makes a plan from what is published, and does it in one transaction, which the kernel does only if nothing was
    /// changed since the plan was made. Returns the steps.
    pub(crate) fn change(
        &mut self,
        mut plan: impl FnMut(&mut View<'_>) -> Result<Vec<MappingStep>>,
    ) -> Result<Vec<MappingStep>> {
        let holder = self.holder;
        for _ in 0..TRIES {
            let mut view = self.view()?;
            let steps = plan(&mut view)?;
            view.count(&steps)?;
            let (had, has) = (view.has_ipv4(&[]), view.has_ipv4(&steps));
            // A killed process that held ports, or a flushed rule set, may have left the switch on without a trace.
            let idle = !has && (had || view.guard.is_some() || steps.is_empty());
            let switched_off = if idle { host::leave_localnets()? } else { Vec::new() };
            let Err(error) = view.apply(&steps, holder) else { return Ok(steps) };
            // The guard is there still.
            switched_off.iter().try_for_each(|interface| host::route_localnet(interface))?;
            match reason(&error) {
                Some(Errno::RESTART) => debug!("the firewall changed: plan anew"),
                _ => return Err(refusal(&steps, error)),
            }
        }
        bail!("change the firewall: somebody else changes it all the time")
    }

    /// Closes 127.0.0.0/8 to neighbours and containers.
    pub(crate) fn guard(&mut self) -> Result<()> {
        let mut batch = Batch::nftables(None);
        batch.push(&guard::TABLE.create(), flag::CREATE);
        guard::write(&mut batch, guard::TABLE);
        self.socket.batch(&batch.end()).context("guard 127.0.0.0/8")
    }
}

impl View<'_> {
    /// Does what is planned, in one transaction.
    fn apply(&mut self, steps: &[MappingStep], holder: Option<u32>) -> Result<()> {
        let mut batch = Batch::nftables(self.generation);
        match (self.guard, self.has_ipv4(steps)) {
            (None | Some(false), true) => {
                batch.push(&guard::TABLE.create(), flag::CREATE);
                guard::write(&mut batch, guard::TABLE);
            }
            (Some(_), false) => batch.push(&guard::TABLE.delete(), 0),
            _ => {}
        }
        let holders = [Some(None), holder.map(Some)];
        for place in holders.into_iter().flatten().flat_map(|holder| FAMILIES.map(|family| (family, holder))) {
            self.add_table(&mut batch, place, steps)?;
        }
        if batch.is_empty() { Ok(()) } else { Ok(self.socket.batch(&batch.end())?) }
    }

    /// Adds what the steps change in a table; one that lacks something, or that is of an older kind, is made anew.
    fn add_table(&mut self, batch: &mut Batch, place: Place, steps: &[MappingStep]) -> Result<()> {
        let name = name(place);
        let table = Table { family: place.0, name: &name };
        let count = self.left(place, steps);
        let found = self.table(place).cloned();
        let whole = found.as_ref().filter(|found| found.is_whole && count > 0);
        if found.is_some() && whole.is_none() {
            batch.push(&table.delete(), 0);
        }
        if count == 0 {
            return Ok(());
        }
        let (mut sets, own) = if let Some(found) = whole {
            (found.sets(), steps.iter().filter(|step| entry::place(step) == place).cloned().collect())
        } else {
            ruleset::write(batch, table, place.1.is_some());
            (ruleset::ALWAYS.map(str::to_owned).to_vec(), self.all_of(place, steps))
        };
        for step in &own {
            debug!("{step}");
            let set = entry::set(step);
            if step.adds() && !sets.contains(&set) {
                ruleset::write_set(batch, table, &set);
                sets.push(set);
            }
            let (message, flags) = entry::message(step, table);
            batch.push(&message, flags);
        }
        for rule in whole.iter().flat_map(|found| &found.readers) {
            let set = rule.comment.as_deref().filter(|set| entry::INTERVALS.contains(set));
            if let Some(set) = set.filter(|set| self.all_of(place, steps).iter().all(|step| entry::set(step) != *set)) {
                batch.push(&table.delete_rule(rule), 0);
                batch.push(&table.delete_set(set), 0);
            }
        }
        // What is held is always read whole.
        let lists = if place.1.is_none() { index::changes(&own) } else { index::Changes::new() };
        for (list, changes) in lists {
            let old = if whole.is_some() { self.list(place.0, list)? } else { Vec::new() };
            let is_count = list == index::COUNT;
            let new = if is_count { vec![index::of_count(place.0, count)] } else { index::changed(&old, changes) };
            index::write(batch, table, list, &old, &new);
        }
        Ok(())
    }
}

fn generation(socket: &mut Socket) -> Result<Option<u32>> {
    let answer = socket.fetch(&netlink::nft::generation_request()).map_err(refused);
    Ok(netlink::nft::generation(&answer.context("read nftables' rule set")?))
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

fn refusal(steps: &[MappingStep], error: anyhow::Error) -> anyhow::Error {
    let what = match steps {
        [step] => step.to_string(),
        [step, ..] => format!("{step} and {} more", steps.len() - 1),
        [] => "change the firewall".to_owned(),
    };
    error.context(what)
}
