//! Command lines of `ns enter` as people mostly write them, read without building the parser, which costs more than entering
//! does. What is not as plain as that is the parser's.

use std::ffi::{OsStr, OsString};

use super::Enter;

impl Enter {
    /// Reads the arguments behind the program's name, unless they need the parser.
    pub(crate) fn plain(arguments: &[OsString]) -> Option<Self> {
        let mut enter = Self::default();
        let mut left = arguments.iter();
        while let Some(argument) = left.next() {
            let text = argument.to_str()?;
            match text {
                "--" => break,
                "-t" | "--target" => enter.take_target(left.next()?)?,
                _ if text.starts_with("--") => enter.option(text)?,
                "-" | "" => return None,
                _ if text.starts_with('-') => {
                    text.chars().skip(1).try_for_each(|letter| enter.option(&format!("-{letter}")))?;
                }
                _ => {
                    enter.program.push(argument.clone());
                    break;
                }
            }
        }
        enter.program.extend(left.cloned());
        Some(enter)
    }

    fn option(&mut self, name: &str) -> Option<()> {
        let place = match name {
            "-a" | "--all" => return once(&mut self.all),
            "-e" | "--env" => return once(&mut self.env),
            "-F" | "--no-fork" => return once(&mut self.no_fork),
            "-m" | "--mount" => &mut self.mount,
            "-u" | "--uts" => &mut self.uts,
            "-i" | "--ipc" => &mut self.ipc,
            "-n" | "--net" => &mut self.net,
            "-p" | "--pid" => &mut self.pid,
            "-C" | "--cgroup" => &mut self.cgroup,
            "-U" | "--user" => &mut self.user,
            "-T" | "--time" => &mut self.time,
            "-r" | "--root" => &mut self.root,
            "-w" | "--wd" => &mut self.wd,
            _ => return self.take_target(OsStr::new(name.strip_prefix("--target=")?)),
        };
        place.replace(OsString::new()).is_none().then_some(())
    }

    fn take_target(&mut self, value: &OsStr) -> Option<()> {
        let value = value.to_str().filter(|value| !value.is_empty() && !value.starts_with('-'))?;
        self.target.replace(value.to_owned()).is_none().then_some(())
    }
}

/// Sets a flag; one that is given twice is the parser's.
fn once(flag: &mut bool) -> Option<()> {
    let first = !*flag;
    *flag = true;
    first.then_some(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::Nsenter;
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn what_is_plain_is_read_as_the_parser_reads_it() {
        for line in [
            "nsenter -t 1 -n",
            "nsenter -t web -a ls -la",
            "nsenter -mun -t 1:5 -- ls -t 7 -- -n",
            "nsenter --target 1 --net --pid ip -br addr",
            "nsenter --target=1 --all --mount --uts --ipc --cgroup --user --time --root --wd --env --no-fork -- x",
            "nsenter -t 1 -aC -UTrw -eF sh -c -- x -a",
            "nsenter ls -- x",
            "nsenter -n -t 1 --",
            "nsenter -n -t 1 -- -x --help",
            "nsenter -a -t 1 sh -- -- y",
            "nsenter -t 1 -n ls --help -V",
            "nsenter -t 1 -n - -x",
        ] {
            let parsed = Nsenter::try_parse_from(words(line)).unwrap().enter;
            let plain = Enter::plain(&words(line)[1..]);
            assert!(plain.is_none_or(|plain| plain == parsed), "{line}: {parsed:?}");
        }
        assert!(Enter::plain(&words("-t 1 -n ip -br addr")).is_some());
        assert!(Enter::plain(&words("--target=web -a -- ls -l")).is_some());
    }

    #[test]
    fn what_is_not_plain_is_the_parsers() {
        for line in [
            "-h",
            "--help",
            "-V",
            "-v -t 1 -n",
            "-t",
            "-t -n x",
            "-t1 -n",
            "-n/run/netns/x",
            "--net=/x ls",
            "-n -n",
            "-nn -t 1",
            "-t 1 -t 2",
            "--targ 1",
            "--target= -n",
            "-S 0 -t 1",
            "-nt 1",
            "-a -a",
            "-n=/x",
            "--uts=",
            "-t 1 -n - x",
            "-Z",
            "--user-parent",
        ] {
            assert_eq!(Enter::plain(&words(line)), None, "{line}");
        }
    }
}
