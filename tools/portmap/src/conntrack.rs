//! What connection tracking remembers: translation is decided once a connection, so connections from before a change
//! go on as they went. For TCP a new one comes soon; a datagram socket may keep the old way for ever.

use std::net::IpAddr;

use anyhow::Context;
use log::debug;
use netlink::route::Router;
use netlink::{Attribute, Attributes, NetlinkFamily, Raw, Socket, find, parse, unless};
use record::Protocol;
use rustix::io::Errno;

use crate::firewall::protocol_number;
use crate::mapping::{Mapping, MappingStep};

// include/uapi/linux/netfilter/nfnetlink_conntrack.h
const GET: u16 = (1 << 8) + 1;
const DELETE: u16 = (1 << 8) + 2;
const AF_UNSPEC: u8 = 0;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;

/// One direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flow {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    destination_port: u16,
}

/// Ends connections that the steps leave with a wrong translation: those to what was withdrawn, and datagrams to the
/// host itself that now go to a container. That they are not ended is no reason to fail.
pub(crate) fn forget(steps: &[MappingStep]) {
    cli::warn(delete_stale(steps).context("forget old connections"));
}

fn delete_stale(steps: &[MappingStep]) -> anyhow::Result<()> {
    let stale = |step: &&MappingStep| match step {
        MappingStep::Withdraw(_) => true,
        MappingStep::Publish(mapping) => mapping.protocol != Protocol::Tcp,
        MappingStep::RemoveHairpin(_) | MappingStep::AddHairpin(_) => false,
    };
    let steps: Vec<_> = steps.iter().filter(stale).collect();
    if steps.is_empty() || is_empty() {
        return Ok(());
    }
    let own = Router::open()?.addresses().context("list addresses")?;
    let own: Vec<_> = own.into_iter().map(|own| own.address.address).collect();
    let mut socket = Socket::open(NetlinkFamily::Netfilter)?;
    // Of every family at once: what takes the time is the kernel's walk through its whole table.
    let request = Raw { kind: GET, payload: vec![AF_UNSPEC, 0, 0, 0] };
    for answer in socket.dump(&request).context("list connections")? {
        if steps.iter().any(|step| answer_is_stale(&answer, step, &own)) {
            delete(&mut socket, &answer)?;
        }
    }
    Ok(())
}

/// Tells whether no connection is known at all, which spares the kernel the walk through its table.
fn is_empty() -> bool {
    std::fs::read("/proc/sys/net/netfilter/nf_conntrack_count").is_ok_and(|count| count.trim_ascii() == b"0")
}

fn answer_is_stale(answer: &Raw, step: &MappingStep, own: &[IpAddr]) -> bool {
    let flow = |kind| find(attributes(answer), kind).and_then(|tuple| flow(&tuple));
    match (flow(CTA_TUPLE_ORIG), flow(CTA_TUPLE_REPLY)) {
        (Some(original), Some(reply)) => is_stale(original, reply, step, own),
        _ => false,
    }
}

fn is_stale(original: Flow, reply: Flow, step: &MappingStep, own: &[IpAddr]) -> bool {
    let came_for = |mapping: &Mapping| {
        original.protocol == protocol_number(mapping.protocol)
            && (mapping.host.first..=mapping.host.last).contains(&original.destination_port)
            && mapping.host_ip.is_none_or(|host_ip| host_ip == original.destination)
    };
    match step {
        MappingStep::Withdraw(mapping) => came_for(mapping) && reply.source == mapping.target,
        MappingStep::Publish(mapping) => {
            came_for(mapping) && own.contains(&original.destination) && reply.source != mapping.target
        }
        MappingStep::RemoveHairpin(_) | MappingStep::AddHairpin(_) => false,
    }
}

fn delete(socket: &mut Socket, answer: &Raw) -> anyhow::Result<()> {
    let named = parse(attributes(answer)).filter(|attribute| matches!(attribute.kind, CTA_TUPLE_ORIG | CTA_ID));
    let nested = |kind| if kind == CTA_ID { kind } else { kind | 0x8000 };
    let name = named.fold(Attributes::new(), |name, a| name.bytes(nested(a.kind), a.payload));
    let header = answer.payload.get(..4).unwrap_or_default();
    debug!("forget a connection");
    let done = socket.request(&Raw { kind: DELETE, payload: [header, &name.into_bytes()].concat() }, 0);
    // It may have ended by itself.
    unless(Errno::NOENT, done).map(Option::unwrap_or_default).context("forget a connection")
}

fn attributes(answer: &Raw) -> &[u8] {
    answer.payload.get(4..).unwrap_or_default()
}

fn flow(tuple: &Attribute<'_>) -> Option<Flow> {
    let (ip, transport) = (find(tuple.payload, CTA_TUPLE_IP)?, find(tuple.payload, CTA_TUPLE_PROTO)?);
    let address = |kinds: [u16; 2]| {
        let attribute = parse(ip.payload).find(|attribute| kinds.contains(&attribute.kind))?;
        let v4 = <[u8; 4]>::try_from(attribute.payload).ok().map(IpAddr::from);
        v4.or_else(|| <[u8; 16]>::try_from(attribute.payload).ok().map(IpAddr::from))
    };
    Some(Flow {
        source: address([1, 3])?,
        destination: address([2, 4])?,
        protocol: *find(transport.payload, 1)?.payload.first()?,
        destination_port: u16::from_be_bytes(find(transport.payload, 3)?.payload.try_into().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::owner::MappingOwner;
    use crate::spec::Span;

    #[test]
    fn only_what_came_for_the_port_and_went_elsewhere_is_stale() {
        let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
        let flow = |source, destination, port| Flow {
            source: ip(source),
            destination: ip(destination),
            protocol: 17,
            destination_port: port,
        };
        let mapping = Mapping {
            host_ip: None,
            protocol: Protocol::Udp,
            host: Span { first: 53, last: 53 },
            target: ip("10.88.0.2"),
            port: 53,
            owner: MappingOwner::default(),
            condition: None,
            held_by: None,
        };
        let own = [ip("203.0.113.1")];
        let back = |source| flow(source, "203.0.113.2", 4000);
        for (to, answers, withdraw, publish) in [
            ("203.0.113.1", "203.0.113.1", false, true),
            ("203.0.113.1", "10.88.0.2", true, false),
            ("203.0.113.1", "10.88.0.9", false, true),
            ("8.8.8.8", "8.8.8.8", false, false),
        ] {
            let original = flow("203.0.113.2", to, 53);
            let stale = |step| is_stale(original, back(answers), &step, &own);
            assert_eq!(stale(MappingStep::Withdraw(mapping.clone())), withdraw, "{to} {answers}");
            assert_eq!(stale(MappingStep::Publish(mapping.clone())), publish, "{to} {answers}");
        }
    }
}
