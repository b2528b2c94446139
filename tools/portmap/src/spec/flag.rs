//! What `-p` asks for beside docker's forms: sockets as either end, which only a proxy can serve.
//!
//! `unix:PATH` is a socket in the file system, the host's before the colon and the container's behind it; `fd:N` is a
//! socket that this process has inherited, such as systemd's from 3 on.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context;
use record::{PortMapping, Ports, Protocol, Record};
use serde::{Deserialize, Serialize};

use super::{HostPorts, Malformed, PortSpec, Span, host_part, host_ports, port};

/// One `-p`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PublishFlag {
    /// Ports at both ends.
    Ports(PortSpec),
    /// A socket at one end or at both.
    Socket(SocketSpec),
}

/// A stream from a socket or a port to a socket or a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SocketSpec {
    pub(crate) host: HostEnd,
    pub(crate) container: ContainerEnd,
}

/// Where clients come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HostEnd {
    /// A port; the container's end in it says nothing.
    Port(PortSpec),
    /// A socket in the host's file system.
    Path(PathBuf),
    /// An inherited socket.
    Descriptor(u32),
}

/// What they are led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ContainerEnd {
    Port(u16),
    /// A socket in the container's file system.
    Path(PathBuf),
}

const UNIX: &str = "unix:";
const DESCRIPTOR: &str = "fd:";

impl FromStr for PublishFlag {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        // `fd::1:8080:80` is an IPv6 address, bare as docker takes it.
        let is_descriptor = text.starts_with(DESCRIPTOR) && !text.starts_with("fd::");
        let is_socket = is_descriptor || text.starts_with(UNIX) || text.contains(":unix:");
        if is_socket { text.parse().map(Self::Socket) } else { text.parse().map(Self::Ports) }
    }
}

impl FromStr for SocketSpec {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let (host, container) = if let Some((host, container)) = text.split_once(":unix:") {
            (host, ContainerEnd::Path(path(container)?))
        } else {
            let (host, container) = text.rsplit_once(':').ok_or(Malformed("the container's port is missing"))?;
            (host, ContainerEnd::Port(port(container.strip_suffix("/tcp").unwrap_or(container))?))
        };
        let host = if let Some(host) = host.strip_prefix(UNIX) {
            HostEnd::Path(path(host)?)
        } else if let Some(number) = host.strip_prefix(DESCRIPTOR) {
            let number = number.parse().ok().filter(|number| *number > 2);
            HostEnd::Descriptor(number.ok_or(Malformed("an inherited socket's descriptor is a number from 3 on"))?)
        } else {
            HostEnd::Port(host_port(host)?)
        };
        Ok(Self { host, container })
    }
}

fn host_port(text: &str) -> Result<PortSpec, Malformed> {
    let ((host_ip, host), one) = (host_part(text)?, Span::one(1));
    match host_ports(host, one)? {
        HostPorts::FirstFree(_) => Err(Malformed("a range of ports leads to a range of ports")),
        host => Ok(PortSpec { host_ip, host, container: one, protocol: Protocol::Tcp }),
    }
}

fn path(text: &str) -> Result<PathBuf, Malformed> {
    // A colon would be taken for the next part when it is read again.
    let plain = text.starts_with('/') && !text.contains(':') && !text.chars().any(char::is_control);
    plain.then(|| text.into()).ok_or(Malformed("a socket's path is absolute and has no colon"))
}

impl fmt::Display for SocketSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.container)
    }
}

impl fmt::Display for HostEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(spec) => spec.host_side().fmt(f),
            Self::Path(path) => write!(f, "{UNIX}{}", path.display()),
            Self::Descriptor(number) => write!(f, "{DESCRIPTOR}{number}"),
        }
    }
}

impl fmt::Display for ContainerEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => port.fmt(f),
            Self::Path(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

/// What a proxy serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    Port(PortMapping),
    Socket(SocketSpec),
}

impl Served {
    /// Returns what a record says is served; each socket stands there as `-p` takes it.
    pub(crate) fn of_record(record: &Record) -> anyhow::Result<Vec<Self>> {
        let ports = record.find::<Ports>()?.unwrap_or_default().0;
        let sockets = record.find::<Sockets>()?.unwrap_or_default().0.into_iter();
        let sockets = sockets.map(|text| text.parse().map(Self::Socket).with_context(|| format!("socket {text}")));
        ports.into_iter().map(|port| Ok(Self::Port(port))).chain(sockets).collect()
    }

    /// Adds to what a record says is served.
    pub(crate) fn add_to(record: &mut Record, added: &[Self]) -> anyhow::Result<()> {
        let mut ports = record.find::<Ports>()?.unwrap_or_default().0;
        let mut sockets = record.find::<Sockets>()?.unwrap_or_default().0;
        // By what they mean: somebody else may have written 08 for 8.
        let is = |known: &String, spec: &SocketSpec| known.parse().is_ok_and(|known: SocketSpec| known == *spec);
        for served in added {
            match served {
                Self::Port(port) if !ports.contains(port) => ports.push(port.clone()),
                Self::Socket(spec) if !sockets.iter().any(|known| is(known, spec)) => sockets.push(spec.to_string()),
                Self::Port(_) | Self::Socket(_) => {}
            }
        }
        record.set(&Ports(ports));
        if !sockets.is_empty() {
            record.set(&Sockets(sockets));
        }
        Ok(())
    }

    /// Tells whether this is among what somebody names.
    pub(crate) fn is_named_by(&self, flag: &PublishFlag) -> bool {
        match (self, flag) {
            (Self::Port(port), PublishFlag::Ports(spec)) => spec.names(port),
            (Self::Socket(spec), PublishFlag::Socket(other)) => spec == other,
            _ => false,
        }
    }

    /// Tells whether it has a port of the host's.
    pub(crate) fn has(&self, port: u16, protocol: Protocol) -> bool {
        match self {
            Self::Port(own) => own.host_port == port && own.protocol == protocol,
            Self::Socket(SocketSpec { host: HostEnd::Port(own), .. }) => {
                own.host.first() == port && protocol == Protocol::Tcp
            }
            Self::Socket(_) => false,
        }
    }
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(f, "{}:{}/{}", port.host_port, port.container_port, port.protocol),
            Self::Socket(spec) => spec.fmt(f),
        }
    }
}

/// What a proxy serves that is no port at both ends, as `-p` takes it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Sockets(Vec<String>);

record::part! { Sockets: "sockets" by "portmap"; }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_stand_where_ports_do() {
        for text in [
            "unix:/run/x.sock:80",
            "8080:unix:/run/app.sock",
            "127.0.0.1:8080:unix:/run/app.sock",
            "[::1]:8080:unix:/run/app.sock",
            "unix:/run/x.sock:unix:/run/app.sock",
            "fd:3:80",
            "fd:4:unix:/run/app.sock",
        ] {
            let PublishFlag::Socket(spec) = text.parse().unwrap() else { panic!("{text}") };
            assert_eq!(spec.to_string(), text);
        }
        let spec: SocketSpec = "unix:/run/x.sock:80/tcp".parse().unwrap();
        assert_eq!((spec.host, spec.container), (HostEnd::Path("/run/x.sock".into()), ContainerEnd::Port(80)));
        assert!(matches!("8080:80".parse(), Ok(PublishFlag::Ports(_))));
    }

    #[test]
    fn what_a_record_has_in_other_words_is_not_added() {
        let text = br#"{"ports": [], "sockets": ["unix:/a:08"]}"#;
        let mut record = Record::parse(text, "the record").unwrap();
        let served = Served::of_record(&record).unwrap();
        Served::add_to(&mut record, &served).unwrap();
        assert_eq!(Served::of_record(&record).unwrap(), served);
    }

    #[test]
    fn half_a_socket_is_refused() {
        for text in [
            "unix:",
            "unix:/x",
            "unix:x:80",
            "unix:/x:",
            "unix:/x:0",
            "unix:/x:80/udp",
            "unix:/a:b:80",
            "8080:unix:",
            "8080:unix:x",
            "8000-9000:unix:/x",
            "fd:80",
            "fd:x:80",
            "fd:0:80",
            "fd:2:80",
            "fd:-1:80",
        ] {
            assert!(text.parse::<PublishFlag>().is_err(), "{text}");
        }
    }
}
