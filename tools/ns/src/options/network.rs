//! The command lines of `ns network`.

use std::io::Write;

use anyhow::{Context, Result, anyhow, ensure};
use clap::{Args, Subcommand};
use container::NetworkName;
use serde_json::Value;

use super::add::{ROOM, room};
use super::settings::link_name;
use crate::network;
use crate::request::{NetworkDriver, NetworkSettings};

/// Create, list, inspect and remove networks that exist without a container
#[derive(Args, Debug)]
#[command(after_help = include_str!("../examples/network.txt"))]
pub(crate) struct Networks {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    roots: cli::Roots,
}

#[derive(Subcommand, Debug)]
#[rustfmt::skip] // An option a line.
enum Verb {
    Create(Box<Create>),
    /// List networks, both created ones and those of containers
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)] form: cli::ListForm,
    },
    /// Describe networks, as one JSON array
    Inspect {
        #[arg(required = true, value_name = "NETWORK")] names: Vec<NetworkName>,
    },
    /// Remove networks that no container belongs to, not even an ended one
    #[command(visible_aliases = ["remove", "delete"])]
    Rm {
        #[arg(required = true, value_name = "NETWORK")] names: Vec<NetworkName>,
        /// Ignore networks that do not exist
        #[arg(long, short)] force: bool,
    },
}

/// Create a network, which exists until it is removed
///
/// Its subnets are chosen now. Its bridge is made with the first container on it.
#[derive(Args, Debug)]
#[rustfmt::skip] // An option a line.
struct Create {
    /// The network's name
    name: NetworkName,
    #[command(flatten)] settings: NetworkSettings,
    /// How it joins its containers: bridge (1,023 at most), routed (any number), or macvlan (on --macvlan LINK or -o parent=LINK)
    #[arg(long, short, default_value = "bridge", hide_possible_values = true)] driver: NetworkDriver,
    /// Docker's options: com.docker.network.driver.mtu, `com.docker.network.bridge.enable_ip_masquerade`, parent
    #[arg(long, short, value_name = "KEY=VALUE")] opt: Vec<String>,
    /// Accept a network that already exists with these settings
    #[arg(long)] exist_ok: bool,
}

impl Networks {
    /// Does it, and prints the names of those that were made or removed.
    pub(crate) fn run(self) -> Result<()> {
        let directories = self.roots.directories();
        if matches!(self.verb, Verb::Create(_) | Verb::Rm { .. }) {
            let is_root = rustix::process::geteuid().is_root() && !cli::is_rootless();
            ensure!(is_root, "networks are bridges, and only root can make bridges");
            confine::enter(&room(ROOM))?;
        }
        match self.verb {
            Verb::Create(create) => {
                let (name, exist_ok) = (create.name.clone(), create.exist_ok);
                let made =
                    create.settings().and_then(|settings| network::create(&directories, &name, settings, exist_ok));
                made.with_context(|| format!("create {name}"))?;
                print(&name)
            }
            Verb::List { form } => {
                let rows = network::list(&directories)?;
                Ok(form.print(&rows, "name", || table(&rows))?)
            }
            Verb::Inspect { names } => {
                let mut rows = network::list(&directories)?;
                let has = |name: &&NetworkName| rows.iter().any(|row| row["name"] == ***name);
                names.iter().find(|name| !has(name)).map_or(Ok(()), |name| Err(anyhow!("no network {name}")))?;
                rows.retain(|row| names.iter().any(|name| row["name"] == **name));
                print(&serde_json::to_string_pretty(&rows)?)
            }
            Verb::Rm { names, force } => cli::each("ns", names, |name| {
                network::remove(&directories, &name, force).with_context(|| format!("rm {name}"))?;
                print(&name)
            }),
        }
    }
}

impl Create {
    fn settings(self) -> Result<NetworkSettings> {
        let mut settings = NetworkSettings { driver: self.driver, ..self.settings };
        for option in &self.opt {
            match option.split_once('=').unwrap_or((option, "")) {
                ("com.docker.network.driver.mtu", mtu) => settings.mtu = Some(mtu.parse().context(option.clone())?),
                ("com.docker.network.bridge.enable_ip_masquerade", is) => settings.no_masquerade = is == "false",
                ("parent", link) => settings.macvlan = Some(link_name(link).map_err(cli::Usage)?),
                _ => return Err(cli::Usage(format!("-o {option}: not honoured")).into()),
            }
        }
        let fits = settings.macvlan.is_some() == (self.driver == NetworkDriver::Macvlan);
        ensure!(fits, cli::Usage("macvlan is --driver macvlan with --macvlan LINK or -o parent=LINK".to_owned()));
        Ok(settings)
    }
}

fn print(text: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

/// Writes a value for people: what an array has, and the names of an object's members, with commas.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(","),
        Value::Object(members) => members.keys().cloned().collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

fn table(rows: &[Value]) -> String {
    let members = ["name", "driver", "subnets", "internal", "containers"];
    let lines = rows.iter().map(|row| members.map(|member| text(&row[member])));
    cli::table(&[vec![members.map(str::to_uppercase)], lines.collect()].concat())
}
