//! nftables by netlink (`nf_tables.h`): tables, chains, rules, sets and their elements as
//! messages for a [`Batch`](crate::Batch), and as what a dump answers.
//!
//! Numbers of attributes are those of `enum nft_table_attributes` and its like in `linux/netfilter/nf_tables.h`, which
//! begin with 1. All numbers are in network byte order, but for those that rules compare with registers.

pub mod element;
pub mod expression;
mod rule;

use crate::{Attributes, Raw, find, parse};

pub use element::Element;
pub use expression::Expression;
pub use rule::Rule;

const SUBSYSTEM: u16 = 10 << 8;
const NEWTABLE: u16 = SUBSYSTEM;
const GETTABLE: u16 = SUBSYSTEM + 1;
const DELTABLE: u16 = SUBSYSTEM + 2;
const NEWCHAIN: u16 = SUBSYSTEM + 3;
const GETCHAIN: u16 = SUBSYSTEM + 4;
const DELCHAIN: u16 = SUBSYSTEM + 5;
const NEWRULE: u16 = SUBSYSTEM + 6;
const GETRULE: u16 = SUBSYSTEM + 7;
const DELRULE: u16 = SUBSYSTEM + 8;
const NEWSET: u16 = SUBSYSTEM + 9;
const DELSET: u16 = SUBSYSTEM + 11;
const GETGEN: u16 = SUBSYSTEM + 16;

const LIST_ELEM: u16 = 1;

/// `struct nfgenmsg`.
pub(crate) const HEADER: usize = 4;

/// The protocol family of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Both.
    Inet,
}

impl Family {
    /// Returns the number that messages carry (`NFPROTO_*`).
    pub const fn number(self) -> u8 {
        match self {
            Self::Ip => 2,
            Self::Ip6 => 10,
            Self::Inet => 1,
        }
    }
}

pub(crate) fn message(kind: u16, family: u8, attributes: Attributes) -> Raw {
    Raw { kind, payload: [&[family, 0, 0, 0][..], &attributes.into_bytes()].concat() }
}

/// The name of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table<'a> {
    /// Its family.
    pub family: Family,
    /// Its name.
    pub name: &'a str,
}

impl Table<'_> {
    /// Makes the table.
    ///
    /// It is no error if the table is there; with [`flag::EXCL`](crate::flag::EXCL) it is `EEXIST`.
    pub fn create(self) -> Raw {
        message(NEWTABLE, self.family.number(), Attributes::new().text(1, self.name))
    }

    /// Makes the table as this socket's own: others cannot change it, and the kernel deletes it when the socket is closed,
    /// however its process ends (`NFT_TABLE_F_OWNER`, since Linux 5.12).
    pub fn create_owned(self) -> Raw {
        const NFT_TABLE_F_OWNER: u32 = 2;
        message(NEWTABLE, self.family.number(), Attributes::new().text(1, self.name).be32(2, NFT_TABLE_F_OWNER))
    }

    /// Asks for all tables.
    pub fn dump() -> Raw {
        message(GETTABLE, 0, Attributes::new())
    }

    /// Deletes the table with all that is in it.
    ///
    /// `ENOENT` where it is not there. Making and deleting it in one batch makes that harmless.
    pub fn delete(self) -> Raw {
        message(DELTABLE, self.family.number(), Attributes::new().text(1, self.name))
    }

    /// Makes a chain; with a hook it is a base chain, whose policy is to accept.
    pub fn create_chain(self, name: &str, hook: Option<Hook<'_>>) -> Raw {
        let mut attributes = Attributes::new().text(1, self.name).text(3, name);
        if let Some(hook) = hook {
            let place = Attributes::new().be32(1, hook.number).bytes(2, &hook.priority.to_be_bytes());
            attributes = attributes.nest(4, &place).text(7, hook.kind);
        }
        message(NEWCHAIN, self.family.number(), attributes)
    }

    /// Deletes a chain, which must have no rules.
    pub fn delete_chain(self, name: &str) -> Raw {
        message(DELCHAIN, self.family.number(), Attributes::new().text(1, self.name).text(3, name))
    }

    /// Deletes all rules of a chain.
    ///
    /// The chain itself stays, with its hook: packets pass through it in the moment between.
    pub fn flush_chain(self, chain: &str) -> Raw {
        message(DELRULE, self.family.number(), Attributes::new().text(1, self.name).text(2, chain))
    }

    /// Adds a rule: at the chain's head, or at its end with [`flag::APPEND`](crate::flag::APPEND).
    ///
    /// A rule's comment is what tells whose it is: rules have no names.
    pub fn create_rule(self, chain: &str, expressions: &[Expression], comment: Option<&str>) -> Raw {
        let list = expressions.iter().fold(Attributes::new(), |list, e| list.nest(LIST_ELEM, e.attributes()));
        let attributes = Attributes::new().text(1, self.name).text(2, chain).nest(4, &list);
        let attributes = comment.iter().fold(attributes, |a, comment| a.bytes(7, &element::comment_bytes(comment)));
        message(NEWRULE, self.family.number(), attributes)
    }

    /// Deletes one rule.
    pub fn delete_rule(self, rule: &Rule) -> Raw {
        let attributes = Attributes::new().text(1, self.name).text(2, &rule.chain).be64(3, rule.handle);
        message(DELRULE, self.family.number(), attributes)
    }

    /// Asks for the rules of a chain, or of all.
    pub fn dump_rules(self, chain: Option<&str>) -> Raw {
        let attributes = Attributes::new().text(1, self.name);
        let attributes = chain.iter().fold(attributes, |a, chain| a.text(2, chain));
        message(GETRULE, self.family.number(), attributes)
    }

    /// Deletes a set or a map, which no rule may read any more.
    pub fn delete_set(self, name: &str) -> Raw {
        message(DELSET, self.family.number(), Attributes::new().text(1, self.name).text(2, name))
    }

    /// Makes a set or a map.
    pub fn create_set(self, set: &Set<'_>) -> Raw {
        const INTERVAL: u32 = 4;
        const MAP: u32 = 8;
        const CONCAT: u32 = 0x80;
        let mut flags = 0;
        let mut attributes = Attributes::new().text(1, self.name).text(2, set.name);
        attributes = attributes.be32(4, concatenation(set.key)).be32(5, length(set.key));
        if !set.data.is_empty() {
            flags |= MAP;
            attributes = attributes.be32(6, concatenation(set.data)).be32(7, length(set.data));
        }
        // An interval of several fields is kept in the set type `pipapo`, which has to know each field's length.
        if set.interval {
            flags |= INTERVAL | CONCAT;
            let size = |field: &Field| Attributes::new().be32(1, field.size);
            let fields = set.key.iter().fold(Attributes::new(), |list, field| list.nest(LIST_ELEM, &size(field)));
            attributes = attributes.nest(9, &Attributes::new().nest(2, &fields));
        }
        // The number by which later messages of the batch may call the set; required, used by nobody here.
        message(NEWSET, self.family.number(), attributes.be32(3, flags).be32(10, 1))
    }
}

/// A table, as a dump answers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableAnswer {
    /// `NFPROTO_*`.
    pub family: u8,
    /// Its name.
    pub name: String,
    /// The number of the socket that owns it: see [`Socket::number`](crate::Socket::number).
    pub owner: Option<u32>,
}

impl TableAnswer {
    /// Reads one answer.
    pub fn read(answer: &Raw) -> Self {
        let family = answer.payload.first().copied().unwrap_or_default();
        let mut table = Self { family, name: String::new(), owner: None };
        for attribute in parse(answer.payload.get(HEADER..).unwrap_or_default()) {
            match attribute.kind {
                1 => table.name = attribute.text(),
                7 => table.owner = attribute.be32(),
                _ => {}
            }
        }
        table
    }
}

/// Where a base chain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook<'a> {
    /// `nat` or `filter`.
    pub kind: &'a str,
    /// `NF_INET_*`.
    pub number: u32,
    /// Chains of one hook run from the lowest on.
    pub priority: i32,
}

impl Hook<'_> {
    /// `NF_INET_PRE_ROUTING`: what comes in by an interface.
    pub const PREROUTING: u32 = 0;
    /// `NF_INET_FORWARD`: what goes from interface to interface.
    pub const FORWARD: u32 = 2;
    /// `NF_INET_LOCAL_OUT`: what the host itself sends.
    pub const OUTPUT: u32 = 3;
    /// `NF_INET_POST_ROUTING`: what goes out by an interface.
    pub const POSTROUTING: u32 = 4;
}

/// A field's type, as nft names and prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    number: u32,
    size: u32,
}

impl Field {
    /// `ipv4_addr`.
    pub const IPV4: Self = Self { number: 7, size: 4 };
    /// `ipv6_addr`.
    pub const IPV6: Self = Self { number: 8, size: 16 };
    /// `inet_proto`.
    pub const PROTOCOL: Self = Self { number: 12, size: 1 };
    /// `inet_service`.
    pub const PORT: Self = Self { number: 13, size: 2 };
    /// `mark`.
    pub const MARK: Self = Self { number: 19, size: 4 };
}

/// nft counts a concatenation's types in six bits each.
fn concatenation(fields: &[Field]) -> u32 {
    fields.iter().fold(0, |number, field| number << 6 | field.number)
}

/// Each field fills whole registers of four bytes.
fn length(fields: &[Field]) -> u32 {
    fields.iter().map(|field| field.size.next_multiple_of(4)).sum()
}

/// A set, or with data a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set<'a> {
    /// Its name.
    pub name: &'a str,
    /// What its keys are made of.
    pub key: &'a [Field],
    /// What its values are made of; nothing for a set.
    pub data: &'a [Field],
    /// Whether keys are intervals in every field.
    pub interval: bool,
}

/// A chain, as a dump answers it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// `NFPROTO_*`.
    pub family: u8,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// `NF_INET_*` of a base chain.
    pub hook: Option<u32>,
    /// Whether a packet that no rule decides on is dropped.
    pub drops: bool,
}

impl Chain {
    /// Returns its table, if that is of a family known here.
    pub fn table(&self) -> Option<Table<'_>> {
        let family = [Family::Ip, Family::Ip6, Family::Inet].into_iter().find(|known| known.number() == self.family)?;
        Some(Table { family, name: &self.table })
    }

    /// Asks for all chains of all tables.
    pub fn dump() -> Raw {
        message(GETCHAIN, 0, Attributes::new())
    }

    /// Reads one answer.
    pub fn read(answer: &Raw) -> Self {
        let family = answer.payload.first().copied().unwrap_or_default();
        let mut chain = Self { family, ..Self::default() };
        for attribute in parse(answer.payload.get(HEADER..).unwrap_or_default()) {
            match attribute.kind {
                1 => chain.table = attribute.text(),
                3 => chain.name = attribute.text(),
                4 => chain.hook = find(attribute.payload, 1).and_then(|number| number.be32()),
                5 => chain.drops = attribute.be32() == Some(0),
                _ => {}
            }
        }
        chain
    }
}

/// Asks for the rule set's generation, which every transaction raises.
pub fn generation_request() -> Raw {
    message(GETGEN, 0, Attributes::new())
}

/// Reads the generation.
///
/// A batch that names a generation is refused with `ERESTART` where another transaction came between reading and
/// sending, so that "read, decide, write" is atomic ([`Batch`](crate::Batch)).
pub fn generation(answer: &Raw) -> Option<u32> {
    find(answer.payload.get(HEADER..)?, 1)?.be32()
}
