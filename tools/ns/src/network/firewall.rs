//! The rules of a bridge's networks, one pair of chains for each bridge in our own nftables tables: packets that leave
//! the networks get the host's own address, and nobody beyond the host reaches a container's port that is not published,
//! as a neighbour could who routes the networks' addresses to the host.

mod others;

use netlink::nft::expression::{
    Base, Comparison, Meta, compare, drop, mask, masquerade, meta, payload, unasked, untranslated,
};
use netlink::nft::{Chain, Expression, Family, Hook, Rule, Table, TableAnswer};
use netlink::route::{Cidr, octets};
use netlink::{Batch, Error, Raw, Socket, flag};
use rustix::io::Errno;

const NAME: &str = "drayage-net";
const TABLES: [Table<'static>; 2] =
    [Table { family: Family::Ip, name: NAME }, Table { family: Family::Ip6, name: NAME }];

/// What a bridge's networks are given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    /// The bridge.
    pub(crate) bridge: String,
    /// Its networks.
    pub(crate) networks: Vec<Cidr>,
    /// Whether ports that are not published are closed to others than the host and the bridge's containers.
    pub(crate) guard: bool,
}

/// Makes the rules what they should be. Where they are that, nothing is sent: what a transaction throws away makes the
/// closing of its socket wait for all processors. Tells whether there was nothing of ours.
pub(crate) fn add(rules: &Rules) -> Result<bool, Error> {
    let mut socket = Socket::open(netlink::Family::Netfilter)?;
    let missing = missing(&mut socket, rules)?;
    if missing.is_empty() {
        return others::open(&mut socket, rules).map(|()| false);
    }
    let tables = socket.dump(&Table::dump())?;
    let was_empty = !tables.iter().any(|answer| TableAnswer::read(answer).name == TABLES[0].name);
    let mut batch = Batch::nftables(None);
    for (table, chain) in missing {
        batch.push(&table.create(), flag::CREATE);
        batch.push(&table.create_chain(&chain.name, Some(chain.hook)), flag::CREATE);
        batch.push(&table.flush_chain(&chain.name), 0);
        for (comment, rule) in &chain.rules {
            let rule = table.create_rule(&chain.name, rule, Some(comment));
            batch.push(&rule, flag::CREATE | flag::APPEND);
        }
    }
    socket.batch(&batch.end())?;
    others::open(&mut socket, rules).map(|()| was_empty)
}

/// Tells whether the rules are what they should be.
pub(crate) fn is_there(rules: &Rules) -> Result<bool, Error> {
    Ok(missing(&mut Socket::open(netlink::Family::Netfilter)?, rules)?.is_empty())
}

/// Returns the chains that are not what they should be.
fn missing(socket: &mut Socket, rules: &Rules) -> Result<Vec<(Table<'static>, Wanted)>, Error> {
    let mut missing = Vec::new();
    for table in TABLES {
        let networks: Vec<_> = rules.networks.iter().filter(|network| of_family(network, table.family)).collect();
        let wanted = if networks.is_empty() { vec![] } else { chains(rules, &networks) };
        for chain in wanted {
            let present = rules_in(socket, table, &chain.name)?;
            let wanted = chain.rules.iter().map(|(comment, _)| Some(comment.as_str()));
            if !present.iter().map(|rule| rule.comment.as_deref()).eq(wanted) {
                missing.push((table, chain));
            }
        }
    }
    Ok(missing)
}

/// Removes all that [`add`] has made for `bridge`. That it is not there is no error. The socket is returned because
/// closing it waits for what the transaction threw away: the caller has something else to wait for first.
pub(crate) fn remove(bridge: &str) -> Result<Socket, Error> {
    let mut socket = Socket::open(netlink::Family::Netfilter)?;
    let chains: Vec<Chain> = match socket.dump(&Chain::dump()) {
        Ok(answers) => answers.iter().map(Chain::read).collect(),
        // A kernel without nftables has none.
        Err(error) if error.errno().is_some() => return Ok(socket),
        Err(error) => return Err(error),
    };
    others::close(&mut socket, &chains, bridge)?;
    let mut batch = Batch::nftables(None);
    for table in TABLES {
        let in_table = |chain: &&Chain| chain.table() == Some(table);
        let (own, others): (Vec<&Chain>, Vec<&Chain>) =
            chains.iter().filter(in_table).partition(|chain| chain.name == bridge || chain.name == guard_name(bridge));
        if others.is_empty() && !own.is_empty() {
            batch.push(&table.delete(), 0);
            continue;
        }
        for chain in own {
            batch.push(&table.flush_chain(&chain.name), 0);
            batch.push(&table.delete_chain(&chain.name), 0);
        }
    }
    send(&mut socket, batch)?;
    Ok(socket)
}

/// Sends a transaction that changes what is there, unless somebody has flushed that meanwhile.
fn send(socket: &mut Socket, batch: Batch) -> Result<(), Error> {
    match if batch.is_empty() { Ok(()) } else { socket.batch(&batch.end()) } {
        Err(error) if error.errno() == Some(Errno::NOENT) => Ok(()),
        done => done,
    }
}

/// A chain as it should be; a rule's comment tells it from others.
struct Wanted {
    name: String,
    hook: Hook<'static>,
    rules: Vec<(String, Vec<Expression>)>,
}

fn chains(rules: &Rules, networks: &[&Cidr]) -> Vec<Wanted> {
    let hook = |kind, number, priority| Hook { kind, number, priority };
    let leaving =
        |network: &&Cidr| (format!("masquerade {}", network.network()), masquerade_rule(&rules.bridge, **network));
    let mut chains = vec![Wanted {
        name: rules.bridge.clone(),
        hook: hook("nat", Hook::POSTROUTING, 100),
        rules: networks.iter().map(leaving).collect(),
    }];
    if rules.guard {
        let rules_of_guard = vec![("unpublished ports are closed".to_owned(), guard_rule(&rules.bridge))];
        chains.push(Wanted {
            name: guard_name(&rules.bridge),
            hook: hook("filter", Hook::FORWARD, 0),
            rules: rules_of_guard,
        });
    }
    chains
}

/// No link has a name with a slash.
fn guard_name(bridge: &str) -> String {
    format!("{bridge}/guard")
}

fn rules_in(socket: &mut Socket, table: Table<'_>, chain: &str) -> Result<Vec<Rule>, Error> {
    match socket.dump::<Raw>(&table.dump_rules(Some(chain))) {
        Ok(answers) => Ok(answers.iter().map(Rule::read).filter(|rule| rule.chain == chain).collect()),
        Err(error) if error.errno() == Some(Errno::NOENT) => Ok(vec![]),
        Err(error) => Err(error),
    }
}

fn of_family(network: &Cidr, family: Family) -> bool {
    network.address.is_ipv4() == (family == Family::Ip)
}

/// `ip saddr NETWORK oifname != BRIDGE masquerade`
fn masquerade_rule(bridge: &str, network: Cidr) -> Vec<Expression> {
    let source = octets(network.network().address);
    let ones = Cidr { address: if network.address.is_ipv4() { [255; 4].into() } else { [255; 16].into() }, ..network };
    let length = u32::from(network.bits() / 8);
    vec![
        payload(Base::Network, if network.address.is_ipv4() { 12 } else { 8 }, length, 0),
        mask(0, &octets(ones.network().address)),
        compare(0, Comparison::Equal, &source),
        meta(Meta::OutputName, 0),
        compare(0, Comparison::Unequal, &name_bytes(bridge)),
        masquerade(),
    ]
}

/// `iifname != BRIDGE oifname BRIDGE ct state != established,related ct status != dnat drop`: a published port's packets
/// have a translated destination.
fn guard_rule(bridge: &str) -> Vec<Expression> {
    let name = name_bytes(bridge);
    let links = [
        meta(Meta::InputName, 0),
        compare(0, Comparison::Unequal, &name),
        meta(Meta::OutputName, 0),
        compare(0, Comparison::Equal, &name),
    ];
    links.into_iter().chain(unasked()).chain(untranslated()).chain([drop()]).collect()
}

fn name_bytes(link: &str) -> Vec<u8> {
    let mut name = link.as_bytes().to_vec();
    name.resize(16, 0);
    name
}
