//! `start`: a container as it was, by what its bundle says: the command lines of the stages that made its network and its
//! ports, and the keeper's job.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use container::{Condition, ContainerId, Directories, Unwritten};
use record::{NetworkOptions, PortOptions, Record, Rootfs};
use rustix::process::Signal;
use stage::claim::{self, Holder};
use stage::{Claim, Stage, Tool, undo};

use crate::job::{self, Job};
use crate::notify::Ready;
use crate::report::Report;
use crate::request::{Join, KeeperOptions, Start};
use crate::restart::Policy;
use crate::{attach, begin, exit, list};

/// Starts containers. One that runs is no failure, as with docker.
pub(crate) fn start(options: &Start, roots: &cli::Roots) -> Result<ExitCode> {
    rootless::enter(roots)?;
    let directories = roots.directories();
    if options.attach {
        let [id] = options.ids.as_slice() else {
            return Err(cli::Usage("--attach is for one container".to_owned()).into());
        };
        let (id, _) = list::named(&directories, id)?;
        ensure!(!is_there(&directories, &id)?, "container {id} runs: `keep attach {id}` joins it");
        return again(roots, &id, Some(&options.join), options.sdnotify);
    }
    let mut ids = options.ids.clone();
    if options.boot {
        ids = list::ids(&directories, |condition| condition != Condition::Incomplete)?;
        ids.retain(|id| comes_back(&directories, id));
    }
    let mut failed = false;
    let done = list::each(&directories, &ids, |id, _| {
        if start_one(roots, id, options.sdnotify)? {
            return list::say(id);
        }
        failed = true;
        Ok(())
    })?;
    Ok(if failed { ExitCode::FAILURE } else { done })
}

/// Starts a container, unless it runs; false if it cannot be started, which it has said itself.
pub(crate) fn start_one(roots: &cli::Roots, id: &ContainerId, ready: Option<Ready>) -> Result<bool> {
    let directories = roots.directories();
    list::bundle(&directories, id)?;
    Ok(is_there(&directories, id)? || again(roots, id, None, ready)? == ExitCode::SUCCESS)
}

/// Tells whether a container runs, or somebody lives who will start it.
fn is_there(directories: &Directories, id: &ContainerId) -> Result<bool> {
    let held = || Ok(claim::holder_of(directories, id)?.is_some_and(|holder| !holder.ending));
    if list::process(directories, id)?.is_some() { Ok(true) } else { held() }
}

/// Tells whether a boot starts a container, as docker's daemon does when it begins.
fn comes_back(directories: &Directories, id: &ContainerId) -> bool {
    Job::of(&directories.bundle(id)).is_ok_and(|job| match job.options.restart {
        Policy::Always => true,
        Policy::UnlessStopped => !job.stopped,
        Policy::No | Policy::OnFailure(_) => false,
    })
}

/// Starts a container that has ended, with what its bundle says.
fn again(roots: &cli::Roots, id: &ContainerId, join: Option<&Join>, ready: Option<Ready>) -> Result<ExitCode> {
    let directories = &roots.directories();
    let bundle = list::bundle(directories, id)?;
    let known = Record::of_bundle(&bundle)?;
    let job = exit::read(&bundle, job::FILE)?.map_or_else(|| Job::plain(id, &bundle, directories), Ok)?;
    let lost = job.options.preserve_fds;
    ensure!(lost == 0, "container {id} has lost {lost} descriptors that its caller had passed");
    let signals = join.map(attach::block_signals).transpose()?;
    let claim = Claim::take(directories, id)?;
    // Absolute: the keeper's working directory is another one.
    let root = roots.argument().map(|_| directories.data());
    let undo = job::undo(&known, id, job.options.rm, directories, root)?;
    let begun = claim.write(&Holder::own(&bundle, &undo)).and_then(|()| {
        // One that was not kept, and has ended by itself, has its network still.
        undo::carry_out(&job::undo(&known, id, false, directories, root)?)?;
        let record = execute(&known, &stages(id, &known, root)?)?;
        let record = serde_json::from_str(&record.to_line())?;
        let sdnotify = ready.unwrap_or(job.options.sdnotify);
        let options = KeeperOptions { attach: join.is_some(), sdnotify, ..job.options };
        let job = Job { undo: undo.clone(), states: directories.states(), record, options, stopped: false, ..job };
        begin::launch(&job, &claim, directories)
    });
    let keeper = match begun {
        Ok((Report::Running(_), keeper)) => keeper,
        Ok((report, _)) => {
            claim.release();
            let Report::Failed(code) = report else { bail!("the keeper of {id} does not answer") };
            return Ok(ExitCode::from(code));
        }
        Err(error) => {
            // If it fails, the name stays taken: the next start, or `run --gc`, undoes it.
            cli::warn(undo::carry_out(&undo).map(|()| claim.release()));
            return Err(error);
        }
    };
    match (keeper, join, signals) {
        (Some(keeper), Some(join), Some(signals)) => attach::join(keeper, id, join, (&directories.states(), &signals)),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Returns the stages that come before the keeper.
fn stages(id: &ContainerId, known: &Record, root: Option<&Path>) -> Result<Vec<Stage>> {
    let stage = |tool, verb: &str, words: &[String]| {
        let mut stage = Stage::new(tool, [verb]);
        stage.option("--root", root);
        stage.push(words);
        stage
    };
    let mut stages = vec![stage(Tool::Bundle, "mount", &[id.to_string()])];
    // After a power cut a layer may have to be extracted again, as the record says.
    if known.find::<Rootfs>()?.and_then(|rootfs| rootfs.layers).is_some_and(|it| Unwritten::check(&it).is_err()) {
        let mut unpack = Stage::new(Tool::Unpack, [""; 0]);
        unpack.option("--root", root);
        stages.insert(0, unpack);
    }
    stages.extend(known.find::<NetworkOptions>()?.map(|options| stage(Tool::Ns, "add", &options.0)));
    stages.extend(known.find::<PortOptions>()?.map(|options| stage(Tool::Portmap, "add", &options.0)));
    Ok(stages)
}

/// Executes stages, each with the record of the one before, and returns the last one's.
fn execute(first: &Record, stages: &[Stage]) -> Result<Record> {
    let memory = || sys::file::in_memory("record", b"");
    let mut record = sys::file::in_memory("record", first.to_line().as_bytes())?;
    for stage in stages {
        let (output, words) = (memory()?, memory()?);
        log::debug!("{stage}");
        let mut command = stage.command()?;
        command.stdin(record).stdout(output.try_clone()?).stderr(words.try_clone()?);
        sys::child::die_with_parent(&mut command, Signal::TERM);
        let status = command.status().with_context(|| stage.to_string())?;
        let words = text(words)?;
        ensure!(status.success(), "{}", words.trim_end());
        // Warnings.
        io::stderr().write_all(words.as_bytes())?;
        record = output;
        record.rewind()?;
    }
    Ok(Record::parse(text(record)?.as_bytes(), "the stages' record")?)
}

fn text(mut file: File) -> Result<String> {
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    Ok(text)
}
