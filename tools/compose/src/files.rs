//! Which files are read, and what the variables in them mean.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::dotenv;
use crate::interpolate::Variables;

/// The names that are looked for where `-f` says nothing: compose-spec, 03.
const NAMES: &[&str] = &["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];
/// The override beside each of them.
const OVERRIDES: &[&str] =
    &["compose.override.yaml", "compose.override.yml", "docker-compose.override.yaml", "docker-compose.override.yml"];
/// The file that is standard input.
pub(crate) const STDIN: &str = "-";

/// Returns the files: those given, those of `$COMPOSE_FILE` (which `.env` may set), or those of the usual names here or
/// in a directory above.
pub(crate) fn find(given: &[PathBuf], env_files: &[PathBuf]) -> Result<Vec<PathBuf>> {
    if !given.is_empty() {
        return Ok(given.to_vec());
    }
    let here = std::env::current_dir().context("current directory")?;
    // Before the file is found, .env is looked for here; once it is found, in its directory.
    let variables = variables(env_files, &here)?;
    if let Some(list) = variables.get("COMPOSE_FILE").filter(|list| !list.is_empty()) {
        let separator = variables.get("COMPOSE_PATH_SEPARATOR").map_or(":", String::as_str);
        return Ok(list.split(separator).map(PathBuf::from).collect());
    }
    for directory in here.ancestors() {
        if let Some(name) = NAMES.iter().find(|name| directory.join(name).is_file()) {
            // An override belongs to files that were found: who names one with -f gets that alone.
            let over = OVERRIDES.iter().map(|name| directory.join(name)).find(|path| path.is_file());
            return Ok([directory.join(name)].into_iter().chain(over).collect());
        }
    }
    bail!("no compose.yaml here or above; -f names one")
}

/// Returns the directory to which the paths in the files are relative: the first file's.
pub(crate) fn directory(first: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(first).with_context(|| first.display().to_string())?;
    Ok(path.parent().unwrap_or(Path::new("/")).to_owned())
}

/// Returns the text of a file, or of standard input for `-`.
pub(crate) fn read(path: &Path) -> Result<String> {
    let read = || {
        if path == Path::new(STDIN) {
            let mut text = String::new();
            return std::io::stdin().read_to_string(&mut text).map(|_| text);
        }
        std::fs::read_to_string(path)
    };
    read().with_context(|| format!("read {}", path.display()))
}

/// Returns the variables of the environment, and below them those of the files given, of `$COMPOSE_ENV_FILES` or of `.env`.
pub(crate) fn variables(files: &[PathBuf], directory: &Path) -> Result<Variables> {
    let outer: Variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let named = outer.get("COMPOSE_ENV_FILES").filter(|list| files.is_empty() && !list.is_empty());
    let named: Vec<PathBuf> = named.into_iter().flat_map(|list| list.split(',')).map(PathBuf::from).collect();
    let default = [directory.join(".env")];
    let files = match (files, &named[..]) {
        ([], []) if default[0].is_file() => &default,
        ([], named) => named,
        (files, _) => files,
    };
    let mut variables = below(&outer, files)?;
    // The environment is laid over the files: compose-spec, "Interpolation", has the shell's value win.
    variables.extend(outer);
    Ok(variables)
}

/// Returns what files of variables set, each over the one before; their values may refer to the `outer` variables.
pub(crate) fn below(outer: &Variables, files: &[PathBuf]) -> Result<Variables> {
    let mut variables = Variables::new();
    for path in files {
        dotenv::parse(&read(path)?, outer, &mut variables).with_context(|| path.display().to_string())?;
    }
    Ok(variables)
}
