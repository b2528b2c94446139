//! The words that fingers know for verbs: docker's and podman's. Other words for a tool's own verbs are taken, and of those
//! that live elsewhere it is said where: a verb is never taken for the name of an image or a directory.

use std::ffi::OsString;

use clap::Command;

use crate::Usage;

/// Words of one meaning.
const SAME: [&[&str]; 3] = [&["rm", "remove", "delete", "del"], &["list", "ls"], &["gc", "prune"]];
/// Where each verb is; of words that are no verb anywhere, what is done instead.
const PLACES: [(&str, &str); 49] = [
    ("attach", "keep attach"),
    ("build", "buildah or buildkit, whose image `pull oci:DIR` takes"),
    ("commit", "unpack commit"),
    ("compose", "compose"),
    ("cp", "bundle cp"),
    ("create", "bundle, and then keep start"),
    ("del", "keep rm"),
    ("delete", "keep rm"),
    ("diff", "unpack diff"),
    ("down", "compose down"),
    ("events", "keep events"),
    ("exec", "spawn exec"),
    ("export", "unpack --flat"),
    ("images", "pull list"),
    ("import", "bundle DIR"),
    ("inspect", "keep inspect"),
    ("kill", "spawn kill"),
    ("list", "keep list"),
    ("load", "pull docker-archive:FILE"),
    ("login", "podman login or skopeo login, whose files `pull` reads"),
    ("logout", "podman logout or skopeo logout"),
    ("logs", "keep logs"),
    ("ls", "keep list"),
    ("network", "ns"),
    ("networks", "ns"),
    ("pause", "spawn pause"),
    ("port", "portmap list"),
    ("ps", "keep list"),
    ("pull", "pull"),
    ("remove", "keep rm"),
    ("rename", "keep rm, and then run --name"),
    ("restart", "keep restart"),
    ("rm", "keep rm"),
    ("rmi", "pull remove"),
    ("run", "run"),
    ("save", "pull --to docker-archive:FILE"),
    ("search", "pull tags"),
    ("start", "keep start"),
    ("stats", "keep stats"),
    ("stop", "keep stop"),
    ("system", "run --gc, bundle prune and pull gc"),
    ("tag", "pull tag"),
    ("top", "keep top"),
    ("unpause", "spawn resume"),
    ("up", "compose up"),
    ("update", "spawn update"),
    ("volume", "a directory below volumes in the directory of all state"),
    ("volumes", "a directory below volumes in the directory of all state"),
    ("wait", "keep wait"),
];

/// Puts a tool's own word for its verb in the place of another.
///
/// # Errors
///
/// The word is a verb, and none of this tool's.
pub(crate) fn own(command: &Command, arguments: &mut [OsString]) -> Result<(), Usage> {
    let Some(word) = arguments.get_mut(1) else { return Ok(()) };
    let Some(text) = word.to_str().filter(|text| text.bytes().all(|byte| byte.is_ascii_lowercase())) else {
        return Ok(());
    };
    let tool = command.get_name();
    if command.find_subcommand(text).is_some() {
        return Ok(());
    }
    if text == "help" {
        if !command.has_subcommands() {
            *word = "--help".into();
        }
        return Ok(());
    }
    let same = SAME.iter().filter(|same| same.contains(&text)).flat_map(|same| same.iter());
    let place = PLACES.iter().find(|(name, _)| *name == text).map(|(_, place)| *place);
    let here = place.and_then(|place| place.strip_prefix(tool)).map(str::trim_start);
    let verb = same.copied().chain(here).find(|name| command.find_subcommand(name).is_some());
    match (verb, place) {
        (Some(verb), _) => *word = verb.into(),
        (None, Some(place)) if !is_peer_s(tool) => {
            return Err(Usage(format!("{text} is no verb of {tool}: it is {} (./{text} is a file)", quoted(place))));
        }
        _ => {}
    }
    Ok(())
}

/// Tells whether this is a tool under a peer's name, whose words are its own.
fn is_peer_s(tool: &str) -> bool {
    matches!(tool, "lsns" | "nsenter")
}

fn quoted(place: &str) -> String {
    if place.contains(['`', ',']) || place.split(' ').count() > 3 { place.to_owned() } else { format!("`{place}`") }
}

/// Returns what may have been meant by a first word that has led to an error: a verb that is almost the same.
pub(crate) fn almost(command: &Command, arguments: &[OsString]) -> Option<String> {
    let word = arguments.get(1)?.to_str().filter(|text| text.bytes().all(|byte| byte.is_ascii_lowercase()))?;
    let verbs = command.get_subcommands().flat_map(Command::get_name_and_visible_aliases);
    let is_near = |verb: &&str| {
        let distance = strsim::osa_distance(verb, word);
        (1..=1 + usize::from(word.len() > 5)).contains(&distance) && word.len() > 2
    };
    verbs.into_iter().find(is_near).map(|verb| format!(" (did you mean `{} {verb}`?)", command.get_name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep() -> Command {
        ["list", "rm", "logs"].into_iter().fold(Command::new("keep"), |keep, verb| keep.subcommand(Command::new(verb)))
    }

    #[test]
    fn other_words_are_taken_and_others_verbs_named() {
        for (tool, word, want) in [
            (keep(), "ps", Ok("list")),
            (keep(), "ls", Ok("list")),
            (keep(), "del", Ok("rm")),
            (keep(), "logs", Ok("logs")),
            (keep(), "./ps", Ok("./ps")),
            (keep(), "help", Ok("help")),
            (keep(), "exec", Err("exec is no verb of keep: it is `spawn exec` (./exec is a file)")),
            (Command::new("run"), "help", Ok("--help")),
            (Command::new("run"), "nginx", Ok("nginx")),
            (Command::new("run"), "ps", Err("ps is no verb of run: it is `keep list` (./ps is a file)")),
            (Command::new("lsns"), "ps", Ok("ps")),
        ] {
            let mut arguments = ["tool", word].map(OsString::from);
            let got = own(&tool, &mut arguments).map(|()| arguments[1].to_str().unwrap()).map_err(|error| error.0);
            assert_eq!(got, want.map_err(str::to_owned), "{} {word}", tool.get_name());
        }
    }

    #[test]
    fn what_was_almost_typed_is_named() {
        for (word, want) in
            [("lsit", Some("list")), ("logz", Some("logs")), ("list", None), ("web", None), ("rn", None)]
        {
            let almost = almost(&keep(), &["keep", word].map(OsString::from));
            assert_eq!(almost, want.map(|verb| format!(" (did you mean `keep {verb}`?)")), "{word}");
        }
    }
}
