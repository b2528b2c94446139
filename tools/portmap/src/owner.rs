//! Whose a mapping is: written to each element of the firewall as its comment, so that the kernel's state says it.

use std::fmt;
use std::path::{Path, PathBuf};

use container::{ContainerId, NotedProcess, Owner};
use record::{Id, OwnedBy, Record};
use sys::namespace::is_at;

/// In a comment: the namespace is the one that is named as the container.
const NAMED: &str = "named";

/// The container that a mapping belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MappingOwner {
    pub(crate) id: String,
    /// Whose container it is, where a stage of ours published the port.
    pub(crate) owner: Option<Owner>,
    /// The interface and the network's name, where a CNI runtime gave them.
    pub(crate) attachment: Option<Attachment>,
    /// A path of the container's network namespace.
    pub(crate) netns: Option<PathBuf>,
    /// When the process was born whose namespace the path names, where it names one by a process.
    pub(crate) birth: Option<u64>,
}

/// What CNI calls an attachment, beside the container's id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attachment {
    pub(crate) interface: String,
    pub(crate) network: String,
}

impl MappingOwner {
    /// Returns the owner of what is published for a container in that namespace.
    pub(crate) fn new(id: &ContainerId, owner: Option<Owner>, netns: Option<PathBuf>) -> Self {
        let birth = netns.as_deref().and_then(process_of).and_then(|pid| container::birth(pid).ok()?);
        Self { id: id.to_string(), owner, attachment: None, netns, birth }
    }

    /// Tells a record which container this is, and whose.
    pub(crate) fn name(&self, record: &mut Record) -> anyhow::Result<()> {
        record.set(&Id(self.id.parse()?));
        if let Some(owner) = self.owner.filter(|owner| owner.is_one_containers()) {
            record.set(&OwnedBy(owner));
        }
        Ok(())
    }

    /// Tells whether it is the same container, as far as an id tells: below another root it is not.
    pub(crate) fn is_same_container(&self, other: &Self) -> bool {
        let (owner, others) = (self.owner, other.owner);
        self.id == other.id && owner.zip(others).is_none_or(|(owner, others)| owner.shares_root(others))
    }

    /// Returns the owner that a comment names, or `None` where somebody else wrote it.
    pub(crate) fn parse(comment: &str) -> Option<Self> {
        let (words, netns) =
            comment.split_once(" netns=").map_or((comment, None), |(words, netns)| (words, Some(PathBuf::from(netns))));
        let named = || words.split(' ').any(|word| word == NAMED);
        let value = |name: &str| words.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        let attachment = value("if")
            .zip(value("name"))
            .map(|(interface, network)| Attachment { interface: interface.to_owned(), network: network.to_owned() });
        let id = value("id")?.to_owned();
        let netns = netns.or_else(|| id.parse().ok().filter(|_| named()).map(|id| container::namespace(&id)));
        // Comments of older versions lack words: what is not there is not known, and never a reason to throw a
        // mapping away.
        let owner = value("own").and_then(|owner| owner.parse().ok());
        Some(Self { id, owner, attachment, netns, birth: value("born").and_then(|birth| birth.parse().ok()) })
    }

    /// Tells whether the container's network namespace is gone. Where nothing is known of it, it is not. A namespace
    /// whose name is only seen in another mount namespace (`run` makes one for itself) still has its link to the host.
    pub(crate) fn is_gone(&self) -> bool {
        let other = |netns: &Path| {
            let noted = NotedProcess { pid: process_of(netns).unwrap_or_default(), birth: self.birth };
            self.birth.is_some() && noted.alive().is_none()
        };
        // The link last: to ask for all links costs more than to look at a file.
        self.netns.as_deref().is_some_and(|netns| !is_at(netns) || other(netns)) && !self.has_link()
    }

    /// Tells whether a link of this network namespace is the host's end of the container's: `ns add` writes the id and
    /// whose it is into its alias, and the kernel removes it with the container's end.
    fn has_link(&self) -> bool {
        let links = netlink::route::Router::open().and_then(|mut router| router.links(None));
        let is_own = |alias: &str| {
            let value = |name: &str| alias.split(' ').find_map(|word| word.strip_prefix(name));
            let owner = value("own=").and_then(|owner| owner.parse::<Owner>().ok());
            value("ctr=") == Some(&self.id) && self.owner.zip(owner).is_none_or(|(own, owner)| own == owner)
        };
        // What cannot be asked is not known to be gone.
        links.map_or(true, |links| links.iter().any(|link| link.alias.as_deref().is_some_and(is_own)))
    }
}

/// Returns the process that a path in /proc names.
fn process_of(netns: &Path) -> Option<i32> {
    netns.strip_prefix("/proc").ok()?.iter().next()?.to_str()?.parse().ok()
}

impl fmt::Display for MappingOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "id={}", self.id)?;
        self.owner.map_or(Ok(()), |owner| write!(f, " own={owner}"))?;
        self.birth.map_or(Ok(()), |birth| write!(f, " born={birth}"))?;
        if let Some(Attachment { interface, network }) = &self.attachment {
            write!(f, " if={interface} name={network}")?;
        }
        let named = || self.id.parse().map(|id| container::namespace(&id)).ok();
        match &self.netns {
            None => Ok(()),
            // A comment has 253 bytes.
            netns if *netns == named() => write!(f, " {NAMED}"),
            // Last, because only a path may have spaces.
            Some(netns) => write!(f, " netns={}", netns.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_read_as_it_was_written() {
        let attachment = Attachment { interface: "eth0".into(), network: "podman".into() };
        for owner in [
            MappingOwner { id: "web".into(), ..MappingOwner::default() },
            MappingOwner {
                owner: "0000001a-00000002".parse().ok(),
                ..MappingOwner::new(&"web".parse().unwrap(), None, Some("/run/netns/web".into()))
            },
            MappingOwner { id: "web".into(), netns: Some("/run/netns/a b".into()), ..MappingOwner::default() },
            MappingOwner {
                id: "w".into(),
                birth: Some(7),
                netns: Some("/proc/9/ns/net".into()),
                ..MappingOwner::default()
            },
            MappingOwner {
                id: "f00".into(),
                attachment: Some(attachment),
                netns: Some("/run/netns/x".into()),
                ..MappingOwner::default()
            },
        ] {
            assert_eq!(MappingOwner::parse(&owner.to_string()), Some(owner));
        }
        assert_eq!(MappingOwner::parse("somebody's note"), None);
        let long = MappingOwner::new(
            &"x".repeat(128).parse().unwrap(),
            None,
            Some(format!("/run/netns/{}", "x".repeat(128)).into()),
        );
        assert!(long.to_string().len() < 200);
    }

    #[test]
    fn a_later_process_of_that_number_is_another_container() {
        let netns = format!("/proc/{}/ns/net", std::process::id());
        let own = MappingOwner::new(&"no-such-link".parse().unwrap(), None, Some(netns.into()));
        assert!(own.birth.is_some() && !own.is_gone());
        assert!(MappingOwner { birth: Some(1), ..own }.is_gone());
    }
}
