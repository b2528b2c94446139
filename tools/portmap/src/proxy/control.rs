//! How other calls of `portmap` find a proxy: by a socket whose name has the container's id. The kernel keeps the name
//! as long as the process lives and no longer, in the network namespace whose ports they are.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::Duration;

use anyhow::Context;
use record::{Id, Record};
use rustix::net::sockopt;

const PREFIX: &str = "drayage/portmap/";
const DISMISS: u8 = b'd';
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the proxy waits for one who came and says nothing.
const SHORT_PATIENCE: Duration = Duration::from_millis(50);

/// A proxy's end.
#[derive(Debug)]
pub(crate) struct Control {
    listener: UnixListener,
    record: String,
}

impl Control {
    /// Makes a proxy known, with what it serves.
    pub(crate) fn new(id: &str, record: &Record) -> anyhow::Result<Self> {
        let name = format!("{PREFIX}{id}/{}", std::process::id());
        let bind = || -> std::io::Result<UnixListener> {
            let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let listener = bind().with_context(|| format!("make the proxy known as {name}"))?;
        Ok(Self { listener, record: record.to_line() + "\n" })
    }

    pub(super) fn socket(&self) -> &UnixListener {
        &self.listener
    }

    /// Answers whoever asks; returns whether it was to dismiss the proxy.
    pub(super) fn is_dismissed(&self) -> bool {
        let Ok((mut asker, _)) = self.listener.accept() else { return false };
        let own = rustix::process::geteuid();
        if sockopt::socket_peercred(&asker).map_or(true, |peer| peer.uid != own && !peer.uid.is_root()) {
            return false;
        }
        let mut word = [0];
        let heard = asker
            .set_nonblocking(false)
            .and_then(|()| asker.set_read_timeout(Some(SHORT_PATIENCE)))
            .and_then(|()| asker.set_write_timeout(Some(SHORT_PATIENCE)))
            .and_then(|()| asker.read(&mut word));
        if matches!(heard, Ok(1)) && word == [DISMISS] {
            // The asker waits for the end of this connection, which is the end of the process.
            std::mem::forget(OwnedFd::from(asker));
            return true;
        }
        // One who does not read has gone.
        let _gone = asker.write_all(self.record.as_bytes());
        false
    }
}

/// Ends the proxies of a container and waits until they have let go of their ports. Returns how many there were.
pub(crate) fn dismiss(id: &str, leaves: impl Fn(&Record) -> bool) -> anyhow::Result<usize> {
    let mut count = 0;
    for (name, record) in all() {
        if record.find::<Id>()?.is_none_or(|own| own.0 != id) || !leaves(&record) {
            continue;
        }
        let end = || -> std::io::Result<()> {
            let mut proxy = connect(&name)?;
            proxy.write_all(&[DISMISS])?;
            proxy.read_to_end(&mut Vec::new())?;
            Ok(())
        };
        end().with_context(|| format!("end the proxy {name}"))?;
        count += 1;
    }
    Ok(count)
}

/// Returns what all proxies serve.
pub(crate) fn records() -> Vec<Record> {
    all().into_iter().map(|(_, record)| record).collect()
}

/// A proxy that has ended meanwhile is none.
fn all() -> Vec<(String, Record)> {
    names().into_iter().filter_map(|name| ask(&name).map(|record| (name, record))).collect()
}

fn ask(name: &str) -> Option<Record> {
    let mut proxy = connect(name).ok()?;
    proxy.write_all(b"?").ok()?;
    let mut line = Vec::new();
    proxy.read_to_end(&mut line).ok()?;
    Record::parse(&line, name).ok()
}

fn connect(name: &str) -> std::io::Result<UnixStream> {
    let proxy = UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?;
    proxy.set_read_timeout(Some(PATIENCE))?;
    proxy.set_write_timeout(Some(PATIENCE))?;
    Ok(proxy)
}

/// Abstract names begin with `@` in /proc/net/unix: unix(7).
fn names() -> Vec<String> {
    let table = fs::read_to_string("/proc/thread-self/net/unix").unwrap_or_default();
    let mut names: Vec<_> = table
        .lines()
        .filter_map(|line| line.split_whitespace().nth(7)?.strip_prefix('@'))
        .filter(|name| name.starts_with(PREFIX))
        .map(str::to_owned)
        .collect();
    names.sort();
    names.dedup();
    names
}
