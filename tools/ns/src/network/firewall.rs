//! The rules of a bridge's networks, one pair of chains for each bridge in our own nftables tables: packets that leave
//! the networks get the host's own address, and nobody beyond the host reaches a container's port that is not published,
//! as a neighbour could who routes the networks' addresses to the host.

use anyhow::Result;
use netlink::foreign::{self, Forward, Passage, rules_in, send};
use netlink::nft::expression::{
    Base, Comparison, Meta, accept, compare, drop, mask, masquerade, meta, payload, unasked, untranslated,
};
use netlink::nft::{Chain, Expression, Family, Hook, Table, TableAnswer};
use netlink::route::{Cidr, octets};
use netlink::{Batch, Socket, flag};

const NAME: &str = "drayage-net";
const TABLES: [Table<'static>; 2] =
    [Table { family: Family::Ip, name: NAME }, Table { family: Family::Ip6, name: NAME }];

/// What a bridge's networks are given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BridgeRules {
    /// The bridge.
    pub(crate) bridge: String,
    /// How the names of the links to the containers begin, where these are no ports of the bridge.
    pub(crate) ports: Option<String>,
    /// Its networks.
    pub(crate) networks: Vec<Cidr>,
    /// Whether ports that are not published are closed to others than the host and the bridge's containers.
    pub(crate) guard: bool,
    /// Whether packets that leave the networks get the host's address.
    pub(crate) masquerade: bool,
    /// Whether no packet leaves or enters, in place of that.
    pub(crate) internal: bool,
    /// What to do about other firewalls' chains that drop forwarded packets.
    pub(crate) forward: Forward,
}

impl BridgeRules {
    fn has(&self, family: Family) -> bool {
        self.networks.iter().any(|network| of_family(network, family))
    }

    fn links(&self) -> Vec<u8> {
        links(&self.bridge, self.ports.as_deref())
    }

    fn passage(&self) -> Passage {
        passage(&self.bridge, self.ports.as_deref(), |family| self.has(family))
    }
}

/// Makes the rules what they should be. Where they are that, nothing is sent: what a transaction throws away makes the
/// closing of its socket wait for all processors. Tells whether there was nothing of ours. The `first` container of a bridge
/// looks for tables of iptables-legacy too, which takes the execution of that program.
pub(crate) fn add(rules: &BridgeRules, first: bool) -> Result<bool> {
    let mut socket = Socket::open(netlink::NetlinkFamily::Netfilter)?;
    let missing = missing(&mut socket, rules)?;
    let passage = Passage { legacy: first, ..rules.passage() };
    if missing.is_empty() {
        return foreign::open(&mut socket, rules.forward, &passage).map(|()| false);
    }
    let tables = socket.dump(&Table::dump())?;
    let was_empty = !tables.iter().any(|answer| TableAnswer::read(answer).name == TABLES[0].name);
    let mut batch = Batch::nftables(None);
    for (table, chain) in missing {
        batch.push(&table.create(), flag::CREATE);
        // Made, emptied and filled in one transaction: at no moment is there a chain without its rules.
        batch.push(&table.create_chain(&chain.name, Some(chain.hook)), flag::CREATE);
        batch.push(&table.flush_chain(&chain.name), 0);
        for (comment, rule) in &chain.rules {
            batch.push(&table.create_rule(&chain.name, rule, Some(comment)), flag::CREATE | flag::APPEND);
        }
    }
    socket.batch(&batch.end())?;
    foreign::open(&mut socket, rules.forward, &passage).map(|()| was_empty)
}

/// Tells whether the rules are what they should be.
pub(crate) fn is_there(rules: &BridgeRules) -> Result<bool> {
    let mut socket = Socket::open(netlink::NetlinkFamily::Netfilter)?;
    let is_shut = rules.forward == Forward::Insert && foreign::is_shut(&mut socket, &rules.passage())?;
    Ok(!is_shut && missing(&mut socket, rules)?.is_empty())
}

/// Packets of a bridge's networks, as docker's own rules let those of its bridges through: what strangers send to ports that
/// are not published is still dropped by our own guard.
fn passage(bridge: &str, ports: Option<&str>, has: impl Fn(Family) -> bool) -> Passage {
    let links = links(bridge, ports);
    let passing = |direction| vec![meta(direction, 0), compare(0, Comparison::Equal, &links), accept()];
    let name = ports.map_or_else(|| bridge.to_owned(), |ports| format!("{ports}+"));
    Passage {
        comment: format!("{}{bridge}", foreign::BRIDGE),
        rules: [Meta::OutputName, Meta::InputName].map(passing).to_vec(),
        is_plain: true,
        options: ["-o", "-i"].map(|direction| vec![direction.to_owned(), name.clone()]).to_vec(),
        is_open: |comment, rule| rule.comment.as_deref() == Some(comment),
        families: [Family::Ip, Family::Ip6].into_iter().filter(|family| has(*family)).collect(),
        legacy: true,
        loss: format!("containers on {bridge} cannot reach beyond the host"),
    }
}

/// Returns the chains that are not what they should be.
fn missing(socket: &mut Socket, rules: &BridgeRules) -> Result<Vec<(Table<'static>, Wanted)>> {
    let mut missing = Vec::new();
    for table in TABLES {
        let networks: Vec<_> = rules.networks.iter().filter(|network| of_family(network, table.family)).collect();
        let wanted = if networks.is_empty() { vec![] } else { chains(rules, &networks) };
        for chain in wanted {
            // A rule is known by its comment: what it says exactly, the kernel gives back in another form.
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
pub(crate) fn remove(bridge: &str, ports: Option<&str>) -> Result<Socket> {
    let mut socket = Socket::open(netlink::NetlinkFamily::Netfilter)?;
    let chains: Vec<Chain> = match socket.dump(&Chain::dump()) {
        Ok(answers) => answers.iter().map(Chain::read).collect(),
        // A kernel without nftables has none.
        Err(error) if error.errno().is_some() => return Ok(socket),
        Err(error) => return Err(error.into()),
    };
    foreign::close(&mut socket, &passage(bridge, ports, |_| true))?;
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

/// A chain as it should be; a rule's comment tells it from others.
struct Wanted {
    name: String,
    hook: Hook<'static>,
    rules: Vec<(String, Vec<Expression>)>,
}

fn chains(rules: &BridgeRules, networks: &[&Cidr]) -> Vec<Wanted> {
    let hook = |kind, number, priority| Hook { kind, number, priority };
    let leaving =
        |network: &&Cidr| (format!("masquerade {}", network.network()), masquerade_rule(&rules.links(), **network));
    let mut chains = vec![];
    if rules.masquerade {
        chains.push(Wanted {
            name: rules.bridge.clone(),
            // 100 is `srcnat` (nft(8), "Standard priority names"): where the kernel itself expects translation of
            // sources.
            hook: hook("nat", Hook::POSTROUTING, 100),
            rules: networks.iter().map(leaving).collect(),
        });
    }
    let mut guard: Vec<(String, Vec<Expression>)> = vec![];
    if rules.guard {
        guard.push(("unpublished ports are closed".to_owned(), guard_rule(&rules.links())));
    }
    if rules.internal {
        let crossed = [(Comparison::Unequal, Comparison::Equal), (Comparison::Equal, Comparison::Unequal)];
        let rule = |(from, to)| crossing(&rules.links(), from, to).into_iter().chain([drop()]).collect();
        guard.extend(["nobody gets in", "nobody gets out"].map(str::to_owned).into_iter().zip(crossed.map(rule)));
    }
    if !guard.is_empty() {
        chains.push(Wanted { name: guard_name(&rules.bridge), hook: hook("filter", Hook::FORWARD, 0), rules: guard });
    }
    chains
}

/// No link has a name with a slash.
fn guard_name(bridge: &str) -> String {
    format!("{bridge}/guard")
}

fn of_family(network: &Cidr, family: Family) -> bool {
    network.address.is_ipv4() == (family == Family::Ip)
}

/// `ip saddr NETWORK oifname != BRIDGE masquerade`
///
/// Packets to a bridge's own containers keep their source, so that these know each other.
fn masquerade_rule(links: &[u8], network: Cidr) -> Vec<Expression> {
    let source = octets(network.network().address);
    let ones = Cidr { address: if network.address.is_ipv4() { [255; 4].into() } else { [255; 16].into() }, ..network };
    let length = u32::from(network.bits() / 8);
    vec![
        payload(Base::Network, if network.address.is_ipv4() { 12 } else { 8 }, length, 0),
        mask(0, &octets(ones.network().address)),
        compare(0, Comparison::Equal, &source),
        meta(Meta::OutputName, 0),
        compare(0, Comparison::Unequal, links),
        masquerade(),
    ]
}

/// `iifname != BRIDGE oifname BRIDGE ct state != established,related ct status != dnat drop`: a published port's packets
/// have a translated destination.
fn guard_rule(links: &[u8]) -> Vec<Expression> {
    let into = crossing(links, Comparison::Unequal, Comparison::Equal);
    into.into_iter().chain(unasked()).chain(untranslated()).chain([drop()]).collect()
}

/// `iifname … BRIDGE oifname … BRIDGE`
fn crossing(links: &[u8], from: Comparison, to: Comparison) -> [Expression; 4] {
    [meta(Meta::InputName, 0), compare(0, from, links), meta(Meta::OutputName, 0), compare(0, to, links)]
}

/// Returns what the names of the links that packets come and go by are compared with: all of one, or the beginning of many.
fn links(bridge: &str, ports: Option<&str>) -> Vec<u8> {
    if let Some(ports) = ports {
        return ports.into();
    }
    let mut name = bridge.as_bytes().to_vec();
    name.resize(16, 0);
    name
}
