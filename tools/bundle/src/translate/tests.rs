//! The user's options over the image's config, and docker's defaults.

mod conversion;

use clap::Parser;

use super::*;
use crate::options::BundleArgs;
use crate::user::Accounts;

fn image(text: &Value) -> ImageConfiguration {
    let mut whole = json!({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": []}});
    crate::patch::merge(&mut whole, text.clone());
    serde_json::from_value(whole).unwrap()
}

pub(super) fn config(text: &Value, arguments: &[&str]) -> Result<Value> {
    let image = image(text);
    let words = ["bundle"].iter().chain(arguments);
    let options = BundleArgs::parse_from(words).create;
    let accounts = Accounts::parse(b"root:x:0:0::/root:\nwww:x:33:33::/var/www:\n", b"www:x:33:\nssl:x:44:www\n");
    let spec = options.user.clone();
    let spec = spec.or_else(|| image.config().as_ref().and_then(|config| config.user().clone())).unwrap_or_default();
    let held = CapabilitySet::all();
    let capabilities = capability::choose(&options.cap_add, &options.cap_drop, options.privileged, held);
    let facts = Facts {
        cgroup: "web".to_owned(),
        masked: vec!["/sys/devices/system/cpu/cpu0/thermal_throttle".to_owned()],
        root: "rootfs".to_owned(),
        user: accounts.resolve(&spec, &options.group_add)?,
        hostname: "web".to_owned(),
        variables: options.env.clone(),
        mounts: planned_mounts(&image, &options)?.into_iter().map(|mount| (mount, "/source".to_owned())).collect(),
        files: vec![("/etc/hosts", "/b/hosts".to_owned())],
        namespaces: Shared {
            network: options.namespaces.network.clone().unwrap_or(Namespace::Private),
            pid: Namespace::Private,
            ipc: Namespace::Private,
            uts: Namespace::Private,
            cgroup: Namespace::Host,
            user: Namespace::Host,
        },
        init: options.init.then(|| "/bundle".to_owned()),
        shm: None,
        devices: Vec::new(),
        block_io: None,
        seccomp: Some(crate::seccomp::default_profile(capabilities)),
        capabilities,
    };
    translate(&image, &options, &facts)
}

#[test]
fn annotation_fields() {
    let all = json!({
        "os": "linux", "architecture": "arm64", "variant": "v8", "os.version": "1", "os.features": ["a", "b"],
        "author": "me", "created": "2015-10-31T22:22:56Z",
        "config": {
            "Cmd": ["x"], "StopSignal": "SIGQUIT", "Labels": {"k": "v", "run.oci.handler": "krun"},
            "ExposedPorts": {"8080/tcp": {}, "53/udp": {}, "443/tcp": {}},
        },
    });
    let want = json!({
        "k": "v",
        "org.opencontainers.image.architecture": "arm64",
        "org.opencontainers.image.author": "me",
        "org.opencontainers.image.created": "2015-10-31T22:22:56Z",
        "org.opencontainers.image.exposedPorts": "53/udp,443/tcp,8080/tcp",
        "org.opencontainers.image.os": "linux",
        "org.opencontainers.image.os.features": "a,b",
        "org.opencontainers.image.os.version": "1",
        "org.opencontainers.image.stopSignal": "SIGQUIT",
        "org.opencontainers.image.variant": "v8",
    });
    assert_eq!(config(&all, &[]).unwrap()["annotations"], want);
    assert_eq!(dropped_annotations(&image(&all)), ["run.oci.handler"]);
}

#[test]
fn labels_win_over_what_follows_from_fields_and_the_user_over_both() {
    let mut text = json!({"author": "field", "config": {"Cmd": ["x"], "StopSignal": "SIGTERM", "Labels": {}}});
    text["config"]["Labels"]["org.opencontainers.image.author"] = json!("label");
    text["config"]["Labels"]["org.opencontainers.image.stopSignal"] = json!("SIGINT");
    let author = "/annotations/org.opencontainers.image.author";
    let signal = "/annotations/org.opencontainers.image.stopSignal";
    let made = config(&text, &[]).unwrap();
    assert_eq!((made.pointer(author), made.pointer(signal)), (Some(&json!("label")), Some(&json!("SIGINT"))));
    let arguments = ["--stop-signal", "SIGHUP", "--annotation", "org.opencontainers.image.author=user", "--label", "l"];
    let made = config(&text, &arguments).unwrap();
    assert_eq!((made.pointer(author), made.pointer(signal)), (Some(&json!("user")), Some(&json!("SIGHUP"))));
    assert_eq!(made.pointer("/annotations/l"), Some(&json!("")));
}

#[test]
fn users() {
    let of = |user: &str, arguments: &[&str]| {
        config(&json!({"config": {"Cmd": ["x"], "User": user}}), arguments)
            .map(|config| config["process"]["user"].clone())
    };
    assert_eq!(of("7:8", &[]).unwrap(), json!({"uid": 7, "gid": 8, "additionalGids": [8]}));
    assert_eq!(of("www", &[]).unwrap(), json!({"uid": 33, "gid": 33, "additionalGids": [33, 44]}));
    assert_eq!(of("www", &["-u", "0"]).unwrap(), json!({"uid": 0, "gid": 0, "additionalGids": [0]}));
    let extra = ["--group-add", "9", "--umask", "027"];
    assert_eq!(of("www:ssl", &extra).unwrap(), json!({"uid": 33, "gid": 44, "umask": 23, "additionalGids": [44, 9]}));
    assert!(of("nobody", &[]).is_err());
    assert!(of("www:none", &[]).is_err());
}

#[test]
fn volumes_become_mounts_unless_the_user_mounts_there() {
    let text = json!({"config": {"Cmd": ["x"], "Volumes": {"/b/deep": {}, "/a": {}, "/c/": {}}}});
    let destinations = |arguments: &[&str]| -> Vec<String> {
        let config = config(&text, arguments).unwrap();
        let mounts = config["mounts"].as_array().unwrap()[8..].iter();
        mounts
            .map(|mount| format!("{} {}", mount["type"].as_str().unwrap(), mount["destination"].as_str().unwrap()))
            .collect()
    };
    assert_eq!(destinations(&[]), ["bind /a", "bind /c", "bind /b/deep"]);
    assert_eq!(destinations(&["--tmpfs", "/c", "-v", "/h:/a/x"]), ["tmpfs /c", "bind /a", "bind /a/x", "bind /b/deep"]);
    assert!(config(&json!({"config": {"Cmd": ["x"], "Volumes": {"/proc": {}}}}), &[]).is_err());
}

#[test]
fn the_users_command_and_entrypoint() {
    let text = json!({"config": {"Entrypoint": ["/e"], "Cmd": ["c"]}});
    for (arguments, want) in [
        (&[][..], Some(json!(["/e", "c"]))),
        (&["--", "d", "e"], Some(json!(["/e", "d", "e"]))),
        (&["--entrypoint", "/f"], Some(json!(["/f"]))),
        (&["--entrypoint", "/f", "--", "d"], Some(json!(["/f", "d"]))),
        (&["--entrypoint", "", "--", "d"], Some(json!(["d"]))),
        (&["--entrypoint", ""], None),
    ] {
        let made = config(&text, arguments).ok().map(|config| config["process"]["args"].clone());
        assert_eq!(made, want, "{arguments:?}");
    }
    let empty = config(&json!({"config": {"Entrypoint": [""], "Cmd": ["c"]}}), &[]).unwrap();
    assert_eq!(empty["process"]["args"], json!(["c"]));
}

#[test]
fn dockers_defaults() {
    let text = json!({"config": {"Cmd": ["x"]}});
    let made = config(&text, &[]).unwrap();
    assert_eq!(made["process"]["capabilities"]["bounding"].as_array().unwrap().len(), 14);
    assert_eq!(made["process"]["capabilities"]["effective"], made["process"]["capabilities"]["bounding"]);
    assert_eq!(made["process"]["noNewPrivileges"], false);
    assert!(made["process"].get("rlimits").is_none());
    assert_eq!(made["hostname"], "web");
    assert_eq!(made["linux"]["cgroupsPath"], "/drayage/web");
    let mounts: Vec<&str> =
        made["mounts"].as_array().unwrap().iter().map(|m| m["destination"].as_str().unwrap()).collect();
    let want = ["/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/dev/shm", "/etc/hosts"];
    assert_eq!(mounts, want);
    assert_eq!(made["mounts"][6]["options"][4], "size=67108864");
    assert!(made["linux"]["maskedPaths"].as_array().unwrap().contains(&json!("/proc/kcore")));
}

#[test]
fn options_change_what_they_name() {
    let text = json!({"config": {"Cmd": ["x"]}});
    for (arguments, pointer, want) in [
        (&["-u", "33"][..], "/process/capabilities/effective", None),
        (&["--tty"], "/process/terminal", Some(json!(true))),
        (&["--read-only"], "/root/readonly", Some(json!(true))),
        (&["--privileged"], "/linux/maskedPaths", None),
        (&["--privileged"], "/mounts/3/options", Some(json!(["nosuid", "noexec", "nodev"]))),
        (&["--security-opt", "systempaths=unconfined"], "/linux/readonlyPaths", None),
        (&["--security-opt", "no-new-privileges"], "/process/noNewPrivileges", Some(json!(true))),
        (&["--security-opt", "apparmor=mine"], "/process/apparmorProfile", Some(json!("mine"))),
        (&["--network", "host"], "/linux/sysctl", Some(json!({}))),
        (&["--sysctl", "net.core.somaxconn=9"], "/linux/sysctl/net.core.somaxconn", Some(json!("9"))),
        (&["--shm-size", "1m"], "/mounts/6/options/4", Some(json!("size=1048576"))),
        (&["--ipc", "none"], "/mounts/6/destination", Some(json!("/etc/hosts"))),
        (&["-v", "/h:/etc/hosts"], "/mounts/7/source", Some(json!("/source"))),
        (&["-v", "/h:/x:rshared"], "/linux/rootfsPropagation", Some(json!("shared"))),
        (&["--oom-score-adj", "-5"], "/process/oomScoreAdj", Some(json!(-5))),
        (&["--cgroup-parent", "/a/"], "/linux/cgroupsPath", Some(json!("/a/web"))),
        (&["--init"], "/process/args", Some(json!(["/dev/init", "init", "--", "x"]))),
        (&["--init"], "/mounts/8/source", Some(json!("/bundle"))),
        (&["-w", "/w"], "/process/cwd", Some(json!("/w"))),
    ] {
        assert_eq!(config(&text, arguments).unwrap().pointer(pointer), want.as_ref(), "{arguments:?}");
    }
    for arguments in [&["-w", "w"][..], &["--sysctl", "a/b=1"], &["-v", "/a:/x", "--tmpfs", "/x"]] {
        assert!(config(&text, arguments).is_err(), "{arguments:?}");
    }
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let text = json!({"config": {"Cmd": ["x"],
        "Labels": {"a": "1", "b": "2", "c": "3", "d": "4"}, "Volumes": {"/1": {}, "/2": {}, "/3": {}},
        "ExposedPorts": {"1/tcp": {}, "2/tcp": {}, "3/tcp": {}}}});
    let first = config(&text, &["--cap-add", "ALL"]).unwrap().to_string();
    for _ in 0..8 {
        assert_eq!(config(&text, &["--cap-add", "ALL"]).unwrap().to_string(), first);
    }
}
