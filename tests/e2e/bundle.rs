//! `bundle`: layers and an image's configuration become a runtime bundle, whole or not at all.

mod config;
mod cp;

use std::fs;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Need, Sandbox, Test, image, test, wait_for};

const IMAGES: &[Need] = &[Need::Registry, Need::Overlay];
const RUNC: &[Need] = &[Need::Registry, Need::Overlay, Need::Program("runc")];
const CRUN: &[Need] = &[Need::Registry, Need::Overlay, Need::Program("crun")];
const ROOT: &[Need] = &[Need::Root, Need::Overlay];

pub(crate) fn tests() -> Vec<Test> {
    let mut tests = vec![
        test("runc_runs_it_with_dockers_defaults", RUNC, runc),
        test("crun_runs_it", CRUN, crun),
        test("options_take_effect_in_the_container", RUNC, options),
        test("a_flat_root_is_written_to_unless_a_layer_lies_over_it", RUNC, flat),
        test("with_init_signals_and_orphans_are_looked_after", RUNC, init),
        test("a_bundle_whose_container_runs_is_not_deleted", RUNC, running),
        test("the_record_gains_bundle_and_id", IMAGES, record),
        test("printing_writes_nothing_and_is_the_same_each_time", IMAGES, print),
        test("what_fails_leaves_nothing", IMAGES, failures),
        test("wrong_use_is_one_line", ROOT, wrong_use),
        test("delete_undoes_it_and_says_what_is_not_there", IMAGES, delete),
        test("a_large_bundle_is_gone_at_once_and_its_files_soon", IMAGES, large),
        test("prune_sweeps_what_has_lost_its_mount", IMAGES, prune),
        test("what_somebody_has_the_name_of_is_left_alone", IMAGES, claimed),
        test("a_keeper_that_is_ending_is_waited_for", IMAGES, ending),
        test("an_id_left_half_made_is_taken_over", IMAGES, half_made),
        test("interrupted_it_leaves_nothing", ROOT, interrupted),
        test("five_hundred_layers_are_mounted", ROOT, many_layers),
        test("a_volume_starts_with_the_images_content", ROOT, volumes),
        test("volumes_are_removed_that_no_container_has", ROOT, named_volumes),
        test("links_of_the_image_do_not_lead_out_of_it", ROOT, links),
        test("the_examples_of_its_help_work", RUNC, examples),
    ];
    tests.extend(cp::tests());
    tests.extend(config::tests());
    tests
}

/// Unpacks a test image; its record is in `NAME.json`.
fn unpack(sandbox: &Sandbox, name: &str) {
    let layout = image(name).layout.display().to_string();
    sandbox.sh(&format!("unpack {layout} > {name}.json")).run().ok();
}

/// Makes a root file system of nothing but users.
fn rootfs(sandbox: &Sandbox) {
    sandbox.write("rootfs/etc/passwd", "root:x:0:0::/root:/bin/sh\nwww:x:33:33::/srv:\n");
    sandbox.write("rootfs/etc/group", "root:x:0:\nwww:x:33:\nssl:x:44:www\n");
}

fn config(sandbox: &Sandbox, id: &str) -> Value {
    serde_json::from_str(&sandbox.read(format!("state/containers/{id}/config.json"))).unwrap()
}

fn assert_nothing_left(sandbox: &Sandbox) {
    sandbox
        .sh("ls -A state/containers 2>/dev/null; grep $SANDBOX/state/ /proc/self/mountinfo || true")
        .run()
        .ok()
        .stdout_is("");
}

fn runc(sandbox: &Sandbox) {
    unpack(sandbox, "busybox");
    let script = "id; hostname; echo $HOME; cat /etc/hostname; grep -c . /etc/hosts; \
        grep -E 'CapEff|CapInh|NoNewPrivs|Seccomp:' /proc/self/status";
    sandbox.run(&["bundle", "--id", "defaults", "busybox.json", "--", "sh", "-c", script]).ok();
    sandbox.run(&["runc", "run", "-b", "state/containers/defaults", "defaults"]).ok().stdout_is(
        "uid=0(root) gid=0(root) groups=0(root)\ndefaults\n/root\ndefaults\n6\nCapInh:\t0000000000000000\n\
         CapEff:\t00000000a80425fb\nNoNewPrivs:\t0\nSeccomp:\t2\n",
    );
    sandbox.run(&["bundle", "delete", "defaults"]).ok();
}

fn crun(sandbox: &Sandbox) {
    unpack(sandbox, "busybox");
    sandbox.run(&["bundle", "--id", "crun-takes-it", "busybox.json", "--", "sh", "-c", "echo $HOSTNAME"]).ok();
    // crun refuses machines with both kinds of control groups, unless the second kind has no controllers.
    let hide = "cd /; d=/sys/fs/cgroup/unified; if [ -d $d ]; then umount -l $d; mount -t tmpfs none $d; \
        : > $d/cgroup.controllers; fi; exec crun run -b $SANDBOX/state/containers/crun-takes-it crun-takes-it";
    sandbox.run(&["unshare", "-m", "--propagation", "private", "sh", "-c", hide]).ok().stdout_is("crun-takes-it\n");
    sandbox.run(&["bundle", "delete", "crun-takes-it"]).ok();
}

fn options(sandbox: &Sandbox) {
    unpack(sandbox, "busybox");
    sandbox.write("data/file", "content\n");
    sandbox.write("more.env", "FROM_FILE=yes\n");
    let script = "id -u; cat /data/file; touch /data/x 2>/dev/null || echo ro; touch /y 2>/dev/null || echo ro; \
        pwd; ulimit -n; hostname; echo $A $FROM_FILE; grep db /etc/hosts; cat /etc/resolv.conf; \
        grep -E 'CapBnd|NoNewPrivs' /proc/self/status; df -k /dev/shm /t | awk '{print $2}'; umask";
    let words = "--id opts -v ./data:/data:ro --tmpfs /t:size=2m -u 7:8 --read-only -w /tmp --ulimit nofile=99:100 \
        --hostname host.example -e A=1 --env-file more.env --add-host db:10.9.8.7 --dns 9.9.9.9 --dns-search . \
        --cap-drop ALL --cap-add chown --security-opt no-new-privileges --shm-size 1m --umask 027 -m 64m \
        --pids-limit 50 busybox.json -- sh -c";
    let mut command = vec!["bundle"];
    command.extend(words.split_ascii_whitespace());
    command.push(script);
    sandbox.run(&command).ok();
    sandbox.run(&["runc", "run", "-b", "state/containers/opts", "opts"]).ok().stdout_is(
        "7\ncontent\nro\nro\n/tmp\n99\nhost.example\n1 yes\n10.9.8.7\tdb\nnameserver 9.9.9.9\n\
         CapBnd:\t0000000000000001\nNoNewPrivs:\t1\n1K-blocks\n1024\n2048\n0027\n",
    );
    sandbox.run(&["bundle", "delete", "opts"]).ok();
}

fn flat(sandbox: &Sandbox) {
    let layout = image("busybox").layout.display().to_string();
    sandbox.run(&["unpack", "--flat", "tree", &layout]).ok();
    for (id, option, written) in [("over", Some("--overlay"), false), ("through", None, true)] {
        let mut command = vec!["bundle", "--id", id, "./tree"];
        command.extend(option);
        command.extend(["--", "touch", "/new"]);
        sandbox.run(&command).ok();
        sandbox.run(&["runc", "run", "-b", &format!("state/containers/{id}"), id]).ok();
        assert_eq!(sandbox.exists("tree/new"), written, "{id}");
        sandbox.run(&["bundle", "delete", id]).ok();
    }
    assert_nothing_left(sandbox);
}

fn running(sandbox: &Sandbox) {
    unpack(sandbox, "busybox");
    sandbox.run(&["bundle", "--id", "keeps", "busybox.json", "--", "sleep", "60"]).ok();
    sandbox.run(&["runc", "run", "-d", "-b", "state/containers/keeps", "keeps"]).ok();
    sandbox.run(&["bundle", "delete", "keeps"]).fails(1).one_error_line("bundle", &["keeps", "runs"]);
    sandbox.run(&["bundle", "prune", "--all"]).ok().stdout_is("");
    sandbox.run(&["bundle", "list"]).ok().stdout_has("running");
    sandbox.run(&["runc", "delete", "-f", "keeps"]).ok();
    sandbox.run(&["bundle", "delete", "keeps"]).ok();
}

fn init(sandbox: &Sandbox) {
    unpack(sandbox, "busybox");
    let script = "trap 'exit 3' TERM; (sleep 0 &); sleep 0.2; \
        echo $$ $(cat /proc/1/comm) $(cat /proc/[0-9]*/status | grep -c '^State:.Z'); while :; do sleep 0.1; done";
    sandbox.run(&["bundle", "--init", "--read-only", "--id", "init", "busybox.json", "--", "sh", "-c", script]).ok();
    let running = sandbox.cmd(&["runc", "run", "-b", "state/containers/init", "init"]).start();
    let said = running.wait_stdout("\n");
    assert!(!said.starts_with("1 ") && said.ends_with(" init 0\n"), "{said}");
    sandbox.run(&["runc", "kill", "init", "TERM"]).ok();
    running.wait().fails(3);
    sandbox.run(&["bundle", "delete", "init"]).ok();
    sandbox.run(&["bundle", "--init", "--id", "init", "busybox.json", "--", "no-such-program"]).ok();
    sandbox.run(&["runc", "run", "-b", "state/containers/init", "init"]).fails(127).stderr_has("no-such-program");
    sandbox.run(&["bundle", "delete", "init"]).ok();
}

fn record(sandbox: &Sandbox) {
    unpack(sandbox, "busybox");
    let before: Value = serde_json::from_str(&sandbox.read("busybox.json")).unwrap();
    let after = sandbox.sh("bundle --id web < busybox.json").run().ok().json();
    assert_eq!((&after["image"], &after["rootfs"], &after["id"]), (&before["image"], &before["rootfs"], &"web".into()));
    assert_eq!(after["bundle"], sandbox.at("state/containers/web"));
    assert_eq!(config(sandbox, "web")["annotations"]["org.opencontainers.image.os"], "linux");
    let id = sandbox.run(&["bundle", "busybox.json"]).ok().json()["id"].as_str().unwrap().to_owned();
    assert!(id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    sandbox.run(&["bundle", "delete", "web", &id]).ok();
}

fn print(sandbox: &Sandbox) {
    unpack(sandbox, "nginx");
    let print = || sandbox.run(&["bundle", "--print", "--cap-add", "ALL", "nginx.json"]).ok();
    let first = print();
    assert_eq!(first.json()["root"]["path"], "rootfs");
    for _ in 0..3 {
        assert_eq!(print().stdout, first.stdout);
    }
    sandbox.write("patch.json", r#"{"process":{"cwd":"/srv"},"linux":{"seccomp":null}}"#);
    let patched = sandbox.run(&["bundle", "--print", "--patch", "patch.json", "nginx.json"]).ok().json();
    assert_eq!(patched["process"]["cwd"], "/srv");
    assert!(patched["linux"].get("seccomp").is_none());
    assert!(!sandbox.exists("state/containers"));
}

fn failures(sandbox: &Sandbox) {
    unpack(sandbox, "busybox");
    let mount = format!("type=bind,src={},dst=/y", sandbox.at("nope"));
    let cases: [(&[&str], &[&str]); 6] = [
        (&["-u", "nobody-knows"], &["nobody-knows", "/etc/passwd"]),
        (&["-u", "4294967296"], &["4294967296"]),
        (&["-v", "./made/by/us:/x", "--mount", &mount], &["/nope", "does not exist"]),
        (&["--env-file", "nope.env"], &["nope.env"]),
        (&["--pid", "container:nope"], &["nope", "does not run"]),
        (&["--patch", "busybox.json", "--device", "/dev/nope"], &["/dev/nope"]),
    ];
    for (arguments, parts) in cases {
        let mut command = vec!["bundle", "--id", "web"];
        command.extend(arguments);
        command.push("busybox.json");
        sandbox.run(&command).fails(1).one_error_line("bundle", parts);
        assert_nothing_left(sandbox);
    }
    assert!(!sandbox.exists("made"));
    sandbox.run(&["bundle", "--id", "web", "busybox.json"]).ok();
    sandbox.run(&["bundle", "--id", "web", "busybox.json"]).fails(1).one_error_line("bundle", &["web", "taken"]);
    sandbox.run(&["bundle", "delete", "web"]).ok();
    sandbox.sh("bundle --id web busybox.json > /dev/full").run().fails(1).one_error_line("bundle", &["No space"]);
    assert_nothing_left(sandbox);
}

fn wrong_use(sandbox: &Sandbox) {
    rootfs(sandbox);
    let cases: [(&[&str], &str); 8] = [
        (&["./rootfs"], "names no command"),
        (&["--id", "../x", "./rootfs", "--", "x"], "not a container's id"),
        (&["--memory", "1m", "./rootfs", "--", "x"], "6m"),
        (&["-v", "/a:/x", "-v", "/b:/x", "./rootfs", "--", "x"], "two mounts on /x"),
        (&["-v", "relative/path:/x", "./rootfs", "--", "x"], "neither a path"),
        (&["--cap-add", "EVERYTHING", "./rootfs", "--", "x"], "EVERYTHING"),
        (&["--network", "mine", "./rootfs", "--", "x"], "mine"),
        (&["delete", "/etc"], "not a bundle"),
    ];
    for (arguments, part) in cases {
        let outcome = sandbox.run(&[&["bundle"], arguments].concat()).fails(2);
        assert!(outcome.stderr.contains(part), "{arguments:?}: {}", outcome.stderr);
        assert_nothing_left(sandbox);
    }
    sandbox.run(&["bundle"]).fails(1).one_error_line("bundle", &["no record on stdin"]);
    sandbox.sh("echo garbage | bundle").run().fails(2).one_error_line("bundle", &["not a record"]);
    sandbox.sh("echo '{}' | bundle").run().fails(2).one_error_line("bundle", &["rootfs", "unpack"]);
}

fn delete(sandbox: &Sandbox) {
    unpack(sandbox, "busybox");
    sandbox.run(&["bundle", "--id", "a", "busybox.json"]).ok();
    let path = sandbox.run(&["bundle", "--id", "b", "busybox.json"]).ok().json()["bundle"].as_str().unwrap().to_owned();
    sandbox.sh("test -x state/containers/a/rootfs/bin/busybox").run().ok();
    sandbox.run(&["bundle", "delete", "a", &path]).ok();
    assert_nothing_left(sandbox);
    sandbox.run(&["bundle", "delete", "a"]).fails(1).one_error_line("bundle", &["`a`", "no such bundle"]);
    sandbox.run(&["bundle", "delete", "--force", "a"]).ok();
    sandbox.sh("bundle --id c busybox.json | bundle delete -; ls state/containers").run().ok().stdout_is("");
    sandbox.sh("bundle delete --force - </dev/null").run().fails(1).one_error_line("bundle", &["no record on stdin"]);
    sandbox.sh("echo '{}' | bundle delete -").run().fails(2).one_error_line("bundle", &["id"]);
}

/// The name is free before the files are gone. Whoever removes them may be killed: the next `delete` goes on.
fn large(sandbox: &Sandbox) {
    unpack(sandbox, "busybox");
    let fill = "bundle --id big busybox.json >/dev/null; mkdir state/containers/big/upper/many; cd state/containers/big/upper/many
        seq 60000 | xargs touch";
    let removing = || sandbox.sh("ls -A state/containers | grep -c '^.removed-big'; :").run().ok().stdout;
    sandbox.sh(fill).run().ok();
    let output = sandbox.sh("bundle delete big | cat; ls -A state/containers").run().ok();
    output.stdout_has(".removed-big");
    sandbox
        .sh("pkill -9 -x bundle; until ! pgrep -x bundle; do :; done; ls -A state/containers | grep -c '^.removed-big'")
        .run()
        .stdout_is("1\n");
    sandbox.sh("bundle --id big busybox.json >/dev/null; bundle delete big").run().ok();
    wait_for("the files to go", || (removing() == "0\n").then_some(()));
    sandbox.sh("until ! pgrep -x bundle; do :; done").run();
    assert_nothing_left(sandbox);
}

/// As `run` has it while it starts a container.
fn claimed(sandbox: &Sandbox) {
    unpack(sandbox, "busybox");
    sandbox.sh("bundle --id web busybox.json -- true && umount state/containers/web/rootfs").run().ok();
    sandbox.write("state/run/claims/web", "");
    let held = |verb: &str| sandbox.sh(&format!("flock state/run/claims/web bundle {verb}")).run();
    held("prune").ok().stdout_is("");
    held("prune --all").ok().stdout_is("");
    held("delete web").fails(1).one_error_line("bundle", &["web", "being started or removed"]);
    assert!(sandbox.exists("state/containers/web/config.json"));
    sandbox.run(&["bundle", "prune"]).ok().stdout_is("web\n");
}

/// Whoever waits for a container's end hears of it before its keeper has undone the rest.
fn ending(sandbox: &Sandbox) {
    let run = format!("run -d --name web --network none {} sleep 1000", image("busybox").reference);
    let stopped = "claim=state/run/claims/web; keeper=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/' $claim); kill -STOP $keeper
        spawn kill web KILL; until spawn state web | grep -q stopped; do :; done
        python3 -c 'f = open(\"state/run/claims/web\", \"r+\"); text = f.read().replace(\":false\", \":true\"); f.seek(0); f.write(text); f.truncate()'
        for verb in delete mount; do timeout .3 bundle $verb web; echo $?; done; kill -CONT $keeper
        bundle mount web >/dev/null; bundle delete web";
    sandbox.sh(&format!("{run}; {stopped}")).run().ok().stdout_is("web\n124\n124\n").stderr_is("");
    assert_nothing_left(sandbox);
}

fn prune(sandbox: &Sandbox) {
    unpack(sandbox, "busybox");
    for id in ["kept", "lost"] {
        sandbox.run(&["bundle", "--id", id, "busybox.json"]).ok();
    }
    sandbox
        .sh("umount state/containers/lost/rootfs; mkdir -p state/containers/half/upper state/containers/.removed-x-1")
        .run()
        .ok();
    sandbox.run(&["bundle", "prune"]).ok().stdout_is("half\nlost\n");
    sandbox.run(&["bundle", "prune", "--all"]).ok().stdout_is("kept\n");
    assert_nothing_left(sandbox);
}

fn half_made(sandbox: &Sandbox) {
    unpack(sandbox, "busybox");
    sandbox.sh("mkdir -p state/containers/web/upper; echo > state/containers/web/hosts").run().ok();
    sandbox.run(&["bundle", "--id", "web", "busybox.json"]).ok();
    sandbox.run(&["bundle", "delete", "web"]).ok();
    assert_nothing_left(sandbox);
}

fn interrupted(sandbox: &Sandbox) {
    rootfs(sandbox);
    sandbox.sh("mkdir rootfs/big; cd rootfs/big; for i in $(seq 20000); do : > $i; done").run().ok();
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let running = sandbox.cmd(&["bundle", "--id", "web", "-v", "cache:/big", "./rootfs", "--", "x"]).start();
        wait_for("the volume", || fs::read_dir(sandbox.outside("state/containers/web/.volume")).ok()?.flatten().next());
        running.signal(signal);
        running.wait().fails(code).one_error_line("bundle", &["interrupted"]);
        // What it has copied by then may be more than it waits for.
        sandbox.sh("while pgrep -x bundle; do :; done").run();
        assert_nothing_left(sandbox);
        sandbox.sh("ls -A state/volumes").run().ok().stdout_is("");
    }
}

fn many_layers(sandbox: &Sandbox) {
    sandbox
        .sh("for i in $(seq 500); do mkdir -p layers/$i; echo $i > layers/$i/top; echo $i > layers/$i/$i; done")
        .run()
        .ok();
    let layers: Vec<String> = (1..=500).map(|number| sandbox.at(&format!("layers/{number}"))).collect();
    sandbox.write("record.json", serde_json::json!({"rootfs": {"layers": layers}}).to_string());
    sandbox.run(&["bundle", "--id", "web", "record.json", "--", "x"]).ok();
    sandbox.sh("cd state/containers/web/rootfs; cat top 1; ls | wc -l").run().ok().stdout_is("500\n1\n501\n");
    sandbox.run(&["bundle", "delete", "web"]).ok();
    assert_nothing_left(sandbox);
}

fn volumes(sandbox: &Sandbox) {
    rootfs(sandbox);
    sandbox.sh("mkdir -p rootfs/srv/sub; echo one > rootfs/srv/sub/f; ln -s sub/f rootfs/srv/l; ln rootfs/srv/sub/f rootfs/srv/same; chmod 751 rootfs/srv; chown -R 33:44 rootfs/srv")
        .run()
        .ok();
    sandbox.write(
        "image.json",
        r#"{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]},
        "config":{"Cmd":["x"],"User":"www","Volumes":{"/srv":{},"/none":{}}}}"#,
    );
    sandbox.run(&["bundle", "--id", "a", "--config", "image.json", "./rootfs"]).ok();
    let config = config(sandbox, "a");
    assert_eq!(config["process"]["user"], serde_json::json!({"uid": 33, "gid": 33, "additionalGids": [33, 44]}));
    let source = |destination: &str| {
        let mounts = config["mounts"].as_array().unwrap();
        let mount = mounts.iter().find(|mount| mount["destination"] == destination).unwrap();
        mount["source"].as_str().unwrap().to_owned()
    };
    let look =
        format!("cd {}; cat l; stat -c '%a %u:%g' . sub; stat -c %h same; ls -A {}", source("/srv"), source("/none"));
    sandbox.sh(&look).run().ok().stdout_is("one\n751 33:44\n755 33:44\n2\n");
    sandbox.run(&["bundle", "--id", "b", "--config", "image.json", "-v", "kept:/srv", "./rootfs"]).ok();
    sandbox.sh("cat state/volumes/kept/sub/f; echo two > state/volumes/kept/sub/f").run().ok().stdout_is("one\n");
    sandbox.run(&["bundle", "delete", "a", "b"]).ok();
    sandbox.run(&["bundle", "--id", "b", "--config", "image.json", "-v", "kept:/srv", "./rootfs"]).ok();
    sandbox.sh("cat state/volumes/kept/sub/f").run().ok().stdout_is("two\n");
    sandbox.run(&["bundle", "--id", "c", "-v", "bare:/srv:nocopy", "./rootfs", "--", "x"]).ok();
    sandbox.sh("ls -A state/volumes/bare").run().ok().stdout_is("");
    sandbox.run(&["bundle", "delete", "b", "c"]).ok();
    assert_nothing_left(sandbox);
}

fn named_volumes(sandbox: &Sandbox) {
    rootfs(sandbox);
    sandbox.run(&["bundle", "volume", "ls", "--json"]).ok().stdout_is("[]\n");
    sandbox.run(&["bundle", "volume", "create", "zero", "one", "one"]).ok().stdout_is("zero\none\none\n");
    sandbox
        .run(&["bundle", "--id", "web", "-v", "data:/d", "-v", "data:/e", "-v", "/own", "rootfs", "--", "true"])
        .ok();
    sandbox.write("state/volumes/data/file", "kept");
    sandbox.write("state/volumes/.hidden/file", "not ours");
    sandbox.run(&["bundle", "volume", "ls", "-q"]).ok().stdout_is("data\none\nzero\n");
    let list = |names: &[&str]| sandbox.run(&[&["bundle", "volume", "list", "--json"], names].concat()).ok().stdout;
    let data: Value = serde_json::from_str(&list(&["data"])).unwrap();
    assert_eq!(data[0]["containers"], serde_json::json!(["web"]), "{data}");
    assert!(data[0]["path"].as_str().unwrap().ends_with("state/volumes/data"), "{data}");
    sandbox.run(&["bundle", "volume", "ls", "none"]).fails(1).one_error_line("bundle", &["no volume `none`"]);
    let removed = sandbox.run(&["bundle", "volume", "rm", "data", "zero", "none"]).fails(1);
    removed.stdout_is("zero\n").stderr_has("volume `data`: container web uses it").stderr_has("no volume `none`");
    sandbox
        .run(&["bundle", "volume", "rm", "../containers"])
        .fails(1)
        .one_error_line("bundle", &["not a volume's name"]);
    sandbox.run(&["bundle", "volume", "prune"]).ok().stdout_is("one\n");
    // The directory of all state by another path has the same volumes.
    sandbox
        .sh("ln -s state other; DRAYAGE_ROOT=$PWD/other bundle volume rm data")
        .run()
        .fails(1)
        .stderr_has("container web uses it");
    // What cannot be read may have any, and so may what is being made.
    sandbox.sh("cp state/containers/web/config.json saved; echo '{' >state/containers/web/config.json").run().ok();
    let unknown = sandbox.run(&["bundle", "volume", "prune"]).fails(1);
    unknown.one_error_line("bundle", &["read ", "containers/web/config.json"]);
    sandbox.sh("rm state/containers/web/config.json; bundle volume create new").run().ok();
    sandbox.run(&["bundle", "volume", "prune"]).fails(1).stderr_has("container web is half-made");
    sandbox.sh("cp saved state/containers/web/config.json; mkdir state/volumes/.removed-old").run().ok();
    sandbox.run(&["bundle", "volume", "prune"]).ok().stdout_is("new\n");
    sandbox.sh("ls -A state/volumes").run().ok().stdout_is(".hidden\ndata\n");
    assert_eq!(sandbox.read("state/volumes/data/file") + &sandbox.read("state/volumes/.hidden/file"), "keptnot ours");
    sandbox.run(&["bundle", "delete", "web"]).ok();
    sandbox.run(&["bundle", "volume", "rm", "--force", "data", "none"]).ok().stdout_is("data\n");
}

fn links(sandbox: &Sandbox) {
    rootfs(sandbox);
    sandbox.write("secret/passwd", "evil:x:1:1::/:\n");
    sandbox.sh("rm rootfs/etc/passwd; ln -s $SANDBOX/secret/passwd rootfs/etc/passwd; ln -s $SANDBOX/secret rootfs/vol; ln -s ../../../../../../../../../../$SANDBOX/secret rootfs/up")
        .run()
        .ok();
    sandbox.run(&["bundle", "-u", "evil", "./rootfs", "--", "x"]).fails(1).one_error_line("bundle", &["evil"]);
    sandbox.run(&["bundle", "--id", "a", "-v", "v1:/vol", "-v", "v2:/up", "./rootfs", "--", "x"]).ok();
    sandbox.sh("find state/volumes -type f").run().ok().stdout_is("");
    sandbox.run(&["bundle", "delete", "a"]).ok();
    sandbox.write(
        "image.json",
        r#"{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]},
        "config":{"Cmd":["x"],"Volumes":{"/proc/self":{}}}}"#,
    );
    sandbox.run(&["bundle", "--config", "image.json", "./rootfs"]).fails(1).one_error_line("bundle", &["/proc/self"]);
    assert_nothing_left(sandbox);
}

fn examples(sandbox: &Sandbox) {
    unpack(sandbox, "busybox");
    sandbox
        .run(&["bundle", "--print", "busybox.json", "--", "sh", "-c", "echo hello"])
        .ok()
        .stdout_has("\"echo hello\"");
    rootfs(sandbox);
    sandbox.run(&["bundle", "./rootfs", "--id", "shell", "--tty", "--", "sh"]).ok();
    assert_eq!(config(sandbox, "shell")["root"]["path"], sandbox.at("rootfs"));
    sandbox.run(&["bundle", "delete", "shell"]).ok();
}
