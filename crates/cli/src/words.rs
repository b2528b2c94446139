//! The words that fingers know for verbs: docker's and podman's. Other words for a tool's own verbs are taken, and of those
//! that live elsewhere it is said where: a verb is never taken for the name of an image or a directory.

use std::ffi::{OsStr, OsString};

use clap::Command;

use crate::Usage;

/// Words of one meaning.
const SAME: [&[&str]; 3] = [&["rm", "remove", "delete", "del"], &["list", "ls"], &["gc", "prune"]];

/// Returns where a verb is, by the table of the tools, of docker's verbs that they have under docker's names, of the others,
/// and of what is done instead.
fn place(word: &str) -> Option<&'static str> {
    let mut rows = include_str!("words.txt").lines().filter_map(|row| row.split_once(": "));
    rows.find(|(words, _)| words.split(' ').any(|known| known == word)).map(|(_, place)| place)
}

/// Puts a tool's own word for its verb in the place of another.
///
/// # Errors
///
/// The word is a verb, and none of this tool's.
pub(crate) fn own(command: &Command, arguments: &mut [OsString]) -> Result<(), Usage> {
    let Some(word) = arguments.get_mut(1) else { return Ok(()) };
    // Verbs are of small letters alone: an option, a path, an image with a tag is none.
    let Some(text) = word.to_str().filter(|text| text.bytes().all(|byte| byte.is_ascii_lowercase())) else {
        return Ok(());
    };
    let tool = command.get_name();
    if command.find_subcommand(text).is_some() {
        return Ok(());
    }
    if text == "help" {
        // `help VERB` is `VERB --help`.
        let is_verb = |verb: &&OsString| verb.to_str().is_some_and(|verb| command.find_subcommand(verb).is_some());
        if let Some(verb) = arguments.get(2).filter(is_verb).cloned() {
            arguments[1] = verb;
            arguments[2] = "--help".into();
        } else {
            arguments[1] = "--help".into();
        }
        return Ok(());
    }
    let same = SAME.iter().filter(|same| same.contains(&text)).flat_map(|same| same.iter());
    let there = place(text);
    let here = there.and_then(|place| place.strip_prefix(tool)).map(str::trim_start);
    let verb = same.copied().chain(here).find(|name| command.find_subcommand(name).is_some());
    match (verb, there) {
        (Some(verb), _) => *word = verb.into(),
        (None, Some(there)) if place(tool) == Some(tool) => {
            return Err(Usage(format!("{text} is not a verb of {tool}: it is {there} (./{text} is a file)")));
        }
        _ => {}
    }
    Ok(())
}

/// Returns what may have been meant by a first word that has led to an error: a verb that is almost the same.
pub(crate) fn almost(command: &Command, word: &OsStr) -> Option<String> {
    let word = word.to_str().filter(|text| text.bytes().all(|byte| byte.is_ascii_lowercase()))?;
    let word = Some(word).filter(|word| command.find_subcommand(word).is_none())?;
    let verbs = command.get_subcommands().flat_map(Command::get_name_and_visible_aliases);
    let is_near = |verb: &&str| {
        let distance = strsim::osa_distance(verb, word);
        // One letter of a short word, two of a long one. Two letters alone resemble everything.
        (1..=1 + usize::from(word.len() > 5)).contains(&distance) && word.len() > 2
    };
    verbs.into_iter().find(is_near).map(|verb| format!(" (did you mean `{} {verb}`?)", command.get_name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep() -> Command {
        ["list", "rm", "logs", "stop", "top"]
            .into_iter()
            .fold(Command::new("keep"), |keep, verb| keep.subcommand(Command::new(verb)))
    }

    #[test]
    fn other_words_are_taken_and_others_verbs_named() {
        for (tool, word, want) in [
            (keep(), "ps", Ok("list")),
            (keep(), "ls", Ok("list")),
            (keep(), "del", Ok("rm")),
            (keep(), "logs", Ok("logs")),
            (keep(), "./ps", Ok("./ps")),
            (keep(), "help", Ok("--help")),
            (keep(), "exec", Err("exec is not a verb of keep: it is spawn exec (./exec is a file)")),
            (Command::new("run"), "help", Ok("--help")),
            (Command::new("run"), "nginx", Ok("nginx")),
            (Command::new("run"), "ps", Err("ps is not a verb of run: it is keep list (./ps is a file)")),
            (Command::new("lsns"), "ps", Ok("ps")),
        ] {
            let mut arguments = ["tool", word].map(OsString::from);
            let got = own(&tool, &mut arguments).map(|()| arguments[1].to_str().unwrap()).map_err(|error| error.0);
            assert_eq!(got, want.map_err(str::to_owned), "{} {word}", tool.get_name());
        }
    }

    #[test]
    fn what_was_almost_typed_is_named() {
        for (word, want) in [
            ("lsit", Some("list")),
            ("logz", Some("logs")),
            ("list", None),
            ("web", None),
            ("rn", None),
            ("log", Some("logs")),
            ("stop", None),
        ] {
            let almost = almost(&keep(), word.as_ref());
            assert_eq!(almost, want.map(|verb| format!(" (did you mean `keep {verb}`?)")), "{word}");
        }
    }
}
