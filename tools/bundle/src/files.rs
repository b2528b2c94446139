//! /etc/hosts, /etc/hostname and /etc/resolv.conf as every container of docker's has them: made here, mounted over
//! the image's.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::str::FromStr;

use crate::options::Names;

const LOCAL_HOSTS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
    ff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

/// Docker's choice for a host whose only name servers are its own loopback's, which a container does not reach.
const PUBLIC_RESOLVERS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)), IpAddr::V4(Ipv4Addr::new(8, 8, 4, 4))];

/// The gateway of the default bridge of `ns add`: what `host-gateway` means.
const HOST_GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 213, 0, 1));

/// `--add-host NAME:ADDRESS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostEntry {
    name: String,
    address: IpAddr,
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
        let address = if bare == "host-gateway" { Ok(HOST_GATEWAY) } else { bare.parse() };
        Ok(Self { name: name.to_owned(), address: address.map_err(|_| invalid())? })
    }
}

/// What a container's network is like for its resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The host's own network.
    Host,
    /// A network of its own.
    Own,
    /// Nothing but loopback.
    Nothing,
}

/// Returns /etc/hosts; with the host's network, the host's own lines come first.
pub(crate) fn hosts(reach: Reach, host: &str, names: &Names) -> String {
    let mut text = if reach == Reach::Host { host.to_owned() } else { LOCAL_HOSTS.to_owned() };
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    let added = names.add_host.iter().map(|HostEntry { name, address }| format!("{address}\t{name}\n"));
    text + &added.collect::<Vec<_>>().concat()
}

/// Returns /etc/resolv.conf from the host's, by docker's rules.
pub(crate) fn resolv_conf(reach: Reach, host: &str, names: &Names) -> String {
    let lines: Vec<Vec<&str>> = host.lines().map(|line| line.split_ascii_whitespace().collect()).collect();
    let rest = |keyword: &str| -> Vec<String> {
        let found = lines.iter().rev().find(|line| line.first() == Some(&keyword)).map(|line| &line[1..]);
        found.unwrap_or_default().iter().map(|&word| word.to_owned()).collect()
    };
    let servers: Vec<String> = if names.dns.is_empty() {
        host_servers(reach, &lines)
    } else {
        names.dns.iter().map(ToString::to_string).collect()
    };
    let search = match names.dns_search.as_slice() {
        [] => rest("search"),
        [none] if none == "." => Vec::new(),
        domains => domains.to_vec(),
    };
    let options = if names.dns_option.is_empty() { rest("options") } else { names.dns_option.clone() };
    let mut lines: Vec<String> = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    for (keyword, words) in [("search", search), ("options", options)] {
        if !words.is_empty() {
            lines.push(format!("{keyword} {}\n", words.join(" ")));
        }
    }
    lines.concat()
}

fn host_servers(reach: Reach, lines: &[Vec<&str>]) -> Vec<String> {
    let servers =
        lines.iter().filter(|line| line.first() == Some(&"nameserver")).filter_map(|line| line.get(1).copied());
    if reach == Reach::Host {
        return servers.map(str::to_owned).collect();
    }
    // A zone (`fe80::1%eth0`) names an interface that the container does not have.
    let reachable = servers.filter(|server| server.parse::<IpAddr>().is_ok_and(|address| !address.is_loopback()));
    let reachable: Vec<String> = reachable.map(str::to_owned).collect();
    if reachable.is_empty() && reach == Reach::Own {
        return PUBLIC_RESOLVERS.iter().map(ToString::to_string).collect();
    }
    reachable
}

/// Reads the host's resolv.conf: behind systemd-resolved's own address stand the true ones in another file.
pub(crate) fn host_resolv_conf() -> String {
    let text = read(Path::new("/etc/resolv.conf"));
    let servers: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("nameserver ")).map(str::trim).collect();
    if servers == ["127.0.0.53"] {
        let behind = read(Path::new("/run/systemd/resolve/resolv.conf"));
        if !behind.is_empty() {
            return behind;
        }
    }
    text
}

/// Reads a small text file of the host; one that is not there is empty, as for the resolver itself.
pub(crate) fn read(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_dockers_with_the_users_at_the_end() {
        let names = Names { add_host: vec!["db:10.0.0.2".parse().unwrap()], ..Names::default() };
        assert_eq!(hosts(Reach::Own, "1.1.1.1 x\n", &names), format!("{LOCAL_HOSTS}10.0.0.2\tdb\n"));
        assert_eq!(hosts(Reach::Host, "1.1.1.1 x", &names), "1.1.1.1 x\n10.0.0.2\tdb\n");
    }

    #[test]
    fn entries_are_read_as_docker_reads_them() {
        for (text, want) in [
            ("db:10.0.0.2", Some("10.0.0.2")),
            ("db=10.0.0.2", Some("10.0.0.2")),
            ("db:::1", Some("::1")),
            ("db:[::1]", Some("::1")),
            ("host:host-gateway", Some("10.213.0.1")),
            ("db", None),
            (":1.1.1.1", None),
            ("db:x", None),
            ("a b:1.1.1.1", None),
            ("a\nb:1.1.1.1", None),
        ] {
            let entry = text.parse::<HostEntry>().ok().map(|entry| entry.address.to_string());
            assert_eq!(entry.as_deref(), want, "{text}");
        }
    }

    #[test]
    fn name_servers_that_the_container_does_not_reach_are_left_out() {
        let host = "# c\nnameserver 127.0.0.1\nnameserver 10.1.1.1\nnameserver ::1\nsearch a b\noptions ndots:2\n";
        let none = Names::default();
        for (reach, host, want) in [
            (Reach::Own, host, "nameserver 10.1.1.1\nsearch a b\noptions ndots:2\n"),
            (Reach::Own, "nameserver 127.0.0.53\n", "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"),
            (Reach::Nothing, "nameserver 127.0.0.53\nsearch x\n", "search x\n"),
            (Reach::Host, "nameserver 127.0.0.53\n", "nameserver 127.0.0.53\n"),
            (Reach::Own, "", "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"),
            (Reach::Own, "nameserver fe80::1%eth0\nnameserver 1.1.1.1\n", "nameserver 1.1.1.1\n"),
        ] {
            assert_eq!(resolv_conf(reach, host, &none), want, "{host}");
        }
    }

    #[test]
    fn the_users_resolver_replaces_the_hosts() {
        let names = Names {
            dns: vec!["9.9.9.9".parse().unwrap()],
            dns_search: vec![".".to_owned()],
            dns_option: vec!["ndots:1".to_owned()],
            ..Names::default()
        };
        let host = "nameserver 10.1.1.1\nsearch a\noptions x\n";
        assert_eq!(resolv_conf(Reach::Own, host, &names), "nameserver 9.9.9.9\noptions ndots:1\n");
    }
}
