//! Mounts with the less common options: id maps, attributes of whole trees, what a tmpfs begins with, cgroups.

use serde_json::{Value, json};

use super::{NEEDS, bundle, change, map_ids, run, spawn};
use crate::support::{Sandbox, Test, test};

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("a_mount_has_ids_of_its_own_mappings", NEEDS, own_mappings),
        test("idmap_uses_the_container_s_mappings", NEEDS, container_mappings),
        test("idmap_uses_the_mappings_of_a_joined_user_namespace", NEEDS, joined_mappings),
        test("an_id_mapped_source_may_be_an_earlier_mount", NEEDS, mapped_mount),
        test("half_an_id_map_is_refused", NEEDS, half_mappings),
        test("recursive_attributes_reach_every_mount_below", NEEDS, recursive),
        test("tmpcopyup_keeps_modes_owners_and_links", NEEDS, copy_up),
        test("every_mount_option_of_features_is_accepted", NEEDS, features),
        test("the_cgroup_mount_shows_the_container_s_own", NEEDS, cgroups),
        test("a_mount_of_type_cgroup2_is_one", NEEDS, cgroup2),
        test("an_option_with_a_comma_is_several", NEEDS, commas),
    ]
}

fn push(config: &mut Value, mount: Value) {
    config["mounts"].as_array_mut().unwrap().push(mount);
}

fn own_mappings(sandbox: &Sandbox) {
    sandbox.sh("mkdir -p data/below && touch data/file && chown 5:6 data/file && mount -t tmpfs t data/below && touch data/below/deep").run().ok();
    let maps = json!([{"containerID": 0, "hostID": 1000, "size": 100}]);
    let script = "stat -c %u:%g /mnt/file /mnt/below/deep /tmp/file /tmp/below/deep; touch /mnt/new 2>/dev/null || echo unmapped";
    bundle(sandbox, "own", script, |config| {
        let mount = |destination: &str, options: Value| json!({"destination": destination, "source": sandbox.at("data"), "options": options, "uidMappings": maps, "gidMappings": maps});
        push(config, mount("/mnt", json!(["rbind", "idmap"])));
        push(config, mount("/tmp", json!(["rbind", "ridmap"])));
    });
    // Where a tree is mapped at its top alone, what is below keeps its ids; user 0 of the host has none in it.
    run(sandbox, "own").ok().stdout_is("1005:1006\n0:0\n1005:1006\n1000:1000\nunmapped\n");
    sandbox.sh("stat -c %u:%g data/file && umount data/below").run().ok().stdout_is("5:6\n");
}

fn container_mappings(sandbox: &Sandbox) {
    sandbox.sh("mkdir data && touch data/file && chown 5:6 data/file").run().ok();
    let script = "stat -c %u:%g /mnt/file /tmp/file; touch /mnt/new && stat -c %u /mnt/new";
    bundle(sandbox, "map", script, |config| {
        map_ids(config);
        push(config, json!({"destination": "/mnt", "source": sandbox.at("data"), "options": ["bind", "idmap"]}));
        push(config, json!({"destination": "/tmp", "source": sandbox.at("data"), "options": ["bind"]}));
    });
    sandbox.sh("chown -hR 100000:100000 map/rootfs && chmod 755 . map").run().ok();
    run(sandbox, "map").ok().stdout_is("5:6\n65534:65534\n0\n");
    sandbox.sh("stat -c %u:%g data/new").run().ok().stdout_is("0:0\n");
}

fn joined_mappings(sandbox: &Sandbox) {
    sandbox.sh("mkdir data && touch data/file && chown 5:6 data/file").run().ok();
    bundle(sandbox, "usr", "sleep 1000", map_ids);
    bundle(sandbox, "joi", "stat -c %u:%g /mnt/file", |config| {
        let path = format!("/proc/{}/ns/user", {
            sandbox.sh("chown -hR 100000:100000 usr/rootfs && chmod 755 . usr").run().ok();
            spawn(sandbox, "run -d --pid-file pid -b usr e2e-usr </dev/null >/dev/null 2>&1").ok();
            sandbox.read("pid")
        });
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user", "path": path}));
        push(config, json!({"destination": "/mnt", "source": sandbox.at("data"), "options": ["bind", "idmap"]}));
    });
    sandbox.sh("chown -hR 100000:100000 joi/rootfs && chmod 755 joi").run().ok();
    run(sandbox, "joi").ok().stdout_is("5:6\n");
    spawn(sandbox, "delete -f e2e-usr").ok();
}

/// What is mounted in the rootfs, only the container's process sees.
fn mapped_mount(sandbox: &Sandbox) {
    sandbox.sh("mkdir -p data/below && touch data/below/file && chown 5:6 data/below/file").run().ok();
    let maps = json!([{"containerID": 0, "hostID": 1000, "size": 100}]);
    bundle(sandbox, "ear", "stat -c %u:%g /mnt/below/file /tmp/file", |config| {
        let below = sandbox.at("ear/rootfs/mnt/below");
        push(config, json!({"destination": "/mnt", "source": sandbox.at("data"), "options": ["bind"]}));
        push(
            config,
            json!({"destination": "/tmp", "source": below, "options": ["bind"], "uidMappings": maps, "gidMappings": maps}),
        );
    });
    run(sandbox, "ear").ok().stdout_is("5:6\n1005:1006\n");
    // In a user namespace the process may not map ids itself.
    change(sandbox, "ear", |config| {
        map_ids(config);
        let maps = config["linux"]["uidMappings"].clone();
        let last = config["mounts"].as_array_mut().unwrap().last_mut().unwrap();
        (last["uidMappings"], last["gidMappings"]) = (maps.clone(), maps);
    });
    sandbox.sh("chown -hR 100000:100000 ear/rootfs && chmod 755 . ear").run().ok();
    run(sandbox, "ear").ok().stdout_is("65534:65534\n5:6\n");
}

fn half_mappings(sandbox: &Sandbox) {
    sandbox.sh("mkdir data").run().ok();
    let maps = json!([{"containerID": 0, "hostID": 1000, "size": 100}]);
    for mount in [
        json!({"destination": "/mnt", "source": sandbox.at("data"), "options": ["bind"], "uidMappings": maps}),
        json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "uidMappings": maps, "gidMappings": maps}),
        json!({"destination": "/mnt", "source": sandbox.at("data"), "options": ["bind", "idmap"]}),
    ] {
        bundle(sandbox, "hlf", "true", |config| push(config, mount.clone()));
        run(sandbox, "hlf").fails(1).one_error_line("spawn", &["/mnt", "map"]);
    }
}

fn recursive(sandbox: &Sandbox) {
    sandbox.sh("mkdir -p tree/below && mount -t tmpfs -o noexec,noatime,ro t tree/below").run().ok();
    let tree = sandbox.at("tree");
    for (options, top, below) in [
        (json!(["rbind", "rro", "rnosuid", "rnodev"]), "ro,nosuid,nodev,relatime", "ro,nosuid,nodev,noexec,noatime"),
        (json!(["rbind", "rrw", "rexec", "rrelatime"]), "rw,relatime", "rw,relatime"),
        (
            json!(["rbind", "ro", "rnoexec", "rnosymfollow"]),
            "ro,noexec,relatime,nosymfollow",
            "ro,noexec,noatime,nosymfollow",
        ),
        (json!(["rbind", "rnodiratime", "rstrictatime"]), "rw,nodiratime", "ro,noexec,nodiratime"),
        (json!(["rbind", "rro", "rw"]), "ro,relatime", "ro,noexec,noatime"),
    ] {
        bundle(sandbox, "rec", "grep ' /mnt' /proc/self/mountinfo | cut -d' ' -f6", |config| {
            push(config, json!({"destination": "/mnt", "source": tree, "options": options}));
        });
        run(sandbox, "rec").ok().stdout_is(&format!("{top}\n{below}\n"));
    }
    sandbox.sh("umount tree/below").run().ok();
}

fn copy_up(sandbox: &Sandbox) {
    let script =
        "cd /mnt && stat -c '%n %a %u:%g' * dir/file && readlink link && cat dir/file && echo x >dir/new && ls dir";
    bundle(sandbox, "cpu", script, |config| {
        push(
            config,
            json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "mode=1711"]}),
        );
    });
    sandbox.sh("cd cpu/rootfs/mnt && mkdir dir && echo text >dir/file && chown 7:8 dir/file && chmod 4755 dir/file && chmod 2750 dir && ln -s dir/file link && mkfifo -m 640 pipe").run().ok();
    run(sandbox, "cpu")
        .ok()
        .stdout_is("dir 2750 0:0\nlink 777 0:0\npipe 640 0:0\ndir/file 4755 7:8\ndir/file\ntext\nfile\nnew\n");
    sandbox.sh("test ! -e cpu/rootfs/mnt/dir/new").run().ok();
}

fn features(sandbox: &Sandbox) {
    let features = sandbox.sh("spawn features").run().ok().json();
    // These say where a mount comes from, and have tests of their own.
    let special = ["bind", "rbind", "idmap", "ridmap", "remount"];
    let listed = features["mountOptions"].as_array().unwrap().iter().filter_map(Value::as_str);
    let options: Vec<&str> = listed.filter(|option| !special.contains(option)).collect();
    assert!(options.len() > 50, "{options:?}");
    bundle(sandbox, "fea", "grep -c ' /mnt/' /proc/self/mountinfo", |config| {
        for option in &options {
            let destination = format!("/mnt/{option}");
            push(config, json!({"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": [option]}));
        }
    });
    run(sandbox, "fea").ok().stdout_is(&format!("{}\n", options.len()));
    bundle(sandbox, "fea", "true", |config| {
        push(config, json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": ["nonsense"]}));
    });
    run(sandbox, "fea").fails(1).one_error_line("spawn", &["nonsense"]);
}

fn cgroups(sandbox: &Sandbox) {
    let script = "d=/sys/fs/cgroup; [ ! -d $d/pids ] || d=$d/pids; cat $d/cgroup.procs | head -n1; cat $d/pids.max; mkdir $d/x 2>/dev/null && rmdir $d/x && echo writable; true";
    for (own_namespace, options, want) in [
        (true, json!(["nosuid", "noexec", "nodev", "ro"]), "1\n20\n"),
        (false, json!(["nosuid", "noexec", "nodev", "ro"]), "1\n20\n"),
        (true, json!(["nosuid", "noexec", "nodev"]), "1\n20\nwritable\n"),
    ] {
        bundle(sandbox, "cgm", script, |config| {
            config["linux"]["resources"] = json!({"pids": {"limit": 20}});
            if own_namespace {
                config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "cgroup"}));
            }
            push(config, json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]}));
            push(
                config,
                json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options}),
            );
        });
        run(sandbox, "cgm").ok().stdout_is(want);
    }
}

/// Beside hierarchies of v1, too.
fn cgroup2(sandbox: &Sandbox) {
    bundle(
        sandbox,
        "cg2",
        "grep -o 'cgroup2.*' /proc/self/mountinfo | cut -d' ' -f1; test -e /mnt/cgroup.procs && echo procs",
        |config| {
            push(config, json!({"destination": "/mnt", "type": "cgroup2", "source": "cgroup2", "options": ["ro"]}));
        },
    );
    run(sandbox, "cg2").ok().stdout_is("cgroup2\nprocs\n");
}

/// As mount(2) reads them, and so other runtimes do.
fn commas(sandbox: &Sandbox) {
    bundle(sandbox, "com", "stat -c %a /mnt; grep -o 'size=64k' /proc/self/mountinfo", |config| {
        push(config, json!({"destination": "/mnt", "type": "tmpfs", "options": ["size=64k,mode=700", "nosuid"]}));
    });
    run(sandbox, "com").ok().stdout_is("700\nsize=64k\n");
}
