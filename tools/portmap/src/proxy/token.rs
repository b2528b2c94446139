//! What an event is about, in the number that epoll carries for us.

use rustix::event::epoll::EventData;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// Somebody comes to a door.
    Door(u32),
    /// A door was shut.
    Shut,
    /// One side of a connection.
    Relay { side: Side, index: u32, generation: u32 },
    /// A client's datagrams come to a door.
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
    /// Eight bits for the kind, 24 for the generation, 32 for the index.
    pub(super) fn data(self) -> EventData {
        let (kind, generation, index) = match self {
            Self::Door(index) => (1, 0, index),
            Self::Relay { side: Side::Client, index, generation } => (2, generation, index),
            Self::Relay { side: Side::Server, index, generation } => (3, generation, index),
            Self::Flow(index) => (4, 0, index),
            Self::Control => (5, 0, 0),
            Self::End => (6, 0, 0),
            Self::Shut => (7, 0, 0),
            Self::Datagrams(index) => (8, 0, index),
        };
        EventData::new_u64(kind << 56 | u64::from(generation) << 32 | u64::from(index))
    }

    pub(super) fn read(data: EventData) -> Option<Self> {
        let number = data.u64();
        let index = u32::try_from(number & 0xffff_ffff).ok()?;
        let generation = u32::try_from(number >> 32 & 0x00ff_ffff).ok()?;
        match number >> 56 {
            1 => Some(Self::Door(index)),
            2 => Some(Self::Relay { side: Side::Client, index, generation }),
            3 => Some(Self::Relay { side: Side::Server, index, generation }),
            4 => Some(Self::Flow(index)),
            5 => Some(Self::Control),
            6 => Some(Self::End),
            7 => Some(Self::Shut),
            8 => Some(Self::Datagrams(index)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written() {
        for token in [
            Token::Door(7),
            Token::Shut,
            Token::Datagrams(9),
            Token::Relay { side: Side::Client, index: u32::MAX, generation: 0x00ff_ffff },
            Token::Relay { side: Side::Server, index: 1, generation: 2 },
            Token::Flow(3),
            Token::Control,
            Token::End,
        ] {
            assert_eq!(Token::read(token.data()), Some(token));
        }
    }
}
