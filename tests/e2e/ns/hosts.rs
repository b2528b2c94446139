//! Containers on one bridge find each other by name.

use super::{NET, PIPELINE, script};
use crate::support::{Sandbox, Test, image, test, wait_for};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("a_running_container_learns_who_comes_and_goes", PIPELINE, come_and_go),
        test("names_are_those_of_one_bridge", NET, bridges),
        test("what_a_killed_container_leaves_names_nobody", NET, killed),
        test("a_container_breaks_only_its_own_names", NET, hostile),
    ]
}

fn come_and_go(sandbox: &Sandbox) {
    let image = image("busybox").reference;
    let first = sandbox
        .sh(&format!(
            "exec run --rm --network lab --name first {image} sh -c 'echo up; until ping -c 1 -w 1 cache; do :; done; echo met; \
             while grep -q \"^[^#].*second\" /etc/hosts; do :; done; echo alone' 2>/dev/null"
        ))
        .start();
    first.wait_stdout("up");
    let second = format!("run --rm --network lab --name second --network-alias cache {image}");
    let met = sandbox.sh(&format!("{second} sh -c 'ping -c 1 -w 5 first >/dev/null && echo found'")).run().ok();
    met.stdout_is("found\n");
    // The first one may have missed it: it has a second one's whole life to see it.
    let second = sandbox.sh(&format!("exec {second} sleep 300")).start();
    first.wait_stdout("met");
    second.signal(rustix::process::Signal::KILL);
    second.wait();
    first.wait_stdout("alone");
    first.wait().ok();
    wait_for("the note's end", || sandbox.sh("ls $DRAYAGE_ROOT/run/hosts").run().stdout.is_empty().then_some(()));
}

/// Makes a bundle with a hosts file, and its network.
const ADD: &str = r#"
    add() { id=$1; shift; mkdir -p $id; echo '{}' >$id/config.json; printf '127.0.0.1\tlocalhost\n' >$id/hosts
        ns add "$@" $id/ >$id.json; }
    lab() { id=$1; shift; add $id --bridge lab --subnet 10.213.0.0/16 "$@"; }
    names() { grep -v '^#' $1/hosts | awk 'NR > 1 {print $2}' | sort | tr '\n' ' '; echo; }"#;

fn bridges(sandbox: &Sandbox) {
    script(
        sandbox,
        &format!(
            "{ADD}
            lab a; lab b --alias bee --alias b.lab; add other --bridge lab0 --subnet 10.9.0.0/24 --subnet fd00:9::/64
            add far --bridge lab0; ns add --bridge lab plain >/dev/null
            test \"$(names a)\" = 'a b plain '; test \"$(names b)\" = 'a b plain '
            test \"$(names other)\" = 'far far other '
            grep -q '^fd00:9::.*far' other/hosts; grep -q 'b bee b.lab' a/hosts
            ! ns add --alias 'no name' x 2>err || exit 1; grep -q 'letters' err
            ns del b; test \"$(names a)\" = 'a plain '
            add one --subnet 10.8.0.0/24; add two; test \"$(names one)\" = 'one '; test \"$(names two)\" = 'two '
            add x --alias y; add z --alias v; test \"$(names z)\" = 'x z '; test \"$(names x)\" = 'x z '
            ns del a other far plain one two x z; ls $DRAYAGE_ROOT/run/hosts | wc -l | grep -qx 0"
        ),
    );
}

fn killed(sandbox: &Sandbox) {
    script(
        sandbox,
        &format!(
            "{ADD}
            lab a; lab b; lab c
            # As if the machine had lost it: no port, no name, but the note.
            ip netns del b; ip link del $(ip -o link | grep 'alias ctr=b ' | cut -d: -f2 | cut -d@ -f1) 2>/dev/null || :
            printf '{{\"id\":' >$DRAYAGE_ROOT/run/hosts/lab/half
            until ! ip -o link | grep -q 'alias ctr=b '; do :; done
            lab d; test \"$(names a)\" = 'a c d '; test \"$(names d)\" = 'a c d '
            test ! -e $DRAYAGE_ROOT/run/hosts/lab/b
            ns del a c d; rm $DRAYAGE_ROOT/run/hosts/lab/half; rmdir $DRAYAGE_ROOT/run/hosts/lab"
        ),
    );
}

fn hostile(sandbox: &Sandbox) {
    script(
        sandbox,
        &format!(
            "{ADD}
            lab a; lab b; lab c; lab d
            echo 'precious' >precious; ln -sf $PWD/precious a/hosts; truncate -s 1G b/hosts; printf '\\377\\n' >c/hosts
            printf '10.213.0.66\\td\\t# ns: d\\n' >>c/hosts
            lab e 2>err; grep -c 'tell [ab] of e' err | grep -qx 2
            grep -q e c/hosts; test \"$(names e)\" = 'a b c d e '; ! grep -q 66 d/hosts e/hosts || exit 1
            grep -qx precious precious; test $(stat -c %s b/hosts) = 1073741824
            ns del a b c d e 2>/dev/null"
        ),
    );
}
