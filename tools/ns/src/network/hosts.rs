//! Containers on one bridge know each other by name: each has the others in its hosts file (`hosts(5)`). The file is
//! mounted in a running container, so it is changed in place: a line that a container loses becomes a comment by one
//! byte, and a new line takes the place of a comment or is appended. Whoever reads meanwhile sees whole lines.
//!
//! Where the files are is noted in one file a container. A note counts only while the kernel has a port for its container.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::net::IpAddr;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

/// Where the notes are. The place does not depend on --root, because the network does not either.
const NOTES: &str = "/run/drayage/hosts";
/// What stands behind each of our lines, and before the container's id.
const MARK: &str = "\t# ns: ";
/// A container may write its own file: what has become longer than this is no table of names.
const LONGEST: u64 = 1 << 20;

/// A container on a bridge, as its note tells.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Note {
    /// The container's id.
    pub(crate) id: String,
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
    /// Tells the container's names to the others on the bridge, and theirs to it. `lives` tells which containers are there.
    pub(crate) fn publish(&self, lives: impl Fn(&str) -> bool) -> Result<()> {
        // First, and as a whole: by it the names are found in the others' files, whenever we are killed.
        let path = path_of(&self.id);
        let write = || -> Result<()> {
            fs::create_dir_all(NOTES)?;
            fs::write(draft_of(&self.id), serde_json::to_vec(self)?)?;
            Ok(fs::rename(draft_of(&self.id), &path)?)
        };
        write().with_context(|| format!("write {}", path.display()))?;
        for other in notes()?.into_iter().filter(|other| other.id != self.id) {
            if !lives(&other.id) {
                withdraw(&other.id)?;
            } else if other.bridge == self.bridge {
                self.tell(&other);
                other.tell(self);
            }
        }
        Ok(())
    }

    /// Adds our names to another's file. That is the other's to break, and no reason for us to fail.
    fn tell(&self, other: &Self) {
        let Some(hosts) = &other.hosts else { return };
        let mut lines =
            self.addresses.iter().map(|address| format!("{address}\t{}{MARK}{}", self.names.join(" "), self.id));
        let done = open(hosts).and_then(|mut file| lines.try_for_each(|line| add(&mut file, &line)));
        if let Err(error) = done {
            log::warn!("tell {} of {}: {}: {error:#}", other.id, self.id, hosts.display());
        }
    }
}

/// Takes a container's names out of all files, and forgets where its own is.
pub(crate) fn withdraw(id: &str) -> Result<()> {
    // It is there only if whoever wrote it was killed.
    let _none = fs::remove_file(draft_of(id));
    let path = path_of(id);
    let Some(gone) = read(&path) else { return Ok(()) };
    for other in notes()?.into_iter().filter(|other| other.id != id && other.bridge == gone.bridge) {
        let Some(hosts) = other.hosts else { continue };
        if let Err(error) = open(&hosts).and_then(|mut file| remove(&mut file, id)) {
            log::warn!("take {id} from {}: {}: {error:#}", other.id, hosts.display());
        }
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).context(format!("remove {}", path.display())),
        _ => Ok(()),
    }
}

fn path_of(id: &str) -> PathBuf {
    Path::new(NOTES).join(id)
}

/// A note that is being written. No container's id begins with a full stop.
fn draft_of(id: &str) -> PathBuf {
    Path::new(NOTES).join(format!(".{id}"))
}

fn notes() -> Result<Vec<Note>> {
    let entries = match fs::read_dir(NOTES) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(vec![]),
        entries => entries.with_context(|| format!("read {NOTES}"))?,
    };
    Ok(entries.flatten().filter_map(|entry| read(&entry.path())).collect())
}

/// Reads a note. One that a killed process has left half-written is none.
fn read(path: &Path) -> Option<Note> {
    let note: Note = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    (path == path_of(&note.id)).then_some(note)
}

/// Opens a hosts file to change it; a link or a FIFO that somebody has put in its place is refused.
fn open(path: &Path) -> Result<File> {
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits())?;
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    ensure!(metadata.is_file() && metadata.len() <= LONGEST, "not a table of names");
    Ok(file)
}

/// One of the file's lines: where it begins, and its text without the line end.
fn lines(file: &mut File) -> Result<Vec<(u64, String)>> {
    let mut text = vec![];
    std::io::Seek::rewind(file)?;
    file.take(LONGEST).read_to_end(&mut text)?;
    let mut at = 0;
    Ok(text
        .split_inclusive(|byte| *byte == b'\n')
        .map(|line| {
            let begin = at;
            at += line.len() as u64;
            // What is no text is none of ours; of the same length it must be.
            let line =
                line.iter().map(|byte| if byte.is_ascii() { char::from(*byte) } else { '?' }).collect::<String>();
            (begin, line)
        })
        .collect())
}

fn add(file: &mut File, line: &str) -> Result<()> {
    let known = lines(file)?;
    if known.iter().any(|(_, known)| known.trim_end() == line) {
        return Ok(());
    }
    let free =
        |known: &&(u64, String)| known.1.starts_with('#') && known.1.contains(MARK) && known.1.len() > line.len();
    if let Some((begin, known)) = known.iter().find(free) {
        let (first, rest) = format!("{line:width$}", width = known.len() - 1)
            .into_bytes()
            .split_first()
            .map_or_else(|| (b'#', vec![]), |(first, rest)| (*first, rest.to_vec()));
        // It stays a comment until all of it is there.
        file.write_all_at(&rest, begin + 1)?;
        return Ok(file.write_all_at(&[first], *begin)?);
    }
    let end = known.last().map_or(0, |(begin, line)| begin + line.len() as u64);
    let whole = known.last().is_none_or(|(_, line)| line.ends_with('\n'));
    let separator = if whole { "" } else { "\n" };
    Ok(file.write_all_at(format!("{separator}{line}\n").as_bytes(), end)?)
}

fn remove(file: &mut File, id: &str) -> Result<()> {
    let mark = format!("{MARK}{id}");
    for (begin, line) in lines(file)? {
        if !line.starts_with('#') && line.trim_end().ends_with(&mark) {
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

    #[test]
    fn lines_come_and_go_in_place() {
        let (path, mut hosts) = file("127.0.0.1\tlocalhost");
        let text = || fs::read_to_string(&path).unwrap();
        for (address, id) in [("10.0.0.2", "database"), ("10.0.0.3", "web")] {
            add(&mut hosts, &format!("{address}\t{id}{MARK}{id}")).unwrap();
        }
        let want = "127.0.0.1\tlocalhost\n10.0.0.2\tdatabase\t# ns: database\n10.0.0.3\tweb\t# ns: web\n";
        assert_eq!(text(), want);
        add(&mut hosts, "10.0.0.3\tweb\t# ns: web").unwrap();
        assert_eq!(text(), want);
        // The end of an id is not the id.
        remove(&mut hosts, "base").unwrap();
        assert_eq!(text(), want);
        remove(&mut hosts, "database").unwrap();
        assert_eq!(text(), want.replace("10.0.0.2", "#0.0.0.2"));
        add(&mut hosts, "10.0.0.9\tx\t# ns: x").unwrap();
        assert_eq!(text(), "127.0.0.1\tlocalhost\n10.0.0.9\tx\t# ns: x              \n10.0.0.3\tweb\t# ns: web\n");
        remove(&mut hosts, "x").unwrap();
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
