//! The files as a project: read, interpolated, merged, and turned into services in the order in which they can start.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;

use crate::interpolate::{Variables, interpolate};
use crate::node::Node;
use crate::service::{self, Service};
use crate::{merge, order};

/// The names that are looked for where `-f` says nothing: compose-spec, 03.
const NAMES: &[&str] = &["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];
/// The override beside each of them.
const OVERRIDES: &[&str] =
    &["compose.override.yaml", "compose.override.yml", "docker-compose.override.yaml", "docker-compose.override.yml"];

/// What is asked of the files.
#[derive(Debug, Default)]
pub(crate) struct Request<'a> {
    /// Files in the order in which they are laid on each other; none: those of the usual names.
    pub(crate) files: &'a [PathBuf],
    /// The project's name, instead of the file's or the directory's.
    pub(crate) name: Option<&'a str>,
    /// Files of variables, instead of `.env`.
    pub(crate) env_files: &'a [PathBuf],
    /// Profiles that are on; `*` is all of them.
    pub(crate) profiles: &'a [String],
    /// Services, with what they need; none: all.
    pub(crate) services: &'a [String],
}

/// Services in the order in which they start.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Project {
    /// Begins the containers' and volumes' names.
    pub(crate) name: String,
    /// Each after those that it needs.
    pub(crate) services: Vec<Service>,
    /// Names of the project's own volumes.
    pub(crate) volumes: Vec<String>,
}

/// What a service's keys refer to outside of the service.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    name: &'a str,
    directory: &'a Path,
    file: &'a Node<'a>,
}

impl Context<'_> {
    /// Returns the id of a service's container where the file gives it none.
    pub(crate) fn container(&self, service: &str) -> String {
        format!("{}-{service}-1", self.name)
    }

    /// Returns the id of a service's container.
    pub(crate) fn container_of(&self, service: &str) -> Result<String> {
        let node = self.file.get("services").and_then(|services| services.get(service));
        let node = node.ok_or_else(|| anyhow!("services: no service {service}"))?;
        node.get("container_name").map_or_else(|| Ok(self.container(service)), |name| name.text())
    }

    /// Returns the labels by which a container's project and service are found again: the same as docker's.
    pub(crate) fn labels(&self, service: &str) -> Vec<String> {
        [("project", self.name), ("service", service)]
            .into_iter()
            .flat_map(|(key, value)| ["--label".to_owned(), format!("com.docker.compose.{key}={value}")])
            .collect()
    }

    /// Returns a path that is relative to the file's directory; `~` is the home directory.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        let home = path.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with('/'));
        match (home, cli::home()) {
            (Some(rest), Some(home)) => home.join(rest.trim_start_matches('/')),
            _ => self.directory.join(path.strip_prefix("./").unwrap_or(path)),
        }
    }

    /// Returns the name of the volume `key`.
    pub(crate) fn volume(&self, key: &str) -> Result<String> {
        let volumes = self.file.get("volumes");
        let declared = volumes.as_ref().and_then(|volumes| volumes.value.get(key));
        let declared = declared.ok_or_else(|| anyhow!("no volume {key} under volumes"))?;
        volume_name(self.name, key, &Node { value: declared, place: format!("volumes.{key}") }).map(|(name, _)| name)
    }

    /// Returns the file of a secret or config.
    pub(crate) fn file(&self, kind: &str, name: &str) -> Result<PathBuf> {
        let declared = self.file.get(kind).and_then(|node| node.get(name));
        let declared = declared.ok_or_else(|| anyhow!("no {name} under {kind}"))?;
        declared.only(&["file", "name"])?;
        let file = declared.get("file").ok_or_else(|| declared.error("no file"))?.text()?;
        Ok(self.path(&file))
    }

    /// Returns the bridge of a network. None is the default one, which a project with one network shares with others.
    pub(crate) fn bridge(&self, network: &str) -> Result<Option<String>> {
        let networks = self.file.get("networks").map(|networks| networks.members()).transpose()?.unwrap_or_default();
        match networks.iter().find(|(name, _)| name == network) {
            Some((_, node)) if networks.len() > 1 => network_name(self.name, network, node).map(Some),
            Some(_) => Ok(None),
            // It is there without being declared: compose-spec, 06.
            None if network == "default" => Ok(None),
            None => Err(anyhow!("no network {network} under networks")),
        }
    }
}

/// Returns a network's name, which is its bridge's. One that is longer than a link's may be is shortened as docker does.
fn network_name(project: &str, key: &str, node: &Node<'_>) -> Result<String> {
    let mut name = format!("{project}_{key}");
    if !node.value.is_null() {
        node.only(&["name", "external", "driver", "labels", "attachable"])?;
        if let Some(driver) = node.get("driver").filter(|driver| driver.value != "bridge") {
            return Err(driver.error("not supported"));
        }
        match node.get("name") {
            Some(given) => name = given.text()?,
            None if node.get("external").map_or(Ok(false), |node| node.flag())? => key.clone_into(&mut name),
            None => {}
        }
    }
    if name.len() <= 15 {
        return Ok(name);
    }
    // FNV-1a: the same bridge for the same name, always.
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    Ok(format!("br-{:012x}", hash >> 16))
}

/// Returns a volume's name, and whether it is the project's own.
fn volume_name(project: &str, key: &str, node: &Node<'_>) -> Result<(String, bool)> {
    if node.value.is_null() {
        return Ok((format!("{project}_{key}"), true));
    }
    node.only(&["name", "external", "driver", "labels"])?;
    if let Some(driver) = node.get("driver") {
        if driver.text()? != "local" {
            return Err(driver.error("not supported"));
        }
    }
    let external = node.get("external").map_or(Ok(false), |node| node.flag())?;
    let name = match node.get("name") {
        Some(name) => name.text()?,
        None if external => key.to_owned(),
        None => format!("{project}_{key}"),
    };
    Ok((name, !external))
}

/// Reads the files.
pub(crate) fn read(request: &Request<'_>) -> Result<Project> {
    let files = files(request.files)?;
    let directory = std::path::absolute(&files[0])
        .context(files[0].display().to_string())?
        .parent()
        .unwrap_or(Path::new("/"))
        .to_owned();
    let variables = variables(request.env_files, &directory)?;
    let mut merged = Value::Null;
    for path in &files {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let value = document(&text, &variables).with_context(|| format!("read {}", path.display()))?;
        if merged.is_null() { merged = value } else { merge::merge(&mut merged, value) }
    }
    project(request, &merged, &directory, &variables).with_context(|| files[0].display().to_string())
}

fn document(text: &str, variables: &Variables) -> Result<Value> {
    let mut value = yaml::read(text)?;
    if !value.is_object() {
        bail!("no mapping");
    }
    interpolate(&mut value, "", variables)?;
    Ok(value)
}

/// Turns merged files into services.
fn project(request: &Request<'_>, merged: &Value, directory: &Path, variables: &Variables) -> Result<Project> {
    let file = Node::top(merged);
    file.only(&["version", "name", "services", "volumes", "networks", "secrets", "configs"])?;
    let name = project_name(request, &file, directory, variables)?;
    let merged = extended(merged)?;
    let file = Node::top(&merged);
    let context = Context { name: &name, directory, file: &file };
    let services = file.get("services").ok_or_else(|| anyhow!("no services"))?.members()?;
    let services = services.iter().map(|(key, node)| service::read(key, node, &context)).collect::<Result<Vec<_>>>()?;
    let profiles: Vec<&str> = match variables.get("COMPOSE_PROFILES") {
        Some(profiles) if request.profiles.is_empty() => profiles.split(',').collect(),
        _ => request.profiles.iter().map(String::as_str).collect(),
    };
    let services = order::order(services, request.services, &profiles)?;
    let mut volumes = Vec::new();
    if let Some(node) = file.value.get("volumes").filter(|node| !node.is_null()) {
        let node = Node { value: node, place: "volumes".to_owned() };
        for (key, node) in node.members()? {
            let (name, own) = volume_name(&name, &key, &node)?;
            volumes.extend(own.then_some(name));
        }
    }
    Ok(Project { name, services, volumes })
}

/// Lays each service on the one that it extends: compose-spec, 05, `extends`, within one file.
fn extended(file: &Value) -> Result<Value> {
    let mut file = file.clone();
    let Some(services) = file.get("services").and_then(Value::as_object).cloned() else { return Ok(file) };
    for name in services.keys() {
        file["services"][name] = extend(&services, name, 0)?;
    }
    Ok(file)
}

fn extend(services: &serde_json::Map<String, Value>, name: &str, depth: usize) -> Result<Value> {
    let service = services.get(name).ok_or_else(|| anyhow!("services: no service {name}"))?;
    let place = format!("services.{name}.extends");
    let Some(extends) = service.get("extends") else { return Ok(service.clone()) };
    let node = Node { value: extends, place };
    if depth > services.len() {
        return Err(node.error("goes in a circle"));
    }
    let base = if extends.is_object() {
        node.only(&["service"])?;
        node.get("service").ok_or_else(|| node.error("no service"))?.text()?
    } else {
        node.text()?
    };
    let mut whole = extend(services, &base, depth + 1)?;
    let mut own = service.clone();
    if let (Some(own), Some(whole)) = (own.as_object_mut(), whole.as_object_mut()) {
        own.remove("extends");
        // These bind a service to others, which the heir may not have: compose-spec, 05, `extends`, restrictions.
        for key in ["depends_on", "links", "volumes_from", "container_name"] {
            whole.remove(key);
        }
    }
    merge::merge(&mut whole, own);
    Ok(whole)
}

fn files(given: &[PathBuf]) -> Result<Vec<PathBuf>> {
    if !given.is_empty() {
        return Ok(given.to_vec());
    }
    // As docker compose does: here, or in a directory above.
    let here = std::env::current_dir().context("current directory")?;
    for directory in here.ancestors() {
        if let Some(name) = NAMES.iter().find(|name| directory.join(name).is_file()) {
            let over = OVERRIDES.iter().map(|name| directory.join(name)).find(|path| path.is_file());
            return Ok([directory.join(name)].into_iter().chain(over).collect());
        }
    }
    bail!("no compose.yaml here or above; -f names one")
}

/// Returns the variables of the environment, and below them those of `.env` or of the files given.
fn variables(files: &[PathBuf], directory: &Path) -> Result<Variables> {
    let default = [directory.join(".env")];
    let files = if files.is_empty() && default[0].is_file() { &default } else { files };
    let mut variables = Variables::new();
    for path in files {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let pair = line.strip_prefix("export ").unwrap_or(line).split_once('=');
            let (name, value) = pair.ok_or_else(|| anyhow!("{}: line {}: no =", path.display(), number + 1))?;
            variables.insert(name.trim_end().to_owned(), unquoted(value.trim()).to_owned());
        }
    }
    variables.extend(
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
    );
    Ok(variables)
}

fn unquoted(value: &str) -> &str {
    for mark in ['"', '\''] {
        if let Some(inner) = value.strip_prefix(mark).and_then(|value| value.strip_suffix(mark)) {
            return inner;
        }
    }
    value.split(" #").next().unwrap_or(value).trim_end()
}

fn project_name(request: &Request<'_>, file: &Node<'_>, directory: &Path, variables: &Variables) -> Result<String> {
    if let Some(name) = request.name.or_else(|| variables.get("COMPOSE_PROJECT_NAME").map(String::as_str)) {
        return checked(name);
    }
    if let Some(name) = file.get("name") {
        return checked(&name.text()?);
    }
    // A directory's name is bent into a project's: lower case, and nothing but letters, digits, - and _.
    let name = directory.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let name: String = name.chars().filter(|c| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_')).collect();
    let name = name.trim_start_matches(['-', '_']);
    checked(if name.is_empty() { "default" } else { name })
}

fn checked(name: &str) -> Result<String> {
    let fits = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_');
    if name.is_empty() || name.starts_with(['-', '_']) || !name.chars().all(fits) {
        return Err(cli::Usage(format!("project {name:?}: lower-case letters, digits, - and _ are expected")).into());
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests;
