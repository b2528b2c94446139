//! Values that are attached to a short option, as `-Tparent` or `-n/run/netns/web`: getopt's way to write an optional one,
//! which our parser knows only as `--tree=parent`.

use std::ffi::OsString;

/// Short options of nsenter that have a value of their own in the next word.
const WITH_VALUE: &[&str] =
    &["-t", "-S", "-G", "-N", "-W", "--target", "--setuid", "--setgid", "--net-socket", "--wdns"];

/// Rewrites the arguments, up to the program's name in those of `ns enter`.
pub(crate) fn attach(arguments: impl Iterator<Item = OsString>, nsenter: bool) -> Vec<OsString> {
    let mut out: Vec<OsString> = vec![];
    let mut enters = nsenter;
    let mut value = false;
    let mut arguments = arguments.peekable();
    out.extend(arguments.next());
    if !nsenter && arguments.peek().is_some_and(|first| first == "enter") {
        enters = true;
        out.extend(arguments.next());
    }
    for argument in arguments.by_ref() {
        let text = argument.to_str().unwrap_or_default();
        let option = text.starts_with('-') && text != "--" && text != "-";
        if enters && !value && !option {
            out.push(argument);
            break;
        }
        let rewritten = if value { None } else { rewrite(text, enters) };
        value = !value && WITH_VALUE.contains(&text);
        out.push(rewritten.map_or(argument, OsString::from));
    }
    out.extend(arguments);
    out
}

/// Options of nsenter whose value is optional, by their letters.
const OPTIONAL: &[(&str, &str)] = &[
    ("-m", "--mount"),
    ("-u", "--uts"),
    ("-i", "--ipc"),
    ("-n", "--net"),
    ("-p", "--pid"),
    ("-C", "--cgroup"),
    ("-U", "--user"),
    ("-T", "--time"),
    ("-r", "--root"),
    ("-w", "--wd"),
];

fn rewrite(text: &str, enters: bool) -> Option<String> {
    let (letter, value) = text.split_at_checked(2)?;
    let value = value.strip_prefix('=').unwrap_or(value);
    if enters {
        // Other letters behind the first may be options too: only a path or a namespace's number is taken for a value.
        let (_, name) =
            OPTIONAL.iter().find(|(known, _)| *known == letter).filter(|_| value.starts_with(['/', ':']))?;
        return Some(format!("{name}={value}"));
    }
    (letter == "-T" && !value.is_empty()).then(|| format!("--tree={value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_ours_is_rewritten() {
        for (line, nsenter, want) in [
            ("ns list -Tparent -J", false, "ns list --tree=parent -J"),
            ("lsns -T=owner -T", false, "lsns --tree=owner -T"),
            ("ns enter -t web -n/run/x ls -n/y", false, "ns enter -t web --net=/run/x ls -n/y"),
            ("nsenter -n/run/x -t 1 -- ls -n/y", true, "nsenter --net=/run/x -t 1 -- ls -n/y"),
            ("nsenter -mun -t 1", true, "nsenter -mun -t 1"),
            ("nsenter -n=:7 -u:8 ls", true, "nsenter --net=:7 --uts=:8 ls"),
            ("nsenter -t -n/x -n/x", true, "nsenter -t -n/x --net=/x"),
        ] {
            let got = attach(line.split(' ').map(OsString::from), nsenter);
            assert_eq!(got.iter().filter_map(|word| word.to_str()).collect::<Vec<_>>().join(" "), want);
        }
    }
}
