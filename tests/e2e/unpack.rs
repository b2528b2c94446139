//! `unpack`: a layout becomes layers or a root file system, whatever is in it and whatever happens meanwhile.

mod commit;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Need, Running, Sandbox, Test, differences, image, source, test, wait_for};

const HOSTILE: &[Need] = &[Need::Root, Need::Program("python3"), Need::Program("zstd")];
const IMAGES: &[Need] = &[Need::Registry];
const OVERLAY: &[Need] = &[Need::Registry, Need::Overlay];
const DEPENDENT: &[Need] = &[Need::Overlay, Need::Program("python3"), Need::Program("umoci"), Need::Program("zstd")];
const WRITTEN: &[Need] = &[Need::Registry, Need::Program("strace")];
const USER: &[Need] = &[Need::Registry, Need::Program("newuidmap"), Need::Program("setpriv"), Need::Program("unshare")];
const USERS_OVERLAY: &[Need] = &[Need::Registry, Need::Overlay, Need::Program("setpriv"), Need::Program("unshare")];
const MEMORY: &[Need] = &[Need::Root, Need::Program("python3"), Need::Program("zstd")];

pub(crate) fn tests() -> Vec<Test> {
    let mut tests = vec![
        test("hostile_images_do_as_expected_in_one_tree", HOSTILE, |it| hostile(it, true)),
        test("hostile_images_do_as_expected_in_layers", HOSTILE, |it| hostile(it, false)),
        test("no_image_needs_more_than_50_megabytes", MEMORY, memory),
        test("layers_are_extracted_once_and_closed_to_others", IMAGES, once),
        test("directories_that_no_entry_describes_look_as_below", HOSTILE, undescribed),
        test("a_layer_that_depends_on_lower_ones_equals_umocis", DEPENDENT, dependent),
        test("two_runs_at_once_share_the_work", IMAGES, at_once),
        test("a_killed_run_leaves_what_the_next_one_sweeps", IMAGES, killed),
        test("a_layer_that_the_disk_may_lack_is_extracted_again", OVERLAY, unwritten),
        test("layers_are_written_to_the_disk_and_errors_told", WRITTEN, written),
        test("interrupted_it_leaves_nothing_in_the_store", IMAGES, |it| interrupted(it, &[])),
        test("interrupted_it_leaves_nothing_beside_the_tree", IMAGES, |it| interrupted(it, &["--flat", "tree"])),
        test("a_blob_that_never_arrives_is_an_error", IMAGES, never_arrives),
        test("a_blob_may_arrive_while_it_waits", IMAGES, arrives),
        test("a_full_disk_is_one_line_and_nothing_left", IMAGES, full_disk),
        test("a_directory_in_use_is_refused", IMAGES, in_use),
        test("options_for_a_layout_need_a_layout", IMAGES, layout_options),
        test("the_platform_chooses_from_an_index", IMAGES, platform),
        test("in_a_user_namespace_layers_are_marked_for_it", OVERLAY, user_namespace),
        test("an_ordinary_users_layers_mount_as_the_merged_tree", USERS_OVERLAY, ordinary_users_overlay),
        test("an_ordinary_user_unpacks_with_the_ids_of_newuidmap", USER, ordinary_user),
    ];
    tests.extend(commit::tests());
    tests
}

/// Makes the hostile layouts, and a directory outside that none of them may touch.
fn hostile_layouts(sandbox: &Sandbox) -> Vec<Value> {
    sandbox.write("victim/keep", "keep\n");
    let generator = source().join("tests/images/hostile.py").display().to_string();
    sandbox.run(&["python3", "-B", &generator, &sandbox.at("hostile"), &sandbox.at("victim")]).ok();
    let cases: Value = serde_json::from_str(&sandbox.read("hostile/cases.json")).unwrap();
    cases.as_array().unwrap().clone()
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().filter_map(Value::as_str).collect()
}

fn hostile(sandbox: &Sandbox, flat: bool) {
    let cases = hostile_layouts(sandbox);
    assert!(cases.len() >= 60);
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        let layout = format!("hostile/{name}");
        let mut command = vec!["unpack"];
        command.extend(if flat { ["--flat", "tree"] } else { ["--root", "root"] });
        command.extend(strings(&case["options"]));
        command.push(&layout);
        let outcome = sandbox.run(&command);
        match case["refused"].as_str() {
            Some(reason) => {
                outcome.fails(1).one_error_line("unpack", &[reason]);
                assert!(!sandbox.exists("tree"), "{name} left a tree");
            }
            None if flat => {
                outcome.ok();
                assert_tree(sandbox, name, case);
            }
            None => drop(outcome.ok()),
        }
        assert_eq!(sandbox.read("victim/keep"), "keep\n", "{name}");
        assert_eq!(names(sandbox, "victim"), ["keep"], "{name}");
        let left = names(sandbox, if flat { "." } else { "root/layers/tmp" });
        assert!(!flat || !left.iter().any(|name| name.starts_with(".tree")), "{name} left {left:?}");
        assert!(flat || left.is_empty(), "{name} left {left:?}");
        // std's remove_dir_all has as many directories open as the tree is deep: more than Debian's 1024 files.
        sandbox.run(&["rm", "-rf", "tree", "root"]).ok();
    }
}

fn assert_tree(sandbox: &Sandbox, name: &str, case: &Value) {
    for path in strings(&case["present"]) {
        assert!(sandbox.exists(format!("tree/{path}")), "{name}: {path} is missing");
    }
    for path in strings(&case["absent"]) {
        assert!(!sandbox.exists(format!("tree/{path}")), "{name}: {path} is there");
    }
    for (path, content) in case["content"].as_object().unwrap() {
        assert_eq!(sandbox.read(format!("tree/{path}")), content.as_str().unwrap(), "{name}: {path}");
    }
}

fn names(sandbox: &Sandbox, directory: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(sandbox.outside(directory)) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn memory(sandbox: &Sandbox) {
    hostile_layouts(sandbox);
    for name in ["gzip-bomb", "gzip-bomb-behind-the-end", "pax-bomb", "gnu-name-bomb", "sparse-huge-count", "path-long"]
    {
        for mode in ["--flat", "--root"] {
            let layout = format!("hostile/{name}");
            let out = format!("out-{name}{mode}");
            let (_, peak) = sandbox.run_measured(&["unpack", mode, &out, &layout]);
            assert!(peak < 50 << 10, "{name} {mode}: {peak} KiB");
        }
    }
}

fn layout(name: &str) -> String {
    image(name).layout.display().to_string()
}

fn layers(record: &Value) -> Vec<String> {
    strings(&record["rootfs"]["layers"]).into_iter().map(str::to_owned).collect()
}

fn once(sandbox: &Sandbox) {
    let nginx = layout("nginx");
    let record = sandbox.run(&["unpack", &nginx]).ok().json();
    let inodes = |record: &Value| -> Vec<u64> {
        layers(record).iter().map(|path| fs::metadata(sandbox.outside(path)).unwrap().ino()).collect()
    };
    let before = inodes(&record);
    let again = sandbox.run(&["unpack", &layout("nginx:zstd")]).ok().json();
    assert_eq!(layers(&again), layers(&record), "the same layers in another compression are the same layers");
    assert_eq!(inodes(&again), before);
    let mode = fs::metadata(sandbox.outside("state/layers")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert_eq!(fs::metadata(sandbox.outside("state")).unwrap().permissions().mode() & 0o022, 0);
}

fn undescribed(sandbox: &Sandbox) {
    hostile_layouts(sandbox);
    let record = sandbox.run(&["unpack", "hostile/parents-undescribed"]).ok().json();
    let layers = layers(&record);
    assert_eq!(layers.len(), 5);
    let top = layers.last().unwrap();
    assert!(top.contains("/layers/parents/"), "{top}");
    assert_eq!(names(sandbox, top), ["t"], "what the top layer describes needs no more");
    let (top, lowest) = [format!("{top}/t"), format!("{}/t", layers[0])]
        .map(|path| fs::metadata(sandbox.outside(path)).unwrap())
        .into();
    assert_eq!((top.mode(), top.uid(), top.mtime()), (0o41777, 5, lowest.mtime()));
    let again = sandbox.run(&["unpack", "hostile/parents-undescribed"]).ok().json();
    assert_eq!(again, record);
    // Half of what was noted of the stack is nothing.
    sandbox.sh("cd state/layers/parents && for f in *.implicit; do head -c 60 $f >$f.x; mv $f.x $f; done").run().ok();
    assert_eq!(sandbox.run(&["unpack", "hostile/parents-undescribed"]).ok().json(), record);
    let whole = sandbox.run(&["unpack", "hostile/opaque-last"]).ok().json();
    assert!(!self::layers(&whole).iter().any(|path| path.contains("parents")));
    let none = sandbox.run(&["unpack", "hostile/no-layers"]).ok().json();
    assert_eq!(self::layers(&none).len(), 1);
    // What an opaque whiteout empties is still the lower layer's directory.
    let emptied = sandbox.run(&["unpack", "hostile/opaque-undescribed"]).ok().json();
    let top = fs::metadata(sandbox.outside(format!("{}/d", self::layers(&emptied)[2]))).unwrap();
    sandbox.run(&["unpack", "--flat", "tree", "hostile/opaque-undescribed"]).ok();
    let flat = fs::metadata(sandbox.outside("tree/d")).unwrap();
    assert_eq!((top.mode(), top.uid()), (flat.mode(), flat.uid()));
    assert_eq!((flat.mode(), flat.uid()), (0o40700, 7));
}

/// Hard links and paths through lower layers, and a whiteout in a directory that no other layer has.
fn dependent(sandbox: &Sandbox) {
    hostile_layouts(sandbox);
    let layout = "hostile/depends-on-lower-layers";
    let record = sandbox.run(&["unpack", layout]).ok().json();
    let again = sandbox.run(&["unpack", layout]).ok().json();
    assert_eq!(again, record);
    assert!(names(sandbox, "state/layers/tmp").is_empty());
    let mut lower = layers(&record);
    lower.reverse();
    let lower = lower.join(":").replace(&format!("{}/", sandbox.at("state/layers")), "");
    let mount = format!("cd state/layers; mount -t overlay overlay -o lowerdir={lower} \"$SANDBOX/merged\"");
    sandbox.sh(&format!("mkdir merged; {mount}")).run().ok();
    sandbox.run(&["umoci", "unpack", "--image", &format!("{layout}:latest"), "umoci"]).ok();
    let found = differences(&sandbox.outside("merged"), &sandbox.outside("umoci/rootfs"), false);
    sandbox.run(&["umount", "merged"]).ok();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

fn at_once(sandbox: &Sandbox) {
    let debian = layout("debian");
    let runs: Vec<Running> = (0..3).map(|_| sandbox.cmd(&["unpack", &debian]).start()).collect();
    let records: Vec<Value> = runs.into_iter().map(|run| run.wait().ok().json()).collect();
    assert_eq!(records[0], records[1]);
    assert_eq!(records[0], records[2]);
    assert!(names(sandbox, "state/layers/tmp").is_empty());
}

/// Copies an image's layout, takes the blob of its last layer away, and starts `unpack` on it as `pull` would: it waits.
fn start_waiting(sandbox: &Sandbox, options: &[&str]) -> Running {
    sandbox.run(&["cp", "-r", &layout("nginx"), "layout"]).ok();
    let index: Value = serde_json::from_str(&sandbox.read("layout/index.json")).unwrap();
    let descriptor = &index["manifests"][0];
    let blob = |digest: &Value| format!("layout/blobs/{}", digest.as_str().unwrap().replace(':', "/"));
    let manifest: Value = serde_json::from_str(&sandbox.read(blob(&descriptor["digest"]))).unwrap();
    let last = manifest["layers"].as_array().unwrap().last().unwrap();
    fs::rename(sandbox.outside(blob(&last["digest"])), sandbox.outside("blob")).unwrap();
    sandbox.write("place", blob(&last["digest"]));
    let record = serde_json::json!({"image": {"layout": sandbox.at("layout"), "manifest": descriptor}});
    sandbox.write("record", record.to_string());
    let mut command = vec!["unpack"];
    command.extend(options);
    let mut running = sandbox.cmd(&command).open_stdin().start();
    running.write_stdin(&format!("{record}\n"));
    let flat = options.contains(&"--flat");
    wait_for("the other layers", || {
        if flat {
            let name = names(sandbox, ".").into_iter().find(|name| name.starts_with(".tree.unpack-"))?;
            return sandbox.exists(format!("{name}/usr/sbin/nginx")).then_some(());
        }
        let layers = names(sandbox, "state/layers/sha256").into_iter().filter(|name| !name.contains('.')).count();
        let done = layers + 1 == manifest["layers"].as_array()?.len();
        (done && !names(sandbox, "state/layers/tmp").is_empty()).then_some(())
    });
    running
}

fn let_arrive(sandbox: &Sandbox) {
    fs::rename(sandbox.outside("blob"), sandbox.outside(sandbox.read("place"))).unwrap();
}

fn killed(sandbox: &Sandbox) {
    let running = start_waiting(sandbox, &[]);
    running.signal(Signal::KILL);
    running.wait().fails(137);
    assert!(!names(sandbox, "state/layers/tmp").is_empty(), "killed too late to show anything");
    let_arrive(sandbox);
    let record = sandbox.run(&["unpack", "record"]).ok().json();
    assert!(names(sandbox, "state/layers/tmp").is_empty());
    assert!(sandbox.exists(layers(&record).last().unwrap()));
}

/// After a boot that has not seen it on the disk; a test gives the machine another boot by its id.
fn unwritten(sandbox: &Sandbox) {
    let image = image("busybox").reference;
    let script = format!(
        "echo one >boot; mount --bind boot /proc/sys/kernel/random/boot_id
        lower() {{ echo state/layers/sha256/*[!t]; }}
        written() {{ until [ -z \"$(ls state/layers/unwritten)\" ]; do :; done; }}
        spoil() {{ >state/layers/unwritten/$1.sha256.$(basename $(lower)).1; echo torn >$(lower)/etc/torn; }}
        run -d --name web --network none {image} sleep 100; written; keep stop -t 0 web
        spoil one; pull {image} | unpack >/dev/null; cat $(lower)/etc/torn; written
        spoil one; spoil other; echo two >boot
        for verb in 'bundle mount' 'unpack diff'; do $verb web 2>&1 | sed s,.*machine,machine,; done
        keep start web; spawn exec web ls /etc/torn 2>&1 | grep -o 'No such file'; keep stop -t 0 web; written
        spoil one; run --rm --network none {image} ls /etc/torn 2>&1 | grep -o 'No such file'; written
        spoil one; pull oci:{other} | unpack >/dev/null; ls state/layers/unwritten | cut -d. -f1,2
        keep rm -f web; pull rm {image} >/dev/null; pull gc --grace 0 >/dev/null; written
        umount /proc/sys/kernel/random/boot_id",
        other = layout("nginx:plain")
    );
    let refused = "machine stopped before it was on the disk: unpack its image again\n";
    sandbox.sh(&script).run().ok().stdout_is(&format!(
        "web\nweb\ntorn\n{refused}{refused}web\nNo such file\nweb\nNo such file\none.sha256\nweb\n"
    ));
}

/// By a process that outlives `unpack` and holds nothing of it, or before its end; without that the mark stays.
fn written(sandbox: &Sandbox) {
    let layout = layout("busybox");
    let marks = |root: &str| names(sandbox, &format!("{root}/layers/unwritten")).len();
    sandbox.run(&["unpack", "--root", "later", &layout]).ok();
    wait_for("the disk", || (marks("later") == 0).then_some(()));
    sandbox.run(&["unpack", "--root", "now", "--sync", &layout]).ok();
    assert_eq!(marks("now"), 0);
    let inject = |how: &str, command: &str| {
        sandbox.sh(&format!("strace -f -qq -o /dev/null -e inject=syncfs:{how} {command} {layout}"))
    };
    // What has failed is known as long as this boot lasts, whatever the disk says later, and not believed in the next.
    inject("error=EIO", "unpack --root bad").run().ok();
    for _ in 0..2 {
        sandbox.run(&["unpack", "--root", "bad", &layout]).ok();
        assert!(names(sandbox, "bad/layers/unwritten")[0].ends_with(".failed"));
    }
    let refused = sandbox.run(&["unpack", "--root", "bad", "--sync", &layout]).fails(1);
    refused.one_error_line("unpack", &["the disk has refused layer"]);
    let failed = inject("error=EIO", "unpack --root worse --sync").run().fails(1);
    failed.one_error_line("unpack", &["write", "to the disk", "Input/output"]);
    // Whoever reads what it prints does not wait for the disk.
    let slow = "mkfifo pipe; strace -D -f -qq -o /dev/null -e inject=syncfs:delay_enter=2000000 \
        sh -c 'exec unpack --root slow \"$1\" >pipe 2>&1' sh";
    let ended = format!("{slow} {layout} & cat pipe >/dev/null; ls slow/layers/unwritten | wc -l; wait");
    sandbox.sh(&ended).run().ok().stdout_is("1\n");
    wait_for("the disk", || (marks("slow") == 0).then_some(()));
}

fn interrupted(sandbox: &Sandbox, options: &[&str]) {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let running = start_waiting(sandbox, options);
        running.signal(signal);
        running.wait().fails(code).stdout_is("");
        assert!(names(sandbox, "state/layers/tmp").is_empty());
        assert!(!names(sandbox, ".").iter().any(|name| name.contains("tree")), "{:?}", names(sandbox, "."));
        for directory in ["layout", "state"] {
            let _ = fs::remove_dir_all(sandbox.outside(directory));
        }
    }
}

fn never_arrives(sandbox: &Sandbox) {
    let mut running = start_waiting(sandbox, &[]);
    running.close_stdin();
    running.wait().fails(1).one_error_line("unpack", &["never arrived"]);
    assert!(names(sandbox, "state/layers/tmp").is_empty());
}

fn arrives(sandbox: &Sandbox) {
    let running = start_waiting(sandbox, &["--flat", "tree"]);
    let_arrive(sandbox);
    let record = running.wait().ok().json();
    assert_eq!(record["rootfs"]["path"], sandbox.at("tree").as_str());
    assert!(sandbox.exists("tree/usr/sbin/nginx"));
    let mut running = start_waiting(sandbox, &[]);
    // What the kernel looks up anew in /proc is another file for Landlock.
    sandbox.sh("echo 2 >/proc/sys/vm/drop_caches").run().ok();
    let_arrive(sandbox);
    running.close_stdin();
    running.wait().ok();
}

fn full_disk(sandbox: &Sandbox) {
    sandbox.run(&["mkdir", "small"]).ok();
    sandbox.run(&["mount", "-t", "tmpfs", "-o", "size=4m", "small", "small"]).ok();
    let debian = layout("debian");
    let full = "No space left on device";
    sandbox.run(&["unpack", "--flat", "small/tree", &debian]).fails(1).one_error_line("unpack", &[full]);
    assert!(names(sandbox, "small").is_empty());
    sandbox.run(&["unpack", "--root", "small", &debian]).fails(1).one_error_line("unpack", &[full]);
    assert!(names(sandbox, "small/layers/tmp").is_empty() && names(sandbox, "small/layers/sha256").is_empty());
    sandbox.run(&["umount", "small"]).ok();
}

fn in_use(sandbox: &Sandbox) {
    let busybox = layout("busybox");
    sandbox.write("tree/file", "mine");
    sandbox.run(&["unpack", "--flat", "tree", &busybox]).fails(1).one_error_line("unpack", &["tree", "not empty"]);
    sandbox.run(&["unpack", "--flat", "tree/file", &busybox]).fails(1).one_error_line("unpack", &["already exists"]);
    sandbox.run(&["unpack", "--flat", "no/tree", &busybox]).fails(1).one_error_line("unpack", &["no"]);
    sandbox.run(&["mkdir", "empty"]).ok();
    sandbox.run(&["unpack", "--flat", "empty", &busybox]).ok();
    assert!(sandbox.exists("empty/bin/busybox"));
}

fn layout_options(sandbox: &Sandbox) {
    let record = sandbox.run(&["unpack", &layout("busybox"), "--ref", "latest"]).ok().stdout;
    sandbox.write("record", &record);
    sandbox.run(&["unpack", "record", "--ref", "latest"]).fails(2).one_error_line("unpack", &["--ref"]);
    sandbox.run(&["unpack", &layout("busybox"), "--ref", "nosuch"]).fails(1).one_error_line("unpack", &["nosuch"]);
    sandbox.run(&["unpack"]).fails(1).one_error_line("unpack", &["no record on stdin"]);
}

fn platform(sandbox: &Sandbox) {
    let multi = layout("nginx:multi");
    let native = sandbox.run(&["unpack", &multi]).ok().json();
    let arm = sandbox.run(&["unpack", &multi, "--platform", "linux/arm64"]).ok().json();
    assert_ne!(layers(&native), layers(&arm));
    sandbox.run(&["unpack", &multi, "--platform", "plan9/amd64"]).fails(1).one_error_line("unpack", &["plan9"]);
}

fn user_namespace(sandbox: &Sandbox) {
    let torture = layout("torture");
    // As newuidmap does it, but for ids that /etc/subuid need not grant.
    let script = format!(
        "mkfifo go
         unshare --user sh -c 'read _ <go; exec unpack {torture}' & pid=$!
         until [ \"$(readlink /proc/$pid/ns/user)\" != \"$(readlink /proc/self/ns/user)\" ]; do :; done
         printf '0 0 65536\\n3000000 3000000 1\\n' >/proc/$pid/uid_map
         printf '0 0 65536\\n4000000 4000000 1\\n' >/proc/$pid/gid_map
         echo >go; wait $pid"
    );
    let outcome = sandbox.sh(&script).run().ok();
    assert!(outcome.stderr.contains("no permission to make device"), "{outcome}");
    let record = outcome.json();
    let script = "for layer; do getfattr --absolute-names -R -h -m overlay -d \"$layer\"; done";
    let mut command = vec!["sh", "-c", script, "sh"];
    let paths = layers(&record);
    command.extend(paths.iter().map(String::as_str));
    sandbox.run(&command).ok().stdout_has("user.overlay.opaque=\"y\"");
}

/// Whiteouts and opaque directories hide what they hide in a mount that the user makes: it equals the tree in which they
/// were carried out. Who gains capabilities by being executed passes over the sandbox's variable for mount(8): that is env.
fn ordinary_users_overlay(sandbox: &Sandbox) {
    let torture = layout("torture");
    let inside = format!(
        r#"read _ <go; cd u
        unpack --root store {torture} 2>/dev/null >record; unpack --flat tree {torture} 2>/dev/null >flat
        lower=$(jq -r '.rootfs.layers | reverse | join(":")' record)
        mkdir merged; env mount -t overlay overlay -o "ro,userxattr,lowerdir=$lower" merged
        look() {{ (cd $1; find . ! -type d -printf '%p %y %m %U:%G %T@ %s %l\n' -o -printf '%p %y %m %U:%G %T@\n' | sort
            find . -type f -print0 | sort -z | xargs -0 md5sum); }}
        look merged >one; look tree >two; cmp one two && wc -l <one
        find $(echo $lower | tr : ' ') -type c -printf '%y\n' | sort | uniq -c
        for layer in $(echo $lower | tr : ' '); do
            getfattr --absolute-names -R -h -m overlay -d "$layer"; done | grep -c user.overlay.opaque=.y"#
    );
    sandbox.write("inside", &inside);
    let script = r#"mkdir -m 777 u; mkfifo go; chmod 666 go; chmod 644 inside
        setpriv --reuid=65534 --regid=65534 --clear-groups unshare --user --mount sh -eu inside & pid=$!
        until [ "$(readlink /proc/$pid/ns/user)" != "$(readlink /proc/self/ns/user)" ]; do :; done
        printf '0 65534 1\n1 100000 65535\n3000000 3000000 1\n' >/proc/$pid/uid_map
        printf '0 65534 1\n1 100000 65535\n4000000 4000000 1\n' >/proc/$pid/gid_map
        echo >go; wait $pid"#;
    let outcome = sandbox.sh(script).run().ok();
    let numbers: Vec<u32> = outcome.stdout.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert!(numbers.len() == 3 && numbers[0] > 100 && numbers[1] > 0 && numbers[2] > 0, "{outcome}");
}

/// `nobody` is root in there, and has the ids from 100000 on for all others.
fn ordinary_user(sandbox: &Sandbox) {
    sandbox.write("sub", "nobody:100000:65536\n");
    sandbox.sh("mkdir -m 777 u; mount --bind sub /etc/subuid && mount --bind sub /etc/subgid").run().ok();
    let debian = layout("debian");
    let inside = format!("set -e; unpack --root u/s {debian} >u/record; unpack --flat u/tree {debian} >u/flat");
    let user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let mapped = ["unshare", "--user", "--map-root-user", "--map-auto", "sh", "-c", &inside];
    let unpacked = sandbox.run(&[&user[..], &mapped].concat());
    sandbox.sh("umount /etc/subuid /etc/subgid").run().ok();
    unpacked.ok().stderr_is("");
    let layer = layers(&serde_json::from_str(&sandbox.read("u/record")).unwrap()).remove(0);
    let owners = "cd \"$0\"; find . | wc -l; stat -c '%u:%g %a' etc/passwd etc/shadow usr/bin/passwd usr/bin/wall";
    sandbox.run(&["unpack", "--flat", "tree", &debian]).ok();
    let roots = sandbox.run(&["sh", "-c", owners, "tree"]).ok().stdout;
    assert!(roots.contains("0:42 640"), "{roots}");
    let mapped = roots.split_ascii_whitespace().map(|word| match word.split_once(':') {
        Some((uid, gid)) => format!("{}:{}", outside_id(uid), outside_id(gid)),
        None => word.to_owned(),
    });
    let mapped: Vec<String> = mapped.collect();
    for tree in ["u/tree", &layer] {
        let found = sandbox.run(&["sh", "-c", owners, tree]).ok().stdout;
        assert_eq!(found.split_ascii_whitespace().collect::<Vec<_>>(), mapped, "{tree}");
    }
}

fn outside_id(inside: &str) -> u32 {
    match inside.parse().unwrap() {
        0 => 65534,
        id => 99_999 + id,
    }
}
