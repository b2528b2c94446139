//! The kernel's firewall as the store of what is published: nftables' maps hold the mappings, their comments the owners.
//! Nothing is kept anywhere else, so nothing can be stale.

mod entry;
mod ruleset;

use anyhow::{Context, anyhow, bail};
use log::debug;
use netlink::nft::{Chain, Element, Family, Rule, Table};
use netlink::{Batch, Raw, Socket, flag};
use rustix::io::Errno;

use crate::mapping::{Published, Step};

use entry::MAPS;
pub(crate) use entry::number as protocol_number;

/// The name of our tables.
const TABLE: &str = "portmap";

const FAMILIES: [Family; 2] = [Family::Ip, Family::Ip6];

/// Somebody else changed the rule set while a plan was made from it: so many times it is made anew.
const TRIES: usize = 64;

/// The firewall of the network namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Firewall(Socket);

/// What of ours is there.
#[derive(Debug, Default)]
struct State {
    published: Published,
    /// For each family, whether its table is there, and whether it has all its rules.
    tables: [Option<bool>; 2],
}

fn table(family: Family) -> Table<'static> {
    Table { family, name: TABLE }
}

impl Firewall {
    /// Opens the firewall of the calling thread's network namespace.
    pub(crate) fn open() -> anyhow::Result<Self> {
        Socket::open(netlink::Family::Netfilter).map(Self).context("open nftables")
    }

    /// Returns what is published.
    pub(crate) fn published(&mut self) -> anyhow::Result<Published> {
        Ok(self.state()?.published)
    }

    /// Returns what is published, and whether all the rules are there that it needs.
    pub(crate) fn audit(&mut self) -> anyhow::Result<(Published, bool)> {
        let state = self.state()?;
        Ok((state.published, state.tables.into_iter().flatten().all(|whole| whole)))
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
            match self.apply(&state, &steps, generation) {
                Ok(()) => return Ok(steps),
                Err(error) if error.error.errno() == Some(Errno::RESTART) => debug!("the firewall changed: plan anew"),
                Err(error) => return Err(refusal(&steps, &error)),
            }
        }
        bail!("change the firewall: somebody else changes it all the time")
    }

    fn apply(&mut self, state: &State, steps: &[Step], generation: Option<u32>) -> Result<(), netlink::BatchError> {
        let mut batch = Batch::nftables(generation);
        let after = after(&state.published, steps);
        let mut messages = 0;
        for (family, table_is_whole) in FAMILIES.into_iter().zip(state.tables) {
            let needed = after.mappings.iter().any(|mapping| entry::family(mapping.target) == family);
            match (table_is_whole, needed) {
                (Some(_), false) => {
                    batch.push(&table(family).delete(), 0);
                    messages += 1;
                    continue;
                }
                (None | Some(false), true) => {
                    ruleset::write(&mut batch, table(family));
                    messages += 1;
                }
                _ => {}
            }
            for step in steps.iter().filter(|step| needed && entry::family_of(step) == family) {
                debug!("{step}");
                let (set, message, flags) = entry::message(step, table(family));
                debug_assert!(MAPS.contains(&set) || set == entry::HAIRPIN, "a set of ours");
                batch.push(&message, flags);
                messages += 1;
            }
        }
        if messages == 0 { Ok(()) } else { self.0.batch(&batch.end()) }
    }

    fn generation(&mut self) -> anyhow::Result<Option<u32>> {
        let answer = self.0.fetch(&netlink::nft::generation_request()).context("read the firewall's generation")?;
        Ok(netlink::nft::generation(&answer))
    }

    fn state(&mut self) -> anyhow::Result<State> {
        let mut state = State::default();
        for (index, family) in FAMILIES.into_iter().enumerate() {
            let Some(rules) = self.dump(&table(family).dump_rules(None))? else { continue };
            let mut whole = rules.len() == ruleset::rule_count(family);
            for map in MAPS {
                match self.dump(&Element::dump(table(family), map))? {
                    Some(answers) => {
                        let elements = answers.iter().flat_map(Element::read);
                        state.published.mappings.extend(elements.filter_map(|e| entry::read_mapping(family, map, &e)));
                    }
                    None => whole = false,
                }
            }
            if let Some(answers) = self.dump(&Element::dump(table(family), entry::HAIRPIN))? {
                let elements = answers.iter().flat_map(Element::read);
                state.published.hairpins.extend(elements.filter_map(|e| entry::read_hairpin(family, &e)));
            }
            // Without a table of this name the kernel answers with no rules at all.
            let there = whole || !rules.is_empty() || self.has_table(family)?;
            state.tables[index] = there.then_some(whole);
        }
        Ok(state)
    }

    fn has_table(&mut self, family: Family) -> anyhow::Result<bool> {
        let chains = self.dump(&Chain::dump())?.unwrap_or_default();
        Ok(chains.iter().map(Chain::read).any(|chain| chain.family == family.number() && chain.table == TABLE))
    }

    /// Returns all the base chains that packets between interfaces must pass.
    pub(crate) fn forward_chains(&mut self) -> anyhow::Result<Vec<Chain>> {
        let chains = self.dump(&Chain::dump())?.unwrap_or_default();
        let forwards = |chain: &Chain| chain.hook == Some(netlink::nft::Hook::FORWARD);
        Ok(chains.iter().map(Chain::read).filter(forwards).collect())
    }

    /// Returns the rules of somebody's chain.
    pub(crate) fn rules(&mut self, of: Table<'_>, chain: &str) -> anyhow::Result<Vec<Rule>> {
        Ok(self.dump(&of.dump_rules(Some(chain)))?.unwrap_or_default().iter().map(Rule::read).collect())
    }

    /// Puts a rule at the head of somebody's chain.
    pub(crate) fn insert_rule(&mut self, message: &Raw) -> anyhow::Result<()> {
        let mut batch = Batch::nftables(None);
        batch.push(message, flag::CREATE);
        Ok(self.0.batch(&batch.end())?)
    }

    /// Dumps; `None` where what was asked for is not there.
    fn dump(&mut self, request: &Raw) -> anyhow::Result<Option<Vec<Raw>>> {
        match self.0.dump(request) {
            Ok(answers) => Ok(Some(answers)),
            Err(error) if error.errno() == Some(Errno::NOENT) => Ok(None),
            Err(error) => Err(error).context("read the firewall"),
        }
    }
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

fn refusal(steps: &[Step], error: &netlink::BatchError) -> anyhow::Error {
    let what = match steps {
        [step] => step.to_string(),
        [step, ..] => format!("{step} and {} more", steps.len() - 1),
        [] => "change the firewall".to_owned(),
    };
    anyhow!(error.error.clone()).context(what)
}
