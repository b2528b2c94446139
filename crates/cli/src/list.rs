//! Lists: a table for people, one JSON array for programs, or names alone.

use std::collections::HashSet;
use std::io::{self, Write};

use clap::Args;
use serde_json::Value;

/// How a list is printed, as an option block of a verb: `#[command(flatten)] form: cli::ListForm`.
#[derive(Args, Clone, Copy, Debug)]
pub struct ListForm {
    /// Print one JSON array
    #[arg(long)]
    json: bool,
    /// Print ids only
    #[arg(long, short)]
    quiet: bool,
}

impl ListForm {
    /// Prints rows. `id` is the member that stands for a row where only that is wanted, each once; `table` is for people.
    ///
    /// # Errors
    ///
    /// Those of the write. `BrokenPipe` is one of them: `main` takes it for a reader who has seen enough.
    pub fn print(self, rows: &[Value], id: &str, table: impl FnOnce() -> String) -> io::Result<()> {
        let mut seen = HashSet::new();
        let text = match self {
            Self { quiet: true, .. } => {
                let ids = rows.iter().filter_map(|row| row[id].as_str()).filter(|id| seen.insert(*id));
                ids.map(|id| id.to_owned() + "\n").collect()
            }
            Self { json: true, .. } => array(rows),
            Self { .. } => table(),
        };
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()
    }

    /// Tells whether a person reads it.
    pub fn is_table(self) -> bool {
        !self.json && !self.quiet
    }
}

/// Returns a JSON array with a line for each of its rows.
fn array(rows: &[Value]) -> String {
    let lines: Vec<String> = rows.iter().map(ToString::to_string).collect();
    format!("[{}]\n", lines.join(",\n"))
}

/// Returns a table, whose columns are as wide as what stands in them.
pub fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(|cell| crate::printable(cell))).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_is_aligned() {
        let row = |id: &str| [id, "x", "-", "/b\n"].map(str::to_owned);
        assert_eq!(table(&[row("ID"), row("longer")]), "ID      x  -  /b\\n\nlonger  x  -  /b\\n\n");
    }

    #[test]
    fn an_array_has_a_line_for_each_row() {
        assert_eq!(array(&[json!({"id": "a"}), json!({"id": "b"})]), "[{\"id\":\"a\"},\n{\"id\":\"b\"}]\n");
        assert_eq!(array(&[]), "[]\n");
    }
}
