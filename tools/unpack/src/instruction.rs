//! `--change`: instructions of a Dockerfile that change an image's config, as `docker commit --change` takes them
//! (Dockerfile reference, "CMD" and so on; image-spec, config.md, "config").

mod words;

use std::str::FromStr;

use serde_json::{Map, Value, json};

use self::words::Word;

/// Ports that one range of EXPOSE may name.
const RANGE: u16 = 1024;

/// One instruction.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Instruction {
    /// A command line, or a text for the shell.
    Cmd(Command),
    Entrypoint(Command),
    Env(Vec<(Word, Word)>),
    Expose(Vec<Word>),
    Label(Vec<(Word, Word)>),
    StopSignal(Word),
    User(Word),
    Volume(Vec<Word>),
    Workdir(Word),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Command {
    Exec(Vec<String>),
    Shell(String),
}

impl FromStr for Instruction {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (keyword, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = rest.trim();
        if rest.is_empty() {
            return Err(format!("{keyword:?} needs something behind it"));
        }
        Ok(match keyword.to_ascii_uppercase().as_str() {
            "CMD" => Self::Cmd(Command::parse(rest)),
            "ENTRYPOINT" => Self::Entrypoint(Command::parse(rest)),
            "ENV" => Self::Env(pairs(rest)?),
            "EXPOSE" => {
                let words = words::split(rest)?;
                // Those without a variable can be told wrong right now.
                words.iter().filter_map(Word::plain).try_for_each(|port| ports(&port).map(drop))?;
                Self::Expose(words)
            }
            "LABEL" => Self::Label(pairs(rest)?),
            "STOPSIGNAL" => Self::StopSignal(one(rest)?),
            "USER" => Self::User(one(rest)?),
            "VOLUME" => Self::Volume(match list(rest) {
                Some(paths) => paths.into_iter().map(Word::literal).collect(),
                None => words::split(rest)?,
            }),
            "WORKDIR" => Self::Workdir(words::whole(rest)?),
            other => {
                return Err(format!(
                    "{other} is none of CMD ENTRYPOINT ENV EXPOSE LABEL STOPSIGNAL USER VOLUME WORKDIR"
                ));
            }
        })
    }
}

impl Instruction {
    /// Changes the `config` member of an image's config, instruction by instruction.
    pub(crate) fn apply_all(instructions: &[Self], config: &mut Map<String, Value>) -> Result<(), String> {
        let mut has_command = false;
        for instruction in instructions {
            has_command |= matches!(instruction, Self::Cmd(_));
            // The old command was the old entrypoint's arguments.
            if matches!(instruction, Self::Entrypoint(_)) && !has_command {
                config.shift_remove("Cmd");
            }
            instruction.apply(config)?;
        }
        Ok(())
    }

    fn apply(&self, config: &mut Map<String, Value>) -> Result<(), String> {
        let environment = environment(config);
        let text = |word: &Word| word.text(&environment);
        match self {
            Self::Cmd(command) => drop(config.insert("Cmd".to_owned(), command.to_json(config))),
            Self::Entrypoint(command) => drop(config.insert("Entrypoint".to_owned(), command.to_json(config))),
            Self::Env(pairs) => {
                let mut variables = environment.clone();
                for (name, value) in pairs {
                    let (name, value) = (text(name), text(value));
                    match variables.iter_mut().find(|(present, _)| *present == name) {
                        Some(present) => present.1 = value,
                        None => variables.push((name, value)),
                    }
                }
                let lines: Vec<String> = variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
                config.insert("Env".to_owned(), json!(lines));
            }
            Self::Expose(words) => {
                for word in words {
                    for port in ports(&text(word))? {
                        object(config, "ExposedPorts").insert(port, json!({}));
                    }
                }
            }
            Self::Label(pairs) => {
                for (name, value) in pairs {
                    object(config, "Labels").insert(text(name), json!(text(value)));
                }
            }
            Self::StopSignal(word) => drop(config.insert("StopSignal".to_owned(), json!(signal(&text(word))?))),
            Self::User(word) => drop(config.insert("User".to_owned(), json!(text(word)))),
            Self::Volume(words) => {
                for word in words {
                    object(config, "Volumes").insert(text(word), json!({}));
                }
            }
            Self::Workdir(word) => {
                let present = config.get("WorkingDir").and_then(Value::as_str).unwrap_or_default();
                let path = directory(present, &text(word));
                config.insert("WorkingDir".to_owned(), json!(path));
            }
        }
        Ok(())
    }
}

impl Command {
    /// A JSON list of strings is the command line; anything else is for the shell, as it stands.
    fn parse(text: &str) -> Self {
        list(text).map_or_else(|| Self::Shell(text.to_owned()), Self::Exec)
    }

    fn to_json(&self, config: &Map<String, Value>) -> Value {
        match self {
            Self::Exec(words) => json!(words),
            Self::Shell(text) => {
                let shell = config.get("Shell").and_then(Value::as_array).filter(|shell| !shell.is_empty());
                let mut words = shell.cloned().unwrap_or_else(|| vec![json!("/bin/sh"), json!("-c")]);
                words.push(json!(text));
                Value::Array(words)
            }
        }
    }
}

fn list(text: &str) -> Option<Vec<String>> {
    serde_json::from_str(text).ok()
}

fn one(text: &str) -> Result<Word, String> {
    let mut words = words::split(text)?;
    match (words.pop(), words.is_empty()) {
        (Some(word), true) => Ok(word),
        _ => Err(format!("{text:?} is not one word")),
    }
}

/// `NAME=VALUE …`, or the old form `NAME VALUE`, in which the value is all of the rest.
fn pairs(text: &str) -> Result<Vec<(Word, Word)>, String> {
    let first = text.split_whitespace().next().unwrap_or_default();
    if !first.contains('=') {
        let (name, value) =
            text.split_once(char::is_whitespace).ok_or_else(|| format!("{text:?} has no value: NAME=VALUE"))?;
        return Ok(vec![(Word::literal(name.to_owned()), words::whole(value.trim())?)]);
    }
    let pair = |word: Word| match word.split_at_equals() {
        Some((name, value)) if !name.is_empty() => Ok((name, value)),
        _ => Err(format!("{text:?}: every word must be NAME=VALUE")),
    };
    words::split(text)?.into_iter().map(pair).collect()
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
    let wrong = || format!("{text:?} is no port: PORT[-PORT][/tcp|udp|sctp]");
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(wrong());
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong);
    let (first, last) = (number(first)?, number(last)?);
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
    Err(format!("{text:?} is no signal"))
}

/// Resolves a working directory against the present one, by name.
fn directory(present: &str, path: &str) -> String {
    let start = if path.starts_with('/') { "" } else { present };
    let mut components: Vec<&str> = Vec::new();
    for component in start.split('/').chain(path.split('/')) {
        match component {
            "" | "." => {}
            ".." => drop(components.pop()),
            name => components.push(name),
        }
    }
    format!("/{}", components.join("/"))
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
            ("RUN true", "RUN is none of CMD"),
            ("CMD", "\"CMD\" needs something"),
            ("EXPOSE 0", "\"0\" is no port"),
            ("EXPOSE 9-8", "\"9-8\" is no port"),
            ("EXPOSE 1-60000", "is no port"),
            ("EXPOSE 80/icmp", "is no port"),
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
