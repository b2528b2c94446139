//! What keeps a container from writing to this program's file on the host (CVE-2019-5736).
//!
//! The container's program is executed by a sealed program of one page (`sys::launch`), so that `/proc/self/exe`, by
//! whatever name the image asks for it, is never this one. Before that, the process that enters a container is
//! undumpable: its `/proc/PID/exe` is closed to all but processes with `CAP_SYS_PTRACE`. Where a container may have
//! those, and they share a pid namespace with the process that enters, the whole command runs from a sealed copy.

use std::ffi::{CStr, CString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;

use anyhow::Context;

use crate::config::{Capabilities, Config, NamespaceKind};

/// Continues in a sealed copy of this program if others could look at it while it enters the container. The copy finds
/// `record` on its standard input, where this program has read it there.
pub(crate) fn seal_if_watched(config: &Config, entering: bool, record: Option<&str>) -> anyhow::Result<()> {
    if !is_watched(config, entering) || sys::launch::is_sealed_self() {
        return Ok(());
    }
    let copy = sys::launch::sealed_self().context("copy this program into memory")?;
    if let Some(record) = record {
        rustix::stdio::dup2_stdin(sys::file::in_memory("record", record.as_bytes())?)?;
    }
    let arguments: Vec<CString> =
        std::env::args_os().map(|argument| CString::new(argument.into_vec())).collect::<Result<_, _>>()?;
    let variable = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        CString::new([name.into_vec(), b"=".to_vec(), value.into_vec()].concat())
    };
    let environment: Vec<CString> = std::env::vars_os().map(variable).collect::<Result<_, _>>()?;
    let arguments: Vec<&CStr> = arguments.iter().map(CString::as_c_str).collect();
    let environment: Vec<&CStr> = environment.iter().map(CString::as_c_str).collect();
    Err(sys::launch::execute(copy.as_fd(), &arguments, &environment)).context("execute this program's sealed copy")
}

fn is_watched(config: &Config, entering: bool) -> bool {
    let linux = &config.linux;
    // A pid namespace that others are in already may have a watcher of any kind.
    // No pid namespace in the configuration at all is the caller's own: those who could look there are the host's.
    let joined = linux.has(NamespaceKind::Pid) && !linux.makes(NamespaceKind::Pid);
    let may_trace = |set: &Capabilities| {
        let sets = [&set.bounding, &set.permitted, &set.effective];
        sets.into_iter().flatten().any(|name| name == "CAP_SYS_PTRACE")
    };
    let tracer = config.process.as_ref().and_then(|process| process.capabilities.as_ref()).is_some_and(may_trace);
    // Capabilities of a user namespace say nothing about a process from outside.
    let watched = entering || !config.hooks.start_container.is_empty();
    // A process that enters from outside is undumpable, and its memory was made in another user namespace: only
    // CAP_SYS_PTRACE in that one would open it.
    !linux.has(NamespaceKind::User) && (joined || watched && tracer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_who_can_be_watched_are_copied() {
        let tracer = r#""process":{"capabilities":{"bounding":["CAP_SYS_PTRACE"]}}"#;
        let hooked =
            r#""hooks":{"startContainer":[{"path":"/x"}]},"process":{"capabilities":{"bounding":["CAP_SYS_PTRACE"]}}"#;
        let plain = r#""process":{"capabilities":{"bounding":["CAP_KILL"]}}"#;
        for (process, namespaces, entering, want) in [
            (plain, r#"{"type":"pid"}"#, true, false),
            (plain, r#"{"type":"pid"}"#, false, false),
            (plain, r#"{"type":"pid","path":"/proc/1/ns/pid"}"#, false, true),
            (tracer, r#"{"type":"pid"}"#, false, false),
            (hooked, r#"{"type":"pid"}"#, false, true),
            (tracer, r#"{"type":"pid"}"#, true, true),
            (tracer, r#"{"type":"pid"},{"type":"user"}"#, true, false),
        ] {
            let config = format!(r#"{{{process},"linux":{{"namespaces":[{namespaces}]}}}}"#);
            let config = Config::parse(config.as_bytes()).unwrap();
            assert_eq!(is_watched(&config, entering), want, "{process} {namespaces} {entering}");
        }
    }
}
