//! `NOTIFY_SOCKET` of a service (`sd_notify(3)`): the container gets a socket of its own, and of what its program says
//! there, that is passed on which cannot name processes or files. runc and crun do so with `READY=1`.
//!
//! `MAINPID=`, `FDSTORE=` and the like are not passed on: by them a container could have systemd watch, or keep files
//! of, processes of the host.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::Context;
use rustix::fs::Mode;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::Pid;
use sys::ready::readable;

use crate::config::{Config, Mount, NamespaceKind};
use crate::state::Container;

const VARIABLE: &str = "NOTIFY_SOCKET";
const INSIDE: &str = "/run/notify/notify.sock";
const PASSED: [&[u8]; 6] = [b"READY=", b"STATUS=", b"RELOADING=", b"STOPPING=", b"WATCHDOG=", b"EXTEND_TIMEOUT_USEC="];

/// The container's socket, and the service manager's.
pub(crate) struct Notify {
    socket: OwnedFd,
    manager: SocketAddrUnix,
}

impl Notify {
    /// Makes a socket in the container's directory and adds it to the configuration, if there is somebody to be told.
    pub(crate) fn prepare(container: &Container, config: &mut Config) -> anyhow::Result<Option<Self>> {
        let given = std::env::var_os(VARIABLE).filter(|given| !given.is_empty());
        let Some(manager) = given.filter(|_| config.linux.has(NamespaceKind::Mount)) else { return Ok(None) };
        let Some(process) = &mut config.process else { return Ok(None) };
        let manager =
            sys::packet::manager(&manager).with_context(|| format!("{VARIABLE} {}", manager.to_string_lossy()))?;
        let path = container.directory.join("notify.sock");
        let bind = || -> rustix::io::Result<OwnedFd> {
            let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
            rustix::net::bind(&socket, &container.socket_address("notify.sock")?)?;
            // Whoever the program runs as has something to say.
            // By its path, which is in a directory of ours with mode 0700: fchmod(2) on a socket does not change its
            // file.
            rustix::fs::chmod(&path, Mode::from_raw_mode(0o777))?;
            Ok(socket)
        };
        let socket = bind().with_context(|| format!("bind {}", path.display()))?;
        process.env.push(format!("{VARIABLE}={INSIDE}"));
        config.mounts.push(Mount {
            destination: INSIDE.into(),
            source: path.to_string_lossy().into_owned(),
            options: ["bind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned).to_vec(),
            ..Mount::default()
        });
        Ok(Some(Self { socket, manager }))
    }

    /// Passes on all that was said; returns whether the program is ready.
    pub(crate) fn pass_on(&self) -> bool {
        let (mut message, mut ready) = ([0; 4096], false);
        while let Ok((count, _)) = rustix::net::recv(&self.socket, &mut message, RecvFlags::DONTWAIT) {
            let lines = message[..count].split(|byte| *byte == b'\n');
            let passed: Vec<&[u8]> = lines.filter(|line| PASSED.iter().any(|name| line.starts_with(name))).collect();
            self.tell(&passed.join(&b'\n'));
            ready |= passed.contains(&b"READY=1".as_slice());
        }
        ready
    }

    /// Waits until a container that is left alone is ready or has ended, and names its process in our place.
    pub(crate) fn wait(&self, pid: Pid, pidfd: BorrowedFd<'_>) -> anyhow::Result<()> {
        loop {
            if !readable([self.as_fd(), pidfd], None).context("poll")?[0] {
                return Ok(());
            }
            if self.pass_on() {
                self.tell(format!("MAINPID={}", pid.as_raw_pid()).as_bytes());
                return Ok(());
            }
        }
    }

    fn tell(&self, words: &[u8]) {
        cli::warn(sys::packet::tell(&self.manager, words, SendFlags::empty()).context("tell the service manager"));
    }
}

impl AsFd for Notify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
