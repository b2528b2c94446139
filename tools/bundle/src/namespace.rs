//! Which namespaces the container gets of its own, and which it shares.

use std::str::FromStr;

use ::container::{NameError, RuntimeId};
use serde_json::{Value, json};

/// A namespace as an option names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Namespace {
    /// A new one.
    Private,
    /// A new one, with nothing set up in it.
    None,
    /// The host's.
    Host,
    /// That of another container, by id.
    Container(RuntimeId),
    /// That behind a path.
    Path(String),
}

impl FromStr for Namespace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.split_once(':')) {
            ("private" | "shareable" | "bridge" | "default", _) => Ok(Self::Private),
            ("none", _) => Ok(Self::None),
            ("host", _) => Ok(Self::Host),
            (_, Some(("container", id))) => {
                id.parse().map(Self::Container).map_err(|error: NameError| error.to_string())
            }
            (_, Some(("ns", path))) if path.starts_with('/') => Ok(Self::Path(path.to_owned())),
            _ => Err(format!("`{text}` is not host, private, none, container:ID or ns:PATH")),
        }
    }
}

/// The container's namespaces, with other containers already looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shared {
    pub(crate) network: Namespace,
    pub(crate) pid: Namespace,
    pub(crate) ipc: Namespace,
    pub(crate) uts: Namespace,
    pub(crate) cgroup: Namespace,
    pub(crate) user: Namespace,
}

impl Shared {
    /// Returns `linux.namespaces` (runtime-spec, config-linux.md, "Namespaces").
    pub(crate) fn to_json(&self) -> Value {
        let mut namespaces = vec![json!({"type": "mount"})];
        let others = [
            ("network", &self.network),
            ("uts", &self.uts),
            ("pid", &self.pid),
            ("ipc", &self.ipc),
            ("cgroup", &self.cgroup),
            ("user", &self.user),
        ];
        for (name, namespace) in others {
            match namespace {
                Namespace::Private | Namespace::None => namespaces.push(json!({"type": name})),
                Namespace::Path(path) => namespaces.push(json!({"type": name, "path": path})),
                // What is not in the list is the runtime's own, and so the host's; a container has become a path by
                // now.
                Namespace::Host | Namespace::Container(_) => {}
            }
        }
        Value::Array(namespaces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_namespaces_are_not_listed() {
        let shared = Shared {
            network: Namespace::Path("/run/netns/x".to_owned()),
            pid: Namespace::Host,
            ipc: Namespace::None,
            uts: Namespace::Private,
            cgroup: Namespace::Host,
            user: Namespace::Host,
        };
        let want =
            json!([{"type": "mount"}, {"type": "network", "path": "/run/netns/x"}, {"type": "uts"}, {"type": "ipc"}]);
        assert_eq!(shared.to_json(), want);
    }

    #[test]
    fn modes_are_read_as_docker_reads_them() {
        for (text, want) in [
            ("host", Some(Namespace::Host)),
            ("shareable", Some(Namespace::Private)),
            ("container:web", Some(Namespace::Container("web".parse().unwrap()))),
            ("ns:/run/netns/x", Some(Namespace::Path("/run/netns/x".to_owned()))),
            ("container:", None),
            ("ns:x", None),
            ("mine", None),
        ] {
            assert_eq!(text.parse().ok(), want, "{text}");
        }
    }
}
