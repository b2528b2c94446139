//! Words of an instruction: quotes, backslashes, and variables of the image's environment (Dockerfile reference,
//! "Environment replacement").

use std::iter::Peekable;
use std::str::Chars;

/// Text with variables in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Word(Vec<Piece>);

#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Text(String),
    /// With what stands for it: where it is empty (`:-`), or where it is not (`:+`).
    Variable {
        name: String,
        otherwise: Option<(Case, Word)>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Case {
    Empty,
    Filled,
}

impl Word {
    pub(super) fn literal(text: String) -> Self {
        Self(vec![Piece::Text(text)])
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|piece| matches!(piece, Piece::Text(text) if text.is_empty()))
    }

    /// Returns the text of a word without variables.
    pub(super) fn plain(&self) -> Option<String> {
        self.0.iter().all(|piece| matches!(piece, Piece::Text(_))).then(|| self.text(&[]))
    }

    /// Puts the variables' values in. One that is not set is empty.
    pub(super) fn text(&self, environment: &[(String, String)]) -> String {
        let value = |name: &str| {
            environment.iter().find(|(present, _)| present == name).map(|(_, value)| value.clone()).unwrap_or_default()
        };
        self.0
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => text.clone(),
                Piece::Variable { name, otherwise: None } => value(name),
                Piece::Variable { name, otherwise: Some((case, word)) } => match (case, value(name)) {
                    (Case::Empty, value) if !value.is_empty() => value,
                    (Case::Filled, value) if value.is_empty() => value,
                    _ => word.text(environment),
                },
            })
            .collect()
    }

    /// Splits at the first `=` that is in no variable.
    pub(super) fn split_at_equals(mut self) -> Option<(Self, Self)> {
        let place = self.0.iter().position(|piece| matches!(piece, Piece::Text(text) if text.contains('=')))?;
        let mut rest = self.0.split_off(place);
        let Piece::Text(text) = rest.remove(0) else { return None };
        let (before, after) = text.split_once('=')?;
        self.0.push(Piece::Text(before.to_owned()));
        rest.insert(0, Piece::Text(after.to_owned()));
        Some((self, Self(rest)))
    }

    fn push(&mut self, character: char) {
        match self.0.last_mut() {
            Some(Piece::Text(text)) => text.push(character),
            _ => self.0.push(Piece::Text(character.into())),
        }
    }
}

/// Splits at blanks outside of quotes.
pub(super) fn split(text: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut rest = text.chars().peekable();
    loop {
        while rest.next_if(|character| character.is_whitespace()).is_some() {}
        if rest.peek().is_none() {
            return Ok(words);
        }
        words.push(read(&mut rest, char::is_whitespace)?);
    }
}

/// Takes the whole text as one word.
pub(super) fn whole(text: &str) -> Result<Word, String> {
    read(&mut text.chars().peekable(), |_| false)
}

/// Reads up to a character outside of quotes that is the `end`, which stays.
fn read(rest: &mut Peekable<Chars<'_>>, end: fn(char) -> bool) -> Result<Word, String> {
    // A word of two quotes is empty, but a word.
    let mut word = Word::literal(String::new());
    let mut quote = None;
    while let Some(&character) = rest.peek() {
        if quote.is_none() && end(character) {
            break;
        }
        rest.next();
        match (character, quote) {
            ('\'' | '"', None) => quote = Some(character),
            (character, Some(open)) if character == open => quote = None,
            (character, Some('\'')) => word.push(character),
            ('\\', None) => rest.next().into_iter().for_each(|character| word.push(character)),
            ('\\', Some(_)) => match rest.next_if(|next| matches!(next, '"' | '$' | '\\')) {
                Some(escaped) => word.push(escaped),
                None => word.push('\\'),
            },
            ('$', _) => variable(rest, &mut word)?,
            (character, _) => word.push(character),
        }
    }
    match quote {
        Some(open) => Err(format!("a quote {open} has no end")),
        None => Ok(word),
    }
}

fn variable(rest: &mut Peekable<Chars<'_>>, word: &mut Word) -> Result<(), String> {
    let braced = rest.next_if_eq(&'{').is_some();
    let mut name = String::new();
    while let Some(character) = rest.next_if(|next| next.is_ascii_alphanumeric() || *next == '_') {
        name.push(character);
    }
    if !braced {
        if name.is_empty() {
            word.push('$');
        } else {
            word.0.push(Piece::Variable { name, otherwise: None });
        }
        return Ok(());
    }
    let mut otherwise = None;
    if rest.next_if_eq(&':').is_some() {
        let case = match rest.next() {
            Some('-') => Case::Empty,
            Some('+') => Case::Filled,
            _ => return Err(format!("${{{name}: wants - or + behind its colon")),
        };
        otherwise = Some((case, read(rest, |character| character == '}')?));
    }
    if name.is_empty() || rest.next() != Some('}') {
        return Err(format!("${{{name} has no name or no closing brace"));
    }
    word.0.push(Piece::Variable { name, otherwise });
    Ok(())
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
            let words: Vec<String> = split(text).unwrap().iter().map(|word| word.text(&environment)).collect();
            assert_eq!(words, want, "{text}");
        }
        assert!(split("${A:?no}").is_err());
        assert_eq!(whole("a  b c").unwrap().text(&[]), "a  b c");
    }
}
