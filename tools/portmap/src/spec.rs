//! Docker's `-p` forms: `[HOST-IP:][HOST-PORT[-LAST]:]PORT[-LAST][/PROTOCOL]`.

mod flag;
mod long;

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use anyhow::Context;
use record::{PortMapping, Protocol};

pub(crate) use flag::{ContainerEnd, HostEnd, PublishFlag, Served, SocketSpec};

/// So many random ports are tried for one that is free in every family.
const RANDOM_TRIES: usize = 100;

/// Ports from a first to a last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub(crate) first: u16,
    pub(crate) last: u16,
}

impl Span {
    /// Returns one port alone.
    pub(crate) fn one(port: u16) -> Self {
        Self { first: port, last: port }
    }

    pub(crate) fn len(self) -> u16 {
        self.last - self.first
    }

    pub(crate) fn ports(self) -> impl Iterator<Item = u16> {
        self.first..=self.last
    }

    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

/// Which ports of the host are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostPorts {
    /// Any that is free, for each port of the container.
    Random,
    /// These, one for each port of the container.
    Exactly(Span),
    /// The first free one of these, for the container's one port.
    FirstFree(Span),
}

impl HostPorts {
    /// Returns those that are asked for, unless any are.
    fn span(self) -> Option<Span> {
        match self {
            Self::Random => None,
            Self::Exactly(span) | Self::FirstFree(span) => Some(span),
        }
    }

    /// Returns the first that is asked for, or 0 where any is.
    pub(crate) fn first(self) -> u16 {
        self.span().map_or(0, |span| span.first)
    }
}

/// Ports of the host's that lead to ports of the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortSpec {
    /// The host's address; `None` means every address of both families.
    pub(crate) host_ip: Option<IpAddr>,
    pub(crate) host: HostPorts,
    pub(crate) container: Span,
    pub(crate) protocol: Protocol,
}

impl PortSpec {
    /// Tells whether a published port is one of those that this asks for.
    pub(crate) fn names(&self, port: &PortMapping) -> bool {
        let within = |span: Span, number| span.overlaps(Span::one(number));
        let host = self.host.span().is_none_or(|span| within(span, port.host_port));
        let address = self.host_ip.is_none_or(|ip| ip.is_unspecified() || port.host_ip == Some(ip));
        self.protocol == port.protocol && host && within(self.container, port.container_port) && address
    }

    /// Takes the host's ports: `take` is given some and the container's first one behind them, or 0 for any that is free.
    pub(crate) fn choose(&self, mut take: impl FnMut(Span, u16) -> anyhow::Result<()>) -> anyhow::Result<()> {
        match self.host {
            HostPorts::Exactly(host) => take(host, self.container.first),
            HostPorts::FirstFree(range) => {
                // A number of ports is tried one after another and not all at once: each attempt is a change of the
                // plan alone, and the firewall sees the one that fits.
                let mut refused = Ok(());
                range.ports().any(|port| {
                    refused = take(Span::one(port), self.container.first);
                    refused.is_ok()
                });
                refused.with_context(|| format!("{range}/{}: none of these ports is free", self.protocol))
            }
            // What is free in one family may be taken in the other.
            HostPorts::Random => self.container.ports().try_for_each(|port| {
                let mut take = || take(Span::one(0), port);
                let is_found = (1..RANDOM_TRIES).any(|_| take().is_ok());
                if is_found { Ok(()) } else { take().with_context(|| format!("find a port for its port {port}")) }
            }),
        }
    }

    /// Returns what stands before the last colon: the host's address and ports.
    fn host_side(&self) -> String {
        let ports = self.host.span().map(|span| span.to_string()).unwrap_or_default();
        self.host_ip.map_or_else(|| ports.clone(), |ip| endpoint(ip, &ports))
    }
}

impl fmt::Display for PortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.host_side(), self.container, self.protocol)
    }
}

impl From<&PortMapping> for PortSpec {
    fn from(port: &PortMapping) -> Self {
        let (host, container) = (HostPorts::Exactly(Span::one(port.host_port)), Span::one(port.container_port));
        Self { host_ip: port.host_ip, host, container, protocol: port.protocol }
    }
}

/// Writes an address with ports as people do.
pub(crate) fn endpoint(address: IpAddr, ports: impl fmt::Display) -> String {
    if address.is_ipv4() { format!("{address}:{ports}") } else { format!("[{address}]:{ports}") }
}

/// Returns the address that stands for all of a family.
pub(crate) fn any(is_ipv4: bool) -> IpAddr {
    if is_ipv4 { IpAddr::V4(0.into()) } else { IpAddr::V6(0.into()) }
}

/// Why a text is none of the forms.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(&'static str);

impl FromStr for PortSpec {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        // The long form is the only one with `=`: `published=8080,target=80`.
        if text.contains('=') {
            return long::parse(text);
        }
        let (ports, protocol) = match text.split_once('/') {
            Some((ports, protocol)) => (ports, protocol.parse().map_err(Malformed)?),
            None => (text, Protocol::Tcp),
        };
        // From the right: the container's port is always the last, and an address of IPv6 has colons of its own.
        let (rest, container) = ports.rsplit_once(':').unwrap_or(("", ports));
        let (container, (host_ip, host)) = (span(container)?, host_part(rest)?);
        Ok(Self { host_ip, host: host_ports(host, container)?, container, protocol })
    }
}

/// Splits `ip:port`, `[ip]:port` or `port`. A bare IPv6 address is taken too, since docker takes `::1:8080:80`.
fn host_part(text: &str) -> Result<(Option<IpAddr>, &str), Malformed> {
    let Some((ip, port)) = text.rsplit_once(':') else { return Ok((None, text)) };
    let bare = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
    if bare.is_empty() {
        return Ok((None, port));
    }
    let ip: IpAddr = bare.parse().map_err(|_| Malformed("the host's address is not an IP address"))?;
    // `::ffff:10.0.0.1` is an address of IPv4, and the kernel's rules for IPv6 would never see a packet to it.
    Ok((Some(ip.to_canonical()), port))
}

fn host_ports(text: &str, container: Span) -> Result<HostPorts, Malformed> {
    // Docker reads 0 as no port.
    if text.is_empty() || text == "0" {
        return Ok(HostPorts::Random);
    }
    let host = span(text)?;
    match (host.len() == container.len(), container.len()) {
        (true, _) => Ok(HostPorts::Exactly(host)),
        (false, 0) => Ok(HostPorts::FirstFree(host)),
        (false, _) => Err(Malformed("the ranges of the host and of the container differ in length")),
    }
}

fn span(text: &str) -> Result<Span, Malformed> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let span = Span { first: port(first)?, last: port(last)? };
    if span.first <= span.last { Ok(span) } else { Err(Malformed("a range of ports that ends before it begins")) }
}

fn port(text: &str) -> Result<u16, Malformed> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse().ok().filter(|port| *port != 0);
    port.filter(|_| digits).ok_or(Malformed("a port is a number from 1 to 65535"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span_of(first: u16, last: u16) -> Span {
        Span { first, last }
    }

    #[test]
    fn docker_s_forms_are_read_as_docker_reads_them() {
        use HostPorts::{Exactly, FirstFree, Random};
        use Protocol::{Sctp, Tcp, Udp};
        for (text, host_ip, host, container, protocol) in [
            ("80", None, Random, (80, 80), Tcp),
            ("80/udp", None, Random, (80, 80), Udp),
            ("80/UDP", None, Random, (80, 80), Udp),
            ("3000-3005", None, Random, (3000, 3005), Tcp),
            ("8080:80", None, Exactly(span_of(8080, 8080)), (80, 80), Tcp),
            ("0:80", None, Random, (80, 80), Tcp),
            (":80", None, Random, (80, 80), Tcp),
            ("8080:80/sctp", None, Exactly(span_of(8080, 8080)), (80, 80), Sctp),
            ("127.0.0.1:8080:80", Some("127.0.0.1"), Exactly(span_of(8080, 8080)), (80, 80), Tcp),
            ("127.0.0.1::80", Some("127.0.0.1"), Random, (80, 80), Tcp),
            ("0.0.0.0:8080:80", Some("0.0.0.0"), Exactly(span_of(8080, 8080)), (80, 80), Tcp),
            ("[::1]:8080:80/tcp", Some("::1"), Exactly(span_of(8080, 8080)), (80, 80), Tcp),
            ("::1:8080:80", Some("::1"), Exactly(span_of(8080, 8080)), (80, 80), Tcp),
            ("[::1]::80", Some("::1"), Random, (80, 80), Tcp),
            ("7000-7010:7000-7010", None, Exactly(span_of(7000, 7010)), (7000, 7010), Tcp),
            ("7000-7010:8000-8010/udp", None, Exactly(span_of(7000, 7010)), (8000, 8010), Udp),
            ("8000-9000:80", None, FirstFree(span_of(8000, 9000)), (80, 80), Tcp),
        ] {
            let want = PortSpec {
                host_ip: host_ip.map(|ip| ip.parse().unwrap()),
                host,
                container: span_of(container.0, container.1),
                protocol,
            };
            assert_eq!(text.parse(), Ok(want), "{text}");
            assert_eq!(want.to_string().parse(), Ok(want), "{want}");
        }
    }

    #[test]
    fn what_docker_refuses_is_refused() {
        for text in [
            "",
            "x",
            "0",
            "65536",
            "+80",
            " 80",
            "80/",
            "80/icmp",
            "80/tcp/udp",
            "8080:",
            "8080:80:90:100",
            "10-5",
            "7000-7010:80-81",
            "localhost:8080:80",
            "1.2.3:8080:80",
            "-80",
            "80-",
        ] {
            assert!(text.parse::<PortSpec>().is_err(), "{text}");
        }
    }
}
