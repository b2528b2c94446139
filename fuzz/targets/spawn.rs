//! config.json as the runtime reads it: any bytes are a configuration or an error, and what passes its check holds.

#![no_main]
#![allow(dead_code, unused_imports, reason = "the tool's own modules, of which this uses a part")]

#[path = "../../tools/spawn/src"]
mod spawn {
    pub(crate) mod config;
    pub(crate) mod file;
    pub(crate) mod mount;
    pub(crate) mod signal;
}

use std::path::{Component, Path};

use config::{Config, sysctl_path};
use libfuzzer_sys::fuzz_target;
// The modules know each other by these paths.
use spawn::{config, file, mount, signal};

fuzz_target!(|bytes: &[u8]| {
    let Ok(config) = Config::parse(bytes) else { return };
    for mount in &config.mounts {
        let parsed = mount::ParsedMount::parse(mount);
        assert_eq!(parsed.destination, mount.destination);
    }
    if let Some(filter) = config.linux.seccomp.as_ref().and_then(|profile| seccomp::compile(profile).ok()) {
        // BPF_MAXINSNS of 8 bytes each.
        assert!(!filter.program.is_empty() && filter.program.len() <= 4096 * 8);
    }
    if config.check().is_err() {
        return;
    }
    for key in config.linux.sysctl.keys() {
        let path = sysctl_path(key);
        assert!(Path::new(&path).components().all(|part| matches!(part, Component::Normal(_))), "{key}");
    }
    if let Some(process) = &config.process {
        assert!(process.args.iter().chain(&process.env).all(|text| !text.contains('\0')));
        let user = &process.user;
        let ids = user.additional_gids.iter().chain([&user.uid, &user.gid]);
        assert!(ids.copied().all(|id| i32::try_from(id).is_ok()));
    }
});
