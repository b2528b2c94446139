//! `logs`: what a container has said, of all the generations of its log, and what it goes on to say.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::inotify;
use serde_json::Value;
use sys::ready::readable;

use crate::control::{self, Answer, Request};
use crate::job::{self, Job};
use crate::list;
use crate::output::{self, Driver, LogFormat, generation};
use crate::request::LogLines;

/// Prints a log.
pub(crate) fn logs(options: &LogLines, roots: &cli::Roots) -> Result<ExitCode> {
    let directories = roots.directories();
    let (id, known) = list::named(&directories, &options.id)?;
    let bundle = known.bundle.clone();
    let why = || list::without_keeper(&directories, &id, &known);
    ensure!(bundle.join(job::FILE).exists(), "{}, and has no log: only `keep` and `run -d` write one", why());
    let job = Job::of(&bundle)?;
    match job.log.driver {
        Driver::File => {}
        Driver::None => bail!("container {id} has no log: it was started with --log-driver none"),
        Driver::Journald => bail!("its log is in the journal: journalctl CONTAINER_ID={id}"),
    }
    let timed = options.timestamps || options.since.is_some() || options.until.is_some();
    let is_timed = job.log.format != LogFormat::Plain;
    ensure!(is_timed || !timed, "a plain log has no times: start the container with --log-opt format=cri or json");
    // Before anything is read, so that nothing is missed between.
    let keeper = if options.follow { control::ask(&bundle, &id, &Request::Wait)? } else { None };
    let watch = keeper.as_ref().map(|_| watch(&bundle)).transpose()?;
    let path = bundle.join(output::FILE);
    let (format, output) = (job.log.format, BufWriter::new(io::stdout()));
    let mut printer = Printer { options, format, held: VecDeque::new(), going_on: false, output };
    let mut current = printer.past(&path, job.log.max_file.unwrap_or(1))?;
    if let (Some(keeper), Some(watch)) = (keeper, watch) {
        printer.follow(&path, &mut current, &keeper, &watch)?;
    }
    Ok(ExitCode::SUCCESS)
}

struct Printer<'a> {
    options: &'a LogLines,
    format: LogFormat,
    /// The last lines, while it is not known which are the last.
    held: VecDeque<Vec<u8>>,
    /// Whether lines are printed as they come.
    going_on: bool,
    /// What is ready for standard output: it does not wait for lines to come.
    output: BufWriter<io::Stdout>,
}

impl Printer<'_> {
    /// Prints what is there, the oldest generation first, and returns the newest one's reader.
    fn past(&mut self, path: &Path, generations: u32) -> Result<BufReader<File>> {
        for number in (1..generations).rev() {
            if let Ok(file) = File::open(generation(path, number)) {
                self.read(&mut BufReader::new(file))?;
            }
        }
        let file = OpenOptions::new().read(true).open(path).with_context(|| format!("open {}", path.display()))?;
        let mut reader = BufReader::new(file);
        self.read(&mut reader)?;
        self.going_on = true;
        for line in std::mem::take(&mut self.held) {
            self.print(&line)?;
        }
        self.output.flush()?;
        Ok(reader)
    }

    fn follow(
        &mut self,
        path: &PathBuf,
        current: &mut BufReader<File>,
        keeper: &OwnedFd,
        watch: &OwnedFd,
    ) -> Result<()> {
        let mut ended = false;
        loop {
            self.read(current)?;
            let now = path.metadata();
            if now.is_ok() && !sys::file::is_same(current.get_ref(), now)? {
                // What came between the last look and the rotation.
                self.read(current)?;
                *current = BufReader::new(File::open(path).with_context(|| format!("open {}", path.display()))?);
                continue;
            }
            if ended {
                return Ok(());
            }
            let ready = readable([keeper.as_fd(), watch.as_fd()], None).context("poll")?;
            if ready[1] {
                let mut events = [0; 4096];
                // Only that something happened counts.
                let _events = rustix::io::read(watch, &mut events);
            }
            // A container that starts again is another one's log: docker follows to the first end, too.
            ended = ready[0] && matches!(control::answer(keeper)?, Answer::Ended(_) | Answer::Closed);
        }
    }

    fn read(&mut self, reader: &mut BufReader<File>) -> Result<()> {
        loop {
            let mut line = Vec::new();
            // Lines of a file that others write to: one without an end may be unfinished, but is all there is now.
            if reader.read_until(b'\n', &mut line).context("read the log")? == 0 {
                return Ok(self.output.flush()?);
            }
            match self.options.tail.0.filter(|_| !self.going_on) {
                None => self.print(&line)?,
                Some(count) => {
                    self.held.push_back(line);
                    if self.held.len() > count {
                        self.held.pop_front();
                    }
                }
            }
        }
    }

    fn print(&mut self, line: &[u8]) -> Result<()> {
        let said = match self.format {
            LogFormat::Plain => Said { time: String::new(), stderr: false, text: line.to_vec() },
            LogFormat::Cri => cri(line),
            LogFormat::Json => json(line),
        };
        let early = self.options.since.as_deref().is_some_and(|since| said.time.as_str() < since);
        let late = self.options.until.as_deref().is_some_and(|until| said.time.as_str() > until);
        if early || late {
            return Ok(());
        }
        let mut text = said.text;
        if self.options.timestamps {
            text.splice(..0, format!("{} ", said.time).into_bytes());
        }
        if said.stderr {
            // In the order in which it was said.
            self.output.flush()?;
            Ok(io::stderr().lock().write_all(&text)?)
        } else {
            Ok(self.output.write_all(&text)?)
        }
    }
}

/// What one line of a log says.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    time: String,
    stderr: bool,
    text: Vec<u8>,
}

fn cri(line: &[u8]) -> Said {
    let mut fields = line.splitn(4, |byte| *byte == b' ');
    let mut word = || String::from_utf8_lossy(fields.next().unwrap_or_default()).into_owned();
    let (time, stream, tag) = (word(), word(), word());
    let mut text = fields.next().unwrap_or_default().to_vec();
    if tag == "P" {
        // A part: the line goes on in the next.
        text.pop();
    }
    Said { time, stderr: stream == "stderr", text }
}

fn json(line: &[u8]) -> Said {
    let value: Value = serde_json::from_slice(line).unwrap_or_default();
    let member = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    Said { time: member("time"), stderr: value["stream"] == "stderr", text: member("log").into_bytes() }
}

fn watch(bundle: &Path) -> Result<OwnedFd> {
    let watch = || -> io::Result<OwnedFd> {
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        inotify::add_watch(&watch, bundle, inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE)?;
        Ok(watch)
    };
    watch().with_context(|| format!("watch {}", bundle.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_when_and_where() {
        let said = |time: &str, stderr, text: &str| Said { time: time.into(), stderr, text: text.into() };
        assert_eq!(cri(b"T stdout F a b\n"), said("T", false, "a b\n"));
        assert_eq!(cri(b"T stderr P part\n"), said("T", true, "part"));
        assert_eq!(json(br#"{"log":"x\n","stream":"stderr","time":"T"}"#), said("T", true, "x\n"));
        assert_eq!(json(b"garbage"), said("", false, ""));
    }
}
