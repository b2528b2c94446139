//! Environment variables: the image's, the user's, and those that docker's users count on.

use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use indexmap::IndexMap;

/// What docker gives to images that set no PATH.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// `NAME=VALUE`, or `NAME` alone: the caller's own value, or none where the caller has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) value: Option<String>,
}

impl FromStr for Variable {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, std::env::var(text).ok()),
        };
        if name.is_empty() || name.contains('\0') {
            return Err(format!("`{text}` names no variable"));
        }
        Ok(Self { name: name.to_owned(), value })
    }
}

/// Parses a file of variables by docker's rules: values verbatim, without quoting; a bare name takes the caller's value
/// or is passed over.
pub(crate) fn parse_file(text: &[u8]) -> Result<Vec<Variable>> {
    let text = std::str::from_utf8(text).context("not UTF-8")?;
    let mut variables = Vec::new();
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split('=').next().unwrap_or_default();
        let is_name = !name.is_empty() && !name.contains(char::is_whitespace);
        ensure!(is_name, "line {}: `{name}` is not the name of a variable", number + 1);
        let variable: Variable = line.parse().map_err(anyhow::Error::msg)?;
        if variable.value.is_some() {
            variables.push(variable);
        }
    }
    Ok(variables)
}

/// What the environment is made of beside the image's and the user's variables.
pub(crate) struct Defaults<'a> {
    pub(crate) hostname: &'a str,
    pub(crate) terminal: bool,
    pub(crate) home: &'a str,
}

/// Returns the process's environment. The image's variables keep their order and win over the defaults
/// (conversion.md, "Verbatim Fields", note 1); the user's replace them in place or remove them.
pub(crate) fn environment(defaults: &Defaults<'_>, image: &[String], user: &[Variable]) -> Vec<String> {
    let mut variables = IndexMap::from([("PATH", PATH)]);
    if !defaults.hostname.is_empty() {
        variables.insert("HOSTNAME", defaults.hostname);
    }
    if defaults.terminal {
        variables.insert("TERM", "xterm");
    }
    // An entry without `=` is no variable, and some runtimes refuse the whole config for it.
    variables.extend(image.iter().filter_map(|entry| entry.split_once('=')).filter(|(name, _)| !name.is_empty()));
    for Variable { name, value } in user {
        match value {
            Some(value) => variables.insert(name, value),
            None => variables.shift_remove(name.as_str()),
        };
    }
    // Last, from the account that the program runs as: only where neither the image nor the user has said.
    variables.entry("HOME").or_insert(defaults.home);
    variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(image: &[&str], user: &[&str], terminal: bool) -> Vec<String> {
        let image: Vec<String> = image.iter().map(|&entry| entry.to_owned()).collect();
        let user: Vec<Variable> = user.iter().map(|entry| entry.parse().unwrap()).collect();
        environment(&Defaults { hostname: "web", terminal, home: "/root" }, &image, &user)
    }

    #[test]
    fn the_image_wins_over_defaults_and_the_user_over_the_image() {
        let path = format!("PATH={PATH}");
        let cases: [(&[&str], &[&str], &[&str]); 6] = [
            (&[], &[], &[&path, "HOSTNAME=web", "HOME=/root"]),
            (&["PATH=/bin", "A=1", "B=2"], &[], &["PATH=/bin", "HOSTNAME=web", "A=1", "B=2", "HOME=/root"]),
            (&["A=1", "B=2"], &["A=3", "C=4"], &[&path, "HOSTNAME=web", "A=3", "B=2", "C=4", "HOME=/root"]),
            (&["A=1"], &["A", "HOME=/h"], &[&path, "HOSTNAME=web", "HOME=/h"]),
            (&["broken", "=x", "E="], &["V=a=b"], &[&path, "HOSTNAME=web", "E=", "V=a=b", "HOME=/root"]),
            (&["HOSTNAME=own", "HOME=/i"], &[], &[&path, "HOSTNAME=own", "HOME=/i"]),
        ];
        for (image, user, want) in cases {
            assert_eq!(make(image, user, false), want);
        }
        assert_eq!(make(&[], &[], true)[2], "TERM=xterm");
    }

    #[test]
    fn a_file_of_variables_is_read_verbatim() {
        let text = "\u{feff}# comment\n\n  A=1 # kept\nB=\"quoted\"\nDRAYAGE_SURELY_UNSET\n".as_bytes();
        let variables = parse_file(text).unwrap();
        let want = [("A", "1 # kept"), ("B", "\"quoted\"")];
        assert_eq!(variables.len(), want.len());
        for (variable, (name, value)) in variables.iter().zip(want) {
            assert_eq!((variable.name.as_str(), variable.value.as_deref()), (name, Some(value)));
        }
        for text in ["A B=1", "=1", "\u{1}\u{20}x"] {
            assert!(parse_file(text.as_bytes()).is_err(), "{text:?}");
        }
        assert!(parse_file(b"A=\xff").is_err());
    }
}
