//! The rule that gives packets which leave a network the host's own address: one chain for each bridge, in our own
//! nftables tables, written by netlink.

use std::net::IpAddr;

use netlink::route::Cidr;
use netlink::{Attributes, Batch, Family, Raw, Socket, flag, parse};
use rustix::io::Errno;

/// The name of our table, in the families ip and ip6.
const TABLE: &str = "drayage-net";

// include/uapi/linux/netfilter/nf_tables.h
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_GETCHAIN: u16 = 4;
const NFT_MSG_DELCHAIN: u16 = 5;
const NFT_MSG_NEWRULE: u16 = 6;
const NFT_MSG_DELRULE: u16 = 8;
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NF_INET_POST_ROUTING: u32 = 4;
const PRIORITY_SRCNAT: u32 = 100;

/// The families ip and ip6 (`NFPROTO_IPV4`, `NFPROTO_IPV6`).
const FAMILIES: [u8; 2] = [2, 10];

/// Lets `networks` reach the world beyond `bridge`. Doing it again changes nothing.
pub(crate) fn add(bridge: &str, networks: &[Cidr]) -> Result<(), netlink::Error> {
    let mut batch = Batch::nftables(None);
    for family in FAMILIES {
        let of_family = |network: &&Cidr| family == self::family(network.address);
        let networks: Vec<_> = networks.iter().filter(of_family).collect();
        if networks.is_empty() {
            continue;
        }
        let hook =
            Attributes::new().be32(NFTA_HOOK_HOOKNUM, NF_INET_POST_ROUTING).be32(NFTA_HOOK_PRIORITY, PRIORITY_SRCNAT);
        let chain = chain_name(bridge).nest(NFTA_CHAIN_HOOK, &hook).text(NFTA_CHAIN_TYPE, "nat");
        batch.push(&message(family, NFT_MSG_NEWTABLE, Attributes::new().text(NFTA_TABLE_NAME, TABLE)), flag::CREATE);
        batch.push(&message(family, NFT_MSG_NEWCHAIN, chain), flag::CREATE);
        batch.push(&message(family, NFT_MSG_DELRULE, rule_place(bridge)), 0);
        for network in networks {
            let rule = rule_place(bridge).nest(NFTA_RULE_EXPRESSIONS, &expressions(bridge, *network));
            batch.push(&message(family, NFT_MSG_NEWRULE, rule), flag::CREATE | flag::APPEND);
        }
    }
    Socket::open(Family::Netfilter)?.batch(&batch.end()).map_err(|refused| refused.error)
}

/// Removes what [`add`] has made for `bridge`. That it is not there is no error.
pub(crate) fn remove(bridge: &str) -> Result<(), netlink::Error> {
    let mut socket = Socket::open(Family::Netfilter)?;
    for family in FAMILIES {
        let mut batch = Batch::nftables(None);
        batch.push(&message(family, NFT_MSG_DELRULE, rule_place(bridge)), 0);
        batch.push(&message(family, NFT_MSG_DELCHAIN, chain_name(bridge)), 0);
        gone_is_fine(socket.batch(&batch.end()).map_err(|refused| refused.error))?;
        let chains: Vec<Raw> = socket.dump(&message(family, NFT_MSG_GETCHAIN, Attributes::new()))?;
        let ours = |raw: &Raw| {
            parse(raw.payload.get(4..).unwrap_or_default()).any(|a| a.kind == NFTA_CHAIN_TABLE && a.text() == TABLE)
        };
        if !chains.iter().any(ours) {
            let mut batch = Batch::nftables(None);
            batch.push(&message(family, NFT_MSG_DELTABLE, Attributes::new().text(NFTA_TABLE_NAME, TABLE)), 0);
            gone_is_fine(socket.batch(&batch.end()).map_err(|refused| refused.error))?;
        }
    }
    Ok(())
}

fn gone_is_fine(done: Result<(), netlink::Error>) -> Result<(), netlink::Error> {
    match done {
        Err(error) if error.errno() == Some(Errno::NOENT) => Ok(()),
        done => done,
    }
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { FAMILIES[0] } else { FAMILIES[1] }
}

/// `struct nfgenmsg`, then the attributes.
fn message(family: u8, kind: u16, attributes: Attributes) -> Raw {
    let payload = [&[family, 0, 0, 0][..], &attributes.into_bytes()].concat();
    Raw { kind: NFNL_SUBSYS_NFTABLES << 8 | kind, payload }
}

fn chain_name(bridge: &str) -> Attributes {
    Attributes::new().text(NFTA_CHAIN_TABLE, TABLE).text(NFTA_CHAIN_NAME, bridge)
}

fn rule_place(bridge: &str) -> Attributes {
    Attributes::new().text(NFTA_RULE_TABLE, TABLE).text(NFTA_RULE_CHAIN, bridge)
}

/// `ip saddr NETWORK oifname != BRIDGE masquerade`
fn expressions(bridge: &str, network: Cidr) -> Attributes {
    const REGISTER: u32 = 1;
    const NETWORK_HEADER: u32 = 1;
    const META_OIFNAME: u32 = 7;
    const EQUAL: u32 = 0;
    const NOT_EQUAL: u32 = 1;
    let bytes = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let source = bytes(network.network().address);
    let ones = Cidr { address: if network.address.is_ipv4() { [255; 4].into() } else { [255; 16].into() }, ..network };
    let mask = bytes(ones.network().address);
    let length = u32::from(network.bits() / 8);
    let offset = if network.address.is_ipv4() { 12 } else { 8 };
    let mut name = bridge.as_bytes().to_vec();
    name.resize(16, 0);
    let load = Attributes::new().be32(1, REGISTER).be32(2, NETWORK_HEADER).be32(3, offset).be32(4, length);
    let mask = Attributes::new()
        .be32(1, REGISTER)
        .be32(2, REGISTER)
        .be32(3, length)
        .nest(4, &value(&mask))
        .nest(5, &value(&vec![0; mask.len()]));
    let list = [
        expression("payload", &load),
        expression("bitwise", &mask),
        expression("cmp", &Attributes::new().be32(1, REGISTER).be32(2, EQUAL).nest(3, &value(&source))),
        expression("meta", &Attributes::new().be32(1, REGISTER).be32(2, META_OIFNAME)),
        expression("cmp", &Attributes::new().be32(1, REGISTER).be32(2, NOT_EQUAL).nest(3, &value(&name))),
        expression("masq", &Attributes::new()),
    ];
    list.iter().fold(Attributes::new(), |all, one| all.nest(1, one))
}

fn expression(name: &str, data: &Attributes) -> Attributes {
    Attributes::new().text(1, name).nest(2, data)
}

fn value(bytes: &[u8]) -> Attributes {
    Attributes::new().bytes(1, bytes)
}
