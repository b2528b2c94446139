//! config.json: what of the image and what of the user's options is in it.

use super::rootfs;
use crate::support::{Need, Sandbox, Test, image, test};

const JQ: &[Need] = &[Need::Registry, Need::Overlay, Need::Program("jq")];

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("annotations_of_manifests_and_indexes_take_no_part", JQ, outer_annotations),
        test("each_option_is_in_config_json", JQ, each_option),
    ]
}

fn outer_annotations(sandbox: &Sandbox) {
    let layout = image("busybox").layout.display().to_string();
    let annotate = format!(
        "set -e; cp -r {layout} l; cd l; old=$(jq -r '.manifests[0].digest' index.json)
         jq -c '.annotations[\"from.manifest\"]=\"1\"' blobs/sha256/${{old#*:}} >new; digest=$(sha256sum new | cut -d' ' -f1)
         jq -c --arg d sha256:$digest --argjson s $(stat -c %s new) '.manifests[0].digest=$d | .manifests[0].size=$s
           | .manifests[0].annotations[\"from.descriptor\"]=\"1\" | .annotations[\"from.index\"]=\"1\"' index.json >index
         mv new blobs/sha256/$digest; mv index index.json"
    );
    sandbox.sh(&annotate).run().ok();
    for from in ["unpack l", "pull --layout m oci:l | unpack"] {
        let config = sandbox.sh(&format!("{from} | bundle --print")).run().ok().json();
        let annotations = config["annotations"].as_object().unwrap();
        assert!(annotations.contains_key("org.opencontainers.image.os"), "{annotations:?}");
        assert!(!annotations.keys().any(|key| key.starts_with("from.")), "{annotations:?}");
    }
}

/// What a container may use up.
fn limits() -> Vec<(&'static str, String)> {
    vec![
        ("--cpuset-cpus 0-1 --cpuset-mems 0", ".linux.resources.cpu == {cpus: \"0-1\", mems: \"0\"}".into()),
        ("--cpus 1.5 --cpu-shares 512", ".linux.resources.cpu == {shares: 512, quota: 150000, period: 100000}".into()),
        ("-m 64m --memory-swap 128m", ".linux.resources.memory == {limit: 67108864, swap: 134217728}".into()),
        ("-m 64m --memory-swap -1", ".linux.resources.memory.swap == -1".into()),
        ("--memory-reservation 32m", ".linux.resources.memory.reservation == 33554432".into()),
        ("--cpu-quota 5000 --cpu-period 10000", ".linux.resources.cpu == {quota: 5000, period: 10000}".into()),
        (
            "--cpu-rt-runtime 5 --cpu-rt-period 9",
            ".linux.resources.cpu == {realtimeRuntime: 5, realtimePeriod: 9}".into(),
        ),
        (
            "--memory-swappiness 7 --oom-kill-disable",
            ".linux.resources.memory == {swappiness: 7, disableOOMKiller: true}".into(),
        ),
        ("--blkio-weight 300", ".linux.resources.blockIO == {weight: 300}".into()),
        (
            "--device-read-bps $PWD/disk:1m --device-write-iops $PWD/disk:9 --blkio-weight-device $PWD/disk:20",
            ".linux.resources.blockIO == {weightDevice: [{major: 7, minor: 200, weight: 20}], \
             throttleReadBpsDevice: [{major: 7, minor: 200, rate: 1048576}], \
             throttleWriteIOPSDevice: [{major: 7, minor: 200, rate: 9}]}"
                .into(),
        ),
        ("--pids-limit 9", ".linux.resources.pids.limit == 9".into()),
        ("--ulimit nofile=10:20", ".process.rlimits == [{type: \"RLIMIT_NOFILE\", hard: 20, soft: 10}]".into()),
        ("--oom-score-adj 7", ".process.oomScoreAdj == 7".into()),
        ("--cgroup-parent /p", ".linux.cgroupsPath | startswith(\"/p/container\")".into()),
    ]
}

/// What it reaches and shares.
fn access() -> Vec<(&'static str, String)> {
    vec![
        ("--device-cgroup-rule 'c 10:* rw'", ".linux.resources.devices[-1] == {allow: true, type: \"c\", major: 10, access: \"rw\"}".into()),
        ("--domainname d.example", ".linux.sysctl[\"kernel.domainname\"] == \"d.example\"".into()),
        ("--sysctl net.core.somaxconn=9", ".linux.sysctl[\"net.core.somaxconn\"] == \"9\"".into()),
        ("--device /dev/null:/dev/x:r", any(".linux.devices[]", ".path == \"/dev/x\" and .major == 1 and .minor == 3")),
        (
            "--device /dev/null:/dev/x:r",
            any(".linux.resources.devices[]", ".allow and .major == 1 and .minor == 3 and .access == \"r\""),
        ),
        ("--gpus all", any(".linux.devices[]", ".path == \"/dev/gpu0\"")),
        ("--gpus all", any(".mounts[]", ".destination == \"/l\"")),
        ("--device nvidia.com/gpu=all", any(".process.env[]", ". == \"GPU=1\"")),
        ("--tmpfs /t:size=1m,mode=700", any(".mounts[]", ".destination == \"/t\" and .type == \"tmpfs\" and any(.options[]; . == \"size=1m\")")),
        ("--shm-size 1m", any(".mounts[]", ".destination == \"/dev/shm\" and any(.options[]; . == \"size=1048576\")")),
        ("--security-opt seccomp=profile.json", ".linux.seccomp.defaultAction == \"SCMP_ACT_KILL\"".into()),
        ("--security-opt seccomp=unconfined", ".linux.seccomp == null".into()),
        ("--security-opt no-new-privileges", ".process.noNewPrivileges".into()),
        ("--security-opt apparmor=mine", ".process.apparmorProfile == \"mine\"".into()),
        ("--privileged", ".linux.seccomp == null and .linux.maskedPaths == null and any(.process.capabilities.bounding[]; . == \"CAP_SYS_ADMIN\")".into()),
        ("--cap-drop ALL --cap-add net_admin", ".process.capabilities.bounding == [\"CAP_NET_ADMIN\"]".into()),
        ("--pid host", any(".linux.namespaces[]", ".type == \"pid\"") + " | not"),
        ("--pid ns:/proc/self/ns/pid", any(".linux.namespaces[]", ".type == \"pid\" and .path == \"/proc/self/ns/pid\"")),
        ("--ipc host", any(".linux.namespaces[]", ".type == \"ipc\"") + " | not"),
        ("--uts host", any(".linux.namespaces[]", ".type == \"uts\"") + " | not"),
        ("--userns host", any(".linux.namespaces[]", ".type == \"user\"") + " | not"),
        ("--userns ns:/proc/self/ns/user", any(".linux.namespaces[]", ".type == \"user\" and .path == \"/proc/self/ns/user\"")),
        ("--cgroupns private", any(".linux.namespaces[]", ".type == \"cgroup\"")),
        ("--network none", any(".linux.namespaces[]", ".type == \"network\" and .path == null")),
        ("--read-only", ".root.readonly".into()),
    ]
}

/// Who and what it is.
fn identity() -> Vec<(&'static str, String)> {
    vec![
        ("--label-file labels --label a=2", ".annotations | .a == \"2\" and .b == \"\" and .c == \"d=e\"".into()),
        ("--group-add 9 --group-add ssl", ".process.user.additionalGids | contains([9, 44])".into()),
        ("--hostname h.example", ".hostname == \"h.example\"".into()),
        ("--init", ".process.args[0:3] == [\"/dev/init\", \"init\", \"--\"]".into()),
        ("--annotation a=b --label c=d --label e", ".annotations | .a == \"b\" and .c == \"d\" and .e == \"\"".into()),
        (
            "--env-file more.env -e A=1 -e HOST_HAS",
            ".process.env | contains([\"FROM_FILE=yes\", \"A=1\", \"HOST_HAS=it\"])".into(),
        ),
        ("-w /w -u www --umask 027", ".process | .cwd == \"/w\" and .user.uid == 33 and .user.umask == 23".into()),
        ("--tty", ".process.terminal".into()),
        ("--stop-signal INT", ".annotations[\"org.opencontainers.image.stopSignal\"] == \"INT\"".into()),
        (
            "--patch patch.json",
            ".process.cwd == \"/p\" and .hooks.poststop[0].path == \"/h\" and .hostname == null".into(),
        ),
    ]
}

/// A jq expression: something of a list is as wanted.
fn any(list: &str, wanted: &str) -> String {
    format!("any({list}; {wanted})")
}

/// docker run's options that change nothing but config.json: what each says there, as a path in it and a value.
fn each_option(sandbox: &Sandbox) {
    rootfs(sandbox);
    sandbox.write("more.env", "# comment\nFROM_FILE=yes\nHOST_HAS\n");
    sandbox.write("labels", "# comment\na=1\nb\n\n  c=d=e\n");
    sandbox.sh("mknod disk b 7 200").run().ok();
    sandbox.write("profile.json", r#"{"defaultAction":"SCMP_ACT_KILL","syscalls":[]}"#);
    sandbox.write("patch.json", r#"{"process":{"cwd":"/p"},"hooks":{"poststop":[{"path":"/h"}]},"hostname":null}"#);
    let cdi = r#"{"cdiVersion":"0.6.0","kind":"nvidia.com/gpu","devices":[{"name":"all","containerEdits":{"env":["GPU=1"],
        "deviceNodes":[{"path":"/dev/gpu0","hostPath":"/dev/null"}]}}],"containerEdits":{"mounts":[{"hostPath":"/l","containerPath":"/l"}]}}"#;
    sandbox.sh("mkdir -p /run/cdi").run().ok();
    sandbox.write("gpu.json", cdi);
    sandbox.sh("cp gpu.json /run/cdi/nvidia.json").run().ok();
    for (options, wanted) in [limits(), access(), identity()].concat() {
        let bundle = format!("HOST_HAS=it bundle --print {options} ./rootfs -- x");
        let once = sandbox.sh(&bundle).run().ok().stdout;
        assert_eq!(sandbox.sh(&bundle).run().ok().stdout, once, "{options}: the same each time");
        sandbox.write("config.json", &once);
        let said = sandbox.run(&["jq", &wanted, "config.json"]).ok().stdout;
        assert_eq!(said, "true\n", "{options}: not {wanted}");
    }
    // Nothing of all that was there before.
    let bare = sandbox.run(&["bundle", "--print", "./rootfs", "--", "x"]).ok().json();
    assert_eq!(bare["linux"]["resources"].as_object().unwrap().keys().collect::<Vec<_>>(), ["devices"]);
}
