//! The command line of `ns list`, which is that of `lsns(8)` and some more.

use std::io::IsTerminal;

use anyhow::Result;
use clap::{Args, Parser};
use sys::namespace::Kind;

use crate::list::{self, Column, ListFormat, ListRequest, Look, Only, RowFilter, RowTree};

/// List namespaces, their processes and the containers that they belong to
#[derive(Args)]
#[expect(clippy::struct_field_names, reason = "the fields are named as lsns's options")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of lsns")]
#[command(after_help = include_str!("../examples/list.txt"))]
#[rustfmt::skip] // An option a line.
pub(crate) struct List {
    /// Only this namespace's processes
    #[arg(value_name = "INODE", conflicts_with = "task")] namespace: Option<u64>,
    /// Write one JSON document, in lsns's shape
    #[arg(short = 'J', long)] json: bool,
    /// Write one JSON object a line
    #[arg(long, conflicts_with_all = ["json", "raw"])] json_lines: bool,
    /// Write rows one after the other, not as a tree
    #[arg(short, long)] list: bool,
    /// Print no line with the columns' names
    #[arg(short, long)] noheadings: bool,
    /// Columns, with commas between; `+` in front keeps the default ones
    #[arg(short, long, value_name = "LIST")] output: Option<String>,
    /// All columns
    #[arg(long)] output_all: bool,
    /// Only namespaces without a process
    #[arg(short = 'P', long)] persistent: bool,
    /// Only network namespaces that have a name, as `ip netns` lists them
    #[arg(long, conflicts_with_all = ["persistent", "type", "namespace"])] named: bool,
    /// Only this process's namespaces
    #[arg(short = 'p', long, value_name = "PID")] task: Option<i32>,
    /// Only rows that match the expression: scols-filter(5)
    #[arg(short = 'Q', long, value_name = "EXPR")] filter: Option<RowFilter>,
    /// Write one line a row, for programs
    #[arg(short, long, conflicts_with = "json")] raw: bool,
    /// Do not cut long lines
    #[arg(short = 'u', long)] notruncate: bool,
    /// One line for each row
    #[arg(short = 'W', long)] nowrap: bool,
    /// Only this type: mnt, net, ipc, user, pid, uts, cgroup or time; may be given more than once
    #[arg(short, long, value_name = "TYPE", value_parser = kind, value_delimiter = ',')] r#type: Vec<Kind>,
    /// Relation that puts a row below another: process, parent or owner
    #[arg(short = 'T', long, value_name = "RELATION", num_args = 0..=1, require_equals = true, default_missing_value = "owner")]
    tree: Option<RowTree>,
    /// List also namespaces that only a thread, an open descriptor or a socket keeps
    #[arg(long)] refs: bool,
    /// List the columns
    #[arg(short = 'H', long)] list_columns: bool,
    #[command(flatten)] roots: cli::Roots,
}

/// List namespaces, with the command line of util-linux's program of this name
#[derive(Parser)]
#[command(name = "lsns", version, about)]
pub(crate) struct Lsns {
    #[command(flatten)]
    pub(crate) list: List,
}

impl List {
    /// Lists; `lsns` is whether we are called by that name, and so have no columns of our own.
    pub(crate) fn run(self, lsns: bool) -> Result<()> {
        let look = Look { no_headings: self.noheadings, no_wrap: self.nowrap, width: self.width() };
        let format = match (self.json, self.json_lines, self.raw) {
            (true, ..) => ListFormat::Json { no_wrap: self.nowrap },
            (_, true, _) => ListFormat::Lines,
            (.., true) => ListFormat::Raw(look),
            _ => ListFormat::Text(look),
        };
        if self.list_columns {
            return list::list_columns(lsns, format);
        }
        let only = self.task.map(Only::Task).or(self.namespace.map(Only::Namespace));
        // All columns are for programs: lsns draws no tree then, unless it is asked to.
        let plain = (self.output_all || self.list) && self.tree.is_none();
        let flat = plain || matches!(format, ListFormat::Raw(_) | ListFormat::Lines);
        let request = ListRequest {
            columns: self.columns(lsns)?,
            kinds: match (self.named, self.r#type.is_empty()) {
                (true, _) => vec![Kind::Network],
                (_, true) => Kind::ALL.to_vec(),
                _ => self.r#type,
            },
            filter: self.filter,
            tree: if flat { None } else { Some(self.tree.unwrap_or(RowTree::Process)) },
            only,
            persistent: self.persistent,
            named: self.named,
            // lsns looks for them always.
            refs: self.refs || lsns,
            states: self.roots.directories().states(),
        };
        list::list(&request, format)
    }

    fn columns(&self, lsns: bool) -> Result<Vec<Column>> {
        if self.output_all {
            return Ok(Column::all(lsns).collect());
        }
        let net = self.named || self.r#type.contains(&Kind::Network);
        let mut columns = match self.namespace {
            Some(_) => vec![Column::Pid, Column::Ppid, Column::User],
            None => vec![Column::Ns, Column::Type, Column::Nprocs, Column::Pid, Column::User],
        };
        if net && self.namespace.is_none() {
            columns.extend([Column::Netnsid, Column::Nsfs]);
        }
        if !lsns {
            columns.push(Column::Container);
        }
        if self.json_lines {
            columns.push(Column::HeldBy);
        }
        columns.push(Column::Command);
        let Some(output) = &self.output else { return Ok(columns) };
        let names = output.strip_prefix('+').unwrap_or_else(|| {
            columns.clear();
            output
        });
        for name in names.split(',') {
            let column = Column::parse(name.trim()).ok_or_else(|| cli::Usage(format!("unknown column: {name}")))?;
            columns.push(column);
        }
        Ok(columns)
    }

    /// Lines are cut at the edge of a terminal, and nowhere else.
    fn width(&self) -> Option<usize> {
        let stdout = std::io::stdout();
        if self.notruncate || !stdout.is_terminal() {
            return None;
        }
        let size = rustix::termios::tcgetwinsize(&stdout).ok()?;
        (size.ws_col > 0).then(|| size.ws_col.into())
    }
}

pub(crate) fn kind(name: &str) -> Result<Kind, String> {
    Kind::from_name(name).ok_or_else(|| "unknown namespace type".to_owned())
}

cli::values! {
    RowTree { Process = "process", Parent = "parent", Owner = "owner", }
}
