//! Every option of every tool, as its help has them: taken with its value in each form that getopt(3) takes, and with one
//! meaning in all tools.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::Sandbox;

/// A value for an option, by the option's name, or by the name that the help gives the value.
const VALUES: &[(&str, &str)] = &[
    ("--blkio-weight", "100"),
    ("--cpu-period", "1000"),
    ("--detach-keys", "ctrl-p,ctrl-q"),
    ("--empty-ns", "network"),
    ("--listen-fd", "3"),
    ("--manage-cgroups-mode", "soft"),
    ("--mtu", "1400"),
    ("--network", "none"),
    ("--progress", "none"),
    ("--proxy-protocol", "v1"),
    ("--restart", "always"),
    ("--sdnotify", "container"),
    ("ADDRESS", "10.0.0.2"),
    ("ARCHIVE", "oci-archive:/tmp/x.tar"),
    ("ADDRESS:PORT", "127.0.0.1:9"),
    ("BOOL", "true"),
    ("CAP", "CAP_CHOWN"),
    ("CAPABILITY", "CAP_CHOWN"),
    ("CIDR", "10.9.0.0/24"),
    ("COMPRESSION", "gzip"),
    ("CONTAINER[:ro]", "web"),
    ("DEVICE:NUMBER", "/dev/null:10"),
    ("DEVICE:SIZE", "/dev/null:10"),
    ("DEVICES", "all"),
    ("DRIVER", "file"),
    ("DURATION", "10s"),
    ("EXPR", "PID>1"),
    ("FILE", "/dev/null"),
    ("FORMAT", "json"),
    ("HOW", "off"),
    ("ID", "web"),
    ("INSTRUCTION", "USER a"),
    ("KEY=VALUE", "max-size=1m"),
    ("KEY=VALUE,…", "type=tmpfs,target=/t"),
    ("LINK", "lo"),
    ("LIST", "0"),
    ("MAC", "02:00:00:00:00:07"),
    ("MODE", "private"),
    ("NAME", "ab"),
    ("NAME:ADDRESS", "a:10.0.0.1"),
    ("NAME=SOFT[:HARD]", "nofile=1:2"),
    ("NAME=VALUE", "a.b=c"),
    ("NAME[:KEY=VALUE,…]", "lab"),
    ("NAME[=VALUE]", "A=b"),
    ("OPTION", "no-new-privileges"),
    ("OS/ARCH[/VARIANT]", "linux/amd64"),
    ("OWNER", "1a2b3c4d-5e6f7a8b"),
    ("PATH", "/tmp/x"),
    ("PATH[:PATH[:rwm]]|VENDOR/CLASS=NAME", "/dev/null"),
    ("PLATFORM", "linux/amd64"),
    ("POLICY", "never"),
    ("RELATION", "parent"),
    ("RULE", "c 1:3 rwm"),
    ("SIGNAL", "TERM"),
    ("STREAM", "stdout"),
    ("TARGET[:OPTIONS]", "/t"),
    ("TIME", "2026-01-31T10:00:00Z"),
    ("TYPE", "net"),
    ("WHEN", "never"),
    ("[IP:][PORT:]PORT[/PROTOCOL]", "8080:80"),
    ("[SOURCE:]TARGET[:OPTIONS]", "/a:/b"),
    ("health|status|name|label=VALUE", "status=exited"),
    ("text|json", "json"),
    ("true|false", "true"),
    ("true|false|auto", "auto"),
    ("plain|cri|json", "json"),
];

/// Letters of one tool that mean something else in another, because the command that the verb stands for has them so.
const LETTERS: &[(&str, &str)] = &[
    ("a", "all all-tags archive attach author"),
    ("c", "change cpu-shares"),
    ("f", "file filter follow force"),
    ("m", "memory message"),
    ("n", "last tail"),
    ("p", "project-name publish"),
    ("s", "signal stop"),
    ("t", "tag time timeout timestamps tty"),
    ("v", "verbose volume volumes"),
];

struct Known {
    short: Option<String>,
    long: String,
    /// What the help calls the value, and whether it may be left out.
    value: Option<(String, bool)>,
}

/// Returns the options that a help text has.
fn known(help: &str) -> Vec<Known> {
    let line = |line: &str| {
        let text = line.trim_start();
        if !text.starts_with('-') || line.len() - text.len() > 6 {
            return None;
        }
        let (short, text) = match text.split_once(", --") {
            Some((short, rest)) if short.len() == 2 => (Some(short[1..].to_owned()), format!("--{rest}")),
            _ => (None, text.to_owned()),
        };
        let name = text.strip_prefix("--")?;
        let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(name.len());
        let (long, rest) = name.split_at(end);
        let value = |value: &str| Some(value.strip_prefix('<')?.split_once('>')?.0.to_owned());
        let value = match rest.trim_start_matches(' ').strip_prefix("[=") {
            Some(optional) => value(optional).map(|value| (value, true)),
            None => rest.strip_prefix(' ').and_then(value).map(|value| (value, false)),
        };
        Some(Known { short, long: long.to_owned(), value })
    };
    help.lines().filter_map(line).filter(|option| option.long != "help" && option.long != "version").collect()
}

pub(super) fn forms(sandbox: &Sandbox) {
    let mut letters: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let (mut taken, mut wrong) = (0, Vec::new());
    for (tool, _) in super::TOOLS {
        let help = sandbox.run(&[tool, "--help"]).ok().stdout;
        let verbs = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
        let verbs = verbs.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
        for verb in std::iter::once("").chain(verbs.filter(|verb| !verb.is_empty() && *verb != "help")) {
            let begin: Vec<&str> = [tool, verb].into_iter().filter(|word| !word.is_empty()).collect();
            for Known { short, long, value } in known(&sandbox.run(&[&begin[..], &["--help"]].concat()).ok().stdout) {
                // lsns, nsenter and runc have their own.
                if let Some(short) = short.clone().filter(|_| tool != "ns" && tool != "spawn") {
                    letters.entry(short).or_default().insert(long.clone());
                }
                let Some((name, optional)) = value else { continue };
                let option = format!("--{long}");
                let sample = VALUES.iter().find(|(what, _)| *what == option || *what == name);
                let value = sample.map_or(if name == "DIR" { "/tmp" } else { "1" }, |(_, value)| value);
                let mut lines = vec![vec![format!("{option}={value}")]];
                if !optional {
                    lines.push(vec![option, value.to_owned()]);
                }
                // nsenter's may be attached where it is a path or `:`, docker's flags have none.
                if let Some(short) = short.filter(|_| !optional) {
                    lines.push(vec![format!("-{short}"), value.to_owned()]);
                    lines.extend([format!("-{short}{value}"), format!("-{short}={value}")].map(|word| vec![word]));
                }
                for line in lines {
                    let words: Vec<&str> = line.iter().map(String::as_str).chain(["--help"]).collect();
                    let outcome = sandbox.run(&[&begin[..], &words[..]].concat());
                    taken += 1;
                    if outcome.code() != 0 || !outcome.stdout.contains("Usage: ") {
                        wrong.push(outcome.to_string());
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty() && taken > 1000, "{taken}\n{}", wrong.join("\n"));
    let several: Vec<_> = letters.into_iter().filter(|(_, options)| options.len() > 1).collect();
    for (letter, options) in several {
        let reasons = LETTERS.iter().find(|(with, _)| *with == letter).map_or("", |(_, options)| options);
        let options: Vec<String> = options.into_iter().collect();
        assert_eq!(options.join(" "), reasons, "-{letter}");
    }
}

/// Words of one meaning, each of which is taken wherever the other is.
pub(super) fn names(sandbox: &Sandbox) {
    for (line, options) in [
        ("run", "--name --id"),
        ("run", "--workdir --cwd"),
        ("run", "--pull --policy"),
        ("run", "--network-alias --net-alias --alias"),
        ("run", "--network --net"),
        ("run", "--mac-address --mac"),
        ("bundle", "--id --name"),
        ("bundle", "--workdir --cwd"),
        ("pull", "--policy --pull"),
        ("ns add", "--id --name"),
        ("ns add", "--alias --network-alias"),
        ("ns add", "--mac --mac-address"),
        ("portmap", "--id --name"),
        ("portmap add", "--id --name"),
        ("spawn", "--id --name"),
        ("spawn exec", "--cwd --workdir"),
        ("compose exec", "--workdir --cwd"),
        ("keep stop", "--time --timeout"),
        ("compose stop", "--timeout --time"),
    ] {
        for option in options.split(' ') {
            let value = match option {
                "--mac" | "--mac-address" => "02:00:00:00:00:07",
                "--time" | "--timeout" => "1",
                _ => "never",
            };
            sandbox.sh(&format!("{line} {option} {value} --help")).run().ok().stdout_has("Usage: ");
            sandbox.sh(&format!("{line} {option}={value} --help")).run().ok().stdout_has("Usage: ");
        }
    }
}
