//! Somebody's rule, read as far as it tells what becomes of every packet.

use super::{HEADER, element};
use crate::nft::expression::{Comparison, IPS_DST_NAT, NF_ACCEPT, NF_DROP, NFT_CT_STATUS};
use crate::{Attribute, Raw, find, parse};

/// A rule, as a dump answers it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Its chain.
    pub chain: String,
    /// Its number in the table.
    pub handle: u64,
    /// What its maker wrote to it, be it by nftables' way or by iptables' own.
    pub comment: Option<String>,
    /// Whether no packet gets past it: a drop or a refusal without a condition.
    pub ends_all: bool,
    /// Whether it lets all of a connection through whose destination was translated: `ct status dnat accept`.
    pub accepts_translated: bool,
}

impl Rule {
    /// Reads one answer.
    pub fn read(answer: &Raw) -> Self {
        let mut rule = Self::default();
        for attribute in parse(answer.payload.get(HEADER..).unwrap_or_default()) {
            match attribute.kind {
                2 => rule.chain = attribute.text(),
                3 => rule.handle = attribute.be64().unwrap_or_default(),
                4 => {
                    let parts: Vec<Part> = parse(attribute.payload).map(|part| Part::read(&part)).collect();
                    rule.ends_all = ends_all(&parts);
                    rule.accepts_translated = accepts_translated(&parts);
                    rule.comment = rule.comment.or_else(|| parse(attribute.payload).find_map(|part| remark(&part)));
                }
                7 => rule.comment = element::comment(attribute.payload).or(rule.comment),
                _ => {}
            }
        }
        rule
    }
}

/// What an expression means to one who only asks for the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// It changes nothing: it counts or logs.
    Note,
    Refuse,
    Accept,
    /// It loads the connection's status.
    Status,
    /// It keeps this bit alone: that the destination was translated.
    Translated,
    Unequal,
    Other,
}

impl Part {
    fn read(part: &Attribute<'_>) -> Self {
        let name = find(part.payload, 1).map(|name| name.text()).unwrap_or_default();
        let data = find(part.payload, 2).map(|data| data.payload).unwrap_or_default();
        let value = |kind| find(data, kind);
        match name.as_str() {
            "counter" | "log" => Self::Note,
            "reject" => Self::Refuse,
            // What iptables has made of `-j REJECT`.
            "target" if value(1).is_some_and(|target| target.text() == "REJECT") => Self::Refuse,
            "immediate" => value(2).map_or(Self::Other, |data| verdict(data.payload)),
            "ct" if value(2).and_then(|key| key.be32()) == Some(NFT_CT_STATUS) => Self::Status,
            "bitwise" => {
                let mask = value(4).and_then(|mask| parse(mask.payload).next().map(|mask| mask.payload.to_vec()));
                let is_it = mask.as_deref() == Some(IPS_DST_NAT.to_ne_bytes().as_slice());
                if is_it { Self::Translated } else { Self::Other }
            }
            "cmp" if value(2).and_then(|how| how.be32()) == Some(Comparison::Unequal as u32) => Self::Unequal,
            _ => Self::Other,
        }
    }
}

/// Reads what iptables writes for `-m comment`: a match of this name, its text filled up with zero bytes.
fn remark(part: &Attribute<'_>) -> Option<String> {
    let data = find(part.payload, 2)?.payload;
    find(data, 1).filter(|name| name.text() == "comment")?;
    Some(find(data, 3)?.text())
}

fn verdict(data: &[u8]) -> Part {
    let code = find(data, 2).and_then(|verdict| find(verdict.payload, 1)?.be32());
    match code.map(|code| i32::from_ne_bytes(code.to_ne_bytes())) {
        Some(NF_DROP) => Part::Refuse,
        Some(NF_ACCEPT) => Part::Accept,
        _ => Part::Other,
    }
}

fn ends_all(parts: &[Part]) -> bool {
    let [notes @ .., Part::Refuse] = parts else { return false };
    notes.iter().all(|part| *part == Part::Note)
}

fn accepts_translated(parts: &[Part]) -> bool {
    let parts: Vec<Part> = parts.iter().copied().filter(|part| *part != Part::Note).collect();
    parts == [Part::Status, Part::Translated, Part::Unequal, Part::Accept]
}

#[cfg(test)]
mod tests {
    use super::super::expression::{self as expression, accept, translated, untranslated};
    use super::super::{Family, Table};
    use super::*;

    #[test]
    fn what_becomes_of_every_packet_is_read() {
        let table = Table { family: Family::Inet, name: "t" };
        let with = |rule: Vec<expression::Expression>| {
            let read = Rule::read(&table.create_rule("c", &rule, Some("mine")));
            assert_eq!(read.comment.as_deref(), Some("mine"));
            (read.ends_all, read.accepts_translated)
        };
        let pair = |first: [expression::Expression; 3], last| first.into_iter().chain([last]).collect::<Vec<_>>();
        for (rule, want) in [
            (vec![expression::drop()], (true, false)),
            (vec![accept()], (false, false)),
            (vec![expression::jump("other")], (false, false)),
            (pair(translated(), accept()), (false, true)),
            (pair(translated(), expression::drop()), (false, false)),
            (pair(untranslated(), accept()), (false, false)),
            (vec![], (false, false)),
        ] {
            assert_eq!(with(rule.clone()), want, "{rule:?}");
        }
    }
}
