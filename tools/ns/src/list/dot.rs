//! A table of namespaces as a picture: Graphviz's language (`dot(1)`), one node a namespace, containers as frames.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::column::Column;
use super::table::{Row, RowTable, one_line};

/// The columns that a node shows.
pub(crate) const COLUMNS: [Column; 6] =
    [Column::Ns, Column::Type, Column::Nprocs, Column::Pid, Column::Container, Column::Command];
/// What a frame shows of a command at most, in characters.
const COMMAND: usize = 40;

/// Writes the table, whose columns are [`COLUMNS`].
pub(crate) fn write(table: &RowTable) -> String {
    let mut out = String::from("digraph namespaces {\n  rankdir=LR; node [shape=box, fontname=monospace];\n");
    let mut framed: BTreeMap<String, Vec<&Row>> = BTreeMap::new();
    for row in &table.rows {
        framed.entry(text(row, Column::Container)).or_default().push(row);
    }
    // Writing to a string cannot fail.
    for (place, (container, rows)) in framed.iter().enumerate() {
        let frame = !container.is_empty();
        if frame {
            let _written = writeln!(out, "  subgraph cluster{place} {{ label={};", quote(container));
        }
        for row in rows {
            let _written = writeln!(out, "  n{} [label={}];", text(row, Column::Ns), quote(&label(row)));
        }
        if frame {
            out.push_str("  }\n");
        }
    }
    for row in &table.rows {
        if let Some(above) = row.parent.and_then(|parent| table.rows.get(parent)) {
            let _written = writeln!(out, "  n{} -> n{};", text(above, Column::Ns), text(row, Column::Ns));
        }
    }
    out.push_str("}\n");
    out
}

fn label(row: &Row) -> String {
    let command: String = text(row, Column::Command).chars().take(COMMAND).collect();
    let count = text(row, Column::Nprocs);
    let name = format!("{} {}", text(row, Column::Type), text(row, Column::Ns));
    if count == "0" { name } else { format!("{name}\n{count} from {} {command}", text(row, Column::Pid)) }
}

fn text(row: &Row, column: Column) -> String {
    let cell = COLUMNS.iter().position(|known| *known == column).and_then(|place| row.cells.get(place));
    cell.map(one_line).unwrap_or_default()
}

/// Quotes a text: line ends become line breaks of the label, what else is not printed becomes visible.
fn quote(text: &str) -> String {
    let text = text.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n");
    format!("\"{}\"", text.replace(char::is_control, "?"))
}

#[cfg(test)]
mod tests {
    use super::super::table::Cell;
    use super::*;

    #[test]
    fn a_hostile_command_stays_within_its_label() {
        let row = |inode, container: &str, command: &str, parent| {
            let cells = vec![
                Cell::Number(inode),
                Cell::Text("net".into()),
                Cell::Number(1),
                Cell::Number(7),
                if container.is_empty() { Cell::None } else { Cell::Text(container.into()) },
                Cell::Text(command.into()),
            ];
            Row { cells, parent }
        };
        let rows = vec![row(1, "", "init", None), row(2, "web", "a\"]; x\\\u{1b}", Some(0))];
        let table = RowTable { columns: COLUMNS.to_vec(), rows, tree: Some(Column::Ns) };
        assert_eq!(
            write(&table).lines().skip(2).collect::<Vec<_>>(),
            [
                "  n1 [label=\"net 1\\n1 from 7 init\"];",
                "  subgraph cluster1 { label=\"web\";",
                "  n2 [label=\"net 2\\n1 from 7 a\\\"]; x\\\\?\"];",
                "  }",
                "  n1 -> n2;",
                "}",
            ]
        );
    }
}
