//! An address with the length of its network's prefix, `10.213.0.5/16`, and the arithmetic of its network.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An address and the length of its network's prefix.
///
/// ```
/// use netlink::route::Cidr;
///
/// let own: Cidr = "10.213.0.5/16".parse()?;
/// assert_eq!(own.network().to_string(), "10.213.0.0/16");
/// assert!(own.overlaps("10.213.7.0/24".parse()?));
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Cidr {
    /// The address; a network's own has zeros behind the prefix.
    pub address: IpAddr,
    /// The number of leading bits that all the network's addresses share.
    pub prefix: u8,
}

impl Cidr {
    /// Returns the network that has this address alone.
    pub fn of(address: IpAddr) -> Self {
        Self { address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// Returns the number of bits of an address of this family.
    pub fn bits(self) -> u8 {
        Self::of(self.address).prefix
    }

    /// Returns the network: the prefix, then zeros.
    #[must_use]
    pub fn network(self) -> Self {
        Self { address: self.at(number(self.address) & !self.host_mask()), ..self }
    }

    /// Returns the network's last address, which in IPv4 is the broadcast address.
    ///
    /// IPv6 has no broadcast: there it is an address like any other.
    pub fn last(self) -> IpAddr {
        self.at(number(self.address) | self.host_mask())
    }

    /// Tells whether the network has this address.
    pub fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && (number(address) ^ number(self.address)) & !self.host_mask() == 0
    }

    /// Tells whether two networks share an address.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.network().address) || other.contains(self.network().address)
    }

    /// Returns how many addresses the network has, less one.
    pub fn size(self) -> u128 {
        self.host_mask()
    }

    /// Returns the network's address number `offset`, counted from 0.
    pub fn nth(self, offset: u128) -> IpAddr {
        self.at((number(self.address) & !self.host_mask()) | (offset & self.host_mask()))
    }

    fn host_mask(self) -> u128 {
        let free = u32::from(self.bits() - self.prefix.min(self.bits()));
        1_u128.checked_shl(free).map_or(u128::MAX, |bit| bit - 1)
    }

    fn at(self, number: u128) -> IpAddr {
        match self.address {
            IpAddr::V4(_) => IpAddr::V4(u32::try_from(number).unwrap_or(u32::MAX).into()),
            IpAddr::V6(_) => IpAddr::V6(number.into()),
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = text.split_once('/').ok_or("no prefix length: ADDRESS/LENGTH is expected")?;
        let address: IpAddr = address.parse().map_err(|_| format!("{address:?} is not an IP address"))?;
        let bits = Self::of(address).prefix;
        match prefix.parse() {
            Ok(prefix) if prefix <= bits => Ok(Self { address, prefix }),
            _ => Err(format!("{prefix:?} is not a prefix length of 0 to {bits}")),
        }
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

impl TryFrom<String> for Cidr {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_knows_its_addresses() {
        for (text, network, last, second) in [
            ("10.213.4.5/16", "10.213.0.0/16", "10.213.255.255", "10.213.0.2"),
            ("10.0.0.7/32", "10.0.0.7/32", "10.0.0.7", "10.0.0.7"),
            ("1.2.3.4/0", "0.0.0.0/0", "255.255.255.255", "0.0.0.2"),
            ("fd00::5/64", "fd00::/64", "fd00::ffff:ffff:ffff:ffff", "fd00::2"),
            ("::1/0", "::/0", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::2"),
        ] {
            let cidr = cidr(text);
            assert_eq!(cidr.network().to_string(), network);
            assert_eq!((cidr.last().to_string(), cidr.nth(2).to_string()), (last.to_owned(), second.to_owned()));
            assert!(cidr.contains(cidr.address) && cidr.contains(cidr.last()));
        }
    }

    #[test]
    fn networks_overlap_where_one_has_the_others_address() {
        for (a, b, want) in [
            ("10.0.0.0/8", "10.213.0.0/16", true),
            ("10.213.0.0/16", "10.0.0.0/8", true),
            ("10.1.0.0/16", "10.2.0.0/16", false),
            ("0.0.0.0/0", "::/0", false),
        ] {
            assert_eq!(cidr(a).overlaps(cidr(b)), want, "{a} {b}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "fd00::/129", "10.0.0.0/-1", "10.0.0.0/"] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }
}
