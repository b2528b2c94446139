//! Waiting for an event, with a deadline that belongs to the whole test.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long one test may take in all; `E2E_PATIENCE=5`, for slow machines, makes this limit and every other five times as long.
const TEST_LIMIT: Duration = Duration::from_secs(180);
/// How long one event may take to come.
const EVENT_LIMIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(5);

thread_local! {
    static TEST_DEADLINE: Cell<Option<Instant>> = const { Cell::new(None) };
}

pub(super) fn start_the_clock() {
    TEST_DEADLINE.set(Some(Instant::now() + TEST_LIMIT * patience()));
}

/// Returns when something that may take `limit` has to be over.
pub(super) fn deadline(limit: Duration) -> Instant {
    let own = Instant::now() + limit * patience();
    TEST_DEADLINE.get().map_or(own, |test| own.min(test))
}

fn patience() -> u32 {
    std::env::var("E2E_PATIENCE").ok().and_then(|value| value.parse().ok()).unwrap_or(1)
}

/// Polls until `event` is `Some`; panics with `what` when it does not come.
pub(crate) fn wait_for<T>(what: &str, mut event: impl FnMut() -> Option<T>) -> T {
    let deadline = deadline(EVENT_LIMIT);
    poll_until(deadline, &mut event).unwrap_or_else(|| panic!("waited in vain for {what}"))
}

/// Polls until `event` is `Some` or the deadline has come.
pub(super) fn poll_until<T>(deadline: Instant, event: &mut impl FnMut() -> Option<T>) -> Option<T> {
    loop {
        if let Some(value) = event() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(PAUSE);
    }
}

/// The client that [`super::Sandbox::http_get`] starts inside a sandbox: prints headers and body.
pub(crate) fn http_client(address: &str) -> ExitCode {
    match http_get(address) {
        Ok(answer) => {
            print!("{answer}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{address}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Listens on a port, answers nobody, and ends when it is killed.
pub(crate) fn listener(address: &str) -> ExitCode {
    match std::net::TcpListener::bind(address) {
        Ok(listener) => {
            println!("listening");
            for connection in listener.incoming() {
                drop(connection);
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{address}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn http_get(address: &str) -> std::io::Result<String> {
    let (host, path) = address.split_once('/').map_or((address, ""), |(host, path)| (host, path));
    let limit = Duration::from_secs(5);
    let socket = host.parse().map_err(std::io::Error::other)?;
    let mut stream = TcpStream::connect_timeout(&socket, limit)?;
    stream.set_read_timeout(Some(limit))?;
    write!(stream, "GET /{path} HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
