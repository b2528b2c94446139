//! What getopt(3) and docker's parser of options take and clap does not, made plain first: flags with a value
//! (`--rm=true`, `-i=false`), short options with their value attached (`-p8080:80`, `-w=/x`), which clap takes for an
//! operand where operands may begin with a hyphen, and takes no optional value from (`-n/run/netns/web`, `-Tparent`), and a
//! verb behind options that it has, too (`keep --verbose rm web`), which clap takes for the operand of a stage.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command};

/// Returns the command line without values of flags, with each attached value behind its option's long name, and with the
/// verb first, up to the first operand.
pub(crate) fn plain(command: &Command, given: Vec<OsString>) -> Vec<OsString> {
    let is_attached = |text: &str| text.len() > 2 && text.starts_with('-') && !text.starts_with("--");
    let has_value = |text: &str| text.split_once('=').is_some_and(|(_, value)| boolean(value).is_some());
    let is_verb_first = !command.is_args_conflicts_with_subcommands_set();
    let as_is = |text: &str| !is_attached(text) && !has_value(text) && (is_verb_first || !text.starts_with('-'));
    // Nearly every command line: to look options up costs more than to parse what is plain.
    if given.iter().filter_map(|word| word.to_str()).all(as_is) {
        return given;
    }
    let mut command = command;
    let mut before: Vec<Option<&Arg>> = Vec::new();
    let (mut globals, mut verbs) = (Vec::new(), 0);
    let mut arguments = given.into_iter();
    let mut plain: Vec<OsString> = arguments.next().into_iter().collect();
    while let Some(word) = arguments.next() {
        let text = word.to_str().unwrap_or_default();
        let Some(dashless) = text.strip_prefix('-').filter(|rest| !rest.is_empty() && *rest != "-") else {
            let Some(below) = command.find_subcommand(text) else {
                // The first operand, behind which a program's own words may come (`run IMAGE ls -la`): what follows
                // is somebody else's.
                plain.push(word);
                break;
            };
            let has = |arg: &Arg| {
                arg.is_global_set() || arg.get_long().is_some_and(|name| long(below.get_arguments(), name).is_some())
            };
            // A verb is one only if it has all the options before it: `keep --rm list` runs a bundle that is called
            // `list`.
            let moves = !is_verb_first && before.iter().all(|arg| arg.is_some_and(has));
            verbs += 1;
            plain.insert(if moves { verbs } else { plain.len() }, word);
            globals.extend(command.get_arguments().filter(|arg| arg.is_global_set()));
            command = below;
            continue;
        };
        let known = || command.get_arguments().chain(globals.iter().copied());
        let short = |name: char| known().find(|arg| arg.get_short() == Some(name));
        // By its long name and with `=`: clap takes that for a value wherever it stands, and whatever it begins with.
        if let Some((flags, arg, value)) = attached(dashless, short) {
            plain.extend((!flags.is_empty()).then(|| format!("-{flags}").into()));
            plain.push(format!("--{}={value}", arg.get_long().unwrap_or_default()).into());
            before.push(Some(arg));
            continue;
        }
        let (name, value) = dashless.split_once('=').map_or((dashless, None), |(name, value)| (name, Some(value)));
        let arg = match name.strip_prefix('-') {
            Some(name) => long(known(), name),
            None => last_of(name, short),
        };
        before.push(arg);
        match (arg, value.map(boolean)) {
            // `--rm=false` leaves no word: a flag that is not given is false.
            (Some(arg), Some(Some(set))) if is_flag(arg) => plain.extend(set.then(|| format!("-{name}").into())),
            // The value is a word of its own, which may look like a verb or an option: it is not looked at.
            (Some(arg), None) if !is_flag(arg) && needs_next(name, arg) => {
                plain.push(word);
                plain.extend(arguments.next());
            }
            _ => plain.push(word),
        }
    }
    plain.extend(arguments);
    plain
}

fn long<'a>(mut args: impl Iterator<Item = &'a Arg>, name: &str) -> Option<&'a Arg> {
    let is = |arg: &&Arg| {
        arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
    };
    args.find(is)
}

/// Splits a cluster of short options whose last has its value attached: the flags before it, the option, the value.
fn attached<'a, 't>(cluster: &'t str, find: impl Fn(char) -> Option<&'a Arg>) -> Option<(&'t str, &'a Arg, &'t str)> {
    for (index, letter) in cluster.char_indices() {
        let arg = find(letter)?;
        if !is_flag(arg) {
            let value = &cluster[index + letter.len_utf8()..];
            let plain = value.strip_prefix('=').unwrap_or(value);
            // Letters behind one whose value is optional are options too, unless they are a value that it is known to have.
            let may_be =
                || plain.starts_with(['/', ':']) || arg.get_possible_values().iter().any(|v| v.matches(plain, false));
            if is_optional(arg) && !may_be() {
                continue;
            }
            let is_rewritten = !value.is_empty() && arg.get_long().is_some();
            return is_rewritten.then_some((&cluster[..index], arg, plain));
        }
    }
    None
}

/// Returns the option that ends a cluster of short ones: the first that takes a value, or the last.
fn last_of<'a>(cluster: &str, find: impl Fn(char) -> Option<&'a Arg>) -> Option<&'a Arg> {
    let mut last = None;
    for name in cluster.chars() {
        last = Some(find(name)?);
        if last.is_some_and(|arg| !is_flag(arg) && !is_optional(arg)) {
            break;
        }
    }
    last
}

/// Tells whether an option's value is the next word; a short one may have it behind its letter.
fn needs_next(name: &str, arg: &Arg) -> bool {
    !is_optional(arg) && (name.starts_with('-') || name.chars().last() == arg.get_short())
}

fn is_optional(arg: &Arg) -> bool {
    arg.get_num_args().is_some_and(|count| count.min_values() == 0)
}

pub(crate) fn is_flag(arg: &Arg) -> bool {
    !matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
}

/// Parses a word as Go's `strconv.ParseBool` does.
///
/// `None` for all other words: `yes` and `on` are none of Go's.
pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
        let value = |name: &'static str| Arg::new(name).long(name).action(ArgAction::Append);
        let run = Command::new("run").args([
            flag("rm"),
            flag("init"),
            flag("privileged"),
            flag("detach").short('d'),
            flag("interactive").short('i'),
            flag("tty").short('t'),
            value("env").short('e'),
            value("publish").short('p'),
            value("volume").short('v'),
            value("workdir").short('w'),
            value("user").short('u'),
            value("memory").short('m'),
            value("name"),
            Arg::new("mount").long("mount").short('M').num_args(0..=1).require_equals(true),
            Arg::new("tree").long("tree").short('T').num_args(0..=1).value_parser(["parent"]),
            Arg::new("sig-proxy").long("sig-proxy").action(ArgAction::Set).num_args(0..=1).require_equals(true),
        ]);
        run.clone().subcommand(run.name("exec"))
    }

    fn words(command: &Command, line: &str) -> String {
        let words = std::iter::once("run").chain(line.split(' ')).map(OsString::from);
        let got: Vec<String> =
            plain(command, words.collect()).into_iter().skip(1).map(|word| word.into_string().unwrap()).collect();
        got.join(" ")
    }

    #[test]
    fn a_verb_comes_before_the_options_that_it_has() {
        let verbose = Arg::new("verbose").long("verbose").short('v').action(ArgAction::Count).global(true);
        let root = Arg::new("root").long("root").action(ArgAction::Set);
        let keep =
            Command::new("keep").args([verbose, root.clone(), Arg::new("rm").long("rm").action(ArgAction::SetTrue)]);
        let keep = keep.args_conflicts_with_subcommands(true).subcommand(Command::new("logs").arg(root.clone()));
        let project = Arg::new("project").long("project").short('p').action(ArgAction::Set).global(true);
        let keep = keep.arg(project).subcommand(Command::new("exec"));
        let keep = keep.subcommand(Command::new("volume").subcommand(Command::new("ls").arg(root)));
        for (line, want) in [
            ("logs -v web", "logs -v web"),
            ("--verbose logs web", "logs --verbose web"),
            ("-vv --root /r logs web --root=x", "logs -vv --root /r web --root=x"),
            ("--root=/r logs -- web", "logs --root=/r -- web"),
            ("--root logs logs", "logs --root logs"),
            ("volume ls -v", "volume ls -v"),
            ("-v volume ls -v", "volume ls -v -v"),
            ("exec -pshop -v web -pno", "exec --project=shop -v web -pno"),
            ("-v web logs", "-v web logs"),
            ("-v -- logs", "-v -- logs"),
            // What the verb has not is refused by the parser.
            ("-v --rm logs web", "-v --rm logs web"),
            ("--unknown logs web", "--unknown logs web"),
        ] {
            assert_eq!(words(&keep, line), want, "{line}");
        }
    }

    #[test]
    fn flags_and_attached_values_are_plain_before_the_first_operand_only() {
        for (line, want) in [
            ("--rm=true -it nginx", "--rm -it nginx"),
            ("--rm=false -d=1 --init=T nginx", "-d --init nginx"),
            ("--privileged=maybe nginx", "--privileged=maybe nginx"),
            ("-e A=true --env B=false -p 80:80 nginx", "-e A=true --env B=false -p 80:80 nginx"),
            ("-e --rm=true nginx --rm=true", "-e --rm=true nginx --rm=true"),
            ("-itp 80:80 --name=x --tty=false nginx", "-itp 80:80 --name=x nginx"),
            ("-vdata:/x --rm=0 -it=true nginx sh -c --rm=0", "--volume=data:/x -it nginx sh -c --rm=0"),
            ("-itp8080:80 -eA=b -w=/x nginx -p1", "-it --publish=8080:80 --env=A=b --workdir=/x nginx -p1"),
            ("-uroot -m 5m -e -x nginx", "--user=root -m 5m -e -x nginx"),
            ("-xp80 nginx", "-xp80 nginx"),
            ("-M/x -M=:7 -tM/y -Mit nginx -M/z", "--mount=/x --mount=:7 -t --mount=/y -Mit nginx -M/z"),
            ("-Tparent -T=parent -T -Tit nginx", "--tree=parent --tree=parent -T -Tit nginx"),
            ("--sig-proxy=false --sig-proxy nginx", "--sig-proxy=false --sig-proxy nginx"),
            ("--unknown=true --rm=true -- nginx", "--unknown=true --rm -- nginx"),
            ("-i exec -uweb:mail web -e1", "-i exec --user=web:mail web -e1"),
        ] {
            assert_eq!(words(&command(), line), want, "{line}");
        }
    }
}
