//! Attributes (`struct nlattr`): type, length, value, nested to any depth; written for messages that no crate has types
//! for, and read without trusting any length.

/// `NLA_F_NESTED | NLA_F_NET_BYTEORDER`: marks, not part of the type.
const MARKS: u16 = 0xc000;
const NESTED: u16 = 0x8000;

/// Attributes under construction.
///
/// ```
/// use netlink::{Attributes, find};
///
/// let inner = Attributes::new().text(1, "veth");
/// let bytes = Attributes::new().number(4, 1500).nest(18, &inner).into_bytes();
/// let nested = find(&bytes, 18).expect("it was just written");
/// assert_eq!(find(nested.payload, 1).map(|kind| kind.text()).as_deref(), Some("veth"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    /// Returns no attributes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends bytes.
    ///
    /// The length that is written counts the header of four bytes and not the padding to the next multiple of four.
    /// What is longer than 64 KiB has no form; nothing here is.
    #[must_use]
    pub fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Appends a number in the machine's byte order, as rtnetlink has them.
    #[must_use]
    pub fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// Appends a number in network byte order, as nfnetlink has all its numbers.
    #[must_use]
    pub fn be32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Appends a long number in network byte order.
    #[must_use]
    pub fn be64(self, kind: u16, value: u64) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Appends a text with the zero byte that ends it.
    #[must_use]
    pub fn text(self, kind: u16, value: &str) -> Self {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// Appends attributes as the value of one.
    ///
    /// `NLA_F_NESTED` marks it: the kernel's strict parsers ask for the mark since 5.2, older ones pass over it.
    #[must_use]
    pub fn nest(self, kind: u16, inner: &Self) -> Self {
        self.bytes(kind | NESTED, &inner.0)
    }

    /// Returns them as they stand in a message.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// One attribute of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// The type, without the marks for nesting and byte order.
    pub kind: u16,
    /// The value.
    pub payload: &'a [u8],
}

impl Attribute<'_> {
    /// Returns the value as text, up to its first zero byte.
    pub fn text(&self) -> String {
        let end = self.payload.iter().position(|byte| *byte == 0).unwrap_or(self.payload.len());
        String::from_utf8_lossy(self.payload.get(..end).unwrap_or_default()).into_owned()
    }

    /// Returns the value as a number in network byte order.
    pub fn be32(&self) -> Option<u32> {
        Some(u32::from_be_bytes(self.payload.try_into().ok()?))
    }

    /// Returns the value as a long number in network byte order.
    pub fn be64(&self) -> Option<u64> {
        Some(u64::from_be_bytes(self.payload.try_into().ok()?))
    }
}

/// Returns the first of the attributes that stand in `bytes` which is of that type.
pub fn find(bytes: &[u8], kind: u16) -> Option<Attribute<'_>> {
    parse(bytes).find(|attribute| attribute.kind == kind)
}

/// Reads the attributes that stand in `bytes`, up to the first whose length is impossible.
///
/// Unknown types are the reader's to pass over: newer kernels add some.
pub fn parse(bytes: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?) & !MARKS;
        let payload = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Attribute { kind, payload })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let inner = Attributes::new().be32(1, 7).text(2, "web");
        let bytes = Attributes::new().bytes(9, &[1]).nest(3, &inner).be64(4, 8).into_bytes();
        let read: Vec<_> = parse(&bytes).collect();
        assert_eq!(read.iter().map(|a| a.kind).collect::<Vec<_>>(), [9, 3, 4]);
        let nested: Vec<_> = parse(read[1].payload).collect();
        assert_eq!((nested[0].be32(), nested[1].text().as_str()), (Some(7), "web"));
        assert_eq!(read[2].be64(), Some(8));
    }

    #[test]
    fn impossible_lengths_end_the_list() {
        for bytes in [&[1_u8, 0, 0, 0][..], &[200, 0, 1, 0], &[4, 0], &[3, 0, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(parse(bytes).count(), 0, "{bytes:?}");
        }
    }
}
