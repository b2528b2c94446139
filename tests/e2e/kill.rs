//! `kill -9` of every program of a run, at several moments: afterwards the machine is as it was before, and the next run
//! of the same name has the same port.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Listing, Need, Running, Sandbox, Test, image, since, test, wait_for};

const NEEDS: &[Need] = &[Need::Registry, Need::NetNs, Need::Overlay, Need::Nft];
/// How long after its start a program is killed.
const MOMENTS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(3), Duration::from_millis(20)];
const STAGES: [&str; 7] = ["run", "run-guard", "pull", "unpack", "bundle", "ns", "portmap"];

pub(crate) fn tests() -> Vec<Test> {
    let foreground = STAGES.into_iter().chain(["spawn"]).map(|victim| matrix(victim, ""));
    let background = STAGES.into_iter().chain(["keep", "keep-keeper", "spawn"]).map(|victim| matrix(victim, "-d"));
    let mut tests: Vec<Test> = foreground.chain(background).collect();
    tests.push(test("a_hundred_runs_killed_at_random_leave_nothing", NEEDS, random));
    if let Some(seconds) = std::env::var("SOAK").ok().and_then(|seconds| seconds.parse().ok()) {
        tests.push(test("soak", NEEDS, move |sandbox| soak(sandbox, Duration::from_secs(seconds))));
    }
    tests
}

fn matrix(victim: &'static str, options: &'static str) -> Test {
    let way = if options.is_empty() { "in_the_foreground" } else { "in_the_background" };
    let name = format!("{}_of_a_run_{way}", victim.replace('-', "_"));
    test(&name, NEEDS, move |sandbox| {
        let command = nginx(options);
        once(sandbox);
        let before = Listing::take(sandbox);
        let mut killed = 0;
        // A stage may have ended before it is seen, on a busy machine mostly: then it is tried again.
        let moments = MOMENTS.iter().flat_map(|moment| [moment; 2]);
        for (turn, moment) in moments.chain([&Duration::ZERO; 40]).enumerate() {
            if turn >= 2 * MOMENTS.len() && killed > 0 {
                break;
            }
            let run = sandbox.sh(&command).start();
            let pid = run.pid();
            killed += u32::from(kill(sandbox, pid, victim, *moment));
            if end(sandbox, run, pid) && options.is_empty() {
                // What a killed keeper has left is swept; in the foreground there is a guard.
                assert_eq!(since(&before, sandbox), Vec::<String>::new(), "{victim} after {moment:?}");
            }
            clean(sandbox, &before, &format!("{victim} after {moment:?}"));
        }
        assert!(killed > 0, "no {victim} was met");
        once(sandbox);
    })
}

fn nginx(options: &str) -> String {
    format!("exec run --rm {options} --name web -p 8080:80 {}", image("nginx").reference)
}

/// A whole run, which shows that name and port can be had, and that the machine can do it.
fn once(sandbox: &Sandbox) {
    let run = sandbox.sh(&nginx("")).start();
    assert!(sandbox.wait_http("127.0.0.1:8080/").contains("nginx"));
    run.signal(Signal::TERM);
    run.wait().ok();
}

/// Kills the first process that has this name, so long after it was first seen.
fn kill(sandbox: &Sandbox, run: Pid, victim: &str, moment: Duration) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(1) {
        if let Some(pid) = sandbox.process(run, victim) {
            wait(moment);
            return kill_process(pid, Signal::KILL).is_ok();
        }
    }
    false
}

fn wait(time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// Waits until a run has failed, or serves; one that serves is ended. True if it was in nobody else's hands.
fn end(sandbox: &Sandbox, mut run: Running, pid: Pid) -> bool {
    wait_for("the run's failure or success", || {
        let over = !run.is_running();
        (over || sandbox.http_get("127.0.0.1:8080/").is_some()).then_some(())
    });
    if run.is_running() {
        // It may end in this moment.
        let _ended = kill_process(pid, Signal::TERM);
    }
    let outcome = run.wait();
    // Shown if the test fails.
    println!("{}", outcome.stderr);
    outcome.stdout != "web\n"
}

/// Sweeps, and compares the machine with what it was.
fn clean(sandbox: &Sandbox, before: &Listing, when: &str) {
    // There may be no such container any more.
    let sweep = "keep rm --force web 2>&1; run --gc; ls -d state/containers/* state/run/claims/* state/run/spawn/*";
    wait_for(&format!("an empty machine: {when}"), || {
        let listed = sandbox.sh(sweep).run().stdout;
        let empty = listed.lines().all(|line| line == "keep: no container web");
        if !empty {
            println!("{when}: {listed}");
        }
        empty.then_some(())
    });
    assert_eq!(since(before, sandbox), Vec::<String>::new(), "{when}");
}

/// Numbers that look random; the same for the same seed.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let seed = now.as_secs() ^ u64::from(now.subsec_nanos());
        println!("seed {seed}");
        Self(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        // Knuth's MMIX.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Half of the time the next run begins at once, half of the time when nothing is left.
fn random(sandbox: &Sandbox) {
    once(sandbox);
    let before = Listing::take(sandbox);
    let mut random = Random::new();
    for round in 0..100 {
        let background = round % 4 == 3;
        let mut run = sandbox.sh(&nginx(if background { "-d" } else { "" })).start();
        let pid = run.pid();
        wait(Duration::from_micros(random.below(250_000)));
        if run.is_running() {
            // In the background it may be done in this moment.
            let killed = kill_process(pid, Signal::KILL);
            assert!(killed.is_ok() || background, "round {round}: {}", run.stderr());
        }
        // A stage that was just being started may still say that it could not be.
        let outcome = run.wait();
        if background {
            // It may have been started before `run` could say so.
            drop(sandbox.run(&["keep", "rm", "--force", "web"]));
        } else {
            outcome.fails(128 + 9);
        }
        if random.below(10) == 0 {
            assert_eq!(since(&before, sandbox), Vec::<String>::new(), "round {round}");
        }
    }
    once(sandbox);
    clean(sandbox, &before, "after all");
}

/// Containers come and go, are killed, and change their ports; from time to time the machine is looked at.
fn soak(sandbox: &Sandbox, time: Duration) {
    once(sandbox);
    let before = Listing::take(sandbox);
    let mut random = Random::new();
    let begun = Instant::now();
    let mut rounds = 0;
    while begun.elapsed() < time {
        for _ in 0..10 {
            let (name, port) = (random.below(4), 8080 + random.below(4));
            let rest = format!("--rm --name web{name} -p {port}:80 {}", image("nginx").reference);
            match random.below(6) {
                0 => drop(sandbox.sh(&format!("keep rm --force web{name}")).run()),
                1 => drop(sandbox.sh(&format!("keep stop --time 0 web{name}")).run()),
                // A name or a port may be another one's: that is one line and nothing else.
                2 | 3 => drop(sandbox.sh(&format!("run -d {rest}")).run()),
                _ => {
                    let mut run = sandbox.sh(&format!("exec run {} {rest}", ["", "-d"][rounds % 2])).start();
                    let victims = ["run", "run-guard", "bundle", "ns", "portmap", "spawn", "keep", "keep-keeper"];
                    let victim = victims[usize::try_from(random.below(8)).unwrap()];
                    let moment = Duration::from_micros(random.below(50_000));
                    if let Some(pid) = run.pid_if_running() {
                        kill(sandbox, pid, victim, moment);
                        if run.is_running() {
                            let _ended = kill_process(pid, Signal::KILL);
                        }
                    }
                    let _killed = run.wait();
                }
            }
            rounds += 1;
        }
        for name in 0..4 {
            drop(sandbox.sh(&format!("keep rm --force web{name}; run --gc")).run());
        }
        clean(sandbox, &before, &format!("round {rounds}"));
    }
    once(sandbox);
    println!("{rounds} rounds");
}
