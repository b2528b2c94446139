//! End-to-end tests: the programs as a shell user meets them, through real pipes, against a real registry and the real
//! kernel. One module per area; `tests/README.md` says how to add to one.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by panicking, and this program's stdout is its report"
)]
#![allow(let_underscore_drop, reason = "cleaning up is best effort")]

mod book;
mod bundle;
mod cli;
mod compose;
mod confine;
mod costs;
mod docker;
mod faults;
mod hosts;
mod identity;
mod interchange;
mod keep;
mod kill;
mod manual;
mod ns;
mod package;
mod pipe;
mod portmap;
mod pull;
mod push;
mod recipes;
mod record;
mod run;
mod sandbox;
mod security;
mod shells;
mod spawn;
mod support;
mod tree;
mod unpack;

use std::process::ExitCode;

use support::Test;

fn main() -> ExitCode {
    // Inside a sandbox this program is its own HTTP client, and a server that takes a port.
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [_, "--http-get", address] => support::http_client(address),
        [_, "--listen", address] => support::listener(address),
        _ => support::run(tests()),
    }
}

fn tests() -> Vec<Test> {
    let areas = [
        ("sandbox", sandbox::tests()),
        ("cli", cli::tests()),
        ("tree", tree::tests()),
        ("record", record::tests()),
        ("pull", pull::tests()),
        ("push", push::tests()),
        ("unpack", unpack::tests()),
        ("book", book::tests()),
        ("bundle", bundle::tests()),
        ("ns", ns::tests()),
        ("package", package::tests()),
        ("portmap", portmap::tests()),
        ("spawn", spawn::tests()),
        ("confine", confine::tests()),
        ("costs", costs::tests()),
        ("security", security::tests()),
        ("keep", keep::tests()),
        ("run", run::tests()),
        ("compose", compose::tests()),
        ("manual", manual::tests()),
        ("shells", shells::tests()),
        ("docker", docker::tests()),
        ("kill", kill::tests()),
        ("faults", faults::tests()),
        ("interchange", interchange::tests()),
        ("pipe", pipe::tests()),
        ("recipes", recipes::tests()),
        ("hosts", hosts::tests()),
        ("identity", identity::tests()),
    ];
    areas.into_iter().flat_map(|(area, tests)| tests.into_iter().map(move |test| test.in_area(area))).collect()
}
