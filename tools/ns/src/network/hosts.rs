//! Containers on one bridge know each other by name: each has the others in its hosts file (`hosts(5)`). The file is
//! mounted in a running container, so it is changed in place: a line that a container loses becomes a comment by one
//! byte, and a new line takes the place of a comment or is appended. Whoever reads meanwhile sees whole lines.
//!
//! Where the files are is noted in one file for each container on a bridge. A note counts only while the kernel has a port for
//! its address.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::net::IpAddr;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use container::{ContainerId, Directories, Owner, Ownership};
use netlink::route::Router;
use rustix::fs::OFlags;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::note::{self, draft_of};
use super::owner::{PortAlias, name_of_address};

/// What stands behind each of our lines, and before the container's id.
const MARK: &str = "\t# ns: ";
/// A container may write its own file: what has become longer than this is no table of names.
const LONGEST: u64 = 1 << 20;

/// A container on a bridge, as its note tells.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Note {
    /// The container's id.
    pub(crate) id: ContainerId,
    /// Whose it is.
    pub(crate) owner: Owner,
    /// The bridge.
    pub(crate) bridge: String,
    /// Its addresses there.
    pub(crate) addresses: Vec<IpAddr>,
    /// The names that lead to them.
    pub(crate) names: Vec<String>,
    /// Its hosts file, if it has one.
    pub(crate) hosts: Option<PathBuf>,
}

impl Note {
    /// Tells the container's names to the others on the bridge, and theirs to it.
    pub(crate) fn publish(&self, directories: &Directories, host: &mut Router) -> Result<()> {
        // First, and as a whole: by it the names are found in the others' files, whenever we are killed.
        note::write(&directories.host_note(&self.bridge, &self.id), self, false)?;
        let mut theirs = Vec::new();
        for other in self.others(directories)? {
            if other.lives(host) {
                other.hear(&self.lines(), &self.id);
                theirs.extend(other.lines());
            } else {
                other.withdraw(directories)?;
            }
        }
        self.hear(&theirs, "the others");
        Ok(())
    }

    /// Tells whether the container has its address still.
    fn lives(&self, host: &mut Router) -> bool {
        let port = self.addresses.first().and_then(|address| host.link(&name_of_address(*address)).ok().flatten());
        let port = port.and_then(|port| PortAlias::of(&port));
        port.is_some_and(|port| port.id == self.id && port.owner.is_none_or(|own| own == self.owner))
    }

    /// Returns the others on its bridge.
    fn others(&self, directories: &Directories) -> Result<impl Iterator<Item = Self>> {
        let notes = paths_in(&directories.host_notes(Some(&self.bridge)))?;
        Ok(notes.into_iter().filter_map(|path| read(&path)).filter(|other| other.id != self.id))
    }

    /// What the others get of it: a line for each address.
    fn lines(&self) -> Vec<String> {
        let line = |address| format!("{address}\t{}{MARK}{}", self.names.join(" "), self.id);
        self.addresses.iter().map(line).collect()
    }

    /// Adds lines to its file.
    fn hear(&self, lines: &[String], of: &str) {
        self.change(&format!("tell {} of {of}", self.id), |file| add(file, lines));
    }

    /// Changes its file. That is the container's to break, and no reason for us to fail.
    fn change(&self, what: &str, change: impl FnOnce(&mut File) -> Result<()>) {
        let Some(hosts) = &self.hosts else { return };
        let changed = open(hosts).and_then(|mut file| change(&mut file));
        cli::warn(changed.with_context(|| format!("{what}: {}", hosts.display())));
    }

    /// Takes its names out of the others' files, and theirs out of its own.
    fn withdraw(&self, directories: &Directories) -> Result<()> {
        for other in self.others(directories)? {
            for (one, gone) in [(&other, self), (self, &other)] {
                one.change(&format!("take {} from {}", gone.id, one.id), |file| remove(file, gone));
            }
        }
        let path = directories.host_note(&self.bridge, &self.id);
        sys::file::there(fs::remove_file(&path)).map(drop).with_context(|| format!("remove {}", path.display()))
    }
}

/// Takes a container's names out of all files, or those of one bridge, and forgets where its own is.
pub(crate) fn withdraw(directories: &Directories, on: Option<&str>, id: &ContainerId, whose: Ownership) -> Result<()> {
    let bridge = on.map(|bridge| vec![directories.host_notes(Some(bridge))]);
    for notes in bridge.map_or_else(|| paths_in(&directories.host_notes(None)), Ok)? {
        let Some(own) = notes.file_name().and_then(OsStr::to_str) else { continue };
        let path = directories.host_note(own, id);
        // It is there only if whoever wrote it was killed.
        let _none = fs::remove_file(draft_of(&path));
        if let Some(gone) = read(&path).filter(|gone| whose.covers(Some(gone.owner))) {
            gone.withdraw(directories)?;
        }
        // Others' notes may be in there.
        let _full = fs::remove_dir(notes);
    }
    Ok(())
}

/// Returns what is in a directory; nothing, where it is none.
fn paths_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = sys::unless(&[Errno::NOENT, Errno::NOTDIR], fs::read_dir(directory));
    let entries = entries.with_context(|| format!("read {}", directory.display()))?;
    let Some(entries) = entries else { return Ok(vec![]) };
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

/// Reads a note. One that a killed process has left half-written is none.
fn read(path: &Path) -> Option<Note> {
    let note: Note = serde_json::from_slice(&sys::file::read_regular(path).ok()?).ok()?;
    (ContainerId::of_path(path).as_ref() == Ok(&note.id)).then_some(note)
}

/// Opens a hosts file to change it; a link or a FIFO that somebody has put in its place is refused.
fn open(path: &Path) -> Result<File> {
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits())?;
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    ensure!(metadata.is_file() && metadata.len() <= LONGEST, "not a table of names");
    Ok(file)
}

fn text(file: &mut File) -> Result<Vec<u8>> {
    let mut text = vec![];
    std::io::Seek::rewind(file)?;
    file.take(LONGEST).read_to_end(&mut text)?;
    Ok(text)
}

/// The lines, each with its place. A bridge may have hundreds of containers, and so each of their files as many lines.
fn lines(text: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    text.split_inclusive(|byte| *byte == b'\n').scan(0, |at, line| {
        let begin = *at;
        *at += line.len() as u64;
        Some((begin, line))
    })
}

fn add(file: &mut File, new: &[String]) -> Result<()> {
    let known = text(file)?;
    // Searching the whole is much faster than looking at each line, and mostly nothing is found.
    let whole = String::from_utf8_lossy(&known);
    let is_new = |line: &&String| {
        !whole.contains(line.as_str()) || !lines(&known).any(|(_, known)| known.trim_ascii_end() == line.as_bytes())
    };
    let comments = if whole.contains("\n#") { known.as_slice() } else { &[] };
    let mut free = lines(comments).filter(|(_, line)| line.starts_with(b"#") && is_marked(line));
    let mut more = String::new();
    if known.last().is_some_and(|last| *last != b'\n') {
        more.push('\n');
    }
    for line in new.iter().filter(is_new) {
        let Some((begin, known)) = free.find(|(_, known)| known.len() > line.len()) else {
            more.push_str(line);
            more.push('\n');
            continue;
        };
        let line = format!("{line:width$}", width = known.len() - 1);
        // It stays a comment until all of it is there.
        // Two writes of bytes in place: a reader between them sees a comment, never half a name.
        file.write_all_at(&line.as_bytes()[1..], begin + 1)?;
        file.write_all_at(&line.as_bytes()[..1], begin)?;
    }
    if more.trim_end().is_empty() {
        return Ok(());
    }
    // At the end that was read: what a container appends in this moment may be written over, which is its own affair.
    Ok(file.write_all_at(more.as_bytes(), known.len() as u64)?)
}

/// Tells whether a line was ours.
pub(crate) fn is_marked(line: &[u8]) -> bool {
    line.windows(MARK.len()).any(|bytes| bytes == MARK.as_bytes())
}

fn remove(file: &mut File, gone: &Note) -> Result<()> {
    let gone = gone.lines();
    for (begin, line) in lines(&text(file)?) {
        // It may have been made longer by blanks.
        if gone.iter().any(|gone| line.trim_ascii_end() == gone.as_bytes()) {
            file.write_all_at(b"#", begin)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (PathBuf, File) {
        let path = std::env::temp_dir().join(format!("ns-hosts-{}-{}", std::process::id(), text.len()));
        fs::write(&path, text).unwrap();
        let file = open(&path).unwrap();
        (path, file)
    }

    fn note(address: &str, id: &str) -> Note {
        let (owner, addresses) = ("0000001a-00000002".parse().unwrap(), vec![address.parse().unwrap()]);
        let (id, names) = (id.parse().unwrap(), vec![id.to_owned()]);
        Note { id, owner, bridge: "lab".to_owned(), addresses, names, hosts: None }
    }

    #[test]
    fn lines_come_and_go_in_place() {
        let (path, mut hosts) = file("127.0.0.1\tlocalhost");
        let text = || fs::read_to_string(&path).unwrap();
        for (address, id) in [("10.0.0.2", "database"), ("10.0.0.3", "web")] {
            add(&mut hosts, &[format!("{address}\t{id}{MARK}{id}")]).unwrap();
        }
        let want = "127.0.0.1\tlocalhost\n10.0.0.2\tdatabase\t# ns: database\n10.0.0.3\tweb\t# ns: web\n";
        assert_eq!(text(), want);
        add(&mut hosts, &["10.0.0.3\tweb\t# ns: web".to_owned()]).unwrap();
        assert_eq!(text(), want);
        // The same container on another bridge is not meant.
        remove(&mut hosts, &note("10.1.0.2", "database")).unwrap();
        assert_eq!(text(), want);
        remove(&mut hosts, &note("10.0.0.2", "database")).unwrap();
        assert_eq!(text(), want.replace("10.0.0.2", "#0.0.0.2"));
        add(&mut hosts, &["10.0.0.9\tx\t# ns: x".to_owned()]).unwrap();
        assert_eq!(text(), "127.0.0.1\tlocalhost\n10.0.0.9\tx\t# ns: x              \n10.0.0.3\tweb\t# ns: web\n");
        // Several at once: where there is room, and then at the end.
        let two = ["10.0.0.9\tx\t# ns: x", "10.0.0.8\ty\t# ns: y", "10.0.0.7\tz\t# ns: z"].map(str::to_owned);
        remove(&mut hosts, &note("10.0.0.9", "x")).unwrap();
        add(&mut hosts, &two[1..]).unwrap();
        let first = "127.0.0.1\tlocalhost\n10.0.0.8\ty\t# ns: y              \n10.0.0.3\tweb\t# ns: web\n";
        assert_eq!(text(), format!("{first}10.0.0.7\tz\t# ns: z\n"));
        remove(&mut hosts, &note("10.0.0.8", "y")).unwrap();
        add(&mut hosts, &two[..1]).unwrap();
        remove(&mut hosts, &note("10.0.0.9", "x")).unwrap();
        assert!(text().contains("\n#0.0.0.9\tx"));
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn what_is_no_table_of_names_is_left_alone() {
        let directory = std::env::temp_dir().join(format!("ns-hosts-odd-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        std::os::unix::fs::symlink("/etc/hosts", directory.join("link")).unwrap();
        File::create(directory.join("long")).unwrap().set_len(LONGEST + 1).unwrap();
        assert!(open(&directory.join("link")).is_err() && open(&directory.join("long")).is_err());
        fs::remove_dir_all(&directory).unwrap();
    }
}
