//! Health checks: an image's own (docker's image specification, "Healthcheck"; image-spec keeps it reserved), changed by
//! the user's options. Nothing in config.json has a place for it, so it becomes an annotation, which `keep` reads.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::request::HealthOptions;

/// The annotation's key.
pub(crate) const ANNOTATION: &str = "org.drayage.healthcheck";

/// Nanoseconds.
const LEAST: u64 = 1_000_000;

impl HealthOptions {
    /// Returns the check that the container has: the image's, with what the user wants instead.
    pub(crate) fn check(&self, image: Option<&Value>) -> Option<Value> {
        let mut check: Map<String, Value> = image.and_then(Value::as_object).cloned().unwrap_or_default();
        let nanoseconds = |time: Duration| json!(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        let given = [
            ("Test", self.probe.as_deref().map(test)),
            ("Interval", self.interval.map(nanoseconds)),
            ("Timeout", self.timeout.map(nanoseconds)),
            ("StartPeriod", self.start_period.map(nanoseconds)),
            ("StartInterval", self.start_interval.map(nanoseconds)),
            ("Retries", self.retries.map(Value::from)),
        ];
        check.extend(given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        for name in ["Interval", "StartInterval"] {
            // docker's least: an image's check must not keep a processor busy.
            let time = check.get(name).and_then(Value::as_u64).filter(|time| (1..LEAST).contains(time));
            if time.is_some() {
                check.insert(name.into(), json!(LEAST));
            }
        }
        let tests = check.get("Test")?.as_array()?.first()? != "NONE";
        (tests && !self.no_healthcheck).then_some(Value::Object(check))
    }
}

/// Returns the test: a text is for a shell, a JSON list is the image specification's `Test`, as podman takes it.
fn test(probe: &str) -> Value {
    match serde_json::from_str::<Vec<String>>(probe) {
        Ok(words) if words.first().is_some_and(|kind| ["CMD", "CMD-SHELL", "NONE"].contains(&kind.as_str())) => {
            json!(words)
        }
        Ok(words) if !words.is_empty() => json!([&["CMD".to_owned()][..], &words].concat()),
        _ => json!(["CMD-SHELL", probe]),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_user_changes_what_the_image_says() {
        let image = json!({"Test": ["CMD", "true"], "Interval": 5_000_000});
        let second = Some(Duration::from_secs(1));
        for (health, image, want) in [
            (HealthOptions::default(), None, None),
            (HealthOptions::default(), Some(&image), Some(image.clone())),
            (HealthOptions { no_healthcheck: true, ..HealthOptions::default() }, Some(&image), None),
            (HealthOptions { interval: second, ..HealthOptions::default() }, None, None),
            (
                HealthOptions {
                    probe: Some("x".into()),
                    timeout: second,
                    retries: Some(2),
                    ..HealthOptions::default()
                },
                Some(&image),
                Some(
                    json!({"Test": ["CMD-SHELL", "x"], "Interval": 5_000_000, "Timeout": 1_000_000_000, "Retries": 2}),
                ),
            ),
            (HealthOptions::default(), Some(&json!({"Test": ["NONE"]})), None),
            (
                HealthOptions { probe: Some(r#"["CMD","a b"]"#.into()), ..HealthOptions::default() },
                None,
                Some(json!({"Test": ["CMD", "a b"]})),
            ),
            (
                HealthOptions { probe: Some(r#"["a","b"]"#.into()), ..HealthOptions::default() },
                None,
                Some(json!({"Test": ["CMD", "a", "b"]})),
            ),
            (
                HealthOptions { probe: Some("[ -e /x ]".into()), ..HealthOptions::default() },
                None,
                Some(json!({"Test": ["CMD-SHELL", "[ -e /x ]"]})),
            ),
            (HealthOptions { probe: Some(r#"["NONE"]"#.into()), ..HealthOptions::default() }, Some(&image), None),
        ] {
            assert_eq!(health.check(image), want, "{health:?}");
        }
    }
}
