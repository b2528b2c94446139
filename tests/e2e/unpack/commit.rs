//! `unpack diff` and `unpack commit`: what a container has changed, as a list, a layer, an image.

use crate::support::{Need, Sandbox, Test, differences, image, test};

const IMAGES: &[Need] = &[Need::Registry, Need::Overlay];
const PEERS: &[Need] = &[Need::Registry, Need::Overlay, Need::Program("skopeo"), Need::Program("umoci")];

const USERS: &[Need] = &[Need::Registry, Need::Overlay, Need::Program("setpriv"), Need::Program("newuidmap")];

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("a_committed_container_is_the_same_for_umoci_and_skopeo", PEERS, same),
        test("a_commit_is_the_base_of_the_next", IMAGES, next),
        test("diff_lists_what_changed_in_either_form", IMAGES, lists),
        test("the_same_changes_make_the_same_image", IMAGES, reproducible),
        test("what_no_layer_can_hold_is_refused_by_name", IMAGES, hostile),
        test("an_ordinary_users_container_is_committed", USERS, ordinary_user),
        test("a_commit_on_a_full_disk_leaves_nothing", IMAGES, full_disk),
        test("wrong_use_of_commit_is_one_line", IMAGES, wrong),
    ]
}

/// Changes of every sort, in a container that goes on with what `more` says.
fn change(sandbox: &Sandbox, id: &str, more: &str) {
    let script = format!(
        "set -e; mkdir -p /new/deep; echo text >/new/file; ln /new/file /new/deep/link; ln -s /nowhere /new/symlink
        mkfifo /new/fifo; chmod 4711 /new/file; chown 7:8 /new/deep; touch -d '2001-02-03 04:05:06' /new/deep
        rm /bin/wget; rm -r /root; mkdir /root; echo mine >/root/own; ln -f /bin/sh /bin/again; echo >>/bin/uname
        rm /bin/sort; mkdir /bin/sort; touch /bin/sort/inside; : >/new/{long}; mknod /new/null c 1 3
        dd if=/dev/zero of=/new/sparse bs=1 count=1 seek=3000000 2>/dev/null; {more}",
        long = "n".repeat(180),
    );
    sandbox.write("script", script);
    let image = image("busybox").reference;
    let made =
        format!("pull {image} | unpack | bundle --id {id} -- sh -c \"$(cat script)\" >{id}.json && spawn <{id}.json");
    sandbox.sh(&made).run().ok();
}

fn same(sandbox: &Sandbox) {
    change(sandbox, "web", "true");
    let record = sandbox.sh("unpack commit web --tag lab:1 -c 'ENV A=1' | tee new.json | unpack").run().ok().json();
    assert_eq!(record["image"]["reference"], "docker.io/library/lab:1");
    // What overlayfs would show of the container is what umoci makes of the image.
    let lower = sandbox.sh("jq -r '.rootfs.layers | reverse | join(\":\")' web.json").run().ok().stdout;
    let upper = sandbox.at("state/containers/web/upper");
    let mount = format!("mkdir merged; mount -t overlay -o ro,lowerdir={upper}:{} overlay merged", lower.trim());
    sandbox.sh(&mount).run().ok();
    sandbox.run(&["umoci", "unpack", "--image", "state/oci:1", "umoci"]).ok();
    sandbox.sh("unpack --flat flat <new.json").run().ok();
    for (ours, theirs) in [("merged", "umoci/rootfs"), ("flat", "umoci/rootfs")] {
        let found = differences(&sandbox.outside(ours), &sandbox.outside(theirs), true);
        // What the runtime mounts files on, and so the directory that they are in, is not the container's doing.
        let of_runtime = |line: &str| ours == "merged" && (line.contains("only in") || line.starts_with("etc:"));
        let found: Vec<_> = found.iter().filter(|line| !of_runtime(line)).collect();
        assert!(found.is_empty(), "{ours}: {found:#?}");
    }
    sandbox.run(&["umount", "merged"]).ok();
    sandbox.run(&["bundle", "delete", "web"]).ok();
    sandbox.run(&["skopeo", "copy", "--insecure-policy", "oci:state/oci:1", "dir:copy"]).ok();
    let seen = sandbox.run(&["skopeo", "inspect", "--config", "oci:state/oci:1"]).ok().json();
    assert_eq!(seen["rootfs"]["diff_ids"].as_array().map(Vec::len), Some(2), "{seen}");
    let told = seen["history"].as_array().expect("history").iter().filter(|entry| entry["empty_layer"] != true).count();
    assert_eq!(told, 2, "{seen}");
    assert!(seen["config"]["Env"].to_string().contains("A=1"), "{seen}");
}

fn next(sandbox: &Sandbox) {
    let image = image("busybox").reference;
    let script = format!(
        "set -e; pull {image} | unpack | bundle --id one -- sh -c 'echo 1 >/log; mkdir /gone' | spawn
        unpack commit one -t lab:1 -c 'CMD [\"cat\", \"/log\"]' | unpack | bundle --id two -- sh -c 'echo 2 >>/log; rmdir /gone' | spawn
        unpack commit two -t lab:2 -a me -m 'second' >two.json
        pull --policy never lab:2 | unpack | bundle --id three | spawn
        pull --policy never lab:1 | unpack | bundle --id four -- sh -c 'cat /log; ls -d /gone' | spawn
        unpack commit two --compression zstd | unpack | bundle --id five -- sh -c 'tail -n 1 /log; ls -d /gone' | spawn || true"
    );
    let outcome = sandbox.sh(&script).run();
    assert_eq!(outcome.stdout, "1\n2\n1\n/gone\n2\n", "{outcome}");
    sandbox.run(&["bundle", "delete", "one", "two", "three", "four", "five"]).ok();
    let told = "jq -r .image.manifest.digest two.json | tr : / | sed s,^,state/oci/blobs/,";
    let told = format!(
        "m=$({told}); jq -c '.history | last | [.comment, .author]' state/oci/blobs/$(jq -r .config.digest $m | tr : /)"
    );
    sandbox.sh(&told).run().ok().stdout_is("[\"second\",\"me\"]\n");
}

fn lists(sandbox: &Sandbox) {
    let image = image("busybox").reference;
    let want = "C /bin\nD /bin/wget\nA /new\nA /new/file\n";
    let change = "mkdir /new; echo >/new/file; rm /bin/wget";
    sandbox
        .sh(&format!("pull {image} | unpack | bundle --id web -- sh -c '{change}; echo ready; sleep 1000' >web.json"))
        .run()
        .ok();
    let running = sandbox.sh("exec spawn <web.json").start();
    running.wait_stdout("ready");
    sandbox.run(&["unpack", "diff", "web"]).ok().stdout_is(want);
    sandbox.sh("spawn state web | unpack diff").run().ok().stdout_is(want);
    sandbox.run(&["spawn", "delete", "--force", "web"]).ok();
    running.wait();
    let first = sandbox.sh("unpack diff web --json | jq '.[-1]'").run().ok().json();
    assert_eq!(first, serde_json::json!({"kind": "added", "path": "/new/file"}));
    sandbox.sh("unpack diff web --tar | tar -t").run().ok().stdout_is("bin/\nbin/.wh.wget\nnew/\nnew/file\n");
    sandbox.run(&["bundle", "delete", "web"]).ok();
    // One tree has no upper directory: it is compared.
    sandbox
        .sh(&format!(
            "pull {image} | unpack --flat tree >tree.json; cd tree; {}",
            change.replace(" /", " ./").replace(">/", ">./")
        ))
        .run()
        .ok();
    sandbox.run(&["unpack", "diff", "tree.json"]).ok().stdout_is(want);
}

/// A container of an ordinary user's can replace a directory of its image, and what it has hidden stays hidden.
fn ordinary_user(sandbox: &Sandbox) {
    let image = image("busybox").reference;
    let script = format!(
        r"mkdir user; chown 65534:65534 user; chmod 711 .
        echo nobody:100000:65536 >sub; mount --bind sub /etc/subuid; mount --bind sub /etc/subgid
        cat >user/script <<'END'
        run -q --net none --name web {image} sh -c 'mkdir -p /d; touch /d/old'
        unpack commit web -t lab:1 >/dev/null
        run -q --net none --pull never --name two lab:1 sh -c 'rm -r /d /bin/wget; mkdir /d; touch /d/new; chown 7:8 /d/new'
        unpack diff two; unpack diff two --tar | tar -tv | sed 's/ 20.*:[0-9]* / /'
        unpack commit two -t lab:2 >/dev/null
        run -q --rm --net none --pull never lab:2 sh -c 'ls /d; stat -c %u:%g /d/new; ls /bin/wget' 2>&1
        bundle delete web two
END
        cd user; setpriv --reuid 65534 --regid 65534 --clear-groups env -u DRAYAGE_ROOT HOME=$PWD XDG_RUNTIME_DIR=$PWD/rt \
            sh script 2>&1; echo $?
        umount /etc/subuid /etc/subgid"
    );
    let want = "C /bin\nD /bin/wget\nC /d\nA /d/new\n\
                drwxr-xr-x 0/0               0 bin/\n\
                ---------- 0/0               0 1970-01-01 00:00 bin/.wh.wget\n\
                drwxr-xr-x 0/0               0 d/\n\
                ---------- 0/0               0 1970-01-01 00:00 d/.wh..wh..opq\n\
                -rw-r--r-- 7/8               0 d/new\n\
                new\n7:8\nls: /bin/wget: No such file or directory\n0\n";
    sandbox.sh(&script).run().ok().stdout_is(want);
}

fn reproducible(sandbox: &Sandbox) {
    change(sandbox, "web", "true");
    let commit = "unpack commit web | jq -r .image.manifest.digest";
    let digests =
        format!("export SOURCE_DATE_EPOCH=1700000000; {commit}; touch -a state/containers/web/upper/new; {commit}");
    let printed = sandbox.sh(&digests).run().ok().stdout;
    let digests: Vec<_> = printed.lines().collect();
    assert!(digests.len() == 2 && digests[0] == digests[1] && digests[0].starts_with("sha256:"), "{printed}");
    sandbox
        .cmd(&["unpack", "commit", "web"])
        .env("SOURCE_DATE_EPOCH", "soon")
        .run()
        .fails(2)
        .one_error_line("unpack", &["SOURCE_DATE_EPOCH=soon"]);
    sandbox.run(&["bundle", "delete", "web"]).ok();
}

fn hostile(sandbox: &Sandbox) {
    change(sandbox, "web", "true");
    let before = sandbox.sh("ls -R state/oci").run().ok().stdout;
    for (make, undo, words) in [
        ("touch u/.wh.passwd", "rm u/.wh.passwd", ".wh.passwd"),
        (
            "setfattr -n trusted.overlay.metacopy -v y u/new/file",
            "setfattr -x trusted.overlay.metacopy u/new/file",
            "metacopy",
        ),
        (
            "python3 -c 'import os,sys\nos.chdir(\"u\")\nfor i in range(4200):\n    os.mkdir(\"d\"); os.chdir(\"d\")'",
            "rm -rf u/d",
            "nest deeper",
        ),
    ] {
        sandbox.sh(&format!("ln -sfn state/containers/web/upper u; {make}")).run().ok();
        sandbox.run(&["unpack", "commit", "web", "-t", "bad:1"]).fails(1).one_error_line("unpack", &[words]);
        sandbox.sh(undo).run().ok();
        assert_eq!(sandbox.sh("ls -R state/oci").run().ok().stdout, before, "{words}");
    }
    sandbox.run(&["unpack", "commit", "web", "-t", "good:1"]).ok();
    sandbox.run(&["bundle", "delete", "web"]).ok();
}

fn full_disk(sandbox: &Sandbox) {
    let image = image("busybox").reference;
    sandbox
        .sh(&format!(
            "mkdir small && mount -t tmpfs -o size=6m small small
            pull --root small {image} | unpack --root small >base.json
            bundle --root small --id web -- true <base.json >web.json
            mkdir -p small/containers/web/upper; mount -t tmpfs more small/containers/web/upper
            head -c 20000000 /dev/urandom >small/containers/web/upper/noise"
        ))
        .run()
        .ok();
    let before = sandbox.sh("find small/oci -type f | sort").run().ok().stdout;
    let outcome = sandbox.run(&["unpack", "commit", "--root", "small", "web", "-t", "lab:1"]).fails(1);
    outcome.one_error_line("unpack", &["No space left on device"]);
    assert_eq!(sandbox.sh("find small/oci -type f | sort").run().ok().stdout, before);
    sandbox.sh("umount small/containers/web/upper; bundle delete --root small web; umount small").run().ok();
}

fn wrong(sandbox: &Sandbox) {
    for (arguments, code, words) in [
        ("diff nosuch", 1, "container nosuch"),
        ("commit --change 'RUN x' web", 2, "RUN is not one of CMD"),
        ("commit --tag 'a b' web", 2, "not a repository's name"),
        ("diff --json --tar web", 2, "--tar"),
    ] {
        sandbox.sh(&format!("unpack {arguments}")).run().fails(code).one_error_line("unpack", &[words]);
    }
    sandbox.sh("unpack commit").stdin("{}").run().fails(2).one_error_line("unpack", &["rootfs"]);
    let image = image("busybox").reference;
    let layers = sandbox.sh(&format!("pull {image} | unpack | unpack commit")).run().fails(2);
    layers.one_error_line("unpack", &["record has no container"]);
}
