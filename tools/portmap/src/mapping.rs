//! What is published, and the plan that leads from what is there to what is wanted.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::net::IpAddr;

use netlink::route::Cidr;
use record::{PortMapping, Protocol};

use crate::condition::{Range, SourceCondition};
use crate::owner::MappingOwner;
use crate::spec::{Span, any, endpoint};

/// Ports of the host that lead to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// The host's address; `None` means each of the family's.
    pub(crate) host_ip: Option<IpAddr>,
    pub(crate) protocol: Protocol,
    /// More than one only where each port leads to the container's port of the same number.
    pub(crate) host: Span,
    pub(crate) target: IpAddr,
    /// The first port in the container.
    pub(crate) port: u16,
    /// Who may come; one of a port's conditions makes one mapping. `None` is everybody.
    pub(crate) condition: Option<SourceCondition>,
    pub(crate) owner: MappingOwner,
    /// The number of the process's socket that holds it; `None` where it stays until it is withdrawn.
    pub(crate) held_by: Option<u32>,
}

impl Mapping {
    /// Tells whether a packet could belong to both.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.shares_ports(other) && self.meets().overlaps(&other.meets())
    }

    fn shares_ports(&self, other: &Self) -> bool {
        let same_family = self.target.is_ipv4() == other.target.is_ipv4();
        self.protocol == other.protocol && same_family && self.host.overlaps(other.host)
    }

    fn meets(&self) -> SourceCondition {
        let all = Range::all(self.target.is_ipv4());
        let here = self.host_ip.map_or(all, |host_ip| Range(host_ip, host_ip));
        self.condition.unwrap_or(SourceCondition { source: all, destination: here })
    }

    /// Returns the mapping for those who meet the condition. A single destination is the host's address, as it is when it
    /// is read from the firewall.
    pub(crate) fn under(self, condition: SourceCondition) -> Self {
        let Range(first, last) = condition.destination;
        Self { host_ip: (first == last).then_some(first), condition: Some(condition), ..self }
    }

    /// Returns the mapping port by port, as records have it.
    pub(crate) fn port_mappings(&self) -> impl Iterator<Item = PortMapping> {
        self.host.ports().map(|host_port| PortMapping {
            host_ip: self.host_ip,
            host_port,
            container_port: self.port + (host_port - self.host.first),
            protocol: self.protocol,
        })
    }

    /// Returns the host's side as people write it: `127.0.0.1:8080`.
    pub(crate) fn host_side(&self) -> String {
        endpoint(self.host_ip.unwrap_or_else(|| any(self.target.is_ipv4())), self.host)
    }

    /// Returns the container's side: `10.213.0.2:80`.
    pub(crate) fn container_side(&self) -> String {
        endpoint(self.target, Span { first: self.port, last: self.port + self.host.len() })
    }
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} to {}", self.host_side(), self.protocol, self.container_side())
    }
}

/// Packets that a network's own members send to a published port of a container in that network: they need the host as
/// their source, or the answer would take the short way past the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hairpin {
    pub(crate) network: Cidr,
    pub(crate) target: IpAddr,
    pub(crate) owner: MappingOwner,
    /// As a mapping's.
    pub(crate) held_by: Option<u32>,
}

/// All that is published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) mappings: Vec<Mapping>,
    pub(crate) hairpins: Vec<Hairpin>,
}

/// One change of the firewall.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MappingStep {
    Withdraw(Mapping),
    Publish(Mapping),
    RemoveHairpin(Hairpin),
    AddHairpin(Hairpin),
}

impl MappingStep {
    /// Tells whether it puts something there.
    pub(crate) fn adds(&self) -> bool {
        matches!(self, Self::Publish(_) | Self::AddHairpin(_))
    }
}

impl fmt::Display for MappingStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Withdraw(mapping) => write!(f, "withdraw {mapping} from {}", mapping.owner.id),
            Self::Publish(mapping) => write!(f, "publish {mapping} for {}", mapping.owner.id),
            Self::RemoveHairpin(hairpin) => write!(f, "leave {} to {} alone", hairpin.network, hairpin.target),
            Self::AddHairpin(hairpin) => write!(f, "masquerade {} to {}", hairpin.network, hairpin.target),
        }
    }
}

/// A port that another container has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("publish {wanted} for {id}: port is taken by container {holder}")]
pub(crate) struct Taken {
    wanted: String,
    id: String,
    /// The container that has it.
    pub(crate) holder: String,
    /// Whether it would give way, if only the process ended that holds it.
    pub(crate) is_held: bool,
}

/// Plans how to publish what is wanted. What the same container had on these ports is replaced, and what containers
/// left that are no more.
pub(crate) fn publish(present: &Published, wanted: &Published) -> Result<Vec<MappingStep>, Taken> {
    let is_outdated = |mapping: &&Mapping| is_outdated(mapping, &wanted.mappings);
    let mut withdrawn: Vec<&Mapping> = present.mappings.iter().filter(is_outdated).collect();
    let mut steps = Vec::new();
    for mapping in &wanted.mappings {
        if present.mappings.contains(mapping) {
            continue;
        }
        for holder in present.mappings.iter().filter(|holder| holder.overlaps(mapping)) {
            let gives_way = gives_way(&holder.owner, holder.target, &mapping.owner, mapping.target);
            let is_held = holder.held_by.is_some() && holder.held_by != mapping.held_by;
            if is_held || !gives_way {
                let wanted = format!("{}/{}", mapping.host_side(), mapping.protocol);
                let (id, holder) = (mapping.owner.id.clone(), holder.owner.id.clone());
                return Err(Taken { wanted, id, holder, is_held: is_held && gives_way });
            }
            if !withdrawn.contains(&holder) {
                withdrawn.push(holder);
            }
        }
        steps.push(MappingStep::Publish(mapping.clone()));
    }
    // The firewall has one element for an address, whoever asked first.
    for hairpin in &wanted.hairpins {
        let same_target = |other: &&Hairpin| other.target == hairpin.target && other.held_by == hairpin.held_by;
        let serves = |other: &Hairpin| other.network == hairpin.network && !other.owner.is_gone();
        if present.hairpins.iter().filter(same_target).any(serves) {
            continue;
        }
        steps.extend(present.hairpins.iter().filter(same_target).cloned().map(MappingStep::RemoveHairpin));
        steps.push(MappingStep::AddHairpin(hairpin.clone()));
    }
    // Removing first: a map takes a key once.
    steps.sort_by_key(MappingStep::adds);
    Ok(withdrawn.into_iter().cloned().map(MappingStep::Withdraw).chain(steps).collect())
}

/// What a port's conditions were does not add up with what they are now.
fn is_outdated(mapping: &Mapping, wanted: &[Mapping]) -> bool {
    let is_anew = |other: &Mapping| {
        other.owner == mapping.owner && other.held_by == mapping.held_by && other.shares_ports(mapping)
    };
    mapping.condition.is_some() && !wanted.contains(mapping) && wanted.iter().any(is_anew)
}

/// A mapping gives way to another of its own container, and to any if its container is gone: its namespace is no more,
/// or its address is another one's by now.
fn gives_way(holder: &MappingOwner, holder_target: IpAddr, owner: &MappingOwner, target: IpAddr) -> bool {
    // An address belongs to one container at a time: who has it now shows that the earlier one is gone, whatever its
    // namespace's name says.
    let readdressed = holder_target == target && holder.netns.is_some() && holder.netns != owner.netns;
    holder.is_same_container(owner) || readdressed || holder.is_gone()
}

/// Plans how to withdraw the mappings that `leaves` says, and what is only there for them. What a process holds is for
/// that process to let go.
pub(crate) fn withdraw(present: &Published, leaves: impl Fn(&Mapping) -> bool) -> Vec<MappingStep> {
    let (leaving, staying): (Vec<_>, Vec<_>) =
        present.mappings.iter().filter(|mapping| mapping.held_by.is_none()).partition(|mapping| leaves(mapping));
    let mut steps: Vec<_> = leaving.into_iter().cloned().map(MappingStep::Withdraw).collect();
    let mut all_heirs: BTreeMap<IpAddr, Vec<&Mapping>> = BTreeMap::new();
    for mapping in staying {
        all_heirs.entry(mapping.target).or_default().push(mapping);
    }
    for hairpin in present.hairpins.iter().filter(|hairpin| hairpin.held_by.is_none()) {
        let heirs = all_heirs.get(&hairpin.target).map(Vec::as_slice).unwrap_or_default();
        if heirs.iter().any(|mapping| mapping.owner == hairpin.owner) {
            continue;
        }
        steps.push(MappingStep::RemoveHairpin(hairpin.clone()));
        // The rule serves all ports at this address, and only its comment says whose it is: it goes over to one that
        // stays.
        if let Some(heir) = heirs.first() {
            steps.push(MappingStep::AddHairpin(Hairpin { owner: heir.owner.clone(), ..hairpin.clone() }));
        }
    }
    steps.sort_by_key(MappingStep::adds);
    steps
}

/// Returns mappings port by port: one that holds in both families is one port.
pub(crate) fn port_mappings(mappings: &[Mapping]) -> Vec<PortMapping> {
    let of = |is_ipv4| mappings.iter().filter(move |mapping| mapping.target.is_ipv4() == is_ipv4);
    let ports = of(true).chain(of(false)).flat_map(Mapping::port_mappings);
    // A port with several conditions is several mappings, too.
    let mut known = HashSet::new();
    ports.filter(|port| known.insert((port.host_ip, port.host_port, port.container_port, port.protocol))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(id: &str, host_ip: Option<&str>, ports: (u16, u16), target: &str) -> Mapping {
        Mapping {
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
            protocol: Protocol::Tcp,
            host: Span { first: ports.0, last: ports.1 },
            target: target.parse().unwrap(),
            port: 80,
            condition: None,
            owner: MappingOwner { id: id.to_owned(), ..MappingOwner::default() },
            held_by: None,
        }
    }

    fn published(mappings: &[Mapping]) -> Published {
        let hairpin = |mapping: &Mapping| Hairpin {
            network: Cidr { address: "10.88.0.0".parse().unwrap(), prefix: 16 },
            target: mapping.target,
            owner: mapping.owner.clone(),
            held_by: mapping.held_by,
        };
        Published { mappings: mappings.to_vec(), hairpins: mappings.iter().map(hairpin).collect() }
    }

    #[test]
    fn overlapping_ports_of_two_containers_are_refused() {
        let web = mapping("web", None, (8080, 8080), "10.88.0.2");
        for (other, refused) in [
            (mapping("db", None, (8080, 8080), "10.88.0.3"), true),
            (mapping("db", Some("127.0.0.1"), (8080, 8080), "10.88.0.3"), true),
            (mapping("db", None, (8000, 9000), "10.88.0.3"), true),
            (mapping("db", None, (8081, 8081), "10.88.0.3"), false),
            (mapping("db", None, (8080, 8080), "fd88::3"), false),
            (Mapping { protocol: Protocol::Udp, ..mapping("db", None, (8080, 8080), "10.88.0.3") }, false),
        ] {
            let plan = publish(&published(std::slice::from_ref(&web)), &published(std::slice::from_ref(&other)));
            assert_eq!(plan.is_err(), refused, "{other}");
        }
        let local = mapping("web", Some("127.0.0.1"), (80, 80), "10.88.0.2");
        let outer = mapping("db", Some("203.0.113.1"), (80, 80), "10.88.0.3");
        assert!(publish(&published(&[local]), &published(&[outer])).is_ok());
    }

    #[test]
    fn ports_with_conditions_overlap_where_somebody_meets_both() {
        let under = |id: &str, source: &str, destination: &str| {
            let range = |cidr: &str| Range::from(cidr.parse::<Cidr>().unwrap());
            let condition = SourceCondition { source: range(source), destination: range(destination) };
            mapping(id, None, (8080, 8080), "10.88.0.2").under(condition)
        };
        let web = under("web", "10.0.0.0/8", "0.0.0.0/0");
        for (other, want) in [
            (under("db", "10.9.0.0/16", "192.0.2.0/24"), true),
            (under("db", "192.168.0.0/16", "0.0.0.0/0"), false),
            (mapping("db", Some("127.0.0.1"), (8080, 8080), "10.88.0.3"), true),
            (mapping("db", None, (8081, 8081), "10.88.0.3"), false),
        ] {
            assert_eq!((web.overlaps(&other), other.overlaps(&web)), (want, want), "{other}");
        }
        let narrow = under("web", "10.0.0.0/9", "0.0.0.0/0");
        let plan = |present: &[Mapping], wanted: &Mapping| {
            publish(&published(present), &published(std::slice::from_ref(wanted))).unwrap()
        };
        let want = [MappingStep::Withdraw(web.clone()), MappingStep::Publish(narrow.clone())];
        assert_eq!(plan(std::slice::from_ref(&web), &narrow), want);
        assert_eq!(plan(&[narrow.clone(), under("web", "10.128.0.0/9", "0.0.0.0/0")], &narrow).len(), 1);
    }

    #[test]
    fn the_same_again_is_no_step_and_a_change_replaces() {
        let web = published(&[mapping("web", None, (8080, 8080), "10.88.0.2")]);
        assert_eq!(publish(&web, &web), Ok(vec![]));
        let moved = mapping("web", None, (8080, 8080), "10.88.0.9");
        let steps = publish(&web, &Published { mappings: vec![moved.clone()], hairpins: vec![] });
        assert_eq!(steps, Ok(vec![MappingStep::Withdraw(web.mappings[0].clone()), MappingStep::Publish(moved)]));
    }

    #[test]
    fn the_dead_give_way() {
        let mut dead = published(&[mapping("dead", None, (8080, 8080), "10.88.0.2")]);
        dead.mappings[0].owner.netns = Some("/no/such/namespace".into());
        dead.hairpins[0].owner = dead.mappings[0].owner.clone();
        let web = published(&[mapping("web", None, (8080, 8080), "10.88.0.2")]);
        let steps = publish(&dead, &web).unwrap();
        assert_eq!(
            steps,
            [
                MappingStep::Withdraw(dead.mappings[0].clone()),
                MappingStep::RemoveHairpin(dead.hairpins[0].clone()),
                MappingStep::Publish(web.mappings[0].clone()),
                MappingStep::AddHairpin(web.hairpins[0].clone()),
            ]
        );
    }

    #[test]
    fn what_a_process_holds_is_left_to_it() {
        let web = mapping("web", None, (8080, 8080), "10.88.0.2");
        let held = Mapping { held_by: Some(7), ..web.clone() };
        let there = published(std::slice::from_ref(&held));
        assert_eq!(withdraw(&there, |_| true), []);
        for (id, is_held) in [("web", true), ("db", false)] {
            let other = mapping(id, None, (8080, 8080), "10.88.0.3");
            let taken = publish(&there, &published(&[other])).unwrap_err();
            assert_eq!((taken.holder.as_str(), taken.is_held), ("web", is_held));
        }
        assert_eq!(publish(&there, &there), Ok(vec![]));
        // The holder's own transaction takes the place of what was to stay.
        let steps = publish(&published(std::slice::from_ref(&web)), &there).unwrap();
        assert_eq!(steps.first(), Some(&MappingStep::Withdraw(web)));
        assert!(steps.contains(&MappingStep::Publish(held)));
    }

    #[test]
    fn the_last_of_a_containers_ports_takes_the_masquerade_along() {
        let mut both =
            published(&[mapping("web", None, (80, 80), "10.88.0.2"), mapping("web", None, (81, 81), "10.88.0.2")]);
        both.hairpins.pop();
        let steps = withdraw(&both, |mapping| mapping.host.first == 80);
        assert_eq!(steps, [MappingStep::Withdraw(both.mappings[0].clone())]);
        assert_eq!(withdraw(&both, |mapping| mapping.owner.id == "web").len(), 3);
    }
}
