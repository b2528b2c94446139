//! Health checks, with docker's meaning: a command that is executed in the container now and then, and what its exit
//! status says. The result is `<bundle>/health.json`, with docker's names.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitStatus, kill_process};
use serde::{Deserialize, Serialize};

use crate::check::HealthCheck;
use crate::errand::Errand;
use crate::exit;
use crate::job::Job;
use crate::notify;
use crate::pipe::PipeEnd;

/// The file's name in the bundle.
pub(crate) const FILE: &str = "health.json";
/// docker keeps so many results.
const KEPT: usize = 5;
/// The file's name in the bundle in which `spawn` tells of the probe's process.
const PID: &str = ".health.pid";

/// What is known of a container's health.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Health {
    pub(crate) status: HealthStatus,
    failing_streak: u32,
    log: Vec<Probe>,
}

/// Docker's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum HealthStatus {
    #[default]
    Starting,
    Healthy,
    Unhealthy,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Probe {
    start: String,
    end: String,
    exit_code: i32,
    output: String,
}

/// Looks after the health of one run of a container.
pub(crate) struct Watch {
    check: HealthCheck,
    health: Health,
    started: Instant,
    /// When the next probe begins, or the one that runs has taken too long.
    pub(crate) due: Instant,
    running: Option<Running>,
    /// `spawn` that was killed, and may have left a probe behind.
    ///
    /// The probe's own number is in the pid file, which it has written, or not.
    abandoned: Option<Pid>,
}

struct Running {
    /// `spawn`, as long as it is about to execute the probe; then that itself.
    errand: Errand,
    executed: bool,
    begun: String,
}

impl Watch {
    /// Begins with a container that has just been started.
    pub(crate) fn begin(check: &HealthCheck, bundle: &Path) -> Self {
        let health = Health::default();
        save(bundle, &health);
        let started = Instant::now();
        let mut watch = Self { check: check.clone(), health, started, due: started, running: None, abandoned: None };
        watch.due += watch.pause();
        watch
    }

    /// Does what is due: begins a probe, or ends one that takes too long.
    pub(crate) fn act(&mut self, job: &Job) {
        if Instant::now() < self.due {
            return;
        }
        if let Some(mut running) = self.running.take() {
            // Its status comes as that of any other child; nobody asks for it any more.
            // Its number is its own: it is a child of this process, which has not reaped it.
            let _ended = kill_process(running.errand.pid, Signal::KILL);
            self.abandoned = (!running.executed).then_some(running.errand.pid);
            let limit = self.check.timeout();
            let output = format!("Health check exceeded timeout ({limit:?}): {}", running.errand.words());
            self.judge(job, Probe { start: running.begun, end: crate::clock::now(), exit_code: -1, output });
            return;
        }
        match self.probe(job) {
            Ok(running) => {
                self.running = Some(running);
                self.due = Instant::now() + self.check.timeout();
            }
            Err(error) => {
                let now = crate::clock::now();
                self.judge(job, Probe { start: now.clone(), end: now, exit_code: -1, output: format!("{error:#}") });
            }
        }
    }

    /// Returns the probe's output, which is heard as it comes.
    pub(crate) fn probe_output(&self) -> Option<&PipeEnd> {
        self.running.as_ref().and_then(|running| running.errand.output.as_ref())
    }

    /// Reads what the probe says.
    pub(crate) fn hear(&mut self) {
        self.running.iter_mut().for_each(|running| running.errand.hear());
    }

    /// Takes note of a child's end, if it was a probe, or `spawn` that has executed one.
    pub(crate) fn ended(&mut self, job: &Job, pid: Pid, status: WaitStatus) {
        let probe = exit::read_pid(&job.bundle.join(PID));
        if self.abandoned.take_if(|spawn| *spawn == pid).is_some() {
            // The container may have stopped it before its program: it ends by this all the same.
            if let Some(probe) = probe.ok().filter(|probe| is_own_child(*probe)) {
                let _ended = kill_process(probe, Signal::KILL);
            }
            return;
        }
        let Some(mut running) = self.running.take_if(|running| running.errand.pid == pid) else { return };
        let mut exit_code = i32::from(sys::child::exit_code(status));
        let mut output = running.errand.words();
        if !running.executed {
            match probe {
                Ok(probe) if exit_code == 0 => {
                    running.errand.pid = probe;
                    running.executed = true;
                    self.running = Some(running);
                    return;
                }
                Err(error) if exit_code == 0 => output = format!("{error:#}"),
                _ => {}
            }
            exit_code = -1;
        }
        self.judge(job, Probe { start: running.begun, end: crate::clock::now(), exit_code, output });
    }

    fn pause(&self) -> Duration {
        let starting = self.health.status == HealthStatus::Starting && self.in_start_period();
        let interval = self.check.interval();
        if starting { interval.min(self.check.start_interval()) } else { interval }
    }

    fn in_start_period(&self) -> bool {
        self.started.elapsed() < self.check.start_period()
    }

    fn probe(&self, job: &Job) -> Result<Running> {
        let pid_file = job.bundle.join(PID);
        // That of the one before.
        let _gone = std::fs::remove_file(&pid_file);
        let mut exec = job.spawn(["exec", "--detach", "--pid-file"]);
        exec.push([pid_file.as_os_str(), job.id.as_ref()]);
        exec.push(self.check.command());
        Ok(Running { errand: Errand::begin(&exec)?, executed: false, begun: crate::clock::now() })
    }

    /// Draws the conclusion: docker counts failures in a row, and none while the container may still be starting.
    fn judge(&mut self, job: &Job, probe: Probe) {
        if probe.exit_code == 0 {
            if self.health.status == HealthStatus::Starting {
                notify::healthy(job.options.sdnotify);
            }
            self.health.status = HealthStatus::Healthy;
            self.health.failing_streak = 0;
        } else if self.health.status != HealthStatus::Starting || !self.in_start_period() {
            self.health.failing_streak += 1;
            if self.health.failing_streak >= self.check.retries() {
                self.health.status = HealthStatus::Unhealthy;
            }
        }
        let surplus = (self.health.log.len() + 1).saturating_sub(KEPT);
        drop(self.health.log.drain(..surplus));
        self.health.log.push(probe);
        save(&job.bundle, &self.health);
        self.due = Instant::now() + self.pause();
    }
}

fn save(bundle: &Path, health: &Health) {
    // A full disk must not end the container.
    cli::warn(exit::write(bundle, FILE, health));
}

/// Tells whether a process is a child of this one, which has not been waited for.
fn is_own_child(pid: Pid) -> bool {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    rustix::process::waitid(WaitId::Pid(pid), look).is_ok()
}
