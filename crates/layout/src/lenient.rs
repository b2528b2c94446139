//! JSON as Go's encoding/json reads it, since Go programs write nearly all images and read all of them: null is as good
//! as nothing, names match whatever their case, what is missing is empty, one word may stand for a list of words.
//! `oci-spec`'s types are stricter, so documents come through here before they become one of those.

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// What a member holds.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// Whatever the type says.
    Any,
    /// A list of words; a single word is a list, too (docker's `strslice`).
    Words,
    /// Words by words.
    Texts,
    /// Words that mean something by being there: Go's `map[string]struct{}`.
    Set,
    /// Members of its own.
    Object(&'static [Member]),
    /// Such objects.
    List(&'static [Member]),
    /// A platform, of which a nameless one is none.
    Platform,
    /// Descriptors; what is none is left out and spoils no other.
    Entries,
}

/// Members of an object that are alike: their usual names, what they hold, and what they are where
/// they are missing and must not be.
#[derive(Clone, Copy, Debug)]
pub struct Member(pub &'static [&'static str], pub Shape, pub Option<Empty>);

/// What is as good as nothing.
#[derive(Clone, Copy, Debug)]
pub enum Empty {
    /// An empty word.
    Word,
    /// A number.
    Number(u64),
    /// An empty list.
    List,
    /// An object of which all is missing.
    Object,
}

/// A type that Go programs write.
pub trait Lenient: DeserializeOwned {
    /// Its members. Others are kept as they are.
    const MEMBERS: &'static [Member];
}

/// Makes members that may be missing.
pub const fn any(names: &'static [&'static str]) -> Member {
    Member(names, Shape::Any, None)
}

const fn word(names: &'static [&'static str]) -> Member {
    Member(names, Shape::Any, Some(Empty::Word))
}

const PLATFORM: &[Member] =
    &[word(&["architecture", "os"]), any(&["os.version", "os.features", "variant", "features"])];

const EXECUTION: &[Member] = &[
    any(&["User", "Env", "WorkingDir", "StopSignal", "OnBuild"]),
    Member(&["Entrypoint", "Cmd", "Shell"], Shape::Words, None),
    Member(&["ExposedPorts", "Volumes"], Shape::Set, None),
    Member(&["Labels"], Shape::Texts, None),
    Member(&["Healthcheck"], Shape::Object(HEALTH), None),
];

const HEALTH: &[Member] = &[any(&["Test", "Interval", "Timeout", "StartPeriod", "StartInterval", "Retries"])];

const ROOTFS: &[Member] = &[word(&["type"]), Member(&["diff_ids"], Shape::Any, Some(Empty::List))];

const HISTORY: &[Member] = &[any(&["created", "author", "created_by", "comment", "empty_layer"])];

impl Lenient for Descriptor {
    const MEMBERS: &'static [Member] = &[
        any(&["digest", "urls", "artifactType", "data"]),
        word(&["mediaType"]),
        Member(&["size"], Shape::Any, Some(Empty::Number(0))),
        Member(&["annotations"], Shape::Texts, None),
        Member(&["platform"], Shape::Platform, None),
    ];
}

impl Lenient for ImageManifest {
    const MEMBERS: &'static [Member] = &[
        any(&["mediaType", "artifactType"]),
        Member(&["schemaVersion"], Shape::Any, Some(Empty::Number(2))),
        Member(&["config", "subject"], Shape::Object(Descriptor::MEMBERS), None),
        Member(&["layers"], Shape::List(Descriptor::MEMBERS), Some(Empty::List)),
        Member(&["annotations"], Shape::Texts, None),
    ];
}

impl Lenient for ImageIndex {
    const MEMBERS: &'static [Member] = &[
        any(&["mediaType", "artifactType"]),
        Member(&["schemaVersion"], Shape::Any, Some(Empty::Number(2))),
        Member(&["manifests"], Shape::Entries, Some(Empty::List)),
        Member(&["subject"], Shape::Object(Descriptor::MEMBERS), None),
        Member(&["annotations"], Shape::Texts, None),
    ];
}

impl Lenient for ImageConfiguration {
    const MEMBERS: &'static [Member] = &[
        any(&["created", "author", "os.version", "os.features", "variant"]),
        word(&["architecture", "os"]),
        Member(&["config"], Shape::Object(EXECUTION), None),
        Member(&["rootfs"], Shape::Object(ROOTFS), Some(Empty::Object)),
        Member(&["history"], Shape::List(HISTORY), None),
    ];
}

/// Parses JSON. Bytes and escapes that are no Unicode become U+FFFD.
pub fn parse(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    let text = String::from_utf8_lossy(bytes);
    serde_json::from_str(&text).or_else(|error| match without_surrogates(&text) {
        Some(text) => serde_json::from_str(&text),
        None => Err(error),
    })
}

/// Returns what a document says as the strict type would have it written; other members are kept.
pub fn normal<T: Lenient>(value: Value) -> Value {
    in_form(value, T::MEMBERS)
}

/// Parses a document.
pub fn read<T: Lenient>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_value(normal::<T>(parse(bytes)?))
}

/// Brings the members of an object into the form of its type.
fn in_form(value: Value, wanted: &[Member]) -> Value {
    let Value::Object(mut object) = value else { return value };
    let usual = |key: &str| wanted.iter().flat_map(|member| member.0).find(|name| name.eq_ignore_ascii_case(key));
    if object.keys().any(|key| usual(key).is_some_and(|name| *name != key)) {
        // The later one counts where a name comes twice.
        let named = std::mem::take(&mut object).into_iter();
        object.extend(named.map(|(key, value)| (usual(&key).map_or(key, |name| (*name).to_owned()), value)));
    }
    for (name, shape, empty) in
        wanted.iter().flat_map(|Member(names, shape, empty)| names.iter().map(move |name| (*name, shape, empty)))
    {
        let mut value = object.get_mut(name).map(Value::take).unwrap_or_default();
        if value.is_null() {
            value = match empty {
                None => Value::Null,
                Some(Empty::Word) => json!(""),
                Some(Empty::Number(number)) => json!(number),
                Some(Empty::List) => json!([]),
                Some(Empty::Object) => json!({}),
            };
        }
        match shape.apply(value) {
            Value::Null => drop(object.shift_remove(name)),
            value => drop(object.insert(name.to_owned(), value)),
        }
    }
    Value::Object(object)
}

impl Shape {
    fn apply(self, mut value: Value) -> Value {
        match (self, &mut value) {
            (Self::Words, Value::String(word)) => return json!([word]),
            (Self::Any | Self::Words, Value::Array(list)) => list.retain(|item| !item.is_null()),
            (Self::Texts, Value::Object(texts)) => {
                texts.values_mut().filter(|text| text.is_null()).for_each(|text| *text = json!(""));
            }
            (Self::Set, Value::Object(set)) => set.values_mut().for_each(|item| *item = json!({})),
            (Self::Object(wanted), _) => return in_form(value, wanted),
            (Self::List(wanted), Value::Array(list)) => {
                for item in list {
                    let given = if item.is_null() { json!({}) } else { item.take() };
                    *item = in_form(given, wanted);
                }
            }
            (Self::Platform, _) => {
                let platform = in_form(value, PLATFORM);
                let nameless = platform["os"] == "" && platform["architecture"] == "";
                return if nameless { Value::Null } else { platform };
            }
            (Self::Entries, Value::Array(list)) => list.retain_mut(|entry| {
                *entry = in_form(entry.take(), Descriptor::MEMBERS);
                Descriptor::deserialize(&*entry).is_ok()
            }),
            _ => {}
        }
        value
    }
}

/// Replaces escapes of halves of surrogate pairs; `None` where there are none.
fn without_surrogates(text: &str) -> Option<String> {
    let (mut clean, mut rest, mut found) = (String::with_capacity(text.len()), text, false);
    while let Some(place) = rest.find('\\') {
        let unit = |text: &str| u16::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok();
        let (before, escape) = rest.split_at(place);
        let (length, half) = match (unit(escape), escape.get(6..).and_then(unit)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => (12, false),
            (Some(0xd800..=0xdfff), _) => (6, true),
            _ => (escape.char_indices().nth(2).map_or(escape.len(), |(end, _)| end), false),
        };
        clean.push_str(before);
        clean.push_str(if half { "\u{fffd}" } else { &escape[..length] });
        found |= half;
        rest = &escape[length..];
    }
    clean.push_str(rest);
    found.then_some(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: &str =
        r#""digest":"sha256:6c3c624b58dbbcd3c0dd82b4c53f04194d1247c6eebdaab7c610cf7d66709b3b","mediaType":"a/b""#;

    #[test]
    fn what_go_writes_of_nothing_is_nothing() {
        let empty = r#"{"architecture":"","os":"","rootfs":{"type":"","diff_ids":[]}}"#;
        for (text, want) in [
            ("{}", empty),
            (r#"{"rootfs":null,"config":null,"history":null,"created":null}"#, empty),
            (
                r#"{"rootfs":{"type":"layers","diff_ids":null}}"#,
                r#"{"architecture":"","os":"","rootfs":{"type":"layers","diff_ids":[]}}"#,
            ),
            (
                r#"{"RootFS":{"Diff_IDs":["a"]},"OS":"linux"}"#,
                r#"{"architecture":"","os":"linux","rootfs":{"type":"","diff_ids":["a"]}}"#,
            ),
            (
                r#"{"config":{"Cmd":"a b","Entrypoint":null,"Env":["A=1",null],"Volumes":{"/d":null},"Labels":{"a":null}},"history":[null]}"#,
                r#"{"architecture":"","os":"","config":{"Env":["A=1"],"Cmd":["a b"],"Volumes":{"/d":{}},"Labels":{"a":""}},"rootfs":{"type":"","diff_ids":[]},"history":[{}]}"#,
            ),
        ] {
            let got: ImageConfiguration = read(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"));
            let want: Value = serde_json::from_str(want).unwrap();
            assert_eq!(serde_json::to_value(got).unwrap(), want, "{text}");
        }
    }

    #[test]
    fn an_odd_entry_spoils_only_itself() {
        for (odd, want) in [
            (format!("{{{ENTRY}}}"), 2),
            (format!("{{{ENTRY},\"size\":null,\"platform\":{{}}}}"), 2),
            (format!("{{{ENTRY},\"platform\":{{\"architecture\":\"arm\"}}}}"), 2),
            (format!("{{{ENTRY},\"size\":-1}}"), 1),
            (format!("{{{ENTRY},\"annotations\":{{\"a\":1}}}}"), 1),
            (r#"{"digest":"nothing","size":1}"#.to_owned(), 1),
            ("null".to_owned(), 1),
            ("7".to_owned(), 1),
        ] {
            let index: ImageIndex =
                read(format!("{{\"manifests\":[{odd},{{{ENTRY},\"size\":1}}]}}").as_bytes()).unwrap();
            assert_eq!(index.manifests().len(), want, "{odd}");
            assert!(index.manifests()[0].platform().as_ref().is_none_or(|one| one.os().to_string().is_empty()));
        }
        assert!(read::<ImageManifest>(format!("{{\"config\":{{{ENTRY}}},\"layers\":[{{}}]}}").as_bytes()).is_err());
        assert_eq!(
            read::<ImageManifest>(format!("{{\"config\":{{{ENTRY}}},\"layers\":null}}").as_bytes()).unwrap().layers(),
            &[]
        );
    }

    #[test]
    fn what_is_no_unicode_is_replaced() {
        for (bytes, want) in [
            (&b"\"Jos\xe9\""[..], "Jos\u{fffd}"),
            (br#""a\ud83dx""#, "a\u{fffd}x"),
            (br#""\ud83d\ude00\n\\ud83d\u00e9""#, "\u{1f600}\n\\ud83d\u{e9}"),
            (br#""\\\udc00""#, "\\\u{fffd}"),
        ] {
            assert_eq!(parse(bytes).unwrap(), want);
        }
        assert!(parse(br#"{"a":"\ud83d""#).is_err());
    }
}
