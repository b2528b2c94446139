//! Docker's other way to write a published port, in words: `target=80,published=8080,protocol=tcp,mode=host`.

use super::{HostPorts, Malformed, PortSpec, host_ports, span};
use record::Protocol;

/// Reads the words. `mode` is for swarms: on one host its two values come to the same.
pub(super) fn parse(text: &str) -> Result<PortSpec, Malformed> {
    let (mut target, mut published, mut host_ip) = (None, "", None);
    let mut over = Protocol::Tcp;
    for word in text.split(',') {
        let (name, value) = word.split_once('=').ok_or(Malformed("a word of the long form is NAME=VALUE"))?;
        match name {
            "target" => target = Some(span(value)?),
            "published" => published = value,
            "protocol" => over = value.parse().map_err(Malformed)?,
            "host_ip" => host_ip = Some(value.parse().map_err(|_| Malformed("host_ip is not an IP address"))?),
            "mode" if matches!(value, "host" | "ingress") => {}
            "mode" => return Err(Malformed("the mode is neither host nor ingress")),
            _ => return Err(Malformed("a word is not one of target, published, protocol, host_ip and mode")),
        }
    }
    let container = target.ok_or(Malformed("the target is missing: the container's port"))?;
    let host: HostPorts = host_ports(published, container)?;
    Ok(PortSpec { host_ip: host_ip.map(|ip: std::net::IpAddr| ip.to_canonical()), host, container, protocol: over })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_say_what_colons_say() {
        for (words, colons) in [
            ("target=80", "80"),
            ("published=8080,target=80", "8080:80"),
            ("mode=host,target=80,published=8080,protocol=tcp", "8080:80"),
            ("mode=ingress,target=53,published=5353,protocol=udp", "5353:53/udp"),
            ("target=80,published=8000-8010", "8000-8010:80"),
            ("target=7000-7010,published=7000-7010", "7000-7010:7000-7010"),
            ("host_ip=127.0.0.1,target=80,published=8080", "127.0.0.1:8080:80"),
            ("host_ip=::1,target=80", "[::1]::80"),
            ("host_ip=::ffff:10.0.0.1,target=80", "10.0.0.1::80"),
        ] {
            assert_eq!(words.parse::<PortSpec>(), colons.parse::<PortSpec>(), "{words}");
            assert!(words.parse::<PortSpec>().is_ok(), "{words}");
        }
    }

    #[test]
    fn a_word_that_is_none_is_refused() {
        for text in
            ["published=8080", "target=80,", "target=", "target=80,mode=x", "target=80,x=1", "target=80 ,mode=host"]
        {
            assert!(text.parse::<PortSpec>().is_err(), "{text}");
        }
    }
}
