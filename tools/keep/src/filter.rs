//! Which containers are listed.

use std::str::FromStr;

use serde_json::Value;

/// What a container must have to be listed.
#[derive(Clone, Debug)]
pub(crate) enum ContainerFilter {
    /// One member of its row.
    Member(&'static str, String),
    /// A part of its id.
    Name(String),
    /// A label, with that value if one is given.
    Label(String, Option<String>),
}

impl ContainerFilter {
    /// Tells whether a container has that, by its row and its labels.
    pub(crate) fn holds(&self, row: &Value, labels: &Value) -> bool {
        match self {
            Self::Member(member, value) => row[*member] == **value,
            Self::Name(part) => row["id"].as_str().is_some_and(|id| id.contains(part)),
            Self::Label(name, value) => {
                labels.get(name).is_some_and(|label| value.as_ref().is_none_or(|value| label == value))
            }
        }
    }
}

impl FromStr for ContainerFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').filter(|(_, value)| !value.is_empty()).unwrap_or_default();
        let label = || value.split_once('=').map_or((value, None), |(name, value)| (name, Some(value.to_owned())));
        match name {
            "name" => Ok(Self::Name(value.to_owned())),
            "health" => Ok(Self::Member("health", value.to_owned())),
            "status" => Ok(Self::Member("status", value.to_owned())),
            "label" => Ok(Self::Label(label().0.to_owned(), label().1)),
            _ => Err("not health=STATUS, status=STATUS, name=PART or label=NAME[=VALUE]".to_owned()),
        }
    }
}
