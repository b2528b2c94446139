//! `exec` and `ps`: the processes of a container.

use std::fs;
use std::os::fd::AsFd;
use std::process::{Command, ExitCode};

use anyhow::{Context, ensure};
use container::RuntimeId;
use rustix::fs::OFlags;
use rustix::process::Pid;

use super::{print, state_root};
use crate::config::{self, Capabilities, Process};
use crate::exec;
use crate::request::{Exec, Format, Global};
use crate::state::Container;
use crate::{accounts, capability, file, foreground};

pub(crate) fn exec(global: &Global, mut options: Exec) -> anyhow::Result<ExitCode> {
    let id = options.operands.remove(0);
    ensure!(!id.starts_with('-'), cli::Usage(format!("unexpected argument '{id}' found (see --help)")));
    let id: RuntimeId = id.parse().map_err(|cause| cli::Usage(format!("invalid value '{id}' for <ID>: {cause}")))?;
    let container = Container::open(&state_root(global), &id)?;
    let detached = options.detach || options.console_socket.is_some();
    if options.tty && !detached && !rustix::termios::isatty(rustix::stdio::stdin()) {
        return Err(cli::Usage("--tty: the input device is not a terminal".to_owned()).into());
    }
    let config = container.config()?;
    let own = config.process.clone().unwrap_or_default();
    let process = match &options.process {
        Some(file) => {
            let text = fs::read(file).with_context(|| format!("read {}", file.display()))?;
            inherit(config::lenient(&text).with_context(|| file.display().to_string())?, own)
        }
        None => from_options(own, &mut options, &container)?,
    };
    super::lifecycle::check_preserved(options.preserve_fds)?;
    if options.detach {
        let running = exec::exec(&container, &process, &options)?;
        super::lifecycle::send_pidfd(options.pidfd_socket.as_deref(), &running.pidfd)?;
        return Ok(ExitCode::SUCCESS);
    }
    super::lifecycle::become_subreaper();
    let signals = foreground::block_signals()?;
    let mut running = exec::exec(&container, &process, &options)?;
    super::lifecycle::send_pidfd(options.pidfd_socket.as_deref(), &running.pidfd)?;
    Ok(ExitCode::from(foreground::wait((running.pid, &running.pidfd), &signals, running.console.take(), None)?))
}

/// What a description leaves open is as the container's own process has it.
fn inherit(process: Process, own: Process) -> Process {
    let or = |given: String, own: String| if given.is_empty() { own } else { given };
    Process {
        capabilities: process.capabilities.or(own.capabilities),
        rlimits: if process.rlimits.is_empty() { own.rlimits } else { process.rlimits },
        apparmor_profile: or(process.apparmor_profile, own.apparmor_profile),
        selinux_label: or(process.selinux_label, own.selinux_label),
        ..process
    }
}

/// The container's own process, changed by the command line.
fn from_options(mut process: Process, options: &mut Exec, container: &Container) -> anyhow::Result<Process> {
    ensure!(!options.operands.is_empty(), "process args cannot be empty");
    process.args = std::mem::take(&mut options.operands);
    process.terminal = options.tty;
    process.console_size = None;
    for file in &options.env_file {
        let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        let is_variable = |line: &&str| !line.trim_start().is_empty() && !line.starts_with('#');
        process.env.extend(variables(text.lines().filter(is_variable)));
    }
    process.env.extend(variables(options.env.iter().map(String::as_str)));
    process.no_new_privileges |= options.no_new_privs;
    process.cwd = options.cwd.take().unwrap_or(process.cwd);
    process.apparmor_profile = options.apparmor.take().unwrap_or(process.apparmor_profile);
    process.selinux_label = options.process_label.take().unwrap_or(process.selinux_label);
    if let Some(user) = &options.user {
        let (init, _) = container.open_process()?.context("cannot exec in a container that has stopped")?;
        let root = file::open(format!("/proc/{}/root", init.as_raw_pid()), OFlags::PATH | OFlags::DIRECTORY)?;
        // Asked again after the directory is open: the number could have passed to another process, whose /etc/passwd
        // would be read.
        ensure!(container.process().is_some(), "cannot exec in a container that has stopped");
        accounts::look_up(root.as_fd(), user, &mut process.user)?;
    }
    process.user.additional_gids.append(&mut options.additional_gids);
    if options.privileged {
        let all = capability::names().collect::<Vec<_>>();
        // Inheritable and ambient stay empty: a program of the image that gives up root must not keep what it had
        // (CVE-2022-29162 was the inheritable set).
        let [bounding, effective, permitted] = [all.clone(), all.clone(), all];
        process.capabilities = Some(Capabilities { bounding, effective, permitted, ..Capabilities::default() });
    }
    if !options.cap.is_empty() {
        let capabilities = process.capabilities.get_or_insert_with(Capabilities::default);
        for capability in &options.cap {
            for set in [&mut capabilities.bounding, &mut capabilities.effective, &mut capabilities.permitted] {
                set.push(capability.clone());
            }
            // The kernel raises an ambient capability only where it is permitted and inheritable (capabilities(7),
            // "Ambient"): what is not inheritable stays out of that set, too.
            if !capabilities.inheritable.is_empty() {
                capabilities.ambient.push(capability.clone());
            }
        }
    }
    Ok(process)
}

/// Returns variables as `--env` names them: those without a value have the caller's, if the caller has any.
fn variables<'a>(words: impl Iterator<Item = &'a str>) -> impl Iterator<Item = String> {
    words.filter_map(|word| match word.split_once('=') {
        Some(_) => Some(word.to_owned()),
        None => std::env::var(word).ok().map(|value| format!("{word}={value}")),
    })
}

/// Lists the processes of a container that has no cgroup, as an ordinary user's may not have.
fn same_pid_namespace(init: Pid) -> Vec<i32> {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let wanted = namespace(&init.as_raw_pid().to_string());
    if wanted == namespace("self") {
        // It shares the host's namespace: the rest there are not the container's.
        return vec![init.as_raw_pid()];
    }
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let inside = |pid: &str| wanted.is_some() && namespace(pid) == wanted;
    let own = processes.filter_map(|entry| entry.file_name().to_str().filter(|pid| inside(pid))?.parse().ok());
    let mut pids: Vec<i32> = own.collect();
    pids.sort_unstable();
    pids
}

pub(crate) fn ps(global: &Global, id: &RuntimeId, format: Format, options: &[String]) -> anyhow::Result<()> {
    let container = Container::open(&state_root(global), id)?;
    let mut pids: Vec<i32> = container.cgroups().processes()?.into_iter().map(Pid::as_raw_pid).collect();
    if let (true, Some(init)) = (pids.is_empty(), container.process()) {
        pids = same_pid_namespace(init);
    }
    if format == Format::Json {
        return print(&(serde_json::to_string(&pids)? + "\n"));
    }
    let options = if options.is_empty() { vec!["-ef".to_owned()] } else { options.to_vec() };
    let output = Command::new("ps").args(options).output().context("exec ps")?;
    ensure!(output.status.success(), "ps: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let title = lines.next().unwrap_or_default();
    // The caller chooses ps's options, and with them where the column is. Words are counted: a column that has blanks
    // in it, such as lstart, must stand behind PID.
    let column = title.split_ascii_whitespace().position(|word| word == "PID").context("ps prints no PID column")?;
    let pid = |line: &str| -> Option<i32> { line.split_ascii_whitespace().nth(column)?.parse().ok() };
    let own = |line: &&str| pid(line).is_some_and(|pid| pids.contains(&pid));
    let chosen: Vec<String> = std::iter::once(title).chain(lines.filter(own)).map(|line| format!("{line}\n")).collect();
    print(&chosen.concat())
}
