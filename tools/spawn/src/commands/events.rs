//! `events`: what the container's cgroups count, now and then, and each time that the kernel kills in it for want of memory.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use cgroup::{Cgroups, Killer};
use container::RuntimeId;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::Pid;
use serde_json::{Value, json};

use super::{print, state_root};
use crate::request::Global;
use crate::state::Container;

/// Nobody waits longer for the next statistics: 31 years.
const LONGEST: Duration = Duration::from_secs(1_000_000_000);

/// Prints statistics once, or every `interval` until the container ends.
pub(crate) fn events(global: &Global, id: &RuntimeId, interval: &str, once: bool) -> anyhow::Result<()> {
    let interval = duration(interval)?;
    let container = Container::open(&state_root(global), id)?;
    let Some((pid, pidfd)) = container.open_process()? else { bail!("container {id} is not running") };
    let cgroups = container.cgroups();
    if once {
        return tell("stats", id, Some(stats(&cgroups, pid)));
    }
    // Before the first wait: what is killed after this line is told, what was killed before is not.
    let mut killer = Killer::watch(&cgroups)?;
    let mut next = Instant::now() + interval;
    loop {
        let ended = wait(&pidfd, killer.as_ref(), next)?;
        if killer.as_mut().is_some_and(Killer::has_killed) {
            tell("oom", id, None)?;
        }
        if ended {
            return Ok(());
        }
        if Instant::now() >= next {
            tell("stats", id, Some(stats(&cgroups, pid)))?;
            // From the time that was meant and not from now: the times do not drift by what the reading takes.
            next += interval;
        }
    }
}

/// Waits for the next statistics' time or for an event; true once the container has ended.
fn wait(pidfd: &OwnedFd, killer: Option<&Killer>, next: Instant) -> anyhow::Result<bool> {
    let mut polled = vec![PollFd::new(pidfd, PollFlags::IN)];
    polled.extend(killer.map(Killer::polled));
    let left = next.saturating_duration_since(Instant::now());
    let heard = sys::unless(&[Errno::INTR], poll(&mut polled, Some(&left.try_into().context("interval")?)));
    // A pidfd becomes readable when its process ends (pidfd_open(2)); the other descriptor is asked for what it
    // has to say by the caller.
    Ok(heard.context("poll")?.is_some() && !polled.first().is_some_and(|pidfd| pidfd.revents().is_empty()))
}

fn tell(kind: &str, id: &str, data: Option<Value>) -> anyhow::Result<()> {
    // In this order: programs that read lines as text count on it.
    let data = data.map(|data| format!(",\"data\":{data}")).unwrap_or_default();
    print(&format!("{{\"type\":{},\"id\":{}{data}}}\n", json!(kind), json!(id)))
}

fn stats(cgroups: &Cgroups, pid: Pid) -> Value {
    let mut stats = cgroups.stats();
    stats["intel_rdt"] = json!({});
    let path = format!("/proc/{}/net/dev", pid.as_raw_pid());
    stats["network_interfaces"] = interfaces(&crate::file::read(path).unwrap_or_default());
    stats
}

/// Reads the container's own interfaces (`proc_pid_net(5)`, "/proc/net/dev"); `lo` leads nowhere.
fn interfaces(text: &str) -> Value {
    let line = |line: &str| {
        let (name, counts) = line.split_once(':')?;
        let counts: Vec<u64> = counts.split_ascii_whitespace().filter_map(|count| count.parse().ok()).collect();
        // Sixteen numbers a line, eight of them received: bytes, packets, errs, drop, fifo, frame, compressed,
        // multicast; then the eight sent.
        let [rx_bytes, rx_packets, rx_errors, rx_dropped, _, _, _, _, tx_bytes, tx_packets, tx_errors, tx_dropped, ..] =
            counts.as_slice()
        else {
            return None;
        };
        (name.trim() != "lo").then(|| {
            json!({
                "Name": name.trim(),
                "RxBytes": rx_bytes, "RxPackets": rx_packets, "RxErrors": rx_errors, "RxDropped": rx_dropped,
                "TxBytes": tx_bytes, "TxPackets": tx_packets, "TxErrors": tx_errors, "TxDropped": tx_dropped,
            })
        })
    };
    text.lines().filter_map(line).collect()
}

/// Reads a duration as Go writes it, `1m30s` or `100ms`, or plain seconds.
fn duration(text: &str) -> anyhow::Result<Duration> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let parsed = seconds.or_else(|| cli::duration(text).ok()).filter(|parsed| *parsed < LONGEST);
    let parsed = parsed.with_context(|| format!("interval {text:?} is not a duration"))?;
    ensure!(!parsed.is_zero(), "interval must be greater than 0");
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, want) in [
            ("5s", Some(5000)),
            ("100ms", Some(100)),
            ("1m30s", Some(90_000)),
            ("0.5h", Some(1_800_000)),
            ("7", Some(7000)),
        ] {
            assert_eq!(duration(text).ok().map(|duration| duration.as_millis()), want, "{text}");
        }
        for text in ["", "0s", "s", "5x", "-1s", "1e9", "99999999999s", "1.2.3s", "5s7"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn interfaces_are_read_as_the_kernel_lists_them() {
        let text = "Inter-|   Receive\n face |bytes\n    lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n  eth0:1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n";
        let read = interfaces(text);
        assert_eq!(read.as_array().map(Vec::len), Some(1));
        assert_eq!(
            (&read[0]["Name"], &read[0]["RxDropped"], &read[0]["TxBytes"]),
            (&json!("eth0"), &json!(4), &json!(5))
        );
    }
}
