//! Other firewalls' chains for forwarded packets. An accept in our own table does not overrule somebody else's drop, so
//! where docker, ufw or firewalld drop what they do not know, containers would reach nobody beyond the host, nor, with
//! `br_netfilter`, each other. Two rules at the beginning of such a chain let a bridge's packets through, as docker's own
//! do for its bridges; what strangers send to ports that are not published is still dropped by the guard of our own table.

use log::{info, warn};
use netlink::forwarding::comment;
use netlink::nft::expression::{Comparison, Meta, accept, compare, meta};
use netlink::nft::{Chain, Expression, Family, Hook, Rule, Table};
use netlink::{Batch, Error, Socket, flag};
use rustix::io::Errno;

use super::{NAME, Rules, name_bytes, of_family, rules_in, send};

/// Lets the packets of a bridge's networks through the chains that would drop them. A chain that its owner alone may
/// change is said.
pub(super) fn open(socket: &mut Socket, rules: &Rules) -> Result<(), Error> {
    if !rules.guard {
        return Ok(());
    }
    let chains: Vec<Chain> = socket.dump(&Chain::dump())?.iter().map(Chain::read).collect();
    let concerns =
        |family: Family| family == Family::Inet || rules.networks.iter().any(|network| of_family(network, family));
    for (chain, table) in forwarding(&chains).filter(|(_, table)| concerns(table.family)) {
        let known = rules_in(socket, table, &chain.name)?;
        let drops = chain.drops || known.last().is_some_and(|rule| rule.ends_all);
        if !drops || known.iter().any(|rule| rule.comment.as_deref() == Some(&comment(&rules.bridge))) {
            continue;
        }
        info!("let packets of {} through chain {} of table {}", rules.bridge, chain.name, chain.table);
        let mut batch = Batch::nftables(None);
        for direction in [Meta::OutputName, Meta::InputName] {
            let rule = passing(direction, &rules.bridge);
            batch.push(&table.create_rule(&chain.name, &rule, Some(&comment(&rules.bridge))), flag::CREATE);
        }
        match send(socket, batch) {
            Err(error) if error.errno() == Some(Errno::PERM) => warn!(
                "chain {} of table {} drops forwarded packets: containers on {} reach nobody beyond the host",
                chain.name, chain.table, rules.bridge
            ),
            done => done?,
        }
    }
    Ok(())
}

/// Takes the rules of [`open`] back.
pub(super) fn close(socket: &mut Socket, chains: &[Chain], bridge: &str) -> Result<(), Error> {
    let mut batch = Batch::nftables(None);
    for (chain, table) in forwarding(chains) {
        let own = |rule: &&Rule| rule.comment.as_deref() == Some(&comment(bridge));
        for rule in rules_in(socket, table, &chain.name)?.iter().filter(own) {
            batch.push(&table.delete_rule(rule), 0);
        }
    }
    send(socket, batch)
}

/// Returns others' chains that forwarded packets pass, with their tables.
fn forwarding(chains: &[Chain]) -> impl Iterator<Item = (&Chain, Table<'_>)> {
    let others = chains.iter().filter(|chain| chain.hook == Some(Hook::FORWARD) && chain.table != NAME);
    others.filter_map(|chain| Some((chain, chain.table()?)))
}

/// `iifname BRIDGE accept`, `oifname BRIDGE accept`: expressions that iptables reads too.
fn passing(direction: Meta, bridge: &str) -> Vec<Expression> {
    vec![meta(direction, 0), compare(0, Comparison::Equal, &name_bytes(bridge)), accept()]
}
