//! `inspect`: all that is known of containers, as one JSON array.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;
use container::{ContainerId, Directories, Known};
use serde_json::{Value, json};

use crate::job::Job;
use crate::output::Driver;
use crate::{health, job, list, output};

/// Prints an array with an object for each container: its row of `list`, and what that has no room for (docs/record.md).
pub(crate) fn inspect(ids: &[ContainerId], roots: &cli::Roots) -> Result<ExitCode> {
    let directories = roots.directories();
    let wholes = ids.iter().map(|id| Ok(whole(&directories, &list::named(&directories, id)?.1)));
    writeln!(io::stdout(), "{:#}", Value::Array(wholes.collect::<Result<_>>()?))?;
    Ok(ExitCode::SUCCESS)
}

fn whole(directories: &Directories, known: &Known) -> Value {
    let bundle = &known.bundle;
    let config: Value = list::parse(bundle, "config.json").unwrap_or_default();
    let mut whole = list::row(directories, known, &config["process"]["args"]);
    whole["labels"] = config["annotations"].clone();
    whole["limits"] = config["linux"]["resources"].clone();
    whole["mounts"] = config["mounts"].clone();
    whole["rootfs"] = json!(bundle.join("rootfs"));
    whole["config"] = json!(bundle.join("config.json"));
    if let Some(health) = list::parse::<Value>(bundle, health::FILE) {
        whole["health"] = health;
    }
    // A container that was never kept has none.
    if let Some(job) = list::parse::<Job>(bundle, job::FILE) {
        whole["restart"] = json!(job.options.restart);
        whole["log"] = json!(job.log);
        if job.log.driver == Driver::File {
            whole["log"]["path"] = json!(bundle.join(output::FILE));
        }
    }
    // In a bundle that somebody else has made there is none.
    whole["record"] = list::parse(bundle, "record.json").unwrap_or_default();
    whole
}
