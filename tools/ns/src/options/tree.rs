//! The command line of `ns tree`.

use anyhow::Result;
use clap::Args;
use sys::namespace::Kind;

use crate::list::{self, Column, ListFormat, ListRequest, Look, RowTree};

/// Draw which namespace owns which
#[derive(Args, Debug)]
#[command(after_help = include_str!("../examples/tree.txt"))]
#[rustfmt::skip] // An option a line.
pub(crate) struct Draw {
    /// Write a graph for dot(1), with a frame for each container
    #[arg(long)] dot: bool,
    /// Draw each namespace's children below it, not the namespaces that it owns
    #[arg(long)] parent: bool,
    /// Only this type: mnt, net, ipc, user, pid, uts, cgroup or time; may be given more than once
    #[arg(short, long, value_name = "TYPE", value_parser = super::list::kind, value_delimiter = ',')] r#type: Vec<Kind>,
    #[command(flatten)] roots: cli::Roots,
}

impl Draw {
    /// Draws it.
    pub(crate) fn run(self) -> Result<()> {
        let columns = if self.dot {
            list::DOT_COLUMNS.to_vec()
        } else {
            vec![Column::Ns, Column::Type, Column::Nprocs, Column::Pid, Column::Container, Column::Command]
        };
        let request = ListRequest {
            columns,
            kinds: if self.r#type.is_empty() { Kind::ALL.to_vec() } else { self.r#type },
            tree: Some(if self.parent { RowTree::Parent } else { RowTree::Owner }),
            states: self.roots.directories().states(),
            ..ListRequest::default()
        };
        list::list(&request, if self.dot { ListFormat::Dot } else { ListFormat::Text(Look::default()) })
    }
}
