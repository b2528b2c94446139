//! A container's life from outside: the stages, the start, the end, and what is undone then.
//!
//! The claim comes first and goes last. Between the two there is at no moment a thing that nobody would undo: the
//! holder is on disk before the first stage starts, and says what would be undone even of stages that were never
//! reached.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use ::container::{ContainerId, Owner};
use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use rustix::thread::CapabilitySet;
use stage::claim::{self, Claim, Holder};
use stage::undo::Waiting;
use stage::{Process, ProcessEnd, Stage, Tool, Undo, undo};
use sys::signal::SignalFd;

use crate::detached::HandedOver;
use crate::folder::Folder;
use crate::guard::Guard;
use crate::kept::KeptRecord;
use crate::pipeline::Ending;
use crate::plan::{self, RunPlan};
use crate::request::{RunRequest, StandardStream};
use crate::{activation, detached, dry, foreground, pipeline, script};

/// Does what the options ask for, from the image to the last thing undone, and returns the exit code.
pub(crate) fn run(options: &RunRequest) -> Result<ExitCode> {
    if options.gc {
        return sweep(options);
    }
    if options.unshare {
        return Err(execute_in_place(options));
    }
    let id = options.name.clone().map_or_else(ContainerId::random, Ok).context("a random id")?;
    let directories = options.roots().directories();
    // What is only described is the same for the same words.
    // Chosen before the first stage, and given to all of them: what is undone later is found by it alone.
    let owner = if options.print || options.dry_run {
        Owner::of_name(&directories, &id)
    } else {
        Owner::new(&directories).context("a new owner")?
    };
    let plan = plan::plan(options, &id, owner)?;
    if options.print {
        let kept = KeptRecord::find(&plan, options).filter(|kept| kept.is_good);
        let begins = kept.map_or_else(String::new, |kept| {
            format!("# run begins with bundle: {} has what pull and unpack would print\n", kept.path.display())
        });
        io::stdout().write_all((begins + &script::script(&plan, options)).as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    if options.dry_run {
        return dry::run(&plan, options.detach || options.is_attached());
    }
    check(options)?;
    let folder = options.folder.as_deref().map(|path| Folder::create(path, &script::script(&plan, options)));
    let folder = folder.transpose()?;
    if let Some(file) = options.trace() {
        trace::create("run", &file).with_context(|| format!("trace {}", file.display()))?;
    }
    // Before anything is made. From here on a signal is read where it is convenient, and never ends this process by
    // itself.
    let signals = SignalFd::block(&[Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM, Signal::USR1, Signal::USR2])
        .context("block signals")?;
    if !options.sockets.is_empty() {
        // Nothing has been made for a container that nobody wants yet.
        if let Some(signal) = activation::wait(&options.sockets, &signals)? {
            return Ok(ExitCode::from(u8::try_from(128 + signal).unwrap_or(125)));
        }
    }
    let exists = || plan.bundle.try_exists().with_context(|| format!("look for {}", plan.bundle.display()));
    if let Some(replace) = &plan.replace {
        if exists()? {
            // `--replace`: the container that has the name.
            replace.execute()?;
        }
    }
    let claim = Claim::take(&plan.directories, &id)?;
    let prepare = || -> Result<_> {
        // Under the claim: before it, another `run` of this name could be about to make it.
        ensure!(!exists()?, "container {id} already exists: `bundle delete {id}` frees its name");
        claim.write(&Holder::own(&plan.bundle, &plan.undo))?;
        Ok((CidFile::create(options.cidfile.as_deref(), &id)?, Guard::start(&claim, &plan)?))
    };
    let (cid_file, guard) = match prepare() {
        Ok(prepared) => prepared,
        Err(error) => {
            // Nothing has been done yet.
            claim.release();
            return Err(error);
        }
    };
    let Ended { code, started, rest } = execute(&plan, options, folder.as_ref(), (&claim, &signals));
    cid_file.keep_if(started);
    match rest {
        // The claim's file stays, and names the keeper.
        Rest::Kept => guard.dismiss(),
        Rest::Undone => {
            guard.dismiss();
            claim.release();
        }
        // The name stays taken until that is done, by the guard or by the next run.
        // It tries for seconds more, while this process ends with the exit code that the user waits for.
        Rest::Left => guard.take_over(),
    }
    code.map(ExitCode::from)
}

/// Refuses what cannot be done here.
fn check(options: &RunRequest) -> Result<()> {
    if !rustix::thread::capabilities(None)?.effective.contains(CapabilitySet::SYS_ADMIN) {
        let without = "pull, unpack --flat and bundle --print work without it";
        bail!("CAP_SYS_ADMIN is missing (docker run --privileged gives it to a container); {without}");
    }
    if options.interactive && options.bundle.has("tty") && !options.detach && !io::stdin().is_terminal() {
        return Err(cli::Usage("--interactive --tty: the input device is not a terminal".to_owned()).into());
    }
    Ok(())
}

/// How a run came to its end.
struct Ended {
    code: Result<u8>,
    /// Whether there was a container.
    started: bool,
    rest: Rest,
}

/// What there is to undo at the end of a run.
enum Rest {
    /// A keeper has the claim, and undoes it.
    Kept,
    /// It has been undone.
    Undone,
    /// Something could not be undone, which has been said.
    Left,
}

impl Rest {
    /// The run's own end counts more than what could not be undone.
    fn of(undone: Result<()>) -> Self {
        match undone {
            Ok(()) => Self::Undone,
            Err(error) => {
                cli::complain("run", &error);
                Self::Left
            }
        }
    }
}

fn execute(
    plan: &RunPlan,
    options: &RunRequest,
    folder: Option<&Folder<'_>>,
    (claim, signals): (&Claim, &SignalFd),
) -> Ended {
    let kept = KeptRecord::find(plan, options);
    let input = kept.as_ref().and_then(KeptRecord::open);
    // Without the two stages that it stands for.
    let (is_warm, stages) = (input.is_some(), &plan.stages[if input.is_some() { 2 } else { 0 }..]);
    // Another runtime takes no record, and where standard input is the container's it cannot come there.
    let is_kept = options.detach || options.is_attached();
    let waits = !is_kept && options.runtime.is_none() && !options.shows(StandardStream::Stdin);
    let (mut waiting, mut undoing) = (None, Waiting::default());
    let begun = || {
        waiting = waits.then(|| foreground::start_waiting(&plan.spawn, options)).transpose()?;
        undoing = Waiting::start(if is_kept { &[] } else { plan.undo.as_slice() }, plan.record.clone());
        Ok(())
    };
    let execution = match pipeline::execute(stages, input, folder, signals, begun) {
        Ok(execution) => execution,
        Err(error) => {
            // A tool is missing, say. What the stages before it did is not known, but it is ours: the name was free.
            return Ended { code: Err(error), started: false, rest: Rest::of(undo::carry_out(&plan.undo)) };
        }
    };
    if container::flush_note().exists() {
        put_ports_back(options).unwrap_or_else(|error| log::warn!("{error:#}"));
    }
    if let (Some(kept), false, Ending::Done, true) = (kept, is_warm, &execution.ending, execution.is_silent) {
        // Without it the next run executes them again.
        let _unkept = kept.keep(&execution.record).inspect_err(|error| log::debug!("keep the record: {error:#}"));
    }
    let code = match execution.ending {
        Ending::Done if is_kept => {
            let handed_over = detached::hand_over(plan, options, &execution.record, (claim, signals));
            return end_of(plan, options, handed_over);
        }
        Ending::Done => return start(plan, options, signals, (waiting, undoing)),
        Ending::Failed => 125,
        Ending::Interrupted(signal) => u8::try_from(128 + signal).unwrap_or(125),
    };
    drop(waiting);
    // Where spawn was not reached.
    let undo: Vec<Undo> = plan.undo.iter().filter(|undo| execution.completed.contains(&undo.of)).cloned().collect();
    Ended { code: Ok(code), started: false, rest: Rest::of(undo::carry_out(&undo)) }
}

/// Puts back the networks and ports that containers have lost where somebody has flushed the firewall.
fn put_ports_back(options: &RunRequest) -> Result<()> {
    let mut restore = Stage::new(Tool::Portmap, ["restore"]);
    restore.option("--root", options.roots().argument());
    let status = restore.command()?.stdin(Stdio::null()).status().with_context(|| restore.to_string())?;
    if status.success() { Ok(()) } else { bail!("{restore}: {status}") }
}

fn end_of(plan: &RunPlan, options: &RunRequest, handed_over: Result<HandedOver>) -> Ended {
    match handed_over {
        Ok(HandedOver::Kept(code)) if options.is_attached() => {
            Ended { code: Ok(code), started: true, rest: Rest::Kept }
        }
        Ok(HandedOver::Kept(_)) => {
            // The container goes on, whoever reads of it.
            let told = writeln!(io::stdout(), "{}", plan.id).context("print the id");
            Ended { code: told.map(|()| 0), started: true, rest: Rest::Kept }
        }
        Ok(HandedOver::Killed(code)) => Ended { code: Ok(code), started: false, rest: Rest::Kept },
        Ok(HandedOver::Failed(code)) => {
            Ended { code: Ok(code), started: false, rest: Rest::of(undo::carry_out(&plan.undo)) }
        }
        Err(error) => Ended { code: Err(error), started: false, rest: Rest::of(undo::carry_out(&plan.undo)) },
    }
}

fn start<'a>(
    plan: &'a RunPlan,
    options: &RunRequest,
    signals: &SignalFd,
    (waiting, mut undoing): (Option<Process>, Waiting<'a>),
) -> Ended {
    let ended = foreground::run(plan, options, signals, waiting, &mut undoing);
    // What spawn has made it has undone, unless it was killed.
    let undo = match ended {
        // A `spawn delete` of a container that is gone takes as long as any execution of a program; it is saved in
        // each ordinary run.
        Ok(ProcessEnd::Exited(_)) => plan.undo.iter().filter(|undo| undo.of != Tool::Spawn).cloned().collect(),
        _ => plan.undo.clone(),
    };
    let rest = Rest::of(undoing.carry_out(&undo));
    Ended { started: ended.is_ok(), code: ended.map(ProcessEnd::code), rest }
}

/// `--unshare`: becomes the command. Returns only why it cannot.
fn execute_in_place(options: &RunRequest) -> anyhow::Error {
    let (program, arguments) = options.words();
    let error = Command::new(program).args(arguments).exec();
    let code = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
    cli::ExitError::new(code, anyhow::Error::new(error).context(program.to_string_lossy().into_owned())).into()
}

/// `--gc`: undoes what killed processes have left, and puts back what others have taken.
fn sweep(options: &RunRequest) -> Result<ExitCode> {
    let directories = options.roots().directories();
    let swept = [claim::sweep(&directories)?, claim::sweep_ended(&directories)?];
    for id in swept.iter().flat_map(|swept| &swept.ids) {
        writeln!(io::stdout(), "{id}")?;
    }
    undo::sweep_removed(&directories)?;
    // They are made again, and nobody else counts them.
    let records = directories.records();
    sys::file::there(std::fs::remove_dir_all(&records)).with_context(|| format!("remove {}", records.display()))?;
    put_ports_back(options)?;
    Ok(if swept.iter().any(|swept| swept.failed) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// `--cidfile`: made before the container, and gone again if none was started.
struct CidFile<'a>(Option<&'a Path>);

impl<'a> CidFile<'a> {
    fn create(path: Option<&'a Path>, id: &str) -> Result<Self> {
        if let Some(path) = path {
            let file: io::Result<File> = OpenOptions::new().write(true).create_new(true).open(path);
            file.and_then(|mut file| file.write_all(id.as_bytes())).with_context(|| path.display().to_string())?;
        }
        Ok(Self(path))
    }

    fn keep_if(mut self, started: bool) {
        self.0.take_if(|_| started);
    }
}

impl Drop for CidFile<'_> {
    fn drop(&mut self) {
        // As with docker: a file that names no container is worse than none.
        let _gone = self.0.map(PathBuf::from).map(std::fs::remove_file);
    }
}
