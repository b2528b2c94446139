//! Containers in the foreground that have a keeper: they are started again, are logged, or go on when their user leaves.

use rustix::process::Signal;

use super::{PIPELINE, busybox};
use crate::support::{Need, Sandbox, Test, image, test, wait_for};

const TERMINAL: &[Need] = &[Need::Registry, Need::Overlay, Need::Nft, Need::Program("script")];

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("what_is_logged_is_shown_from_the_first_word", PIPELINE, logged),
        test("keys_leave_it_running", TERMINAL, left),
        test("it_is_started_again_behind_its_user", PIPELINE, started_again),
        test("signals_reach_it_and_its_end_is_ours", PIPELINE, signals),
        test("one_that_cannot_start_is_told_and_gone", PIPELINE, failed),
    ]
}

fn logged(sandbox: &Sandbox) {
    let logged = |options: &str, command: &str| busybox(&format!("--log-driver json-file {options}"), command);
    for _ in 0..5 {
        // Its first words are there before anybody could have asked for them.
        let run = sandbox.sh(&logged("", "sh -c 'echo out; echo err >&2; exit 5'")).run();
        run.fails(5).stdout_is("out\n").stderr_is("err\n");
    }
    sandbox.sh(&logged("-i", "sh -c 'cat; echo end'")).stdin("typed\n").run().ok().stdout_is("typed\nend\n");
    sandbox.sh(&logged("", "cat")).stdin("typed\n").run().ok().stdout_is("");
    sandbox.sh(&logged("-a stderr", "sh -c 'echo out; echo err >&2'")).run().ok().stdout_is("").stderr_is("err\n");
    assert!(
        sandbox
            .sh("ls state/containers state/run/claims")
            .run()
            .stdout
            .lines()
            .all(|line| line.ends_with(':') || line.is_empty())
    );
    let kept = format!("run --log-driver file --name kept --network none {} echo said", image("busybox").reference);
    sandbox.sh(&kept).run().ok().stdout_is("said\n");
    sandbox.run(&["keep", "logs", "kept"]).ok().stdout_is("said\n");
    sandbox.run(&["keep", "rm", "kept"]).ok();
}

fn left(sandbox: &Sandbox) {
    let run = busybox(
        "-it --detach-keys ctrl-x,x --name web",
        "sh -c 'echo ready; while read x; do echo got $x; done; exit 4'",
    );
    let mut user = sandbox.cmd(&["script", "-qec", &run, "/dev/null"]).open_stdin().start();
    user.wait_stdout("ready");
    user.write_stdin("one\n");
    user.wait_stdout("got one");
    user.write_stdin("\x18x");
    user.wait().ok();
    sandbox.run(&["keep", "list", "--running", "--quiet"]).ok().stdout_is("web\n");
    let mut again = sandbox.cmd(&["script", "-qec", "keep attach web", "/dev/null"]).open_stdin().start();
    again.write_stdin("two\n");
    again.wait_stdout("got two");
    again.write_stdin("\x04");
    again.wait().fails(4);
    wait_for("its end", || (!sandbox.exists("state/containers/web")).then_some(()));
}

fn started_again(sandbox: &Sandbox) {
    let busybox = image("busybox").reference;
    let run = format!("run --restart on-failure:2 --name web --network none {busybox} sh -c 'echo again; exit 3'");
    sandbox.sh(&run).run().fails(3).stdout_is("again\n");
    wait_for("the end of all", || (!sandbox.exists("state/run/claims/web")).then_some(()));
    sandbox.run(&["keep", "logs", "web"]).ok().stdout_is("again\nagain\nagain\n");
    sandbox.run(&["keep", "rm", "web"]).ok();
}

fn signals(sandbox: &Sandbox) {
    let trap = "sh -c 'trap \"echo term; exit 7\" TERM; echo ready; while :; do sleep 0.1; done'";
    let run = sandbox.sh(&format!("exec {}", busybox("--log-driver file --name web -p 8080:80", trap))).start();
    run.wait_stdout("ready");
    run.signal(Signal::TERM);
    run.wait().fails(7).stdout_is("ready\nterm\n");
    wait_for("its end", || (!sandbox.exists("state/containers/web")).then_some(()));
    // Killed, it leaves the container to its keeper, as a killed client of docker's does.
    let held = format!("exec {}", busybox("--log-driver file --name web", "sh -c 'echo ready; sleep 100'"));
    let run = sandbox.sh(&held).start();
    run.wait_stdout("ready");
    run.signal(Signal::KILL);
    run.wait().fails(128 + 9);
    sandbox.run(&["spawn", "state", "web"]).ok().stdout_has("running");
    sandbox.run(&["keep", "rm", "--force", "web"]).ok();
}

fn failed(sandbox: &Sandbox) {
    let run = sandbox.sh(&busybox("--log-driver file --name web", "no-such-program")).run();
    run.fails(127).stderr_has("no-such-program").stdout_is("");
    assert!(!sandbox.exists("state/containers/web") && !sandbox.exists("state/run/claims/web"));
    sandbox.sh(&busybox("--log-driver tape", "true")).run().fails(125).one_error_line("keep", &["tape"]);
}
