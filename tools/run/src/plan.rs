//! What a run consists of, computed and not yet done: the stages with their arguments, how the container is started, and
//! what undoes each stage. `--print` shows the plan, everything else executes it: one plan, so that they cannot differ.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use container::{ContainerId, Directories, Owner};
use record::{Bundle, Id, Record};
use stage::undo::Made;
use stage::{Stage, Tool, Undo};

use crate::request::{NetworkOption, RunRequest, StandardStream};

/// Where a container finds the service manager's socket.
const NOTIFY: &str = "/run/notify.sock";

/// A whole run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RunPlan {
    /// The container's id.
    pub(crate) id: ContainerId,
    /// The bundle's directory.
    pub(crate) bundle: PathBuf,
    /// Where everything is.
    pub(crate) directories: Directories,
    /// From the image to the record of a container that can be started, piped one into the next.
    pub(crate) stages: Vec<Stage>,
    /// Starts the container in the foreground; ends as it ends.
    pub(crate) spawn: Stage,
    /// Starts the container and stays with it in the background, in the place of `spawn`.
    pub(crate) keep: Stage,
    /// Makes the name free, where that is wanted.
    pub(crate) replace: Option<Stage>,
    /// In the order in which they are carried out: the reverse of the stages'.
    pub(crate) undo: Vec<Undo>,
    /// What the programs are told that are started before there is a record. It is not the whole record, since `spawn` would
    /// then undo the other stages, which `run` does.
    pub(crate) record: Record,
}

/// Computes the plan for a container named `id`, all of which will be the owner's.
///
/// It asks the file system for nothing but another runtime's program, so that the same words give the same plan.
pub(crate) fn plan(options: &RunRequest, id: &ContainerId, owner: Owner) -> Result<RunPlan, cli::Usage> {
    let image = options.image()?;
    for network in &options.network {
        if let (true, NetworkOption::Named(name)) = (options.rootless, network) {
            let instead = "only root can make bridges; --network container:ID shares another container's network";
            return Err(cli::Usage(format!("--network {name}: {instead}")));
        }
        if options.network.len() > 1 && !network.is_bridge() {
            return Err(cli::Usage("several --network must all be bridges".to_owned()));
        }
    }
    if let Some(option) = options.option_of_a_bridge() {
        return Err(cli::Usage(format!("{option}: this --network has no bridge")));
    }
    let runtime = runtime(options)?;
    // Absolute, because what is undone later may be undone from another directory.
    let roots = options.roots();
    let directories = roots.directories();
    let chosen = roots.argument().map(|_| directories.data());
    let root: Vec<OsString> = chosen.map_or_else(Vec::new, |root| vec!["--root".into(), root.into()]);
    let bundle = directories.bundle(id);
    let runtimes = match &runtime {
        Some(runtime) => Some(directories.runtime_states(runtime)),
        None => chosen.map(|_| directories.states()),
    };
    let made = Made {
        id,
        owner: Some(owner),
        root: chosen,
        states: runtimes.as_deref(),
        runtime: runtime.as_deref(),
        keeps_bundle: !options.removes(),
    };
    let mut stages = image_stages(options, image, &root);
    stages.push(bundle_stage(options, &made, image, &root));
    stages.extend(network_stage(options, &root));
    stages.extend(portmap_stage(options, &root));
    let planned = |tool: Tool| stages.iter().any(|stage| stage.tool == tool);
    let undo = made.undo(|tool| tool == Tool::Spawn || planned(tool));
    let mut record = Record::default();
    record.set(&Bundle(bundle.clone()));
    record.set(&Id(id.clone()));
    Ok(RunPlan {
        spawn: spawn_stage(options, &bundle, &made),
        keep: keep_stage(options, &root),
        replace: options.replace.then(|| replace_stage(id, &root)),
        id: id.clone(),
        bundle,
        directories,
        stages,
        undo,
        record,
    })
}

fn image_stages(options: &RunRequest, image: &OsStr, root: &[OsString]) -> Vec<Stage> {
    if options.rootfs {
        return Vec::new();
    }
    let mut pull = Stage::new(Tool::Pull, root);
    pull.push(["--policy", &options.pull]);
    pull.option("--platform", &options.platform);
    pull.push(options.quiet.then_some("--quiet"));
    pull.push([image]);
    vec![pull, Stage::new(Tool::Unpack, root)]
}

fn bundle_stage(options: &RunRequest, made: &Made<'_>, image: &OsStr, root: &[OsString]) -> Stage {
    let mut bundle = Stage::new(Tool::Bundle, root);
    bundle.push(["--id", made.id]);
    bundle.option("--owner", made.owner.map(|owner| owner.to_string()));
    bundle.push(options.removes().then_some("--volatile"));
    bundle.push(&options.bundle.0);
    if let Some(socket) = &options.notify_socket {
        let mut volume = OsString::from("--volume=");
        volume.push(socket);
        volume.push(format!(":{NOTIFY}"));
        bundle.push([volume, format!("--env=NOTIFY_SOCKET={NOTIFY}").into()]);
    }
    match options.network.as_slice() {
        [NetworkOption::Host] => bundle.push(["--network", "host"]),
        [NetworkOption::None] => bundle.push(["--network", "none"]),
        _ => {}
    }
    bundle.push(options.rootfs.then_some(image));
    if !options.command().is_empty() {
        bundle.push(["--"]);
        bundle.push(options.command());
    }
    bundle
}

fn network_stage(options: &RunRequest, root: &[OsString]) -> Option<Stage> {
    let mut ns = Stage::new(Tool::Ns, ["add"]);
    ns.push(root);
    match options.network.as_slice() {
        [NetworkOption::None | NetworkOption::Host] => return None,
        [NetworkOption::Container(id)] => ns.push(["--join", &**id]),
        _ if options.rootless => ns.push(["--user-mode"]),
        networks => {
            for network in networks {
                match network {
                    NetworkOption::Named(name) => ns.push(["--network", name]),
                    _ => ns.push((networks.len() > 1).then_some("--network=bridge")),
                }
            }
            ns.option("--subnet", &options.subnet);
            ns.option("--gateway", &options.gateway);
            ns.option("--alias", &options.network_alias);
            ns.option("--ip", &options.ip);
            ns.option("--ip", &options.ip6);
            ns.option("--mac", &options.mac_address);
            ns.option("--forward", &options.forward);
        }
    }
    Some(ns)
}

fn portmap_stage(options: &RunRequest, root: &[OsString]) -> Option<Stage> {
    let publishes = !options.publish.is_empty() || options.publish_all;
    // As with docker: in the host's network every port is published as it is, without one there is nothing to reach.
    if !publishes || matches!(options.network.as_slice(), [NetworkOption::Host | NetworkOption::None]) {
        return None;
    }
    let mut portmap = Stage::new(Tool::Portmap, root);
    portmap.push(options.forward.iter().map(|how| format!("--forward={how}")));
    portmap.push(options.publish_all.then_some("-P"));
    portmap.option("-p", &options.publish);
    portmap.option("--listen-fd", options.sockets.iter().map(ToString::to_string));
    Some(portmap)
}

fn spawn_stage(options: &RunRequest, bundle: &Path, of: &Made<'_>) -> Stage {
    let id = of.id;
    let mut spawn = of.runtime();
    spawn.push(of.runtime.map(|_| "run"));
    spawn.option("--preserve-fds", (options.preserve_fds > 0).then(|| options.preserve_fds.to_string()));
    match of.runtime {
        None => spawn.push(["--id".as_ref(), id.as_ref(), bundle.as_os_str()]),
        Some(_) => spawn.push(["--bundle".as_ref(), bundle.as_os_str(), id.as_ref()]),
    }
    spawn
}

fn keep_stage(options: &RunRequest, root: &[OsString]) -> Stage {
    let mut keep = Stage::new(Tool::Keep, root);
    for (set, flag) in [(options.removes(), "--rm"), (options.interactive, "--interactive")] {
        keep.push(set.then_some(flag));
    }
    let numbers = [("--timeout", options.timeout), ("--preserve-fds", Some(options.preserve_fds.into()))];
    for (option, number) in numbers {
        keep.option(option, number.filter(|number| *number > 0).map(|number| number.to_string()));
    }
    let more = &options.keep;
    keep.option("--restart", &more.restart);
    keep.option("--log-driver", &more.log_driver);
    keep.option("--sdnotify", &more.sdnotify);
    if options.is_attached() {
        keep.push(["--attach"]);
        keep.push((!options.shows(StandardStream::Stdin)).then_some("--no-stdin"));
        keep.push((!options.sig_proxy).then_some("--sig-proxy=false"));
        keep.option("--detach-keys", &options.detach_keys);
    }
    keep.option("--log-opt", &more.log_opt);
    keep
}

fn replace_stage(id: &ContainerId, root: &[OsString]) -> Stage {
    let mut remove = Stage::new(Tool::Keep, ["rm", "--force"]);
    remove.push(root);
    remove.push([id]);
    remove
}

/// Returns another runtime's program. Its states are apart from those of its other callers, so that undoing never meets a
/// container of theirs.
fn runtime(options: &RunRequest) -> Result<Option<PathBuf>, cli::Usage> {
    let Some(wanted) = &options.runtime else { return Ok(None) };
    let refused = |why: &str| cli::Usage(format!("--runtime {}: {why}", wanted.display()));
    if options.detach || options.is_attached() {
        return Err(refused("in the foreground only: -d, --restart, --log-driver and other uses of keep need spawn"));
    }
    stage::executable(wanted).map(Some).ok_or_else(|| refused("no such program"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::options::RunArgs;

    fn words(stage: &Stage) -> String {
        let arguments: Vec<_> = stage.arguments.iter().map(|argument| argument.to_str().unwrap()).collect();
        format!("{} {}", stage.tool.name(), arguments.join(" "))
    }

    fn planned(options: &RunRequest) -> Result<RunPlan, cli::Usage> {
        plan(options, &"web".parse().unwrap(), "0000001a-00000002".parse().unwrap())
    }

    fn lines(command_line: &str) -> Vec<String> {
        let options = RunArgs::parse_from(command_line.split(' ')).request;
        let plan = planned(&options).unwrap();
        let undo = plan.undo.iter().map(|undo| &undo.stage);
        plan.stages.iter().chain([&plan.spawn]).chain(undo).map(words).collect()
    }

    #[test]
    fn the_whole_is_the_six_stages_and_their_undoing_in_reverse() {
        assert_eq!(
            lines("run --root /r --rm -p 8080:80 nginx nginx -T"),
            [
                "pull --root /r --policy missing nginx",
                "unpack --root /r",
                "bundle --root /r --id web --owner 0000001a-00000002 --volatile -- nginx -T",
                "ns add --root /r",
                "portmap --root /r -p 8080:80",
                "spawn --root /r/run/spawn --id web /r/containers/web",
                "spawn --root /r/run/spawn delete --force --owner 0000001a-00000002 web",
                "portmap del --root /r --owner 0000001a-00000002 web",
                "ns del --root /r --owner 0000001a-00000002 web",
                "bundle delete --force --root /r --owner 0000001a-00000002 web",
            ]
        );
    }

    #[test]
    fn keep_is_told_what_a_container_in_the_background_shall_do() {
        let line = "run --root /r -di --restart always --log-opt max-size=1m --timeout 9 nginx";
        let plan = planned(&RunArgs::parse_from(line.split(' ')).request).unwrap();
        assert_eq!(
            words(&plan.keep),
            "keep --root /r --interactive --timeout 9 --restart always --log-opt max-size=1m"
        );
    }

    #[test]
    fn options_of_a_bridge_are_refused_without_one() {
        for (line, want) in [
            ("run --network none --ip 10.0.0.2 x", Err("--ip: this --network has no bridge")),
            ("run --network host --network-alias a x", Err("--network-alias: this --network has no bridge")),
            ("run --network none --forward off x", Err("--forward: this --network has no bridge")),
            ("run --network lab --subnet 10.0.0.0/24 x", Ok(())),
            ("run --network lab --network back:alias=db,mac=02:00:00:00:00:07,ip6=fd00::7 x", Ok(())),
            ("run --network lab --network host x", Err("several --network must all be bridges")),
        ] {
            let planned = planned(&RunArgs::parse_from(line.split(' ')).request).map(drop).map_err(|usage| usage.0);
            assert_eq!(planned, want.map_err(str::to_owned), "{line}");
        }
    }

    #[test]
    fn stages_that_are_not_needed_are_left_out() {
        for (command_line, want) in [
            ("run --root /r --network none nginx", "pull unpack bundle spawn spawn bundle"),
            ("run --root /r --network host -p 80:80 nginx", "pull unpack bundle spawn spawn bundle"),
            ("run --root /r --network lab nginx", "pull unpack bundle ns spawn spawn ns bundle"),
            ("run --root /r --rootfs /", "bundle ns spawn spawn ns bundle"),
            ("run --root /r -P nginx", "pull unpack bundle ns portmap spawn spawn portmap ns bundle"),
        ] {
            let tools: Vec<_> =
                lines(command_line).iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
            assert_eq!(tools.join(" "), want, "{command_line}");
        }
    }
}
