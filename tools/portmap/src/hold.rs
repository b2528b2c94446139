//! Ports that are translated only as long as a process lives: their mappings are in a table that belongs to a socket of a
//! process of our own (nftables' `owner` flag), which the kernel deletes with it, however it ends.

use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::process::{ExitCode, Stdio};

use anyhow::Context;
use record::{Part, Ports, Record};
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::add;
use crate::control::{Control, Sockets};
use crate::firewall::Firewall;
use crate::forward;
use crate::mapping::Step;
use crate::options::Add;
use crate::publish::{self, Manner};
use crate::serve;
use crate::spec::{PortSpec, Served};
use crate::target::{self, Target};
use crate::watch::Watch;

const END: u64 = 0;
const CONTROL: u64 = 1;

/// In `portmap list`: the number of the socket that holds the ports.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct HeldBy(pub(crate) u32);

impl Part for HeldBy {
    const MEMBER: &'static str = "heldBy";
    const STAGE: &'static str = "portmap";
}

/// Starts a process that holds ports. Returns which.
pub(crate) fn start(options: &Add, target: &Target, specs: &[PortSpec]) -> anyhow::Result<Vec<Served>> {
    let mut command = serve::itself(options, target);
    if options.no_bind_check {
        command.arg("--no-bind-check");
    }
    command.arg(format!("--forward={}", options.forward));
    command.args(specs.iter().flat_map(|spec| ["-p".to_owned(), spec.to_string()])).arg("-");
    let mut record = Record::default();
    target.name(&mut record)?;
    record.set(&target::network(&target.owner, &target.addresses));
    serve::start(command.stdin(Stdio::piped()), |child| {
        let mut stdin = child.stdin.take().context("no stdin")?;
        Ok(stdin.write_all(record.to_line().as_bytes())?)
    })
}

/// Holds ports until one of the processes ends or somebody says so. The record is printed as soon as they are published.
pub(crate) fn run(options: &Add, record: &mut Record, target: &Target, specs: &[PortSpec]) -> anyhow::Result<ExitCode> {
    serve::call_itself_portmap();
    let watch = Watch::new(&serve::processes(options, target), target.owner.netns.as_deref())?;
    let directories = options.roots.directories();
    let sockets = Sockets::below(&directories);
    let mut firewall = Firewall::open_as_holder()?;
    let directories = Some(&directories);
    let manner = Manner { probe: !options.no_bind_check, sockets: Some(&sockets), directories, ..Manner::default() };
    let mappings = publish::publish(&mut firewall, target, specs, manner)?.mappings;
    forward::open(options.forward, &mappings)?;
    let ports = add::port_mappings(&mappings);
    let mut known = Record::default();
    target.name(&mut known)?;
    known.set(&Ports(ports.clone()));
    known.set(&HeldBy(firewall.holder().context("the socket has no number")?));
    let control = sockets.make(&known)?;
    let ports: Vec<Served> = ports.into_iter().map(Served::Port).collect();
    Served::add_to(record, &ports)?;
    record.print()?;
    serve::leave_the_caller()?;
    serve::shrink();

    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    watch.register(&epoll, EventData::new_u64(END))?;
    epoll::add(&epoll, control.socket(), EventData::new_u64(CONTROL), EventFlags::IN)?;
    wait(&epoll, watch, &control)?;
    // Whoever said so waits for this process's end, and wants the ports then.
    drop(firewall);
    Firewall::open()?.change(|_| Ok(Vec::new()))?;
    let steps: Vec<_> = mappings.into_iter().map(Step::Withdraw).collect();
    publish::forget_connections(&steps);
    Ok(ExitCode::SUCCESS)
}

fn wait(epoll: &OwnedFd, mut watch: Watch, control: &Control) -> anyhow::Result<()> {
    let mut buffer = [MaybeUninit::<epoll::Event>::uninit(); 4];
    while !watch.has_ended() {
        let timeout = watch.interval().and_then(|interval| Timespec::try_from(interval).ok());
        let events: Vec<_> = match epoll::wait(epoll, &mut buffer, timeout.as_ref()) {
            Ok((events, _)) => events.iter().map(|event| event.data.u64()).collect(),
            Err(Errno::INTR) => Vec::new(),
            Err(error) => return Err(io::Error::from(error)).context("wait for the container's end"),
        };
        if events.into_iter().any(|event| event == END || control.is_dismissed()) {
            break;
        }
    }
    Ok(())
}
