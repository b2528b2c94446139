//! The record: one JSON object per container, on one line, that grows from stage to stage. Every stage adds the member
//! that it made and passes every other one on as it came, known or not. `docs/record.md` is the contract; members use
//! the types of the OCI and CNI specifications wherever those have one.
//!
//! ```
//! use record::{Bundle, Record};
//!
//! let mut record = Record::parse(br#"{"image": {"other": 1}, "mine": true}"#, "an example")?;
//! record.set(&Bundle("/srv/web".into()));
//! assert_eq!(record.to_line(), r#"{"image":{"other":1},"mine":true,"bundle":"/srv/web"}"#);
//! # Ok::<(), record::Error>(())
//! ```

#![forbid(unsafe_code)]

mod input;
mod parts;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

pub use input::Input;
pub use parts::{
    Bundle, HOST_GATEWAY, Id, Image, Network, NetworkOptions, OwnedBy, PortMapping, PortOptions, Ports, Protocol,
    Rootfs, State,
};

/// The record's name in a bundle that `bundle` has made: the stages behind it write down there what they add.
pub const FILE: &str = "record.json";
/// What stages behind `bundle` add, for a run of the container.
const OF_A_RUN: [&str; 5] = ["network", "networkOptions", "ports", "portOptions", "sockets"];

/// What is named as the origin of a record that comes from the stage before.
pub const STDIN: &str = "stdin";

/// Why a record could not be had. Callers turn it into an exit code: see [`Error::is_usage`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Standard input ended before a record came: the stage before has failed and said why.
    #[error("no record on stdin")]
    Empty,
    /// No argument, and standard input is a terminal.
    #[error("no record: stdin is a terminal, and no directory or file was given")]
    Terminal,
    /// The bytes are not one JSON object.
    #[error("{origin} is not a record: {cause}")]
    Malformed {
        /// The file's name or `stdin`.
        origin: String,
        /// What the JSON parser says.
        cause: String,
    },
    /// A member that this stage needs is not there.
    #[error("record has no `{member}`: run `{stage}` first")]
    Missing {
        /// The member's name.
        member: &'static str,
        /// The tool that adds it.
        stage: &'static str,
    },
    /// A member is there, but not of its type.
    #[error("record's `{member}`: {cause}")]
    Member {
        /// The member's name.
        member: &'static str,
        /// What does not fit.
        cause: String,
    },
    /// The record could not be read.
    #[error("{origin}: {cause}")]
    Read {
        /// The file's name or `stdin`.
        origin: String,
        /// The system's reason.
        cause: io::Error,
    },
}

impl Error {
    /// Tells wrong usage and wrong records (exit code 2) from a stage before that failed (exit code 1).
    pub fn is_usage(&self) -> bool {
        !matches!(self, Self::Empty | Self::Read { .. })
    }
}

/// A member of the record that one stage makes and later ones read.
pub trait Part: Serialize + DeserializeOwned {
    /// The member's name in the record; the empty name means the top level itself.
    const MEMBER: &'static str;
    /// The tool that adds it.
    const STAGE: &'static str;
}

/// One record. Unknown members are kept, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record(Map<String, Value>);

impl Record {
    /// Parses one JSON object; `origin` names it in an error.
    pub fn parse(text: &[u8], origin: &str) -> Result<Self, Error> {
        let malformed = |cause: String| Error::Malformed { origin: origin.to_owned(), cause };
        if text.trim_ascii().is_empty() {
            return Err(if origin == STDIN { Error::Empty } else { malformed("it is empty".to_owned()) });
        }
        match serde_json::from_slice(text) {
            Ok(Value::Object(members)) => Ok(Self(members)),
            Ok(_) => Err(malformed("not a JSON object".to_owned())),
            Err(error) => Err(malformed(error.to_string())),
        }
    }

    /// Returns a member that this stage cannot do without.
    pub fn part<P: Part>(&self) -> Result<P, Error> {
        self.find()?.ok_or(Error::Missing { member: P::MEMBER, stage: P::STAGE })
    }

    /// Returns a member, or `None` where the record has none.
    pub fn find<P: Part>(&self) -> Result<Option<P>, Error> {
        let parse = |value: Value| {
            serde_json::from_value(value)
                .map(Some)
                .map_err(|error| Error::Member { member: P::MEMBER, cause: error.to_string() })
        };
        if P::MEMBER.is_empty() {
            return parse(Value::Object(self.0.clone()));
        }
        // Go programs write null where there is nothing.
        self.0.get(P::MEMBER).filter(|value| !value.is_null()).map_or(Ok(None), |value| parse(value.clone()))
    }

    /// Adds a member or replaces it in its place. The part at the top level ([`State`]) is merged member by member.
    pub fn set<P: Part>(&mut self, part: &P) {
        let value = serde_json::to_value(part).unwrap_or(Value::Null);
        match value {
            Value::Object(members) if P::MEMBER.is_empty() => self.0.extend(members),
            value => {
                self.0.insert(P::MEMBER.to_owned(), value);
            }
        }
    }

    /// Removes a member, if it is there.
    pub fn remove(&mut self, member: &str) {
        self.0.shift_remove(member);
    }

    /// Returns any member as JSON: for members that no type here describes.
    pub fn member(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Returns the record as its line, without the line end.
    pub fn to_line(&self) -> String {
        Value::Object(self.0.clone()).to_string()
    }

    /// Reads the record of a bundle; the error names the file.
    pub fn of_bundle(bundle: &Path) -> Result<Self, Error> {
        let path = bundle.join(FILE);
        let origin = path.display().to_string();
        let text = sys::file::read_regular(&path).map_err(|cause| Error::Read { origin: origin.clone(), cause })?;
        Self::parse(&text, &origin)
    }

    /// Reads the record that `bundle` has left in its bundle; `None` where there is none, or a damaged one.
    ///
    /// # Errors
    /// Where it cannot be read for want of descriptors, memory or disk.
    pub fn known_of(bundle: &Path) -> Result<Option<Self>, Error> {
        match Self::of_bundle(bundle) {
            Err(Error::Read { origin, cause }) => {
                sys::file::known(Err(cause)).map_err(|cause| Error::Read { origin, cause })
            }
            read => Ok(read.ok()),
        }
    }

    /// Reads the records of all bundles in a directory, as far as they have one. One that is damaged is no reason to leave
    /// the others alone: it is said.
    pub fn of_bundles(directory: &Path) -> io::Result<Vec<Self>> {
        let entries = sys::file::there(fs::read_dir(directory))?.into_iter().flatten();
        Self::of_some(entries.map(|entry| Ok(entry?.path())))
    }

    /// Reads the records of some bundles likewise.
    pub fn of_some(bundles: impl IntoIterator<Item = io::Result<PathBuf>>) -> io::Result<Vec<Self>> {
        let mut records = Vec::new();
        for bundle in bundles {
            let bundle = bundle?;
            match Self::of_bundle(&bundle) {
                _ if !sys::file::may_be_there(&bundle.join(FILE)) => {}
                Err(Error::Read { cause, .. }) if sys::file::says_nothing(&cause) => return Err(cause),
                Err(error) => log::warn!("{error}"),
                Ok(record) => records.push(record),
            }
        }
        Ok(records)
    }

    /// Removes what only a run of the container has.
    pub fn forget_the_run(&mut self) {
        for member in OF_A_RUN {
            self.remove(member);
        }
    }

    /// Notes what a stage behind `bundle` was called with, where the record has a bundle.
    pub fn set_options<P: Part>(&mut self, options: &P) -> Result<(), Error> {
        if self.find::<Bundle>()?.is_some() {
            self.set(options);
        }
        Ok(())
    }

    /// Writes down in the bundle what this run has, and hands the record on to the next stage.
    pub fn hand_on(&self) -> io::Result<()> {
        self.note()?;
        self.print()
    }

    /// Writes down in the bundle what this run has. In somebody else's bundle nothing is written: only where there is a
    /// record of the same container.
    ///
    /// A stage of an earlier run may have left its members: those of this run replace them.
    pub fn note(&self) -> io::Result<()> {
        if let Ok(Some(Bundle(bundle))) = self.find::<Bundle>() {
            let same = |known: &Self| ["bundle", "id"].iter().all(|member| known.member(member) == self.member(member));
            if let Some(mut known) = Self::known_of(&bundle).map_err(io::Error::other)?.filter(same) {
                let members = OF_A_RUN.iter().filter_map(|member| self.0.get_key_value(*member));
                known.0.extend(members.map(|(member, value)| (member.clone(), value.clone())));
                output::replace(&bundle.join(FILE), (known.to_line() + "\n").as_bytes())?;
            }
        }
        Ok(())
    }

    /// Writes the record on stdout as one line: all that a stage's stdout ever carries.
    ///
    /// # Errors
    /// `EPIPE` where the next stage is gone: nobody will use what this stage has made, so it undoes that.
    pub fn print(&self) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all((self.to_line() + "\n").as_bytes())?;
        stdout.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_members_pass_through_in_their_order() {
        let mut record = Record::parse(br#"{"z":-9.298196250813323,"id":"web","a":{"b":[null]}}"#, "test").unwrap();
        record.set(&Bundle("/b".into()));
        assert_eq!(record.to_line(), r#"{"z":-9.298196250813323,"id":"web","a":{"b":[null]},"bundle":"/b"}"#);
    }

    #[test]
    fn only_a_bundle_with_the_same_record_gets_it() {
        let directory = std::env::temp_dir().join(format!("record-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let mut record = Record::default();
        record.set(&Bundle(directory.clone()));
        record.set(&Id("web".parse().unwrap()));
        record.set_options(&NetworkOptions(vec!["--ipv6".to_owned()])).unwrap();
        for (there, kept) in [
            (None, false),
            (Some(format!(r#"{{"id":"db","bundle":{directory:?}}}"#)), false),
            (Some("x".to_owned()), false),
            (Some(format!(r#"{{"id":"web","bundle":{directory:?},"image":1}}"#)), true),
        ] {
            if let Some(text) = &there {
                fs::write(directory.join(FILE), text).unwrap();
            }
            record.hand_on().unwrap();
            let now = fs::read_to_string(directory.join(FILE)).ok();
            let more = r#","image":1,"networkOptions":["--ipv6"]}"#;
            let want = there.map(|text| if kept { text.replace(r#","image":1}"#, more) + "\n" } else { text });
            assert_eq!(now, want);
        }
        let mut read = Record::of_bundle(&directory).unwrap();
        assert_eq!(read.part::<NetworkOptions>().unwrap().0, ["--ipv6"]);
        read.forget_the_run();
        assert_eq!(read.find::<NetworkOptions>().unwrap(), None);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_missing_member_names_the_stage_that_makes_it() {
        let record = Record::parse(b"{}", "test").unwrap();
        let error = record.part::<Rootfs>().unwrap_err();
        assert_eq!(error.to_string(), "record has no `rootfs`: run `unpack` first");
        assert!(error.is_usage());
    }

    #[test]
    fn what_is_not_an_object_is_no_record() {
        for (text, want) in [
            (&b""[..], "no record on stdin"),
            (b" \n", "no record on stdin"),
            (b"[]", "stdin is not a record: not a JSON object"),
            (b"nginx", "stdin is not a record: expected ident at line 1 column 2"),
        ] {
            assert_eq!(Record::parse(text, "stdin").unwrap_err().to_string(), want);
        }
    }

    #[test]
    fn a_state_is_a_record_and_a_record_gains_a_state() {
        let state =
            br#"{"ociVersion":"1.3.0","id":"web","status":"running","pid":7,"bundle":"/b","annotations":{"k":"v"}}"#;
        let record = Record::parse(state, "stdin").unwrap();
        let part: State = record.part().unwrap();
        assert_eq!((part.id.as_str(), part.pid, part.status.as_deref()), ("web", Some(7), Some("running")));
        let mut grown = Record::parse(br#"{"id":"web","bundle":"/b","ports":[]}"#, "stdin").unwrap();
        grown.set(&part);
        assert_eq!(grown.part::<State>().unwrap(), part);
        assert_eq!(grown.part::<Ports>().unwrap(), Ports(vec![]));
    }
}
