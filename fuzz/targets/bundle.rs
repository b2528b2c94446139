//! What `bundle` reads, by the reader that the first line names: the host's and the image's files, and the options that name
//! paths. Any bytes are a value or an error.

#![no_main]
#![allow(dead_code, unused_imports, reason = "the tool's own modules, of which this uses a part")]

#[path = "../src/named.rs"]
mod named;

#[path = "../../tools/bundle/src"]
mod bundle {
    pub(crate) mod borrow;
    pub(crate) mod capability;
    pub(crate) mod cdi;
    pub(crate) mod container;
    pub(crate) mod cp {
        pub(crate) mod end;
    }
    pub(crate) mod device;
    pub(crate) mod environment;
    pub(crate) mod files;
    pub(crate) mod hosts;
    pub(crate) mod interrupt;
    pub(crate) mod mount;
    pub(crate) mod namespace;
    pub(crate) mod overlay;
    pub(crate) mod patch;
    pub(crate) mod request;
    pub(crate) mod rootfs;
    pub(crate) mod seccomp;
    pub(crate) mod security;
    pub(crate) mod state;
    pub(crate) mod tree;
    pub(crate) mod ulimit;
    pub(crate) mod user;
}

use std::path::{Component, Path};

// The modules know each other by these paths.
use bundle::{
    borrow, capability, cdi, container, cp, device, environment, files, hosts, interrupt, mount, namespace, overlay,
    patch, request, rootfs, seccomp, security, state, tree, ulimit, user,
};
use files::Reach;
use libfuzzer_sys::{Corpus, fuzz_target};
use request::NameOptions;
use rustix::thread::CapabilitySet;
use serde_json::{Value, json};

fn cli_usage(message: String) -> anyhow::Error {
    cli::Usage(message).into()
}

fn variables(text: &[u8]) {
    for environment::Variable { name, .. } in environment::parse_file(text).unwrap_or_default() {
        assert!(!name.is_empty() && !name.contains(|c: char| c == '=' || c == '\0' || c.is_whitespace()), "{name:?}");
    }
}

/// `USER[:GROUP]` on the first line, passwd(5), and group(5) behind an empty line.
fn accounts(text: &[u8]) {
    let Some((spec, files)) = named::split(text) else { return };
    let end = files.windows(2).position(|bytes| bytes == b"\n\n").unwrap_or(files.len());
    let (passwd, group) = files.split_at(end);
    let accounts = user::Accounts::parse(passwd, group);
    let Ok(user) = accounts.resolve(spec, &[]) else { return };
    assert!(i32::try_from(user.uid).is_ok() && i32::try_from(user.gid).is_ok(), "{user:?}");
    assert!(user.groups.first() == Some(&user.gid) && user.home.starts_with('/'), "{user:?}");
    if user::is_numeric(spec) {
        let alone = user::Accounts::parse(b"", b"").resolve(spec, &[]);
        assert!(alone.is_ok_and(|alone| alone.uid == user.uid), "{spec:?}");
    }
}

/// What is written for a container that has the host's network is read as the same again.
fn resolver(text: &str) {
    let none = NameOptions::default();
    let written = files::resolv_conf(Reach::Host, text, &none);
    assert_eq!(files::resolv_conf(Reach::Host, &written, &none), written, "{text:?}");
    for line in files::resolv_conf(Reach::Own, text, &none).lines() {
        let address = line.strip_prefix("nameserver ");
        assert!(address.is_none_or(|it| it.parse::<std::net::IpAddr>().is_ok_and(|it| !it.is_loopback())), "{line}");
    }
}

fn destination(mount: &mount::Mount) {
    let parts: Vec<_> = Path::new(&mount.destination).components().collect();
    let inside = parts[1..].iter().all(|part| matches!(part, Component::Normal(_)));
    assert!(parts.len() > 1 && parts[0] == Component::RootDir && inside, "{mount:?}");
}

fn profile(text: &[u8]) {
    let Ok(parsed) = seccomp::parse(text, CapabilitySet::SYS_ADMIN) else { return };
    // A profile of the runtime specification stays as it is.
    let again = seccomp::parse(parsed.to_string().as_bytes(), CapabilitySet::empty());
    assert_eq!(again.ok().as_ref(), Some(&parsed));
    let Ok(profile) = serde_json::from_value::<::seccomp::Profile>(parsed) else { return };
    let _may_be_nonsense = ::seccomp::compile(&profile);
}

fn devices(text: &str) {
    let Some(edits) = yaml::read(text).ok().and_then(|value| serde_json::from_value::<cdi::Edits>(value).ok()) else {
        return;
    };
    let mut config = json!({"process": {"env": ["A=1"]}, "mounts": [{"destination": "/a"}], "linux": {}});
    if cdi::apply(&mut config, std::slice::from_ref(&edits)).is_ok() {
        let once = config.clone();
        assert!(cdi::apply(&mut config, &[edits]).is_ok());
        assert_eq!(config["process"]["user"], once["process"]["user"]);
    }
}

/// RFC 7386: a second time changes nothing.
fn patches(text: &[u8]) {
    let Ok(patch) = serde_json::from_slice::<Value>(text) else { return };
    let mut once = json!({"process": {"args": ["a"], "user": {"uid": 0}}, "mounts": []});
    patch::merge(&mut once, patch.clone());
    let mut twice = once.clone();
    patch::merge(&mut twice, patch);
    assert_eq!(once, twice);
}

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let Some((reader, text)) = named::split(bytes) else { return Corpus::Reject };
    let words = String::from_utf8_lossy(text);
    match reader {
        "variables" => variables(text),
        "accounts" => accounts(text),
        "resolver" => resolver(&words),
        "profile" => profile(text),
        "devices" => devices(&words),
        "patch" => patches(text),
        "volume" => words.parse().into_iter().for_each(|mount::VolumeFlag(mount)| destination(&mount)),
        "mount" => words.parse().into_iter().for_each(|mount::MountFlag(mount)| destination(&mount)),
        "tmpfs" => words.parse().into_iter().for_each(|mount::TmpfsFlag(mount)| destination(&mount)),
        "host" => words.parse().into_iter().for_each(|entry: hosts::HostEntry| assert!(!entry.name.is_empty())),
        "device" => drop(words.parse::<cdi::DeviceOption>()),
        "rule" => drop(words.parse::<device::CgroupRule>()),
        "ulimit" => drop(words.parse::<ulimit::Ulimit>()),
        "security" => drop(words.parse::<security::SecurityOption>()),
        "copy" => drop(words.parse::<cp::end::CopyEnd>()),
        _ => return Corpus::Reject,
    }
    Corpus::Keep
});
