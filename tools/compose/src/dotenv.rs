//! Files of variables in compose's dialect, which `.env` and `env_file` share: a value may be quoted, may go over lines in
//! quotation marks, and may refer to earlier variables (docs of docker compose, "Syntax for environment files").

use anyhow::{Context, Result, anyhow, ensure};

use crate::interpolate::{Variables, expand};

/// Reads the lines of `text` into `read`, each later value over an earlier one. `$NAME` in a value is a variable of the
/// `outer` ones, or one that an earlier line has set. A name without `=` takes the outer value, if there is one.
pub(crate) fn parse(text: &str, outer: &Variables, read: &mut Variables) -> Result<()> {
    // A byte order mark, which editors on Windows put first: it would become part of the first name.
    let mut rest = text.trim_start_matches('\u{feff}');
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Ok(());
        }
        let line = 1 + text[..text.len() - rest.len()].matches('\n').count();
        rest = statement(rest, outer, read).with_context(|| format!("line {line}"))?;
    }
}

/// Reads one comment or variable, and returns what follows it.
fn statement<'a>(text: &'a str, outer: &Variables, read: &mut Variables) -> Result<&'a str> {
    let of_line = |text: &'a str| text.split_once('\n').unwrap_or((text, ""));
    let text = match text.strip_prefix("export") {
        Some(rest) if rest.starts_with([' ', '\t']) => rest.trim_start_matches([' ', '\t']),
        _ => text,
    };
    let (line, next) = of_line(text);
    if line.starts_with('#') {
        return Ok(next);
    }
    let (name, rest) = text.split_at(text.find(|c: char| !is_of_name(c)).unwrap_or(text.len()));
    ensure!(!name.is_empty(), "{}: not the name of a variable", line.trim_end());
    let rest = rest.trim_start_matches([' ', '\t', '\r']);
    let Some(value) = rest.strip_prefix(['=', ':']) else {
        ensure!(rest.is_empty() || rest.starts_with(['\n', '#']), "{}: no =", line.trim_end());
        if let Some(value) = outer.get(name) {
            read.insert(name.to_owned(), value.clone());
        }
        return Ok(next);
    };
    let value = value.trim_start_matches([' ', '\t']);
    let (value, next) = if let Some(mark @ ('\'' | '"')) = value.chars().next() {
        let (inner, next) = quoted(value, mark).ok_or_else(|| anyhow!("{name}: a quotation mark is not closed"))?;
        (if mark == '"' { expanded(&unescaped(inner), outer, read)? } else { inner.to_owned() }, next)
    } else {
        let (value, next) = of_line(value);
        // A `#` begins a comment only behind a blank: passwords and colours have some.
        let comment = value.match_indices('#').find(|(at, _)| *at == 0 || value[..*at].ends_with([' ', '\t']));
        let value = comment.map_or(value, |(at, _)| &value[..at]).trim_end();
        (expanded(value, outer, read)?, next)
    };
    read.insert(name.to_owned(), value);
    Ok(next)
}

fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '[' | ']')
}

/// Splits a text that begins with a quotation mark behind the mark's partner; a backslash hides one.
fn quoted(text: &str, mark: char) -> Option<(&str, &str)> {
    let inner = &text[1..];
    let ends = |(at, _): &(usize, &str)| !inner[..*at].ends_with('\\');
    let (end, _) = inner.match_indices(mark).find(ends)?;
    Some((&inner[..end], &inner[end + 1..]))
}

/// Replaces the escapes of a value in double quotation marks. A dollar that is escaped stays one for `expand`.
fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match characters.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('a') => out.push('\u{7}'),
            Some('b') => out.push('\u{8}'),
            Some('f') => out.push('\u{c}'),
            Some('v') => out.push('\u{b}'),
            Some('$') => out.push_str("$$"),
            Some(c @ ('"' | '\\')) => out.push(c),
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
    }
    out
}

fn expanded(value: &str, outer: &Variables, read: &Variables) -> Result<String> {
    expand(value, &|name| outer.get(name).or_else(|| read.get(name)).map(String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(String, String)>, String> {
        let outer = Variables::from([("OUT".to_owned(), "o".to_owned())]);
        let mut read = Variables::new();
        parse(text, &outer, &mut read).map_err(|error| format!("{error:#}"))?;
        let mut pairs: Vec<_> = read.into_iter().collect();
        pairs.sort();
        Ok(pairs)
    }

    #[test]
    fn values_are_read_as_docker_compose_reads_them() {
        for (text, want) in [
            ("A=1\n#B=2\n\n export C=3", vec![("A", "1"), ("C", "3")]),
            ("A = x # why\nB=x#y\nC=#\nD=", vec![("A", "x"), ("B", "x#y"), ("C", ""), ("D", "")]),
            ("A=\"x\" # why\nB='y' # why", vec![("A", "x"), ("B", "y")]),
            (
                "A=/srv\nB=${A}/data\nC='$A'\nD=\"$A\"",
                vec![("A", "/srv"), ("B", "/srv/data"), ("C", "$A"), ("D", "/srv")],
            ),
            (r#"A="a\tb\"c\\d\$e\q""#, vec![("A", "a\tb\"c\\d$e\\q")]),
            (r"A='a\tb'", vec![("A", r"a\tb")]),
            ("A=\"-----\nabc\n--\"\nB='1\n2'", vec![("A", "-----\nabc\n--"), ("B", "1\n2")]),
            ("A: yaml\nOUT\nNONE", vec![("A", "yaml"), ("OUT", "o")]),
            ("A=$OUT${NONE:-d}$$\r\n", vec![("A", "od$")]),
            ("\u{feff}A=1\r\nB=a b ", vec![("A", "1"), ("B", "a b")]),
            ("exportA=1\na.b-c=2", vec![("a.b-c", "2"), ("exportA", "1")]),
        ] {
            let want = want.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            assert_eq!(read(text), Ok(want), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_by_its_line() {
        for (text, want) in [
            ("A=1\nB c", "line 2: B c: no ="),
            ("\n\nA=\"x", "line 3: A: a quotation mark is not closed"),
            ("A='x", "line 1: A: a quotation mark is not closed"),
            ("=x", "line 1: =x: not the name of a variable"),
            ("A=${B:?no}", "line 1: B: no"),
        ] {
            assert_eq!(read(text), Err(want.to_owned()), "{text}");
        }
    }
}
