//! The plan as a shell script: `run --print`. Pasted into sh it does what `run` would have done.

use std::fmt::Write;

use stage::{Stage, word};

use crate::options::Options;
use crate::plan::Plan;

/// Returns the script. It needs the tools in PATH and a POSIX shell, nothing else.
pub(crate) fn script(plan: &Plan, options: &Options) -> String {
    let mut script = String::new();
    if let Some(replace) = &plan.replace {
        line(&mut script, &format!("{replace} >/dev/null 2>&1"));
    }
    if options.name.is_some() {
        // What is undone at the end must be what this script made.
        let bundle = word(plan.bundle.as_os_str());
        let complaint = word(format!("container {} exists", plan.id).as_ref());
        line(&mut script, &format!("[ ! -e {bundle} ] || {{ echo {complaint} >&2; exit 125; }}"));
    }
    let undo: Vec<String> = plan.undo.iter().map(|undo| format!("{} 2>/dev/null", undo.stage)).collect();
    let pipeline = plan.stages.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ");
    let spawn = plan.spawn.to_string();
    if options.detach {
        // Where a stage fails, keep gets no record; it undoes what it knows of.
        let undo = undo.join("; ");
        line(&mut script, &format!("{pipeline} | {} >/dev/null || {{ code=$?; {undo}; exit $code; }}", plan.keep));
        line(&mut script, &format!("echo {}", word(plan.id.as_ref())));
        return script;
    }
    line(&mut script, &format!("trap {} EXIT", word(undo.join("; ").as_ref())));
    line(&mut script, "trap 'exit 130' INT; trap 'exit 143' TERM; trap 'exit 129' HUP");
    if options.interactive || options.bundle.has("tty") {
        // The record would be the container's standard input.
        line(&mut script, &format!("{pipeline} >/dev/null || exit 125"));
        line(&mut script, &spawn);
    } else {
        line(&mut script, &format!("{pipeline} | {}", filter(&plan.spawn)));
    }
    script
}

/// Returns `spawn` as the pipeline's last filter: the record tells it the bundle and the id.
fn filter(spawn: &Stage) -> Stage {
    let verb = spawn.arguments.iter().position(|argument| argument == "--id").unwrap_or(spawn.arguments.len());
    Stage { tool: spawn.tool, arguments: spawn.arguments[..verb].to_vec() }
}

fn line(script: &mut String, text: &str) {
    // Writing to a String cannot fail.
    let _infallible = writeln!(script, "{text}");
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::plan::plan;

    #[test]
    fn the_pipeline_is_the_one_that_a_person_would_type() {
        let options = Options::parse_from(["run", "--root", "/r", "--rm", "-p", "8080:80", "nginx"]);
        let script = script(&plan(&options, "web").unwrap(), &options);
        assert_eq!(
            script.lines().last().unwrap(),
            "pull --root /r --policy missing nginx | unpack --root /r | bundle --root /r --id web --volatile | ns add | \
             portmap --root /r -p 8080:80 | spawn --root /r/run/spawn"
        );
    }
}
