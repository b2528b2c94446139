//! One error in each call of a run: no hang, no panic, no wrong result with exit code 0, nothing half-made under its final
//! name, nothing that blocks the next run, nothing left after that and its undoing.
//!
//! strace counts calls for each process. So an error comes to all programs of a run at once, where it meets what they have
//! together, and to each of them alone, where the others go on and have to bear it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::scenarios::{END, MADE, SCENARIOS, Scenario, WORDS};
use super::{error_of, points, sample, whole};
use crate::support::{Listing, Need, Outcome, Sandbox, Test, image, since, test};

const NEEDS: &[Need] = &[Need::Registry, Need::Overlay, Need::Nft, Need::Program("strace"), Need::Program("jq")];
const TOOLS: [&str; 10] = ["pull", "push", "unpack", "bundle", "ns", "portmap", "spawn", "keep", "run", "compose"];
/// So many calls fail in each scenario: of a sample, of the whole walk, and there of compose, where each takes seconds.
const CALLS: (usize, usize, usize) = (6, 300, 100);

/// Where a call fails.
struct Point {
    /// `TOOL.N`: in the Nth process of a tool; in all that are started, without one.
    program: Option<String>,
    call: String,
    /// Which call of that name.
    number: usize,
}

pub(crate) fn tests() -> Vec<Test> {
    let walk = |scenario: &'static Scenario| {
        test(&format!("no_failing_call_spoils_{}", scenario.name), NEEDS, move |sandbox| walk(sandbox, scenario))
    };
    SCENARIOS.iter().map(walk).collect()
}

/// Runs shell text with what all scenarios have.
fn shell(sandbox: &Sandbox, script: &str, strace: &str) -> Outcome {
    let (busybox, torture) = (image("busybox"), image("torture"));
    let script = WORDS.iter().fold(script.to_owned(), |script, (word, text)| script.replace(word, text));
    let command = sandbox.sh(&script).env("BUSYBOX", &busybox.reference).env("TORTURE", &torture.reference);
    let layout = torture.layout.display().to_string();
    command.env("LAYOUT", &layout).env("STRACE", strace).limit(Duration::from_secs(50)).run()
}

/// Makes the tools anew in `one/in`, as scripts of which one has strace execute the tool; beside each tool itself are the
/// other tools' scripts.
fn wrap(sandbox: &Sandbox) {
    let one = sandbox.at("one");
    for tool in TOOLS {
        let script = format!(
            "#!/bin/sh\nd={one}\n\
             echo >>$d/turns.{tool}; n={tool}.$(($(wc -l <$d/turns.{tool})))\n\
             case $(cat $d/point) in all) set -- -o $d/calls.$n $d/{tool}/{tool} \"$@\";; \
             $n) set -- $(cat $d/options) -o $d/../injected $d/{tool}/{tool} \"$@\";; \
             *) exec $d/{tool}/{tool} \"$@\";; esac\nexec strace -D -f -b execve -qq \"$@\"\n"
        );
        let others = format!("for other in {}; do ln -s ../in/$other one/{tool}/; done", TOOLS.join(" "));
        sandbox
            .sh(&format!(
                "mkdir -p one/in one/{tool} && {others} && rm one/{tool}/{tool} && touch one/{tool}/{tool} && \
             mount --bind $(command -v {tool}) one/{tool}/{tool}"
            ))
            .run()
            .ok();
        sandbox.write(format!("one/in/{tool}"), script);
    }
    sandbox.sh("chmod +x one/in/*").run().ok();
}

/// Runs a scenario with its programs from `one/in`.
fn wrapped(sandbox: &Sandbox, scenario: &Scenario, point: &str, options: &str) -> Outcome {
    sandbox.write("one/point", point);
    sandbox.write("one/options", options);
    let script = format!("rm -f one/turns.*; PATH=$PWD/one/in:$PATH; {}", scenario.run);
    shell(sandbox, &script, "timeout -s KILL 30")
}

fn inject(call: &str, number: usize) -> String {
    format!("--seccomp-bpf -e trace={call} -e inject={call}:error={}:when={number}", error_of(call))
}

/// What a scenario is run with.
struct Walk<'a> {
    sandbox: &'a Sandbox,
    scenario: &'a Scenario,
    want: String,
    before: Listing,
}

impl Walk<'_> {
    fn plain(&self, script: &str) -> Outcome {
        shell(self.sandbox, script, "")
    }

    /// Prepares and runs it; with a call that fails, if one is named.
    fn once(&self, point: Option<&Point>) -> Outcome {
        let made = self.plain(&format!(": >injected; {}", self.scenario.prepare));
        match point {
            _ if made.code() != 0 => made,
            None => self.plain(self.scenario.run),
            Some(Point { program: None, call, number }) => {
                let strace = format!("timeout -s KILL 30 strace -D -f -qq -o injected {}", inject(call, *number));
                shell(self.sandbox, self.scenario.run, &strace)
            }
            Some(Point { program: Some(program), call, number }) => {
                wrapped(self.sandbox, self.scenario, program, &inject(call, *number))
            }
        }
    }

    /// Returns what is there in the place of what should be.
    fn check(&self) -> Option<String> {
        let seen = self.plain(self.scenario.check).stdout;
        (seen != self.want).then(|| format!("{}: {seen}", self.scenario.check))
    }

    /// Lets a call fail, and returns what is wrong then; `None` if there was no such call.
    fn fail(&self, point: &Point) -> Option<Vec<String>> {
        let outcome = self.once(Some(point));
        if !self.sandbox.read("injected").contains("(INJECTED)") {
            return None;
        }
        let mut wrong = vec![];
        let code = outcome.code();
        if code == 137 && !is_std_s_wait(&self.sandbox.read("injected")) {
            wrong.push("it hangs".to_owned());
        }
        if outcome.stderr.contains("panicked") && !is_std_s(&outcome.stderr) {
            wrong.push(outcome.stderr.clone());
        }
        if code == 0 {
            let seen = self.check();
            wrong.extend(seen.map(|seen| format!("a wrong result with exit code 0: {seen} {}", outcome.stderr.trim())));
            self.plain(self.scenario.clear);
        }
        let next = self.once(None);
        if next.code() != 0 {
            let words = outcome.stderr.trim();
            wrong.push(format!("exit code {code} ({words}), and the next run fails: {}", next.stderr));
        } else if let Some(seen) = self.check() {
            wrong.push(format!("the next run has a wrong result: {seen}"));
        }
        self.plain(self.scenario.clear);
        let left = since(&self.before, self.sandbox);
        if !left.is_empty() {
            wrong.push(format!("exit code {code}; left: {}", left.join("; ")));
        }
        Some(wrong)
    }
}

fn walk(sandbox: &Sandbox, scenario: &Scenario) {
    let plain = |script: &str| shell(sandbox, script, "");
    plain(MADE).ok();
    wrap(sandbox);
    // The first run makes what stays for good.
    plain(scenario.prepare);
    plain(scenario.run).ok();
    let want = plain(scenario.check).ok().stdout;
    plain(scenario.clear);
    let walk = Walk { sandbox, scenario, want, before: Listing::take(sandbox) };
    let together = points_together(&walk);
    let alone = points_alone(&walk);
    let (of_sample, of_all, of_compose) = CALLS;
    let of_all = if scenario.name.starts_with("compose") { of_compose } else { of_all };
    let chosen = sample(together.into_iter().chain(alone).collect(), if whole() { of_all } else { of_sample });
    let (mut wrong, mut injected) = (Vec::new(), 0);
    for point in &chosen {
        let Some(seen) = walk.fail(point) else { continue };
        injected += 1;
        let Point { program, call, number } = point;
        let program = program.as_deref().unwrap_or("all");
        wrong.extend(seen.iter().map(|seen| format!("{program} {call} {number} {}: {seen}", error_of(call))));
        if wrong.len() > 20 {
            break;
        }
    }
    println!("{}: {injected} calls failed, {} wrong", scenario.name, wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    plain(END);
    sandbox.sh(&format!("for tool in {}; do umount -l one/$tool/$tool; done", TOOLS.join(" "))).run().ok();
}

/// The calls of all programs that are followed together.
fn points_together(walk: &Walk<'_>) -> Vec<Point> {
    walk.plain(walk.scenario.prepare);
    shell(walk.sandbox, walk.scenario.run, "strace -D -f -qq -o calls").ok();
    walk.plain(walk.scenario.clear);
    let all = points(&walk.sandbox.read("calls")).into_iter();
    all.map(|(call, number)| Point { program: None, call, number }).collect()
}

/// The calls of each program of several.
fn points_alone(walk: &Walk<'_>) -> Vec<Point> {
    walk.plain(walk.scenario.prepare);
    wrapped(walk.sandbox, walk.scenario, "all", "").ok();
    walk.plain(walk.scenario.clear);
    let names = walk.sandbox.sh("cd one; ls calls.*").run().ok().stdout;
    let mut of_program = BTreeMap::new();
    for program in names.lines().filter_map(|name| name.strip_prefix("calls.")) {
        of_program.insert(program.to_owned(), points(&walk.sandbox.read(format!("one/calls.{program}"))));
    }
    // One alone is what has been followed already.
    let several = of_program.len() > 1;
    let each = of_program.into_iter().filter(|_| several).flat_map(|(program, points)| {
        points.into_iter().map(move |(call, number)| Point { program: Some(program.clone()), call, number })
    });
    each.collect()
}

/// What waits in Rust's library itself: where `Command::spawn` cannot read what its child says (eight bytes), it waits for
/// the child's end, whatever the child is.
fn is_std_s_wait(injected: &str) -> bool {
    injected.lines().any(|line| line.contains(", 8, 0, NULL, NULL) = -1 EIO"))
}

/// What panics in Rust's library itself: where a stack for signals, or a pipe of `Command::output`, cannot be had.
fn is_std_s(stderr: &str) -> bool {
    stderr.contains("library/std/")
}
