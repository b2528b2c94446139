//! What docker's parser of options takes and clap does not, made plain first: flags with a value (`--rm=true`, `-i=false`),
//! and short options with their value attached (`-p8080:80`, `-w=/x`), which clap would take for the image.

use std::ffi::OsString;

use clap::{Arg, ArgAction, CommandFactory};

use super::Options;

/// The short options that take no value.
const FLAGS: &str = "ditPq";

/// Returns the command line without values of flags, and with each short option's value in a word of its own.
pub(crate) fn plain(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let given: Vec<OsString> = arguments.into_iter().collect();
    let is_boolean = |word: &OsString| {
        word.to_str().and_then(|text| text.split_once('=')).is_some_and(|(_, value)| boolean(value).is_some())
    };
    let is_attached = |word: &OsString| {
        let cluster = word.to_str().and_then(|text| text.strip_prefix('-')).filter(|rest| !rest.starts_with('-'));
        cluster.is_some_and(|cluster| cluster.len() > 1 && !cluster.chars().all(|letter| FLAGS.contains(letter)))
    };
    if !given.iter().any(|word| is_boolean(word) || is_attached(word)) {
        return given;
    }
    let command = <Options as CommandFactory>::command();
    let long = |name: &str| {
        let is = |arg: &&Arg| {
            arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
        };
        command.get_arguments().find(is)
    };
    let short = |name: char| command.get_arguments().find(|arg| arg.get_short() == Some(name));
    let mut arguments = given.into_iter();
    let mut plain: Vec<OsString> = arguments.next().into_iter().collect();
    while let Some(word) = arguments.next() {
        let text = word.to_str().unwrap_or_default();
        let Some(dashless) = text.strip_prefix('-').filter(|rest| !rest.is_empty() && *rest != "-") else {
            // The image: what follows is the container's.
            plain.push(word);
            break;
        };
        if let Some((flags, arg, value)) = attached(dashless, short) {
            plain.extend((!flags.is_empty()).then(|| format!("-{flags}").into()));
            plain.push(format!("--{}={value}", arg.get_long().unwrap_or_default()).into());
            continue;
        }
        let (name, value) = dashless.split_once('=').map_or((dashless, None), |(name, value)| (name, Some(value)));
        let arg = match name.strip_prefix('-') {
            Some(name) => long(name),
            None => last_of(name, short),
        };
        match (arg, value.map(boolean)) {
            (Some(arg), Some(Some(set))) if is_flag(arg) => plain.extend(set.then(|| format!("-{name}").into())),
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

/// Splits a cluster of short options whose last has its value attached: the flags before it, the option, the value.
fn attached<'a, 't>(cluster: &'t str, find: impl Fn(char) -> Option<&'a Arg>) -> Option<(&'t str, &'a Arg, &'t str)> {
    for (index, letter) in cluster.char_indices() {
        let arg = find(letter)?;
        if !is_flag(arg) {
            let value = &cluster[index + letter.len_utf8()..];
            return (!value.is_empty()).then(|| (&cluster[..index], arg, value.strip_prefix('=').unwrap_or(value)));
        }
    }
    None
}

/// Returns the option that ends a cluster of short ones: the first that takes a value, or the last.
fn last_of<'a>(cluster: &str, find: impl Fn(char) -> Option<&'a Arg>) -> Option<&'a Arg> {
    let mut last = None;
    for name in cluster.chars() {
        last = Some(find(name)?);
        if last.is_some_and(|arg| !is_flag(arg)) {
            break;
        }
    }
    last
}

/// Tells whether an option's value is the next word; a short one may have it behind its letter.
fn needs_next(name: &str, arg: &Arg) -> bool {
    let optional = arg.get_num_args().is_some_and(|count| count.min_values() == 0);
    !optional && (name.starts_with('-') || name.chars().last() == arg.get_short())
}

fn is_flag(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue)
}

/// Go's `strconv.ParseBool`.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_flags_are_those_of_the_command_line() {
        let command = <Options as CommandFactory>::command();
        let flags: String = command.get_arguments().filter(|arg| is_flag(arg)).filter_map(Arg::get_short).collect();
        let sorted = |text: &str| {
            let mut letters: Vec<char> = text.chars().collect();
            letters.sort_unstable();
            letters
        };
        assert_eq!(sorted(&flags), sorted(FLAGS));
    }

    #[test]
    fn flags_lose_their_values_before_the_image_only() {
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
            ("--sig-proxy=false --sig-proxy nginx", "--sig-proxy=false --sig-proxy nginx"),
            ("--unknown=true --rm=true -- nginx", "--unknown=true --rm -- nginx"),
        ] {
            let words = std::iter::once("run").chain(line.split(' ')).map(OsString::from);
            let got: Vec<String> = plain(words).into_iter().skip(1).map(|word| word.into_string().unwrap()).collect();
            assert_eq!(got.join(" "), want, "{line}");
        }
    }
}
