//! Words of an instruction: quotes, backslashes, and variables of the image's environment (Dockerfile reference,
//! "Environment replacement").

use std::iter::Peekable;
use std::str::Chars;

/// Variables and their values, in the order of the image's config.
pub(super) type Environment = [(String, String)];

/// A text that is read word by word.
pub(super) struct Words<'a> {
    rest: Peekable<Chars<'a>>,
    environment: &'a Environment,
}

impl<'a> Words<'a> {
    pub(super) fn new(text: &'a str, environment: &'a Environment) -> Self {
        Self { rest: text.chars().peekable(), environment }
    }

    /// Reads up to a blank outside of quotes.
    fn next(&mut self) -> Option<Result<String, String>> {
        while self.rest.next_if(|character| character.is_whitespace()).is_some() {}
        self.rest.peek()?;
        Some(self.read(char::is_whitespace))
    }

    /// Reads the next pair, whose `=` is in no variable.
    fn pair(&mut self) -> Option<Result<(String, String), String>> {
        while self.rest.next_if(|character| character.is_whitespace()).is_some() {}
        self.rest.peek()?;
        let name = self.read(|character| character == '=' || character.is_whitespace());
        Some(name.and_then(|name| {
            if name.is_empty() || self.rest.next_if_eq(&'=').is_none() {
                return Err(format!("{name:?}: every word must be NAME=VALUE"));
            }
            Ok((name, self.read(char::is_whitespace)?))
        }))
    }

    /// Reads up to a character outside of quotes that is the `end`, which stays.
    fn read(&mut self, end: fn(char) -> bool) -> Result<String, String> {
        let mut word = String::new();
        let mut quote = None;
        while let Some(character) = self.rest.next_if(|next| quote.is_some() || !end(*next)) {
            match (character, quote) {
                ('\'' | '"', None) => quote = Some(character),
                (character, Some(open)) if character == open => quote = None,
                (character, Some('\'')) => word.push(character),
                // Outside of quotes a backslash takes the next character as it is, whatever it is; inside of double
                // quotes only those that mean something there.
                ('\\', None) => word.extend(self.rest.next()),
                ('\\', Some(_)) => {
                    word.push(self.rest.next_if(|next| matches!(next, '"' | '$' | '\\')).unwrap_or('\\'));
                }
                ('$', _) => word += &self.variable()?,
                (character, _) => word.push(character),
            }
        }
        quote.map_or(Ok(word), |open| Err(format!("a quote {open} has no end")))
    }

    /// Reads a variable behind its dollar and returns its value; one that is not set is empty.
    fn variable(&mut self) -> Result<String, String> {
        let braced = self.rest.next_if_eq(&'{').is_some();
        let mut name = String::new();
        while let Some(character) = self.rest.next_if(|next| next.is_ascii_alphanumeric() || *next == '_') {
            name.push(character);
        }
        let found = self.environment.iter().find(|(present, _)| *present == name);
        let mut value = found.map(|(_, value)| value.clone()).unwrap_or_default();
        if !braced {
            return Ok(if name.is_empty() { "$".to_owned() } else { value });
        }
        if self.rest.next_if_eq(&':').is_some() {
            let stands_where_empty = match self.rest.next() {
                Some('-') => true,
                Some('+') => false,
                _ => return Err(format!("${{{name}: wants - or + behind its colon")),
            };
            let other = self.read(|character| character == '}')?;
            if value.is_empty() == stands_where_empty {
                value = other;
            }
        }
        if name.is_empty() || self.rest.next() != Some('}') {
            return Err(format!("${{{name} has no name or no closing brace"));
        }
        Ok(value)
    }
}

/// Splits at blanks outside of quotes.
pub(super) fn split(text: &str, environment: &Environment) -> Result<Vec<String>, String> {
    let mut words = Words::new(text, environment);
    std::iter::from_fn(|| words.next()).collect()
}

/// Splits `NAME=VALUE …`.
pub(super) fn pairs(text: &str, environment: &Environment) -> Result<Vec<(String, String)>, String> {
    let mut words = Words::new(text, environment);
    std::iter::from_fn(|| words.pair()).collect()
}

/// Takes the whole text as one word.
pub(super) fn whole(text: &str, environment: &Environment) -> Result<String, String> {
    Words::new(text, environment).read(|_| false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_a_dockerfile_has_them() {
        let environment = [("A".to_owned(), "1".to_owned()), ("E".to_owned(), String::new())];
        for (text, want) in [
            ("a  b\tc", &["a", "b", "c"][..]),
            (r#"'a b' "c d"e"#, &["a b", "c de"]),
            (r#"a\ b "\"\$A\n" '\$A'"#, &["a b", r#""$A\n"#, r"\$A"]),
            ("$A ${A}b '$A' \"$A\"", &["1", "1b", "$A", "1"]),
            ("${E:-x y} ${A:-x} ${E:+x} ${A:+$A$A}", &["x y", "1", "", "11"]),
            ("$ $- $N", &["$", "$-", ""]),
            ("'' \"\"", &["", ""]),
        ] {
            assert_eq!(split(text, &environment).unwrap(), want, "{text}");
        }
        assert!(split("${A:?no}", &environment).is_err());
        assert_eq!(whole("a  b c", &[]).unwrap(), "a  b c");
    }
}
