//! Failures that pass: whether and when to try again.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ureq::http::HeaderMap;
use ureq::http::header::RETRY_AFTER;

/// First pause before a retry; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// No pause is longer, whatever a registry asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What the user decided about the network.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Longest wait for the next byte.
    pub(crate) timeout: Duration,
    /// Retries without progress before giving up.
    pub(crate) retries: u32,
}

/// Why a request or a transfer did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It may go better another time, after the pause that the server asks for.
    Passing(anyhow::Error, Option<Duration>),
    /// It will not.
    Final(anyhow::Error),
}

impl Failure {
    /// Returns the error of either kind.
    pub(crate) fn into_error(self) -> anyhow::Error {
        match self {
            Self::Passing(error, _) | Self::Final(error) => error,
        }
    }
}

/// Counts retries and makes the pauses between them.
#[derive(Debug)]
pub(crate) struct Retries {
    left: u32,
    allowed: u32,
}

impl Retries {
    /// Starts counting.
    pub(crate) fn new(patience: Patience) -> Self {
        Self { left: patience.retries, allowed: patience.retries }
    }

    /// Forgets the failures so far: there was progress.
    pub(crate) fn reset(&mut self) {
        self.left = self.allowed;
    }

    /// Waits before the next attempt, or returns the error when there is none.
    pub(crate) fn pause(&mut self, failure: Failure) -> anyhow::Result<()> {
        let (error, asked) = match failure {
            Failure::Passing(error, asked) if self.left > 0 => (error, asked),
            other => return Err(other.into_error()),
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
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let pause = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => parse_date(text)?.saturating_sub(SystemTime::now().duration_since(UNIX_EPOCH).ok()?),
    };
    Some(pause.min(LONGEST_PAUSE))
}

/// Parses a date such as `Sun, 06 Nov 1994 08:49:37 GMT`: the time since 1970.
fn parse_date(text: &str) -> Option<Duration> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let [_, day, month, year, clock, "GMT"] = words.as_slice() else { return None };
    let month = MONTHS.iter().position(|name| name == month)? as u64;
    let (day, year): (u64, u64) = (day.parse().ok()?, year.parse().ok()?);
    if !(1..=31).contains(&day) || !(1970..=9999).contains(&year) {
        return None;
    }
    let clock = clock.split(':').map(|part| part.parse().ok()).collect::<Option<Vec<u64>>>()?;
    let [hour, minute, second] = clock.as_slice() else { return None };
    // The year is taken to begin in March, so that the leap day is its last.
    let (year, month) = if month < 2 { (year - 1, month + 10) } else { (year, month - 2) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some(Duration::from_secs(days * 86_400 + hour.min(&24) * 3600 + minute.min(&60) * 60 + second.min(&60)))
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
    fn dates_are_what_date_says() {
        for (text, want) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Tue, 29 Feb 2000 00:00:00 GMT", Some(951_782_400)),
            ("Fri, 01 Mar 2024 00:00:00 GMT", Some(1_709_251_200)),
            ("Tue, 31 Dec 2024 23:59:59 GMT", Some(1_735_689_599)),
            ("Mon, 01 Mar 2100 00:00:00 GMT", Some(4_107_542_400)),
            ("Sun, 06 Nov 0001 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08:49 GMT", None),
            ("soon", None),
        ] {
            assert_eq!(parse_date(text).map(|time| time.as_secs()), want, "{text}");
        }
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
