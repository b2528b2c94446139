//! Hosts that a container has a name for: `--add-host`.

use std::net::IpAddr;
use std::str::FromStr;

/// `--add-host NAME:ADDRESS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostEntry {
    pub(crate) name: String,
    /// None is the host's own, as the container reaches it: `host-gateway`.
    pub(crate) address: Option<IpAddr>,
}

impl FromStr for HostEntry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || format!("`{text}` is not NAME:ADDRESS");
        let (name, address) = text.split_once(['=', ':']).ok_or_else(invalid)?;
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c == '#') {
            return Err(invalid());
        }
        let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
        let address = if bare == "host-gateway" { None } else { Some(bare.parse().map_err(|_| invalid())?) };
        Ok(Self { name: name.to_owned(), address })
    }
}
