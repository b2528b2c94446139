//! What an image says of how its containers' health is looked at.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// A health check as images have it (docker's image specification, "Healthcheck"); times in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct HealthCheck {
    test: Vec<String>,
    interval: u64,
    timeout: u64,
    start_period: u64,
    start_interval: u64,
    retries: u32,
}

impl HealthCheck {
    /// Parses an image's check; `None` where it says that there is none.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>> {
        let check: Self = serde_json::from_str(text).context("not a health check")?;
        Ok((!check.command().is_empty()).then_some(check))
    }

    /// Returns the command, empty for none.
    pub(crate) fn command(&self) -> Vec<&str> {
        let words = || self.test.iter().skip(1).map(String::as_str);
        match self.test.first().map(String::as_str) {
            Some("CMD") => words().collect(),
            Some("CMD-SHELL") => ["/bin/sh", "-c"].into_iter().chain(words()).collect(),
            _ => Vec::new(),
        }
    }

    pub(crate) fn retries(&self) -> u32 {
        if self.retries == 0 { 3 } else { self.retries }
    }

    pub(crate) fn timeout(&self) -> Duration {
        or_default(self.timeout, 30)
    }

    pub(crate) fn interval(&self) -> Duration {
        or_default(self.interval, 30)
    }

    pub(crate) fn start_period(&self) -> Duration {
        Duration::from_nanos(self.start_period)
    }

    pub(crate) fn start_interval(&self) -> Duration {
        or_default(self.start_interval, 5)
    }
}

fn or_default(nanoseconds: u64, seconds: u64) -> Duration {
    if nanoseconds == 0 { Duration::from_secs(seconds) } else { Duration::from_nanos(nanoseconds) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_images() {
        let check =
            HealthCheck::parse(r#"{"Test":["CMD-SHELL","curl -f localhost"],"Interval":5000000000,"Retries":2}"#);
        let check = check.unwrap().unwrap();
        assert_eq!(check.command(), ["/bin/sh", "-c", "curl -f localhost"]);
        assert_eq!((check.retries(), check.interval()), (2, Duration::from_secs(5)));
        assert_eq!(HealthCheck::parse(r#"{"Test":["NONE"]}"#).unwrap(), None);
        assert_eq!(HealthCheck::parse("{}").unwrap(), None);
        assert!(HealthCheck::parse("x").is_err());
    }
}
