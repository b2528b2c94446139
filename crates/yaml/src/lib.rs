//! A YAML document as a JSON value: YAML 1.2.2 with the core schema (chapter 10.3) and merge keys (`<<`), which files written for
//! YAML 1.1 use. The parser is saphyr's; what stands here is what becomes of its events, with bounds, because files come
//! from anywhere. A value that is tagged `!override` or `!reset` becomes the one member, named [`REPLACES`], of a mapping.
//!
//! ```
//! let value = yaml::read("web: &base {image: nginx}\napi: {<<: *base, ports: ['80']}")?;
//! assert_eq!(value["api"]["image"], "nginx");
//! # Ok::<(), yaml::Error>(())
//! ```

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};
use serde_json::{Map, Number, Value, json};

/// Values that a document may hold, those that aliases repeat counted again.
///
/// A document of 400 bytes can stand for billions of values by aliases of aliases ("billion laughs").
const MOST_VALUES: usize = 100_000;
/// How deep values may stand in each other.
const MOST_DEPTH: usize = 64;

/// Names what is to replace a value, not to be merged with it; null where it is to go.
pub const REPLACES: &str = "!override";

/// What is wrong with a document, and on which line of it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("line {line}: {what}")]
pub struct Error {
    /// Counted from 1.
    pub line: usize,
    /// In words.
    pub what: String,
}

/// How many lines may begin with a bracket that has to be moved to the right.
const MOST_BRACKETS: usize = 1000;

/// Reads the one document of `text`; an empty text is null.
///
/// # Errors
/// What is no YAML, has a second document, a key twice, a key that is no scalar, or more than the bounds allow.
pub fn read(text: &str) -> Result<Value, Error> {
    let mut text = Cow::Borrowed(text);
    let mut last = None;
    for _ in 0..MOST_BRACKETS {
        match read_strictly(&text) {
            // libyaml takes a closing bracket at the column of the key that it belongs to, although YAML 1.2.2, 7.4, asks
            // for one more; saphyr refuses it behind a quoted item. The error tells that the bracket is a token here, not
            // part of a text, so that more blanks before it change nothing.
            Err(error) if last != Some(error.line) => {
                last = Some(error.line);
                match with_bracket_moved(&text, error.line) {
                    Some(moved) => text = Cow::Owned(moved),
                    None => return Err(error),
                }
            }
            read => return read,
        }
    }
    read_strictly(&text)
}

/// Moves the closing bracket that a line begins with to the right; none if it begins with something else.
fn with_bracket_moved(text: &str, line: usize) -> Option<String> {
    let start = text.split_inclusive('\n').take(line.checked_sub(1)?).map(str::len).sum();
    let (before, after) = text.split_at_checked(start)?;
    after.trim_start_matches(' ').starts_with([']', '}']).then(|| format!("{before}  {after}"))
}

fn read_strictly(text: &str) -> Result<Value, Error> {
    let mut loader = Loader { events: Parser::new_from_str(text), anchors: HashMap::new(), values: 0, line: 1 };
    let value = match loader.next()? {
        Event::StreamEnd => return Ok(Value::Null),
        event => loader.value(event, 0)?,
    };
    match loader.next()? {
        Event::StreamEnd => Ok(value),
        _ => Err(loader.error("a second document begins")),
    }
}

struct Loader<'a> {
    events: Parser<'a, saphyr_parser::StrInput<'a>>,
    /// What `&name` stands before, with the number of values in it.
    anchors: HashMap<usize, (Value, usize)>,
    values: usize,
    line: usize,
}

impl<'a> Loader<'a> {
    /// Returns the next event that is content, or the stream's end.
    fn next(&mut self) -> Result<Event<'a>, Error> {
        loop {
            let Some(event) = self.events.next_event() else { return Ok(Event::StreamEnd) };
            let (event, Span { start, .. }) =
                event.map_err(|error| Error { line: error.marker().line(), what: error.info().to_owned() })?;
            self.line = start.line().max(1);
            match event {
                Event::Nothing | Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd => {}
                event => return Ok(event),
            }
        }
    }

    fn error(&self, what: impl Into<String>) -> Error {
        Error { line: self.line, what: what.into() }
    }

    fn value(&mut self, event: Event<'a>, depth: usize) -> Result<Value, Error> {
        if depth > MOST_DEPTH {
            return Err(self.error(format!("more than {MOST_DEPTH} levels")));
        }
        let before = self.values;
        self.count(1)?;
        let own_tag = match &event {
            Event::Scalar(.., tag) | Event::SequenceStart(_, tag) | Event::MappingStart(_, tag) => tag.as_ref(),
            _ => None,
        };
        let own_tag = own_tag.filter(|tag| tag.handle == "!").map(|tag| tag.suffix.clone());
        let (value, anchor) = match event {
            Event::Alias(anchor) => {
                let known = self.anchors.get(&anchor).cloned();
                // An anchor's own value is not known yet while it is read.
                let (value, size) = known.ok_or_else(|| self.error("an alias inside the value that it stands for"))?;
                // What an alias repeats is counted again, since it is copied: JSON has no sharing.
                self.count(size)?;
                return Ok(value);
            }
            Event::Scalar(text, style, anchor, tag) => (self.scalar(&text, style, tag.as_deref())?, anchor),
            Event::SequenceStart(anchor, _) => (self.sequence(depth)?, anchor),
            Event::MappingStart(anchor, _) => (self.mapping(depth)?, anchor),
            event => return Err(self.error(format!("unexpected {event:?}"))),
        };
        let value = match own_tag.as_deref() {
            Some("override") => json!({REPLACES: value}),
            Some("reset") => json!({REPLACES: null}),
            _ => value,
        };
        if anchor > 0 {
            self.anchors.insert(anchor, (value.clone(), self.values - before));
        }
        Ok(value)
    }

    fn count(&mut self, values: usize) -> Result<(), Error> {
        self.values += values;
        if self.values > MOST_VALUES {
            return Err(self.error(format!("more than {MOST_VALUES} values")));
        }
        Ok(())
    }

    fn sequence(&mut self, depth: usize) -> Result<Value, Error> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                Event::SequenceEnd => return Ok(Value::Array(items)),
                event => items.push(self.value(event, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Value, Error> {
        let mut own = Map::new();
        let mut merged = Vec::new();
        loop {
            let key = match self.next()? {
                Event::MappingEnd => break,
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return Err(self.error("a key that is not a scalar")),
            };
            let line = self.line;
            let event = self.next()?;
            let value = self.value(event, depth + 1)?;
            if key == "<<" {
                merged.push((line, value));
            } else if own.insert(key.clone(), value).is_some() {
                return Err(Error { line, what: format!("{key} occurs twice") });
            }
        }
        // After all own keys, wherever `<<` stood: own ones win.
        for (line, value) in merged {
            merge(&mut own, value).map_err(|what| Error { line, what })?;
        }
        Ok(Value::Object(own))
    }

    fn scalar(&self, text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, Error> {
        match tag.filter(|tag| tag.is_yaml_core_schema()).map(|tag| tag.suffix.as_str()) {
            Some("str") => Ok(Value::from(text)),
            None if style != ScalarStyle::Plain => Ok(Value::from(text)),
            None => Ok(plain(text)),
            Some(kind) => {
                let value = plain(text);
                let fits = match kind {
                    "null" => value.is_null(),
                    "bool" => value.is_boolean(),
                    "int" => value.is_i64() || value.is_u64(),
                    "float" => value.is_number(),
                    _ => true,
                };
                if fits { Ok(value) } else { Err(self.error(format!("{text} is no {kind}"))) }
            }
        }
    }
}

/// Adds what `<<` names: own keys win over merged ones, earlier merged ones over later.
fn merge(own: &mut Map<String, Value>, value: Value) -> Result<(), String> {
    match value {
        Value::Object(other) => {
            for (key, value) in other {
                own.entry(key).or_insert(value);
            }
            Ok(())
        }
        Value::Array(others) => others.into_iter().try_for_each(|other| match other {
            Value::Object(_) => merge(own, other),
            _ => Err("<< takes mappings".to_owned()),
        }),
        _ => Err("<< takes a mapping".to_owned()),
    }
}

/// Resolves a plain scalar: YAML 1.2.2, 10.3.2. What JSON has no number for, such as `.inf`, stays text.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    number(text).map_or_else(|| Value::from(text), Value::Number)
}

fn number(text: &str) -> Option<Number> {
    let based = |prefix, radix| text.strip_prefix(prefix).and_then(|digits| unsigned(digits, radix));
    if let Some(number) = based("0x", 16).or_else(|| based("0o", 8)) {
        return Some(number.into());
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        // YAML 1.1's octal numbers, which Go's readers take: a mode, or a mask.
        if let Some(octal) = digits.strip_prefix('0').and_then(|digits| unsigned(digits, 8)) {
            return i64::try_from(octal).ok().map(|octal| if text.starts_with('-') { -octal } else { octal }.into());
        }
        let text = text.strip_prefix('+').unwrap_or(text);
        return text.parse::<i64>().map(Number::from).ok().or_else(|| text.parse::<u64>().map(Number::from).ok());
    }
    let float = digits.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte));
    Number::from_f64(text.parse().ok().filter(|_| float)?)
}

fn unsigned(digits: &str, radix: u32) -> Option<u64> {
    // from_str_radix takes a sign, which the schema has not here.
    digits.starts_with(|c: char| c.is_digit(radix)).then(|| u64::from_str_radix(digits, radix).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closing_bracket_may_stand_at_the_column_of_its_key() {
        for (text, want) in [
            (
                "a:\n  b: [\n    \"x\",\n    'y'\n  ]\n  c: {\n    d: \"e\"\n  }\n",
                json!({"a": {"b": ["x", "y"], "c": {"d": "e"}}}),
            ),
            ("a:\n  b: [\n    x\n  ]\n", json!({"a": {"b": ["x"]}})),
            ("a:\n  b: |\n    x\n    ]\n", json!({"a": {"b": "x\n]\n"}})),
        ] {
            assert_eq!(read(text), Ok(want), "{text}");
        }
        for (text, line) in [("a:\n]\n", 2), ("a:\n  b: [\n    \"x\"\n ]]\n", 4)] {
            assert_eq!(read(text).map_err(|error| error.line), Err(line), "{text}");
        }
    }

    #[test]
    fn scalars_follow_the_core_schema() {
        for (text, want) in [
            ("", Value::Null),
            ("~", Value::Null),
            ("true", json!(true)),
            ("yes", json!("yes")),
            ("'true'", json!("true")),
            ("!!str 8", json!("8")),
            ("8080", json!(8080)),
            ("-1", json!(-1)),
            ("18446744073709551615", json!(u64::MAX)),
            ("0x1F", json!(31)),
            ("0o17", json!(15)),
            ("0755", json!(0o755)),
            ("-010", json!(-8)),
            ("08", json!(8)),
            ("0", json!(0)),
            ("1.5", json!(1.5)),
            ("1e3", json!(1000.0)),
            ("1.2.3", json!("1.2.3")),
            ("22:22", json!("22:22")),
            (".inf", json!(".inf")),
            ("10m", json!("10m")),
            ("\"a\\nb\"", json!("a\nb")),
            ("!override [1]", json!({"!override": [1]})),
            ("!reset 1", json!({"!override": null})),
            ("|\n  a\n  b\n", json!("a\nb\n")),
            (">\n  a\n  b\n", json!("a b\n")),
        ] {
            assert_eq!(read(text).unwrap(), want, "{text}");
        }
    }

    #[test]
    fn keys_keep_their_order_and_are_text() {
        let value = read("b: {x: [1, 2]}\na:\n- y\n- {}\n80: z\n").unwrap();
        assert_eq!(value.to_string(), r#"{"b":{"x":[1,2]},"a":["y",{}],"80":"z"}"#);
    }

    #[test]
    fn aliases_and_merge_keys_repeat_what_they_name() {
        let text = "a: &a {x: 1, y: 2}\nb: &b {y: 3, z: 3}\nc: {<<: [*a, *b], x: 0}\nd: {<<: *b}\ne: *a\n";
        let value = read(text).unwrap();
        assert_eq!(value["c"], json!({"x": 0, "y": 2, "z": 3}));
        assert_eq!(value["d"], json!({"y": 3, "z": 3}));
        assert_eq!(value["e"], json!({"x": 1, "y": 2}));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let laughs = |levels: usize| {
            let line = |level| format!("a{level}: &a{level} [{}]\n", format!("*a{}, ", level - 1).repeat(10));
            "a0: &a0 x\n".to_owned() + &(1..levels).map(line).collect::<String>()
        };
        for (text, line, what) in [
            ("a: 1\na: 2\n".to_owned(), 2, "a occurs twice"),
            ("a: b: c\n".to_owned(), 1, ""),
            ("a: 1\n---\nb: 2\n".to_owned(), 3, "a second document begins"),
            ("a: &x [*x]\n".to_owned(), 1, ""),
            ("<<: 1\n".to_owned(), 1, "<< takes a mapping"),
            ("? [a]\n: b\n".to_owned(), 1, "a key that is not a scalar"),
            ("a: !!int x\n".to_owned(), 1, "x is no int"),
            (laughs(9), 6, "more than 100000 values"),
            ("[".repeat(80), 1, ""),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.line == line && error.what.contains(what), "{text:.60} gave {error}");
        }
    }
}
