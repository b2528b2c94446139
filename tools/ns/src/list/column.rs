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
    number: bool,
    help: &'static str,
}

const fn about(column: Column, name: &'static str, number: bool, help: &'static str) -> About {
    About { column, name, number, help }
}

const ALL: [About; 16] = [
    about(Column::Ns, "NS", true, "namespace identifier (inode number)"),
    about(Column::Type, "TYPE", false, "kind of namespace"),
    about(Column::Path, "PATH", false, "path to the namespace"),
    about(Column::Nprocs, "NPROCS", true, "number of processes in the namespace"),
    about(Column::Pid, "PID", true, "lowest PID in the namespace"),
    about(Column::Ppid, "PPID", true, "PPID of the PID"),
    about(Column::Command, "COMMAND", false, "command line of the PID"),
    about(Column::Uid, "UID", true, "UID of the PID"),
    about(Column::User, "USER", false, "username of the PID"),
    about(Column::Netnsid, "NETNSID", false, "namespace ID as used by network subsystem"),
    about(Column::Nsfs, "NSFS", false, "nsfs mountpoint (usually used network subsystem)"),
    about(Column::Pns, "PNS", true, "parent namespace identifier (inode number)"),
    about(Column::Ons, "ONS", true, "owner namespace identifier (inode number)"),
    about(Column::Container, "CONTAINER", false, "container that the namespace belongs to"),
    about(Column::HeldBy, "HELD-BY", false, "what keeps the namespace"),
    about(Column::Nsid, "NSID", true, "number that no other namespace has had since boot"),
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
    pub(crate) fn json(self) -> String {
        self.name().to_lowercase().replace('-', "_")
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
