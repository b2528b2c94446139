//! What a network is like, as options: of `ns add`, for the bridge that it makes, and of `ns network create`, which notes them.

use std::net::IpAddr;

use netlink::route::Cidr;

use crate::request::{NetworkDriver, NetworkSettings};

cli::options! {
    NetworkSettings {
        /// Network of the bridge; repeat it for IPv6 [default: the bridge's; 10.213.0.0/16 for drayage0, a free one for others]
        #[arg(long = "subnet", value_name = "CIDR")] subnets: Vec<Cidr>,
        /// Part of a network for containers' addresses [default: all of it]
        #[arg(long = "ip-range", value_name = "CIDR", conflicts_with = "macvlan")] ip_ranges: Vec<Cidr>,
        /// Add an IPv6 network, a free one if neither the bridge nor --subnet has one
        #[arg(long)] ipv6: bool,
        /// Bridge's address in a network [default: the network's first]
        #[arg(long = "gateway", value_name = "ADDRESS")] gateways: Vec<IpAddr>,
        /// Longest packet of the container's interface, and of the bridge if it is made
        #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(68..=65535))] mtu: Option<u32>,
        /// Join the network of this link of the host, without a bridge; needs --ip and --subnet
        #[arg(long, value_name = "LINK", conflicts_with_all = ["no_masquerade", "ipv6"], value_parser = link_name)]
        macvlan: Option<String>,
        /// Keep the container's address in packets that leave the networks
        #[arg(long)] no_masquerade: bool,
        /// Let no packet leave or enter; containers reach each other and the bridge's address
        #[arg(long, conflicts_with_all = ["macvlan", "no_masquerade"])] internal: bool,
        // `ns network create --driver` says it.
        #[arg(skip)] driver: NetworkDriver,
    }
}

cli::values! {
    NetworkDriver {
        Bridge = "bridge" "A bridge, for at most 1,023",
        Routed = "routed" "Routes of the host to each container, for any number, without broadcasts",
        Macvlan = "macvlan" "A link of the host, named by --macvlan LINK or -o parent=LINK",
    }
}

pub(super) fn link_name(text: &str) -> Result<String, String> {
    let odd = |c: char| c == '/' || c.is_whitespace() || c.is_control();
    if text.is_empty() || text.len() > 15 || text == "." || text == ".." || text.contains(odd) {
        return Err("a link's name has 1 to 15 bytes, no blank and no slash".to_owned());
    }
    Ok(text.to_owned())
}
