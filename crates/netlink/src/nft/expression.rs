//! What rules are made of: each expression loads registers, compares them, or decides.
//!
//! Registers are counted in words of four bytes from 0 on; an IPv6 address fills four.

use crate::Attributes;

/// One expression of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression(Attributes);

/// `NFT_REG32_00`.
const FIRST_REGISTER: u32 = 8;
const VERDICT_REGISTER: u32 = 0;

pub(super) const NF_DROP: i32 = 0;
pub(super) const NF_ACCEPT: i32 = 1;
const NFT_JUMP: i32 = -3;

/// What [`meta`] loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meta {
    /// The name of the interface by which the packet came: 16 bytes.
    InputName = 6,
    /// The name of the interface by which the packet goes: 16 bytes.
    OutputName = 7,
    /// The transport protocol.
    Protocol = 16,
}

/// Whether [`compare`] wants the same or another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// The same.
    Equal = 0,
    /// Another.
    Unequal = 1,
}

/// Which header [`payload`] reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// The network layer's.
    Network = 1,
    /// The transport layer's.
    Transport = 2,
}

impl Expression {
    pub(super) fn attributes(&self) -> &Attributes {
        &self.0
    }

    fn new(name: &str, data: &Attributes) -> Self {
        Self(Attributes::new().text(1, name).nest(2, data))
    }
}

const fn register(word: u32) -> u32 {
    FIRST_REGISTER + word
}

/// Loads a fact about the packet.
pub fn meta(key: Meta, word: u32) -> Expression {
    Expression::new("meta", &Attributes::new().be32(2, key as u32).be32(1, register(word)))
}

/// Loads bytes of the packet.
pub fn payload(base: Base, offset: u32, length: u32, word: u32) -> Expression {
    let attributes = Attributes::new().be32(1, register(word)).be32(2, base as u32).be32(3, offset).be32(4, length);
    Expression::new("payload", &attributes)
}

/// Goes on only if the register compares so.
pub fn compare(word: u32, comparison: Comparison, value: &[u8]) -> Expression {
    let data = Attributes::new().bytes(1, value);
    Expression::new("cmp", &Attributes::new().be32(1, register(word)).be32(2, comparison as u32).nest(3, &data))
}

const NFT_CT_STATE: u32 = 0;
pub(super) const NFT_CT_STATUS: u32 = 2;
pub(super) const IPS_DST_NAT: u32 = 1 << 5;
/// `NF_CT_STATE_BIT(IP_CT_ESTABLISHED) | NF_CT_STATE_BIT(IP_CT_RELATED)`
const ESTABLISHED_OR_RELATED: u32 = 2 | 4;

/// Goes on only if the connection's destination was translated: `ct status dnat`.
pub fn translated() -> [Expression; 3] {
    connection(NFT_CT_STATUS, IPS_DST_NAT, Comparison::Unequal)
}

/// Goes on only if the connection's destination is the one that was asked for.
pub fn untranslated() -> [Expression; 3] {
    connection(NFT_CT_STATUS, IPS_DST_NAT, Comparison::Equal)
}

/// Goes on only if the packet begins a connection, or belongs to none: not `ct state established,related`.
pub fn unasked() -> [Expression; 3] {
    connection(NFT_CT_STATE, ESTABLISHED_OR_RELATED, Comparison::Equal)
}

fn connection(key: u32, bits: u32, comparison: Comparison) -> [Expression; 3] {
    let load = Expression::new("ct", &Attributes::new().be32(2, key).be32(1, register(0)));
    [load, mask(0, &bits.to_ne_bytes()), compare(0, comparison, &[0; 4])]
}

/// Keeps only the bits of `mask` in the registers from `word` on.
pub fn mask(word: u32, mask: &[u8]) -> Expression {
    let length = u32::try_from(mask.len()).unwrap_or(u32::MAX);
    let attributes = Attributes::new()
        .be32(1, register(word))
        .be32(2, register(word))
        .be32(3, length)
        .nest(4, &Attributes::new().bytes(1, mask))
        .nest(5, &Attributes::new().bytes(1, &vec![0; mask.len()]));
    Expression::new("bitwise", &attributes)
}

/// Goes on only if the packet's destination is one of the host's own addresses: `fib daddr type local`.
pub fn destination_is_local() -> [Expression; 2] {
    const ADDRESS_TYPE: u32 = 3;
    const DESTINATION: u32 = 2;
    const RTN_LOCAL: u32 = 2;
    let load = Attributes::new().be32(1, register(0)).be32(2, ADDRESS_TYPE).be32(3, DESTINATION);
    [Expression::new("fib", &load), compare(0, Comparison::Equal, &RTN_LOCAL.to_ne_bytes())]
}

/// Goes on only if the registers from `word` on are a key of the set.
pub fn is_in(set: &str, word: u32) -> Expression {
    Expression::new("lookup", &Attributes::new().text(1, set).be32(2, register(word)))
}

/// Replaces the key in the registers from `word` on by the map's value; goes on only if there is one.
///
/// One expression for any number of ports: a rule for each would be walked through by every packet.
pub fn look_up(map: &str, word: u32) -> Expression {
    Expression::new("lookup", &Attributes::new().text(1, map).be32(2, register(word)).be32(3, register(word)))
}

/// Translates the destination to the address and, if it is given, the port in these registers.
pub fn translate_destination(family: super::Family, address: u32, port: Option<u32>) -> Expression {
    const DESTINATION: u32 = 1;
    let family = u32::from(family.number());
    let attributes = Attributes::new().be32(1, DESTINATION).be32(2, family).be32(3, register(address));
    Expression::new("nat", &port.iter().fold(attributes, |a, port| a.be32(5, register(*port))))
}

/// Translates the source to the address of the interface by which the packet goes.
///
/// Only in a `nat` chain at the hook `postrouting`.
pub fn masquerade() -> Expression {
    Expression::new("masq", &Attributes::new())
}

/// Lets the packet go on.
pub fn accept() -> Expression {
    verdict(NF_ACCEPT, None)
}

/// Throws the packet away.
pub fn drop() -> Expression {
    verdict(NF_DROP, None)
}

/// Goes on in another chain.
pub fn jump(chain: &str) -> Expression {
    verdict(NFT_JUMP, Some(chain))
}

fn verdict(code: i32, chain: Option<&str>) -> Expression {
    let verdict = Attributes::new().bytes(1, &code.to_be_bytes());
    let verdict = chain.iter().fold(verdict, |a, chain| a.text(2, chain));
    let data = Attributes::new().nest(2, &verdict);
    Expression::new("immediate", &Attributes::new().be32(1, VERDICT_REGISTER).nest(2, &data))
}
