//! One connection: what the client sends to the container and back.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::epoll::{self, EventFlags};
use rustix::io::Errno;
use rustix::net::sockopt;

use super::destination::Destination;
use super::direction::{Direction, Stores, Turn};
use super::token::{Side, Token};

/// Why a connection ends before its time.
#[derive(Debug)]
pub(super) enum Failure {
    /// The container did not take it.
    Unreachable(Errno),
    /// A side broke it off.
    Broken,
}

/// A client and the container, connected.
#[derive(Debug)]
pub(super) struct Relay {
    /// The frontend by which the client came.
    pub(super) frontend: u32,
    client: OwnedFd,
    server: OwnedFd,
    there: Direction,
    back: Direction,
}

impl Relay {
    /// Connects an accepted client to the container, which is told the greeting before the client's first byte. Where
    /// nobody listens there, the client's connection is reset.
    pub(super) fn connect(client: OwnedFd, frontend: u32, to: &Destination, greeting: Vec<u8>) -> Result<Self, Errno> {
        let server = to.connect().inspect_err(|_| reset(&client))?;
        // It does not change what arrives; it only makes it arrive sooner.
        let _sooner = sockopt::set_tcp_nodelay(&server, true);
        let (there, back) = (Direction::beginning_with(greeting), Direction::default());
        Ok(Self { frontend, client, server, there, back })
    }

    /// Has both sides watched: what they can do already is their first event.
    pub(super) fn register(&self, epoll: &OwnedFd, number: u64) -> Result<(), Errno> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::PRI | EventFlags::ET;
        for (side, socket) in [(Side::Client, &self.client), (Side::Server, &self.server)] {
            epoll::add(epoll, socket, Token::Relay { side, number }.data(), flags)?;
        }
        Ok(())
    }

    /// Notes what happened at one side.
    pub(super) fn changed(&mut self, side: Side, event: EventFlags) {
        let (sends, receives) = match side {
            Side::Client => (&mut self.there, &mut self.back),
            Side::Server => (&mut self.back, &mut self.there),
        };
        sends.sender_changed(event);
        receives.receiver_changed(event);
    }

    /// Moves what can be moved in both directions.
    pub(super) fn turn(&mut self, stores: &mut Stores) -> Result<Turn, Failure> {
        self.pump(stores).map_err(|error| {
            // What one side broke off must not look like an end to the other.
            // A close would send FIN, which says "this was all". SO_LINGER with 0 sends RST instead (socket(7)).
            reset(&self.client);
            reset(&self.server);
            match error {
                Errno::CONNREFUSED | Errno::HOSTUNREACH | Errno::NETUNREACH => Failure::Unreachable(error),
                _ => Failure::Broken,
            }
        })
    }

    fn pump(&mut self, stores: &mut Stores) -> Result<Turn, Errno> {
        let there = self.there.pump(&self.client, &self.server, stores)?;
        let back = self.back.pump(&self.server, &self.client, stores)?;
        match (there, back) {
            // Closing the sockets passes the last end on.
            (Turn::Done, Turn::Done) => return Ok(Turn::Done),
            (Turn::Done, _) => self.there.close(&self.server)?,
            (_, Turn::Done) => self.back.close(&self.client)?,
            _ => {}
        }
        let unfinished = there == Turn::Unfinished || back == Turn::Unfinished;
        Ok(if unfinished { Turn::Unfinished } else { Turn::Waiting })
    }
}

/// Makes closing a socket a reset of its connection.
fn reset(socket: &OwnedFd) {
    // Where it cannot be, the connection is gone already.
    let _gone = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}
