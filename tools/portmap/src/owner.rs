//! Whose a mapping is: written to each element of the firewall as its comment, so that the kernel's state says it.

use std::fmt;
use std::path::{Path, PathBuf};

/// The magic number of the file system that namespaces are files of (include/uapi/linux/magic.h).
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// The container that a mapping belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) id: String,
    /// The interface and the network's name, where a CNI runtime gave them.
    pub(crate) attachment: Option<Attachment>,
    /// A path of the container's network namespace.
    pub(crate) netns: Option<PathBuf>,
}

/// What CNI calls an attachment, beside the container's id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attachment {
    pub(crate) interface: String,
    pub(crate) network: String,
}

impl Owner {
    /// Returns the owner that a comment names, or `None` where somebody else wrote it.
    pub(crate) fn parse(comment: &str) -> Option<Self> {
        let (words, netns) = match comment.split_once(" netns=") {
            Some((words, netns)) => (words, Some(PathBuf::from(netns))),
            None => (comment, None),
        };
        let value = |name: &str| words.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        let attachment = value("if")
            .zip(value("name"))
            .map(|(interface, network)| Attachment { interface: interface.to_owned(), network: network.to_owned() });
        Some(Self { id: value("id")?.to_owned(), attachment, netns })
    }

    /// Tells whether the container's network namespace is gone. Where nothing is known of it, it is not. A namespace
    /// whose name is only seen in another mount namespace (`run` makes one for itself) still has its link to the host.
    pub(crate) fn is_gone(&self) -> bool {
        self.netns.as_deref().is_some_and(|netns| !is_namespace(netns)) && !has_link(&self.id)
    }
}

/// Tells whether a link of this network namespace is the host's end of the container's: `ns add` writes the container's
/// id into its alias, and the kernel removes it with the container's end.
fn has_link(id: &str) -> bool {
    let links = netlink::route::Router::open().and_then(|mut router| router.links(None));
    let named = |alias: &str| alias.split(' ').next().and_then(|word| word.strip_prefix("ctr=")) == Some(id);
    // What cannot be asked is not known to be gone.
    links.map_or(true, |links| links.iter().any(|link| link.alias.as_deref().is_some_and(named)))
}

/// Tells whether a namespace is there: what is left of a named one that was unmounted is an empty file.
pub(crate) fn is_namespace(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|statfs| u64::try_from(statfs.f_type).is_ok_and(|magic| magic == NSFS_MAGIC))
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "id={}", self.id)?;
        if let Some(Attachment { interface, network }) = &self.attachment {
            write!(f, " if={interface} name={network}")?;
        }
        // Last, because only a path may have spaces.
        self.netns.as_ref().map_or(Ok(()), |netns| write!(f, " netns={}", netns.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_read_as_it_was_written() {
        let attachment = Attachment { interface: "eth0".into(), network: "podman".into() };
        for owner in [
            Owner { id: "web".into(), ..Owner::default() },
            Owner { id: "web".into(), attachment: None, netns: Some("/run/netns/a b".into()) },
            Owner { id: "f00".into(), attachment: Some(attachment), netns: Some("/run/netns/x".into()) },
        ] {
            assert_eq!(Owner::parse(&owner.to_string()), Some(owner));
        }
        assert_eq!(Owner::parse("somebody's note"), None);
    }
}
