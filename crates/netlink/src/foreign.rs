//! Other firewalls' chains for forwarded packets: an accept in our own tables does not overrule somebody else's drop. Where
//! docker, ufw or firewalld drop what they do not know, rules at the head of their chain have to let through what is ours.
//!
//! In netfilter a packet has to be accepted by every base chain of a hook; a drop in one of them is final. So there
//! is no place in our own tables from which docker's policy could be overruled, whatever its priority.

mod legacy;

use std::fmt;
use std::io::ErrorKind;
use std::str::FromStr;

use anyhow::{Context, Result};
use log::{info, warn};
use rustix::io::Errno;

use crate::nft::{Chain, Expression, Family, Hook, Rule, Table, TableAnswer};
use crate::{Batch, Error, Socket, flag, unless};

pub use legacy::is_there as has_legacy;

/// What to do about such chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// Say so.
    Warn,
    /// Let what is ours through.
    Insert,
    /// Nothing.
    Off,
}

const WORDS: [(&str, Forward); 3] = [("warn", Forward::Warn), ("insert", Forward::Insert), ("off", Forward::Off)];

impl FromStr for Forward {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = WORDS.iter().find(|(word, _)| *word == text);
        found.map(|(_, how)| *how).ok_or("warn, insert or off is expected")
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(WORDS.iter().find(|(_, how)| how == self).map_or("", |(word, _)| word))
    }
}

/// Begins the comments of the rules that let all of a bridge's packets through.
pub const BRIDGE: &str = "drayage: containers on ";

/// Packets that are to get through.
#[derive(Debug)]
pub struct Passage {
    /// The comment of the rules that let them through.
    pub comment: String,
    /// Those rules.
    pub rules: Vec<Vec<Expression>>,
    /// Whether iptables can read the rules.
    pub is_plain: bool,
    /// The same as iptables' options.
    pub options: Vec<Vec<String>>,
    /// Tells whether somebody's rule lets them through.
    pub is_open: fn(&str, &Rule) -> bool,
    /// The families of their addresses.
    pub families: Vec<Family>,
    /// Whether tables count that only iptables-legacy knows, which is executed for that.
    pub legacy: bool,
    /// What is lost where they are dropped.
    pub loss: String,
}

impl Passage {
    fn owns(&self, rule: &Rule) -> bool {
        rule.comment.as_ref() == Some(&self.comment)
    }
}

/// A chain that drops what no rule accepts.
#[derive(Debug)]
struct Barrier {
    /// Its name, and who looks after its table if that is somebody known.
    place: String,
    rules: Vec<Rule>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Nftables { chain: Chain, is_owned: bool },
    Legacy(&'static str),
}

/// Lets packets through the chains that would drop them, or says which do. A chain that its owner alone may change is said.
///
/// # Errors
/// Where a rule cannot be inserted. That a chain drops the packets is a warning only: others may be served by it.
pub fn open(socket: &mut Socket, how: Forward, passage: &Passage) -> Result<()> {
    let barriers = if how == Forward::Off { vec![] } else { barriers(socket, passage)? };
    for Barrier { place, kind, .. } in barriers {
        let is_owned = matches!(kind, Kind::Nftables { is_owned: true, .. });
        if how != Forward::Insert || is_owned {
            let advice = if is_owned { "" } else { "; --forward=insert lets them" };
            warn!("{place} drops forwarded packets: {}{advice}", passage.loss);
            continue;
        }
        info!("{}: let packets through {place}", passage.comment);
        insert(socket, &kind, passage).with_context(|| format!("let packets through {place}"))?;
    }
    Ok(())
}

/// Tells whether a chain drops these packets that could be opened.
pub fn is_shut(socket: &mut Socket, passage: &Passage) -> Result<bool> {
    let can_open = |barrier: &Barrier| !matches!(barrier.kind, Kind::Nftables { is_owned: true, .. });
    Ok(barriers(socket, passage)?.iter().any(can_open))
}

/// Takes the rules of [`open`] back.
///
/// It looks for rules with the passage's comment in every chain, as the chain in which they were may have been
/// remade.
pub fn close(socket: &mut Socket, passage: &Passage) -> Result<()> {
    let mut batch = Batch::nftables(None);
    let chains: Vec<Chain> = socket.dump(&Chain::dump())?.iter().map(Chain::read).collect();
    for chain in chains.iter().filter(|chain| chain.hook == Some(Hook::FORWARD)) {
        let Some(table) = chain.table() else { continue };
        for rule in rules_in(socket, table, &chain.name)?.iter().filter(|rule| passage.owns(rule)) {
            batch.push(&table.delete_rule(rule), 0);
        }
    }
    legacy::close(passage)?;
    Ok(send(socket, batch)?)
}

/// Sends a transaction that changes what is there, unless somebody has flushed that meanwhile.
///
/// `ENOENT` is no error: what was to be changed is gone, and with it the reason.
pub fn send(socket: &mut Socket, batch: Batch) -> Result<(), Error> {
    let done = if batch.is_empty() { Ok(()) } else { socket.batch(&batch.end()) };
    unless(Errno::NOENT, done).map(Option::unwrap_or_default)
}

/// Returns the rules of a chain; none where it is not there.
pub fn rules_in(socket: &mut Socket, table: Table<'_>, chain: &str) -> Result<Vec<Rule>, Error> {
    let answers = unless(Errno::NOENT, socket.dump(&table.dump_rules(Some(chain))))?.unwrap_or_default();
    Ok(answers.iter().map(Rule::read).filter(|rule| rule.chain == chain).collect())
}

fn insert(socket: &mut Socket, kind: &Kind, passage: &Passage) -> Result<()> {
    let (chain, table) = match kind {
        Kind::Legacy(program) => return legacy::change(program, "-I", passage),
        Kind::Nftables { chain, .. } => (chain, chain.table().context("a table of an unknown family")?),
    };
    // A rule that iptables cannot read would keep it from reading the chain.
    // iptables-nft keeps its rules in an nftables table; a native expression in there makes it say "incompatible, use
    // nft".
    if let Some(program) = legacy::program_of(chain).filter(|_| !passage.is_plain) {
        match legacy::change(program, "-I", passage) {
            Err(error) if error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::NotFound) => {}
            done => return done,
        }
    }
    let mut batch = Batch::nftables(None);
    for rule in &passage.rules {
        batch.push(&table.create_rule(&chain.name, rule, Some(passage.comment.as_str())), flag::CREATE);
    }
    Ok(send(socket, batch)?)
}

fn barriers(socket: &mut Socket, passage: &Passage) -> Result<Vec<Barrier>> {
    let mut barriers = Vec::new();
    let all: Vec<Chain> = socket.dump(&Chain::dump())?.iter().map(Chain::read).collect();
    let tables: Vec<TableAnswer> = socket.dump(&Table::dump())?.iter().map(TableAnswer::read).collect();
    for chain in all.iter().filter(|chain| chain.hook == Some(Hook::FORWARD)) {
        let concerns = |table: &Table<'_>| table.family == Family::Inet || passage.families.contains(&table.family);
        let Some(table) = chain.table().filter(concerns) else { continue };
        let rules = rules_in(socket, table, &chain.name)?;
        // firewalld ends its chain with a reject instead of a policy.
        if chain.drops || rules.last().is_some_and(|rule| rule.ends_all) {
            let beside = all.iter().filter(|other| other.table == chain.table && other.family == chain.family);
            let beside: Vec<&str> = beside.map(|other| other.name.as_str()).collect();
            let place = place(&chain.name, &chain.table, &beside);
            let own = tables.iter().find(|other| other.name == chain.table && other.family == chain.family);
            let is_owned = own.is_some_and(|table| table.owner.is_some());
            barriers.push(Barrier { place, rules, kind: Kind::Nftables { chain: chain.clone(), is_owned } });
        }
    }
    barriers.extend(legacy::barriers(passage));
    barriers.retain(|barrier| !barrier.rules.iter().any(|rule| (passage.is_open)(&passage.comment, rule)));
    Ok(barriers)
}

/// Who is known by the names of tables and chains.
const MANAGERS: [(&str, &str); 3] = [("ufw", "ufw"), ("DOCKER", "docker"), ("firewalld", "firewalld")];

/// Names a chain of a table in which there are these others.
fn place(chain: &str, table: &str, beside: &[&str]) -> String {
    let is = |sign: &str| table == sign || beside.iter().any(|other| other.starts_with(sign));
    let manager = MANAGERS.iter().find_map(|(sign, name)| is(sign).then_some(name));
    let manager = manager.map(|name| format!(" ({name}'s)")).unwrap_or_default();
    format!("chain {chain} of table {table}{manager}")
}
