//! `spawn` as the last stage of the pipe: the record comes in, the container's output goes out.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use record::{Bundle, Id, Input, Record};

use super::lifecycle::{become_subreaper, finish, order, poststart};
use crate::options::{Filter, Global};
use crate::state::Status;
use crate::{create, foreground};

/// Runs the container of a record or bundle.
pub(crate) fn run(global: &Global, options: Filter) -> anyhow::Result<ExitCode> {
    let (mut record, from_stdin) = match Input::read(options.input.as_deref())? {
        Input::Directory(bundle) => (of_bundle(&bundle)?, false),
        Input::Record(record) => (record, options.input.as_deref().is_none_or(|input| input == Path::new("-"))),
    };
    let bundle: Bundle = record.part()?;
    let id = match options.id {
        Some(id) => id,
        None => record.part::<Id>()?.0.into(),
    };
    let status = options.status_fd.map(open_status).transpose()?;
    let mut order = order(global, id, bundle.0, &options.common)?;
    order.child.foreground = !options.detach;
    order.child.null_stdin = from_stdin;
    if options.detach {
        let made = create::create(&order)?;
        poststart(&made)?;
        let state = made.container.report(Status::Running);
        tell(status.as_ref(), &serde_json::to_value(&state)?)?;
        if !options.quiet {
            record.set(&state);
            record.print()?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    become_subreaper();
    let signals = foreground::block_signals()?;
    let mut made = create::create(&order)?;
    tell(status.as_ref(), &serde_json::to_value(made.container.report(Status::Running))?)?;
    poststart(&made)?;
    let code = foreground::wait((made.pid, &made.pidfd), &signals, made.console.take(), made.notify.as_ref())?;
    finish(&made.container, Some(&made.config))?;
    tell(status.as_ref(), &serde_json::json!({ "exitCode": code }))?;
    Ok(ExitCode::from(code))
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
    match rustix::io::retry_on_intr(|| rustix::io::write(status.as_fd(), line.as_bytes())) {
        // Whoever wanted to know may have gone.
        Err(rustix::io::Errno::PIPE) | Ok(_) => Ok(io::stderr().flush()?),
        Err(error) => Err(error).context("write the status"),
    }
}
