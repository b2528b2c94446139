//! More than one image: all tags of a repository, several references at once, artifacts, what refers to an image.

use super::verify::{OWN, registry};
use super::{FAULTY, IMAGES, PORT, faulty};
use crate::support::{Need, Sandbox, Test, image, source, test};

const PUSHED: &[Need] = &[Need::Registry, Need::Program("skopeo"), Need::Program("openssl"), Need::Program("python3")];

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("a_blob_is_resumed_and_progress_tells_from_where", IMAGES, resumed),
        test("all_tags_of_a_repository_come", IMAGES, all_tags),
        test("tags_in_pages_come_too", FAULTY, pages),
        test("an_image_is_looked_at_where_it_is", IMAGES, inspect),
        test("images_of_the_layout_get_further_names", IMAGES, tag),
        test("several_references_are_several_records", IMAGES, several),
        test("types_that_nobody_knows_are_copied", PUSHED, unknown),
        test("what_refers_to_an_image_comes_by_its_tag", PUSHED, by_tag),
        test("what_refers_to_an_image_comes_by_the_api", FAULTY, by_api),
    ]
}

fn names(sandbox: &Sandbox, layout: &str) -> Vec<String> {
    let list = sandbox.run(&["pull", "list", "--json", "--layout", layout]).ok().json();
    let mut names: Vec<String> =
        list.as_array().unwrap().iter().map(|image| image["name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

/// As a killed run leaves it: half of the largest blob.
fn resumed(sandbox: &Sandbox) {
    let nginx = image("nginx");
    let cut = format!(
        "set -e; pull --layout l {} >/dev/null; blobs=l/blobs/sha256; large=$(ls -S $blobs | head -n 1)
         half=$(($(stat -c %s $blobs/$large) / 2)); head -c $half $blobs/$large >l/ingest/sha256-$large.partial
         rm $blobs/$large; echo sha256:$large $half",
        nginx.reference
    );
    let said = sandbox.sh(&cut).run().ok().stdout;
    let (digest, half) = said.trim().split_once(' ').unwrap();
    let half: u64 = half.parse().unwrap();
    let pull = format!("pull --layout l --progress json:7 {} 7>progress", nginx.reference);
    sandbox.sh(&pull).run().ok().stderr_is("");
    let events: Vec<serde_json::Value> =
        sandbox.read("progress").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |event: &str| -> Vec<&serde_json::Value> {
        events.iter().filter(|line| line["digest"] == digest && line["event"] == event).collect()
    };
    assert_eq!(of("start").iter().map(|line| line["offset"].as_u64()).collect::<Vec<_>>(), [Some(half)], "{events:?}");
    assert_eq!(
        of("done").iter().map(|line| &line["offset"]).collect::<Vec<_>>(),
        [&of("done")[0]["size"]],
        "{events:?}"
    );
    assert_whole(sandbox, "l", &[]);
    // Whoever does not listen to the end gets the image all the same; a descriptor that is not there is wrong use.
    sandbox
        .sh(&format!("pull --layout m --progress json:7 {} 7>&1 >/dev/null | head -n 1", nginx.reference))
        .run()
        .ok();
    sandbox.run(&["skopeo", "inspect", "oci:m:latest"]).ok();
    let none = sandbox.run(&["pull", "--layout", "n", "--progress", "json:9", &nginx.reference]).fails(1);
    none.one_error_line("pull", &["write progress to fd 9"]);
    sandbox.run(&["pull", "--progress", "json:x", &nginx.reference]).fails(2).stderr_has("no file descriptor");
}

fn all_tags(sandbox: &Sandbox) {
    let nginx = image("nginx").reference;
    let outcome = sandbox.run(&["pull", "--layout", "l", "--all-tags", &nginx]).ok();
    let tags = ["docker", "latest", "multi", "plain", "zstd"].map(|tag| format!("{nginx}:{tag}"));
    assert_eq!(names(sandbox, "l"), tags);
    assert_eq!(outcome.stdout.lines().count(), tags.len());
    // A tag or digest beside it contradicts it.
    let tagged = sandbox.run(&["pull", "--layout", "l", "--all-tags", &format!("{nginx}:plain")]).fails(2);
    tagged.one_error_line("pull", &["--all-tags", "names a tag"]);
    let none = sandbox.run(&["pull", "--all-tags", "127.0.0.1:5000/no/such"]).fails(1);
    none.one_error_line("pull", &["list tags of 127.0.0.1:5000/no/such", "not found"]);
}

fn pages(sandbox: &Sandbox) {
    let _registry = faulty(sandbox);
    sandbox.run(&["pull", "--layout", "l", "--all-tags", &format!("{PORT}/paged/image")]).ok();
    let tags = ["a", "b", "c", "d", "latest"].map(|tag| format!("{PORT}/paged/image:{tag}"));
    assert_eq!(names(sandbox, "l"), tags);
}

fn inspect(sandbox: &Sandbox) {
    let (multi, layout) = (image("nginx:multi").reference, image("nginx").layout);
    let tags = sandbox.run(&["pull", "tags", &image("nginx").reference]).ok().stdout;
    assert_eq!(tags.lines().count(), 5, "{tags}");
    let root = sandbox.run(&["pull", "digest", &multi]).ok().stdout;
    let arm = sandbox.run(&["pull", "digest", "--platform", "linux/arm64", &multi]).ok().stdout;
    assert_ne!(root, arm);
    let seen = sandbox.run(&["pull", "inspect", "--platform", "linux/arm64", &multi]).ok().json();
    assert_eq!((seen["digest"].as_str(), seen["image"].as_str()), (Some(root.trim()), Some(arm.trim())));
    assert_eq!(seen["config"]["architecture"], "arm64");
    assert!(seen["platforms"].as_array().unwrap().iter().any(|platform| platform == "linux/s390x"), "{seen}");
    let raw = format!("test sha256:$(pull inspect --raw {multi} | sha256sum | cut -c-64) = {root}");
    sandbox.sh(raw.trim()).run().ok();
    let local = sandbox.run(&["pull", "inspect", &format!("oci:{}:latest", layout.display())]).ok().json();
    let sizes: u64 = local["layers"].as_array().unwrap().iter().map(|layer| layer["size"].as_u64().unwrap()).sum();
    assert_eq!(local["size"], sizes);
    let config = sandbox.run(&["pull", "inspect", "--config", &format!("oci:{}", layout.display())]).ok().json();
    assert_eq!(config, local["config"]);
    assert!(!sandbox.exists("state/oci"), "nothing is fetched");
    let none = sandbox.run(&["pull", "inspect", "127.0.0.1:5000/no/such"]).fails(1);
    none.one_error_line("pull", &["look at 127.0.0.1:5000/no/such", "not found"]);
}

fn tag(sandbox: &Sandbox) {
    let busybox = image("busybox").reference;
    sandbox.run(&["pull", "--layout", "l", &busybox]).ok();
    sandbox.run(&["pull", "tag", "--layout", "l", &busybox, "mine", "h.io/a/b:1"]).ok();
    assert_eq!(
        names(sandbox, "l"),
        [format!("{busybox}:latest"), "docker.io/library/mine:latest".into(), "h.io/a/b:1".into()]
    );
    let listed = sandbox.run(&["pull", "list", "--layout", "l", "--json"]).ok().json();
    assert!(listed[0]["created"].is_string() && listed[0]["platform"] == "linux/amd64", "{listed}");
    let digests = sandbox.run(&["pull", "list", "-q", "--layout", "l"]).ok().stdout;
    assert_eq!(digests.trim(), listed[0]["digest"]);
    sandbox.run(&["pull", "rm", "--layout", "l", "mine"]).ok();
    assert_eq!(names(sandbox, "l").len(), 2);
    sandbox
        .run(&["pull", "tag", "--layout", "l", "none", "x"])
        .fails(1)
        .one_error_line("pull", &["tag none", "no image"]);
}

fn several(sandbox: &Sandbox) {
    let (busybox, debian) = (image("busybox").reference, image("debian").reference);
    let outcome = sandbox.run(&["pull", "--layout", "l", &busybox, &debian]).ok();
    let records: Vec<serde_json::Value> =
        outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let references: Vec<&str> = records.iter().filter_map(|record| record["image"]["reference"].as_str()).collect();
    assert_eq!(references, [format!("{busybox}:latest"), format!("{debian}:latest")]);
    let some = sandbox.run(&["pull", "--layout", "m", &busybox, "127.0.0.1:5000/no/such", &debian]).fails(1);
    assert_eq!(some.stderr, "pull: fetch 127.0.0.1:5000/no/such:latest: not found\n");
    assert_eq!(names(sandbox, "m"), [format!("{busybox}:latest")]);
}

/// Pushes team/app:artifact, and what refers to team/app:1; returns the digests of both.
fn push(sandbox: &Sandbox) -> (String, String) {
    let program = source().join("tests/e2e/pull/artifact.py");
    let said = sandbox.run(&[program.to_str().unwrap(), OWN, "team/app", "artifact", "1"]).ok().stdout;
    let (first, second) = said.trim().split_once(' ').unwrap();
    (first.to_owned(), second.to_owned())
}

/// Every blob of the layout is what its name says, and as many files are text as are told.
fn assert_whole(sandbox: &Sandbox, layout: &str, texts: &[&str]) {
    let check = "for b in *; do echo \"$b  $b\"; done | sha256sum -c --quiet";
    sandbox.sh(&format!("cd {layout}/blobs/sha256 && {check}")).run().ok();
    for text in texts {
        sandbox.sh(&format!("grep -qrx '{text}' {layout}/blobs")).run().ok();
    }
}

fn unknown(sandbox: &Sandbox) {
    let _registry = registry(sandbox, "busybox");
    let (artifact, _) = push(sandbox);
    for (name, options) in [(format!("@{artifact}"), &[][..]), (":artifact".to_owned(), &["--all-platforms"][..])] {
        let mut command = vec!["pull", "--layout", "l"];
        command.extend(options);
        let name = format!("{OWN}/team/app{name}");
        command.push(&name);
        let record = sandbox.run(&command).ok().stderr_is("").json();
        assert_eq!(record["image"]["manifest"]["digest"], artifact.as_str());
        assert_eq!(record["image"]["manifest"]["platform"], serde_json::Value::Null);
        assert_whole(sandbox, "l", &["recipe 1", "odd odd odd odd odd odd odd odd odd "]);
        sandbox.run(&["pull", "gc", "--layout", "l"]).ok().stdout_has("0 blobs");
        sandbox
            .run(&["unpack", "--flat", "tree", "l"])
            .fails(1)
            .one_error_line("unpack", &["oci.empty.v1+json: an artifact"]);
        sandbox.sh("rm -r l").run().ok();
    }
}

fn by_tag(sandbox: &Sandbox) {
    let _registry = registry(sandbox, "busybox");
    let (_, bill) = push(sandbox);
    let app = format!("{OWN}/team/app:1");
    sandbox.run(&["pull", "--layout", "without", &app]).ok();
    sandbox.sh("! grep -qr bill without/blobs").run().ok();
    let record = sandbox.run(&["pull", "--layout", "l", "--referrers", &app]).ok().stderr_is("").json();
    assert_whole(sandbox, "l", &["bill 1"]);
    assert!(sandbox.exists(format!("l/blobs/{}", bill.replace(':', "/"))));
    // It is no image of the layout's, but it stays as long as its image does.
    assert_eq!(
        sandbox.run(&["unpack", "l"]).ok().json()["image"]["manifest"]["digest"],
        record["image"]["manifest"]["digest"]
    );
    sandbox.run(&["pull", "gc", "--layout", "l"]).ok().stdout_has("0 blobs");
    sandbox.run(&["pull", "remove", "--layout", "l", &app]).ok();
    sandbox.run(&["pull", "gc", "--layout", "l"]).ok();
    sandbox.sh("test -z \"$(ls l/blobs/sha256)\"").run().ok();
    // What nothing refers to comes all the same.
    sandbox.run(&["pull", "--layout", "m", "--referrers", &image("busybox").reference]).ok().stderr_is("");
}

fn by_api(sandbox: &Sandbox) {
    let _registry = faulty(sandbox);
    sandbox.run(&["pull", "--layout", "l", "--referrers", &format!("{PORT}/referred/image")]).ok().stderr_is("");
    assert_whole(sandbox, "l", &["bill of the image", "opinion of the image"]);
    sandbox.run(&["pull", "gc", "--layout", "l"]).ok().stdout_has("0 blobs");
}
