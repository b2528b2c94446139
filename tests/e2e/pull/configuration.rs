//! What users have already told their other tools: registries.conf, proxies, credentials, certificates.

use super::{FAULTY, IMAGES, PORT, faulty};
use crate::support::{Need, Running, Sandbox, Test, image, test};

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("mirrors_are_asked_first_and_the_registry_last", IMAGES, mirrors),
        test("a_blob_comes_from_the_next_mirror", FAULTY, blobs_elsewhere),
        test("a_mirror_for_digests_is_not_asked_for_tags", IMAGES, digest_only),
        test("a_blocked_registry_is_not_asked", IMAGES, blocked),
        test("prefixes_are_rewritten_and_short_names_have_aliases", IMAGES, rewritten),
        test("a_wrong_registries_conf_is_one_line", FAULTY, wrong),
        test("a_proxy_of_the_environment_is_used", FAULTY, proxied),
        test("a_proxy_tunnels_tls", &[Need::Registry, Need::Program("python3"), Need::Program("openssl")], tunnelled),
        test("a_credentials_store_is_asked", FAULTY, store),
        test("dockers_certificates_are_read", &[Need::Registry, Need::Program("openssl")], docker_certificates),
    ]
}

/// The user's own file, so that the machine's does not count.
const CONF: &str = "home/.config/containers/registries.conf";

fn mirrors(sandbox: &Sandbox) {
    sandbox.write(
        CONF,
        "[[registry]]\nprefix = 'example.test'\nlocation = '127.0.0.1:1'\n\
         [[registry.mirror]]\nlocation = '127.0.0.1:5000/not/here'\n[[registry.mirror]]\nlocation = '127.0.0.1:5000'\n",
    );
    let pulled = sandbox.run(&["pull", "example.test/busybox"]).ok();
    let pulled = pulled.stderr_has("mirror 127.0.0.1:5000/not/here/busybox: not found");
    // What was asked for is what it is called, wherever it came from.
    assert_eq!(pulled.json()["image"]["reference"], "example.test/busybox:latest");
    sandbox.run(&["pull", "list"]).ok().stdout_has("example.test/busybox:latest");
    let missing = sandbox.run(&["pull", "example.test/none"]).fails(1);
    missing.stderr_has("pull: fetch example.test/none:latest: connect to 127.0.0.1:1: Connection refused");
}

fn blobs_elsewhere(sandbox: &Sandbox) {
    let _registry = faulty(sandbox);
    for (mirrors, warning) in [
        (&["noblob"][..], "not found"),
        (&["down"], "503"),
        (&["corrupt"], "content has digest"),
        (&["longer"], "size is"),
        (&["stall"], "no data in time"),
        (&["noblob", "corrupt", "down"], "corrupt/good"),
    ] {
        let mirror = |fault: &&str| format!("[[registry.mirror]]\nlocation = '{PORT}/{fault}'\n");
        let mirrors = mirrors.iter().map(mirror).collect::<Vec<_>>().concat();
        sandbox.write(CONF, format!("[[registry]]\nprefix = 'example.test'\nlocation = '{PORT}/good'\n{mirrors}"));
        let pull = ["pull", "--timeout", "1", "--retries", "1", "--layout", "l", "example.test/good"];
        let pulled = sandbox.run(&pull).ok().stderr_has("mirror 127.0.0.1:5005/").stderr_has(warning);
        assert_eq!(pulled.json()["image"]["reference"], "example.test/good:latest");
        let check =
            "test -z \"$(ls l/ingest)\" && cd l/blobs/sha256 && for b in *; do echo \"$b  $b\"; done | sha256sum -c";
        sandbox.sh(&format!("{check} && rm -r $SANDBOX/l")).run().ok();
    }
    // What has broken down is not asked for the other blobs; the last one's words are the user's.
    let asked = sandbox.read("requests").lines().filter(|line| line.contains("/down/good/blobs")).count();
    assert!(asked <= 8, "{}", sandbox.read("requests"));
    let gone = format!("[[registry]]\nprefix = 'example.test'\nlocation = '{PORT}/noblob'\n");
    sandbox.write(CONF, format!("{gone}[[registry.mirror]]\nlocation = '{PORT}/corrupt'\n"));
    let failed = sandbox.run(&["pull", "--layout", "l", "example.test/good"]).fails(1);
    failed.stderr_has("pull: fetch example.test/good:latest: blob sha256:").stderr_has(": not found");
    sandbox.sh("! grep -q digest l/index.json && test -z \"$(ls l/ingest)\"").run().ok();
}

fn digest_only(sandbox: &Sandbox) {
    let record = sandbox.run(&["pull", "--layout", "a", &image("busybox").reference]).ok().json();
    let digest = record["image"]["manifest"]["digest"].as_str().unwrap_or_default().to_owned();
    let mirror = "[[registry.mirror]]\nlocation = '127.0.0.1:5000'\n";
    for conf in [
        format!("[[registry]]\nlocation = '127.0.0.1:1'\nmirror-by-digest-only = true\n{mirror}"),
        format!("[[registry]]\nlocation = '127.0.0.1:1'\n{mirror}pull-from-mirror = 'digest-only'\n"),
    ] {
        sandbox.write(CONF, conf);
        sandbox.run(&["pull", "127.0.0.1:1/busybox"]).fails(1).one_error_line("pull", &["refused"]);
        sandbox.run(&["pull", "--layout", "b", &format!("127.0.0.1:1/busybox@{digest}")]).ok().stderr_is("");
    }
}

fn blocked(sandbox: &Sandbox) {
    let busybox = image("busybox").reference;
    sandbox.write(CONF, "[[registry]]\nprefix = '127.0.0.1:5000/busybox'\nblocked = true\n");
    sandbox
        .run(&["pull", &busybox])
        .fails(1)
        .one_error_line("pull", &["fetch", "127.0.0.1:5000/busybox is blocked in registries.conf"]);
    sandbox.run(&["pull", "--layout", "l", &image("debian").reference]).ok();
    sandbox.cmd(&["pull", &busybox]).env("CONTAINERS_REGISTRIES_CONF", "/dev/null").run().ok();
}

fn rewritten(sandbox: &Sandbox) {
    sandbox.write("one.conf", "[[registry]]\nprefix = '*.corp'\nlocation = '127.0.0.1:5000'\n");
    sandbox.run(&["pull", "--registries-conf", "one.conf", "a.b.corp/busybox"]).ok();
    sandbox.write(
        "home/.config/containers/registries.conf.d/50-names.conf",
        "[aliases]\nbox = '127.0.0.1:5000/busybox'\nbusybox = '127.0.0.1:5000/busybox'\n",
    );
    for name in ["box", "busybox:latest"] {
        let record = sandbox.run(&["pull", name]).ok().json();
        assert_eq!(record["image"]["reference"], "127.0.0.1:5000/busybox:latest");
        let local = sandbox.run(&["pull", "--policy", "never", name]).ok().json();
        assert_eq!(local, record);
    }
}

fn wrong(sandbox: &Sandbox) {
    sandbox.write(CONF, "[[registry]]\nlocation = 7\n");
    sandbox
        .run(&["pull", "127.0.0.1:5005/good/image"])
        .fails(1)
        .one_error_line("pull", &["containers/registries.conf: line 2"]);
    sandbox.run(&["pull", "--registries-conf", "none", "a.test/x"]).fails(1).one_error_line("pull", &["read none"]);
}

/// Nobody but the proxy knows where registry.test is.
fn proxied(sandbox: &Sandbox) {
    let _registry = faulty(sandbox);
    let pull = |host: &str, variables: &[(&str, &str)]| {
        let name = format!("{host}:5005/good/image");
        let command = ["pull", "-vv", "--tls-verify=false", "--layout", "l", &name];
        variables.iter().fold(sandbox.cmd(&command), |command, (name, value)| command.env(name, value)).run()
    };
    let proxy = "http://bob:hidden@127.0.0.1:5005";
    for (name, value) in [("HTTP_PROXY", proxy), ("http_proxy", proxy), ("ALL_PROXY", "socks5h://127.0.0.1:5006")] {
        let outcome = pull("registry.test", &[(name, value), ("HTTPS_PROXY", "http://127.0.0.1:1")]);
        // Over https the registry says nothing sensible, whatever the way there.
        let said = format!("{:?}", outcome.ok());
        assert!(!said.contains("hidden") && !said.contains("Ym9iOmhpZGRlbg"), "{said}");
        sandbox.sh("rm -r l").run().ok();
    }
    assert!(sandbox.read("requests").contains("CONNECT registry.test:5005 Basic"), "{}", sandbox.read("requests"));
    assert!(sandbox.read("requests").contains("SOCKS registry.test:5005"), "{}", sandbox.read("requests"));
    for excepted in ["registry.test", "*", ".test,other", "registry.test:5005"] {
        let direct = pull("registry.test", &[("ALL_PROXY", proxy), ("NO_PROXY", excepted)]).fails(1);
        direct.stderr_has("connect to registry.test:5005: ");
    }
    let asked = sandbox.read("requests").lines().count();
    pull("127.0.0.1", &[("ALL_PROXY", "http://127.0.0.1:1")]).ok();
    assert!(!sandbox.read("requests").lines().skip(asked).any(|line| line.starts_with("CONNECT")));
    let absent = pull("registry.test", &[("ALL_PROXY", "http://bob:hidden@127.0.0.1:1")]).fails(1);
    absent.stderr_has("connect to registry.test:5005 through the proxy 127.0.0.1:1: Connection refused");
    let closed = pull("closed.test", &[("ALL_PROXY", proxy)]).fails(1);
    closed.stderr_has("through the proxy 127.0.0.1:5005: proxy server responded 403");
    let wrong = pull("registry.test", &[("ALL_PROXY", "gopher://bob:hidden@h")]).fails(1);
    wrong.stderr_has("ALL_PROXY is no proxy's URL");
}

fn tunnelled(sandbox: &Sandbox) {
    let _proxy = faulty(sandbox);
    let _registry = tls_registry(sandbox, "DNS:registry.test", "5444");
    let pull = sandbox.cmd(&["pull", "--cert-dir", "trusted", "registry.test:5444/busybox"]);
    pull.env("HTTPS_PROXY", "127.0.0.1:5005").run().ok();
    assert!(sandbox.read("requests").contains("CONNECT registry.test:5444 none"), "{}", sandbox.read("requests"));
}

fn store(sandbox: &Sandbox) {
    let _registry = faulty(sandbox);
    sandbox.write(
        "bin/docker-credential-test",
        "#!/bin/sh\nread -r server || :\necho \"$1 $server\" >>asked\n\
         [ \"$server\" = 127.0.0.1:5005 ] || { echo 'credentials not found in native keychain'; exit 1; }\n\
         echo '{\"Username\":\"alice\",\"Secret\":\"secret\"}'\n",
    );
    sandbox.write("home/.docker/config.json", r#"{"credsStore":"test"}"#);
    let script = format!("chmod +x bin/*; PATH=$PWD/bin:$PATH pull --layout l {PORT}/basic/image");
    sandbox.sh(&script).run().ok();
    assert_eq!(sandbox.read("asked"), "get 127.0.0.1:5005\n");
    // A store that has none for this registry is no error: it may be asked without.
    let other = "PATH=$PWD/bin:$PATH pull --layout l localhost:5005/good/image";
    sandbox.sh(other).run().ok();
    // One that is not there is told, and is none either where nobody asks for credentials.
    sandbox.write("home/.docker/config.json", r#"{"credsStore":"gone"}"#);
    let gone = sandbox.run(&["pull", "--layout", "l", &format!("{PORT}/basic/image")]).fails(1);
    gone.stderr_has("warning").stderr_has("docker-credential-gone").stderr_has("wants credentials");
    sandbox.run(&["pull", "--layout", "l", &format!("{PORT}/good/image")]).ok().stderr_has("docker-credential-gone");
}

/// Starts a registry with the test images over TLS; what to trust is in the directory `trusted`.
fn tls_registry(sandbox: &Sandbox, name: &str, port: &str) -> Running {
    sandbox
        .sh(&format!(
            "set -e; mkdir trusted
             openssl req -x509 -newkey rsa:2048 -nodes -keyout s.key -out s.crt -days 2 -subj /CN=s \
               -addext subjectAltName={name} -addext basicConstraints=critical,CA:FALSE
             cp s.crt trusted/ca.crt"
        ))
        .run()
        .ok();
    let storage = image("busybox").layout.join("../../registry");
    let config = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
         http: {{addr: '127.0.0.1:{port}', tls: {{certificate: s.crt, key: s.key}}}}\n",
        storage.display()
    );
    sandbox.write("tls.yml", config);
    let registry = sandbox.cmd(&["docker-registry", "serve", "tls.yml"]).start();
    sandbox
        .sh(&format!("until openssl s_client -connect 127.0.0.1:{port} </dev/null >/dev/null 2>&1; do :; done"))
        .run();
    registry
}

fn docker_certificates(sandbox: &Sandbox) {
    let _registry = tls_registry(sandbox, "IP:127.0.0.1", "5444");
    sandbox
        .sh("mkdir -p docker/certs.d /etc/docker; cp -r trusted docker/certs.d/127.0.0.1:5444; mount --bind docker /etc/docker")
        .run()
        .ok();
    let trusted = sandbox.run(&["pull", "127.0.0.1:5444/busybox"]);
    sandbox.sh("umount /etc/docker").run().ok();
    trusted.ok();
    sandbox.run(&["pull", "--tls-verify=false", "127.0.0.1:5444/busybox"]).ok().stderr_is("");
    // Docker's own recipe: an authority that shows itself.
    sandbox.sh("openssl req -x509 -newkey rsa:2048 -nodes -keyout s.key -out own.crt -days 2 -subj /CN=s -addext subjectAltName=IP:127.0.0.1 \
         && mkdir own && (echo around; cat own.crt) >own/ca.crt && cp own.crt s.crt && sed -i s/5444/5446/ tls.yml").run().ok();
    let _own = sandbox.cmd(&["docker-registry", "serve", "tls.yml"]).start();
    sandbox.sh("until openssl s_client -connect 127.0.0.1:5446 </dev/null >/dev/null 2>&1; do :; done").run();
    sandbox.run(&["pull", "--cert-dir", "own", "127.0.0.1:5446/busybox"]).ok();
    sandbox
        .run(&["pull", "--cert-dir", "own", "localhost:5446/busybox"])
        .fails(1)
        .one_error_line("pull", &["certificate"]);
    sandbox.run(&["pull", "127.0.0.1:5444/busybox"]).fails(1).one_error_line("pull", &["certificate"]);
}
