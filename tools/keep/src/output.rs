//! What a container says becomes a log: a file, plain or with a line's time and stream, in several generations; or
//! systemd's journal; or nothing.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::clock;

/// The file's name in the bundle; older ones have a number.
pub(crate) const FILE: &str = "log";
/// A line that is longer comes in parts.
const LINE: usize = 16 << 10;
const JOURNAL: &str = "/run/systemd/journal/socket";

/// Where the output goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogOptions {
    /// To whom.
    pub(crate) driver: Driver,
    /// In which form, where it is a file.
    pub(crate) format: LogFormat,
    /// When a new file begins.
    pub(crate) max_size: Option<u64>,
    /// How many files there may be.
    pub(crate) max_file: Option<u32>,
}

/// Who gets the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Driver {
    /// The file `<bundle>/log`.
    #[default]
    File,
    /// Nobody.
    None,
    /// systemd's journal.
    Journald,
}

/// The form of a log file's lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// As they come.
    #[default]
    Plain,
    /// `TIME stdout F LINE`: Kubernetes' container logs.
    Cri,
    /// docker's json-file.
    Json,
}

/// Where bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout = 1,
    Stderr = 2,
}

impl Stream {
    /// Returns its name in logs.
    pub(crate) fn name(self) -> &'static str {
        if self == Self::Stderr { "stderr" } else { "stdout" }
    }
}

/// The log of one container.
pub(crate) struct Log {
    options: LogOptions,
    sink: Sink,
    /// The beginnings of lines whose ends have not come, where lines count.
    ///
    /// Sixteen KiB at most: a program that never ends a line does not fill the keeper's memory.
    begun: [Vec<u8>; 2],
    /// Lines that are still to be written, together.
    gathered: Vec<u8>,
}

enum Sink {
    None,
    File { path: PathBuf, file: File, size: u64 },
    Journal { socket: UnixDatagram, id: String },
}

impl Log {
    /// Opens the log of a container that the options ask for.
    pub(crate) fn open(options: &LogOptions, bundle: &Path, id: &str) -> Result<Self> {
        let sink = match options.driver {
            Driver::None => Sink::None,
            Driver::File => {
                let path = bundle.join(FILE);
                let (file, size) = open(&path)?;
                Sink::File { path, file, size }
            }
            Driver::Journald => {
                let socket = UnixDatagram::unbound().context("socket")?;
                socket.connect(JOURNAL).with_context(|| format!("connect to {JOURNAL}"))?;
                // A journal that is stuck must not stop the container's output.
                socket.set_nonblocking(true)?;
                Sink::Journal { socket, id: id.to_owned() }
            }
        };
        Ok(Self { options: options.clone(), sink, begun: [Vec::new(), Vec::new()], gathered: Vec::new() })
    }

    /// Takes what the container has said. A full disk must not stop it: what cannot be written is lost.
    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let plain = matches!(self.sink, Sink::File { .. }) && self.options.format == LogFormat::Plain;
        if matches!(self.sink, Sink::None) {
            return;
        }
        // Cut at line ends, so that no line is in two generations.
        if plain && self.options.max_size.is_some() {
            bytes.split_inclusive(|byte| *byte == b'\n').for_each(|piece| self.put(piece));
            return;
        }
        if plain {
            self.put(bytes);
            return;
        }
        let mut begun = std::mem::take(&mut self.begun[stream as usize - 1]);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            begun.extend_from_slice(piece);
            while begun.len() > LINE {
                let rest = begun.split_off(LINE);
                self.line(stream, &begun, false);
                begun = rest;
            }
            if begun.ends_with(b"\n") {
                begun.pop();
                self.line(stream, &begun, true);
                begun.clear();
            }
        }
        self.begun[stream as usize - 1] = begun;
        self.flush();
    }

    /// Writes the lines that have no end.
    pub(crate) fn finish(&mut self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let begun = std::mem::take(&mut self.begun[stream as usize - 1]);
            if !begun.is_empty() {
                self.line(stream, &begun, true);
            }
        }
        self.flush();
    }

    fn line(&mut self, stream: Stream, line: &[u8], whole: bool) {
        if let Sink::Journal { socket, id } = &self.sink {
            // The journal is full or gone: lost, as with a full disk.
            let _lost = socket.send(&journal_entry(id, stream, line));
            return;
        }
        let text = match self.options.format {
            LogFormat::Json => json_line(stream, line, whole),
            _ => cri_line(stream, line, whole),
        };
        self.gathered.extend(text);
        // A limit holds for each line.
        if self.options.max_size.is_some() {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let mut gathered = std::mem::take(&mut self.gathered);
        self.put(&gathered);
        gathered.clear();
        self.gathered = gathered;
    }

    fn put(&mut self, bytes: &[u8]) {
        let Sink::File { path, file, size } = &mut self.sink else { return };
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        // An empty file takes a piece of any length: one longer than the limit would begin new files for ever.
        if self.options.max_size.is_some_and(|limit| *size > 0 && *size + length > limit) {
            match rotate(path, self.options.max_file.unwrap_or(1)) {
                Ok((fresh, length)) => (*file, *size) = (fresh, length),
                Err(error) => log::warn!("{error:#}"),
            }
        }
        if file.write_all(bytes).is_ok() {
            *size += length;
        }
    }
}

fn open(path: &Path) -> Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).mode(0o640).open(path);
    let file = file.with_context(|| format!("open {}", path.display()))?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

/// Returns the path of an older generation.
pub(crate) fn generation(path: &Path, number: u32) -> PathBuf {
    if number == 0 { path.to_owned() } else { path.with_extension(number.to_string()) }
}

/// Makes place for a new file: the oldest of `count` goes.
///
/// From the oldest on, by rename(2): whoever follows the log has the file open, and reads it to its end.
fn rotate(path: &Path, count: u32) -> Result<(File, u64)> {
    for number in (0..count).rev() {
        let from = generation(path, number);
        let next = (number + 1 < count).then(|| generation(path, number + 1));
        let moved = next.map_or_else(|| fs::remove_file(&from), |next| fs::rename(&from, next));
        sys::file::there(moved).with_context(|| from.display().to_string())?;
    }
    open(path)
}

/// Kubernetes' format: a part of a line is `P`, its end, or a whole line, `F`.
fn cri_line(stream: Stream, line: &[u8], whole: bool) -> Vec<u8> {
    let tag = if whole { 'F' } else { 'P' };
    let mut text = format!("{} {} {tag} ", clock::now(), stream.name()).into_bytes();
    text.extend_from_slice(line);
    text.push(b'\n');
    text
}

/// docker's format: the end of the line is part of it.
fn json_line(stream: Stream, line: &[u8], whole: bool) -> Vec<u8> {
    let mut said = String::from_utf8_lossy(line).into_owned();
    if whole {
        said.push('\n');
    }
    let value = serde_json::json!({"log": said, "stream": stream.name(), "time": clock::now()});
    format!("{value}\n").into_bytes()
}

/// systemd's "Native Journal Protocol": a field with a line end or any byte is given by its length.
fn journal_entry(id: &str, stream: Stream, line: &[u8]) -> Vec<u8> {
    let priority = if stream == Stream::Stderr { 3 } else { 6 };
    let mut entry =
        format!("PRIORITY={priority}\nSYSLOG_IDENTIFIER={id}\nCONTAINER_ID={id}\nCONTAINER_NAME={id}\n").into_bytes();
    entry.extend_from_slice(b"MESSAGE\n");
    entry.extend_from_slice(&u64::try_from(line.len()).unwrap_or_default().to_le_bytes());
    entry.extend_from_slice(line);
    entry.push(b'\n');
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(directory: &Path, options: LogOptions) -> Log {
        let path = directory.join(FILE);
        let (file, size) = open(&path).unwrap();
        Log { options, sink: Sink::File { path, file, size }, begun: [Vec::new(), Vec::new()], gathered: Vec::new() }
    }

    #[test]
    fn lines_are_whole_in_their_stream() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = log(directory.path(), LogOptions { format: LogFormat::Cri, ..LogOptions::default() });
        log.write(Stream::Stdout, b"one\ntw");
        log.write(Stream::Stderr, b"err\n");
        log.write(Stream::Stdout, b"o\nend");
        log.finish();
        let text = fs::read_to_string(directory.path().join(FILE)).unwrap();
        let lines: Vec<&str> = text.lines().map(|line| line.split_once(' ').unwrap().1).collect();
        assert_eq!(lines, ["stdout F one", "stderr F err", "stdout F two", "stdout F end"]);
    }

    #[test]
    fn the_oldest_generation_goes() {
        let directory = tempfile::tempdir().unwrap();
        let mut log =
            log(directory.path(), LogOptions { max_size: Some(4), max_file: Some(2), ..LogOptions::default() });
        for text in ["aaa\n", "bbb\n", "ccc\n"] {
            log.write(Stream::Stdout, text.as_bytes());
        }
        let read = |name: &str| fs::read_to_string(directory.path().join(name)).ok();
        assert_eq!((read("log"), read("log.1"), read("log.2")), (Some("ccc\n".into()), Some("bbb\n".into()), None));
    }

    #[test]
    fn the_journal_gets_an_entry_a_line() {
        let (socket, journal) = UnixDatagram::pair().unwrap();
        let sink = Sink::Journal { socket, id: "web".to_owned() };
        let mut log =
            Log { options: LogOptions::default(), sink, begun: [Vec::new(), Vec::new()], gathered: Vec::new() };
        log.write(Stream::Stderr, b"one\ntwo");
        log.finish();
        for line in ["one", "two"] {
            let mut buffer = [0; 512];
            let count = journal.recv(&mut buffer).unwrap();
            let fields = "PRIORITY=3\nSYSLOG_IDENTIFIER=web\nCONTAINER_ID=web\nCONTAINER_NAME=web\nMESSAGE\n";
            let want = [fields.as_bytes(), &[3, 0, 0, 0, 0, 0, 0, 0], line.as_bytes(), b"\n"].concat();
            assert_eq!(buffer[..count], want);
        }
    }

    #[test]
    fn docker_s_lines_are_json() {
        let line = String::from_utf8(json_line(Stream::Stdout, b"say \"hi\"", true)).unwrap();
        assert!(line.starts_with(r#"{"log":"say \"hi\"\n","stream":"stdout","time":"20"#), "{line}");
    }
}
