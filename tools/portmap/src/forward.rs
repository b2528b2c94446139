//! Other firewalls' FORWARD chains: an accept in our own table does not overrule somebody else's drop, so published
//! ports stay closed to other machines, and nothing says why.

use anyhow::Context;
use log::{debug, warn};
use netlink::nft::expression::{accept, translated};
use netlink::nft::{Chain, Family, Table};

use crate::firewall::Firewall;
use crate::mapping::Mapping;
use crate::options::Forward;

/// The comment of the rule that is put into such a chain.
const COMMENT: &str = "drayage portmap: published ports";

/// Looks for chains that would drop what is sent to published ports, and does about them what is asked.
pub(crate) fn open(firewall: &mut Firewall, how: Forward, mappings: &[Mapping]) -> anyhow::Result<()> {
    if how == Forward::Off || mappings.is_empty() {
        return Ok(());
    }
    let concerns = |chain: &Chain| {
        mappings.iter().any(|mapping| {
            chain.family == Family::Inet.number() || chain.family == family(mapping.target.is_ipv4()).number()
        })
    };
    for chain in firewall.forward_chains()?.iter().filter(|chain| chain.drops && concerns(chain)) {
        let place = format!("chain {} of table {}", chain.name, chain.table);
        match (how, table(chain)) {
            (Forward::Insert, Some(table)) => insert(firewall, table, chain, &place)?,
            _ if is_let_through(firewall, chain)? => debug!("{place} lets published ports through"),
            _ => warn!(
                "{place} drops forwarded packets: other machines will not reach the ports; --forward=insert lets them"
            ),
        }
    }
    Ok(())
}

fn insert(firewall: &mut Firewall, table: Table<'_>, chain: &Chain, place: &str) -> anyhow::Result<()> {
    if is_let_through(firewall, chain)? {
        return Ok(());
    }
    debug!("let published ports through {place}");
    let rule: Vec<_> = translated().into_iter().chain([accept()]).collect();
    let message = table.create_rule(&chain.name, &rule, Some(COMMENT));
    firewall.insert_rule(&message).with_context(|| format!("let published ports through {place}"))
}

fn is_let_through(firewall: &mut Firewall, chain: &Chain) -> anyhow::Result<bool> {
    let Some(table) = table(chain) else { return Ok(false) };
    Ok(firewall.rules(table, &chain.name)?.iter().any(|rule| rule.comment.as_deref() == Some(COMMENT)))
}

fn table(chain: &Chain) -> Option<Table<'_>> {
    let family = [Family::Ip, Family::Ip6, Family::Inet].into_iter().find(|family| family.number() == chain.family)?;
    Some(Table { family, name: &chain.table })
}

fn family(is_ipv4: bool) -> Family {
    if is_ipv4 { Family::Ip } else { Family::Ip6 }
}
