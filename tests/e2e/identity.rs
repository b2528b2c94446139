//! Who a container is: what is no name is refused wherever it enters, and nobody undoes what another owner has.

use std::time::Duration;

use serde_json::json;

use crate::support::{Need, Sandbox, Test, image, test};

const NEEDS: &[Need] = &[Need::Registry, Need::NetNs, Need::Overlay, Need::Nft];

pub(crate) fn tests() -> Vec<Test> {
    let rounds = std::env::var("ROOTS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(20);
    vec![
        test("what_is_no_name_is_refused_wherever_it_enters", NEEDS, hostile_names),
        test("a_damaged_claim_leads_to_what_the_bundle_says", NEEDS, damaged_claim),
        test("what_somebody_else_made_is_left_alone", NEEDS, others),
        test("a_port_of_a_process_that_ended_is_free", NEEDS, pid_again),
        test("two_roots_leave_each_other_alone", NEEDS, move |sandbox| two_roots(sandbox, rounds)),
    ]
}

/// Names that lead elsewhere, or are none.
const NAMES: [&str; 10] = [
    "../victim",
    "../../../victim",
    "/SANDBOX/victim",
    "a/../../../victim",
    "..",
    ".",
    ".removed-a-1",
    "a b",
    "a\nb",
    "-x",
];

/// Command lines; `NAME` stands for the name, with a space in front of what is on standard input.
const ENTRIES: [&str; 47] = [
    "run --name=NAME --network none --rootfs /none true",
    "run --network=container:NAME --rootfs /none true",
    "run --print --name=NAME busybox",
    "bundle --id=NAME /none",
    "bundle --volumes-from=NAME /none",
    "bundle --pid=container:NAME /none",
    "bundle --mount=type=volume,source=NAME,target=/v /none",
    "bundle delete -- NAME",
    "bundle unmount -- NAME",
    "bundle mount -- NAME",
    "keep logs -- NAME",
    "keep attach -- NAME",
    "keep wait -- NAME",
    "keep stop -- NAME",
    "keep start -- NAME",
    "keep restart -- NAME",
    "keep rm --force -- NAME",
    "keep top -- NAME",
    "keep stats -- NAME",
    "keep < RECORD",
    "keep events -- NAME",
    "ns add --id=NAME - < RECORD",
    "ns add --join=NAME - < RECORD",
    "ns add --host-local=NAME web",
    "ns add < RECORD",
    "ns del < RECORD",
    "ns enter --net --target=NAME true",
    "portmap --id=NAME --pid=1 -p 8080:80",
    "portmap -p 8080:80 < RECORD",
    "portmap del < RECORD",
    "portmap list -- NAME",
    "portmap gc --keep=NAME",
    "spawn --id=NAME /none",
    "spawn < RECORD",
    "spawn run -b /none -- NAME",
    "spawn create -b /none -- NAME",
    "spawn state -- NAME",
    "spawn start -- NAME",
    "spawn kill -- NAME",
    "spawn delete --force -- NAME",
    "spawn exec -- NAME true",
    "spawn ps -- NAME",
    "spawn pause -- NAME",
    "spawn update -- NAME",
    "spawn events --stats -- NAME",
    "unpack diff < RECORD",
    "compose -f FILE down --volumes",
];

fn hostile_names(sandbox: &Sandbox) {
    sandbox.sh("mkdir -p state/run/claims state/containers state/volumes; echo mine >victim; mkdir dir; mv victim dir/file; cp -r dir victim").run().ok();
    let all = "find . -path ./home -prune -o -path ./image -prune -o -path ./programs -prune -o -print | sort; cat victim/file; ip netns list";
    let before = sandbox.sh(all).run().ok().stdout;
    for name in NAMES {
        let name = name.replace("/SANDBOX", &sandbox.at(""));
        for entry in ENTRIES {
            // Runc's ids are wider.
            if entry.starts_with("spawn") && [".removed-a-1", "-x"].contains(&&*name) {
                continue;
            }
            check(sandbox, entry, &name);
        }
        let cni = json!({"cniVersion": "1.0.0", "name": "n", "prevResult": {}}).to_string();
        let plugin = sandbox.cmd(&["portmap"]).env("CNI_COMMAND", "DEL").env("CNI_IFNAME", "eth0").stdin(cni);
        plugin.env("CNI_CONTAINERID", &name).run().fails(1).stdout_has("CNI_CONTAINERID");
        let project = sandbox.cmd(&["compose", "-f", "none.yaml", "down"]).env("COMPOSE_PROJECT_NAME", &name).run();
        assert_ne!(project.code(), 0, "project {name:?}");
    }
    // Entries that no id could have are nobody's.
    sandbox
        .sh("touch 'state/run/claims/a b' state/run/claims/.x; run --gc; bundle list; keep list; spawn list")
        .run()
        .ok();
    sandbox.sh("rm -f 'state/run/claims/a b' state/run/claims/.x").run().ok();
    assert_eq!(sandbox.sh(all).run().ok().stdout, before);
}

fn check(sandbox: &Sandbox, entry: &str, name: &str) {
    let (line, input) = match entry.split_once(" < ") {
        Some((line, _)) => (line, json!({"id": name, "bundle": "/none", "owner": "00000001-00000001"}).to_string()),
        None => (entry, String::new()),
    };
    if line.contains("FILE") {
        for text in [
            json!({"services": {"a": {"image": "x"}}, "volumes": {"v": {"name": name}}}),
            json!({"services": {"a": {"image": "x", "container_name": name}}}),
            json!({"services": {"a": {"image": "x"}}, "networks": {"n": {"name": name}}, "volumes": {format!("{name}/"): null}}),
        ] {
            sandbox.write("home/compose.yaml", text.to_string());
            refused(sandbox, &line.replace("FILE", "home/compose.yaml"), name, &input);
        }
        return;
    }
    refused(sandbox, line, name, &input);
}

fn refused(sandbox: &Sandbox, line: &str, name: &str, input: &str) {
    let words: Vec<String> = line.split(' ').map(|word| word.replace("NAME", name)).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = sandbox.cmd(&words).stdin(input.to_owned()).run();
    assert_ne!(outcome.code(), 0, "{line} with {name:?}: {}", outcome.stdout);
    let lines = outcome.stderr.lines().count();
    assert_eq!(lines, 1, "{line} with {name:?}: {}", outcome.stderr);
}

/// A claim that was spoilt is told from one that was never written.
fn damaged_claim(sandbox: &Sandbox) {
    let web = format!("run -d --name web -p 8080:80 {}", image("nginx").reference);
    for damage in [": >", "echo garbage >", "echo null >"] {
        sandbox.sh(&web).run().ok();
        let script = format!(
            "set -e; pid=$(python3 -c 'import json; print(json.load(open(\"state/run/claims/web\"))[\"pid\"])')
            kill -9 $pid; while kill -0 $pid 2>/dev/null; do sleep .01; done
            {damage} state/run/claims/web
            run --gc 2>/dev/null; ip netns list; portmap list | grep -c 8080 || true; ls state/run/claims; bundle delete web"
        );
        let said = sandbox.sh(&script).run().ok().stdout;
        assert_eq!(said, "web\n0\n", "{damage}");
    }
}

/// What was there before an interrupted run, and what another root has of the same name, stays.
fn others(sandbox: &Sandbox) {
    let silent = "python3 -c 'import socket,time; s=socket.socket(); s.setsockopt(1,2,1); s.bind((\"127.0.0.1\",5999)); s.listen(9); print(1,flush=True); time.sleep(60)'";
    let server = sandbox.sh(&format!("exec {silent}")).start();
    server.wait_stdout("1");
    for run in ["run --name web", "run -d --name web", "run --rm --name web -p 8080:80"] {
        let script = format!(
            "ip netns add web; timeout -s INT 1 {run} 127.0.0.1:5999/x </dev/null >/dev/null 2>&1
            run --gc; ip netns list | grep -w web; ip netns del web"
        );
        sandbox.sh(&script).run().ok().stdout_is("web\n");
    }
    drop(server);
    let nginx = image("nginx").reference;
    sandbox.sh(&format!("run -d --name web -p 8080:80 {nginx}")).run().ok();
    sandbox.wait_http("127.0.0.1:8080/");
    let others = "export DRAYAGE_ROOT=$PWD/other
        ns del web 2>err && echo deleted; grep -c 'another root' err; portmap del web; keep rm -f web 2>/dev/null
        bundle delete -f web; spawn delete -f web; run --gc
        run --rm --name web -p 8080:80 IMAGE true >/dev/null 2>&1 && echo ran; run --rm --name web --network none IMAGE true; echo $?";
    sandbox.sh(&others.replace("IMAGE", &nginx)).run().ok().stdout_is("1\n0\n");
    assert!(sandbox.wait_http("127.0.0.1:8080/").contains("nginx"));
    sandbox
        .sh("ip netns exec web true && keep rm -f web; umount -R /run/netns 2>/dev/null; rm -rf other /run/netns")
        .run()
        .ok();
}

/// A process's number is given again: what was published for the first is not the second's.
fn pid_again(sandbox: &Sandbox) {
    sandbox
        .sh("set -e; ip netns add c1; ip link add v1 type veth peer name eth0 netns c1; ip addr add 10.50.0.1/24 dev v1; ip link set v1 up
            ip -n c1 addr add 10.50.0.2/24 dev eth0; ip -n c1 link set eth0 up
            ip netns exec c1 sleep 500 & until p=$(ip netns pids c1) && [ -n \"$p\" ]; do :; done
            portmap --pid $p --id old -p 8090:80 >/dev/null
            kill $p; wait; ip netns del c1
            echo $((p - 1)) >/proc/sys/kernel/ns_last_pid; sleep 300 & again=$!
            [ $again = $p ] || echo another number
            portmap gc; ! portmap list | grep old || exit 1; kill $again
            umount -R /run/netns 2>/dev/null || true; rmdir /run/netns 2>/dev/null || true; portmap gc; nft delete table ip portmap 2>/dev/null || true")
        .run()
        .ok();
}

/// Two roots, one id: whatever is killed when, the container that runs in the other one keeps what it has.
fn two_roots(sandbox: &Sandbox, rounds: u32) {
    let script = format!(
        "one=$PWD/state two=$PWD/two; image={}
        DRAYAGE_ROOT=$one run -d --name web -p 8080:80 -v kept:/kept $image >/dev/null || exit 1
        DRAYAGE_ROOT=$one spawn exec web sh -c 'echo mine >/kept/file; echo mine >/own'
        seed=1; random() {{ seed=$(( (seed * 1103515245 + 12345) % 2147483648 )); echo $((seed / 65536 % $1)); }}
        for turn in $(seq {rounds}); do
            export DRAYAGE_ROOT=$two
            case $(random 6) in
            0) run --rm --name web --network none -v kept:/kept $image sh -c 'sleep 1' & ;;
            1) run --rm --name web -p 8081:80 $image sleep 1 & ;;
            2) run -d --name web --network none $image sleep 9 & ;;
            3) ns del web & ;;
            4) (portmap del web; bundle delete -f web; spawn delete -f web) & ;;
            5) keep rm -f web & ;;
            esac >/dev/null 2>&1
            sleep 0.$(random 5)
            case $(random 3) in 0) kill -9 $! ;; 1) kill -INT $! ;; esac 2>/dev/null
            wait 2>/dev/null; run --gc >/dev/null 2>&1
            export DRAYAGE_ROOT=$one
            [ \"$(spawn exec web cat /kept/file /own)\" = \"mine
mine\" ] || echo \"$turn: files\"
            portmap list | grep -q 8080 || echo \"$turn: port\"
            ip netns exec web ip -o addr show eth0 | grep -q inet || echo \"$turn: network\"
        done
        DRAYAGE_ROOT=$two run --gc >/dev/null; DRAYAGE_ROOT=$two keep rm -f web >/dev/null 2>&1
        DRAYAGE_ROOT=$two bundle delete -f web; DRAYAGE_ROOT=$one keep rm -f web; rm -rf two",
        image("busybox").reference
    );
    let script = script.replace("-p 8080:80 -v kept:/kept $image", "-p 8080:80 -v kept:/kept $image sleep 1000");
    sandbox.sh(&script).limit(Duration::from_secs(150 + u64::from(rounds))).run().ok().stdout_is("web\n");
    sandbox.sh("umount -R /run/netns 2>/dev/null; rmdir /run/netns 2>/dev/null; true").run().ok();
}
