//! One entry of `mounts` with its options understood (runtime-spec, config.md, "Mounts"; mount(8) for the words).

use std::path::PathBuf;

use crate::config;

pub(crate) const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
pub(crate) const NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
pub(crate) const NODEV: u64 = libc::MOUNT_ATTR_NODEV;
pub(crate) const NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;
pub(crate) const ATIME_MASK: u64 = libc::MOUNT_ATTR__ATIME;
pub(crate) const NOATIME: u64 = libc::MOUNT_ATTR_NOATIME;
pub(crate) const STRICTATIME: u64 = libc::MOUNT_ATTR_STRICTATIME;
pub(crate) const NODIRATIME: u64 = libc::MOUNT_ATTR_NODIRATIME;
const NOSYMFOLLOW: u64 = libc::MOUNT_ATTR_NOSYMFOLLOW;

/// What a user namespace may not take off a mount that it got from its parent: `mount_namespaces(7)`.
pub(crate) const LOCKABLE: u64 = RDONLY | NOSUID | NODEV | NOEXEC;

/// A mount, parsed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ParsedMount {
    pub destination: PathBuf,
    pub kind: String,
    pub source: String,
    /// Attributes of this mount alone.
    pub attributes: AttributeChange,
    /// Whether there was a word about attributes at all: a bind mount without any keeps those of its source.
    pub has_attributes: bool,
    /// Attributes of this mount and all below it (`rro` and its like).
    pub recursive_attributes: AttributeChange,
    /// `bind` and `rbind`.
    pub bind: Option<Depth>,
    /// In their order: what is mounted later is propagated by the last word.
    pub propagation: Vec<(u64, Depth)>,
    /// Words for the file system itself.
    pub data: Vec<String>,
    pub copy_up: bool,
    /// An id-mapped mount: by its own mappings, or by the container's if it has none.
    pub id_map: Option<Depth>,
    pub remount: bool,
}

/// Attributes to set and to clear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AttributeChange {
    pub set: u64,
    pub clear: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    One,
    Tree,
}

impl Depth {
    pub(crate) fn is_tree(self) -> bool {
        self == Self::Tree
    }
}

impl AttributeChange {
    fn apply(&mut self, (set, clear): (u64, u64)) {
        // The last word counts.
        self.set = self.set & !clear | set;
        self.clear = self.clear & !set | clear;
    }

    /// `norelatime` and its like take an earlier word back, and say nothing of what the mount has already.
    fn take_back(&mut self, value: u64) {
        if self.set & ATIME_MASK == value {
            self.set &= !ATIME_MASK;
            self.clear &= !ATIME_MASK;
        }
    }

    /// Returns what changes on a bind mount, which has attributes already: those that are not asked for go, but for the
    /// access times, which stay unless something is said of them. So does mount(8) on a remount, and so does runc.
    pub(crate) fn of_bind(self) -> Self {
        let times =
            if self.set & NODIRATIME != 0 || self.clear & ATIME_MASK != 0 { ATIME_MASK | NODIRATIME } else { 0 };
        Self { set: self.set, clear: (LOCKABLE | NOSYMFOLLOW | times) & (!self.set | ATIME_MASK & times) }
    }

    pub(crate) fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// The options that are attributes: the word, and whether it sets or clears.
const ATTRIBUTES: [(&str, (u64, u64)); 21] = [
    ("ro", (RDONLY, 0)),
    ("rw", (0, RDONLY)),
    ("nosuid", (NOSUID, 0)),
    ("suid", (0, NOSUID)),
    ("nodev", (NODEV, 0)),
    ("dev", (0, NODEV)),
    ("noexec", (NOEXEC, 0)),
    ("exec", (0, NOEXEC)),
    ("nodiratime", (NODIRATIME, 0)),
    ("diratime", (0, NODIRATIME)),
    ("nosymfollow", (NOSYMFOLLOW, 0)),
    ("symfollow", (0, NOSYMFOLLOW)),
    // The three ways of access times are values of one field, which has to be cleared as a whole.
    ("relatime", (0, ATIME_MASK)),
    // As a word for a whole tree it says so, too: runc and youki read it thus.
    ("norelatime", (0, ATIME_MASK)),
    ("strictatime", (STRICTATIME, ATIME_MASK)),
    ("nostrictatime", (0, ATIME_MASK)),
    ("noatime", (NOATIME, ATIME_MASK)),
    ("atime", (0, ATIME_MASK)),
    ("defaults", (0, 0)),
    ("nolazytime", (0, 0)),
    ("nomand", (0, 0)),
];

const PROPAGATIONS: [(&str, u64); 4] = [
    ("shared", libc::MS_SHARED),
    ("slave", libc::MS_SLAVE),
    ("private", libc::MS_PRIVATE),
    ("unbindable", libc::MS_UNBINDABLE),
];

/// Returns the flag of a word for propagation.
pub(crate) fn propagation(word: &str) -> Option<u64> {
    PROPAGATIONS.iter().find(|(name, _)| *name == word).map(|(_, flag)| *flag)
}

/// Words of mount(8) that say nothing to the kernel.
const NOTHING: [&str; 11] =
    ["silent", "acl", "noacl", "async", "diratime", "iversion", "noiversion", "loud", "_netdev", "nofail", "auto"];

impl ParsedMount {
    pub(crate) fn parse(mount: &config::Mount) -> Self {
        let mut parsed = Self {
            destination: mount.destination.clone(),
            kind: mount.kind.clone(),
            source: mount.source.clone(),
            ..Self::default()
        };
        for option in &mount.options {
            parsed.option(option);
        }
        if parsed.bind.is_none() && parsed.kind == "bind" {
            parsed.bind = Some(Depth::Tree);
        }
        if parsed.id_map.is_none() && !mount.uid_mappings.is_empty() {
            parsed.id_map = Some(Depth::One);
        }
        parsed
    }

    fn option(&mut self, option: &str) {
        let attribute = |word: &str| ATTRIBUTES.iter().find(|(name, _)| *name == word).map(|(_, change)| *change);
        let recursive = option.strip_prefix('r');
        match option {
            "bind" => self.bind = Some(Depth::One),
            "rbind" => self.bind = Some(Depth::Tree),
            "idmap" => self.id_map = Some(Depth::One),
            "ridmap" => self.id_map = Some(Depth::Tree),
            "tmpcopyup" => self.copy_up = true,
            "remount" => self.remount = true,
            _ => {
                if let Some(change) = attribute(option) {
                    self.has_attributes |= change != (0, 0);
                    match option {
                        "atime" => self.attributes.take_back(NOATIME),
                        "norelatime" => self.attributes.take_back(0),
                        "nostrictatime" => self.attributes.take_back(STRICTATIME),
                        "diratime" => self.attributes.set &= !NODIRATIME,
                        _ => self.attributes.apply(change),
                    }
                } else if let Some(flag) = propagation(option) {
                    self.propagation.push((flag, Depth::One));
                } else if let Some(flag) = recursive.and_then(propagation) {
                    self.propagation.push((flag, Depth::Tree));
                } else if let Some(change) = recursive.and_then(attribute) {
                    self.recursive_attributes.apply(change);
                } else if !NOTHING.contains(&option) {
                    self.data.push(option.to_owned());
                }
            }
        }
    }
}

/// Returns the words of the tables, which `features` has to list.
#[cfg(test)]
pub(crate) fn words() -> impl Iterator<Item = &'static str> {
    ATTRIBUTES.iter().map(|(name, _)| *name).chain(PROPAGATIONS.iter().map(|(name, _)| *name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> ParsedMount {
        ParsedMount::parse(&config::Mount {
            options: options.iter().map(|&s| s.to_owned()).collect(),
            ..config::Mount::default()
        })
    }

    #[test]
    fn options_become_attributes_and_the_last_word_counts() {
        let change = |set, clear| AttributeChange { set, clear };
        for (options, one, tree) in [
            (&["ro", "nosuid"][..], change(RDONLY | NOSUID, 0), change(0, 0)),
            (&["ro", "rw"], change(0, RDONLY), change(0, 0)),
            (&["rro", "rnodev"], change(0, 0), change(RDONLY | NODEV, 0)),
            (&["noatime"], change(NOATIME, ATIME_MASK), change(0, 0)),
            (&["noatime", "strictatime"], change(STRICTATIME, ATIME_MASK), change(0, 0)),
            (&["rrelatime"], change(0, 0), change(0, ATIME_MASK)),
            (&["rnorelatime"], change(0, 0), change(0, ATIME_MASK)),
        ] {
            let mount = parse(options);
            assert_eq!((mount.attributes, mount.recursive_attributes), (one, tree), "{options:?}");
        }
    }

    #[test]
    fn a_bind_mount_has_the_attributes_asked_for_or_its_source_s() {
        const TIMES: u64 = ATIME_MASK | NODIRATIME;
        const REST: u64 = LOCKABLE | NOSYMFOLLOW;
        for (options, has, set, clear) in [
            (&["bind"][..], false, 0, REST),
            (&["defaults"], false, 0, REST),
            (&["dev"], true, 0, REST),
            (&["ro", "nosuid"], true, RDONLY | NOSUID, REST & !(RDONLY | NOSUID)),
            (&["atime"], true, 0, REST),
            (&["norelatime", "diratime"], true, 0, REST),
            (&["noatime", "atime"], true, 0, REST),
            (&["relatime"], true, 0, REST | TIMES),
            (&["noatime"], true, NOATIME, REST | TIMES),
            (&["nodiratime"], true, NODIRATIME, REST | ATIME_MASK),
            (&["nodiratime", "strictatime"], true, NODIRATIME | STRICTATIME, REST | ATIME_MASK),
        ] {
            let mount = parse(options);
            let change = mount.attributes.of_bind();
            assert_eq!((mount.has_attributes, change.set, change.clear), (has, set, clear), "{options:?}");
        }
    }

    #[test]
    fn other_words_are_the_file_system_s() {
        let mount = parse(&["rbind", "rshared", "private", "mode=755", "size=64k", "newinstance", "async", "noacl"]);
        assert_eq!(mount.bind, Some(Depth::Tree));
        assert_eq!(mount.propagation, [(libc::MS_SHARED, Depth::Tree), (libc::MS_PRIVATE, Depth::One)]);
        assert_eq!(mount.data, ["mode=755", "size=64k", "newinstance"]);
    }
}
