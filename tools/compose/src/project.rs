//! The files as a project: read, interpolated, merged, and turned into services in the order in which they can start.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, ensure};
use container::{ContainerId, Directories, VolumeName};
use serde_json::Value;

use crate::context::{Context, volume_name};
use crate::interpolate::{Variables, interpolate};
use crate::node::Node;
use crate::service::{self, Service};
use crate::{files, merge, order, paths};

/// How many files may include or extend each other in a row.
const MOST_FILES: usize = 32;

/// What is asked of the files.
#[derive(Debug, Default)]
pub(crate) struct ProjectRequest<'a> {
    /// Files in the order in which they are laid on each other; none: those of the usual names.
    pub(crate) files: &'a [PathBuf],
    /// The project's name, instead of the file's or the directory's.
    pub(crate) name: Option<&'a str>,
    /// Whether an ordinary user asks.
    pub(crate) rootless: bool,
    /// Where files are made.
    pub(crate) directories: Directories,
    /// Files of variables, instead of `.env`.
    pub(crate) env_files: &'a [PathBuf],
    /// Profiles that are on; `*` is all of them.
    pub(crate) profiles: &'a [String],
    /// Services, with what they need; none: all.
    pub(crate) services: &'a [String],
    /// Without what they need.
    pub(crate) alone: bool,
    /// With those that restart when they do.
    pub(crate) dependents: bool,
}

/// Services in the order in which they start.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Project {
    /// The files as one.
    pub(crate) file: Value,
    /// Begins the containers' and volumes' names.
    pub(crate) name: String,
    /// Each after those that it needs.
    pub(crate) services: Vec<Service>,
    /// The containers of all services, also of those that take no part.
    pub(crate) containers: Vec<ContainerId>,
    /// Names of the project's own volumes.
    pub(crate) volumes: Vec<VolumeName>,
}

/// Reads the files.
pub(crate) fn read(request: &ProjectRequest<'_>) -> Result<Project> {
    let files = files::find(request.files, request.env_files)?;
    let directory = files::directory(&files[0])?;
    let variables = files::variables(request.env_files, &directory)?;
    let merged = Source { directory: &directory, variables: &variables, depth: 0 }.read(&files)?;
    project(request, &merged, &directory, &variables).with_context(|| files[0].display().to_string())
}

/// Where files stand that are read together, and what their variables mean.
struct Source<'a> {
    directory: &'a Path,
    variables: &'a Variables,
    /// How many files lead here, each including or extending the next.
    depth: usize,
}

impl Source<'_> {
    /// Reads files as one, each laid on the one before, with the files that they include.
    fn read(&self, files: &[PathBuf]) -> Result<Value> {
        let mut merged = Value::Null;
        for path in files {
            let read = files::read(path).and_then(|text| self.document(&text).context("read it"));
            let (value, replaced) = read.with_context(|| path.display().to_string())?;
            for place in &replaced {
                merge::remove(&mut merged, place);
            }
            if merged.is_null() { merged = value } else { merge::merge(&mut merged, value) }
        }
        Ok(merged)
    }

    /// Returns what a file says, and the places whose value in the files before it replaces.
    fn document(&self, text: &str) -> Result<(Value, Vec<Vec<String>>)> {
        // Files may include each other in a circle: a number is simpler than to compare what links and mounts give
        // many names.
        ensure!(self.depth <= MOST_FILES, "more than {MOST_FILES} files lead here: do they include each other?");
        let mut value = yaml::read(text)?;
        ensure!(value.is_object(), "no mapping");
        let mut replaced = Vec::new();
        merge::take_marks(&mut value, &mut Vec::new(), &mut replaced);
        // Before the files become one: an included file has other variables and another directory than the one that
        // includes it.
        interpolate(&mut value, "", self.variables)?;
        paths::resolve(&mut value, self.directory);
        let included = value.as_object_mut().and_then(|members| members.shift_remove("include"));
        if let Some(included) = included {
            for node in (Node { value: &included, place: "include".to_owned() }).items()? {
                self.include(&node, &mut value)?;
            }
        }
        Ok((value, replaced))
    }

    /// Adds what another project's files declare, which has a directory and variables of its own: compose-spec, 14.
    fn include(&self, node: &Node<'_>, into: &mut Value) -> Result<()> {
        let at = |path: String| self.directory.join(path);
        let listed = |key: &str| -> Result<Vec<PathBuf>> {
            Ok(node.get(key).map(|node| node.texts()).transpose()?.unwrap_or_default().into_iter().map(at).collect())
        };
        let (files, env_files, directory) = if node.value.is_object() {
            node.only("path env_file project_directory")?;
            let directory = node.get("project_directory").map(|node| node.text()).transpose()?.map(at);
            (listed("path")?, listed("env_file")?, directory)
        } else {
            (vec![at(node.text()?)], Vec::new(), None)
        };
        let first = files.first().ok_or_else(|| node.error("no path"))?;
        let directory = directory.map_or_else(|| files::directory(first), Ok)?;
        let default = directory.join(".env");
        let env_files = if env_files.is_empty() && default.is_file() { vec![default] } else { env_files };
        let mut variables = files::below(self.variables, &env_files)?;
        variables.extend(self.variables.clone());
        let other = Source { directory: &directory, variables: &variables, depth: self.depth + 1 }.read(&files)?;
        for (kind, members) in other.as_object().into_iter().flatten().filter(|(_, value)| value.is_object()) {
            for (name, member) in members.as_object().into_iter().flatten() {
                let old = into.get(kind).and_then(|own| own.get(name));
                // compose-spec, 14: a conflict is an error and nothing is merged; the same declaration by two ways is
                // none.
                if old.is_some_and(|old| old != member) {
                    return Err(node.error(format!("{kind}.{name} is declared twice")));
                }
                into[kind][name] = member.clone();
            }
        }
        Ok(())
    }
}

/// Turns merged files into services.
fn project(request: &ProjectRequest<'_>, merged: &Value, directory: &Path, variables: &Variables) -> Result<Project> {
    let file = Node::top(merged);
    file.only_or_named("name services volumes networks secrets configs", "version")?;
    let name = name_of(request, &file, directory, variables)?;
    let merged = extended(merged, variables)?;
    let file = Node::top(&merged);
    let made = request.directories.project(&name);
    let context = Context { name: &name, file: &file, rootless: request.rootless, variables, directory: &made };
    let services = file.get("services").ok_or_else(|| anyhow!("no services"))?.members()?;
    let profiles: Vec<&str> = match variables.get("COMPOSE_PROFILES") {
        Some(profiles) if request.profiles.is_empty() => profiles.split(',').collect(),
        _ => request.profiles.iter().map(String::as_str).collect(),
    };
    let outlines = services.iter().map(|(key, node)| service::outline(key, node)).collect::<Result<Vec<_>>>()?;
    // A service that does not take part may have what nobody supports.
    let mut wanted = request.services.to_vec();
    if request.dependents {
        let restarts = |on: &service::Dependency| on.restart && request.services.contains(&on.service);
        let dependents = outlines.iter().filter(|outline| outline.dependencies.iter().any(restarts));
        wanted.extend(dependents.map(|outline| outline.name.clone()));
    }
    let mut ordered = order::order(&outlines, &wanted, &profiles)?;
    ordered.retain(|index| !request.alone || wanted.is_empty() || wanted.contains(&outlines[*index].name));
    let read = |index: usize| service::read(outlines[index].clone(), &services[index].1, &context);
    let services = ordered.into_iter().map(read).collect::<Result<Vec<_>>>()?;
    let mut volumes = Vec::new();
    for (key, node) in file.get("volumes").map(|node| node.members()).transpose()?.unwrap_or_default() {
        let (name, own) = volume_name(&name, &key, &node)?;
        volumes.extend(own.then_some(name));
    }
    let containers = outlines.iter().filter_map(|outline| context.container_of(&outline.name).ok()).collect();
    let mut file = merged.clone();
    file["name"] = name.as_str().into();
    Ok(Project { file, name, services, containers, volumes })
}

/// Lays each service on the one that it extends: compose-spec, 05, `extends`.
fn extended(file: &Value, variables: &Variables) -> Result<Value> {
    let mut file = file.clone();
    let Some(services) = file.get("services").and_then(Value::as_object).cloned() else { return Ok(file) };
    for name in services.keys() {
        file["services"][name] = extend(&services, name, variables, 0)?;
    }
    Ok(file)
}

type Members = serde_json::Map<String, Value>;

fn extend(services: &Members, name: &str, variables: &Variables, depth: usize) -> Result<Value> {
    let service = services.get(name).ok_or_else(|| anyhow!("services: no service {name}"))?;
    let place = format!("services.{name}.extends");
    let Some(extends) = service.get("extends") else { return Ok(service.clone()) };
    let node = Node { value: extends, place };
    if depth > MOST_FILES {
        return Err(node.error("goes in a circle"));
    }
    let (base, file) = if extends.is_object() {
        node.only("service file")?;
        let base = node.get("service").ok_or_else(|| node.error("no service"))?.text()?;
        (base, node.get("file").map(|file| file.text()).transpose()?)
    } else {
        (node.text()?, None)
    };
    let mut others = None;
    if let Some(path) = file.map(PathBuf::from) {
        let source = Source { directory: &files::directory(&path)?, variables, depth };
        let other = source.read(&[path]).map_err(|what| node.error(format!("{what:#}")))?;
        others = Some(other.get("services").and_then(Value::as_object).cloned().unwrap_or_default());
    }
    let mut whole = extend(others.as_ref().unwrap_or(services), &base, variables, depth + 1)?;
    let mut own = service.clone();
    if let (Some(own), Some(whole)) = (own.as_object_mut(), whole.as_object_mut()) {
        own.shift_remove("extends");
        // These bind a service to others, which the heir may not have: compose-spec, 05, `extends`, restrictions.
        for key in ["depends_on", "links", "volumes_from", "container_name"] {
            whole.shift_remove(key);
        }
    }
    merge::merge(&mut whole, own);
    Ok(whole)
}

fn name_of(request: &ProjectRequest<'_>, file: &Node<'_>, directory: &Path, variables: &Variables) -> Result<String> {
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
    let is_name = !name.is_empty() && !name.starts_with(['-', '_']) && name.chars().all(fits);
    ensure!(is_name, cli::Usage(format!("project {name:?}: lower-case letters, digits, - and _ are expected")));
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests;
