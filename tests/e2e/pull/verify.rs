//! Signatures: an image is used only if the right people have signed it, for the right name.

pub(super) use crate::push::OWN;
use crate::support::{Need, Running, Sandbox, Test, image, source, test};

const NEEDS: &[Need] = &[Need::Registry, Need::Program("skopeo"), Need::Program("openssl"), Need::Program("python3")];

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("signatures_by_each_kind_of_key_are_good", NEEDS, kinds),
        test("images_without_the_right_signature_are_refused", NEEDS, refused),
        test("one_of_several_keys_and_signatures_is_enough", NEEDS, several),
        test("signatures_that_refer_to_the_image_are_found", NEEDS, referring),
        test("a_signature_of_the_index_or_of_its_image_counts", NEEDS, platforms),
        test("a_mirrors_image_carries_its_true_name", NEEDS, mirrored),
        test("images_of_a_layout_are_verified_too", NEEDS, layouts),
        test("the_policy_file_decides", NEEDS, policy),
        test("keys_that_are_none_are_one_line", &[Need::Program("openssl")], wrong_keys),
    ]
}

/// Starts the registry, copies an image into it, and makes keys.
pub(super) fn registry(sandbox: &Sandbox, from: &str) -> Running {
    let registry = crate::push::registry(sandbox);
    copy(sandbox, from, "team/app:1");
    sandbox
        .sh("set -e
             new() { openssl genpkey -algorithm $2 -out $1.key ${3:+-pkeyopt $3}; openssl pkey -in $1.key -pubout -out $1.pub; }
             new p256 EC ec_paramgen_curve:P-256; new p384 EC ec_paramgen_curve:P-384; new rsa RSA rsa_keygen_bits:2048
             new ed ED25519; new other EC ec_paramgen_curve:P-256")
        .run()
        .ok();
    registry
}

fn copy(sandbox: &Sandbox, from: &str, to: &str) {
    let (from, to) = (format!("docker://{}", image(from).reference), format!("docker://{OWN}/{to}"));
    let tls = ["--src-tls-verify=false", "--dest-tls-verify=false"];
    sandbox.run(&["skopeo", "copy", "--all", tls[0], tls[1], &from, &to]).ok();
}

/// Signs team/app:1, or what `reference` says; returns the digest that was signed.
fn sign(sandbox: &Sandbox, reference: &str, key: &str, options: &[&str]) -> String {
    let program = source().join("tests/e2e/pull/sign.py");
    let mut command = vec![program.to_str().unwrap(), OWN, "team/app", reference, key];
    command.extend(options);
    sandbox.run(&command).ok().stdout.trim().to_owned()
}

/// Tells that a layout names no image.
fn assert_empty(sandbox: &Sandbox, layout: &str) {
    sandbox.sh(&format!("! grep -q digest {layout}/index.json")).run().ok();
}

fn app() -> String {
    format!("{OWN}/team/app:1")
}

fn kinds(sandbox: &Sandbox) {
    let _registry = registry(sandbox, "busybox");
    for kind in ["p256", "p384", "rsa", "ed"] {
        sign(sandbox, "1", kind, &[]);
        let key = format!("{kind}.pub");
        let pulled = sandbox.run(&["pull", "--verify", &key, "--layout", kind, &app()]).ok().stderr_is("").json();
        assert_eq!(pulled["image"]["reference"], app());
        // The signature is in the layout too: no registry is needed, and no collection takes it.
        sandbox.run(&["pull", "gc", "--layout", kind]).ok().stdout_has("0 blobs");
        let offline = format!(
            "ip link set lo down; pull --policy never --verify {key} --layout {kind} {}; s=$?; ip link set lo up; exit $s",
            app()
        );
        assert_eq!(sandbox.sh(&offline).run().ok().json(), pulled);
        let stranger = sandbox.run(&["pull", "--policy", "never", "--verify", "other.pub", "--layout", kind, &app()]);
        stranger.fails(1).stdout_is("").one_error_line("pull", &["verify sha256:", "other.pub", "by another key"]);
        // The layout still has one image for those who give no name.
        sandbox.run(&["unpack", kind]).ok();
    }
}

fn refused(sandbox: &Sandbox) {
    let _registry = registry(sandbox, "busybox");
    let pull = |key: &str| sandbox.run(&["pull", "--verify", key, "--layout", "l", &app()]);
    pull("p256.pub").fails(1).stdout_is("").one_error_line("pull", &["fetch", &app(), "it has no signature"]);
    let other = format!("digest=sha256:{}", "0".repeat(64));
    for (options, key, reason) in [
        (vec![], "other.pub", "one is by another key"),
        (vec![other.as_str()], "p256.pub", "one is for \"sha256:000"),
        (vec!["sign=something else"], "p256.pub", "one is by another key"),
        (vec!["sign="], "p256.pub", "one is by another key"),
        (vec!["name=127.0.0.1:5001/team/other"], "p256.pub", "one is for the name \"127.0.0.1:5001/team/other\""),
        (vec!["name=127.0.0.1:5001/team/app:2"], "p256.pub", "team/app:2"),
        (vec!["name="], "p256.pub", "one is for the name \"\""),
        (vec!["type=atomic container signature"], "p256.pub", "one is a \"atomic container signature\""),
    ] {
        sign(sandbox, "1", "p256", &options);
        pull(key).fails(1).stdout_is("").one_error_line("pull", &["fetch", &app(), key, reason]);
        assert_empty(sandbox, "l");
    }
    // A good signature of another image does not serve for this one.
    sign(sandbox, "1", "p256", &[]);
    copy(sandbox, "debian", "team/app:2");
    let script =
        "d() { skopeo inspect --tls-verify=false --format '{{.Digest}}' docker://127.0.0.1:5001/team/app:$1 | tr : -; }
        skopeo copy --src-tls-verify=false --dest-tls-verify=false docker://127.0.0.1:5001/team/app:$(d 1).sig \
            docker://127.0.0.1:5001/team/app:$(d 2).sig";
    sandbox.sh(script).run().ok();
    let replayed = sandbox.run(&["pull", "--verify", "p256.pub", "--layout", "l", &format!("{OWN}/team/app:2")]);
    replayed.fails(1).stdout_is("").one_error_line("pull", &["one is for \"sha256:"]);
    assert_empty(sandbox, "l");
    // An image that is there already is no more trusted than one that is fetched.
    sandbox.run(&["pull", "--layout", "l", &format!("{OWN}/team/app:2")]).ok();
    for policy in ["missing", "never", "always"] {
        let name = format!("{OWN}/team/app:2");
        sandbox
            .run(&["pull", "--policy", policy, "--verify", "p256.pub", "--layout", "l", &name])
            .fails(1)
            .stdout_is("");
    }
}

fn several(sandbox: &Sandbox) {
    let _registry = registry(sandbox, "busybox");
    sign(sandbox, "1", "other", &[]);
    sign(sandbox, "1", "rsa", &["how=add"]);
    let either = ["pull", "--verify", "p256.pub", "--verify", "rsa.pub", "--layout", "l", &app()];
    sandbox.run(&either).ok();
    sandbox.run(&["pull", "--verify", "p256.pub", "--layout", "m", &app()]).fails(1);
    // What cosign accepts is accepted on demand: any name.
    sign(sandbox, "1", "p256", &["name=registry.example.com/a/b"]);
    for (identity, good) in [
        ("*", true),
        ("registry.example.com/a/b", true),
        ("registry.example.com/a", false),
        ("registry.example.com/a/b:1", false),
    ] {
        let outcome =
            sandbox.run(&["pull", "--verify", "p256.pub", "--verify-identity", identity, "--layout", "n", &app()]);
        if good {
            outcome.ok()
        } else {
            outcome.fails(1)
        };
    }
    sandbox.run(&["pull", "--verify-identity", "*", &app()]).fails(2);
}

fn referring(sandbox: &Sandbox) {
    let _registry = registry(sandbox, "busybox");
    sign(sandbox, "1", "p256", &["how=referrer"]);
    sandbox.run(&["pull", "--verify", "p256.pub", "--layout", "l", &app()]).ok();
    sandbox.run(&["pull", "gc", "--layout", "l"]).ok().stdout_has("0 blobs");
    sandbox.run(&["pull", "--policy", "never", "--verify", "p256.pub", "--layout", "l", &app()]).ok();
    sandbox.run(&["pull", "--verify", "other.pub", "--layout", "m", &app()]).fails(1).stderr_has("by another key");
    sign(sandbox, "1", "p256", &["how=bundle"]);
    sandbox
        .run(&["pull", "--verify", "p256.pub", "--layout", "m", &app()])
        .fails(1)
        .one_error_line("pull", &["application/vnd.dev.sigstore.bundle.v0.3+json", "not supported"]);
}

fn platforms(sandbox: &Sandbox) {
    let _registry = registry(sandbox, "nginx:multi");
    let pull = |more: &[&str], layout: &str| {
        let name = app();
        let mut command = vec!["pull", "--verify", "p256.pub", "--layout", layout, &name];
        command.extend(more);
        sandbox.run(&command)
    };
    let manifest = sandbox.run(&["pull", "--layout", "plain", "--platform", "linux/arm64", &app()]).ok().json();
    let digest = manifest["image"]["manifest"]["digest"].as_str().unwrap().to_owned();
    sign(sandbox, &digest, "p256", &[]);
    pull(&["--platform", "linux/arm64"], "one").ok();
    pull(&["--platform", "linux/s390x"], "two").fails(1);
    pull(&["--platform", "linux/arm64", "--all-platforms"], "two").fails(1);
    assert_empty(sandbox, "two");
    sign(sandbox, "1", "p256", &[]);
    pull(&["--platform", "linux/s390x"], "two").ok();
    pull(&["--all-platforms"], "three").ok();
}

fn mirrored(sandbox: &Sandbox) {
    let _registry = registry(sandbox, "busybox");
    sandbox.write(
        "mirror.conf",
        format!(
            "[[registry]]\nprefix = 'example.test'\nlocation = '127.0.0.1:1'\n[[registry.mirror]]\nlocation = '{OWN}'\n"
        ),
    );
    let name = "example.test/team/app:1";
    let pull =
        || sandbox.run(&["pull", "--registries-conf", "mirror.conf", "--verify", "p256.pub", "--layout", "l", name]);
    sign(sandbox, "1", "p256", &[]);
    pull().fails(1).stderr_has("one is for the name");
    sign(sandbox, "1", "p256", &["name=example.test/team/app"]);
    pull().ok();
}

fn layouts(sandbox: &Sandbox) {
    let _registry = registry(sandbox, "busybox");
    sign(sandbox, "1", "p256", &[]);
    sandbox.run(&["pull", "--verify", "p256.pub", "--layout", "l", &app()]).ok();
    let pull = |identity: &str| {
        sandbox.run(&["pull", "--verify", "p256.pub", "--verify-identity", identity, "--layout", "m", "oci:l:1"])
    };
    pull(&format!("{OWN}/team/app")).ok();
    pull("quay.io/x").fails(1).stderr_has("one is for the name");
    // A directory has no name of its own that a signature could carry.
    sandbox.run(&["pull", "--verify", "p256.pub", "--layout", "n", "oci:l:1"]).fails(1).stderr_has("for the name");
    assert_empty(sandbox, "n");
}

fn policy(sandbox: &Sandbox) {
    let _registry = registry(sandbox, "busybox");
    sign(sandbox, "1", "p256", &[]);
    let signed = |more: &str| format!(r#"{{"type":"sigstoreSigned","keyPath":"{}"{more}}}"#, sandbox.at("p256.pub"));
    let data = sandbox.sh("base64 -w0 <p256.pub").run().ok().stdout;
    let accept = r#"{"type":"insecureAcceptAnything"}"#.to_owned();
    let reject = r#"{"type":"reject"}"#.to_owned();
    let repository = r#","signedIdentity":{"type":"matchRepository"}"#;
    let other = format!(r#"{{"type":"sigstoreSigned","keyPath":"{}"{repository}}}"#, sandbox.at("other.pub"));
    let remap = format!(r#","signedIdentity":{{"type":"remapIdentity","prefix":"{OWN}","signedPrefix":"a.test"}}"#);
    for (entries, reason) in [
        (accept.clone(), None),
        (reject.clone(), Some("the policy rejects 127.0.0.1:5001/team/app:1")),
        (signed(repository), None),
        (format!(r#"{{"type":"sigstoreSigned","keyData":"{data}"{repository}}}"#), None),
        // As containers have it, the default wants the tag too, which cosign does not sign.
        (signed(""), Some("one is for the name")),
        (signed(&remap), Some("one is for the name")),
        (other.clone(), Some("by another key")),
        (format!("{},{}", signed(repository), other), Some("by another key")),
        (r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":"x"}"#.to_owned(), Some("signedBy is not supported")),
        (r#"{"type":"sigstoreSigned","keyPath":"none.pub"}"#.to_owned(), Some("read key none.pub")),
    ] {
        let policy = format!(r#"{{"default":[{accept}],"transports":{{"docker":{{"{OWN}/team":[{entries}]}}}}}}"#);
        sandbox.write("policy.json", policy);
        let outcome = sandbox.run(&["pull", "--signature-policy", "policy.json", "--layout", "l", &app()]);
        match reason {
            None => {
                outcome.ok();
            }
            Some(reason) => {
                outcome.fails(1).stdout_is("").one_error_line("pull", &[reason]);
                assert_empty(sandbox, "l");
            }
        }
        sandbox.sh("rm -rf l").run().ok();
    }
    // The user's own file counts without being named, for images that are there too; another one takes its place.
    sandbox.run(&["pull", &app()]).ok();
    sandbox.write("home/.config/containers/policy.json", format!(r#"{{"default":[{reject}]}}"#));
    for policy in ["always", "missing", "never"] {
        sandbox.run(&["pull", "--policy", policy, &app()]).fails(1).one_error_line("pull", &["the policy rejects"]);
    }
    sandbox.write("accept.json", format!(r#"{{"default":[{accept}]}}"#));
    sandbox.run(&["pull", "--signature-policy", "accept.json", &app()]).ok();
    sandbox.write("home/.config/containers/policy.json", "{");
    sandbox.run(&["pull", &app()]).fails(1).one_error_line("pull", &["containers/policy.json"]);
}

fn wrong_keys(sandbox: &Sandbox) {
    sandbox
        .sh("openssl genpkey -algorithm ED448 -out a.key; openssl pkey -in a.key -pubout -out ed448.pub; echo x >text")
        .run()
        .ok();
    for (key, reason) in [
        ("none", "No such file"),
        ("text", "not PEM"),
        ("a.key", "a PUBLIC KEY is wanted"),
        ("ed448.pub", "its kind is not supported"),
        ("/dev/zero", "too long"),
    ] {
        sandbox
            .run(&["pull", "--verify", key, "127.0.0.1:1/x"])
            .fails(1)
            .one_error_line("pull", &["read key", key, reason]);
    }
}
