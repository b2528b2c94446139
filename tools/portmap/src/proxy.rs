//! Publishing without translation: one process for all ports of a container, with a thread for each of a few processors.
//! Its listening sockets are the host's, made first; then it moves into the container's network namespace, and every
//! connection that it makes is the container's own, so that not even an interface is needed.
//!
//! A port is held from the start, but listened at only while something in the container listens: a client that comes
//! early is refused at once and can try again, as if the container's program were the host's.
//!
//! The process has one thread when it enters the container's namespace, so that all later ones are there, too:
//! setns(2) moves a thread, and new threads have their maker's namespaces. Sockets stay in the namespace in which
//! they were made.

mod datagram;
mod destination;
mod direction;
mod frontend;
mod greeting;
mod listener;
mod readiness;
mod relay;
mod token;
mod worker;

use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use confine::Calls;
use record::Record;
use rustix::event::epoll::{self, EventFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::CapabilitySet;
use sys::namespace::Kind;

pub(crate) use listener::{Listener, Surroundings, inherited_port, listen};

use crate::control::{ServerSocket, SocketName};
use crate::request::ProxyProtocol;
use crate::spec::Served;
use crate::target::Target;
use crate::watch::LifetimeWatch;

use datagram::Flows;
use frontend::Frontends;
use readiness::Readiness;
use token::Token;
use worker::{EVENTS, Worker};

/// Descriptors that are no connection's, at least.
const SPARE_DESCRIPTORS: u64 = 64;
/// The two sockets of a connection, and the two pipes' ends while neither side takes what the other sent.
///
/// Both directions of one connection may need a pipe at the same time.
const DESCRIPTORS_EACH: u64 = 6;
/// More connections than this wait in the kernel's queues.
const MOST_RELAYS: usize = 16_384;
/// More threads than this serve no container faster.
pub(crate) const MOST_THREADS: usize = 4;
/// It connects and accepts. A socket in the container may be another user's.
const ROOM: confine::Room = confine::Room {
    calls: Calls { sockets: true, serve: true, ..confine::Room::EMPTY.calls },
    capabilities: CapabilitySet::DAC_OVERRIDE,
};

/// Everything that the first thread works on: what there is to do beside relaying, and its share of that.
pub(crate) struct Proxy {
    frontends: Arc<Frontends>,
    worker: Worker,
    /// Those of the threads that have not begun.
    others: Vec<Worker>,
    readiness: Readiness,
    flows: Flows,
    control: ServerSocket,
    watch: LifetimeWatch,
    /// They go when it ends.
    names: Vec<SocketName>,
}

/// Moves the process, which has one thread yet, into the container's network namespace.
pub(crate) fn move_into(netns: &File) -> anyhow::Result<()> {
    sys::namespace::enter(netns.as_fd(), Kind::Network)
        .context("enter the container's network namespace (CAP_SYS_ADMIN over it is needed)")?;
    // A new namespace has it down, and not every runtime brings it up: a program listens there all the same, but nobody
    // can connect to it.
    cli::warn(sys::network::loopback_up().context("bring up lo in the container's network namespace"));
    Ok(())
}

impl Proxy {
    /// Takes over listening sockets.
    pub(crate) fn new(
        listeners: Vec<Listener>,
        control: ServerSocket,
        watch: LifetimeWatch,
        greeting: Option<ProxyProtocol>,
        threads: usize,
    ) -> anyhow::Result<Self> {
        let (frontends, names): (Vec<_>, Vec<_>) =
            listeners.into_iter().map(|listener| (listener.frontend, listener.name)).unzip();
        let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get).min(threads);
        let frontends = Arc::new(Frontends::new(frontends, threads, relay_limit()).context("wait for connections")?);
        let epoll = frontends.epoll(0);
        // The container's end comes first in each turn: a proxy that outlives it would hold the port of the next one.
        watch.register(epoll, Token::End.data())?;
        epoll::add(epoll, control.socket(), Token::Control.data(), EventFlags::IN)?;
        for (index, frontend) in frontends.iter().filter(|(_, frontend)| frontend.is_for_datagrams()) {
            epoll::add(epoll, &frontend.socket, Token::Datagrams(index).data(), EventFlags::IN)?;
        }
        let worker = |number| Worker::new(frontends.clone(), number, greeting);
        let mut proxy = Self {
            worker: worker(0),
            others: (1..threads).map(worker).collect(),
            readiness: Readiness::of(&frontends),
            flows: Flows::default(),
            control,
            watch,
            names: names.into_iter().flatten().collect(),
            frontends,
        };
        proxy.readiness.check(&proxy.frontends)?;
        Ok(proxy)
    }

    /// Gives up what serving does not need: it reads the kernel's tables, and removes its sockets at the end.
    pub(crate) fn confine(&self) -> anyhow::Result<()> {
        confine::enter(&ROOM)?;
        let own = self.names.iter().map(|name| name.0.as_path()).chain([self.control.path()]);
        let writes: Vec<&Path> = own.filter_map(Path::parent).collect();
        confine::files(&writes, Some(&[Path::new("/proc")]))
    }

    /// Serves until the container ends or somebody says so.
    pub(crate) fn serve(&mut self) -> anyhow::Result<()> {
        for worker in self.others.drain(..) {
            let started = thread::Builder::new().name("relay".to_owned()).spawn(move || worker.run());
            // The others do its work.
            cli::warn(started.context("start a thread"));
        }
        let mut buffer = [MaybeUninit::uninit(); EVENTS];
        loop {
            // The first thread relays as the others do, and alone looks after the rest; that is seldom anything.
            for event in self.worker.wait(&mut buffer, self.timeout()).context("wait for connections")? {
                match Token::read(event.data) {
                    Some(Token::End) => return Ok(()),
                    Some(Token::Control) if self.control.is_dismissed() => return Ok(()),
                    Some(Token::Shut) => self.readiness.begin(),
                    Some(Token::Datagrams(index)) => {
                        if let Some(frontend) = self.frontends.get(index) {
                            self.flows.receive(index, frontend, self.frontends.epoll(0));
                        }
                    }
                    Some(Token::Flow(index)) => self.flows.answer(index, &self.frontends),
                    Some(token) => self.worker.handle(token, event.flags),
                    None => {}
                }
            }
            self.worker.go_on();
            if self.watch.has_ended() {
                return Ok(());
            }
            self.flows.expire();
            self.readiness.check(&self.frontends)?;
        }
    }

    fn timeout(&self) -> Option<Duration> {
        [self.readiness.interval(), self.watch.interval(), self.flows.interval()].into_iter().flatten().min()
    }
}

/// Lets the process open as many descriptors as it may, and says for how many connections they do.
fn relay_limit() -> usize {
    let limits = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limits.maximum, maximum: limits.maximum };
    let most = if setrlimit(Resource::Nofile, raised).is_ok() { limits.maximum } else { limits.current };
    // Counted beforehand: accept(2) that fails with EMFILE leaves the connection in the queue, where it is found
    // again at once.
    let relays = most.unwrap_or(u64::MAX).saturating_sub(SPARE_DESCRIPTORS) / DESCRIPTORS_EACH;
    usize::try_from(relays).unwrap_or(MOST_RELAYS).clamp(1, MOST_RELAYS)
}

/// Returns the record of what a proxy serves.
pub(crate) fn record(target: &Target, served: &[Served]) -> anyhow::Result<Record> {
    let mut record = Record::default();
    target.owner.name(&mut record)?;
    Served::add_to(&mut record, served)?;
    Ok(record)
}
