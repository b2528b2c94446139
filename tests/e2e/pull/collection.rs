//! `pull gc` and `pull remove`: what nobody needs goes, what an image or a container needs stays.

use crate::support::{Need, Sandbox, Test, image, source, test};

const NEEDS: &[Need] = &[Need::Registry, Need::Overlay];
const MADE: &[Need] = &[Need::Root, Need::Overlay, Need::Program("python3")];
const LAYERS: &str = "cd state/layers; ls -d sha256/* chains/* parents/* 2>/dev/null | sort";

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("gc_sweeps_every_kind_of_layer", MADE, kinds),
        test("a_containers_layers_outlive_its_image", NEEDS, container),
        test("young_layers_and_those_in_work_are_left", NEEDS, young),
        test("a_damaged_record_stops_no_collection_and_costs_no_layers", NEEDS, damaged_record),
        test("a_blob_with_wrong_content_is_fetched_again", NEEDS, damaged_blobs),
        test("a_layout_that_was_only_begun_has_no_images", NEEDS, begun),
    ]
}

/// As a killed first `pull` leaves it, or the power that goes.
fn begun(sandbox: &Sandbox) {
    for leftover in ["", "blobs/sha256", "ingest"] {
        sandbox.sh(&format!("rm -rf state/oci; mkdir -p state/oci/{leftover}")).run().ok();
        sandbox.run(&["pull", "list", "-q"]).ok().stdout_is("");
        sandbox.run(&["pull", "gc"]).ok();
    }
    sandbox.sh("rm -rf state/oci").run().ok();
    sandbox.write("state/oci/mine", "");
    sandbox.run(&["pull", "list"]).fails(1).one_error_line("pull", &["not an OCI image layout"]);
}

/// Makes a layout whose upper layer has files in directories that only the lower layer describes.
fn make(sandbox: &Sandbox) {
    let script = format!(
        "import sys, io, tarfile; sys.path.insert(0, {:?})\n{}",
        source().join("tests/images").display().to_string(),
        r#"
import hashlib, json, os
def layer(entries):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, mode, content in entries:
            info = tarfile.TarInfo(name)
            info.mode, info.size = mode, len(content or b"")
            info.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            tar.addfile(info, io.BytesIO(content or b""))
    return out.getvalue()
# The upper layer's file comes before its directory: what lies between is made up, and is the lower layer's matter.
layers = [layer([("d", 0o711, None), ("d/low", 0o644, b"low")]), layer([("d/file", 0o644, b"x")])]
os.makedirs("image/blobs/sha256")
def put(data, kind):
    name = hashlib.sha256(data).hexdigest()
    open("image/blobs/sha256/" + name, "wb").write(data)
    return {"mediaType": kind, "digest": "sha256:" + name, "size": len(data)}
descriptors = [put(data, "application/vnd.oci.image.layer.v1.tar") for data in layers]
config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [d["digest"] for d in descriptors]}}
manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "config": put(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"), "layers": descriptors}
entry = put(json.dumps(manifest).encode(), manifest["mediaType"])
entry["annotations"] = {"org.opencontainers.image.ref.name": "made"}
json.dump({"schemaVersion": 2, "manifests": [entry]}, open("image/index.json", "w"))
open("image/oci-layout", "w").write('{"imageLayoutVersion":"1.0.0"}')
"#
    );
    sandbox.write("make.py", script);
    sandbox.run(&["python3", "make.py"]).ok();
}

fn layers(sandbox: &Sandbox) -> String {
    sandbox.sh(LAYERS).run().stdout
}

fn kinds(sandbox: &Sandbox) {
    make(sandbox);
    sandbox.run(&["pull", "oci:image:made"]).ok();
    sandbox.pipe(&["pull oci:image:made", "unpack >record"]).ok();
    // Notes that lost their layer, and a chain of an image that is gone.
    sandbox.write("state/layers/sha256/0123.implicit", "");
    sandbox.write("state/layers/chains/sha256-0123/file", "");
    let before = layers(sandbox);
    assert!(before.contains("parents/sha256-") && before.contains(".implicit"), "{before}");
    sandbox.run(&["pull", "gc", "--grace", "0"]).ok().stdout_has("0 blobs (0 B) and 1 layers");
    let kept = layers(sandbox);
    let needed = |line: &&str| !line.contains("0123");
    assert_eq!(kept.lines().collect::<Vec<_>>(), before.lines().filter(needed).collect::<Vec<_>>());
    // What stayed is used as it is.
    let rootfs = "jq -c .rootfs.layers";
    sandbox
        .sh(&format!(
            "pull --policy missing oci:image:made | unpack >again && {rootfs} record >a && {rootfs} again | cmp a -"
        ))
        .run()
        .ok();
    sandbox.run(&["pull", "remove", "made"]).ok();
    sandbox.run(&["pull", "gc", "--grace", "0"]).ok().stdout_has("3 layers");
    assert_eq!(layers(sandbox), "");
    sandbox.sh("test -z \"$(ls state/layers/tmp)\"").run().ok();
}

fn container(sandbox: &Sandbox) {
    make_running(sandbox);
    sandbox.run(&["pull", "remove", &image("busybox").reference]).ok();
    sandbox.run(&["pull", "gc", "--grace", "0"]).ok().stdout_has("and 0 layers");
    sandbox.sh("test -x state/containers/web/rootfs/bin/busybox").run().ok();
    sandbox.run(&["bundle", "delete", "web"]).ok();
    sandbox.run(&["pull", "gc", "--grace", "0"]).ok().stdout_has("and 1 layers");
    assert_eq!(layers(sandbox), "");
}

/// As a power cut leaves it.
fn damaged_record(sandbox: &Sandbox) {
    make_running(sandbox);
    sandbox.run(&["pull", "remove", &image("busybox").reference]).ok();
    for damage in ["", "{\"rootfs\":", "{\"rootfs\":[]}"] {
        sandbox.write("state/containers/web/record.json", damage);
        let collected = sandbox.run(&["pull", "gc", "--grace", "0"]).ok();
        assert!(collected.stdout.contains("and 0 layers"), "{}", collected.stdout);
        assert!(
            collected.stderr.contains("container web") && collected.stderr.contains("bundle delete web"),
            "{}",
            collected.stderr
        );
    }
    sandbox.sh("test -x state/containers/web/rootfs/bin/busybox").run().ok();
    sandbox.run(&["bundle", "delete", "web"]).ok();
    sandbox.run(&["pull", "gc", "--grace", "0"]).ok().stdout_has("and 1 layers");
}

/// Every blob in turn is of its size and all zeros.
fn damaged_blobs(sandbox: &Sandbox) {
    let pull = format!("pull {}", image("busybox").reference);
    sandbox.pipe(&[&pull, "unpack >record"]).ok();
    let blobs = sandbox.sh("ls state/oci/blobs/sha256").run().ok().stdout;
    for blob in blobs.lines() {
        let path = format!("state/oci/blobs/sha256/{blob}");
        let zeros = format!("head -c $(stat -c %s {path}) /dev/zero >zeros && mv zeros {path} && rm -rf state/layers");
        sandbox.sh(&zeros).run().ok();
        let outcome = sandbox.pipe(&[&pull, "unpack >again"]);
        if outcome.stderr.contains(&format!("{blob}, and pull the image again")) {
            // A layer: its reader writes to no layout, and names the way out.
            sandbox.run(&["rm", &path]).ok();
        }
        sandbox.pipe(&[&pull, "unpack >again && cmp record again"]).ok();
    }
}

fn make_running(sandbox: &Sandbox) {
    let pull = format!("pull {}", image("busybox").reference);
    sandbox.pipe(&[&pull, "unpack", "bundle --id web -- true"]).ok();
}

fn young(sandbox: &Sandbox) {
    let pull = format!("pull {}", image("busybox").reference);
    sandbox.pipe(&[&pull, "unpack"]).ok();
    let before = layers(sandbox);
    sandbox.run(&["pull", "remove", &image("busybox").reference]).ok();
    sandbox.run(&["pull", "gc"]).ok().stdout_has("and 0 layers");
    assert_eq!(layers(sandbox), before);
    // A layer that is being extracted has no final name yet; nobody takes its directory away.
    sandbox.write("state/layers/tmp/4567/half", "");
    sandbox.run(&["pull", "gc", "--grace", "0"]).ok().stdout_has("and 1 layers");
    assert!(sandbox.exists("state/layers/tmp/4567/half"));
}
