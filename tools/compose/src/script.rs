//! The project as a shell script: `compose print`. It is what `compose up` executes.

use std::collections::BTreeSet;
use std::ffi::OsString;

use stage::Tool;

use crate::context::ProjectNetwork;
use crate::project::Project;
use crate::request::ScriptRequest;
use crate::service::{CONFIG_HASH, DependencyCondition, Service};
use crate::tool::command;

/// What a script begins with where a service waits for another: tells whether that is listed, with an option perhaps.
const IS: &str = "is() { LIST ${2-} | grep -xF -- \"$1\" >/dev/null; }\n";
/// What waits until it is healthy.
const HEALTHY: &str = include_str!("script/healthy.txt");

/// What builds an image: the builder writes an archive, which gets into the layout under the name of the image.
const BUILD: &str = include_str!("script/build.txt");

/// Returns what builds the images of services that say how; with `missing` those alone that are not there and have no name
/// by which they could be fetched.
pub(crate) fn build(project: &Project, root: &[OsString], missing: bool) -> String {
    let mut script = Vec::new();
    for service in project.services.iter().filter(|service| service.has_own_image || !missing) {
        let Some(words) = &service.build else { continue };
        if script.is_empty() {
            script.push(BUILD.replace("PULL", &command(Tool::Pull, &[], root).to_string()));
        }
        let image = &service.operands[1];
        if missing {
            let mut look = command(Tool::Pull, &["--policy=never"], root);
            look.push(["--", image]);
            script.push(format!("{look} >/dev/null 2>&1 || "));
        }
        let words: Vec<String> = [image].into_iter().chain(words).map(|text| word(text)).collect();
        script.push(format!("build {}\n", words.join(" ")));
    }
    script.concat()
}

/// Returns the script. Containers that run are left alone unless all are to be made anew.
pub(crate) fn script(project: &Project, root: &[OsString], request: &ScriptRequest) -> String {
    let anew = request.force_recreate;
    let list = command(Tool::Keep, &["list", "--quiet"], root);
    // -e: a service that does not start must not have those started that need it.
    let mut script = vec!["set -eu\n".to_owned()];
    if !request.no_build {
        script.push(build(project, root, !request.build));
    }
    let waits = project.services.iter().flat_map(|service| &service.dependencies);
    if waits.clone().any(|wait| wait.condition != DependencyCondition::Started) {
        script.push(IS.replace("LIST", &list.to_string()));
    }
    if waits.clone().any(|wait| wait.condition == DependencyCondition::Healthy) {
        script.push(HEALTHY.to_owned());
    }
    for network in created(project) {
        let mut create = command(Tool::Ns, &["network", "create", "--exist-ok"], root);
        create.push(&network.settings);
        create.push([&*network.name]);
        script.push(format!("{create} >/dev/null\n"));
    }
    // Services may have the same one.
    let files = project.services.iter().flat_map(|service| &service.files);
    // In the order of the lines themselves, so that the same project gives the same script.
    script.extend(files.map(|file| file.line.clone()).collect::<BTreeSet<_>>());
    for service in &project.services {
        for wait in &service.dependencies {
            if let Some(needed) = project.services.iter().find(|other| other.name == wait.service) {
                let line = self::wait(needed, wait.condition, root);
                match (line.is_empty(), wait.required) {
                    (true, _) => {}
                    (_, true) => script.push(format!("{line}\n")),
                    // It goes on without it.
                    (_, false) => script.push(format!("({line}) || :\n")),
                }
            }
        }
        let id = word(&service.container);
        if !anew {
            let mut running = command(Tool::Keep, &["list", "--running", "--quiet"], root);
            // One that the file has changed meanwhile is made anew.
            let hash = service.options.iter().find(|option| option.starts_with(CONFIG_HASH));
            running.push(hash.map(|hash| format!("--filter=label={hash}")));
            // Looked at while the script runs, not when it is written: a printed script may be run later, and again.
            script.push(format!("if ! {running} | grep -xF -- {id} >/dev/null; then\n  "));
        }
        let restarts = |other: &&Service| other.dependencies.iter().any(|on| on.restart && on.service == service.name);
        let restarted: Vec<&str> = project.services.iter().filter(restarts).map(|other| &*other.container).collect();
        // Stopped here, before what they need is made anew; their own lines, which come later, start them again.
        if !restarted.is_empty() {
            let mut stop = command(Tool::Keep, &["stop"], root);
            stop.push(["--"].into_iter().chain(restarted));
            script.push(format!("{stop} >/dev/null 2>&1 || :\n  "));
        }
        // `--replace`: what is there under the name has ended, or has other settings now.
        let mut run = command(Tool::Run, &["--detach", "--replace"], root);
        run.push(&service.options);
        // The last one counts.
        run.push(request.pull.iter().filter(|_| !service.has_own_image).map(|when| format!("--pull={when}")));
        run.push(&service.operands);
        script.push(format!("{run} >/dev/null; echo {id} started >&2\n{}", if anew { "" } else { "fi\n" }));
    }
    script.concat()
}

/// Returns the networks that are more than their first container finds, each once.
pub(crate) fn created(project: &Project) -> Vec<&ProjectNetwork> {
    let mut created: Vec<&ProjectNetwork> = project.services.iter().flat_map(|service| &service.networks).collect();
    created.retain(|network| !network.settings.is_empty());
    created.sort_by_key(|network| &network.name);
    created.dedup_by_key(|network| &network.name);
    created
}

/// A container that runs is what most wait for, and it runs when its own line is done.
fn wait(needed: &Service, condition: DependencyCondition, root: &[OsString]) -> String {
    let id = word(&needed.container);
    match condition {
        DependencyCondition::Started => String::new(),
        DependencyCondition::Healthy => format!("healthy {id}"),
        DependencyCondition::Completed => {
            let mut wait = command(Tool::Keep, &["wait"], root);
            wait.push(["--", &*needed.container]);
            // A job that is started again has not ended.
            let ended = format!("until is {id} --filter=status=exited || ! is {id}; do sleep 0.2; done");
            format!("{ended}\n[ \"$({wait})\" = 0 ] || {{ echo {id} failed >&2; exit 1; }}")
        }
    }
}

/// Quotes a word for the shell.
pub(crate) fn word(text: &str) -> String {
    stage::word(text.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::{Dependency, MadeFile};

    #[test]
    fn a_script_waits_for_what_a_service_needs() {
        let service = |name: &str, dependencies: &[(&str, DependencyCondition)]| Service {
            name: name.to_owned(),
            container: format!("p-{name}-1").parse().unwrap(),
            dependencies: dependencies
                .iter()
                .map(|(service, condition)| Dependency {
                    service: (*service).to_owned(),
                    condition: *condition,
                    required: *service != "init",
                    restart: *condition == DependencyCondition::Started,
                })
                .collect(),
            options: vec!["--name".to_owned(), format!("p-{name}-1")],
            files: vec![MadeFile { line: "make it\n".to_owned(), variable: None }],
            networks: vec![],
            operands: vec!["img".to_owned(), "it's".to_owned()],
            build: None,
            has_own_image: false,
        };
        let needs = [("db", DependencyCondition::Healthy), ("init", DependencyCondition::Completed)];
        let services =
            vec![service("db", &[]), service("init", &[("db", DependencyCondition::Started)]), service("web", &needs)];
        let project = Project {
            file: serde_json::Value::Null,
            name: "p".to_owned(),
            services,
            containers: vec![],
            volumes: vec![],
        };
        let (services, pull) = (vec![], None);
        let request =
            ScriptRequest { build: false, no_build: false, force_recreate: true, no_deps: false, pull, services };
        let script = script(&project, &["--root".into(), "/r".into()], &request);
        assert!(script.starts_with("set -eu\nis() { keep list --quiet --root /r ${2-} | grep"), "{script}");
        let lines: Vec<&str> = script.lines().skip_while(|line| *line != "}").skip(1).collect();
        let run = |name: &str| {
            let run = format!(r"run --detach --replace --root /r --name p-{name}-1 img 'it'\''s' >/dev/null");
            format!("{run}; echo p-{name}-1 started >&2")
        };
        assert_eq!(
            lines,
            [
                "make it".to_owned(),
                "keep stop --root /r -- p-init-1 >/dev/null 2>&1 || :".to_owned(),
                format!("  {}", run("db")),
                run("init"),
                "healthy p-db-1".to_owned(),
                "(until is p-init-1 --filter=status=exited || ! is p-init-1; do sleep 0.2; done".to_owned(),
                "[ \"$(keep wait --root /r -- p-init-1)\" = 0 ] || { echo p-init-1 failed >&2; exit 1; }) || :"
                    .to_owned(),
                run("web"),
            ]
        );
    }
}
