//! The columns: those of `lsns(8)` (util-linux 2.43) in its order, then ours.

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Column {
    Ns,
    Type,
    Path,
    Nprocs,
    Pid,
    Ppid,
    Command,
    Uid,
    User,
    Netnsid,
    Nsfs,
    Pns,
    Ons,
    Container,
    HeldBy,
    Nsid,
}

/// What is told of a column: name, kind of its values, help.
struct About {
    column: Column,
    name: &'static str,
    json: &'static str,
    number: bool,
    help: &'static str,
}

const fn about(column: Column, name: &'static str, json: &'static str, number: bool, help: &'static str) -> About {
    About { column, name, json, number, help }
}

const ALL: [About; 16] = [
    about(Column::Ns, "NS", "ns", true, "namespace identifier (inode number)"),
    about(Column::Type, "TYPE", "type", false, "kind of namespace"),
    about(Column::Path, "PATH", "path", false, "path to the namespace"),
    about(Column::Nprocs, "NPROCS", "nprocs", true, "number of processes in the namespace"),
    about(Column::Pid, "PID", "pid", true, "lowest PID in the namespace"),
    about(Column::Ppid, "PPID", "ppid", true, "PPID of the PID"),
    about(Column::Command, "COMMAND", "command", false, "command line of the PID"),
    about(Column::Uid, "UID", "uid", true, "UID of the PID"),
    about(Column::User, "USER", "user", false, "username of the PID"),
    about(Column::Netnsid, "NETNSID", "netnsid", false, "namespace ID as used by network subsystem"),
    about(Column::Nsfs, "NSFS", "nsfs", false, "nsfs mountpoint (usually used network subsystem)"),
    about(Column::Pns, "PNS", "pns", true, "parent namespace identifier (inode number)"),
    about(Column::Ons, "ONS", "ons", true, "owner namespace identifier (inode number)"),
    about(Column::Container, "CONTAINER", "container", false, "container that the namespace belongs to"),
    about(Column::HeldBy, "HELD-BY", "held_by", false, "what keeps the namespace"),
    about(Column::Nsid, "NSID", "nsid", true, "number that no other namespace has had since boot"),
];

impl Column {
    /// Returns all columns; those of lsns alone for one who calls us by that name.
    pub(crate) fn all(lsns: bool) -> impl Iterator<Item = Self> {
        let count = if lsns { ALL.len() - 3 } else { ALL.len() };
        ALL.iter().take(count).map(|about| about.column)
    }

    /// Returns the column of that name, in whatever case.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        ALL.iter().find(|about| about.name.eq_ignore_ascii_case(name)).map(|about| about.column)
    }

    /// Returns the name that stands above the column.
    pub(crate) fn name(self) -> &'static str {
        self.about().name
    }

    /// Returns the member's name in JSON.
    pub(crate) fn json(self) -> &'static str {
        self.about().json
    }

    /// Returns the type that lsns's `--list-columns` says the column's values have.
    pub(crate) fn type_name(self) -> &'static str {
        if self.about().number { "<integer>" } else { "<string>" }
    }

    /// Tells whether values stand at the column's right edge.
    pub(crate) fn right(self) -> bool {
        self.about().number || self == Self::Netnsid
    }

    /// Returns one line of help.
    pub(crate) fn help(self) -> &'static str {
        self.about().help
    }

    fn about(self) -> &'static About {
        // The list is in the order of the enumeration, which a test holds.
        &ALL[self as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_every_column_in_its_place() {
        for (place, about) in ALL.iter().enumerate() {
            assert_eq!(about.column as usize, place);
            assert_eq!(Column::parse(&about.name.to_lowercase()), Some(about.column));
        }
        assert_eq!(Column::all(true).last(), Some(Column::Ons));
    }
}
