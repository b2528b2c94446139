//! Listening sockets that somebody has opened before this program: systemd (`sd_listen_fds(3)`) or whoever writes
//! `--listen-fd`. Each serves the `-p` that asks for the port it is at.

use std::env;
use std::net::SocketAddr;
use std::process;

use anyhow::{Context, ensure};
use record::Protocol;

use crate::proxy;
use crate::request::Add;
use crate::spec::{ContainerEnd, HostEnd, HostPorts, PublishFlag, SocketSpec};

/// The first descriptor that systemd hands over.
const FIRST: u32 = 3;

/// Has inherited sockets serve the `-p` for their ports.
pub(crate) fn take(options: &Add, flags: &mut [PublishFlag]) -> anyhow::Result<()> {
    for number in options.listen_fd.iter().copied() {
        let mut took = || -> anyhow::Result<()> {
            let (address, protocol) = proxy::inherited_port(number)?.context("it has no port")?;
            let is_given = give(number, address, protocol, flags);
            ensure!(is_given, "it is at {address}/{protocol}, which no -p publishes");
            Ok(())
        };
        took().with_context(|| format!("take descriptor {number}"))?;
    }
    for number in handed_over().filter(|number| !options.listen_fd.contains(number)) {
        // What is no socket of a port, or of one that nobody publishes, is for others.
        if let Ok(Some((address, protocol))) = proxy::inherited_port(number) {
            give(number, address, protocol, flags);
        }
    }
    Ok(())
}

/// Returns what `$LISTEN_FDS` counts, where `$LISTEN_PID` says that it is for this process.
fn handed_over() -> impl Iterator<Item = u32> {
    // The variables pass on to children, the pid in them does not fit there: sd_listen_fds(3) has both checked.
    let variable = |name| env::var(name).ok()?.parse::<u32>().ok();
    let count = variable("LISTEN_FDS").filter(|_| variable("LISTEN_PID") == Some(process::id())).unwrap_or_default();
    FIRST..FIRST.saturating_add(count)
}

/// Tells whether a `-p` was for that port.
fn give(number: u32, address: SocketAddr, protocol: Protocol, flags: &mut [PublishFlag]) -> bool {
    let mut given = false;
    for flag in flags {
        let PublishFlag::Ports(spec) = flag else { continue };
        let is_here = matches!(spec.host, HostPorts::Exactly(host) if host.first == address.port() && host.len() == 0);
        let fits = spec.host_ip.is_none_or(|ip| ip.is_unspecified() || ip == address.ip());
        if is_here && fits && spec.protocol == protocol {
            let container = ContainerEnd::Port(spec.container.first);
            *flag = PublishFlag::Socket(SocketSpec { host: HostEnd::Descriptor(number), container });
            given = true;
        }
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_serves_the_p_for_its_port() {
        for (flag, at, protocol, want) in [
            ("8080:80", "0.0.0.0:8080", Protocol::Tcp, "fd:3:80"),
            ("127.0.0.1:8080:80", "127.0.0.1:8080", Protocol::Tcp, "fd:3:80"),
            ("127.0.0.1:8080:80", "10.0.0.1:8080", Protocol::Tcp, "127.0.0.1:8080:80/tcp"),
            ("8081:80", "0.0.0.0:8080", Protocol::Tcp, "8081:80/tcp"),
            ("8080:80", "0.0.0.0:8080", Protocol::Udp, "8080:80/tcp"),
            ("80", "0.0.0.0:80", Protocol::Tcp, ":80/tcp"),
        ] {
            let mut flags = [flag.parse().unwrap()];
            let given = give(3, at.parse().unwrap(), protocol, &mut flags);
            assert_eq!((&flags[0], given), (&want.parse().unwrap(), want == "fd:3:80"), "{flag} {at}");
        }
    }
}
