//! Publishing without translation: one process, one thread, for all ports of a container. Its listening sockets are the
//! host's, made first; then it moves into the container's network namespace, and every connection that it makes is the
//! container's own, so that not even an interface is needed.
//!
//! A port is held from the start, but listened at only while something in the container listens: a client that comes
//! early is refused at once and can try again, as if the container's program were the host's.

mod datagram;
mod destination;
mod greeting;
mod listener;
mod readiness;
mod relay;
mod slab;
mod token;

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::Context;
use log::{debug, warn};
use record::{Id, Record};
use rustix::event::{Timespec, epoll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sys::namespace::Kind;

pub(crate) use listener::{Listener, Surroundings, inherited_port, listen};

use crate::control::Control;
use crate::options::ProxyProtocol;
use crate::spec::Served;
use crate::watch::Watch;

use datagram::Flows;
use readiness::Readiness;
use relay::{Pipes, Relay};
use slab::Slab;
use token::Token;

/// Descriptors that are no connection's, at least.
const SPARE_DESCRIPTORS: u64 = 64;
/// The two sockets of a connection, and the two pipes' ends while neither side takes what the other sent.
const DESCRIPTORS_EACH: u64 = 6;
/// More connections than this wait in the kernel's queues.
const MOST_RELAYS: usize = 16_384;
const EVENTS: usize = 256;

/// Everything that the loop works on.
pub(crate) struct Proxy {
    epoll: OwnedFd,
    listeners: Vec<Listener>,
    readiness: Readiness,
    relays: Slab<Relay>,
    /// Relays that had more to do than one turn allows.
    unfinished: Vec<(u32, u32)>,
    pipes: Pipes,
    flows: Flows,
    limit: usize,
    /// Whether listeners were left alone because of `limit`.
    full: bool,
    control: Control,
    watch: Watch,
    /// How the container learns whom a connection is from.
    greeting: Option<ProxyProtocol>,
}

impl Proxy {
    /// Takes over listening sockets and moves the process into the container's network namespace: from here on, this is
    /// the only thread.
    pub(crate) fn new(listeners: Vec<Listener>, control: Control, watch: Watch, netns: &File) -> anyhow::Result<Self> {
        sys::namespace::enter(netns.as_fd(), Kind::Network)
            .context("enter the container's network namespace (CAP_SYS_ADMIN over it is needed)")?;
        // A new namespace has it down, and not every runtime brings it up: a program listens there all the same, but nobody
        // can connect to it.
        if let Err(error) = sys::network::loopback_up() {
            warn!("bring up lo in the container's network namespace: {error}");
        }
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut proxy = Self {
            epoll,
            readiness: Readiness::of(&listeners),
            listeners,
            relays: Slab::default(),
            unfinished: Vec::new(),
            pipes: Pipes::default(),
            flows: Flows::default(),
            limit: relay_limit(),
            full: false,
            control,
            watch,
            greeting: None,
        };
        proxy.watch.register(&proxy.epoll, Token::End.data())?;
        epoll::add(&proxy.epoll, proxy.control.socket(), Token::Control.data(), epoll::EventFlags::IN)?;
        for (index, listener) in (0..).zip(&proxy.listeners) {
            if listener.is_datagram() {
                epoll::add(&proxy.epoll, &listener.socket, Token::Listener(index).data(), epoll::EventFlags::IN)?;
            }
        }
        proxy.readiness.check(&mut proxy.listeners, &proxy.epoll)?;
        Ok(proxy)
    }

    /// Has the container told whom each connection is from.
    pub(crate) fn greeting(self, greeting: Option<ProxyProtocol>) -> Self {
        Self { greeting, ..self }
    }

    /// Serves until the container ends or somebody says so.
    pub(crate) fn serve(&mut self) -> anyhow::Result<()> {
        let mut buffer = [MaybeUninit::<epoll::Event>::uninit(); EVENTS];
        loop {
            let timeout = self.timeout();
            let events: Vec<_> = match epoll::wait(&self.epoll, &mut buffer, timeout.as_ref()) {
                Ok((events, _)) => events.iter().map(|event| Token::read(event.data)).collect(),
                Err(rustix::io::Errno::INTR) => Vec::new(),
                Err(error) => return Err(io::Error::from(error)).context("wait for connections"),
            };
            for token in events {
                match token {
                    Some(Token::End) => return Ok(()),
                    Some(Token::Control) if self.control.is_dismissed() => return Ok(()),
                    Some(Token::Listener(index)) => self.serve_listener(index),
                    Some(Token::Client { index, generation } | Token::Server { index, generation }) => {
                        self.turn(index, generation);
                    }
                    Some(Token::Flow(index)) => self.flows.answer(index, &self.listeners),
                    Some(Token::Control) | None => {}
                }
            }
            for (index, generation) in std::mem::take(&mut self.unfinished) {
                self.turn(index, generation);
            }
            if self.watch.has_ended() {
                return Ok(());
            }
            self.flows.expire();
            self.readiness.check(&mut self.listeners, &self.epoll)?;
        }
    }

    fn timeout(&self) -> Option<Timespec> {
        if !self.unfinished.is_empty() {
            return Some(Timespec { tv_sec: 0, tv_nsec: 0 });
        }
        let waits = [self.readiness.interval(), self.watch.interval(), self.flows.interval()];
        let shortest = waits.into_iter().flatten().min()?;
        Timespec::try_from(shortest).ok()
    }

    fn serve_listener(&mut self, index: u32) {
        let Some(listener) = self.listeners.get(index as usize) else { return };
        if listener.is_datagram() {
            self.flows.receive(index, listener, &self.epoll);
            return;
        }
        // A turn takes a few, so that a flood of connections does not keep those that are there waiting.
        for _ in 0..EVENTS {
            if self.relays.len() >= self.limit {
                self.pause();
                return;
            }
            let Some(listener) = self.listeners.get(index as usize).filter(|listener| listener.to.is_some()) else {
                return;
            };
            let client = match listener.accept() {
                Ok(client) => client,
                Err(rustix::io::Errno::AGAIN) => return,
                Err(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE | rustix::io::Errno::NOBUFS) => {
                    self.pause();
                    return;
                }
                Err(_) => continue,
            };
            let greeting = self.greeting.map(|version| greeting::of(&client, version)).unwrap_or_default();
            match Relay::connect(client, index, listener.to.as_ref(), greeting) {
                Ok(relay) => self.add(relay),
                Err(error) => self.refused(index, error),
            }
        }
    }

    fn add(&mut self, relay: Relay) {
        let (index, generation) = self.relays.insert(relay);
        let registered = self.relays.get(index, generation).map(|relay| relay.register(&self.epoll, index, generation));
        match registered {
            Some(Ok(())) => self.turn(index, generation),
            _ => self.close(index),
        }
    }

    /// Moves what can be moved in both directions of a connection.
    fn turn(&mut self, index: u32, generation: u32) {
        let Some(relay) = self.relays.get_mut(index, generation) else { return };
        match relay.turn(&mut self.pipes) {
            Ok(relay::Turn::Waiting) => {}
            Ok(relay::Turn::Unfinished) => self.unfinished.push((index, generation)),
            Ok(relay::Turn::Done) | Err(relay::Failure::Broken) => self.close(index),
            Err(relay::Failure::Unreachable(error)) => {
                let listener = relay.listener;
                self.close(index);
                self.refused(listener, error);
            }
        }
    }

    fn close(&mut self, index: u32) {
        self.relays.remove(index);
        if self.full {
            self.full = false;
            for (index, listener) in (0..).zip(&self.listeners).filter(|(_, listener)| listener.to.is_some()) {
                // It may be there still: the queue of the kernel is looked at anew anyhow.
                let _known =
                    epoll::modify(&self.epoll, &listener.socket, Token::Listener(index).data(), epoll::EventFlags::IN);
            }
        }
    }

    /// Leaves new connections to the kernel's queue until one ends.
    fn pause(&mut self) {
        debug!("{} connections: no more until one ends", self.relays.len());
        self.full = true;
        for (index, listener) in (0..).zip(&self.listeners).filter(|(_, listener)| listener.to.is_some()) {
            let none = epoll::EventFlags::empty();
            let _unknown = epoll::modify(&self.epoll, &listener.socket, Token::Listener(index).data(), none);
        }
    }

    /// Nothing listens in the container any more: so the host refuses as well.
    fn refused(&mut self, index: u32, error: rustix::io::Errno) {
        let Some(listener) = self.listeners.get_mut(index as usize) else { return };
        debug!("{}: {error}", listener.served);
        if let Err(error) = listener.stop(&self.epoll) {
            warn!("stop listening for {}: {error}", listener.served);
        }
        self.readiness.begin();
    }
}

/// Lets the process open as many descriptors as it may, and says for how many connections they do.
fn relay_limit() -> usize {
    let limits = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limits.maximum, maximum: limits.maximum };
    let most = if setrlimit(Resource::Nofile, raised).is_ok() { limits.maximum } else { limits.current };
    let relays = most.unwrap_or(u64::MAX).saturating_sub(SPARE_DESCRIPTORS) / DESCRIPTORS_EACH;
    usize::try_from(relays).unwrap_or(MOST_RELAYS).clamp(1, MOST_RELAYS)
}

/// Returns the record of what a proxy serves.
pub(crate) fn record(id: &str, served: &[Served]) -> anyhow::Result<Record> {
    let mut record = Record::default();
    record.set(&Id(id.to_owned()));
    Served::add_to(&mut record, served)?;
    Ok(record)
}
