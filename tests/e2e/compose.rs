//! `compose`: a file of services becomes pipelines, and goes again.

mod keys;

use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Need, Sandbox, Test, image, test, wait_for};

const PIPELINE: &[Need] = &[Need::Registry, Need::Overlay, Need::Nft];
const BUILDER: &[Need] = &[Need::Overlay, Need::Nft, Need::Program("podman"), Need::Program("busybox")];

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("services_start_in_order_and_find_each_other", PIPELINE, up_and_down),
        test("the_printed_script_does_the_same", PIPELINE, printed),
        test("in_the_foreground_it_shows_what_they_say_and_stops_them", PIPELINE, foreground),
        test("services_on_different_networks_do_not_see_each_other", PIPELINE, networks),
        test("a_service_stands_on_several_networks", PIPELINE, several_networks),
        test("what_says_how_it_is_built_is_built", BUILDER, built),
        test("networks_are_as_the_file_says", PIPELINE, networks_with_settings),
        test("a_service_restarts_with_what_it_needs_where_it_says_so", PIPELINE, restarted_with_what_it_needs),
        test("projects_do_not_see_each_other", PIPELINE, projects),
        test("what_the_file_has_changed_is_made_anew_and_orphans_are_named", PIPELINE, changed),
        test("restarts_end_neither_a_wait_nor_the_foreground", PIPELINE, restarts),
        test("a_dependency_that_is_not_healthy_ends_it", PIPELINE, unhealthy),
        test("verbs_take_services_as_docker_compose_has_them", PIPELINE, verbs),
        test("secrets_and_configs_may_be_texts", PIPELINE, texts),
        test("volumes_go_on_demand_only", PIPELINE, volumes),
        test("files_mean_what_docker_compose_takes_them_for", &[], files),
        test("no_key_is_dropped_without_a_word", &[], keys::nothing_is_dropped),
        test("wrong_files_are_one_line_that_names_the_place", &[], wrong),
    ]
}

/// A server that is healthy once it serves, a job before it, and a client of it.
fn write(sandbox: &Sandbox) {
    let image = image("busybox").reference;
    sandbox.write("site/index.html", "hello from compose\n");
    sandbox.write(".env", "PORT=8080\n");
    sandbox.write(
        "compose.yaml",
        format!(
            r#"
name: lab
x-common: &common
  image: {image}
  stop_grace_period: 1s
services:
  client:
    <<: *common
    command: sh -c 'wget -q -O- http://server:80/ && echo done; exec sleep 1000'
    depends_on: {{server: {{condition: service_healthy}}}}
  server:
    <<: *common
    command: [httpd, -f, -h, /site, -p, "80"]
    ports: ["${{PORT:?no port}}:80"]
    volumes: ["./site:/site:ro", "data:/data"]
    environment:
      GREETING: it's $$5
    healthcheck: {{test: [CMD, wget, -q, -O, /dev/null, "http://127.0.0.1:80/"], interval: 200ms, retries: 50}}
    depends_on: {{job: {{condition: service_completed_successfully}}}}
  job:
    <<: *common
    command: sh -c 'echo prepared >/data/prepared'
    volumes: [data:/data]
  debug:
    <<: *common
    profiles: [debug]
    command: sleep 1000
volumes:
  data:
"#
        ),
    );
}

const RUNNING: &str = "lab-client-1\nlab-server-1\n";

fn up_and_down(sandbox: &Sandbox) {
    write(sandbox);
    sandbox.run(&["compose", "up", "--detach"]).ok().stdout_is("");
    assert!(sandbox.wait_http("127.0.0.1:8080/").ends_with("hello from compose\n"));
    let running = "keep list --running --quiet | sort";
    sandbox.sh(running).run().ok().stdout_is(RUNNING);
    wait_for("the client's word", || {
        let said = sandbox.run(&["compose", "logs", "client"]).ok().stdout;
        (said == "client | hello from compose\nclient | done\n").then_some(())
    });
    sandbox
        .sh("spawn exec lab-server-1 sh -c 'cat /data/prepared; echo \"$GREETING\"'")
        .run()
        .ok()
        .stdout_is("prepared\nit's $5\n");
    let shown = sandbox.run(&["compose", "ps"]).ok().stdout;
    assert!(shown.starts_with("ID ") && shown.lines().count() == 4 && shown.contains("(healthy)"), "{shown}");
    // What runs is left alone, what is missing is started.
    let pids = "for id in client server; do spawn state lab-$id-1 | jq .pid; done";
    let before = sandbox.sh(pids).run().ok().stdout;
    sandbox.run(&["compose", "--profile", "debug", "up", "-d"]).ok();
    assert_eq!(sandbox.sh(pids).run().ok().stdout, before);
    sandbox.sh(running).run().ok().stdout_is("lab-client-1\nlab-debug-1\nlab-server-1\n");
    sandbox.run(&["compose", "up", "-d", "--force-recreate", "server"]).ok();
    let after = sandbox.sh(pids).run().ok().stdout;
    assert!(after.lines().next() == before.lines().next() && after != before, "{before}{after}");
    sandbox.run(&["compose", "--profile", "*", "down"]).ok();
    sandbox.run(&["keep", "list", "--quiet"]).ok().stdout_is("");
    sandbox.run(&["compose", "down"]).ok();
}

fn printed(sandbox: &Sandbox) {
    write(sandbox);
    sandbox.sh("compose print >script && grep -q 'run --detach --replace' script && rm compose.yaml .env").run().ok();
    sandbox.run(&["sh", "script"]).ok().stdout_is("");
    assert!(sandbox.wait_http("127.0.0.1:8080/").ends_with("hello from compose\n"));
    sandbox.sh("keep list --running --quiet | sort").run().ok().stdout_is(RUNNING);
    sandbox.run(&["keep", "rm", "--force", "lab-client-1", "lab-server-1", "lab-job-1"]).ok();
}

fn foreground(sandbox: &Sandbox) {
    write(sandbox);
    let up = sandbox.sh("exec compose up").start();
    up.wait_stdout("client | done");
    up.signal(Signal::INT);
    up.wait().fails(128 + 2);
    sandbox.run(&["keep", "list", "--running", "--quiet"]).ok().stdout_is("");
    sandbox.run(&["compose", "down"]).ok();
}

fn networks(sandbox: &Sandbox) {
    let image = image("busybox").reference;
    let serve = r"sh -c 'mkdir /www; hostname >/www/index.html; exec httpd -f -h /www -p 80'";
    let service = |name: &str, network: &str| {
        format!("  {name}: {{image: {image}, command: {serve:?}, stop_grace_period: 0s{network}}}\n")
    };
    let services = [
        ("web", ", networks: [front]"),
        ("app", ", networks: [front]"),
        ("db", ", networks: [back-of-the-house]"),
        ("own", ""),
    ];
    let services: String = services.map(|(name, network)| service(name, network)).concat();
    sandbox
        .write("compose.yaml", format!("name: lab\nnetworks: {{front: , back-of-the-house: }}\nservices:\n{services}"));
    sandbox.run(&["compose", "up", "-d"]).ok();
    let get = "get() { spawn exec lab-$1-1 sh -c \"timeout 2 wget -q -O- http://$2:80/ 2>/dev/null || echo closed\"; }
        address() { spawn exec lab-$1-1 ip -4 -o addr show eth0 | sed 's/.*inet \\([0-9.]*\\).*/\\1/'; }
        until [ \"$(get web app; get app web; get db localhost; get own localhost)\" = \"$(printf 'lab-app-1\nlab-web-1\nlab-db-1\nlab-own-1')\" ]; do :; done";
    let other =
        "get web db; get db app; get own web; get web $(address db); get db $(address own); get own $(address app)";
    sandbox.sh(&format!("{get}; {other}")).run().ok().stdout_is(&"closed\n".repeat(6));
    sandbox.sh("ip -br link show type bridge | cut -c 1-3 | sort").run().ok().stdout_is("br-\nlab\nlab\n");
    sandbox.run(&["compose", "down"]).ok();
    sandbox.sh("until [ -z \"$(nft list tables; ip -o link | grep -v ' lo:')\" ]; do :; done").run().ok();
}

fn several_networks(sandbox: &Sandbox) {
    let image = image("busybox").reference;
    let serve = r"sh -c 'mkdir /www; hostname >/www/index.html; exec httpd -f -h /www -p 80'";
    let services = [
        ("web", "{front: }"),
        ("app", "{front: {priority: 5}, back: {aliases: [middle], mac_address: '02:00:00:00:00:07'}}"),
        ("db", "[back]"),
    ];
    let services = services.map(|(name, networks)| {
        format!("  {name}: {{image: {image}, command: {serve:?}, stop_grace_period: 0s, networks: {networks}}}\n")
    });
    let file = format!("name: lab\nnetworks: {{front: , back: }}\nservices:\n{}", services.concat());
    sandbox.write("compose.yaml", file);
    sandbox.run(&["compose", "up", "-d"]).ok();
    let get =
        "get() { spawn exec lab-$1-1 sh -c \"timeout 2 wget -q -O- http://$2:80/ 2>/dev/null || echo closed\"; }
        until [ \"$(get web app; get app web; get db app; get db middle; get app db)\" = \"$(printf 'lab-app-1\nlab-web-1\nlab-app-1\nlab-app-1\nlab-db-1')\" ]; do :; done";
    sandbox.sh(&format!("{get}; get web db; get db web; get web middle")).run().ok().stdout_is(&"closed\n".repeat(3));
    // The one with the higher priority is joined first.
    let links = "spawn exec lab-app-1 sh -c 'cat /sys/class/net/eth1/address; ip route show default'";
    sandbox.sh(links).run().ok().stdout_has("02:00:00:00:00:07\ndefault via").stdout_has("dev eth0");
    sandbox.run(&["compose", "down"]).ok();
    sandbox.sh("until [ -z \"$(nft list tables; ip -o link | grep -v ' lo:')\" ]; do :; done").run().ok();
}

fn networks_with_settings(sandbox: &Sandbox) {
    let image = image("busybox").reference;
    let common = format!("image: {image}, command: sleep 1000, stop_grace_period: 0s");
    sandbox.write(
        "compose.yaml",
        format!(
            "name: lab\nservices:\n  db: {{{common}, networks: [inner]}}\n  \
             web: {{{common}, networks: {{inner: {{ipv4_address: 10.9.0.200}}, outer: }}}}\n\
             networks:\n  inner: {{internal: true, ipam: {{config: [{{subnet: 10.9.0.0/24, ip_range: 10.9.0.128/25}}]}}}}\n  \
             outer: {{driver_opts: {{com.docker.network.driver.mtu: 1400}}}}\n"
        ),
    );
    sandbox.run(&["compose", "up", "-d"]).ok();
    let inside = |id: &str, command: &str| sandbox.run(&["spawn", "exec", id, "sh", "-c", command]).ok();
    inside("lab-db-1", "ip route | grep -c default || ip -4 addr show eth0")
        .stdout_has("0\n")
        .stdout_has("inet 10.9.0.1");
    inside("lab-db-1", "ping -c 1 -W 2 web && ping -c 1 -W 2 10.9.0.200");
    inside("lab-web-1", "ip route | grep default; cat /sys/class/net/eth1/mtu")
        .stdout_has("dev eth1")
        .stdout_has("1400");
    sandbox.run(&["compose", "up", "-d"]).ok().stderr_is("");
    for other in ["internal: true/internal: false", "10.9.0.0.24/10.9.0.0\\/25", "mtu: 1400/mtu: 1300"] {
        let up = sandbox.sh(&format!("sed 's/{other}/' compose.yaml >other.yaml; compose -f other.yaml up -d"));
        up.run().fails(1).stderr_has("exists with other settings, until it is removed");
    }
    sandbox.run(&["compose", "ps", "-q"]).ok().stdout_is("lab-db-1\nlab-web-1\n");
    sandbox.run(&["compose", "down"]).ok();
    sandbox.sh("ns network list --json").run().ok().stdout_is("[]\n");
    // One that leads outwards does not become an internal one while somebody is on it.
    let one =
        |network: &str| format!("name: lab\nservices:\n  db: {{{common}}}\nnetworks:\n  default: {{{network}}}\n");
    sandbox.write("compose.yaml", one(""));
    sandbox.run(&["compose", "up", "-d"]).ok();
    sandbox.write("compose.yaml", one("internal: true"));
    sandbox.run(&["compose", "up", "-d"]).fails(1).stderr_has("network lab_default already exists");
    sandbox.run(&["compose", "down"]).ok();
    sandbox.run(&["compose", "up", "-d"]).ok().stderr_is("lab-db-1 started\n");
    inside("lab-db-1", "ip route | grep -c default || :").stdout_is("0\n");
    sandbox.run(&["compose", "down"]).ok();
    sandbox.sh("until [ -z \"$(nft list tables; ip -o link | grep -v ' lo:')\" ]; do :; done").run().ok();
}

fn built(sandbox: &Sandbox) {
    let busybox = sandbox.sh("command -v busybox").run().ok().stdout;
    sandbox.sh(&format!("mkdir app && cp {} app/busybox", busybox.trim())).run().ok();
    sandbox.write("app/Dockerfile", "FROM scratch\nARG WORD\nCOPY busybox /busybox\nENV WORD=$WORD\nCMD [\"/busybox\", \"sh\", \"-c\", \"echo $WORD; exec /busybox sleep 1000\"]\n");
    let file = "name: lab\nservices:\n  app: {build: {context: app, args: {WORD: $WORD}}, stop_grace_period: 0s, network_mode: none}\n";
    sandbox.write("compose.yaml", file);
    let compose = |line: &str| {
        // podman takes no longer path.
        let builder = "run=$(mktemp -d /tmp/XXXXXX); trap 'rm -r \"$run\"' EXIT
            export DRAYAGE_BUILD=\"podman --root $run/s --runroot $run/r --storage-driver vfs build\"";
        sandbox.sh(&format!("{builder}\n{line}")).limit(Duration::from_secs(60)).run()
    };
    compose("WORD=one compose up -d").ok().stderr_has("lab-app-1 started");
    let said = || {
        wait_for("its word", || {
            Some(sandbox.run(&["compose", "logs", "--no-log-prefix"]).ok().stdout).filter(|said| said.ends_with('\n'))
        })
    };
    assert_eq!(said(), "one\n");
    // What is there is built again if that is asked for.
    compose("WORD=two compose up -d --force-recreate").ok();
    assert_eq!(said(), "one\n");
    compose("WORD=two compose build && WORD=two compose up -d --force-recreate").ok();
    assert_eq!(said(), "two\n");
    sandbox.run(&["compose", "down"]).ok();
    sandbox.write("app/Dockerfile", "FROM scratch\nCOPY nothing /\n");
    compose("compose up -d --build").fails(1).stderr_has("lab-app:latest is not built: $DRAYAGE_BUILD");
    let none = sandbox.sh("DRAYAGE_BUILD=no-such-builder compose build").run().fails(1);
    none.stderr_has("no-such-builder: not found").stderr_has("compose: build lab: see above");
}

fn restarted_with_what_it_needs(sandbox: &Sandbox) {
    let image = image("busybox").reference;
    let common = format!("image: {image}, command: sleep 1000, stop_grace_period: 0s");
    sandbox.write(
        "compose.yaml",
        format!(
            "name: lab\nservices:\n  db: {{{common}, environment: {{V: $V}}}}\n  web: {{{common}, depends_on: {{db: {{\
             condition: service_started, restart: true}}}}}}\n  other: {{{common}, depends_on: [db]}}\n"
        ),
    );
    let up = |value: &str| sandbox.sh(&format!("V={value} compose up -d")).run().ok();
    up("1").stderr_is("lab-db-1 started\nlab-web-1 started\nlab-other-1 started\n");
    up("2").stderr_is("lab-db-1 started\nlab-web-1 started\n");
    let restarted = sandbox.sh("V=2 compose restart -t 0 db").run().ok();
    restarted.stderr_is("lab-db-1 started\nlab-web-1 started\n");
    sandbox.sh("V=2 compose stop -t 0 db").run().ok().stderr_is("lab-db-1 stopped\n");
    sandbox.sh("V=2 compose down").run().ok();
}

fn changed(sandbox: &Sandbox) {
    let image = image("busybox").reference;
    let service = |value: &str| {
        format!("{{image: {image}, command: sleep 1000, stop_grace_period: 1s, environment: {{V: {value}}}}}")
    };
    let file =
        |rest: &str| sandbox.write("compose.yaml", format!("name: lab\nservices:\n  a: {}\n{rest}", service("$V")));
    file(&format!("  b: {}", service("1")));
    let pids = || sandbox.sh("for s in a b; do spawn state lab-$s-1 | jq .pid; done").run().ok().stdout;
    let up = |value: &str| sandbox.sh(&format!("V={value} compose up -d")).run().ok();
    up("1").stdout_is("").stderr_is("lab-a-1 started\nlab-b-1 started\n");
    let first = pids();
    up("1").stderr_is("");
    assert_eq!(pids(), first);
    up("2").stderr_is("lab-a-1 started\n");
    sandbox.sh("spawn exec lab-a-1 sh -c 'echo $V'").run().ok().stdout_is("2\n");
    let (a, b) = (pids().lines().next().map(str::to_owned), pids().lines().nth(1).map(str::to_owned));
    assert!(first.lines().next().map(str::to_owned) != a && first.lines().nth(1).map(str::to_owned) == b);
    file("");
    up("2").stderr_has("container lab-b-1 belongs to no service");
    sandbox
        .sh("V=2 compose up -d --remove-orphans; keep list -q")
        .run()
        .ok()
        .stdout_is("lab-a-1\n")
        .stderr_is("lab-b-1 removed\n");
    sandbox.sh("V=2 compose down").run().ok();
}

/// A job that succeeds at its second try, and a server that crashes once.
fn restarts(sandbox: &Sandbox) {
    let image = image("busybox").reference;
    sandbox.write(
        "compose.yaml",
        format!(
            r#"
name: lab
x-common: &common {{image: {image}, stop_grace_period: 1s, volumes: ["v:/d"]}}
services:
  job:
    <<: *common
    command: sh -c 'test -e /d/job || {{ touch /d/job; exit 1; }}'
    restart: on-failure
  web:
    <<: *common
    command: sh -c 'echo begun; test -e /d/web || {{ touch /d/web; sleep 1; exit 1; }}; exec sleep 1000'
    restart: always
    depends_on: {{job: {{condition: service_completed_successfully}}}}
volumes: {{v: }}
"#
        ),
    );
    let up = sandbox.cmd(&["compose", "up"]).start();
    wait_for("the second beginning", || (up.stdout().matches("web | begun").count() == 2).then_some(()));
    up.signal(Signal::INT);
    up.wait().fails(130);
    sandbox.run(&["keep", "list", "--running", "--quiet"]).ok().stdout_is("");
    sandbox.run(&["compose", "down", "--volumes"]).ok();
}

/// Two projects with the same services: each finds its own, and has a whole host name.
fn projects(sandbox: &Sandbox) {
    let image = image("busybox").reference;
    for (project, says) in [("paperless-one", "one"), ("paperless-two", "two")] {
        sandbox.write(
            format!("{project}/compose.yaml"),
            format!(
                r#"
x-common: &common {{image: {image}, stop_grace_period: 1s}}
services:
  db: {{<<: *common, command: "sh -c 'mkdir w; echo {says} >w/index.html; exec httpd -f -p 80 -h w'"}}
  web: {{<<: *common, command: "sh -c 'hostname; exec sleep 1000'", depends_on: [db], environment: [FROM_FILE]}}
"#
            ),
        );
        sandbox.write(format!("{project}/.env"), format!("A={says}\nFROM_FILE=${{A}}!\n"));
        sandbox.sh(&format!("cd {project} && compose up -d")).run().ok();
        wait_for("its host name", || {
            let said = sandbox.run(&["keep", "logs", &format!("{project}-web-1")]).ok().stdout;
            (said == format!("{project}-web-1\n")).then_some(())
        });
        let variable = ["spawn", "exec", &format!("{project}-web-1"), "sh", "-c", "echo $FROM_FILE"];
        sandbox.run(&variable).ok().stdout_is(&format!("{says}!\n"));
    }
    let fetch = "spawn exec paperless-one-web-1 wget -q -O- http://db/";
    wait_for("the own database", || (sandbox.sh(fetch).run().stdout == "one\n").then_some(()));
    sandbox.run(&["keep", "stop", "paperless-one-db-1"]).ok();
    sandbox.sh(fetch).run().fails(1).stdout_is("");
    for project in ["paperless-one", "paperless-two"] {
        sandbox.sh(&format!("cd {project} && compose down")).run().ok();
    }
}

fn unhealthy(sandbox: &Sandbox) {
    let image = image("busybox").reference;
    let check = "{test: [CMD, 'false'], interval: 100ms, retries: 2}";
    sandbox.write(
        "bad.yaml",
        format!(
            "name: bad\nservices:\n  a: {{image: {image}, command: sleep 1000, stop_grace_period: 0s, healthcheck: {check}}}\n  \
             b: {{image: {image}, command: 'true', depends_on: {{a: {{condition: service_healthy}}}}}}\n"
        ),
    );
    let outcome = sandbox.run(&["compose", "-f", "bad.yaml", "up", "-d"]).fails(1);
    outcome.stderr_has("bad-a-1 is not healthy").stderr_has("compose: start bad: see above");
    sandbox.run(&["compose", "-f", "bad.yaml", "ps", "-q"]).ok().stdout_is("bad-a-1\n");
    sandbox.run(&["compose", "-f", "bad.yaml", "down"]).ok();
    sandbox.run(&["keep", "list", "-q"]).ok().stdout_is("");
}

fn verbs(sandbox: &Sandbox) {
    write(sandbox);
    sandbox.run(&["compose", "start"]).fails(1).one_error_line("compose", &["project lab", "compose up"]);
    sandbox
        .run(&["compose", "exec", "server", "true"])
        .fails(1)
        .one_error_line("compose", &["service server does not run"]);
    sandbox.run(&["compose", "pull"]).ok().stdout_is("");
    sandbox.run(&["compose", "up", "-d", "--pull", "newer"]).fails(2);
    let printed = sandbox.run(&["compose", "print", "--no-deps", "--pull", "never", "client"]).ok().stdout;
    assert!(printed.contains(" --pull=never -- ") && !printed.contains("lab-server-1 started"), "{printed}");
    sandbox.run(&["compose", "up", "-d", "--build", "--quiet-pull"]).ok().stdout_is("");
    let exec = "compose exec -T -e A=1 -w /site -u 7:8 server sh -c 'echo $A $(pwd) $(id -u) $GREETING; exit 3'";
    sandbox.sh(exec).run().fails(3).stdout_is("1 /site 7 it's $5\n");
    sandbox.sh("echo in | compose exec server cat").run().ok().stdout_is("in\n");
    sandbox.run(&["compose", "exec", "nobody", "true"]).fails(2).one_error_line("compose", &["no service nobody"]);
    // One service, and none of those that it needs.
    sandbox.run(&["compose", "stop", "-t", "1", "client"]).ok().stdout_is("").stderr_is("lab-client-1 stopped\n");
    sandbox.run(&["compose", "ps", "-q", "client", "server"]).ok().stdout_is("lab-client-1\nlab-server-1\n");
    let timed = sandbox.run(&["compose", "logs", "-t", "--since", "1h", "--no-log-prefix", "client"]).ok().stdout;
    assert!(timed.starts_with("20") && timed.contains("Z hello from compose\n"), "{timed}");
    sandbox.run(&["compose", "logs", "--until", "1h", "client"]).ok().stdout_is("");
    let rows = sandbox.run(&["compose", "ps", "-a", "--json"]).ok().json();
    let status = rows.as_array().unwrap().iter().map(|row| row["status"].as_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(status, ["exited", "exited", "running"], "{rows}");
    sandbox.run(&["compose", "restart", "client"]).ok().stderr_is("lab-client-1 started\n");
    sandbox.run(&["compose", "stop"]).ok().stderr_is("lab-client-1 stopped\nlab-server-1 stopped\n");
    sandbox.run(&["compose", "stop"]).ok().stderr_is("");
    sandbox.run(&["compose", "start", "client"]).ok().stderr_has("lab-server-1 started\nlab-client-1 started\n");
    sandbox.run(&["keep", "wait", "lab-job-1"]).ok().stdout_is("0\n");
    sandbox.run(&["keep", "list", "-q", "-f", "name=job", "-f", "status=exited"]).ok().stdout_is("lab-job-1\n");
    sandbox.run(&["compose", "rm", "-fv"]).ok().stderr_is("lab-job-1 removed\n");
    let down = sandbox.run(&["compose", "down", "-v"]).ok();
    down.stderr_has("lab-server-1 stopped").stderr_has("lab-server-1 removed");
    sandbox.run(&["compose", "config", "-q"]).ok().stdout_is("");
    sandbox.run(&["compose", "config", "--services"]).ok().stdout_is("job\nserver\nclient\n");
    let images = sandbox.run(&["compose", "config", "--images"]).ok().stdout;
    assert!(images.lines().all(|line| line == image("busybox").reference), "{images}");
    let whole = sandbox.run(&["compose", "config"]).ok().json();
    assert_eq!(whole["name"], "lab");
    assert_eq!(whole["services"]["server"]["ports"][0], "8080:80", "{whole}");
    // What it prints is such a file.
    let again = "compose config >whole.json; PORT= compose -f whole.json print | cmp - printed && echo same";
    sandbox.sh(&format!("compose print >printed; {again}")).run().ok().stdout_is("same\n");
    let image = image("busybox").reference;
    sandbox.write("built.yaml", format!("services: {{a: {{image: {image}, build: ., command: 'true'}}}}"));
    let built = sandbox.run(&["compose", "-f", "built.yaml", "-p", "lab", "up", "-d"]).ok();
    built.stderr_has("service a: fetching its image");
    sandbox.run(&["compose", "-f", "built.yaml", "-p", "lab", "down"]).ok();
}

/// A config that the file has, and a secret that a variable has: files that only a container reads, until `down`.
fn texts(sandbox: &Sandbox) {
    let image = image("busybox").reference;
    sandbox.write(
        "compose.yaml",
        format!(
            r#"
name: lab
services:
  app:
    image: {image}
    command: sleep 1000
    stop_grace_period: 0s
    network_mode: none
    secrets: [token]
    configs: [{{source: conf, target: /etc/app.conf, uid: "7", gid: "8", mode: 0440}}, variable]
configs: {{conf: {{content: "it's ${{WORD}}\n$$end\n"}}, variable: {{environment: WORD}}}}
secrets: {{token: {{environment: TOKEN}}}}
"#
        ),
    );
    sandbox.write(".env", "TOKEN='a  \"b'\nWORD=one\n");
    sandbox.run(&["compose", "up", "-d"]).ok().stderr_is("lab-app-1 started\n");
    let look = "spawn exec lab-app-1 sh -c 'cat /etc/app.conf /run/secrets/token /variable; stat -c \" %a %u:%g\" /etc/app.conf /run/secrets/token; ! touch /variable'";
    sandbox.sh(look).run().ok().stdout_is("it's one\n$end\na  \"bone 440 7:8\n 444 0:0\n");
    sandbox.sh("stat -c %a state/compose/lab; compose up -d").run().ok().stdout_is("700\n").stderr_is("");
    // Another text makes the container anew; a secret's is not in the script.
    sandbox.sh("WORD=two compose up -d").run().ok().stderr_is("lab-app-1 started\n");
    sandbox.sh(look).run().ok().stdout_has("it's two\n");
    let printed = sandbox.run(&["compose", "print"]).ok().stdout;
    assert!(printed.contains("${TOKEN?}") && !printed.contains("a  "), "{printed}");
    sandbox.sh("compose print | env -u TOKEN sh").run().fails(2).stderr_has("TOKEN");
    sandbox.sh("compose print | TOKEN=b WORD=one sh").run().ok();
    sandbox.sh("spawn exec lab-app-1 cat /run/secrets/token").run().ok().stdout_is("b");
    sandbox.run(&["compose", "down"]).ok();
    assert!(!sandbox.exists("state/compose/lab"));
    sandbox
        .sh("sed -i /TOKEN/d .env; compose up -d")
        .run()
        .fails(1)
        .one_error_line("compose", &["secrets.token.environment: no variable TOKEN"]);
}

fn volumes(sandbox: &Sandbox) {
    write(sandbox);
    sandbox.run(&["compose", "up", "-d", "job"]).ok();
    sandbox.run(&["keep", "wait", "lab-job-1"]).ok().stdout_is("0\n");
    sandbox.run(&["compose", "down"]).ok();
    assert!(sandbox.exists("state/volumes/lab_data"));
    sandbox.run(&["compose", "down", "--volumes"]).ok();
    assert!(!sandbox.exists("state/volumes/lab_data"));
}

fn files(sandbox: &Sandbox) {
    let base =
        "services: {a: {image: x, ports: ['80:80'], environment: {UMASK: 022, V: 3.0}, domainname: d, develop: {}}}";
    sandbox.write("base.yaml", base);
    sandbox
        .write("over.yaml", "services: {a: {ports: !override ['81:80']}}\nnetworks: {default: {external: {name: n}}}");
    let printed = sandbox.run(&["compose", "-f", "base.yaml", "-f", "over.yaml", "print"]).ok();
    let printed = printed.stderr_is("compose: warning: services.a.develop: without effect here\n");
    let want = "--domainname d --env UMASK=18 --env V=3 --network=n:alias=a --publish 81:80 --label";
    assert!(printed.stdout.contains(want), "{printed}");
}

fn wrong(sandbox: &Sandbox) {
    sandbox.run(&["compose", "ps"]).fails(1).one_error_line("compose", &["no compose.yaml here or above"]);
    for (text, words) in [
        ("services: {a: {image: b, imagge: c}}", "services.a.imagge"),
        ("services: {a: {image: b, depends_on: [z]}}", "z"),
        ("services: {a: {image: b, depends_on: [a]}}", "circle"),
        ("services: {a: {image: '${UNSET:?is needed}'}}", "is needed"),
        ("services: [", "line"),
        ("services: {a: {build: {ssh: [x]}}}", "services.a.build.ssh"),
    ] {
        sandbox.write("odd.yaml", text);
        sandbox
            .run(&["compose", "-f", "odd.yaml", "up", "-d"])
            .fails(1)
            .one_error_line("compose", &["odd.yaml", words]);
    }
    sandbox.write("fine.yaml", "services: {a: {image: b}}");
    let nobody = sandbox.run(&["compose", "-f", "fine.yaml", "up", "nobody"]).fails(2);
    nobody.one_error_line("compose", &["no service nobody"]);
}
