//! A value of the file together with where it stands, so that whatever is wrong with it is told by its place:
//! `services.web.ports[1]: ...`.

use std::fmt::Display;
use std::str::FromStr;

use anyhow::{Result, anyhow};
use container::NameError;
use serde_json::Value;

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Node<'a> {
    /// The value itself.
    pub(crate) value: &'a Value,
    /// Keys and indices from the top.
    pub(crate) place: String,
}

impl<'a> Node<'a> {
    /// The whole file.
    pub(crate) fn top(value: &'a Value) -> Self {
        Self { value, place: String::new() }
    }

    /// Makes an error that names the place.
    pub(crate) fn error(&self, what: impl Display) -> anyhow::Error {
        let place = if self.place.is_empty() { "the file" } else { &self.place };
        anyhow!("{place}: {what}")
    }

    /// Returns the member `key`; what is absent or null is none.
    pub(crate) fn get(&self, key: &str) -> Option<Self> {
        let value = self.value.get(key).filter(|value| !value.is_null())?;
        Some(self.below(value, key))
    }

    /// Returns the member of a member, with a dot between the keys.
    pub(crate) fn at(&self, path: &str) -> Option<Self> {
        path.split('.').try_fold(self.clone(), |node, key| node.get(key))
    }

    fn below(&self, value: &'a Value, key: &str) -> Self {
        let dot = if self.place.is_empty() { "" } else { "." };
        Self { value, place: format!("{}{dot}{key}", self.place) }
    }

    /// Returns a name of a kind, or says why it is none.
    pub(crate) fn name<T: FromStr<Err = NameError>>(&self) -> Result<T> {
        self.text()?.parse().map_err(|what| self.error(what))
    }

    /// Returns a scalar as text.
    pub(crate) fn text(&self) -> Result<String> {
        match self.value {
            Value::String(text) => Ok(text.clone()),
            // As Go prints a number that is no integer: 3.0 is 3.
            Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
                Some(float) => Ok(float.to_string()),
                None => Ok(number.to_string()),
            },
            Value::Bool(flag) => Ok(flag.to_string()),
            _ => Err(self.error("a text is expected")),
        }
    }

    /// Returns permissions in octal digits: in YAML they are a number, whose digits were octal.
    pub(crate) fn mode(&self) -> Result<String> {
        // yaml reads `0440` as the number 288: to print it in octal gives back what was written.
        self.value.as_u64().map_or_else(|| self.text(), |mode| Ok(format!("{mode:o}")))
    }

    /// Returns a truth value.
    pub(crate) fn flag(&self) -> Result<bool> {
        match self.text()?.as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(self.error("true or false is expected")),
        }
    }

    /// Returns the items of a sequence.
    pub(crate) fn items(&self) -> Result<Vec<Self>> {
        let items = self.value.as_array().ok_or_else(|| self.error("a list is expected"))?;
        let place = |index| format!("{}[{index}]", self.place);
        Ok(items.iter().enumerate().map(|(index, value)| Self { value, place: place(index) }).collect())
    }

    /// Returns the items of a list, of which one may stand alone.
    pub(crate) fn each(&self) -> Result<Vec<Self>> {
        if self.value.is_array() { self.items() } else { Ok(vec![self.clone()]) }
    }

    /// Returns the members of a mapping.
    pub(crate) fn members(&self) -> Result<Vec<(String, Self)>> {
        let members = self.value.as_object().ok_or_else(|| self.error("a mapping is expected"))?;
        Ok(members.iter().map(|(key, value)| (key.clone(), self.below(value, key))).collect())
    }

    /// Returns the same, or the texts of a list as keys, whose value is what stands there.
    pub(crate) fn named(&self) -> Result<Vec<(String, Self)>> {
        if self.value.is_object() {
            return self.members();
        }
        self.items()?.into_iter().map(|node| Ok((node.text()?, node))).collect()
    }

    /// Returns a list of texts, of which one may stand alone.
    pub(crate) fn texts(&self) -> Result<Vec<String>> {
        self.each()?.iter().map(Self::text).collect()
    }

    /// Returns `KEY=VALUE` lines, which a file has as a list of them or as a mapping; null is a key alone.
    pub(crate) fn pairs(&self, separator: char) -> Result<Vec<String>> {
        if !self.value.is_object() {
            return self.texts();
        }
        let mut pairs = Vec::new();
        for (key, node) in self.members()? {
            if node.value.is_null() {
                pairs.push(key);
            } else {
                // A name may have several addresses.
                pairs.extend(node.texts()?.iter().map(|value| format!("{key}{separator}{value}")));
            }
        }
        Ok(pairs)
    }

    /// Says that it is passed over.
    pub(crate) fn has_no_effect(&self) {
        log::warn!("{}: without effect here", self.place);
    }

    /// Refuses members other than these, between which are blanks; those that begin with `x-` are anybody's: compose-spec, 11.
    pub(crate) fn only(&self, keys: &str) -> Result<()> {
        self.only_or_named(keys, "")
    }

    /// The same; some more are said to have no effect.
    pub(crate) fn only_or_named(&self, keys: &str, without_effect: &str) -> Result<()> {
        let has = |keys: &str, key: &str| keys.split_whitespace().any(|known| known == key);
        for (key, node) in self.members()? {
            // Refused is what would change the container; what only describes it is passed over with a word.
            if has(without_effect, &key) {
                node.has_no_effect();
            } else if !key.starts_with("x-") && !has(keys, &key) {
                return Err(node.error("not supported"));
            }
        }
        Ok(())
    }
}
