//! A service's environment: the variables of its files, and over them its own.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::context::Context;
use crate::interpolate::Variables;
use crate::node::Node;
use crate::{dotenv, files};

/// Returns the options of `env_file` and `environment`.
pub(super) fn options(service: &Node<'_>, context: &Context<'_>) -> Result<Vec<String>> {
    let mut read = Variables::new();
    for file in service.get("env_file").map(|node| node.each()).transpose()?.unwrap_or_default() {
        read_file(&file, context, &mut read)?;
    }
    let mut read: Vec<_> = read.into_iter().collect();
    read.sort();
    let own = service.get("environment").map(|node| node.pairs('=')).transpose()?.unwrap_or_default();
    let own: Vec<String> = own.into_iter().filter_map(|pair| valued(pair, context.variables)).collect();
    let name_of = |pair: &str| pair.split('=').next().unwrap_or_default().to_owned();
    let overridden: Vec<String> = own.iter().map(|pair| name_of(pair)).collect();
    let of_files = read.into_iter().filter(|(name, _)| !overridden.contains(name));
    let of_files = of_files.map(|(name, value)| format!("{name}={value}"));
    Ok(of_files.chain(own).flat_map(|pair| ["--env".to_owned(), pair]).collect())
}

/// Reads one of `env_file`: a path, or a mapping with `path`, `required` and `format`.
fn read_file(file: &Node<'_>, context: &Context<'_>, read: &mut Variables) -> Result<()> {
    let mut is_raw = false;
    let (path, required) = if file.value.is_object() {
        file.only("path required format")?;
        if let Some(format) = file.get("format") {
            is_raw = format.text()? == "raw";
            if !is_raw {
                return Err(format.error("only raw is known"));
            }
        }
        let path = file.get("path").ok_or_else(|| file.error("no path"))?.text()?;
        (path, file.get("required").map_or(Ok(true), |node| node.flag())?)
    } else {
        (file.text()?, true)
    };
    let path = PathBuf::from(path);
    if !required && !path.try_exists().with_context(|| path.display().to_string())? {
        return Ok(());
    }
    let text = files::read(&path).map_err(|what| file.error(format!("{what:#}")))?;
    if is_raw {
        let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
        let pairs: Vec<String> = lines.filter_map(|line| valued(line.to_owned(), context.variables)).collect();
        let pairs = pairs.iter().filter_map(|pair| pair.split_once('='));
        read.extend(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
        return Ok(());
    }
    dotenv::parse(&text, context.variables, read).map_err(|what| file.error(format!("{}: {what:#}", path.display())))
}

/// Gives a name without a value the variable's; one that is not set is left out, as docker compose does.
fn valued(pair: String, variables: &Variables) -> Option<String> {
    if pair.contains('=') {
        return Some(pair);
    }
    variables.get(&pair).map(|value| format!("{pair}={value}"))
}
