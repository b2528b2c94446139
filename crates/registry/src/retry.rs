//! Failures that pass: whether and when to try again.

use std::time::{Duration, SystemTime};

use httpdate::parse_http_date;
use ureq::http::HeaderMap;
use ureq::http::header::RETRY_AFTER;

/// First pause before a retry; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// No pause is longer, whatever a registry asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What the user decided about the network.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Longest wait for the next byte.
    pub timeout: Duration,
    /// Retries without progress before giving up.
    pub retries: u32,
}

impl Patience {
    /// Makes a patience out of seconds.
    pub fn new(seconds: u64, retries: u32) -> Self {
        Self { timeout: Duration::from_secs(seconds.max(1)), retries }
    }

    /// Attempts something, again and again while its failure is a passing one.
    pub fn retry<T>(self, mut attempt: impl FnMut() -> Result<T, Failure>) -> anyhow::Result<T> {
        let mut retries = Retries::new(self);
        loop {
            match attempt() {
                Ok(done) => return Ok(done),
                Err(failure) => retries.pause(failure).map_err(Failure::into_error)?,
            }
        }
    }
}

/// Why a request or a transfer did not succeed.
#[derive(Debug)]
pub enum Failure {
    /// It may go better another time, after the pause that the server asks for.
    Passing(anyhow::Error, Option<Duration>),
    /// It may, if it is asked another way.
    Refused(anyhow::Error),
    /// It will not.
    Final(anyhow::Error),
}

impl Failure {
    /// Returns the error of any kind.
    pub fn into_error(self) -> anyhow::Error {
        match self {
            Self::Passing(error, _) | Self::Refused(error) | Self::Final(error) => error,
        }
    }
}

impl From<layout::Error> for Failure {
    fn from(error: layout::Error) -> Self {
        Self::Final(error.into())
    }
}

/// Counts retries and makes the pauses between them.
#[derive(Debug)]
pub struct Retries {
    left: u32,
    allowed: u32,
}

impl Retries {
    /// Starts counting.
    pub fn new(patience: Patience) -> Self {
        Self { left: patience.retries, allowed: patience.retries }
    }

    /// Forgets the failures so far: there was progress.
    pub fn reset(&mut self) {
        self.left = self.allowed;
    }

    /// Tells whether no other attempt follows this one.
    pub fn is_last(&self) -> bool {
        self.left == 0 && self.allowed > 0
    }

    /// Waits before the next attempt, or returns the failure when there is none.
    pub fn pause(&mut self, failure: Failure) -> Result<(), Failure> {
        let (error, asked) = match failure {
            Failure::Passing(error, asked) if self.left > 0 => (error, asked),
            other => return Err(other),
        };
        let doubled = FIRST_PAUSE.saturating_mul(1 << (self.allowed - self.left).min(8));
        self.left -= 1;
        let pause = asked.unwrap_or_else(|| jitter(doubled)).min(LONGEST_PAUSE);
        log::debug!("retry in {} ms: {error:#}", pause.as_millis());
        std::thread::sleep(pause);
        Ok(())
    }
}

/// Half to all of a pause, so that many clients do not come back at one moment.
fn jitter(pause: Duration) -> Duration {
    let mut random = [0];
    // Without random bytes the pause is merely not jittered.
    let _none = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    pause.mul_f64(0.5 + f64::from(random[0]) / 512.0)
}

/// Returns the pause that a server asks for: seconds, or the time to come back (RFC 9110, "Retry-After").
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let pause = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => parse_http_date(text).ok()?.duration_since(SystemTime::now()).unwrap_or_default(),
    };
    Some(pause.min(LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn the_pause_grows_and_ends() {
        let patience = Patience { timeout: Duration::from_secs(1), retries: 2 };
        let mut retries = Retries::new(patience);
        let passing = || Failure::Passing(anyhow!("x"), Some(Duration::ZERO));
        assert!(retries.pause(passing()).is_ok());
        assert!(retries.pause(passing()).is_ok());
        assert!(retries.pause(passing()).is_err());
        retries.reset();
        assert!(retries.pause(passing()).is_ok());
        assert!(retries.pause(Failure::Final(anyhow!("x"))).is_err());
    }

    #[test]
    fn a_server_asks_for_a_pause() {
        for (value, want) in [
            ("2", Some(2)),
            ("86400", Some(60)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(0)),
            ("Sun, 06 Nov 9994 08:49:37 GMT", Some(60)),
            ("-1", None),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]);
            assert_eq!(retry_after(&headers).map(|pause| pause.as_secs()), want, "{value}");
        }
    }
}
