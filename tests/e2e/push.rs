//! `push`: what the layout has becomes a registry's, whatever the registry does.

use crate::pull::{PORT, faulty};
use crate::support::{Need, Running, Sandbox, Test, image, source, test};

/// A registry that takes images.
pub(crate) const OWN: &str = "127.0.0.1:5001";
const NEEDS: &[Need] = &[Need::Registry, Need::Program("python3"), Need::Program("jq")];
const SKOPEO: &[Need] = &[Need::Registry, Need::Program("skopeo"), Need::Program("jq")];
/// Where tests/images/faulty-upload listens in a sandbox.
const UPLOADS: &str = "127.0.0.1:5007";

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("what_is_pushed_is_pulled_back_as_it_was", SKOPEO, back),
        test(
            "a_registry_of_another_kind_takes_images_and_gives_them_back",
            &[Need::Registry, Need::Program("container-registry"), Need::Program("jq")],
            another_kind,
        ),
        test("all_platforms_go_with_their_index", SKOPEO, all_platforms),
        test(
            "a_committed_container_goes_to_a_registry",
            &[Need::Registry, Need::Overlay, Need::Program("jq")],
            committed,
        ),
        test(
            "plain_layers_are_compressed_on_the_way",
            &[Need::Registry, Need::Overlay, Need::Program("skopeo"), Need::Program("podman"), Need::Program("jq")],
            compressed,
        ),
        test("a_blob_is_sent_while_it_arrives", NEEDS, through),
        test("all_tags_of_a_repository_go", NEEDS, all_tags),
        test("blobs_of_other_repositories_are_not_sent", NEEDS, mounted),
        test("what_refers_to_an_image_goes_too", NEEDS, referrers),
        test("faults_of_an_upload_end_well", NEEDS, faults),
        test("lies_about_an_upload_are_refused_in_one_line", NEEDS, lies),
        test("what_is_too_much_at_once_goes_in_pieces", NEEDS, pieces),
        test("an_uploads_credentials_stay_with_their_registry", NEEDS, credentials),
        test("a_killed_push_is_repeated", NEEDS, killed),
        test("an_upload_that_is_cut_or_killed_anywhere_ends_well", NEEDS, cut_anywhere),
        test("a_damaged_blob_ends_it_before_the_manifest", NEEDS, damaged),
        test("no_push_needs_more_than_20_megabytes", NEEDS, memory),
        test("wrong_use_of_push_is_one_line", NEEDS, wrong_use),
    ]
}

/// Starts an empty registry.
pub(crate) fn registry(sandbox: &Sandbox) -> Running {
    let configuration = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{OWN}'}}\n",
        sandbox.at("own")
    );
    sandbox.write("own.yml", configuration);
    serve(sandbox, &["docker-registry", "serve", "own.yml"])
}

fn serve(sandbox: &Sandbox, registry: &[&str]) -> Running {
    let registry = sandbox.cmd(registry).start();
    sandbox.sh("until bash -c ': </dev/tcp/127.0.0.1/5001' 2>/dev/null; do :; done").run();
    registry
}

/// Starts the registry that breaks and lies; its log of requests is the file `uploads`.
fn uploads(sandbox: &Sandbox) -> Running {
    let program = source().join("tests/images/faulty-upload");
    let registry = sandbox.cmd(&[&program.to_string_lossy(), "5007", "uploads"]).start();
    registry.wait_stdout("ready");
    registry
}

/// Returns the digest of what a reference names.
fn digest(sandbox: &Sandbox, reference: &str) -> String {
    sandbox.run(&["pull", "digest", reference]).ok().stdout.trim().to_owned()
}

/// Returns the command line that pushes a test image.
fn line<'a>(layout: &'a str, to: &'a str) -> [&'a str; 5] {
    ["push", "--layout", layout, "latest", to]
}

fn back(sandbox: &Sandbox) {
    let _registry = registry(sandbox);
    for name in ["nginx", "nginx:zstd", "nginx:docker"] {
        let image = image(name);
        let to = format!("{OWN}/back/{}", name.replace(':', "-"));
        sandbox.run(&["pull", "--layout", "from", &image.reference]).ok();
        let record = sandbox.sh(&format!("pull --layout from {} | push {to}", image.reference)).run().ok().json();
        let want = digest(sandbox, &image.reference);
        assert_eq!(record["image"]["reference"], format!("{to}:latest@{want}"));
        assert_eq!(record["image"]["manifest"]["digest"], want);
        // A copy reads every blob and checks it; a manifest that is changed has another digest.
        let copy = ["skopeo", "copy", "--src-tls-verify=false", "--preserve-digests"];
        sandbox
            .run(&[&copy[..], &[&format!("docker://{to}@{want}"), &format!("dir:{}", name.replace(':', "-"))]].concat())
            .ok();
        assert_eq!(digest(sandbox, &to), want);
        let again = sandbox.run(&["pull", "--layout", "again", &to]).ok().json();
        assert_eq!(again["image"]["manifest"]["digest"], want);
    }
    // What is there is not sent again.
    let layout = image("nginx").layout.display().to_string();
    let to = format!("{OWN}/back/nginx");
    let events = sandbox.run(&[&line(&layout, &to)[..], &["--progress", "json"]].concat()).ok().stderr;
    assert!(events.contains("\"present\"") && !events.contains("\"start\""), "{events}");
}

/// The crate's registry shares no code with distribution's: it wants names of two words, an upload by one PATCH and a PUT
/// without content, numbers ranges otherwise, knows no HEAD of manifests, sends blobs without their length, and wants
/// credentials without saying so.
fn another_kind(sandbox: &Sandbox) {
    sandbox.sh("mkdir own").run().ok();
    sandbox.write("home/.docker/config.json", format!(r#"{{"auths":{{"{OWN}":{{"auth":"YWxpY2U6c2VjcmV0"}}}}}}"#));
    let _registry = serve(sandbox, &["container-registry", "--bind", OWN, "--storage", "own"]);
    for name in ["busybox", "nginx"] {
        let (from, to) = (image(name).reference, format!("{OWN}/kind/{name}:1"));
        sandbox.sh(&format!("pull {from} | push {to}")).run().ok();
        assert_eq!(digest(sandbox, &to), digest(sandbox, &from));
        sandbox.run(&["pull", "--layout", "back", &to]).ok().stdout_has(&digest(sandbox, &from));
        let events = sandbox.run(&["push", "--progress", "json", &from, &to]).ok().stderr;
        assert!(events.contains("\"present\"") && !events.contains("\"start\""), "{events}");
    }
}

fn all_platforms(sandbox: &Sandbox) {
    let _registry = registry(sandbox);
    let multi = image("nginx:multi");
    let want = digest(sandbox, &multi.reference);
    let to = format!("{OWN}/multi");
    sandbox
        .sh(&format!("pull --all-platforms {} | push --all-platforms {to}:1", multi.reference))
        .run()
        .ok()
        .stdout_has(&want);
    sandbox.run(&["push", &multi.reference, &format!("{to}:2")]).ok();
    for tag in [1, 2] {
        assert_eq!(digest(sandbox, &format!("{to}:{tag}")), want);
        let (from, back) = (format!("docker://{to}:{tag}"), format!("dir:back{tag}"));
        sandbox.run(&["skopeo", "copy", "--all", "--src-tls-verify=false", &from, &back]).ok();
    }
    let one = sandbox.run(&["push", "--platform", "linux/arm64", &multi.reference, &format!("{to}:3")]).ok().json();
    assert_eq!(one["image"]["manifest"]["platform"]["architecture"], "arm64");
    sandbox.run(&["pull", "--layout", "arm", "--platform", "linux/arm64", &format!("{to}:3")]).ok();
    // The record names one image, and the layout has no index that would hold it.
    let single = format!("pull --layout single {} | push --all-platforms {to}:4", image("nginx").reference);
    sandbox.sh(&single).run().ok();
}

fn committed(sandbox: &Sandbox) {
    let _registry = registry(sandbox);
    let busybox = image("busybox").reference;
    sandbox
        .sh(&format!("pull {busybox} | unpack | bundle --id web --network none -- sh -c 'echo new >/page' | spawn"))
        .run()
        .ok();
    sandbox.sh(&format!("unpack commit web --tag {OWN}/web:1 && push {OWN}/web:1 </dev/null")).run().ok();
    sandbox.sh(&format!("unpack commit web --tag {OWN}/web:2 | push {OWN}/web:2")).run().ok();
    sandbox.sh("bundle delete web; pull rm 127.0.0.1:5001/web:1 127.0.0.1:5001/web:2").run().ok();
    for tag in [1, 2] {
        let show = format!("pull --layout new {OWN}/web:{tag} | unpack --flat tree{tag} && cat tree{tag}/page");
        sandbox.sh(&show).run().ok().stdout_has("new\n");
    }
}

/// Of an image with a compressed and a plain layer, by itself, out of an archive of docker's, and in an index.
fn compressed(sandbox: &Sandbox) {
    let _registry = registry(sandbox);
    let busybox = image("busybox").reference;
    let run = "unpack | bundle --id web --network none -- sh -c 'seq 99999 >/page' | spawn";
    sandbox.sh(&format!("pull {busybox} | {run}; unpack commit web --compression none --tag here/web:1")).run().ok();
    sandbox.sh("bundle delete web; pull --policy never --to docker-archive:web.tar here/web:1").run().ok();
    let index = r#"type=application/vnd.oci.image.index.v1+json; cd state/oci
        m=$(jq -c '.manifests[-1] | del(.annotations)' index.json)
        jq -cn --argjson m "$m" --arg t $type '{schemaVersion: 2, mediaType: $t, manifests:
            [$m, ($m | .annotations = {"vnd.docker.reference.digest": .digest})]}' >i
        d=$(sha256sum <i | cut -c-64); s=$(stat -c %s i); mv i blobs/sha256/$d
        jq -c --arg t $type --arg d sha256:$d --argjson s $s '.manifests += [{mediaType: $t, size: $s, digest: $d,
            annotations: {"org.opencontainers.image.ref.name": "all"}}]' index.json >i && mv i index.json"#;
    sandbox.sh(index).run().ok();
    let old = sandbox.run(&["pull", "inspect", "--raw", "oci:state/oci:docker.io/here/web:1"]).ok().json();
    let before = sandbox.sh("find state/oci | sort").run().ok().stdout;
    for (compress, suffix) in [("gzip", "tar+gzip"), ("zstd", "tar+zstd")] {
        let to = format!("{OWN}/{compress}");
        sandbox.run(&["push", "--compress", compress, "here/web:1", &format!("{to}:one")]).ok();
        sandbox
            .sh(&format!("pull docker-archive:web.tar --layout saved | push --compress {compress} {to}:saved"))
            .run()
            .ok();
        sandbox.run(&["push", "--compress", compress, "all", &format!("{to}:all")]).ok();
        for tag in ["one", "saved", "all"] {
            let to = format!("{to}:{tag}");
            sandbox.run(&["skopeo", "copy", "--src-tls-verify=false", &format!("docker://{to}"), "dir:back"]).ok();
            let new = sandbox.sh("cat back/manifest.json; rm -r back").run().ok().json();
            assert_eq!(new["config"]["digest"], old["config"]["digest"], "{new}");
            assert_eq!(new["layers"][0]["digest"], old["layers"][0]["digest"], "{new}");
            assert!(new["layers"][1]["mediaType"].as_str().unwrap().ends_with(suffix), "{new}");
            let show = format!("pull --layout new {to} | unpack --flat tree && tail -n 1 tree/page && rm -r tree");
            sandbox.sh(&show).run().ok().stdout_has("99999\n");
        }
        // podman takes no longer path.
        let podman = "podman --root /run/p/s --runroot /run/p/r --storage-driver vfs";
        let pull = format!(
            "{podman} pull -q --tls-verify=false {to}:one && {podman} image inspect -f '{{{{.RepoDigests}}}}' {to}:one"
        );
        sandbox.sh(&pull).run().ok().stdout_has(&digest(sandbox, &format!("{to}:one")));
        let index = sandbox.run(&["pull", "inspect", "--raw", &format!("{to}:all")]).ok().json();
        let one = digest(sandbox, &format!("{to}:one"));
        assert_eq!(index["manifests"][0]["digest"], one, "{index}");
        assert_eq!(index["manifests"][1]["annotations"]["vnd.docker.reference.digest"], one, "{index}");
        // The same content is the same blob.
        let again = ["push", "--progress", "json", "--compress", compress, "here/web:1", &format!("{to}:again")];
        let again = sandbox.run(&again).ok();
        assert!(!again.stderr.contains("\"start\"") && again.stdout.contains(&one), "{again:?}");
    }
    assert_eq!(sandbox.sh("find state/oci | sort").run().ok().stdout, before);
}

/// Both tools tell of the blob before either has it whole.
fn through(sandbox: &Sandbox) {
    let (_from, _to) = (faulty(sandbox), registry(sandbox));
    let pull = format!("pull --progress json:5 {PORT}/slow/image 5>>events");
    sandbox.sh(&format!("{pull} | push --progress json:5 {OWN}/slow 5>>events")).run().ok();
    let events: Vec<serde_json::Value> =
        sandbox.read("events").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let large = events.iter().map(|event| event["size"].as_u64().unwrap()).max().unwrap();
    let of_large = events.iter().filter(|event| event["size"] == large && event["event"] != "progress");
    let order: Vec<&str> = of_large.map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(order, ["start", "start", "done", "done"], "{events:?}");
    sandbox.run(&["pull", "--layout", "back", &format!("{OWN}/slow")]).ok();
    // One that ends before it has all is no image.
    let cut = format!("pull --retries 0 {PORT}/stall/image --timeout 1 2>/dev/null | push {OWN}/cut");
    sandbox.sh(&cut).run().fails(1).one_error_line("push", &["never arrived"]);
    sandbox.run(&["pull", &format!("{OWN}/cut")]).fails(1);
    // Nor is one with a wrong byte: while it arrives it is pull that hashes it.
    for (fault, ends) in [("corrupt1", 0), ("corrupt", 1)] {
        let line = format!("rm -rf of back; pull --layout of {PORT}/{fault}/image 2>/dev/null | push {OWN}/{fault}");
        assert_eq!(sandbox.sh(&line).run().code(), ends, "{fault}");
        assert_eq!(sandbox.run(&["pull", "--layout", "back", &format!("{OWN}/{fault}")]).code(), ends, "{fault}");
    }
}

fn all_tags(sandbox: &Sandbox) {
    let _registry = registry(sandbox);
    let (nginx, plain) = (image("nginx").reference, image("nginx:plain").reference);
    sandbox.run(&["pull", &nginx, &plain]).ok();
    sandbox
        .sh(&format!("pull tag {nginx} {OWN}/all:a {OWN}/all:b {OWN}/other:c; pull tag {plain} {OWN}/all:d"))
        .run()
        .ok();
    let records = sandbox.run(&["push", "--all-tags", &format!("{OWN}/all")]).ok().stdout;
    assert_eq!(records.lines().count(), 3, "{records}");
    let tags = sandbox.sh(&format!("pull tags {OWN}/all | sort | xargs")).run().ok().stdout;
    assert_eq!(tags, "a b d\n");
    sandbox.run(&["push", "-a", &format!("{OWN}/all"), &format!("{OWN}/copy")]).ok();
    assert_eq!(digest(sandbox, &format!("{OWN}/copy:d")), digest(sandbox, &plain));
    sandbox.run(&["push", "-a", &format!("{OWN}/none")]).fails(1).one_error_line("push", &["no tag of"]);
}

fn mounted(sandbox: &Sandbox) {
    let _registry = uploads(sandbox);
    let busybox = image("busybox").layout.display().to_string();
    sandbox.run(&["pull", &format!("oci:{busybox}:latest")]).ok();
    for fault in ["mount", "nomount"] {
        let (first, second) = (format!("{UPLOADS}/{fault}/image"), format!("{UPLOADS}/{fault}/again"));
        sandbox.run(&["push", "latest", &first]).ok();
        sandbox.run(&["pull", "tag", "latest", &first]).ok();
        sandbox.run(&["push", &first, &second]).ok();
        assert_eq!(digest(sandbox, &second), digest(sandbox, &first));
        let log = sandbox.read("uploads");
        let of_second = |verb: &str| {
            log.lines().filter(|line| line.starts_with(verb) && line.contains(&format!("{fault}/again"))).count()
        };
        assert_eq!(of_second("PATCH"), if fault == "mount" { 0 } else { 2 }, "{log}");
        assert!(log.contains(&format!("&from={fault}/image")), "{log}");
    }
}

/// The second push adds to what the first has put there.
fn referrers(sandbox: &Sandbox) {
    let (_from, _to) = (faulty(sandbox), registry(sandbox));
    sandbox.run(&["pull", "--referrers", &format!("{PORT}/referred/image")]).ok();
    let to = format!("{OWN}/referred");
    let tag =
        "jq -r '.manifests[].annotations[\"org.opencontainers.image.ref.name\"]' state/oci/index.json | grep ^sha256-";
    let tag = sandbox.sh(tag).run().ok().stdout.trim().to_owned();
    let other = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
    sandbox.write("other", other);
    sandbox.sh(&format!("curl -sf -X PUT -H 'Content-Type: application/vnd.oci.image.index.v1+json' --data-binary @other http://{OWN}/v2/referred/manifests/{tag}")).run().ok();
    sandbox.run(&["push", "--referrers", &format!("{PORT}/referred/image"), &to]).ok();
    sandbox.run(&["pull", "--layout", "back", "--referrers", &to]).ok();
    let index = sandbox.run(&["pull", "inspect", "--raw", &format!("{to}:{tag}")]).ok().json();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2, "{index}");
}

fn faults(sandbox: &Sandbox) {
    let _registry = uploads(sandbox);
    let layout = image("busybox").layout.display().to_string();
    let want = digest(sandbox, &format!("oci:{layout}:latest"));
    for fault in ["good", "cut", "cut5", "lost", "again", "late", "e503", "e429", "put", "taken", "wrong1"] {
        let to = format!("{UPLOADS}/{fault}/image");
        let record = sandbox.run(&[&line(&layout, &to)[..], &["--timeout", "5"]].concat()).ok().stderr_is("").json();
        assert_eq!(record["image"]["manifest"]["digest"], want, "{fault}");
        let back = sandbox.run(&["pull", "--layout", fault, &to]).ok().json();
        assert_eq!(back["image"]["manifest"]["digest"], want, "{fault}");
    }
    // What has arrived is not sent again.
    let resumed = |entry: &&str| entry.starts_with("PATCH") && entry.contains("/cut/") && !entry.contains(" - - ");
    assert!(sandbox.read("uploads").lines().any(|entry| resumed(&entry)), "{}", sandbox.read("uploads"));
}

fn lies(sandbox: &Sandbox) {
    let _registry = uploads(sandbox);
    let layout = image("busybox").layout.display().to_string();
    for (fault, said) in [
        ("nolocation", "names no place"),
        ("other", "the registry calls it sha256:e3b0c4"),
        ("otherman", "the registry calls it sha256:e3b0c4"),
        ("forever", "202 Accepted, and has it not"),
        ("stuck", "takes nothing of it"),
        ("wrong", "(DIGEST_INVALID: it is not what it is called)"),
        ("quota", "(DENIED: the quota is used up)"),
        ("full", "(DENIED: the disk is full)"),
        ("invalid", "(MANIFEST_INVALID: it is not liked)"),
        ("nofault", "no such fault"),
    ] {
        let to = format!("{UPLOADS}/{fault}/image");
        let push = sandbox.run(&[&line(&layout, &to)[..], &["--retries", "2"]].concat());
        push.fails(1).stdout_is("").one_error_line("push", &[&format!("push {to}:latest: "), said]);
        if fault != "otherman" {
            sandbox.run(&["pull", "digest", &to]).fails(1);
        }
    }
}

/// The limit's server answers before it reads, and closes: only who asks first hears why.
fn pieces(sandbox: &Sandbox) {
    let _registry = uploads(sandbox);
    let layout = image("nginx").layout.display().to_string();
    let to = format!("{UPLOADS}/limit/image");
    sandbox.run(&line(&layout, &to)).ok();
    assert_eq!(digest(sandbox, &to), digest(sandbox, &format!("oci:{layout}:latest")));
    let log = sandbox.read("uploads");
    assert!(log.lines().any(|line| line.starts_with("PATCH") && line.contains(" 16777216-")), "{log}");
}

fn credentials(sandbox: &Sandbox) {
    let _registry = uploads(sandbox);
    let layout = image("busybox").layout.display().to_string();
    for fault in ["elsewhere", "token"] {
        let push = sandbox.run(&line(&layout, &format!("{UPLOADS}/{fault}/image"))).fails(1);
        push.one_error_line("push", &["credentials"]);
    }
    sandbox.write("home/.docker/config.json", format!(r#"{{"auths":{{"{UPLOADS}":{{"auth":"YWxpY2U6c2VjcmV0"}}}}}}"#));
    for fault in ["elsewhere", "redirect", "token"] {
        let push = sandbox.run(&[&line(&layout, &format!("{UPLOADS}/{fault}/image"))[..], &["-vv"]].concat()).ok();
        // In whole, or byte by byte.
        let said = format!("{push:?}");
        assert!(!["secret", "YWxpY2U6c2VjcmV0", ".HTTP/1.1"].iter().any(|word| said.contains(word)), "{said}");
    }
    let log = sandbox.read("uploads");
    let elsewhere: Vec<&str> = log.lines().filter(|line| line.contains(" 127.0.0.2:")).collect();
    assert!(elsewhere.iter().any(|line| line.contains("/redirect/")) && elsewhere.len() > 4, "{log}");
    assert!(elsewhere.iter().all(|line| line.ends_with(" none")), "{log}");
}

fn killed(sandbox: &Sandbox) {
    let _registry = uploads(sandbox);
    let layout = image("nginx").layout.display().to_string();
    let to = format!("{UPLOADS}/slow/image");
    let script = format!(
        "push --progress json --layout {layout} latest {to} 2>progress & pid=$!
         until grep -q '\"progress\"' progress; do :; done; kill -9 $pid; wait $pid; true"
    );
    sandbox.sh(&script).run().ok().stdout_is("");
    sandbox.run(&["pull", "digest", &to]).fails(1);
    let good = format!("{UPLOADS}/good/image");
    sandbox.run(&line(&layout, &good)).ok();
    sandbox.run(&["pull", "--layout", "back", &good]).ok();
}

/// Between any two parts of requests and answers: the connection is gone, or the program.
fn cut_anywhere(sandbox: &Sandbox) {
    let _registry = registry(sandbox);
    let [images, cuts] = ["odd.py", "cutting-proxy"].map(|name| source().join("tests/images").join(name));
    sandbox.run(&[&images.to_string_lossy(), "odd", "2", "1"]).ok();
    let said = sandbox.run(&[&cuts.to_string_lossy(), OWN, "odd", "2", "601"]).ok().stdout;
    let counts: Vec<u32> = said.lines().filter_map(|line| line.split_once(' ')?.1.parse().ok()).collect();
    assert!(counts.len() == 2 && said.lines().count() == 2 && counts[0] > 15, "{said}");
}

fn damaged(sandbox: &Sandbox) {
    let _registry = uploads(sandbox);
    sandbox.run(&["pull", &image("busybox").reference]).ok();
    sandbox
        .sh("cd state/oci/blobs/sha256; large=$(ls -S | head -n 1); printf x | dd of=$large conv=notrunc bs=1 seek=9")
        .run()
        .ok();
    let to = format!("{UPLOADS}/good/image");
    let push = sandbox.run(&["push", &image("busybox").reference, &to]).fails(1);
    push.one_error_line("push", &["content has digest"]);
    sandbox.run(&["pull", "digest", &to]).fails(1);
    sandbox.sh("rm $(ls -S state/oci/blobs/sha256/* | head -n 1)").run().ok();
    let push = sandbox.run(&["push", &image("busybox").reference, &to]).fails(1);
    push.one_error_line("push", &["is not in the layout"]);
}

/// The image is larger than that, and has several layers at once.
fn memory(sandbox: &Sandbox) {
    let _registry = registry(sandbox);
    let layout = image("nginx:plain").layout.display().to_string();
    let (push, peak) = sandbox.run_measured(&line(&layout, &format!("{OWN}/plain")));
    push.ok();
    assert!(peak < 20 << 10, "{peak} KiB");
}

fn wrong_use(sandbox: &Sandbox) {
    let layout = image("busybox").layout.display().to_string();
    let none = format!("sha256:{}", "0".repeat(64));
    for (line, code, said) in [
        (format!("push --layout {layout} nosuch 127.0.0.1:1/x"), 1, "no image nosuch in the layout; there is latest"),
        (format!("push --layout {layout} 127.0.0.1:1/x"), 1, "no image 127.0.0.1:1/x:latest"),
        (format!("push --layout {layout} latest 127.0.0.1:1/x"), 1, "127.0.0.1:1: Connection refused"),
        (format!("push --layout {layout} latest 127.0.0.1:1/x@{none}"), 1, "the image has digest"),
        ("true | push 127.0.0.1:1/x".to_owned(), 1, "no record on stdin"),
        ("echo '{}' | push 127.0.0.1:1/x".to_owned(), 2, "run `pull` first"),
        ("push - 127.0.0.1:1/x --platform linux/amd64".to_owned(), 2, "a record's image"),
        (format!("push --layout {layout} --all-tags 127.0.0.1:1/x:1"), 2, "names a tag"),
        (format!("push --compress gzip latest 127.0.0.1:1/x@{none}"), 2, "--compress changes the digest"),
        ("push --compress gzip --referrers latest 127.0.0.1:1/x".to_owned(), 2, "cannot be used with"),
        ("push latest Nginx".to_owned(), 2, "lower case"),
        ("push".to_owned(), 2, "DESTINATION"),
    ] {
        let push = sandbox.sh(&line).run().fails(code);
        push.stdout_is("").stderr_has(said);
    }
    sandbox.write("conf", "[[registry]]\nprefix = \"127.0.0.1:1\"\nblocked = true\n");
    let blocked = format!("push --layout {layout} --registries-conf conf latest 127.0.0.1:1/x");
    sandbox.sh(&blocked).run().fails(1).one_error_line("push", &["blocked"]);
}
