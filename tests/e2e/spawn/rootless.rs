//! An ordinary user's containers: with one id, with the ids of /etc/subuid, in a cgroup of its own or in none.

use serde_json::{Value, json};

use super::{bundle, runtime};
use crate::support::{Need, Outcome, Sandbox, Test, test, wait_for};

const NEEDS: &[Need] = &[Need::Root, Need::Program("busybox"), Need::Program("setpriv")];
const NEEDS_MAPS: &[Need] =
    &[Need::Root, Need::Program("busybox"), Need::Program("setpriv"), Need::Program("newuidmap")];

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("an_ordinary_user_runs_a_container", NEEDS, one_id),
        test("an_ordinary_user_has_the_ids_of_newuidmap", NEEDS_MAPS, many_ids),
        test("an_ordinary_user_without_newuidmap_hears_of_it", NEEDS, no_helper),
        test("an_ordinary_user_has_limits_where_a_cgroup_is_his", NEEDS, delegated),
        test("an_ordinary_user_executes_in_his_container", NEEDS, exec),
        test("a_joined_user_namespace_owns_what_is_new", NEEDS, joined),
        test("an_ordinary_user_joins_user_and_pid_namespace", NEEDS, joined_by_user),
    ]
}

/// Runs shell text as `nobody`.
fn as_user(sandbox: &Sandbox, script: &str) -> Outcome {
    sandbox.cmd(&["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", script]).run()
}

fn spawn(sandbox: &Sandbox, words: &str) -> Outcome {
    as_user(sandbox, &format!("{} --root {} {words}", runtime(), sandbox.at("st")))
}

/// Makes a bundle that belongs to `nobody`, with the configuration of `spec --rootless` for one id.
fn users_bundle(sandbox: &Sandbox, name: &str, script: &str, change: impl FnOnce(&mut Value)) {
    bundle(sandbox, name, script, |config| {
        config["linux"]["namespaces"] =
            json!([{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "user"}]);
        for ids in ["uidMappings", "gidMappings"] {
            config["linux"][ids] = json!([{"containerID": 0, "hostID": 65534, "size": 1}]);
        }
        change(config);
    });
    sandbox.sh(&format!("mkdir -p st && chown -hR 65534:65534 st {name}")).run().ok();
}

fn map_more(config: &mut Value) {
    for ids in ["uidMappings", "gidMappings"] {
        let more = json!({"containerID": 1, "hostID": 100_000, "size": 65536});
        config["linux"][ids].as_array_mut().unwrap().push(more);
    }
}

fn one_id(sandbox: &Sandbox) {
    sandbox.sh("mkdir -m 777 home/made").run().ok();
    let script = "id -u; cat /proc/self/setgroups; echo x >/tmp/made; mount -t tmpfs none /mnt 2>/dev/null || echo confined; test -c /dev/null && echo device";
    users_bundle(sandbox, "one", script, |config| {
        let source = sandbox.at("home/made");
        let mount = json!({"destination": "/tmp", "source": source, "options": ["rbind"]});
        config["mounts"].as_array_mut().unwrap().push(mount);
    });
    spawn(sandbox, "run -b one e2e-one").ok().stdout_is("0\ndeny\nconfined\ndevice\n");
    sandbox.sh("stat -c %u:%g home/made/made; ls st").run().ok().stdout_is("65534:65534\n");
    // What `spec` writes for a user runs as it is.
    as_user(sandbox, "rm one/config.json && spawn spec --rootless -b one").ok();
    let mut config: Value = serde_json::from_str(&sandbox.read("one/config.json")).unwrap();
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["id", "-u"]);
    sandbox.write("one/config.json", config.to_string());
    spawn(sandbox, "run -b one e2e-one").ok().stdout_is("0\n");
}

fn many_ids(sandbox: &Sandbox) {
    sandbox.write("sub", "nobody:100000:65536\n");
    sandbox.sh("mount --bind sub /etc/subuid && mount --bind sub /etc/subgid").run().ok();
    let script = "id; echo x >/tmp/made; cat /proc/self/setgroups";
    users_bundle(sandbox, "many", script, |config| {
        map_more(config);
        config["process"]["user"] = json!({"uid": 5, "gid": 6, "additionalGids": [7]});
    });
    sandbox.sh("chmod 1777 many/rootfs/tmp").run().ok();
    spawn(sandbox, "run -b many e2e-many").ok().stdout_is("uid=5 gid=6 groups=7\nallow\n");
    sandbox.sh("stat -c %u:%g many/rootfs/tmp/made").run().ok().stdout_is("100004:100005\n");
    // Ids of others stay theirs.
    users_bundle(sandbox, "other", "id", |config| config["linux"]["uidMappings"][0]["hostID"] = json!(0));
    let outcome = spawn(sandbox, "run -b other e2e-other").fails(1);
    assert_eq!(outcome.stderr, "spawn: newuidmap: uid range [0-1) -> [0-1) not allowed\n");
    sandbox.sh("umount /etc/subuid /etc/subgid; ls st").run().ok().stdout_is("");
}

fn no_helper(sandbox: &Sandbox) {
    users_bundle(sandbox, "help", "id", map_more);
    let script =
        format!("runtime=$(command -v {}); PATH=$PWD/nowhere; $runtime --root st run -b help e2e-help", runtime());
    let outcome = as_user(sandbox, &script).fails(1);
    outcome.one_error_line("spawn", &["exec newgidmap", "No such file"]);
    sandbox.sh("ls st").run().ok().stdout_is("");
}

fn delegated(sandbox: &Sandbox) {
    users_bundle(sandbox, "dlg", "sleep 1000", |config| {
        config["linux"]["cgroupsPath"] = json!("/e2e-dlg/inside");
        config["linux"]["resources"] = json!({"pids": {"limit": 20}});
    });
    let own = "base=/sys/fs/cgroup; [ ! -d $base/pids ] || base=$base/pids; ";
    let delegate = "mkdir -p $base/e2e-dlg/user; echo +pids >$base/e2e-dlg/cgroup.subtree_control; \
                    chown -R 65534 $base/e2e-dlg; true";
    sandbox.sh(&format!("{own} {delegate}")).run().ok();
    // On v2 nobody moves a process but from one of his cgroups to another.
    let spawn = |words: &str| {
        let enter = "[ -e $base/tasks ] || echo 0 >$base/e2e-dlg/user/cgroup.procs";
        let user = "exec setpriv --reuid=65534 --regid=65534 --clear-groups spawn --root";
        sandbox.sh(&format!("{own} {enter}; {user} {} {words}", sandbox.at("st"))).run()
    };
    spawn("run -d -b dlg e2e-dlg </dev/null >/dev/null").ok();
    let files = |name: &str| sandbox.sh(&format!("{own} cat $base/e2e-dlg/inside/{name}")).run().ok().stdout;
    assert_eq!(files("pids.max"), "20\n");
    assert_eq!(files("cgroup.procs"), format!("{}\n", spawn("state e2e-dlg").json()["pid"]));
    spawn("update --pids-limit 30 e2e-dlg").ok();
    assert_eq!(files("pids.max"), "30\n");
    spawn("exec e2e-dlg true").ok();
    spawn("delete -f e2e-dlg").ok();
    sandbox.sh(&format!("{own} rmdir $base/e2e-dlg/user $base/e2e-dlg")).run().ok();
}

fn exec(sandbox: &Sandbox) {
    users_bundle(sandbox, "exe", "exec sleep 1000", |_| {});
    spawn(sandbox, "run -d -b exe e2e-exe </dev/null >/dev/null 2>&1").ok();
    let script = "sh -c 'id -u; readlink /proc/self/exe; head -c5 /proc/1/cmdline; exit 7'";
    spawn(sandbox, &format!("exec e2e-exe {script}")).fails(7).stdout_is("0\n/bin/busybox\nsleep");
    spawn(sandbox, "exec e2e-exe nope").fails(127).one_error_line("spawn", &["executable file not found"]);
    spawn(sandbox, "exec -d --pid-file pid e2e-exe sleep 500").fails(255);
    spawn(sandbox, "exec -d --pid-file st/pid e2e-exe sleep 500").ok();
    sandbox.sh("test $(cat /proc/$(cat st/pid)/comm) = sleep").run().ok();
    spawn(sandbox, "kill e2e-exe KILL").ok();
    wait_for("the end", || (spawn(sandbox, "state e2e-exe").json()["status"] == "stopped").then_some(()));
    spawn(sandbox, "delete e2e-exe").ok();
}

/// Makes `NAME` a bundle that joins these namespaces of the container `e2e-first`.
fn joining(sandbox: &Sandbox, name: &str, script: &str, kinds: &[&str]) {
    let pid = &super::spawn(sandbox, "state e2e-first").json()["pid"];
    users_bundle(sandbox, name, script, |config| {
        config["hostname"] = json!("second");
        config["process"]["capabilities"] =
            json!({"bounding": ["CAP_SYS_ADMIN"], "permitted": ["CAP_SYS_ADMIN"], "effective": ["CAP_SYS_ADMIN"]});
        let linux = &mut config["linux"];
        (linux["uidMappings"], linux["gidMappings"]) = (Value::Null, Value::Null);
        for namespace in linux["namespaces"].as_array_mut().unwrap() {
            let kind = namespace["type"].as_str().unwrap().to_owned();
            if kinds.contains(&kind.as_str()) {
                namespace["path"] = json!(format!("/proc/{pid}/ns/{kind}"));
            }
        }
    });
}

const SECOND: &str = "cat /proc/self/uid_map | tr -s ' '; tr '\\0' ' ' </proc/1/cmdline; echo; hostname; mount -t tmpfs none /mnt && echo mounted";

fn joined(sandbox: &Sandbox) {
    users_bundle(sandbox, "first", "exec sleep 1000", |config| {
        for ids in ["uidMappings", "gidMappings"] {
            config["linux"][ids] = json!([{"containerID": 0, "hostID": 65534, "size": 2}]);
        }
    });
    let root = |words: &str| super::spawn(sandbox, words);
    root("run -d -b first e2e-first </dev/null >/dev/null 2>&1").ok();
    sandbox.sh("ip netns add e2e-joined").run().ok();
    joining(sandbox, "second", SECOND, &["user", "pid", "ipc"]);
    let mut config: Value = serde_json::from_str(&sandbox.read("second/config.json")).unwrap();
    // A namespace of the host's is joined as well.
    let network = json!({"type": "network", "path": "/run/netns/e2e-joined"});
    config["linux"]["namespaces"].as_array_mut().unwrap().push(network);
    sandbox.write("second/config.json", config.to_string());
    root("run -b second e2e-second").ok().stdout_is(" 0 65534 2\nsleep 1000 \nsecond\nmounted\n");
    root("delete -f e2e-first").ok();
    sandbox.sh("ip netns del e2e-joined").run().ok();
}

fn joined_by_user(sandbox: &Sandbox) {
    users_bundle(sandbox, "first", "exec sleep 1000", |_| {});
    spawn(sandbox, "run -d -b first e2e-first </dev/null >/dev/null 2>&1").ok();
    joining(sandbox, "second", SECOND, &["user", "pid"]);
    spawn(sandbox, "run -b second e2e-second").ok().stdout_is(" 0 65534 1\nsleep 1000 \nsecond\nmounted\n");
    spawn(sandbox, "delete -f e2e-first").ok();
    // Another user may not.
    super::spawn(sandbox, "run -d -b first e2e-first </dev/null >/dev/null 2>&1").ok();
    let pid = super::spawn(sandbox, "state e2e-first").json()["pid"].clone();
    sandbox.sh(&format!("sed -i 's|/proc/[0-9]*/ns|/proc/{pid}/ns|' second/config.json")).run().ok();
    spawn(sandbox, "run -b second e2e-second").fails(1);
    super::spawn(sandbox, "delete -f e2e-first").ok();
}
