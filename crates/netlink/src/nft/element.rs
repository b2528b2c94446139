//! Elements of sets and maps.

use super::{HEADER, LIST_ELEM, SUBSYSTEM, Table, message};
use crate::{Attribute, Attributes, Raw, find, parse};

const NEWSETELEM: u16 = SUBSYSTEM + 12;
const GETSETELEM: u16 = SUBSYSTEM + 13;
const DELSETELEM: u16 = SUBSYSTEM + 14;

/// An element: bytes in the kernel's registers, each field filled up to four bytes.
///
/// A key of several fields is their bytes one after another, each padded to four: `tcp . 80` is `06 00 00 00 00 50 00
/// 00`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// The key, or the least one of an interval.
    pub key: Vec<u8>,
    /// The greatest key of an interval.
    pub key_end: Option<Vec<u8>>,
    /// A map's value.
    pub data: Option<Vec<u8>>,
    /// What its maker wrote to it: nft prints it as `comment`.
    pub comment: Option<String>,
}

impl Element {
    /// Adds the element to a set. An equal one that is there already is no error without
    /// [`flag::EXCL`](crate::flag::EXCL); an equal key with another value is: `EEXIST`.
    pub fn create(&self, table: Table<'_>, set: &str) -> Raw {
        self.message(NEWSETELEM, table, set)
    }

    /// Deletes the element from a set.
    ///
    /// `ENOENT` where it is not there, and then the whole batch is refused.
    pub fn delete(&self, table: Table<'_>, set: &str) -> Raw {
        let key = Self { data: None, comment: None, ..self.clone() };
        key.message(DELSETELEM, table, set)
    }

    /// Asks for all elements of a set.
    pub fn dump(table: Table<'_>, set: &str) -> Raw {
        message(GETSETELEM, table.family.number(), Attributes::new().text(1, table.name).text(2, set))
    }

    /// Asks for the element of a set that has a key, or that such a key is within.
    ///
    /// `ENOENT` is the answer where there is none. The kernel finds it by hash, or tree, however many elements there
    /// are.
    pub fn find(key: &[u8], table: Table<'_>, set: &str) -> Raw {
        Self { key: key.to_vec(), ..Self::default() }.message(GETSETELEM, table, set)
    }

    /// Reads the elements in one answer.
    pub fn read(answer: &Raw) -> Vec<Self> {
        let lists = parse(answer.payload.get(HEADER..).unwrap_or_default()).filter(|attribute| attribute.kind == 3);
        lists.flat_map(|list| parse(list.payload)).map(|element| Self::parse(&element)).collect()
    }

    fn parse(attribute: &Attribute<'_>) -> Self {
        let mut element = Self::default();
        for attribute in parse(attribute.payload) {
            let value = || find(attribute.payload, 1).map(|value| value.payload.to_vec());
            match attribute.kind {
                1 => element.key = value().unwrap_or_default(),
                2 => element.data = value(),
                6 => element.comment = comment(attribute.payload),
                10 => element.key_end = value(),
                _ => {}
            }
        }
        element
    }

    fn message(&self, kind: u16, table: Table<'_>, set: &str) -> Raw {
        let value = |bytes: &[u8]| Attributes::new().bytes(1, bytes);
        let element = Attributes::new().nest(1, &value(&self.key));
        let element = self.key_end.iter().fold(element, |a, end| a.nest(10, &value(end)));
        let element = self.data.iter().fold(element, |a, data| a.nest(2, &value(data)));
        let element = self.comment.iter().fold(element, |a, comment| a.bytes(6, &comment_bytes(comment)));
        let list = Attributes::new().nest(LIST_ELEM, &element);
        message(kind, table.family.number(), Attributes::new().text(1, table.name).text(2, set).nest(3, &list))
    }
}

/// `NFTNL_UDATA_*_COMMENT`: type, length, a text that a zero byte ends. The kernel keeps 256 bytes at most.
pub(super) fn comment_bytes(comment: &str) -> Vec<u8> {
    let text: Vec<u8> = comment.bytes().take(253).chain([0]).collect();
    [&[0, u8::try_from(text.len()).unwrap_or(u8::MAX)][..], &text].concat()
}

pub(super) fn comment(userdata: &[u8]) -> Option<String> {
    let mut rest = userdata;
    loop {
        let (kind, length) = (*rest.first()?, usize::from(*rest.get(1)?));
        let value = rest.get(2..2 + length)?;
        if kind == 0 {
            return Some(Attribute { kind: 0, payload: value }.text());
        }
        rest = rest.get(2 + length..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::Family;

    #[test]
    fn an_element_is_read_as_it_was_written() {
        let element = Element {
            key: vec![6, 0, 0, 0, 0x1f, 0x90, 0, 0],
            key_end: Some(vec![6, 0, 0, 0, 0x1f, 0x99, 0, 0]),
            data: Some(vec![10, 88, 0, 2]),
            comment: Some("id=web".to_owned()),
        };
        let table = Table { family: Family::Ip, name: "portmap" };
        assert_eq!(Element::read(&element.create(table, "range")), [element]);
    }

    #[test]
    fn a_comment_stands_among_other_user_data() {
        for (bytes, want) in [
            (&b"\x01\x01x\x00\x04web\x00"[..], Some("web")),
            (b"\x00\x09web\x00", None),
            (b"\x01\x00", None),
            (b"", None),
        ] {
            assert_eq!(comment(bytes).as_deref(), want);
        }
    }
}
