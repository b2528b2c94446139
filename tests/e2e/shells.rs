//! The completions of bash, zsh and fish, as `make install` puts them there, in the shells.

use std::process::Command;

use crate::cli::install_front;
use crate::support::{Need, Sandbox, Test, image, source, test};

const NEEDS: [&[Need]; 3] = [
    &[Need::Registry, Need::NetNs, Need::Overlay, Need::Nft, Need::File("/usr/share/bash-completion/bash_completion")],
    &[Need::Registry, Need::NetNs, Need::Overlay, Need::Nft, Need::Program("zsh")],
    &[Need::Registry, Need::NetNs, Need::Overlay, Need::Nft, Need::Program("fish")],
];

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("bash_completes_verbs_options_and_what_there_is", NEEDS[0], |sandbox| complete(sandbox, BASH)),
        test("zsh_completes_verbs_options_and_what_there_is", NEEDS[1], |sandbox| complete(sandbox, ZSH)),
        test("fish_completes_verbs_options_and_what_there_is", NEEDS[2], |sandbox| complete(sandbox, FISH)),
        test("a_help_of_a_group_of_verbs_does_nothing_else", NEEDS[0], harmless),
    ]
}

/// What is typed before TAB, and the word that it becomes.
const LINES: [(&str, &str); 30] = [
    ("drayage hist", "history"),
    ("drayage comp", "compose"),
    ("drayage keep att", "attach"),
    ("drayage logs --ta", "--tail"),
    ("drayage logs w", "web"),
    ("drayage exec -i w", "web"),
    ("drayage kill -s KI", "KILL"),
    ("drayage kill w", "web"),
    ("drayage rm -f --verbose w", "web"),
    ("drayage keep --verbose rm w", "web"),
    ("drayage container inspect w", "web"),
    ("drayage port web 8", "80/tcp"),
    ("drayage rmi 127.0.0.1:5000/ng", "127.0.0.1:5000/nginx"),
    ("drayage run --name w2 127.0.0.1:5000/nginx:l", "127.0.0.1:5000/nginx:latest"),
    ("drayage run --pull mi", "missing"),
    ("drayage run --pull=mi", "--pull=missing"),
    ("drayage run --network la", "lab"),
    ("drayage run --env-file ./compo", "./compose.yaml"),
    ("drayage network inspect la", "lab"),
    ("drayage volume rm lo", "logs"),
    ("drayage bundle delete w", "web"),
    ("drayage compose logs da", "database"),
    ("drayage ns enter -t w", "web"),
    ("drayage ns show oth", "other"),
    ("drayage ns enter --target=w", "--target=web"),
    ("ns add --join w", "web"),
    ("keep stop w", "web"),
    ("portmap del web -p 80", "8080:80"),
    ("bundle volume li", "list"),
    ("pull --pol", "--policy"),
];

/// Each prints a line `[CANDIDATE…]` for each line of `typed`. `COMP_LINE` is what bash itself gives to a function.
const BASH: &str = r#"XDG_DATA_DIRS=$SANDBOX/usr/share bash --norc -c '
    . /usr/share/bash-completion/bash_completion
    eval "$(drayage env)"
    type _drayage >/dev/null && complete -r drayage
    # Whatever this version calls what finds a completion.
    loader=$(complete -p -D)
    loader=${loader#*-F }
    loader=${loader%% *}
    while IFS= read -r line; do
        set -- $line
        complete -p "$1" >/dev/null 2>&1 || "$loader" "$1"
        [ "$(complete -p "$1")" = "complete -F _drayage $1" ] || exit 1
        COMP_LINE=$line COMP_POINT=${#line}
        _drayage </dev/null
        echo "[${COMPREPLY[*]}]"
    done <typed'"#;
/// A terminal, and a key that shows what TAB has made of the line.
const ZSH: &str = r#"cat >home/.zshrc <<'RC'
fpath=($SANDBOX/usr/share/zsh/site-functions $fpath)
autoload -U compinit && compinit -u -D
eval "$(drayage env)"
show() { print -r -- "[${${(z)BUFFER}[-1]}]"; BUFFER=; zle redisplay }
zle -N show && bindkey '^X' show
unsetopt zle_bracketed_paste
PS1='ready'
RC
cat >drive <<'DRIVE'
zmodload zsh/zpty
zpty shell env ZDOTDIR=$HOME zsh -i
zpty -r shell out '*ready*'
while IFS= read -r line; do
    zpty -w -n shell "$line"$'\t\x18'
    zpty -r shell out '*\[*\]*'
    print -r -- "[${${out##*\[}%%\]*}]"
done <typed
zpty -d shell
DRIVE
zsh -f drive"#;
const FISH: &str = r#"XDG_DATA_DIRS=$SANDBOX/usr/share:/usr/share fish --no-config -c '
    drayage env fish | source
    while read -l line
        set -l found (complete -C "$line" | string replace -r "\t.*" "")
        echo "[$found]"
    end <typed'"#;

/// Installs the command in front, and what `make install` has beside it.
fn install(sandbox: &Sandbox) {
    install_front(sandbox);
    let made = Command::new("make")
        .args(["-s", "install-front", "PREFIX=/usr"])
        .arg(format!("DESTDIR={}", sandbox.outside("").display()))
        .current_dir(source())
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

fn complete(sandbox: &Sandbox, shell: &str) {
    install(sandbox);
    let nginx = image("nginx").reference;
    sandbox.write("compose.yaml", format!("services: {{database: {{image: {nginx}}}}}"));
    let make = "ns add --none other; ns network create lab; bundle volume create logs; run -d --name web -p 8080:80 $REGISTRY/nginx";
    sandbox.sh(make).run().ok();
    sandbox.write("typed", LINES.map(|(typed, _)| format!("{typed}\n")).concat());
    let outcome = sandbox.sh(&format!("PATH=$SANDBOX/usr/bin:$PATH; {shell}")).run().ok();
    let shown: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(shown.len(), LINES.len(), "{outcome}");
    for ((typed, want), shown) in LINES.iter().zip(shown) {
        let found = shown.strip_prefix('[').and_then(|shown| shown.strip_suffix(']')).unwrap();
        // bash takes what follows a colon or an equals sign for a word.
        let is_right = !found.is_empty() && want.ends_with(found);
        assert!(is_right, "{typed}: {found} instead of {want}\n{outcome}");
    }
    let end = "ns del other; keep rm -f web >/dev/null; ns network rm lab; bundle volume rm logs
        until [ -z \"$(nft list tables; ip -o link | grep -v ' lo:')\" ]; do :; done";
    sandbox.sh(end).run().ok();
}

/// The completions ask for help where somebody would remove something.
fn harmless(sandbox: &Sandbox) {
    install(sandbox);
    sandbox.sh("pull $REGISTRY/nginx | unpack | bundle --id web --network none; keep list -q").run().ok();
    let before = sandbox.sh("pull list -q; bundle list -q").run().ok().stdout;
    for group in ["container prune", "image prune", "info", "rmi", "rm", "kill", "save", "port", "history"] {
        sandbox.sh(&format!("usr/bin/drayage {group} --help")).run().ok().stdout_has("Usage: ");
    }
    sandbox.sh("pull list -q; bundle list -q").run().ok().stdout_is(&before);
    sandbox.run(&["bundle", "delete", "web"]).ok();
}
