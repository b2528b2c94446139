//! A service of the file as the options of one `run`: compose-spec, 05 (services).

use anyhow::Result;
use container::ContainerId;

use crate::context::{Context, ProjectNetwork};
use crate::node::Node;

mod build;
mod environment;
mod field;
mod health;
mod mount;
mod network;

pub(crate) use mount::MadeFile;

/// When a service counts as ready for those that depend on it: compose-spec, 05, `depends_on`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DependencyCondition {
    /// Its container runs.
    Started,
    /// Its health check passes.
    Healthy,
    /// It ended with exit code 0.
    Completed,
}

/// A service that another one needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dependency {
    /// The service's name.
    pub(crate) service: String,
    /// What it has to have reached.
    pub(crate) condition: DependencyCondition,
    /// Without it the other one cannot start.
    pub(crate) required: bool,
    /// When `compose` makes it anew or restarts it, the other one restarts.
    pub(crate) restart: bool,
}

impl Dependency {
    fn on(service: String) -> Self {
        Self { service, condition: DependencyCondition::Started, required: true, restart: false }
    }
}

/// What decides whether and when a service starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outline {
    /// Its key in the file.
    pub(crate) name: String,
    /// Those it needs, each once.
    pub(crate) dependencies: Vec<Dependency>,
    /// It takes part only if one of these is on; always if there is none.
    pub(crate) profiles: Vec<String>,
}

/// A service, ready to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    /// Its key in the file.
    pub(crate) name: String,
    /// The container's id.
    pub(crate) container: ContainerId,
    /// Those it needs, each once.
    pub(crate) dependencies: Vec<Dependency>,
    /// The networks that it joins.
    pub(crate) networks: Vec<ProjectNetwork>,
    /// Options of `run`.
    pub(crate) options: Vec<String>,
    /// The secrets and configs that are no files of the host's.
    pub(crate) files: Vec<MadeFile>,
    /// The image and the command.
    pub(crate) operands: Vec<String>,
    /// How the image is built, if the file says that: options and the context.
    pub(crate) build: Option<Vec<String>>,
    /// Whether it is built where it is missing: the file names none that could be fetched.
    pub(crate) has_own_image: bool,
}

/// Keys that other functions than the table read.
const READ: &str = "image build command entrypoint container_name depends_on profiles environment env_file pull_policy gpus \
    ports volumes volumes_from networks network_mode healthcheck logging ulimits deploy secrets configs links scale";

/// The label by which a container is known to be what the file says now: the same as docker's.
pub(crate) const CONFIG_HASH: &str = "com.docker.compose.config-hash";

/// FNV-1a of 64 bits: the same always and everywhere.
fn fnv<'a>(words: impl IntoIterator<Item = &'a String>) -> u64 {
    let bytes = words.into_iter().flat_map(|word| word.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Reads what decides whether and when the service `name` starts.
pub(crate) fn outline(name: &str, node: &Node<'_>) -> Result<Outline> {
    let profiles = node.get("profiles").map(|node| node.texts()).transpose()?.unwrap_or_default();
    Ok(Outline { name: name.to_owned(), dependencies: dependencies(node)?, profiles })
}

/// Reads the service of that outline.
pub(crate) fn read(outline: Outline, node: &Node<'_>, context: &Context<'_>) -> Result<Service> {
    let Outline { name, dependencies, .. } = outline;
    let build = match node.get("build").map(|build| build::words(&build, context)) {
        Some(Err(error)) if node.get("image").is_some() => {
            log::warn!("{error}: its image is not built, but fetched");
            None
        }
        build => build.transpose()?,
    };
    let own_image = build.as_ref().filter(|_| node.get("image").is_none()).map(|_| format!("{}-{name}", context.name));
    // The one that docker takes anyway is no wish for another.
    let runs_as_usual = node.get("runtime").is_some_and(|runtime| runtime.value == "runc");
    let named = if runs_as_usual { "develop attach runtime" } else { "develop attach" };
    node.only_or_named(&(field::keys(field::SERVICE) + READ), named)?;
    let container = match node.get("container_name") {
        Some(container) => container.name()?,
        None => context.container(&name).map_err(|what| node.error(what))?,
    };
    let mut options = vec!["--name".to_owned(), container.to_string()];
    options.extend(context.labels(&name));
    options.extend(field::options(node, field::SERVICE, context)?);
    options.extend(environment::options(node, context)?);
    match node.get("pull_policy").filter(|_| own_image.is_some()) {
        Some(policy) => policy.has_no_effect(),
        None => options.extend(field::pull(node)?),
    }
    options.extend(field::limits(node)?);
    let (joining, networks) = network::options(&name, node, context)?;
    options.extend(joining);
    let (mounts, files) = mount::options(node, context)?;
    options.extend(mounts);
    options.extend(health::options(node, context)?);
    let has_own_image = own_image.is_some();
    let operands = operands(node, own_image, &mut options)?;
    let settings = networks.iter().flat_map(|network| &network.settings);
    let hash = fnv(options.iter().chain(&operands).chain(settings));
    options.extend(["--label".to_owned(), format!("{CONFIG_HASH}={hash:016x}")]);
    Ok(Service { name, container, dependencies, networks, options, files, operands, build, has_own_image })
}

/// Returns the image and the command, behind `--`: what a file says is never an option.
fn operands(node: &Node<'_>, own_image: Option<String>, options: &mut Vec<String>) -> Result<Vec<String>> {
    let given = || node.get("image").ok_or_else(|| node.error("no image")).and_then(|image| image.text());
    let image = own_image.map_or_else(given, Ok)?;
    if image.starts_with('-') || image.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(node.error(format!("image: {image:?} is not the name of an image")));
    }
    if let Some(entrypoint) = node.get("entrypoint") {
        // As a JSON list, which may be empty: the image's command remains then.
        options.extend(["--entrypoint".to_owned(), serde_json::to_string(&words(&entrypoint)?)?]);
    }
    let mut operands = vec!["--".to_owned(), image];
    if let Some(command) = node.get("command") {
        operands.extend(words(&command)?);
    }
    Ok(operands)
}

/// Returns the words of a command: a list has them, a text is split as a shell would split it.
fn words(node: &Node<'_>) -> Result<Vec<String>> {
    if node.value.is_array() {
        return node.texts();
    }
    split(&node.text()?).ok_or_else(|| node.error("a quotation mark is not closed"))
}

/// Splits at blanks outside of quotation marks: POSIX, Shell Command Language, 2.2.
fn split(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            ' ' | '\t' | '\n' => words.extend(word.take()),
            '\'' => quoted(&mut characters, '\'', word.get_or_insert_default())?,
            '"' => quoted(&mut characters, '"', word.get_or_insert_default())?,
            '\\' => word.get_or_insert_default().push(characters.next()?),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Some(words)
}

fn quoted(characters: &mut std::str::Chars<'_>, mark: char, word: &mut String) -> Option<()> {
    loop {
        match characters.next()? {
            c if c == mark => return Some(()),
            '\\' if mark == '"' => {
                let next = characters.next()?;
                if !matches!(next, '"' | '\\' | '$' | '`') {
                    word.push('\\');
                }
                word.push(next);
            }
            c => word.push(c),
        }
    }
}

fn dependencies(node: &Node<'_>) -> Result<Vec<Dependency>> {
    let mut found: Vec<Dependency> = Vec::new();
    for link in node.get("links").map(|node| node.texts()).transpose()?.unwrap_or_default() {
        found.push(Dependency::on(link.split(':').next().unwrap_or_default().to_owned()));
    }
    for (service, node) in node.get("depends_on").map(|node| node.named()).transpose()?.unwrap_or_default() {
        found.retain(|dependency| dependency.service != service);
        // Of files that are merged one may have a list, whose names have no value then.
        let plain = node.value.is_string() || node.value.is_null();
        found.push(if plain { Dependency::on(service) } else { dependency(service, &node)? });
    }
    for key in ["network_mode", "pid", "ipc"] {
        let text = node.get(key).map(|node| node.text()).transpose()?.unwrap_or_default();
        if let Some(service) = text.strip_prefix("service:") {
            if found.iter().all(|dependency| dependency.service != service) {
                found.push(Dependency::on(service.to_owned()));
            }
        }
    }
    Ok(found)
}

fn dependency(service: String, node: &Node<'_>) -> Result<Dependency> {
    node.only("condition required restart")?;
    let condition = match node.get("condition") {
        None => DependencyCondition::Started,
        Some(condition) => match condition.text()?.as_str() {
            "service_started" => DependencyCondition::Started,
            "service_healthy" => DependencyCondition::Healthy,
            "service_completed_successfully" => DependencyCondition::Completed,
            other => return Err(condition.error(format!("{other} is not a condition"))),
        },
    };
    let required = node.get("required").map_or(Ok(true), |node| node.flag())?;
    let restart = node.get("restart").map_or(Ok(false), |node| node.flag())?;
    Ok(Dependency { service, condition, required, restart })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_split_as_a_shell_splits_them() {
        for (text, want) in [
            ("nginx -g 'daemon off;'", Some(vec!["nginx", "-g", "daemon off;"])),
            (r#"sh -c "echo \"$x\" \n""#, Some(vec!["sh", "-c", r#"echo "$x" \n"#])),
            ("a\\ b  ''\n", Some(vec!["a b", ""])),
            ("", Some(vec![])),
            ("'a", None),
            ("\"a", None),
            ("a\\", None),
        ] {
            assert_eq!(split(text), want.map(|words| words.into_iter().map(str::to_owned).collect()), "{text}");
        }
    }
}
