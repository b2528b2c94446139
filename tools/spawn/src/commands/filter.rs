//! `spawn` as the last stage of the pipe: the record comes in, the container's output goes out.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context, ensure};
use container::{Exit, RuntimeId};
use humantime::format_rfc3339_nanos;
use record::{Bundle, Id, Input, OwnedBy, Record};
use stage::undo::{self, Made};
use stage::{Tool, Undo};

use super::lifecycle::{become_subreaper, finish, order, poststart};
use crate::request::{Create, FilterRequest, Global};
use crate::state::Status;
use crate::{create, foreground};

/// The file of the bundle that says as which process the container was started.
const PID: &str = "pid";

/// Runs the container of a record or bundle.
pub(crate) fn run(global: &Global, options: FilterRequest) -> anyhow::Result<ExitCode> {
    let (mut record, from_stdin) = match Input::read(options.input.as_deref())? {
        Input::Directory(bundle) => (of_bundle(&bundle)?, false),
        Input::Record(record) => (record, options.input.as_deref().is_none_or(|input| input == Path::new("-"))),
    };
    let is_record = options.input.as_deref().is_none_or(|input| !input.is_dir());
    let has_record = !options.rm || is_record;
    ensure!(has_record, cli::Usage("--rm is for a record: `keep rm` removes the container of a bundle".to_owned()));
    let bundle = record.part::<Bundle>()?.0;
    let id = match options.id {
        Some(id) => id,
        None => record.part::<Id>()?.0.into(),
    };
    let note = Note::of(&bundle, &id);
    // Only where this stage stays till the end: a container that goes on alone is cleaned up after by `keep` or by
    // hand.
    let undo = if is_record && !options.detach { undo_of(&record, &id, options.rm)? } else { vec![] };
    let status = options.status_fd.map(open_status).transpose()?;
    let mut order = order(global, &Create { id, bundle, common: options.common })?;
    order.child.foreground = !options.detach;
    order.child.null_stdin = from_stdin;
    order.record = from_stdin.then(|| record.to_line());
    if let Some(note) = &note {
        // Before the start: a reader who finds no end and a process knows that the container runs, never the end of
        // the run before.
        note.begin();
        order.child.common.pid_file.get_or_insert_with(|| note.bundle.join(PID));
    }
    if options.detach {
        let made = create::create(&order).inspect_err(|_| note.iter().for_each(Note::forget))?;
        poststart(&made)?;
        let state = made.container.report(Status::Running);
        tell(status.as_ref(), &serde_json::to_value(&state)?)?;
        if !options.quiet {
            record.set(&state);
            record.print()?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let ended = live(&order, status.as_ref(), note.as_ref());
    if let Err(error) = undo::carry_out(&undo) {
        // How the container has ended counts more than what could not be cleaned up.
        cli::complain("spawn", &error);
    }
    let code = ended?;
    tell(status.as_ref(), &serde_json::json!({ "exitCode": code }))?;
    Ok(ExitCode::from(code))
}

/// Stays with a container from its start to its end.
fn live(order: &create::Order, status: Option<&OwnedFd>, note: Option<&Note>) -> anyhow::Result<u8> {
    become_subreaper();
    let signals = foreground::block_signals()?;
    let mut made = create::create(order).inspect_err(|_| note.iter().for_each(|note| note.forget()))?;
    let started_at = format_rfc3339_nanos(SystemTime::now()).to_string();
    tell(status, &serde_json::to_value(made.container.report(Status::Running))?)?;
    poststart(&made)?;
    let code = foreground::wait((made.pid, &made.pidfd), &signals, made.console.take(), made.notify.as_ref())?;
    if let Some(note) = note {
        let oom_killed = made.container.cgroups().oom_kills() > 0;
        let finished_at = format_rfc3339_nanos(SystemTime::now()).to_string();
        note.end(&Exit { code, oom_killed, started_at, finished_at, ..Exit::default() });
    }
    finish(&made.container, Some(&made.config))?;
    Ok(code)
}

/// Where a bundle that `bundle` has made is told of the container's life, as `keep` tells it: `keep list` and `keep events`
/// read it there.
struct Note {
    bundle: PathBuf,
}

impl Note {
    /// Others' bundles are told nothing.
    fn of(bundle: &Path, id: &RuntimeId) -> Option<Self> {
        let known = Record::of_bundle(bundle).ok()?.find::<Id>().ok()??;
        (RuntimeId::from(known.0) == *id).then(|| Self { bundle: bundle.to_owned() })
    }

    /// Takes away how the run before has ended.
    fn begin(&self) {
        // There is none, mostly.
        let _none = fs::remove_file(self.bundle.join(Exit::FILE));
    }

    /// It could not be started.
    fn forget(&self) {
        let _none = fs::remove_file(self.bundle.join(PID));
    }

    fn end(&self, exit: &Exit) {
        // A full disk must not hide how the container has ended from who waits for it.
        let written = container::write_json(&self.bundle, Exit::FILE, exit);
        cli::warn(written.with_context(|| format!("write {}", self.bundle.join(Exit::FILE).display())));
    }
}

/// Returns what the end of the container undoes, as the last stage of the pipe: what lasts as long as a run, and with
/// `--rm` the bundle.
fn undo_of(record: &Record, id: &RuntimeId, rm: bool) -> anyhow::Result<Vec<Undo>> {
    let (Bundle(bundle), Id(own)) = (record.part()?, record.part()?);
    if RuntimeId::from(&own) != *id {
        return Ok(vec![]);
    }
    let owner = record.find::<OwnedBy>()?.map(|owned| owned.0);
    // The stages before were called with that root, unless it is the one that all tools have anyway.
    let data = bundle.parent().and_then(Path::parent);
    let root = data.filter(|data| *data != cli::Roots::default().directories().data());
    let made = Made { id: &own, owner, root, states: None, runtime: None, keeps_bundle: false };
    Ok(made.undo(|tool| match tool {
        Tool::Spawn => false,
        Tool::Bundle => rm,
        _ => undo::is_in(record, tool),
    }))
}

/// A bundle by itself: its directory's name is the container's.
fn of_bundle(bundle: &Path) -> anyhow::Result<Record> {
    let absolute: PathBuf = std::path::absolute(bundle)?;
    let name = absolute.file_name().unwrap_or_default().to_string_lossy();
    let allowed = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.') { c } else { '_' };
    let name: String = name.chars().skip_while(|c| !c.is_ascii_alphanumeric()).take(100).map(allowed).collect();
    let name = if name.is_empty() { "bundle" } else { &name };
    let mut record = Record::default();
    record.set(&Bundle(absolute));
    record.set(&Id(format!("{name}-{}", rustix::process::getpid().as_raw_pid()).parse()?));
    Ok(record)
}

/// The descriptor is inherited, so it can be opened by its name.
fn open_status(number: i32) -> anyhow::Result<OwnedFd> {
    let file = File::options().write(true).open(format!("/proc/self/fd/{number}"));
    Ok(file.with_context(|| format!("status descriptor {number}"))?.into())
}

fn tell(status: Option<&OwnedFd>, value: &serde_json::Value) -> anyhow::Result<()> {
    let Some(status) = status else { return Ok(()) };
    let line = format!("{value}\n");
    let written = rustix::io::retry_on_intr(|| rustix::io::write(status.as_fd(), line.as_bytes()));
    // EPIPE: whoever wanted to know may have gone.
    sys::unless(&[rustix::io::Errno::PIPE], written).context("write the status")?;
    Ok(io::stderr().flush()?)
}
