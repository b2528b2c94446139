//! The keeper's socket in the bundle: one packet is a request, packets answer it (`unix(7)`, `SOCK_SEQPACKET`).
//!
//! Requests are words: `stop SECONDS [SIGNAL]`, `restart SECONDS [SIGNAL]`, `wait`, `attach`. An answer's first byte says what
//! follows: output of stdout (1) or stderr (2), or (0) how the container ended, as JSON. To `attach` the first answer is
//! empty and carries, if there is one, the descriptor of the container's standard input.
//!
//! SEQPACKET keeps requests and answers apart without a length before them, and has an end, which tells both sides
//! that the other is gone. The socket is in the bundle's directory, which is its owner's alone: no other check of who
//! asks is made.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, recv,
    socket_with,
};
use rustix::process::{Resource, getrlimit};

use crate::exit::Exit;
use crate::output::Stream;

/// The socket's name in the bundle.
const FILE: &str = "keep.sock";
/// The largest packet.
pub(crate) const PACKET: usize = 32 << 10;
/// How long a client may keep the container waiting before it is dropped.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long no new clients are taken where there was no descriptor for one.
const CLOSED: Duration = Duration::from_millis(500);
/// The descriptors that the keeper has and needs for itself.
const OWN: usize = 48;
const ENDED: u8 = 0;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Stop the container, within this time, by this signal.
    Stop(Option<Duration>, Option<String>),
    /// Stop it and start it again.
    Restart(Option<Duration>, Option<String>),
    /// Only tell how it ends.
    Wait,
    /// Show what it says, and give its input.
    Attach,
}

impl Request {
    /// Returns the packet.
    pub(crate) fn to_packet(&self) -> String {
        let seconds = |grace: &Option<Duration>| grace.map_or("-".to_owned(), |grace| grace.as_secs().to_string());
        let words = |verb: &str, grace: &Option<Duration>, signal: &Option<String>| {
            format!("{verb} {} {}", seconds(grace), signal.as_deref().unwrap_or("-"))
        };
        match self {
            Self::Stop(grace, signal) => words("stop", grace, signal),
            Self::Restart(grace, signal) => words("restart", grace, signal),
            Self::Wait => "wait".to_owned(),
            Self::Attach => "attach".to_owned(),
        }
    }

    fn parse(packet: &str) -> Option<Self> {
        let mut words = packet.split(' ');
        let verb = words.next()?;
        let grace = words.next().and_then(|word| word.parse().ok()).map(Duration::from_secs);
        let signal = words.next().filter(|word| *word != "-").map(str::to_owned);
        Some(match verb {
            "stop" => Self::Stop(grace, signal),
            "restart" => Self::Restart(grace, signal),
            "wait" => Self::Wait,
            "attach" => Self::Attach,
            _ => return None,
        })
    }
}

/// The keeper's side.
pub(crate) struct Control {
    listener: OwnedFd,
    path: PathBuf,
    clients: Vec<Client>,
    /// When new clients are taken again, where there was no descriptor for one.
    pub(crate) closed: Option<Instant>,
    /// So many clients leave descriptors for the next start.
    ///
    /// Without the limit, a thousand `keep logs -f` would keep the container from being started again.
    most: usize,
}

/// What an attached client may write to.
#[derive(Clone, Copy)]
pub(crate) enum ClientInput<'a> {
    /// It is not known yet whether there is any.
    Awaited,
    /// This, if anything.
    Known(Option<BorrowedFd<'a>>),
}

struct Client {
    socket: OwnedFd,
    request: Option<Request>,
    /// Whether it has been given the container's input, or told that there is none.
    joined: bool,
    /// Whether it has been told of an end.
    told: bool,
    gone: bool,
}

impl Control {
    /// Opens the socket. The caller has the claim on the container: what is there is a killed keeper's.
    pub(crate) fn open(bundle: &Path) -> Result<Self> {
        let path = bundle.join(FILE);
        let make = || -> io::Result<OwnedFd> {
            sys::file::there(fs::remove_file(&path))?;
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let listener = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
            bind(&listener, &address(&File::open(bundle)?)?)?;
            listen(&listener, 16)?;
            Ok(listener)
        };
        let listener = make().with_context(|| format!("socket {}", path.display()))?;
        let limit = getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok());
        let most = limit.unwrap_or(usize::MAX).saturating_sub(OWN).max(8);
        Ok(Self { listener, path, clients: Vec::new(), closed: None, most })
    }

    /// Returns what is to be polled for requests: every client, and the listener where another one can be taken.
    pub(crate) fn polled(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let listener = self.takes_more().then(|| self.listener.as_fd());
        listener.into_iter().chain(self.clients.iter().map(|client| client.socket.as_fd()))
    }

    fn takes_more(&self) -> bool {
        self.clients.len() < self.most && self.closed.is_none_or(|until| until <= Instant::now())
    }

    /// Waits until somebody comes; false if the caller has gone instead.
    pub(crate) fn wait_for_client(&self, caller: BorrowedFd<'_>) -> Result<bool> {
        let mut polled =
            [PollFd::new(&self.listener, PollFlags::IN), PollFd::from_borrowed_fd(caller, PollFlags::empty())];
        rustix::io::retry_on_intr(|| poll(&mut polled, None)).context("wait for clients")?;
        Ok(!polled[0].revents().is_empty())
    }

    /// Takes those who wait. The listener does not block: one who has gone again meanwhile must not be waited for.
    fn accept(&mut self) {
        while self.takes_more() {
            self.closed = None;
            match accept_with(&self.listener, SocketFlags::CLOEXEC) {
                Ok(socket) => {
                    // A client that does not listen must not stop the container for long.
                    // A full socket's buffer blocks the one thread that reads the container's output; after two
                    // seconds the client is dropped.
                    let _unlimited = set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE));
                    self.clients.push(Client { socket, request: None, joined: false, told: false, gone: false });
                }
                Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => return,
                // It stays readable, so that the loop would spin.
                Err(_) => self.closed = Some(Instant::now() + CLOSED),
            }
        }
    }

    /// Takes new clients and their requests. `input` is for those who attach.
    pub(crate) fn serve(&mut self, input: ClientInput<'_>) -> Vec<Request> {
        self.accept();
        let mut requests = Vec::new();
        for client in &mut self.clients {
            let mut packet = [0; 256];
            match recv(&client.socket, &mut packet, RecvFlags::DONTWAIT) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                Ok((count, _)) if count > 0 => {
                    let request = std::str::from_utf8(&packet[..count]).ok().and_then(Request::parse);
                    client.request.clone_from(&request);
                    if let (Some(Request::Attach), ClientInput::Known(input)) = (&request, input) {
                        client.join(input);
                    }
                    client.gone |= request.is_none();
                    requests.extend(request);
                }
                _ => client.gone = true,
            }
        }
        self.clients.retain(|client| !client.gone);
        requests
    }

    /// Gives those who wait for it what they may write to.
    pub(crate) fn join(&mut self, input: Option<BorrowedFd<'_>>) {
        let waiting = |client: &&mut Client| client.request == Some(Request::Attach) && !client.joined;
        self.clients.iter_mut().filter(waiting).for_each(|client| client.join(input));
        self.clients.retain(|client| !client.gone);
    }

    /// Shows the attached clients what the container has said.
    pub(crate) fn show(&mut self, stream: Stream, bytes: &[u8]) {
        for client in self.clients.iter_mut().filter(|client| client.joined) {
            client.gone |= send(&client.socket, &[&[stream as u8], bytes], None).is_err();
        }
        self.clients.retain(|client| !client.gone);
    }

    /// Lets those go who have been told, where the container starts again.
    pub(crate) fn dismiss(&mut self) {
        self.clients.retain(|client| matches!(client.request, Some(Request::Restart(..)) | None));
    }

    /// Lets those go who wanted a restart: it is done. Who came while the container was being started has seen no end.
    pub(crate) fn restarted(&mut self) {
        let nothing = serde_json::to_vec(&Exit::default()).unwrap_or_default();
        let untold = |client: &Client| matches!(client.request, Some(Request::Restart(..))) && !client.told;
        self.clients.iter_mut().filter(|client| untold(client)).for_each(|client| client.tell(&nothing));
        self.clients.retain(|client| !matches!(client.request, Some(Request::Restart(..))));
    }

    /// Lets all go who have asked for something.
    pub(crate) fn let_go(&mut self) {
        self.clients.retain(|client| client.request.is_none());
    }

    /// Tells every client how the container ended.
    pub(crate) fn tell(&mut self, exit: &Exit) {
        let Ok(text) = serde_json::to_vec(exit) else { return };
        self.clients.iter_mut().for_each(|client| client.tell(&text));
    }

    /// Takes the socket's name away. Who is connected sees the end of all when this is dropped.
    pub(crate) fn remove(&self) {
        let _gone = fs::remove_file(&self.path);
    }
}

impl Client {
    fn tell(&mut self, exit: &[u8]) {
        self.told = true;
        // A client that has gone wants to know nothing.
        let _gone = send(&self.socket, &[&[ENDED], exit], None);
    }

    fn join(&mut self, input: Option<BorrowedFd<'_>>) {
        self.joined = true;
        self.gone |= send(&self.socket, &[], input).is_err();
    }
}

/// What the keeper says.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Output, and on which stream.
    Output(u8, Vec<u8>),
    /// The container has ended.
    Ended(Exit),
    /// The keeper has.
    Closed,
}

/// Asks a keeper; `None` if there is none.
pub(crate) fn ask(bundle: &Path, id: &str, request: &Request) -> Result<Option<OwnedFd>> {
    let ask = || -> io::Result<OwnedFd> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        connect(&socket, &address(&File::open(bundle)?)?)?;
        deliver(&socket, request)?;
        Ok(socket)
    };
    sys::unless(&[Errno::NOENT, Errno::CONNREFUSED], ask()).with_context(|| format!("ask the keeper of {id}"))
}

/// Asks a keeper that is ending how the container has ended; one that does not say so soon does not know.
///
/// That is for `list` and `start`, where exit.json could not be written: a full disk, say.
pub(crate) fn how_it_ended(bundle: &Path, id: &str) -> Option<Exit> {
    let keeper = ask(bundle, id, &Request::Wait).ok()??;
    set_socket_timeout(&keeper, Timeout::Recv, Some(PATIENCE)).ok()?;
    let Ok(Answer::Ended(exit)) = answer(&keeper) else { return None };
    Some(exit)
}

/// Sends a request. A keeper that ends at this moment has told everybody who was connected what it had to tell, so that
/// the answer is there all the same, or the end of all.
fn deliver(socket: &OwnedFd, request: &Request) -> io::Result<()> {
    let sent = send(socket, &[request.to_packet().as_bytes()], None);
    sys::unless(&[Errno::PIPE, Errno::CONNRESET], sent).map(drop)
}

/// Waits for an answer.
pub(crate) fn answer(socket: &OwnedFd) -> Result<Answer> {
    let mut packet = vec![0; PACKET + 1];
    match sys::packet::hear(|| recv(socket, packet.as_mut_slice(), RecvFlags::empty())) {
        // Nobody sends empty packets (`send`), so this is the end.
        Ok((0, _)) | Err(Errno::PIPE) => Ok(Answer::Closed),
        Ok((count, _)) if packet[0] == ENDED => {
            Ok(Answer::Ended(serde_json::from_slice(&packet[1..count]).context("the keeper's answer")?))
        }
        Ok((count, _)) => Ok(Answer::Output(packet[0], packet[1..count].to_vec())),
        Err(error) => Err(error).context("the keeper's answer"),
    }
}

/// Receives the answer to `attach`: the container's input, if it takes any.
pub(crate) fn input(socket: BorrowedFd<'_>) -> Result<Option<OwnedFd>> {
    // EPIPE: who was killed in this moment: the next answer tells of it.
    let received = sys::unless(&[Errno::PIPE], sys::packet::receive(socket, &mut [0; 64]));
    Ok(received.context("the keeper's answer")?.and_then(|(_, descriptor)| descriptor))
}

fn send(socket: &OwnedFd, parts: &[&[u8]], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    // An empty packet would look like end of file.
    let parts = if parts.is_empty() { &[&b"+"[..]] } else { parts };
    Ok(sys::packet::send(socket, parts, descriptor)?)
}

/// The path by way of the open directory: however long it is, it fits into an address.
fn address(bundle: &File) -> io::Result<SocketAddrUnix> {
    Ok(SocketAddrUnix::new(format!("/proc/self/fd/{}/{FILE}", bundle.as_raw_fd()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keeper_that_ends_while_it_is_asked_has_answered() {
        let pair =
            || rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        for told in [true, false] {
            let (client, keeper) = pair();
            if told {
                let exit = serde_json::to_vec(&Exit { code: 7, ..Exit::default() }).unwrap();
                send(&keeper, &[&[ENDED], &exit], None).unwrap();
            }
            drop(keeper);
            deliver(&client, &Request::Wait).unwrap();
            match answer(&client).unwrap() {
                Answer::Ended(exit) => assert!(told && exit.code == 7),
                other => assert!(!told && matches!(other, Answer::Closed), "{other:?}"),
            }
        }
    }

    #[test]
    fn requests_are_words() {
        for request in [
            Request::Stop(Some(Duration::from_secs(3)), Some("SIGQUIT".to_owned())),
            Request::Stop(None, None),
            Request::Restart(Some(Duration::ZERO), None),
            Request::Wait,
            Request::Attach,
        ] {
            assert_eq!(Request::parse(&request.to_packet()), Some(request));
        }
        assert_eq!(Request::parse("fly"), None);
    }
}
