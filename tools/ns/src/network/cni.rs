//! Networks that CNI's plugins make: a network configuration list is run as the CNI specification 1.1.0 has it (sections 2
//! to 4). What `ns del` will need, the list and the result, is kept in one file a container.

use std::ffi::OsString;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail, ensure};
use container::{ContainerId, Directories, NetworkNote, Owner, Ownership};
use netlink::route::Router;
use record::Network;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sys::signal::SignalFd;

use super::lock::lock;
use super::owner::PortAlias;
use super::plan::Step;
use super::work::Work;
use super::{BundleConfig, Joiner, finish, hand_on, named, note};

/// Where the lists and results of containers are.
const NOTE: NetworkNote = NetworkNote::Cni;
/// Where plugins are, if `CNI_PATH` does not say.
const PLUGINS: &str = "/opt/cni/bin:/usr/lib/cni:/usr/libexec/cni";
/// The longest list or result.
const LONGEST: usize = 1 << 20;

/// A container's attachment, as it is kept.
#[derive(Deserialize, Serialize)]
struct Attachment {
    id: ContainerId,
    #[serde(skip)]
    path: PathBuf,
    owner: Option<Owner>,
    interface: String,
    list: Map<String, Value>,
    result: Option<Value>,
}

/// Makes a container's network by the plugins of the list at `path`, and prints the record with the result.
pub(crate) fn add(mut target: Joiner, path: &Path, interface: &str) -> Result<()> {
    let (id, owner) = (&target.id.clone(), target.owner);
    let config = target.bundle.as_deref().map(BundleConfig::read).transpose()?;
    let list = read_list(path).with_context(|| format!("read {}", path.display()))?;
    {
        // The plugins lock what is theirs: they may take their time.
        let _lock = lock()?;
        ensure!(!named::exists(id), "network namespace {id} exists: is it another container's?");
    }
    let signals = SignalFd::block(&[Signal::INT, Signal::TERM, Signal::HUP])?;
    let mut work = Work::new(Router::open().context("open a routing socket")?, &target.directories);
    let (path, interface) = (target.directories.network_note(NOTE, id), interface.to_owned());
    let mut attachment = Attachment { id: id.clone(), path, owner: Some(owner), interface, list, result: None };
    let alias = PortAlias { id: id.clone(), owner: Some(owner), addresses: vec![] };
    let done = work.apply(&[Step::Namespace(alias), Step::Up("lo".to_owned())]).and_then(|()| {
        // Before anything is made: whoever is killed now can be cleaned up after.
        attachment.keep()?;
        attachment.add()?;
        attachment.keep()?;
        let Some(Value::Object(result)) = attachment.result.clone() else { bail!("the plugins gave no result") };
        finish(&mut target, config.as_ref(), &container::namespace(id), &Network(result))?;
        hand_on(&target, &signals)
    });
    if done.is_err() {
        for undone in [attachment.delete(), config.as_ref().map_or(Ok(()), BundleConfig::restore)] {
            cli::warn(undone.context("undo"));
        }
        work.undo();
    }
    done
}

/// Lets the plugins undo what they have made for a container, if they have made something.
pub(crate) fn delete(directories: &Directories, id: &ContainerId, whose: Ownership) -> Result<()> {
    match Attachment::kept(directories, id)? {
        Some(attachment) if whose.covers(attachment.owner) => attachment.delete(),
        _ => Ok(()),
    }
}

impl Attachment {
    /// Runs the plugins in their order, each with the result of the one before.
    fn add(&mut self) -> Result<()> {
        // CNI specification, section 3, "Adding an attachment": one after another, each with `prevResult`. A failure
        // leaves the rest out, and the runtime calls DEL for all.
        for plugin in self.plugins() {
            let printed = self.execute("ADD", &plugin)?;
            let result = serde_json::from_slice(&printed).with_context(|| format!("result of {}", name(&plugin)))?;
            self.result = Some(result);
        }
        Ok(())
    }

    /// Runs them in reverse, each with the last one's result. What is gone already is no error for a plugin.
    fn delete(&self) -> Result<()> {
        let mut first = Ok(());
        // All are called although one fails, and the file stays, so that it can be tried again: a plugin has to take
        // what is gone already for deleted (section 2, "DEL").
        for plugin in self.plugins().iter().rev() {
            first = first.and(self.execute("DEL", plugin).map(|_| ()));
        }
        first?;
        Ok(sys::file::there(fs::remove_file(&self.path)).map(drop)?)
    }

    fn plugins(&self) -> Vec<Map<String, Value>> {
        let plugins = self.list.get("plugins").and_then(Value::as_array);
        plugins.into_iter().flatten().filter_map(Value::as_object).cloned().collect()
    }

    /// Executes one plugin and returns what it prints.
    fn execute(&self, command: &str, plugin: &Map<String, Value>) -> Result<Vec<u8>> {
        let mut configuration = plugin.clone();
        for member in ["name", "cniVersion"] {
            configuration.insert(member.to_owned(), self.list.get(member).cloned().unwrap_or_default());
        }
        if let Some(result) = &self.result {
            configuration.insert("prevResult".to_owned(), result.clone());
        }
        let paths = std::env::var_os("CNI_PATH").unwrap_or_else(|| OsString::from(PLUGINS));
        let (kind, netns) = (name(plugin), container::namespace(&self.id));
        let program = std::env::split_paths(&paths).map(|directory| directory.join(kind)).find(|path| path.is_file());
        let program = program.ok_or_else(|| anyhow!("no plugin {kind} in {}", paths.to_string_lossy()))?;
        log::debug!("{command} {}", program.display());
        let run = || -> std::io::Result<std::process::Output> {
            let mut child = Command::new(&program)
                .env("CNI_COMMAND", command)
                .env("CNI_CONTAINERID", &*self.id)
                // Empty where the namespace is gone: a plugin then releases what it has outside, addresses and rules
                // (section 2, "DEL").
                .env("CNI_NETNS", if netns.exists() { netns.as_os_str() } else { "".as_ref() })
                .env("CNI_IFNAME", &self.interface)
                .env("CNI_PATH", &paths)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::inherit())
                .spawn()?;
            let configuration = Value::Object(configuration).to_string();
            let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(configuration.as_bytes()));
            // It may fail without having read.
            written.or_else(|error| if error.kind() == ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })?;
            child.wait_with_output()
        };
        let output = run().with_context(|| format!("execute {}", program.display()))?;
        ensure!(output.stdout.len() <= LONGEST, "plugin {kind}: {command} printed {} bytes", output.stdout.len());
        if output.status.success() {
            return Ok(output.stdout);
        }
        // An error comes on stdout too, as JSON: section 5, "Error". stderr is for people, and goes through.
        let error: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let member = |name: &str| error.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let told: Vec<&str> = ["msg", "details"].into_iter().filter_map(member).collect();
        let told = if told.is_empty() { output.status.to_string() } else { told.join(": ") };
        bail!("plugin {kind}: {command}: {}", told.replace('\n', " "))
    }

    fn keep(&self) -> Result<()> {
        note::write(&self.path, self, false)
    }

    fn kept(directories: &Directories, id: &ContainerId) -> Result<Option<Self>> {
        let path = directories.network_note(NOTE, id);
        Ok(note::read(&path)?.map(|kept| Self { path, ..kept }))
    }
}

fn name(plugin: &Map<String, Value>) -> &str {
    plugin.get("type").and_then(Value::as_str).unwrap_or_default()
}

/// Reads a list; a configuration of one plugin, as CNI had them before 0.3.0, becomes a list of one.
fn read_list(path: &Path) -> Result<Map<String, Value>> {
    let text = fs::read(path)?;
    ensure!(text.len() <= LONGEST, "longer than {LONGEST} bytes");
    parse_list(&text)
}

pub(crate) fn parse_list(text: &[u8]) -> Result<Map<String, Value>> {
    let Value::Object(mut list) = serde_json::from_slice(text)? else { bail!("not an object") };
    if list.contains_key("type") && !list.contains_key("plugins") {
        list.insert("plugins".to_owned(), json!([Value::Object(list.clone())]));
    }
    ensure!(list.get("name").and_then(Value::as_str).is_some_and(|name| !name.is_empty()), "it has no name");
    list.entry("cniVersion").or_insert_with(|| json!("0.2.0"));
    let plugins = list.get("plugins").and_then(Value::as_array).filter(|plugins| !plugins.is_empty());
    for plugin in plugins.ok_or_else(|| anyhow!("it has no plugins"))? {
        let kind = plugin.get("type").and_then(Value::as_str).unwrap_or_default();
        let is_name = !kind.is_empty() && !kind.contains('/') && kind != "..";
        // The type is joined to a directory of `CNI_PATH`, and executed as root. Section 1 allows no slash in it.
        ensure!(is_name, "a plugin's type {kind:?} is not a program");
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_its_plugins() {
        for (text, want) in [
            (r#"{"name":"lab","cniVersion":"1.0.0","plugins":[{"type":"bridge"},{"type":"portmap"}]}"#, Ok(2)),
            (r#"{"name":"lab","type":"macvlan"}"#, Ok(1)),
            (r#"{"name":"lab","plugins":[]}"#, Err("it has no plugins")),
            (r#"{"plugins":[{"type":"bridge"}]}"#, Err("it has no name")),
            (r#"{"name":"lab","plugins":[{"type":"../sh"}]}"#, Err("a plugin's type \"../sh\" is not a program")),
            (r#"{"name":"lab","plugins":[{"kind":"x"}]}"#, Err("a plugin's type \"\" is not a program")),
            ("[]", Err("not an object")),
        ] {
            let list = parse_list(text.as_bytes()).map_err(|error| error.to_string());
            let count = list.map(|list| list["plugins"].as_array().map_or(0, Vec::len));
            assert_eq!(count, want.map_err(str::to_owned), "{text}");
        }
    }
}
