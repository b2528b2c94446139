//! The proxy for a server, as the environment has it: curl's and Go's variables, by the rules that docker and skopeo have.

use std::net::IpAddr;

use anyhow::{anyhow, ensure};
use ureq::Proxy;
use ureq::http::Uri;

/// A variable of the environment, by its name in capitals; its name in small letters does as well.
type Variable<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Returns the proxy through which a server is reached, if there is one.
pub(crate) fn of(url: &Uri) -> anyhow::Result<Option<Proxy>> {
    let variable = |name: &str| {
        let names = [name.to_owned(), name.to_ascii_lowercase()];
        names.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    };
    let Some((name, value)) = choose(url, &variable) else { return Ok(None) };
    // Neither the parser's words nor ours may quote the value: it could hold a password.
    let proxy = Proxy::new(&value).map_err(|_| anyhow!("{name} is no proxy's URL"))?;
    ensure!(!proxy.host().is_empty(), "{name} is no proxy's URL");
    log::debug!("{} is reached through the proxy {}:{}", url.host().unwrap_or_default(), proxy.host(), proxy.port());
    Ok(Some(proxy))
}

/// Returns the variable that counts for a URL, and its value.
fn choose(url: &Uri, variable: Variable<'_>) -> Option<(&'static str, String)> {
    let (name, port) = if url.scheme_str() == Some("https") { ("HTTPS_PROXY", 443) } else { ("HTTP_PROXY", 80) };
    let host = url.host()?.trim_matches(['[', ']']).to_ascii_lowercase();
    let address: Option<IpAddr> = host.parse().ok();
    if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
        return None;
    }
    let port = url.port_u16().unwrap_or(port);
    let excepted = variable("NO_PROXY").unwrap_or_default();
    if excepted.split(',').any(|entry| matches(&entry.trim().to_ascii_lowercase(), &host, address, port)) {
        return None;
    }
    [name, "ALL_PROXY"].into_iter().find_map(|name| Some((name, variable(name)?)))
}

/// Tells whether an entry of `NO_PROXY` is for a host: `*`, an address, a network, a domain with all that is below it, or
/// with a dot before it only that; each may have a port.
fn matches(entry: &str, host: &str, address: Option<IpAddr>, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    if let Some((network, length)) = entry.split_once('/') {
        let network: Option<IpAddr> = network.parse().ok();
        return network
            .zip(length.parse().ok())
            .zip(address)
            .is_some_and(|((network, length), address)| is_within(address, network, length));
    }
    let (name, wanted) = match entry.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, rest)) => (name, rest.strip_prefix(':')),
        None if entry.parse::<IpAddr>().is_ok() => (entry, None),
        None => entry.split_once(':').map_or((entry, None), |(name, port)| (name, Some(port))),
    };
    if wanted.is_some_and(|wanted| wanted.parse() != Ok(port)) || name.is_empty() {
        return false;
    }
    if let Some(address) = address {
        return name.parse() == Ok(address);
    }
    let domain = name.strip_prefix('*').unwrap_or(name);
    match domain.strip_prefix('.') {
        Some(_) => host.len() > domain.len() && host.ends_with(domain),
        None => host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
    }
}

fn is_within(address: IpAddr, network: IpAddr, length: u32) -> bool {
    let shared = match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => (address.to_bits() ^ network.to_bits()).leading_zeros(),
        (IpAddr::V6(address), IpAddr::V6(network)) => (address.to_bits() ^ network.to_bits()).leading_zeros(),
        _ => return false,
    };
    length <= shared
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scheme_has_its_variable() {
        let all = [("HTTPS_PROXY", "s"), ("HTTP_PROXY", "p"), ("ALL_PROXY", "a")];
        for (url, set, want) in [
            ("https://r.io/v2/", &all[..], Some(("HTTPS_PROXY", "s"))),
            ("http://r.io/v2/", &all[..], Some(("HTTP_PROXY", "p"))),
            ("https://r.io/v2/", &all[1..2], None),
            ("https://r.io/v2/", &all[1..], Some(("ALL_PROXY", "a"))),
            ("https://localhost:5000/", &all[..], None),
            ("https://127.0.0.2/", &all[..], None),
            ("https://[::1]:5000/", &all[..], None),
        ] {
            let variable = |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            let chosen = choose(&url.parse().unwrap(), &variable);
            assert_eq!(chosen, want.map(|(name, value)| (name, value.to_owned())), "{url} {set:?}");
        }
    }

    #[test]
    fn what_is_excepted_is_reached_directly() {
        for (excepted, url, want) in [
            ("r.io", "https://r.io/", true),
            ("r.io", "https://a.r.io/", true),
            ("r.io", "https://other.io/", false),
            ("r.io", "https://ar.io/", false),
            (".r.io", "https://r.io/", false),
            (".r.io", "https://a.r.io/", true),
            ("*.r.io", "https://A.R.io/", true),
            ("x, r.io ,y", "https://r.io:5000/", true),
            ("r.io:5000", "https://r.io:5000/", true),
            ("r.io:443", "https://r.io/", true),
            ("r.io:5000", "https://r.io/", false),
            ("10.0.0.0/8", "https://10.2.3.4/", true),
            ("10.0.0.0/8", "https://11.2.3.4/", false),
            ("0.0.0.0/0", "https://11.2.3.4/", true),
            ("10.0.0.0/8", "https://r.io/", false),
            ("10.1.1.1", "http://10.1.1.1:80/", true),
            ("10.1.1.1:81", "http://10.1.1.1/", false),
            ("fd00::/8", "https://[fd01::2]/", true),
            ("[fd01::2]:443", "https://[fd01::2]/", true),
            ("fd01::2", "https://[fd01::2]/", true),
            ("*", "https://r.io/", true),
            ("", "https://r.io/", false),
            ("10.0.0.0/99", "https://10.2.3.4/", false),
        ] {
            let variable = |name: &str| Some(if name == "NO_PROXY" { excepted } else { "p" }.to_owned());
            assert_eq!(choose(&url.parse().unwrap(), &variable).is_none(), want, "{excepted} {url}");
        }
    }
}
