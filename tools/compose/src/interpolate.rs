//! Variables in the file's values: compose-spec, 12 (interpolation). `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME-default}`,
//! `${NAME:?error}`, `${NAME?error}`, `${NAME:+other}`, `${NAME+other}`; `$$` is a dollar.

use std::collections::HashMap;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

/// What variables mean.
pub(crate) type Variables = HashMap<String, String>;

/// What a variable means, if anything.
pub(crate) type Meaning<'a> = &'a dyn Fn(&str) -> Option<&'a str>;

/// Replaces the variables in every text of `value`, whose place the errors name; keys stay as they are.
pub(crate) fn interpolate(value: &mut Value, place: &str, variables: &Variables) -> Result<()> {
    match value {
        Value::String(text) if text.contains('$') => {
            let meaning = |name: &str| variables.get(name).map(String::as_str);
            *text = expand(text, &meaning).with_context(|| place.to_owned())?;
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                interpolate(item, &format!("{place}[{index}]"), variables)?;
            }
        }
        Value::Object(members) => {
            // Only values: the specification has no variables in keys, and a key that changed would be another
            // service.
            for (key, member) in members {
                let dot = if place.is_empty() { "" } else { "." };
                interpolate(member, &format!("{place}{dot}{key}"), variables)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Nobody nests defaults deeper.
const MAX_DEPTH: usize = 64;

/// Expands one text.
pub(crate) fn expand(text: &str, meaning: Meaning<'_>) -> Result<String> {
    expand_at(0, text, meaning)
}

fn expand_at(depth: usize, text: &str, meaning: Meaning<'_>) -> Result<String> {
    // Each level is a call: a file that nests without end must be an error and no overflow of the stack.
    ensure!(depth <= MAX_DEPTH, "variables are nested more than {MAX_DEPTH} deep");
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = after.strip_prefix('{') {
            // Braces are counted, because a default may have variables of its own: `${A:-${B}}`.
            let end = closing(after).ok_or_else(|| anyhow!("{text}: ${{ without its }}"))?;
            out.push_str(&braced(depth, &after[..end], meaning)?);
            rest = &after[end + 1..];
        } else {
            let (name, after) = name(after);
            // docker compose keeps a dollar that begins no name: `$(date)`, `$2a$14$…`, the end of a regular expression.
            out.push_str(if name.is_empty() { "$" } else { meaning(name).unwrap_or_default() });
            rest = after;
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// Returns where the brace closes that was open before `text`.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0_u32;
    for (index, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return Some(index),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn name(text: &str) -> (&str, &str) {
    let inside = |(index, c): (usize, char)| c == '_' || c.is_ascii_alphabetic() || (index > 0 && c.is_ascii_digit());
    let end = text.char_indices().find(|at| !inside(*at)).map_or(text.len(), |(index, _)| index);
    text.split_at(end)
}

fn braced(depth: usize, text: &str, meaning: Meaning<'_>) -> Result<String> {
    let (name, rest) = name(text);
    ensure!(!name.is_empty(), "${{{text}}}: no name");
    let value = meaning(name);
    // With a colon an empty variable counts as none.
    let (value, operation) = match rest.strip_prefix(':') {
        Some(operation) => (value.filter(|value| !value.is_empty()), operation),
        None => (value, rest),
    };
    let mut characters = operation.chars();
    match (characters.next(), value) {
        (None, _) if rest.is_empty() => Ok(value.unwrap_or_default().to_owned()),
        (Some('-' | '?'), Some(value)) => Ok(value.to_owned()),
        (Some('-'), None) | (Some('+'), Some(_)) => expand_at(depth + 1, characters.as_str(), meaning),
        (Some('+'), None) => Ok(String::new()),
        (Some('?'), None) => {
            let said = expand_at(depth + 1, characters.as_str(), meaning)?;
            bail!("{name}: {}", if said.is_empty() { "not set" } else { &said })
        }
        _ => bail!("${{{text}}}: not understood"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        [("A", "1"), ("EMPTY", "")].map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    fn expanded(text: &str) -> Result<String> {
        let variables = variables();
        let meaning = |name: &str| variables.get(name).map(String::as_str);
        expand(text, &meaning)
    }

    #[test]
    fn every_form_of_the_specification_is_expanded() {
        for (text, want) in [
            ("$A-${A}", "1-1"),
            ("a$$A", "a$A"),
            ("$NONE.", "."),
            ("${NONE:-x}", "x"),
            ("${EMPTY:-x}${EMPTY-y}", "x"),
            ("${NONE-y}", "y"),
            ("${A:+on}${NONE:+off}${EMPTY+set}", "onset"),
            ("${NONE:-${A}0}", "10"),
            ("${NONE:-a:b}", "a:b"),
            ("${A?no}", "1"),
            ("$(date) $2a$14$A 5$", "$(date) $2a$141 5$"),
        ] {
            assert_eq!(expanded(text).unwrap(), want, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_expanded_is_told() {
        for (text, want) in [
            ("${NONE:?set it}", "NONE: set it"),
            ("${NONE?}", "NONE: not set"),
            ("${A", "${A: ${ without its }"),
            ("${}", "${}: no name"),
            ("${A!x}", "${A!x}: not understood"),
            (&("${N:-".repeat(65) + &"}".repeat(65)), "variables are nested more than 64 deep"),
        ] {
            assert_eq!(expanded(text).unwrap_err().to_string(), want);
        }
    }

    #[test]
    fn texts_are_expanded_wherever_they_stand() {
        let mut value = serde_json::json!({"a": ["$A", 1], "$A": {"b": "${NONE:-x}"}});
        interpolate(&mut value, "", &variables()).unwrap();
        assert_eq!(value, serde_json::json!({"a": ["1", 1], "$A": {"b": "x"}}));
        let mut value = serde_json::json!({"a": [{"b": "${"}]});
        let error = interpolate(&mut value, "", &variables()).unwrap_err();
        assert_eq!(format!("{error:#}"), "a[0].b: ${: ${ without its }");
    }
}
