//! Artefacts in both directions between these tools and their peers: each stage can be replaced by a program that
//! reads and writes the same specifications.

use serde_json::Value;

use crate::support::{Need, Sandbox, Test, differences, image, source, test};

const IMAGES: &[Need] = &[Need::Registry, Need::Program("skopeo"), Need::Program("umoci"), Need::Overlay];
const RUNC: &[Need] = &[Need::Registry, Need::Overlay, Need::Program("runc"), Need::Program("umoci")];
const STORAGE: &[Need] = &[Need::Registry, Need::Overlay, Need::Program("skopeo"), Need::Program("jq")];
const ODD: &[Need] = &[Need::Overlay, Need::Program("python3"), Need::Program("skopeo"), Need::Program("umoci")];
const CRUN: &[Need] = &[Need::Registry, Need::Overlay, Need::Program("crun")];

pub(crate) fn tests() -> Vec<Test> {
    let mut tests = vec![
        test("skopeo_reads_the_layout_of_pull", IMAGES, skopeo_reads_pull),
        test("umoci_unpacks_the_layout_of_pull", IMAGES, umoci_unpacks_pull),
        test("unpack_reads_skopeos_layout", IMAGES, unpack_reads_skopeo),
        test("runc_runs_the_bundle_of_bundle", RUNC, runc_runs_bundle),
        test("crun_runs_the_bundle_of_bundle", CRUN, crun_runs_bundle),
        test("spawn_runs_a_bundle_of_runc_spec", RUNC, spawn_runs_runc_spec),
        test("spawn_runs_a_bundle_of_umoci", RUNC, spawn_runs_umoci),
    ];
    for name in ["nginx", "debian", "busybox", "torture"] {
        tests.push(test(&format!("the_flat_tree_of_{name}_equals_umocis"), IMAGES, move |it| {
            flat_equals_umoci(it, name);
        }));
        tests.push(test(&format!("the_overlay_of_{name}_equals_umocis"), IMAGES, move |it| {
            overlay_equals_umoci(it, name);
        }));
        tests.push(test(&format!("the_tree_of_{name}_equals_that_of_containers_storage"), STORAGE, move |it| {
            flat_equals_containers_storage(it, name);
        }));
    }
    for first in [0, 100, 200] {
        let fact = format!("odd_images_from_{first}_on_are_taken_as_skopeo_and_umoci_take_them");
        tests.push(test(&fact, ODD, move |it| odd(it, first)));
    }
    for kind in ["zstd", "plain", "docker", "multi"] {
        let fact = format!("nginx_{kind}_makes_the_same_tree_as_nginx");
        tests.push(test(&fact, IMAGES, move |it| variant_equals_original(it, kind)));
    }
    tests
}

fn skopeo_reads_pull(sandbox: &Sandbox) {
    let nginx = image("nginx").reference;
    let record = sandbox.run(&["pull", "--layout", "layout", &nginx]).ok().json();
    let read = sandbox.run(&["skopeo", "inspect", "oci:layout:latest"]).ok().json();
    assert_eq!(read["Digest"], record["image"]["manifest"]["digest"]);
    // skopeo verifies every blob while it copies.
    sandbox.run(&["skopeo", "copy", "--insecure-policy", "oci:layout:latest", "dir:copy"]).ok();
    let origin = sandbox.run(&["skopeo", "inspect", "--tls-verify=false", &format!("docker://{nginx}")]).ok().json();
    assert_eq!(read["Layers"], origin["Layers"]);
}

fn umoci_unpacks_pull(sandbox: &Sandbox) {
    sandbox.run(&["pull", "--layout", "layout", &image("busybox").reference]).ok();
    sandbox.run(&["umoci", "unpack", "--image", "layout:latest", "bundle"]).ok();
    umoci(sandbox, "busybox");
    assert_same(sandbox, "bundle/rootfs", "busybox/rootfs", true);
}

fn unpack_reads_skopeo(sandbox: &Sandbox) {
    let nginx = image("nginx").reference;
    let source = format!("docker://{nginx}");
    let copy = ["skopeo", "copy", "--insecure-policy", "--src-tls-verify=false", &source, "oci:layout:web"];
    sandbox.run(&copy).ok();
    let record = sandbox.run(&["unpack", "layout", "--ref", "web"]).ok().json();
    assert_eq!(record["rootfs"]["layers"].as_array().map(Vec::len), Some(5));
    sandbox.run(&["unpack", "layout", "--ref", "web", "--flat", "flat"]).ok();
    umoci(sandbox, "nginx");
    assert_same(sandbox, "flat", "nginx/rootfs", false);
}

/// A hundred of the odd images, through skopeo and umoci and through all of ours: half of them as layers, and so those that
/// say of one name both that it is there and that it is gone, which only shows as umoci has it in one tree.
fn odd(sandbox: &Sandbox, first: u32) {
    let numbers = first..first + 100;
    let program = source().join("tests/images/odd.py");
    sandbox.run(&[&program.to_string_lossy(), "odd", &first.to_string(), "100"]).ok();
    let oddities: Value = serde_json::from_str(&sandbox.read("odd.json")).expect("odd.json");
    let at_odds = |number: u32| {
        oddities[number.to_string()].as_array().expect("oddities").iter().any(|odd| odd == "at odds with itself")
    };
    let is_flat = |number: u32| number % 2 == 0 || at_odds(number);
    sandbox.write(
        "one",
        r"set -o pipefail; exec 2>ours/$1.said
        pull -q oci:odd:$1 | unpack $2 $3 | bundle --id c$1 -- true >/dev/null; echo $? >ours/$1.code
        exec >/dev/null 2>theirs/$1.said
        skopeo copy -q oci:odd:$1 oci:copies/$1:x && umoci raw unpack --image copies/$1:x theirs/$1; echo $? >theirs/$1.code",
    );
    sandbox.sh("mkdir ours theirs copies").run().ok();
    for some in numbers.clone().collect::<Vec<_>>().chunks(25) {
        let line = |&number: &u32| {
            if is_flat(number) { format!("{number} --flat ours/{number}\n") } else { format!("{number}\n") }
        };
        sandbox.write("some", some.iter().map(line).collect::<String>());
        sandbox.sh("xargs -P 2 -L 1 bash one <some").run().ok();
    }
    let mut same = 0;
    for number in numbers {
        let code = |whose: &str| sandbox.read(format!("{whose}/{number}.code")).trim().to_owned();
        let said = |whose: &str| sandbox.read(format!("{whose}/{number}.said"));
        match (code("ours").as_str(), code("theirs").as_str()) {
            ("0", "0") => {
                let ours = if is_flat(number) {
                    sandbox.outside(format!("ours/{number}"))
                } else {
                    sandbox.outside(format!("state/containers/c{number}/rootfs"))
                };
                let found = differences(&ours, &sandbox.outside(format!("theirs/{number}")), false);
                assert!(found.is_empty(), "image {number}: {}", found.join("\n"));
                same += 1;
            }
            // What is a file in a lower layer becomes a directory, as overlayfs and docker have it.
            ("0", _) => assert!(said("theirs").trim_end().ends_with("not a directory"), "{number}: {}", said("theirs")),
            (_, "0") => panic!("image {number}: {}", said("ours")),
            (..) => {}
        }
    }
    assert!(same > 85, "{same}");
    sandbox.sh("for id in $(ls state/containers); do bundle delete $id || exit; done").run().ok();
}

/// Unpacks an image by umoci, as the tree to compare with.
fn umoci(sandbox: &Sandbox, name: &str) {
    let source = format!("{}:latest", image(name).layout.display());
    sandbox.run(&["umoci", "unpack", "--image", &source, name]).ok();
}

#[track_caller]
fn assert_same(sandbox: &Sandbox, a: &str, b: &str, times_of_directories: bool) {
    let found = differences(&sandbox.outside(a), &sandbox.outside(b), times_of_directories);
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), found[..found.len().min(20)].join("\n"));
}

fn flat_equals_umoci(sandbox: &Sandbox, name: &str) {
    let layout = image(name).layout.display().to_string();
    sandbox.run(&["unpack", &layout, "--flat", "flat"]).ok();
    umoci(sandbox, name);
    // A single layer leaves nothing open. Where later layers change a directory without naming it, umoci 0.4.7 leaves
    // the time of unpacking.
    let single = matches!(name, "busybox" | "debian");
    assert_same(sandbox, "flat", &format!("{name}/rootfs"), single);
}

fn overlay_equals_umoci(sandbox: &Sandbox, name: &str) {
    let layout = image(name).layout.display().to_string();
    let record = sandbox.run(&["unpack", &layout]).ok().json();
    let layers = record["rootfs"]["layers"].as_array().expect("layers").iter().rev();
    let lower = layers.map(|layer| layer.as_str().unwrap()).collect::<Vec<_>>();
    let options = if let [only] = lower.as_slice() {
        format!("mount --bind {only} merged")
    } else {
        // Relative names: mount(2) takes one page of options.
        let layers = lower.join(":").replace(&format!("{}/", sandbox.at("state/layers/sha256")), "");
        format!("cd state/layers/sha256; mount -t overlay overlay -o lowerdir={layers} \"$SANDBOX/merged\"")
    };
    sandbox.sh(&format!("mkdir merged; {options}")).run().ok();
    umoci(sandbox, name);
    let found = differences(&sandbox.outside("merged"), &sandbox.outside(format!("{name}/rootfs")), false);
    sandbox.run(&["umount", "merged"]).ok();
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), found[..found.len().min(20)].join("\n"));
}

/// What podman and buildah mount, but for what they do otherwise than the specification and umoci.
fn flat_equals_containers_storage(sandbox: &Sandbox, name: &str) {
    let layout = image(name).layout.display().to_string();
    sandbox.run(&["unpack", &layout, "--ref", "latest", "--flat", "flat"]).ok();
    let copy = format!(
        "set -e; mkdir merged
         skopeo copy -q --insecure-policy oci:{layout}:latest \"containers-storage:[overlay@$SANDBOX/cs+$SANDBOX/csr]x/{name}:latest\"
         id=$(jq -r '.[0].layer' cs/overlay-images/images.json); lower=
         while [ -n \"$id\" ]; do
           lower=$lower${{lower:+:}}$id/diff; id=$(jq -r --arg id $id '.[] | select(.id == $id) | .parent // empty' cs/overlay-layers/layers.json)
         done
         cd cs/overlay
         case $lower in *:*) mount -t overlay overlay -o lowerdir=$lower ../../merged ;; *) mount --bind $lower ../../merged ;; esac"
    );
    sandbox.sh(&copy).run().ok();
    let mut found = differences(&sandbox.outside("merged"), &sandbox.outside("flat"), false);
    sandbox.sh("umount merged; ! mountpoint -q cs/overlay || umount cs/overlay").run().ok();
    // The root has its own mode; a file with several names has the owner and mode of its last name's entry; times before
    // 1970 become 1970. All else of these is the same, too.
    let but_for = |line: &str, from: &str, to: &str| {
        let (_, entries) = line.split_once(": ").unwrap();
        let rest = |entry: &str| Some((entry.split_once(from)?.0.to_owned(), entry.split_once(to)?.1.to_owned()));
        entries.split_once(" against ").is_some_and(|(one, other)| rest(one) == rest(other))
    };
    let odd = |line: &String| match line.split_once(':').unwrap().0 {
        "." => true,
        "time/before-the-epoch" => but_for(line, "modified", "device"),
        link if link.starts_with("bin/") || link.starts_with("hl/") => but_for(line, "mode", "modified"),
        _ => false,
    };
    found.retain(|line| !odd(line));
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), found[..found.len().min(20)].join("\n"));
}

fn variant_equals_original(sandbox: &Sandbox, kind: &str) {
    let original = image("nginx");
    sandbox.run(&["unpack", &original.layout.display().to_string(), "--flat", "original"]).ok();
    let reference = format!("{}:{kind}", original.reference);
    sandbox.pipe(&[&format!("pull {reference}"), "unpack --flat flat"]).ok();
    assert_same(sandbox, "flat", "original", true);
}

/// Makes a bundle of busybox that says hello, by the tools under test, and returns its path.
fn bundle_of_hello(sandbox: &Sandbox, id: &str) -> String {
    let pull = format!("pull {}", image("busybox").reference);
    let bundle = format!("bundle --id {id} -- sh -c 'echo hello from $(id -u)'");
    let record = sandbox.pipe(&[&pull, "unpack", &bundle]).ok().json();
    record["bundle"].as_str().expect("a bundle").to_owned()
}

fn runc_runs_bundle(sandbox: &Sandbox) {
    let bundle = bundle_of_hello(sandbox, "e2e-interchange-runc");
    sandbox.run(&["runc", "run", "--bundle", &bundle, "e2e-interchange-runc"]).ok().stdout_is("hello from 0\n");
    sandbox.run(&["bundle", "delete", "e2e-interchange-runc"]).ok();
}

fn crun_runs_bundle(sandbox: &Sandbox) {
    let bundle = bundle_of_hello(sandbox, "e2e-interchange-crun");
    // crun refuses hybrid control groups by looking whether the unified hierarchy offers a controller.
    let script = format!(
        "f=/sys/fs/cgroup/unified/cgroup.controllers; [ ! -e $f ] || mount --bind /dev/null $f
         exec crun run --bundle {bundle} e2e-interchange-crun"
    );
    sandbox.run(&["unshare", "--mount", "sh", "-c", &script]).ok().stdout_is("hello from 0\n");
    sandbox.run(&["bundle", "delete", "e2e-interchange-crun"]).ok();
}

fn spawn_runs_runc_spec(sandbox: &Sandbox) {
    umoci(sandbox, "busybox");
    sandbox.sh("mkdir bundle; mv busybox/rootfs bundle/; cd bundle; runc spec").run().ok();
    say_hello(sandbox, "bundle/config.json");
    sandbox.run(&["spawn", "run", "--bundle", "bundle", "e2e-interchange-spec"]).ok().stdout_is("hello from 0\n");
}

fn spawn_runs_umoci(sandbox: &Sandbox) {
    umoci(sandbox, "busybox");
    say_hello(sandbox, "busybox/config.json");
    sandbox.run(&["spawn", "run", "--bundle", "busybox", "e2e-interchange-umoci"]).ok().stdout_is("hello from 0\n");
}

/// Edits a config.json: no terminal, and a command that says who it is.
fn say_hello(sandbox: &Sandbox, config: &str) {
    let mut value: Value = serde_json::from_str(&sandbox.read(config)).expect("a config.json");
    value["process"]["terminal"] = false.into();
    value["process"]["args"] = serde_json::json!(["sh", "-c", "echo hello from $(id -u)"]);
    sandbox.write(config, value.to_string());
}
