//! /etc/hosts, /etc/hostname and /etc/resolv.conf as every container of docker's has them: made here, mounted over
//! the image's.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use record::HOST_GATEWAY;

use crate::hosts::HostEntry;
use crate::request::NameOptions;

const LOCAL_HOSTS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
    ff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

/// Docker's choice for a host whose only name servers are its own loopback's, which a container does not reach.
const PUBLIC_RESOLVERS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)), IpAddr::V4(Ipv4Addr::new(8, 8, 4, 4))];

/// Stands for the gateway until `ns add` has chosen the network: RFC 5737, an address that nobody has.
const UNKNOWN: &str = "192.0.2.1";

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
pub(crate) fn hosts(reach: Reach, host: &str, names: &NameOptions) -> String {
    let mut text = if reach == Reach::Host { host.to_owned() } else { LOCAL_HOSTS.to_owned() };
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    let added = names.add_host.iter().map(|HostEntry { name, address }| match address {
        Some(address) => format!("{address}\t{name}\n"),
        None if reach == Reach::Own => format!("{UNKNOWN}\t{name}{HOST_GATEWAY}\n"),
        None => format!("127.0.0.1\t{name}\n"),
    });
    text + &added.collect::<Vec<_>>().concat()
}

/// Returns /etc/resolv.conf from the host's, by docker's rules.
pub(crate) fn resolv_conf(reach: Reach, host: &str, names: &NameOptions) -> String {
    let lines = lines(host);
    let owned = |words: &[&str]| -> Vec<String> { words.iter().map(|&word| word.to_owned()).collect() };
    let servers: Vec<String> = if names.dns.is_empty() {
        host_servers(reach, &lines)
    } else {
        names.dns.iter().map(ToString::to_string).collect()
    };
    let search = match names.dns_search.as_slice() {
        // `domain` is a search list of one; the last of both counts: resolv.conf(5).
        [] => match lines.iter().rev().find(|line| matches!(line[0], "search" | "domain")) {
            Some(line) if line[0] == "domain" => owned(&line[1..line.len().min(2)]),
            line => owned(line.map_or(&[], |line| &line[1..])),
        },
        // docker's way to say "no search list at all".
        [none] if none == "." => Vec::new(),
        domains => domains.to_vec(),
    };
    let options = if names.dns_option.is_empty() {
        lines.iter().filter(|line| line[0] == "options").flat_map(|line| owned(&line[1..])).collect()
    } else {
        names.dns_option.clone()
    };
    let mut lines: Vec<String> = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    for (keyword, words) in [("search", search), ("options", options)] {
        if !words.is_empty() {
            lines.push(format!("{keyword} {}\n", words.join(" ")));
        }
    }
    lines.concat()
}

/// Returns the words of each line that says something: blanks and tabs separate them, `#` and `;` begin comments.
fn lines(text: &str) -> Vec<Vec<&str>> {
    let said = text.lines().map(|line| line.split(['#', ';']).next().unwrap_or_default());
    said.map(|line| line.split_ascii_whitespace().collect()).filter(|words: &Vec<&str>| !words.is_empty()).collect()
}

fn servers<'a>(lines: &[Vec<&'a str>]) -> impl Iterator<Item = &'a str> {
    lines.iter().filter(|line| line[0] == "nameserver").filter_map(|line| line.get(1).copied())
}

fn host_servers(reach: Reach, lines: &[Vec<&str>]) -> Vec<String> {
    let servers = servers(lines);
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
    if is_stub(&text) {
        let behind = read(Path::new("/run/systemd/resolve/resolv.conf"));
        if !behind.is_empty() {
            return behind;
        }
    }
    text
}

/// Tells whether all name servers are those of systemd-resolved on the host's loopback: systemd-resolved(8).
fn is_stub(resolv_conf: &str) -> bool {
    let lines = lines(resolv_conf);
    let mut servers = servers(&lines).peekable();
    servers.peek().is_some() && servers.all(|server| matches!(server, "127.0.0.53" | "127.0.0.54"))
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
        let names = NameOptions { add_host: vec!["db:10.0.0.2".parse().unwrap()], ..NameOptions::default() };
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
            ("db", None),
            (":1.1.1.1", None),
            ("db:x", None),
            ("a b:1.1.1.1", None),
            ("a\nb:1.1.1.1", None),
        ] {
            let entry = text.parse::<HostEntry>().ok().and_then(|entry| entry.address).map(|ip| ip.to_string());
            assert_eq!(entry.as_deref(), want, "{text}");
        }
        let names = NameOptions { add_host: vec!["host:host-gateway".parse().unwrap()], ..NameOptions::default() };
        for (reach, want) in [(Reach::Own, "192.0.2.1\thost\t# host-gateway\n"), (Reach::Host, "127.0.0.1\thost\n")] {
            assert!(hosts(reach, "", &names).ends_with(want), "{reach:?}");
        }
    }

    #[test]
    fn name_servers_that_the_container_does_not_reach_are_left_out() {
        let host = "# c\nnameserver 127.0.0.1\nnameserver 10.1.1.1\nnameserver ::1\nsearch a b\noptions ndots:2\n";
        let none = NameOptions::default();
        for (reach, host, want) in [
            (Reach::Own, host, "nameserver 10.1.1.1\nsearch a b\noptions ndots:2\n"),
            (Reach::Own, "nameserver 127.0.0.53\n", "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"),
            (Reach::Nothing, "nameserver 127.0.0.53\nsearch x\n", "search x\n"),
            (Reach::Host, "nameserver 127.0.0.53\n", "nameserver 127.0.0.53\n"),
            (Reach::Own, "", "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"),
            (Reach::Own, "nameserver fe80::1%eth0\nnameserver 1.1.1.1\n", "nameserver 1.1.1.1\n"),
            (Reach::Own, "\tnameserver\t1.1.1.1 # x\n; y\n", "nameserver 1.1.1.1\n"),
            (Reach::Nothing, "domain corp.example x\n", "search corp.example\n"),
            (Reach::Nothing, "domain a\nsearch b c\n", "search b c\n"),
            (Reach::Nothing, "search b c\ndomain a\n", "search a\n"),
            (Reach::Nothing, "options ndots:2\noptions timeout:1 rotate\n", "options ndots:2 timeout:1 rotate\n"),
            (
                Reach::Own,
                "nameserver 1.1.1.1\nnameserver 1.1.1.2\nnameserver 1.1.1.3\nnameserver 1.1.1.4\n",
                "nameserver 1.1.1.1\nnameserver 1.1.1.2\nnameserver 1.1.1.3\nnameserver 1.1.1.4\n",
            ),
        ] {
            assert_eq!(resolv_conf(reach, host, &none), want, "{host}");
        }
        for (text, want) in [
            ("nameserver\t127.0.0.53\n", true),
            ("  nameserver 127.0.0.53 # stub\noptions edns0\n", true),
            ("nameserver 127.0.0.53\nnameserver 127.0.0.54\n", true),
            ("nameserver 127.0.0.53\nnameserver 1.1.1.1\n", false),
            ("# nameserver 127.0.0.53\n", false),
        ] {
            assert_eq!(is_stub(text), want, "{text}");
        }
    }

    #[test]
    fn the_users_resolver_replaces_the_hosts() {
        let names = NameOptions {
            dns: vec!["9.9.9.9".parse().unwrap()],
            dns_search: vec![".".to_owned()],
            dns_option: vec!["ndots:1".to_owned()],
            ..NameOptions::default()
        };
        let host = "nameserver 10.1.1.1\nsearch a\noptions x\n";
        assert_eq!(resolv_conf(Reach::Own, host, &names), "nameserver 9.9.9.9\noptions ndots:1\n");
    }
}
