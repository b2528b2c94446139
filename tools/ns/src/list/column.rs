//! The columns: those of `lsns(8)` (util-linux 2.43) in its order, then ours.

/// What is told of a column.
struct About {
    column: Column,
    name: &'static str,
    number: bool,
    help: &'static str,
}

/// Declares the columns: name, whether its values are numbers, help.
macro_rules! columns {
    ($($column:ident $name:literal $number:literal $help:literal,)*) => {
        /// A column.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum Column { $($column,)* }

        const ALL: &[About] = &[$(About { column: Column::$column, name: $name, number: $number, help: $help },)*];
    };
}

columns! {
    Ns "NS" true "namespace identifier (inode number)",
    Type "TYPE" false "kind of namespace",
    Path "PATH" false "path to the namespace",
    Nprocs "NPROCS" true "number of processes in the namespace",
    Pid "PID" true "lowest PID in the namespace",
    Ppid "PPID" true "PPID of the PID",
    Command "COMMAND" false "command line of the PID",
    Uid "UID" true "UID of the PID",
    User "USER" false "username of the PID",
    Netnsid "NETNSID" false "namespace ID as used by network subsystem",
    Nsfs "NSFS" false "nsfs mountpoint (usually used network subsystem)",
    Pns "PNS" true "parent namespace identifier (inode number)",
    Ons "ONS" true "owner namespace identifier (inode number)",
    Container "CONTAINER" false "container that the namespace belongs to",
    HeldBy "HELD-BY" false "what keeps the namespace",
    Nsid "NSID" true "number that no other namespace has had since boot",
}

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
