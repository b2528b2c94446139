//! Other firewalls' FORWARD chains: an accept in our own table does not overrule somebody else's drop, so published
//! ports stay closed to other machines, and nothing says why.

mod iptables;

use anyhow::Context;
use log::{debug, warn};
use netlink::nft::expression::{accept, translated};
use netlink::nft::{Chain, Family, Hook, Rule, Table};

use crate::firewall::Firewall;
use crate::mapping::Mapping;
use crate::options::Forward;

/// The comment of the rule that is put into such a chain.
const COMMENT: &str = "drayage portmap: published ports";

/// Who is known by the names of tables and chains.
const MANAGERS: [(&str, &str); 3] = [("ufw", "ufw"), ("DOCKER", "docker"), ("firewalld", "firewalld")];

/// Looks for chains that would drop what is sent to published ports, and does about them what is asked.
pub(crate) fn open(firewall: &mut Firewall, how: Forward, mappings: &[Mapping]) -> anyhow::Result<()> {
    if how == Forward::Off || mappings.is_empty() {
        return Ok(());
    }
    let chains = firewall.chains()?;
    for chain in chains.iter().filter(|chain| chain.hook == Some(Hook::FORWARD) && concerns(chain, mappings)) {
        let Some(table) = chain.table() else { continue };
        let rules = firewall.rules(table, &chain.name)?;
        let ends = chain.drops || rules.last().is_some_and(|rule| rule.ends_all);
        if !ends {
            continue;
        }
        let own = chains.iter().filter(|other| other.table == chain.table && other.family == chain.family);
        let place = place(&chain.name, &chain.table, own.map(|other| other.name.as_str()));
        if rules.iter().any(lets_through) {
            debug!("{place} lets published ports through");
        } else if how == Forward::Insert {
            insert(firewall, table, chain, &place)?;
        } else {
            warn_of(&place);
        }
    }
    for is_ipv4 in [true, false] {
        if mappings.iter().any(|mapping| mapping.target.is_ipv4() == is_ipv4) {
            iptables::open_legacy(how, is_ipv4)?;
        }
    }
    Ok(())
}

fn warn_of(place: &str) {
    warn!("{place} drops forwarded packets: other machines will not reach the ports; --forward=insert lets them");
}

fn concerns(chain: &Chain, mappings: &[Mapping]) -> bool {
    let number = |mapping: &Mapping| if mapping.target.is_ipv4() { Family::Ip } else { Family::Ip6 }.number();
    mappings.iter().any(|mapping| [Family::Inet.number(), number(mapping)].contains(&chain.family))
}

/// Names a chain, and who looks after its table if that is somebody known.
fn place<'a>(chain: &str, table: &str, mut others: impl Iterator<Item = &'a str>) -> String {
    let mut is = |sign: &str| table == sign || others.any(|other| other.starts_with(sign));
    let manager = MANAGERS.iter().find_map(|(sign, name)| is(sign).then_some(name));
    let manager = manager.map(|name| format!(" ({name}'s)")).unwrap_or_default();
    format!("chain {chain} of table {table}{manager}")
}

fn lets_through(rule: &Rule) -> bool {
    let ours = |comment: &str| comment == COMMENT || netlink::forwarding::lets_through(comment);
    rule.accepts_translated || rule.comment.as_deref().is_some_and(ours)
}

fn insert(firewall: &mut Firewall, table: Table<'_>, chain: &Chain, place: &str) -> anyhow::Result<()> {
    if let Some(programs) = iptables::programs(chain) {
        if iptables::insert(&programs, place)? {
            return Ok(());
        }
    }
    debug!("let published ports through {place}");
    let rule: Vec<_> = translated().into_iter().chain([accept()]).collect();
    let message = table.create_rule(&chain.name, &rule, Some(COMMENT));
    firewall.insert_rule(&message).with_context(|| format!("let published ports through {place}"))
}
