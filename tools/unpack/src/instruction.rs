//! `--change`: instructions of a Dockerfile that change an image's config, as `docker commit --change` takes them
//! (Dockerfile reference, "CMD" and so on; image-spec, config.md, "config").

mod words;

use std::str::FromStr;

use serde_json::{Map, Value, json};

use self::words::{Environment, pairs, split, whole};

/// Ports that one range of EXPOSE may name.
const RANGE: u16 = 1024;
/// Those that change a config.
const KEYWORDS: &str = "CMD ENTRYPOINT ENV EXPOSE LABEL STOPSIGNAL USER VOLUME WORKDIR";

/// One instruction: its keyword, and what stands behind it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Instruction {
    keyword: String,
    text: String,
}

impl FromStr for Instruction {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (keyword, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let keyword = keyword.to_ascii_uppercase();
        if !KEYWORDS.split(' ').any(|known| known == keyword) {
            return Err(format!("{keyword} is not one of {KEYWORDS}"));
        }
        if rest.trim().is_empty() {
            return Err(format!("{keyword:?} needs a value"));
        }
        let instruction = Self { keyword, text: rest.trim().to_owned() };
        // What an image's variables decide is told when they are known; that a word has no end is told now.
        match instruction.apply(&mut Map::new()) {
            Err(_) if rest.contains('$') => split(rest, &[]).map(|_| instruction),
            applied => applied.map(|()| instruction),
        }
    }
}

impl Instruction {
    /// Changes the `config` member of an image's config, instruction by instruction.
    pub(crate) fn apply_all(instructions: &[Self], config: &mut Map<String, Value>) -> Result<(), String> {
        let mut has_command = false;
        for instruction in instructions {
            has_command |= instruction.keyword == "CMD";
            // The old command was the old entrypoint's arguments.
            if instruction.keyword == "ENTRYPOINT" && !has_command {
                config.shift_remove("Cmd");
            }
            instruction.apply(config)?;
        }
        Ok(())
    }

    fn apply(&self, config: &mut Map<String, Value>) -> Result<(), String> {
        let mut variables = environment(config);
        let text = &*self.text;
        match &*self.keyword {
            "CMD" => insert(config, "Cmd", command(text, config)),
            "ENTRYPOINT" => insert(config, "Entrypoint", command(text, config)),
            "ENV" => {
                for (name, value) in assignments(text, &variables)? {
                    match variables.iter_mut().find(|(present, _)| *present == name) {
                        Some(present) => present.1 = value,
                        None => variables.push((name, value)),
                    }
                }
                let lines: Vec<String> = variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
                insert(config, "Env", json!(lines));
            }
            "EXPOSE" => {
                for word in split(text, &variables)? {
                    for port in ports(&word)? {
                        object(config, "ExposedPorts").insert(port, json!({}));
                    }
                }
            }
            "LABEL" => {
                for (name, value) in assignments(text, &variables)? {
                    object(config, "Labels").insert(name, json!(value));
                }
            }
            "STOPSIGNAL" => insert(config, "StopSignal", json!(signal(&one(text, &variables)?)?)),
            "USER" => insert(config, "User", json!(one(text, &variables)?)),
            "VOLUME" => {
                for path in list(text).map_or_else(|| split(text, &variables), Ok)? {
                    object(config, "Volumes").insert(path, json!({}));
                }
            }
            _ => {
                let present = config.get("WorkingDir").and_then(Value::as_str).unwrap_or_default();
                insert(config, "WorkingDir", json!(directory(present, &whole(text, &variables)?)));
            }
        }
        Ok(())
    }
}

fn insert(config: &mut Map<String, Value>, member: &str, value: Value) {
    config.insert(member.to_owned(), value);
}

/// A JSON list of strings is the command line; anything else is for the shell, as it stands.
fn command(text: &str, config: &Map<String, Value>) -> Value {
    if let Some(words) = list(text) {
        return json!(words);
    }
    // The image's `SHELL`, which docker keeps in its config, an extension of the image-spec.
    let shell = config.get("Shell").and_then(Value::as_array).filter(|shell| !shell.is_empty());
    let mut words = shell.cloned().unwrap_or_else(|| vec![json!("/bin/sh"), json!("-c")]);
    words.push(json!(text));
    Value::Array(words)
}

fn list(text: &str) -> Option<Vec<String>> {
    serde_json::from_str(text).ok()
}

fn one(text: &str, environment: &Environment) -> Result<String, String> {
    let words = <[String; 1]>::try_from(split(text, environment)?);
    words.map(|[word]| word).map_err(|_| format!("{text:?} is not one word"))
}

/// `NAME=VALUE …`, or the old form `NAME VALUE`, in which the value is all of the rest.
fn assignments(text: &str, environment: &Environment) -> Result<Vec<(String, String)>, String> {
    let (first, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    match (first.contains('='), rest.trim()) {
        (true, _) => pairs(text, environment),
        (false, "") => Err(format!("{text:?} has no value: NAME=VALUE")),
        (false, value) => Ok(vec![(first.to_owned(), whole(value, environment)?)]),
    }
}

fn environment(config: &Map<String, Value>) -> Vec<(String, String)> {
    let lines = config.get("Env").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let pair = |line: &str| {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        (name.to_owned(), value.to_owned())
    };
    lines.iter().filter_map(Value::as_str).map(pair).collect()
}

fn object<'a>(config: &'a mut Map<String, Value>, member: &str) -> &'a mut Map<String, Value> {
    let value = config.entry(member).or_insert_with(|| json!({}));
    if !value.is_object() {
        *value = json!({});
    }
    match value {
        Value::Object(object) => object,
        _ => unreachable!("it has just been made one"),
    }
}

/// Returns `PORT/PROTOCOL` for each port of `PORT[-PORT][/PROTOCOL]`.
fn ports(text: &str) -> Result<Vec<String>, String> {
    let wrong = || format!("{text:?} is not a port: PORT[-PORT][/tcp|udp|sctp]");
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(wrong());
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong);
    let (first, last) = (number(first)?, number(last)?);
    // Each port is a member of the config: a range of all would make one of a megabyte.
    if first > last || last - first >= RANGE {
        return Err(wrong());
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

fn signal(text: &str) -> Result<String, String> {
    let name = text.to_ascii_uppercase();
    let named = name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"+-".contains(&byte))
        && name.bytes().next().is_some_and(|byte| byte.is_ascii_uppercase());
    if named || text.parse::<u8>().is_ok_and(|number| (1..=64).contains(&number)) {
        return Ok(name);
    }
    Err(format!("{text:?} is not a signal"))
}

/// Resolves a working directory against the present one, by name.
fn directory(present: &str, path: &str) -> String {
    let start = if path.starts_with('/') { "" } else { present };
    format!("/{}", root::clean(format!("{start}/{path}")).display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(instructions: &[&str]) -> Value {
        let mut config = json!({
            "Cmd": ["old"], "Env": ["PATH=/bin", "A=1"], "WorkingDir": "/srv", "Labels": null, "Other": 7
        });
        let instructions: Vec<Instruction> = instructions.iter().map(|text| text.parse().unwrap()).collect();
        Instruction::apply_all(&instructions, config.as_object_mut().unwrap()).unwrap();
        config
    }

    #[test]
    fn instructions_change_what_docker_commit_changes() {
        for (instructions, member, want) in [
            (&[r#"CMD ["a", "b c"]"#][..], "Cmd", json!(["a", "b c"])),
            (&["cmd a $A 'b'"], "Cmd", json!(["/bin/sh", "-c", "a $A 'b'"])),
            (&[r#"ENTRYPOINT ["e"]"#], "Cmd", Value::Null),
            (&[r#"CMD ["a"]"#, r#"ENTRYPOINT ["e"]"#], "Cmd", json!(["a"])),
            (&[r#"ENTRYPOINT ["e"]"#], "Entrypoint", json!(["e"])),
            (&["ENV A=2 B='x y' C=\"$A-${NO:-none}\""], "Env", json!(["PATH=/bin", "A=2", "B=x y", "C=1-none"])),
            (&["ENV A 2 and  3"], "Env", json!(["PATH=/bin", "A=2 and  3"])),
            (&["ENV A=2", "ENV B=$A"], "Env", json!(["PATH=/bin", "A=2", "B=2"])),
            (
                &["EXPOSE 80 53/UDP 90-91"],
                "ExposedPorts",
                json!({"80/tcp": {}, "53/udp": {}, "90/tcp": {}, "91/tcp": {}}),
            ),
            (&["LABEL a.b=c \"d e\"=f"], "Labels", json!({"a.b": "c", "d e": "f"})),
            (&["STOPSIGNAL sigquit"], "StopSignal", json!("SIGQUIT")),
            (&["USER web:www"], "User", json!("web:www")),
            (
                &[r#"VOLUME ["/a", "/b c"]"#, "VOLUME /d /e"],
                "Volumes",
                json!({"/a": {}, "/b c": {}, "/d": {}, "/e": {}}),
            ),
            (&["WORKDIR www/./x/.."], "WorkingDir", json!("/srv/www")),
            (&["WORKDIR /a b", "WORKDIR ../c"], "WorkingDir", json!("/c")),
            (&["USER 1"], "Other", json!(7)),
        ] {
            assert_eq!(applied(instructions)[member], want, "{instructions:?}");
        }
    }

    #[test]
    fn what_is_no_instruction_is_told() {
        for (text, want) in [
            ("RUN true", "RUN is not one of CMD"),
            ("run $A", "RUN is not one of CMD"),
            ("CMD", "\"CMD\" needs a value"),
            ("EXPOSE 0", "\"0\" is not a port"),
            ("EXPOSE 9-8", "\"9-8\" is not a port"),
            ("EXPOSE 1-60000", "is not a port"),
            ("EXPOSE 80/icmp", "is not a port"),
            ("ENV A", "has no value"),
            ("ENV A=1 B", "every word must be NAME=VALUE"),
            ("ENV =1", "every word must be NAME=VALUE"),
            ("LABEL a='b", "quote"),
            ("USER a b", "is not one word"),
            ("ENV A=${B", "brace"),
        ] {
            let error = text.parse::<Instruction>().unwrap_err();
            assert!(error.contains(want), "{text}: {error}");
        }
        let instruction: Instruction = "EXPOSE $PORT".parse().unwrap();
        let mut config = json!({"Env": ["PORT=none"]});
        assert!(Instruction::apply_all(&[instruction], config.as_object_mut().unwrap()).is_err());
    }
}
