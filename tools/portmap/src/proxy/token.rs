//! What an event is about, in the number that epoll carries for us.
//!
//! Numbers are never used twice, because an event may be for a socket that was closed earlier in the same turn.

use rustix::event::epoll::EventData;

const NUMBER_BITS: u32 = 56;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// Somebody comes to a frontend.
    Frontend(u32),
    /// A frontend was shut.
    Shut,
    /// One side of a connection.
    Relay { side: Side, number: u64 },
    /// A client's datagrams come to a frontend.
    Datagrams(u32),
    /// An answer to a client's datagrams.
    Flow(u32),
    /// Somebody asks the proxy something.
    Control,
    /// A process that the proxy shall not outlive has ended, or a signal came.
    End,
}

/// Whose socket of a connection's two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

impl Token {
    /// Eight bits for the kind, the others for the number.
    pub(super) fn data(self) -> EventData {
        let (kind, number) = match self {
            Self::Frontend(index) => (1, index.into()),
            Self::Relay { side: Side::Client, number } => (2, number),
            Self::Relay { side: Side::Server, number } => (3, number),
            Self::Flow(index) => (4, index.into()),
            Self::Control => (5, 0),
            Self::End => (6, 0),
            Self::Shut => (7, 0),
            Self::Datagrams(index) => (8, index.into()),
        };
        EventData::new_u64(kind << NUMBER_BITS | number)
    }

    pub(super) fn read(data: EventData) -> Option<Self> {
        let number = data.u64() & ((1 << NUMBER_BITS) - 1);
        let relay = |side| Self::Relay { side, number };
        let indexed =
            u32::try_from(number).ok().map(|index| [Self::Frontend(index), Self::Flow(index), Self::Datagrams(index)]);
        let others = [relay(Side::Client), relay(Side::Server), Self::Control, Self::End, Self::Shut];
        others.into_iter().chain(indexed.into_iter().flatten()).find(|token| token.data().u64() == data.u64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written() {
        for token in [
            Token::Frontend(7),
            Token::Shut,
            Token::Datagrams(9),
            Token::Relay { side: Side::Client, number: (1 << NUMBER_BITS) - 1 },
            Token::Relay { side: Side::Server, number: 1 },
            Token::Flow(3),
            Token::Control,
            Token::End,
        ] {
            assert_eq!(Token::read(token.data()), Some(token));
        }
    }
}
