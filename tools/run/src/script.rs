//! The plan as a shell script: `run --print`. Pasted into sh it does what `run` would have done.

use std::fmt::Write;

use stage::{Stage, Tool, word};

use crate::folder;
use crate::plan::RunPlan;
use crate::request::{RunRequest, StandardStream};

/// Returns the script. It needs the tools in PATH and a POSIX shell, nothing else.
pub(crate) fn script(plan: &RunPlan, options: &RunRequest) -> String {
    let script = steps(plan, options);
    if !options.rootless {
        return script;
    }
    let mut unshare = Stage::new(Tool::Run, ["--unshare"]);
    unshare.option("--root", options.roots().argument());
    unshare.push(["sh", "-c", &script]);
    format!("exec {unshare}\n")
}

fn steps(plan: &RunPlan, options: &RunRequest) -> String {
    let mut script = String::new();
    if let Some(trace) = options.trace() {
        let trace = word(std::path::absolute(&trace).unwrap_or(trace).as_os_str());
        if let Some(folder) = &options.folder {
            line(&mut script, &format!("mkdir -p {}", word(folder.as_os_str())));
        }
        line(&mut script, &format!("rm -f {trace}; export DRAYAGE_TRACE={trace}"));
    }
    if let Some(replace) = &plan.replace {
        line(&mut script, &format!("{replace} >/dev/null 2>&1"));
    }
    if options.name.is_some() {
        // What is undone at the end must be what this script made.
        let bundle = word(plan.bundle.as_os_str());
        let complaint = word(format!("container {} exists", plan.id).as_ref());
        line(&mut script, &format!("[ ! -e {bundle} ] || {{ echo {complaint} >&2; exit 125; }}"));
    }
    let mut undo: Vec<String> = plan.undo.iter().map(|undo| format!("{} 2>/dev/null", undo.stage)).collect();
    if let Some(file) = options.cidfile.as_ref().map(|file| word(file.as_os_str())) {
        line(&mut script, &format!("(set -C; printf %s {} >{file}) || exit 125", word((*plan.id).as_ref())));
        undo.push(format!("[ $code != 125 ] || rm -f {file}"));
    }
    let (pipeline, undo) = (pipeline(plan, options), undo.join("; "));
    if options.detach {
        // Where a stage fails, keep gets no record; it undoes what it knows of.
        line(&mut script, &format!("{pipeline} | {} >/dev/null || {{ code=$?; {undo}; exit $code; }}", plan.keep));
        line(&mut script, &format!("echo {}", word((*plan.id).as_ref())));
        return script;
    }
    if options.is_attached() {
        // keep has standard input for the container; what it has taken over it undoes.
        let failed = format!("{{ code=125; {undo}; rm -f \"$record\"; exit 125; }}");
        line(&mut script, &format!("record=$(mktemp) && {pipeline} >\"$record\" || {failed}"));
        let keep = hidden(&plan.keep.to_string(), options);
        line(&mut script, &format!("{keep} \"$record\"; code=$?; rm -f \"$record\"; exit $code"));
        return script;
    }
    line(&mut script, &format!("trap {} EXIT", word(format!("code=$?; {undo}; exit $code").as_ref())));
    // A shell that a signal ends runs no EXIT trap in every sh (dash does not); `exit` does.
    line(&mut script, "trap 'exit 130' INT; trap 'exit 143' TERM; trap 'exit 129' HUP");
    if options.shows(StandardStream::Stdin) || options.runtime.is_some() {
        // The record would be the container's standard input, and another runtime reads none.
        line(&mut script, &format!("{pipeline} >/dev/null || exit 125"));
        let input = if options.shows(StandardStream::Stdin) { "" } else { " </dev/null" };
        line(&mut script, &format!("{}{input}", start(&plan.spawn, options)));
    } else {
        line(&mut script, &format!("{pipeline} | {}", start(&filter(&plan.spawn), options)));
    }
    script
}

/// Returns how `spawn` is called: with its time, and the streams that are wanted of it.
fn start(spawn: &Stage, options: &RunRequest) -> String {
    let limit = options.timeout.map_or_else(String::new, |time| format!("timeout --foreground -s KILL {time} "));
    hidden(&format!("{limit}{spawn}"), options)
}

/// Hides the output that is not wanted.
fn hidden(command: &str, options: &RunRequest) -> String {
    let streams = [(StandardStream::Stdout, " >/dev/null"), (StandardStream::Stderr, " 2>/dev/null")];
    let hidden = streams.iter().filter(|(stream, _)| !options.shows(*stream)).map(|(_, redirection)| *redirection);
    format!("{command}{}", hidden.collect::<String>())
}

/// Returns the stages; with `--keep` their records are copied on the way.
fn pipeline(plan: &RunPlan, options: &RunRequest) -> String {
    let stage = |(number, stage): (usize, &Stage)| match &options.folder {
        Some(folder) => format!("{stage} | tee {}", word(folder::record(folder, number, stage.tool).as_os_str())),
        None => stage.to_string(),
    };
    plan.stages.iter().enumerate().map(stage).collect::<Vec<_>>().join(" | ")
}

/// Returns `spawn` as the pipeline's last filter: the record tells it the bundle and the id.
fn filter(spawn: &Stage) -> Stage {
    let verb = spawn.arguments.iter().position(|argument| argument == "--id").unwrap_or(spawn.arguments.len());
    Stage { arguments: spawn.arguments[..verb].to_vec(), ..spawn.clone() }
}

fn line(script: &mut String, text: &str) {
    // Writing to a String cannot fail.
    let _infallible = writeln!(script, "{text}");
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::options::RunArgs;
    use crate::plan::plan;

    #[test]
    fn the_pipeline_is_the_one_that_a_person_would_type() {
        let options = RunArgs::parse_from(["run", "--root", "/r", "--rm", "-p", "8080:80", "nginx"]).request;
        let script =
            script(&plan(&options, &"web".parse().unwrap(), "0000001a-00000002".parse().unwrap()).unwrap(), &options);
        assert_eq!(
            script.lines().last().unwrap(),
            "pull --root /r --policy missing nginx | unpack --root /r | bundle --root /r --id web --owner \
             0000001a-00000002 --volatile | ns add --root /r | \
             portmap --root /r -p 8080:80 | spawn --root /r/run/spawn"
        );
    }
}
