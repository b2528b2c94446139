//! Restart policies, with docker's names, meaning and back-off.

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The first pause; each failure in a row doubles it.
const FIRST: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(60);
/// The pause after a start that could not even be tried: what was wanting may be back soon.
const WANTING: Duration = Duration::from_secs(1);
/// A container that ran this long has not failed in a row.
///
/// docker resets its back-off after ten seconds, too.
const STEADY: Duration = Duration::from_secs(10);

/// What happens when the container ends by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Policy {
    /// It stays ended.
    #[default]
    No,
    /// It starts again unless its status is 0, at most so many times.
    OnFailure(Option<u32>),
    /// It starts again.
    Always,
    /// It starts again. Docker's difference to `always` is what its daemon does when that starts; there is none here.
    UnlessStopped,
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, count) = text.split_once(':').map_or((text, None), |(name, count)| (name, Some(count)));
        match (name, count) {
            ("no" | "", None) => Ok(Self::No),
            ("always", None) => Ok(Self::Always),
            ("unless-stopped", None) => Ok(Self::UnlessStopped),
            ("on-failure", None) => Ok(Self::OnFailure(None)),
            ("on-failure", Some(count)) => match count.parse() {
                Ok(0) => Ok(Self::OnFailure(None)),
                Ok(count) => Ok(Self::OnFailure(Some(count))),
                Err(_) => Err(format!("`{count}` is not a number of attempts")),
            },
            _ => Err("not one of no, on-failure[:ATTEMPTS], always, unless-stopped".to_owned()),
        }
    }
}

/// The restarts so far.
#[derive(Debug, Default)]
pub(crate) struct Restarts {
    /// How many there were.
    pub(crate) count: u32,
    pause: Option<Duration>,
}

impl Restarts {
    /// Returns the pause before the next start, or `None` if there shall be none. Without a code the container was not
    /// started, by no fault of its own: that does not count.
    ///
    /// The pause doubles from 100 ms to a minute.
    pub(crate) fn after(&mut self, policy: Policy, code: Option<u8>, ran: Duration) -> Option<Duration> {
        let again = match policy {
            Policy::No => false,
            Policy::OnFailure(_) if code.is_none() => true,
            Policy::OnFailure(limit) => code != Some(0) && limit.is_none_or(|limit| self.count < limit),
            Policy::Always | Policy::UnlessStopped => true,
        };
        if !again {
            return None;
        }
        if code.is_none() {
            return Some(WANTING);
        }
        let pause = match self.pause {
            Some(pause) if ran < STEADY => (pause * 2).min(LONGEST),
            _ => FIRST,
        };
        self.pause = Some(pause);
        self.count += 1;
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_docker_s() {
        for (text, want) in [
            ("no", Some(Policy::No)),
            ("always", Some(Policy::Always)),
            ("on-failure", Some(Policy::OnFailure(None))),
            ("on-failure:3", Some(Policy::OnFailure(Some(3)))),
            ("on-failure:x", None),
            ("always:3", None),
            ("sometimes", None),
        ] {
            assert_eq!(text.parse().ok(), want, "{text}");
        }
    }

    #[test]
    fn the_pause_doubles_until_it_ran_steadily() {
        let mut restarts = Restarts::default();
        let mut next =
            |code, ran| restarts.after(Policy::Always, Some(code), Duration::from_secs(ran)).unwrap().as_millis();
        assert_eq!([next(1, 0), next(0, 1), next(1, 9), next(1, 10), next(1, 0)], [100, 200, 400, 100, 200]);
        assert_eq!((0..20).map(|_| next(1, 0)).last(), Some(60_000));
    }

    #[test]
    fn failures_are_counted() {
        let mut restarts = Restarts::default();
        let mut next = |code| restarts.after(Policy::OnFailure(Some(2)), code, Duration::ZERO).is_some();
        let codes = [Some(1), None, Some(1), None, Some(1)];
        assert_eq!(codes.map(&mut next), [true, true, true, true, false]);
        assert_eq!(restarts.count, 2);
        assert!(Restarts::default().after(Policy::OnFailure(None), Some(0), Duration::ZERO).is_none());
    }
}
