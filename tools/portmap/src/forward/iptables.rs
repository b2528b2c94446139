//! Tables that belong to iptables. Those of `iptables-legacy` nftables does not know of; those of `iptables-nft` it does, but
//! a rule that is not made by iptables keeps that program from reading the chain. So it is asked to make it.

use std::fs;
use std::io::ErrorKind;
use std::process::Command;

use anyhow::{Context, bail};
use log::{debug, warn};
use netlink::nft::Chain as NftChain;

use super::{COMMENT, place, warn_of};
use crate::options::Forward;

/// Does about the FORWARD chain of `iptables-legacy` what is asked, if there is one.
pub(super) fn open_legacy(how: Forward, is_ipv4: bool) -> anyhow::Result<()> {
    let (names, programs) = if is_ipv4 {
        ("/proc/net/ip_tables_names", ["iptables-legacy", "iptables"])
    } else {
        ("/proc/net/ip6_tables_names", ["ip6tables-legacy", "ip6tables"])
    };
    let is_there = fs::read_to_string(names).is_ok_and(|names| names.lines().any(|name| name == "filter"));
    if !is_there {
        return Ok(());
    }
    let Some(rules) = programs.iter().find_map(|program| list(program)) else {
        warn!("{names} names a table filter, and {} is not there to read it", programs[0]);
        return Ok(());
    };
    let Chain { ends, lets_through } = Chain::read(&rules);
    let place = place("FORWARD", "filter", rules.lines().filter_map(|line| line.strip_prefix("-N ")));
    if !ends {
        return Ok(());
    }
    if lets_through {
        debug!("{place} lets published ports through");
    } else if how != Forward::Insert {
        warn_of(&place);
    } else if !insert(&programs, &place)? {
        bail!("let published ports through {place}: {} is not there", programs[0]);
    }
    Ok(())
}

/// Returns the programs whose chain this is, if it is of a table that `iptables-nft` has made.
pub(super) fn programs(chain: &NftChain) -> Option<[&'static str; 2]> {
    let is_theirs = chain.table == "filter" && chain.name == "FORWARD";
    let all = [("iptables-nft", "iptables", 2), ("ip6tables-nft", "ip6tables", 10)];
    let found = all.iter().find(|(.., family)| is_theirs && *family == chain.family);
    found.map(|(exact, usual, _)| [*exact, *usual])
}

/// Lets the first of the programs that is there insert a rule. Returns whether one was.
pub(super) fn insert(programs: &[&str], place: &str) -> anyhow::Result<bool> {
    let words = ["-w", "-I", "FORWARD", "-m", "conntrack", "--ctstate", "DNAT", "-m", "comment", "--comment", COMMENT];
    for program in programs {
        match Command::new(program).args(words).args(["-j", "ACCEPT"]).output() {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("execute {program}")),
            Ok(done) if !done.status.success() => {
                bail!("let published ports through {place}: {}", String::from_utf8_lossy(&done.stderr).trim());
            }
            Ok(_) => {
                debug!("let published ports through {place}");
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Lists the table filter as the program's arguments; `None` where there is no such program.
fn list(program: &str) -> Option<String> {
    let listed = Command::new(program).args(["-w", "-S"]).output().ok()?;
    listed.status.success().then(|| String::from_utf8_lossy(&listed.stdout).into_owned())
}

/// What the FORWARD chain does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Chain {
    /// It drops what no rule accepts.
    ends: bool,
    /// It accepts what was translated.
    lets_through: bool,
}

impl Chain {
    fn read(rules: &str) -> Self {
        let chain: Vec<&str> = rules.lines().filter_map(|line| line.strip_prefix("-A FORWARD ")).collect();
        let is_end = |rule: &&str| rule.starts_with("-j DROP") || rule.starts_with("-j REJECT");
        Self {
            ends: rules.lines().any(|line| line == "-P FORWARD DROP") || chain.last().is_some_and(is_end),
            lets_through: chain.iter().any(|rule| rule.contains("--ctstate DNAT") && rule.ends_with("-j ACCEPT")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_read_from_the_programs_arguments() {
        let ours = format!("-A FORWARD -m conntrack --ctstate DNAT -m comment --comment \"{COMMENT}\" -j ACCEPT");
        for (rules, ends, lets_through) in [
            ("-P INPUT DROP\n-P FORWARD ACCEPT", false, false),
            ("-P FORWARD DROP", true, false),
            ("-P FORWARD ACCEPT\n-A FORWARD -i a -j DROP", false, false),
            (
                "-P FORWARD ACCEPT\n-A FORWARD -i a -j ACCEPT\n-A FORWARD -j REJECT --reject-with icmp-port-unreachable",
                true,
                false,
            ),
            (&format!("-P FORWARD DROP\n{ours}\n-A FORWARD -j ufw-before-forward"), true, true),
        ] {
            assert_eq!(Chain::read(rules), Chain { ends, lets_through }, "{rules}");
        }
    }
}
