//! Tables that belong to iptables. Those of `iptables-legacy` nftables does not know of, so that program is asked; those of
//! `iptables-nft` it does.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use log::warn;

use super::{Barrier, Kind, Passage, place};
use crate::nft::{Chain, Family, Rule};

/// Where the kernel names the tables of a family, and the programs that may read them.
const TABLES: [(Family, &str, [&str; 2]); 2] = [
    (Family::Ip, "/proc/net/ip_tables_names", ["iptables-legacy", "iptables"]),
    (Family::Ip6, "/proc/net/ip6_tables_names", ["ip6tables-legacy", "ip6tables"]),
];

/// Tells whether there is a table with a chain for forwarded packets that only iptables-legacy knows.
pub fn is_there() -> bool {
    TABLES.iter().any(|(_, names, _)| has_filter(names))
}

fn has_filter(names: &str) -> bool {
    fs::read_to_string(names).is_ok_and(|names| names.lines().any(|name| name == "filter"))
}

/// Returns the table filter of each family that is concerned: the program that has read it, and what that has said.
fn tables(passage: &Passage) -> Vec<(&'static str, String)> {
    let concerns = |family: &Family| passage.legacy && passage.families.contains(family);
    let all = TABLES.iter().filter(|(family, names, _)| concerns(family) && has_filter(names));
    let read = |(_, names, programs): &(Family, &str, [&'static str; 2])| {
        let listed = programs.iter().find_map(|program| Some((*program, list(program)?)));
        if listed.is_none() {
            warn!("{names} names a table filter, and {} is not there to read it", programs[0]);
        }
        listed
    };
    all.filter_map(read).collect()
}

/// Lists the table filter as the program's arguments; `None` where there is no such program.
fn list(program: &str) -> Option<String> {
    // `-w` waits for xtables' lock, which a firewall that is being loaded holds for seconds.
    let listed = Command::new(program).args(["-w", "-S"]).output().ok()?;
    listed.status.success().then(|| String::from_utf8_lossy(&listed.stdout).into_owned())
}

/// Returns the chains FORWARD that drop what no rule accepts.
pub(super) fn barriers(passage: &Passage) -> Vec<Barrier> {
    let barrier = |(program, listed): (&'static str, String)| {
        let rules = read(&listed)?;
        let beside: Vec<&str> = listed.lines().filter_map(|line| line.strip_prefix("-N ")).collect();
        Some(Barrier { place: place("FORWARD", "filter", &beside), rules, kind: Kind::Legacy(program) })
    };
    tables(passage).into_iter().filter_map(barrier).collect()
}

/// Takes rules back that [`change`] has inserted.
pub(super) fn close(passage: &Passage) -> Result<()> {
    for (program, listed) in tables(passage) {
        if listed.lines().filter_map(read_rule).any(|rule| passage.owns(&rule)) {
            change(program, "-D", passage)?;
        }
    }
    Ok(())
}

/// Returns the program whose chain FORWARD this is, if it is of a table that `iptables-nft` has made.
pub(super) fn program_of(chain: &Chain) -> Option<&'static str> {
    let is_theirs = chain.table == "filter" && chain.name == "FORWARD";
    let all = [(Family::Ip, "iptables-nft"), (Family::Ip6, "ip6tables-nft")];
    all.iter().find(|(family, _)| is_theirs && family.number() == chain.family).map(|(_, program)| *program)
}

/// Inserts the rules, or deletes them.
pub(super) fn change(program: &str, how: &str, passage: &Passage) -> Result<()> {
    for options in &passage.options {
        let comment = ["-m", "comment", "--comment", &passage.comment, "-j", "ACCEPT"];
        let mut command = Command::new(program);
        let done = command.args(["-w", how, "FORWARD"]).args(options).args(comment).output();
        let done = done.with_context(|| format!("execute {program}"))?;
        ensure!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(())
}

/// Reads the chain's rules, if it drops what none of them accepts.
fn read(listed: &str) -> Option<Vec<Rule>> {
    let rules: Vec<Rule> = listed.lines().filter_map(read_rule).collect();
    let drops = listed.lines().any(|line| line == "-P FORWARD DROP");
    (drops || rules.last().is_some_and(|rule| rule.ends_all)).then_some(rules)
}

fn read_rule(line: &str) -> Option<Rule> {
    let rule = line.strip_prefix("-A FORWARD ")?;
    let comment = rule.split_once("--comment \"").and_then(|(_, rest)| rest.split_once('"'));
    Some(Rule {
        comment: comment.map(|(comment, _)| comment.to_owned()),
        ends_all: rule.starts_with("-j DROP") || rule.starts_with("-j REJECT"),
        accepts_translated: rule.contains("--ctstate DNAT") && rule.ends_with("-j ACCEPT"),
        ..Rule::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_read_from_the_programs_arguments() {
        let ours = "-A FORWARD -m conntrack --ctstate DNAT -m comment --comment \"a b\" -j ACCEPT";
        for (listed, want) in [
            ("-P INPUT DROP\n-P FORWARD ACCEPT", None),
            ("-P FORWARD DROP", Some(vec![])),
            ("-P FORWARD ACCEPT\n-A FORWARD -i a -j DROP", None),
            ("-P FORWARD ACCEPT\n-A FORWARD -j REJECT --reject-with icmp-port-unreachable", Some(vec![(None, false)])),
            (
                &format!("-P FORWARD DROP\n{ours}\n-A FORWARD -j ufw-before-forward"),
                Some(vec![(Some("a b".to_owned()), true), (None, false)]),
            ),
        ] {
            let got = read(listed);
            let got = got.map(|rules| rules.into_iter().map(|rule| (rule.comment, rule.accepts_translated)).collect());
            assert_eq!(got, want, "{listed}");
        }
    }
}
