//! The CNI plugin `portmap` (CNI specification 1.1.0): chained behind a plugin that gives the container its address.
//! What the standard plugin does not do: two owners of a port are refused, `GC` and `STATUS` work.

mod config;

use std::env;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, anyhow, ensure};
use container::ContainerId;
use record::Network;
use serde_json::{Value, json};

use crate::condition::Conditions;
use crate::firewall::Firewall;
use crate::mapping::Mapping;
use crate::owner::{Attachment, MappingOwner};
use crate::publish::{self, Manner, Masquerade};
use crate::spec::PortSpec;
use crate::target::Target;

use config::Config;

const SUPPORTED: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// No configuration is this long. Bytes.
const CONFIG_LIMIT: u64 = 16 << 20;

/// The specification's numbers for what goes wrong ("Error").
const INCOMPATIBLE_VERSION: u32 = 1;
const INVALID_ENVIRONMENT: u32 = 4;
const MALFORMED: u32 = 6;
const INVALID_CONFIG: u32 = 7;
const NOT_AVAILABLE: u32 = 50;
/// From 100 on they are the plugin's own.
const FAILED: u32 = 100;

/// Tells whether a runtime calls this as a plugin, and what it asks.
pub(crate) fn command() -> Option<String> {
    env::var("CNI_COMMAND").ok().filter(|command| !command.is_empty())
}

/// What a runtime is told instead of a result.
struct Failure {
    code: u32,
    error: anyhow::Error,
}

impl Failure {
    fn of(code: u32) -> impl Fn(anyhow::Error) -> Self {
        move |error| Self { code, error }
    }
}

/// Does what a runtime asks, and prints the result or the error, both as JSON on stdout.
pub(crate) fn run(command: &str) -> ExitCode {
    let mut text = Vec::new();
    let read = io::stdin().lock().take(CONFIG_LIMIT).read_to_end(&mut text).context("read the configuration");
    let parsed = read.map_err(Failure::of(MALFORMED)).and_then(|_| parse(command, &text));
    let version = parsed.as_ref().ok().and_then(|config| config.cni_version.clone());
    let result = parsed.and_then(|config| answer(command, &config));
    let (text, code) = match result {
        Ok(None) => (String::new(), ExitCode::SUCCESS),
        Ok(Some(result)) => (result.to_string() + "\n", ExitCode::SUCCESS),
        Err(Failure { code, error }) => {
            let version = version.unwrap_or_else(|| SUPPORTED[0].to_owned());
            let text =
                json!({"cniVersion": version, "code": code, "msg": format!("portmap: {error:#}"), "details": ""});
            (text.to_string() + "\n", ExitCode::FAILURE)
        }
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

/// VERSION needs no configuration.
fn parse(command: &str, text: &[u8]) -> Result<Config, Failure> {
    if command == "VERSION" {
        return Ok(Config::parse(text).unwrap_or_default());
    }
    Config::parse(text).context("the configuration").map_err(Failure::of(MALFORMED))
}

fn answer(command: &str, config: &Config) -> Result<Option<Value>, Failure> {
    if command == "VERSION" {
        let version = config.cni_version.as_deref().unwrap_or("1.1.0");
        return Ok(Some(json!({"cniVersion": version, "supportedVersions": SUPPORTED})));
    }
    let version = config.version();
    if !SUPPORTED.contains(&version) {
        return Err(Failure::of(INCOMPATIBLE_VERSION)(anyhow!("CNI version {version} is not supported")));
    }
    match command {
        "ADD" => add(config),
        "DEL" => del(config).map(|()| None),
        "CHECK" => check(config).map(|()| None),
        "GC" => gc(config).map(|()| None).map_err(Failure::of(FAILED)),
        "STATUS" => status().map(|()| None).map_err(Failure::of(NOT_AVAILABLE)),
        _ => Err(Failure::of(INVALID_ENVIRONMENT)(anyhow!("CNI_COMMAND {command} is not known"))),
    }
}

/// Reads for whom `ADD` and `CHECK` are, what the plugins before have done, and the ports.
fn asked(config: &Config) -> Result<(Target, Network, Vec<PortSpec>), Failure> {
    let owner = owner(config).map_err(Failure::of(INVALID_ENVIRONMENT))?;
    let previous = config.previous().map_err(Failure::of(INVALID_CONFIG))?;
    let specs = config.specs().map_err(Failure::of(INVALID_CONFIG))?;
    let addresses = Target::one_of_each_family(&previous.addresses());
    Ok((Target { owner, addresses, pid: None, bundle: None }, previous, specs))
}

fn add(config: &Config) -> Result<Option<Value>, Failure> {
    let (target, previous, specs) = asked(config)?;
    if !specs.is_empty() {
        let conditions = config.conditions().map_err(Failure::of(INVALID_CONFIG))?;
        let publish = |mut firewall| publish::publish(&mut firewall, &target, &specs, manner(config, &conditions));
        Firewall::open().and_then(publish).map_err(Failure::of(FAILED))?;
    }
    // A chained plugin prints the result of the one before, changed or not: without it the container's addresses
    // would be lost to the runtime (section 3).
    Ok(Some(Value::Object(previous.0)))
}

fn manner<'a>(config: &Config, conditions: &'a Conditions) -> Manner<'a> {
    let masquerade = match (config.snat, config.masq_all) {
        (false, _) => Masquerade::Nothing,
        (true, false) => Masquerade::OwnNetwork,
        (true, true) => Masquerade::All,
    };
    // Runtimes bind to the ports themselves, in order to hold them.
    Manner { probe: false, directories: None, masquerade, conditions: Some(conditions) }
}

/// Succeeds if there is nothing any more: runtimes call it more than once, and after the namespace is gone.
fn del(config: &Config) -> Result<(), Failure> {
    let owner = owner(config).map_err(Failure::of(INVALID_ENVIRONMENT))?;
    publish::withdraw(Some(&owner.id), |mapping| is_of(mapping, &owner)).map_err(Failure::of(FAILED))
}

fn is_of(mapping: &Mapping, owner: &MappingOwner) -> bool {
    let MappingOwner { id, owner: none, attachment, .. } = owner;
    (&mapping.owner.id, mapping.owner.owner, &mapping.owner.attachment) == (id, *none, attachment)
}

fn check(config: &Config) -> Result<(), Failure> {
    let (target, _, specs) = asked(config)?;
    let conditions = config.conditions().map_err(Failure::of(INVALID_CONFIG))?;
    let check = |mut firewall| publish::check(&mut firewall, &target, &specs, &conditions);
    Firewall::open().and_then(check).map_err(Failure::of(FAILED))
}

/// Removes what belongs to attachments of this network that are no more.
fn gc(config: &Config) -> anyhow::Result<()> {
    let valid = config.valid_attachments();
    publish::withdraw(None, |mapping| {
        let attachment = mapping.owner.attachment.as_ref().filter(|attachment| attachment.network == config.name);
        attachment
            .is_some_and(|attachment| !valid.contains(&(mapping.owner.id.as_str(), attachment.interface.as_str())))
    })
}

fn status() -> anyhow::Result<()> {
    Firewall::open()?.view().map(|_| ())
}

/// Reads who the ports are for out of the environment.
fn owner(config: &Config) -> anyhow::Result<MappingOwner> {
    let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let id = variable("CNI_CONTAINERID").context("CNI_CONTAINERID is missing")?;
    let interface = variable("CNI_IFNAME").context("CNI_IFNAME is missing")?;
    let id: ContainerId = id.parse().context("CNI_CONTAINERID")?;
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    ensure!(plain(&interface), "CNI_IFNAME is not the name of an interface");
    // Both become words of the comment in the firewall, between which there are blanks.
    ensure!(plain(&config.name), "the network's name has spaces");
    let attachment = Some(Attachment { interface, network: config.name.clone() });
    Ok(MappingOwner { attachment, ..MappingOwner::new(&id, None, variable("CNI_NETNS").map(PathBuf::from)) })
}
