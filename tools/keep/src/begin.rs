//! `keep` as the last stage of the pipe: takes the claim on the container's name, executes the keeper, and prints the
//! record when the container runs.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use container::{ContainerId, Directories};
use record::{Bundle, Id, Input, Record, State};
use stage::Claim;

use crate::attach;
use crate::control::{self, Request};
use crate::exit;
use crate::job::{self, Job};
use crate::keeper;
use crate::report::Report;
use crate::request::{Begin, Join};

/// Starts the container of a record or bundle, and its keeper.
pub(crate) fn begin(request: Begin, roots: &cli::Roots) -> Result<ExitCode> {
    let mut record = match Input::read(request.input.as_deref())? {
        Input::Record(record) => record,
        Input::Directory(bundle) => of_bundle(&bundle)?,
    };
    let (Bundle(bundle), Id(id)) = (record.part()?, record.part()?);
    let directories = roots.directories();
    // Absolute: the keeper's working directory is another one.
    let root = roots.argument().map(|_| directories.data());
    let job = Job {
        undo: job::undo(&record, &id, request.options.rm, &directories, root)?,
        options: request.options,
        log: request.log,
        record: serde_json::from_str(&record.to_line())?,
        ..Job::plain(&id, &bundle, &directories)?
    };
    let claim = match request.claim_fd {
        Some(descriptor) => Claim::inherited(&directories, &job.id, descriptor)?,
        None => Claim::take(&directories, &job.id)?,
    };
    // Before the container is started: none that comes meanwhile is lost.
    let signals = job.options.attach.then(|| attach::block_signals(&request.join)).transpose()?;
    let begun = launch(&job, &claim, &directories);
    if request.claim_fd.is_none() && !matches!(begun, Ok((Report::Running(_), _))) {
        claim.release();
    }
    match begun? {
        (Report::Running(pid), None) => {
            let status = Some("running".to_owned());
            record.set(&State { id: job.id.into(), status, pid: Some(pid), bundle: job.bundle, ..State::default() });
            record.print()?;
            Ok(ExitCode::SUCCESS)
        }
        (Report::Running(_), Some(keeper)) => {
            let signals = signals.context("no signals")?;
            // What the record was read from is no input for the container.
            let piped = request.input.as_deref().is_none_or(|input| input == Path::new("-"));
            let how = Join { no_stdin: request.join.no_stdin || piped, ..request.join };
            attach::join(keeper, &job.id, &how, (&job.states, &signals))
        }
        (Report::Failed(code), _) => Ok(ExitCode::from(code)),
        (Report::Open, _) => bail!("the keeper of {} does not answer", job.id),
    }
}

/// A bundle by itself: its directory's name is the container's.
fn of_bundle(bundle: &Path) -> Result<Record> {
    let bundle = std::path::absolute(bundle)?;
    let id = ContainerId::of_path(&bundle).map_err(|error| cli::Usage(error.to_string()))?;
    let mut record = Record::default();
    record.set(&Bundle(bundle));
    record.set(&Id(id));
    Ok(record)
}

/// Executes the keeper and waits for its report; joins the container before its start, where that is wanted. The keeper's
/// standard input is a socket, for the job and the reports; its standard output is the claim, which so becomes its own.
pub(crate) fn launch(job: &Job, claim: &Claim, directories: &Directories) -> Result<(Report, Option<OwnedFd>)> {
    // Before the keeper: `start` and `rm` have to know the container's options although its keeper is killed at once.
    exit::write(&job.bundle, job::FILE, job)?;
    let (mut ours, theirs) = UnixStream::pair().context("socket")?;
    let mut command = claim.executed_as(keeper::NAME, directories, &job.id, job.options.preserve_fds)?;
    command.stdin(OwnedFd::from(theirs)).envs(trace::variable());
    let mut keeper = command.spawn().context("execute the keeper")?;
    // With it goes this process's copy of the keeper's end.
    drop(command);
    let mut heard = || {
        ours.write_all(&serde_json::to_vec(job)?).context("write to the keeper")?;
        // The job's end. If this process is killed before it, the keeper reads nothing, or what is no JSON, and ends.
        ours.shutdown(std::net::Shutdown::Write).context("write to the keeper")?;
        let _span = trace::span("wait for the keeper", "");
        let mut reports = BufReader::new(&ours);
        let report = next(&mut reports)?;
        if !matches!(report, Report::Open) {
            return Ok((report, None));
        }
        // The keeper waits for this before it starts the container, or its first words would be missed.
        let joined = control::ask(&job.bundle, &job.id, &Request::Attach)?;
        Ok((next(&mut reports)?, joined))
    };
    heard().inspect_err(|_| {
        // What it has begun the caller undoes, not both.
        let _ended = keeper.kill().and_then(|()| keeper.wait());
    })
}

/// Reads what the keeper says next.
fn next(reports: &mut impl BufRead) -> Result<Report> {
    let mut report = String::new();
    reports.read_line(&mut report).context("the keeper's report")?;
    // A keeper without a report has said why, or was killed; with it went its spawn.
    if report.ends_with('\n') { Ok(serde_json::from_str(&report)?) } else { Ok(Report::Failed(125)) }
}
