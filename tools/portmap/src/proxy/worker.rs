//! A thread that accepts connections and relays them: each connection stays with the one that has accepted it.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::Duration;

use log::{debug, warn};
use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventFlags};
use rustix::io::Errno;

use crate::request::ProxyProtocol;

use super::direction::{Stores, Turn};
use super::frontend::Frontends;
use super::greeting;
use super::relay::{Failure, Relay};
use super::token::Token;

pub(super) const EVENTS: usize = 256;

/// How long a thread that had no room for more does not look whether others have made some.
const FULL: Duration = Duration::from_millis(100);

/// What the thread works on.
pub(super) struct Worker {
    frontends: Arc<Frontends>,
    number: usize,
    /// How the container learns whom a connection is from.
    greeting: Option<ProxyProtocol>,
    relays: HashMap<u64, Relay>,
    /// The last relay's number: none is given twice, so that a late event is not taken for another one's.
    last: u64,
    /// Relays that had more to do than one turn allows.
    unfinished: Vec<u64>,
    stores: Stores,
    /// Whether it waits at no frontend, because there is no room for more.
    full: bool,
}

impl Worker {
    /// Makes the part of the thread of that number.
    pub(super) fn new(frontends: Arc<Frontends>, number: usize, greeting: Option<ProxyProtocol>) -> Self {
        let (relays, unfinished, stores) = (HashMap::new(), Vec::new(), Stores::default());
        Self { frontends, number, greeting, relays, last: 0, unfinished, stores, full: false }
    }

    /// Works until the process ends.
    pub(super) fn run(mut self) {
        let mut buffer = [MaybeUninit::uninit(); EVENTS];
        loop {
            let events = match self.wait(&mut buffer, None) {
                Ok(events) => events,
                Err(error) => return warn!("wait for connections: {error}"),
            };
            for event in events {
                if let Some(token) = Token::read(event.data) {
                    self.handle(token, event.flags);
                }
            }
            self.go_on();
        }
    }

    /// Waits for events, for so long at most.
    pub(super) fn wait<'b>(
        &self,
        buffer: &'b mut [MaybeUninit<Event>],
        most: Option<Duration>,
    ) -> io::Result<&'b mut [Event]> {
        let own = match (self.unfinished.is_empty(), self.full) {
            (false, _) => Some(Duration::ZERO),
            (true, full) => full.then_some(FULL),
        };
        let timeout = own.into_iter().chain(most).min().and_then(|timeout| Timespec::try_from(timeout).ok());
        let events = epoll::wait(self.frontends.epoll(self.number), buffer, timeout.as_ref());
        Ok(sys::unless(&[Errno::INTR], events)?.map_or(&mut [], |(events, _)| events))
    }

    /// Does what an event asks for.
    pub(super) fn handle(&mut self, token: Token, event: EventFlags) {
        match token {
            Token::Frontend(index) => self.accept(index),
            Token::Relay { side, number } => {
                if let Some(relay) = self.relays.get_mut(&number) {
                    relay.changed(side, event);
                    self.turn(number);
                }
            }
            _ => {}
        }
    }

    /// Does what was left to do when the events were done.
    pub(super) fn go_on(&mut self) {
        let mut unfinished = std::mem::take(&mut self.unfinished);
        // Two events of one connection in one turn may have put it there twice.
        unfinished.sort_unstable();
        unfinished.dedup();
        for number in unfinished {
            self.turn(number);
        }
        if self.full && self.frontends.room.is_left() {
            self.full = false;
            self.frontends.come_back(self.number);
        }
    }

    /// Takes one who came. There may be more: the next are taken in turn with what else is to do, by any thread.
    fn accept(&mut self, index: u32) {
        if !self.frontends.room.is_left() {
            return self.leave();
        }
        let Some(frontend) = self.frontends.get(index) else { return };
        let Some(to) = frontend.destination() else { return };
        let client = match frontend.accept() {
            Ok(client) => client,
            // The connection stays in the kernel's queue, and the socket readable: waiting at it would be a busy
            // loop.
            Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => return self.leave(),
            // Another thread was faster, or the client is gone.
            Err(_) => return,
        };
        let greeting = self.greeting.map(|version| greeting::of(&client, version)).unwrap_or_default();
        match Relay::connect(client, index, &to, greeting) {
            Ok(relay) => self.add(relay),
            Err(error) => self.frontends.shut(index, error),
        }
    }

    fn add(&mut self, relay: Relay) {
        self.frontends.room.take();
        self.last += 1;
        let registered = relay.register(self.frontends.epoll(self.number), self.last);
        self.relays.insert(self.last, relay);
        if registered.is_err() {
            self.remove(self.last);
        }
    }

    fn remove(&mut self, number: u64) {
        self.relays.remove(&number);
        self.frontends.room.give_back();
    }

    /// Moves what can be moved in both directions of a connection.
    fn turn(&mut self, number: u64) {
        let Some(relay) = self.relays.get_mut(&number) else { return };
        match relay.turn(&mut self.stores) {
            Ok(Turn::Waiting) => {}
            Ok(Turn::Unfinished) => self.unfinished.push(number),
            Ok(Turn::Done) | Err(Failure::Broken) => self.remove(number),
            Err(Failure::Unreachable(error)) => {
                let frontend = relay.frontend;
                self.remove(number);
                self.frontends.shut(frontend, error);
            }
        }
    }

    /// Leaves new connections to other threads, or to the kernel's queue until one ends.
    fn leave(&mut self) {
        debug!("{} connections: no more until one ends", self.relays.len());
        self.full = true;
        self.frontends.leave(self.number);
    }
}
