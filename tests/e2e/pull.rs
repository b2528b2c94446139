//! `pull`: a reference becomes a layout on disk, whatever the registry does.

mod collection;
mod configuration;
mod repository;
mod verify;

use crate::support::{Need, Running, Sandbox, Test, image, source, test};

const IMAGES: &[Need] = &[Need::Registry];
pub(crate) const FAULTY: &[Need] = &[Need::NetNs, Need::Program("python3")];
/// Where tests/images/faulty-registry listens in a sandbox.
pub(crate) const PORT: &str = "127.0.0.1:5005";
const SKOPEO: &[Need] = &[Need::Registry, Need::Program("skopeo")];

pub(crate) fn tests() -> Vec<Test> {
    let mut tests = vec![
        test("the_record_names_the_image", IMAGES, record),
        test("skopeo_reads_the_layout", SKOPEO, skopeo_reads),
        test("layouts_and_archives_are_sources", SKOPEO, archives),
        test("a_platform_is_chosen_from_an_index", IMAGES, platform),
        test("all_platforms_come_with_their_index", IMAGES, all_platforms),
        test("what_is_there_is_not_fetched_again", IMAGES, warm),
        test("policy_never_and_missing_ask_no_registry", IMAGES, policy),
        test("a_digest_pins_the_image", IMAGES, pinned),
        test("gc_keeps_what_images_and_containers_need", IMAGES, collect),
        test("certificates_come_from_the_users_directories", &[Need::Registry, Need::Program("openssl")], certificates),
        test("an_image_is_copied_to_archives", SKOPEO, to_archives),
        test("a_lock_file_pins_what_a_tag_meant", IMAGES, locked),
        test("wrong_use_is_one_line", IMAGES, wrong_use),
        test("passing_faults_end_well", FAULTY, passing_faults),
        test("a_cut_blob_is_resumed_by_range", FAULTY, range),
        test("a_killed_pull_is_resumed_by_the_next", FAULTY, killed),
        test("lies_are_refused_in_one_line", FAULTY, lies),
        test("a_stalled_transfer_ends", FAULTY, stall),
        test("credentials_go_to_their_registry_only", FAULTY, credentials),
        test("a_helper_and_a_refresh_token_are_used", FAULTY, helper),
        test("progress_comes_as_json_lines", FAULTY, json_progress),
        test("the_record_comes_before_the_layers", FAULTY, early),
        test("no_image_needs_more_than_20_megabytes", &[Need::Registry, Need::Program("python3")], memory),
        test("a_full_disk_ends_it_and_room_resumes_it", FAULTY, full_disk),
    ];
    tests.extend(configuration::tests());
    tests.extend(collection::tests());
    tests.extend(repository::tests());
    tests.extend(verify::tests());
    tests
}

/// Starts the faulty registry; its log of requests is the file `requests`.
pub(crate) fn faulty(sandbox: &Sandbox) -> Running {
    sandbox.sh("ip addr show lo | grep -q 127.0.0.1 || ip link set lo up").run().ok();
    let program = source().join("tests/images/faulty-registry");
    let registry = sandbox.cmd(&[&program.to_string_lossy(), "5005", "requests"]).start();
    registry.wait_stdout("ready");
    registry
}

fn record(sandbox: &Sandbox) {
    let busybox = image("busybox").reference;
    let record = sandbox.run(&["pull", &busybox]).ok().json();
    assert_eq!(record["image"]["reference"], format!("{busybox}:latest"));
    assert_eq!(record["image"]["layout"], sandbox.at("state/oci"));
    let manifest = &record["image"]["manifest"];
    assert_eq!(manifest["platform"]["os"], "linux");
    let blob = manifest["digest"].as_str().unwrap_or_default().replace(':', "/");
    assert!(sandbox.exists(format!("state/oci/blobs/{blob}")));
}

fn skopeo_reads(sandbox: &Sandbox) {
    for name in ["nginx", "nginx:zstd", "nginx:plain", "nginx:multi"] {
        let layout = format!("layout-{}", name.replace(':', "-"));
        sandbox.run(&["pull", "--layout", &layout, &image(name).reference]).ok();
        let tag = name.split_once(':').map_or("latest", |(_, tag)| tag);
        // A copy reads every blob and checks it.
        sandbox.run(&["skopeo", "copy", &format!("oci:{layout}:{tag}"), &format!("oci:copy-{layout}:{tag}")]).ok();
    }
}

fn archives(sandbox: &Sandbox) {
    let layout = image("nginx").layout;
    let from = format!("oci:{}:latest", layout.display());
    sandbox.run(&["skopeo", "copy", &from, "oci-archive:oci.tar:latest"]).ok();
    sandbox.run(&["skopeo", "copy", &from, "docker-archive:docker.tar:nginx:1"]).ok();
    let digest = |name: &str| {
        let record = sandbox.run(&["pull", "--layout", "layout", name]).ok().json();
        record["image"]["manifest"]["digest"].as_str().unwrap_or_default().to_owned()
    };
    let direct = digest(&from);
    assert_eq!(digest("oci-archive:oci.tar"), direct);
    digest("docker-archive:docker.tar:nginx:1");
    sandbox.run(&["skopeo", "inspect", "oci:layout:1"]).ok();
    let small = format!("oci:{}:latest", image("busybox").layout.display());
    sandbox.run(&["skopeo", "copy", &small, "docker-archive:small.tar:b:1"]).ok();
    let plain = digest("docker-archive:small.tar");
    for tool in ["gzip", "bzip2", "xz -0", "zstd -q"] {
        sandbox.sh(&format!("{tool} -c small.tar >packed")).run().ok();
        assert_eq!(digest("docker-archive:packed"), plain, "{tool}");
    }
    sandbox
        .sh("cat packed | pull --layout piped docker-archive:- && cat small.tar | pull --layout piped docker-archive:-")
        .run()
        .ok();
    sandbox.sh("test -z \"$(ls piped/ingest)\"").run().ok();
    // Every name that the archive has for an image, and several images.
    sandbox.sh("mkdir both && tar xf small.tar -C both && cd both && chmod u+w manifest.json \
        && jq -c '.[0].RepoTags += [\"b/c:2\"] | . + [.[0] | .RepoTags = null | .Layers = [] ]' manifest.json >m && mv m manifest.json && tar cf ../both.tar *").run().ok();
    sandbox
        .run(&["pull", "--layout", "two", "docker-archive:both.tar"])
        .fails(1)
        .one_error_line("pull", &["which image"]);
    let both = sandbox.run(&["pull", "--layout", "two", "--all-tags", "docker-archive:both.tar"]).ok();
    assert_eq!(both.stdout.lines().count(), 2);
    sandbox.run(&["pull", "--layout", "one", "docker-archive:both.tar:b/c:2"]).ok();
    let names = sandbox.run(&["pull", "list", "--layout", "one", "--json"]).ok().json();
    assert_eq!(names[0]["name"], "docker.io/b/c:2");
    sandbox
        .run(&["pull", "--layout", "layout", "oci-archive:oci.tar:none"])
        .fails(1)
        .one_error_line("pull", &["none", "latest"]);
}

fn platform(sandbox: &Sandbox) {
    let multi = image("nginx:multi").reference;
    for (asked, architecture) in [("linux/arm64", "arm64"), ("linux/arm/v6", "arm"), ("linux/s390x", "s390x")] {
        let record = sandbox.run(&["pull", "--platform", asked, &multi]).ok().json();
        assert_eq!(record["image"]["manifest"]["platform"]["architecture"], architecture);
    }
    sandbox
        .run(&["pull", "--platform", "linux/mips", &multi])
        .fails(1)
        .one_error_line("pull", &["no image for linux/mips", "linux/arm64"]);
    let single = image("nginx").reference;
    sandbox
        .run(&["pull", "--platform", "linux/arm64", &single])
        .fails(1)
        .one_error_line("pull", &["not for linux/arm64"]);
}

fn all_platforms(sandbox: &Sandbox) {
    let multi = image("nginx:multi").reference;
    sandbox.run(&["pull", "--layout", "l", "--all-platforms", &multi]).ok();
    let index = sandbox.sh("jq -r '.manifests[0].mediaType' l/index.json").run().ok();
    index.stdout_has("index.v1+json");
}

fn warm(sandbox: &Sandbox) {
    let nginx = image("nginx").reference;
    sandbox.run(&["pull", "--layout", "l", &nginx]).ok();
    let outcome = sandbox.run(&["pull", "--layout", "l", "--progress", "json", &nginx]).ok();
    let outcome = outcome.stderr_has("\"present\"");
    assert!(!format!("{outcome:?}").contains("\\\"start\\\""), "{outcome:?}");
}

fn policy(sandbox: &Sandbox) {
    let busybox = image("busybox").reference;
    sandbox.run(&["pull", "--policy", "never", &busybox]).fails(1).one_error_line("pull", &["busybox"]);
    let pulled = sandbox.run(&["pull", "--policy", "missing", &busybox]).ok().json();
    // A proxy that is not there: whoever asks the registry fails.
    for policy in ["missing", "never"] {
        let local =
            sandbox.sh(&format!("ip link set lo down; pull --policy {policy} {busybox}; ip link set lo up")).run().ok();
        assert_eq!(local.json(), pulled);
    }
}

fn pinned(sandbox: &Sandbox) {
    let busybox = image("busybox").reference;
    let record = sandbox.run(&["pull", &busybox]).ok().json();
    let digest = record["image"]["manifest"]["digest"].as_str().unwrap_or_default();
    let again = sandbox.run(&["pull", &format!("{busybox}:latest@{digest}")]).ok().json();
    assert_eq!(again["image"]["manifest"]["digest"], digest);
    let wrong = format!("{busybox}@sha256:{}", "0".repeat(64));
    sandbox.run(&["pull", &wrong]).fails(1).one_error_line("pull", &["busybox", "not found"]);
}

fn collect(sandbox: &Sandbox) {
    let (busybox, nginx) = (image("busybox").reference, image("nginx").reference);
    sandbox.run(&["pull", &busybox]).ok();
    let record = sandbox.run(&["pull", &nginx]).ok();
    sandbox.run(&["pull", "list"]).ok().stdout_has(&busybox).stdout_has(&nginx);
    let line = format!("{}\n", record.json());
    sandbox.write("state/containers/web/record.json", &line);
    sandbox.run(&["pull", "remove", &busybox, &nginx]).ok();
    sandbox.run(&["pull", "remove", &nginx]).fails(1).one_error_line("pull", &["no such image"]);
    sandbox.run(&["pull", "gc"]).ok().stdout_has("3 blobs");
    // The container's image is whole yet: it can be copied.
    let digest = record.json()["image"]["manifest"]["digest"].as_str().unwrap_or_default().replace(':', "/");
    assert!(sandbox.exists(format!("state/oci/blobs/{digest}")));
    sandbox.sh("rm -r state/containers/web").run().ok();
    sandbox.run(&["pull", "gc"]).ok();
    sandbox.sh("test -z \"$(ls state/oci/blobs/sha256)\"").run().ok();
}

fn certificates(sandbox: &Sandbox) {
    sandbox.sh(
        "set -e
         new() { openssl req -newkey rsa:2048 -nodes -keyout $1.key -out $1.csr -subj /CN=$1; }
         openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=ca
         printf 'subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n' >extensions
         for n in server client; do
           new $n; openssl x509 -req -in $n.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out $n.crt -days 2 -extfile extensions
         done
         d=home/.config/containers/certs.d/127.0.0.1:5443; mkdir -p $d only
         cp ca.crt $d; cp ca.crt only; cp client.crt $d/client.cert; cp client.key $d",
    ).run().ok();
    let storage = image("busybox").layout.join("../../registry");
    let config = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:5443', \
         tls: {{certificate: server.crt, key: server.key, clientcas: [ca.crt]}}}}\n",
        storage.display()
    );
    sandbox.write("tls.yml", config);
    let _registry = sandbox.cmd(&["docker-registry", "serve", "tls.yml"]).start();
    sandbox.sh("until openssl s_client -connect 127.0.0.1:5443 </dev/null >/dev/null 2>&1; do :; done").run();
    sandbox.run(&["pull", "127.0.0.1:5443/busybox"]).ok();
    let stranger = sandbox.run(&["pull", "--cert-dir", "only", "127.0.0.1:5443/busybox"]).fails(1);
    stranger.one_error_line("pull", &["127.0.0.1:5443"]);
    sandbox.sh("rm -r home/.config").run().ok();
    sandbox.run(&["pull", "127.0.0.1:5443/busybox"]).fails(1).one_error_line("pull", &["certificate"]);
}

fn to_archives(sandbox: &Sandbox) {
    let nginx = image("nginx").reference;
    sandbox.run(&["pull", "--to", "oci-archive:oci.tar", &nginx]).ok();
    sandbox.run(&["pull", "--to", "docker-archive:docker.tar:nginx:1", &nginx]).ok();
    sandbox.run(&["skopeo", "copy", "oci-archive:oci.tar:latest", "oci:a:1"]).ok();
    sandbox.run(&["skopeo", "copy", "docker-archive:docker.tar:nginx:1", "oci:b:1"]).ok();
    sandbox.run(&["pull", "--to", "oci:dir", &nginx]).fails(2);
}

fn locked(sandbox: &Sandbox) {
    let nginx = image("nginx").reference;
    let first = sandbox.run(&["pull", "--lock", "lock.json", &nginx]).ok().json();
    assert_eq!(sandbox.run(&["pull", "--lock", "lock.json", &nginx]).ok().json(), first);
    let other = sandbox.run(&["pull", "--layout", "other", &format!("{nginx}:plain")]).ok().json();
    let digest = other["image"]["manifest"]["digest"].as_str().unwrap_or_default().to_owned();
    sandbox.write("lock.json", format!(r#"{{"{nginx}:latest":"{digest}"}}"#));
    let pinned = sandbox.run(&["pull", "--lock", "lock.json", &nginx]).ok().json();
    assert_eq!(pinned["image"]["manifest"]["digest"], digest);
}

fn wrong_use(sandbox: &Sandbox) {
    sandbox.run(&["pull", "127.0.0.1:5000/no/such"]).fails(1).one_error_line("pull", &["no/such", "not found"]);
    sandbox.run(&["pull", "127.0.0.1:1/x"]).fails(1).one_error_line("pull", &["127.0.0.1:1", "refused"]);
    sandbox.run(&["pull", "no.such.invalid/x"]).fails(1).one_error_line("pull", &["no.such.invalid"]);
    sandbox.run(&["pull", "Nginx"]).fails(2).stderr_has("lower case");
    sandbox.run(&["pull"]).fails(2);
    sandbox.write("full/of/files", "x");
    sandbox.run(&["pull", "--layout", "full", "x"]).fails(1).one_error_line("pull", &["not an OCI image layout"]);
}

fn passing_faults(sandbox: &Sandbox) {
    let _registry = faulty(sandbox);
    for fault in [
        "good",
        "cut",
        "cutnr",
        "cut5",
        "badrange",
        "norange",
        "deadrange",
        "reset",
        "e503",
        "e429",
        "edate",
        "stall1",
        "corrupt1",
        "redirect",
        "encoded",
        "scope",
    ] {
        let name = format!("{PORT}/{fault}/image");
        sandbox.run(&["pull", "--timeout", "1", "--layout", fault, &name]).ok().stdout_has("\"image\"").stderr_is("");
        sandbox.sh(&format!("test -z \"$(ls {fault}/ingest)\"")).run().ok();
        sandbox
            .sh(&format!("cd {fault}/blobs/sha256 && for b in *; do echo \"$b  $b\"; done | sha256sum -c --quiet"))
            .run()
            .ok();
    }
}

fn range(sandbox: &Sandbox) {
    let _registry = faulty(sandbox);
    sandbox.run(&["pull", "--layout", "l", &format!("{PORT}/cut/image")]).ok();
    assert!(sandbox.read("requests").contains("bytes="), "{}", sandbox.read("requests"));
}

fn killed(sandbox: &Sandbox) {
    let _registry = faulty(sandbox);
    let name = format!("{PORT}/slow/image");
    let script = format!(
        "pull --layout l --progress json {name} 2>progress >/dev/null & pid=$!
         until grep -q '\"progress\"' progress; do :; done; kill -9 $pid; wait $pid; ls l/ingest"
    );
    sandbox.sh(&script).run().ok().stdout_has(".partial");
    sandbox.run(&["pull", "--layout", "l", &name]).ok();
    assert!(sandbox.read("requests").contains("bytes="), "{}", sandbox.read("requests"));
    // A partial blob that is wrong costs a transfer, not the image.
    let outcome = sandbox
        .sh(&format!(
            "cd l/blobs/sha256; large=$(ls -S | head -n 1); head -c 1000000 /dev/zero >../../ingest/sha256-$large.partial
             rm $large; cd ../../..; pull --layout l {name}; sha256sum l/blobs/sha256/$large | grep -c ^$large"
        ))
        .run();
    outcome.ok();
}

fn lies(sandbox: &Sandbox) {
    let _registry = faulty(sandbox);
    for (fault, reason) in [
        ("corrupt", "content has digest"),
        ("denied", "(DENIED: the quota is? used up)"),
        ("inf", "size is"),
        ("longer", "size is"),
        ("shorter", "size is"),
        ("infman", "longer than 4194304 bytes"),
        ("bigman", "longer than 4194304 bytes"),
        ("lieman", "content has digest"),
        ("ctype", "media type"),
        ("inner", "form is not that"),
        ("confuse", "both a manifest and an index"),
        ("bigconf", "too many"),
        ("minus", "-1"),
        ("dotdot", "nvalid"),
        ("html", "not JSON"),
        ("loop", "redirects without end"),
        ("file", "redirects to"),
        ("nofault", "not found"),
    ] {
        let name = format!("{PORT}/{fault}/image");
        let outcome = sandbox.run(&["pull", "--retries", "1", "--layout", fault, &name]).fails(1);
        outcome.stderr_has(reason).stderr_has("pull: fetch");
        sandbox
            .sh(&format!("! grep -q digest {fault}/index.json && test $(du -s {fault} | cut -f1) -lt 8192"))
            .run()
            .ok();
    }
}

fn stall(sandbox: &Sandbox) {
    let _registry = faulty(sandbox);
    let name = format!("{PORT}/stall/image");
    let outcome = sandbox.run(&["pull", "--timeout", "1", "--retries", "1", "--layout", "l", &name]);
    outcome.fails(1).stderr_has("no data in time");
}

fn credentials(sandbox: &Sandbox) {
    let _registry = faulty(sandbox);
    sandbox
        .run(&["pull", "--layout", "l", &format!("{PORT}/basic/image")])
        .fails(1)
        .one_error_line("pull", &["wants credentials"]);
    sandbox
        .run(&["pull", "--layout", "l", &format!("{PORT}/token/image")])
        .fails(1)
        .one_error_line("pull", &["needs credentials"]);
    sandbox.write("home/.docker/config.json", r#"{"auths":{"127.0.0.1:5005":{"auth":"YWxpY2U6c2VjcmV0"}}}"#);
    for fault in ["basic", "token"] {
        let outcome = sandbox.run(&["pull", "-vv", "--layout", "l", &format!("{PORT}/{fault}/image")]).ok();
        // In whole, or byte by byte.
        let said = format!("{outcome:?}");
        assert!(!["secret", "YWxpY2U6c2VjcmV0", ".HTTP/1.1"].iter().any(|word| said.contains(word)), "{said}");
    }
    // The token server is on another host and without TLS: it must not see the password.
    sandbox
        .run(&["pull", "--layout", "l", &format!("{PORT}/realm/image")])
        .fails(1)
        .stderr_has("no credentials for token server");
    let leaked = |line: &&str| line.starts_with("GET 127.0.0.2") && !line.ends_with("none");
    assert_eq!(sandbox.read("requests").lines().find(leaked), None);
    sandbox.write("auth.json", r#"{"auths":{"127.0.0.1:5005/basic":{"username":"alice","password":"wrong"}}}"#);
    let wrong = sandbox
        .cmd(&["pull", "--layout", "l", &format!("{PORT}/basic/image")])
        .env("REGISTRY_AUTH_FILE", &sandbox.at("auth.json"));
    wrong.run().fails(1).one_error_line("pull", &["credentials do not allow it"]);
}

fn helper(sandbox: &Sandbox) {
    let _registry = faulty(sandbox);
    sandbox.write(
        "bin/docker-credential-test",
        "#!/bin/sh\nread -r server || :\necho \"{\\\"Username\\\":\\\"<token>\\\",\\\"Secret\\\":\\\"again\\\"}\"\n",
    );
    sandbox.write("home/.docker/config.json", r#"{"credHelpers":{"127.0.0.1:5005":"test"}}"#);
    let script = format!("chmod +x bin/*; PATH=$PWD/bin:$PATH pull --layout l {PORT}/refresh/image");
    sandbox.sh(&script).run().ok();
    assert!(sandbox.read("requests").contains("refresh"));
}

fn json_progress(sandbox: &Sandbox) {
    let _registry = faulty(sandbox);
    sandbox.sh(&format!("pull --layout l --progress json:5 {PORT}/good/image 5>progress")).run().ok().stderr_is("");
    let events: Vec<serde_json::Value> =
        sandbox.read("progress").lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert_eq!(events.iter().filter(|event| event["event"] == "done").count(), 2, "{events:?}");
}

fn early(sandbox: &Sandbox) {
    let _registry = faulty(sandbox);
    let script = format!(
        "pull --layout l {PORT}/slow/image | {{ read -r record; until ls l/ingest | grep partial; do :; done; cat >/dev/null; }}"
    );
    let outcome = sandbox.sh(&script).run().ok();
    outcome.stdout_has(".partial");
}

fn full_disk(sandbox: &Sandbox) {
    let _registry = faulty(sandbox);
    sandbox.sh("mkdir l; mount -t tmpfs -o size=2m small l").run().ok();
    let name = format!("{PORT}/good/image");
    let full = sandbox.run(&["pull", "--layout", "l", &name]).fails(1);
    full.stderr_has(&format!("pull: fetch {name}:latest: write blob sha256:")).stderr_has("No space left on device\n");
    sandbox.sh("! grep -q digest l/index.json").run().ok();
    sandbox.sh("mount -o remount,size=20m l").run().ok();
    let resumed = sandbox.run(&["pull", "--layout", "l", &name]);
    let check = "cd l/blobs/sha256 && for b in *; do echo \"$b  $b\"; done | sha256sum -c --quiet";
    let whole = sandbox.sh(check).run();
    sandbox.sh("umount l").run().ok();
    resumed.ok();
    whole.ok();
    assert!(sandbox.read("requests").contains("bytes="), "{}", sandbox.read("requests"));
}

/// The image is larger than that, and has several layers at once.
fn memory(sandbox: &Sandbox) {
    for name in ["nginx", "nginx:plain"] {
        let reference = image(name).reference;
        let (pull, peak) = sandbox.run_measured(&["pull", "--layout", name, &reference]);
        pull.ok();
        assert!(peak < 20 << 10, "{name}: {peak} KiB");
        let size = sandbox.sh(&format!("du -sm {name} | cut -f1")).run().ok().stdout;
        assert!(size.trim().parse::<u64>().unwrap() > 30, "{size}");
    }
}
