//! `docker run` as a pipeline of small tools: computes which stages a container needs, executes them as processes joined
//! by pipes, starts the container, and undoes everything when it ends. It links none of the other tools.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), no_main)]

mod activation;
mod container;
mod detached;
mod dry;
mod folder;
mod foreground;
mod guard;
mod kept;
mod options;
mod pipeline;
mod plan;
mod request;
mod script;

use std::process::ExitCode;

use options::RunArgs;

cli::program!(main);

fn main() -> ExitCode {
    cli::main(cli::Codes::CONTAINER, |args: RunArgs| container::run(&args.request.activated()?.entered()?))
}
