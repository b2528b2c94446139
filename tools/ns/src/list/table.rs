//! Rows and columns as text: aligned for people, with the tree's branches; or one line a row for programs.

use std::fmt::Write;

use serde::Serialize;

use super::column::Column;

/// One value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum Cell {
    None,
    Number(u64),
    Text(String),
    /// Several texts, one below the other.
    Lines(Vec<String>),
}

/// One row, and the row above it in the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) cells: Vec<Cell>,
    pub(crate) parent: Option<usize>,
}

/// Rows and columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RowTable {
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: Vec<Row>,
    /// The column in which the tree's branches stand; rows stand one after the other without one.
    pub(crate) tree: Option<Column>,
}

/// How a table is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Look {
    /// No line with the columns' names.
    pub(crate) no_headings: bool,
    /// Several texts of one cell stand side by side, with commas.
    pub(crate) no_wrap: bool,
    /// Where lines end: commands are cut there.
    pub(crate) width: Option<usize>,
}

impl RowTable {
    /// Returns the rows below each row, in order, and the topmost ones.
    pub(crate) fn children(&self) -> (Vec<usize>, Vec<Vec<usize>>) {
        let mut top = vec![];
        let mut below = vec![vec![]; self.rows.len()];
        let flat = self.tree.is_none_or(|tree| !self.columns.contains(&tree));
        for (index, row) in self.rows.iter().enumerate() {
            match row.parent.filter(|_| !flat).and_then(|parent| below.get_mut(parent)) {
                Some(siblings) => siblings.push(index),
                None => top.push(index),
            }
        }
        (top, below)
    }

    /// Writes the table for people.
    pub(crate) fn to_text(&self, look: Look) -> String {
        let blocks = self.blocks(look);
        let mut widths: Vec<usize> = self.columns.iter().map(|column| column.name().len()).collect();
        for line in blocks.iter().flatten() {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = (*width).max(cell.chars().count());
            }
        }
        if let (Some(limit), Some(command)) = (look.width, self.columns.iter().position(|c| *c == Column::Command)) {
            let excess = (widths.iter().sum::<usize>() + widths.len()).saturating_sub(limit + 1);
            if let Some(width) = widths.get_mut(command) {
                *width = width.saturating_sub(excess).max(Column::Command.name().len());
            }
        }
        let mut text = String::new();
        if !look.no_headings {
            let names: Vec<String> = self.columns.iter().map(|column| column.name().to_owned()).collect();
            self.line(&names, &widths, false, &mut text);
        }
        for block in &blocks {
            for (number, line) in block.iter().enumerate() {
                self.line(line, &widths, number > 0, &mut text);
            }
        }
        text
    }

    /// Writes one line a row, values apart by one blank, no blank in a value.
    pub(crate) fn to_raw(&self, look: Look) -> String {
        let mut text = String::new();
        if !look.no_headings {
            let names: Vec<_> = self.columns.iter().map(|column| column.name()).collect();
            text = names.join(" ") + "\n";
        }
        for row in &self.rows {
            let cells: Vec<_> = row.cells.iter().map(|cell| raw(&one_line(cell))).collect();
            text += &cells.join(" ");
            text.push('\n');
        }
        text
    }

    /// Writes each row's lines, the tree's branches included, in the order of the tree.
    fn blocks(&self, look: Look) -> Vec<Vec<Vec<String>>> {
        let (top, below) = self.children();
        let mut blocks = vec![];
        // Row, what its first line and its further lines begin with, and the same for the rows below it.
        let mut stack: Vec<(usize, String, String)> =
            top.iter().rev().map(|row| (*row, String::new(), String::new())).collect();
        while let Some((index, first, further)) = stack.pop() {
            let Some(row) = self.rows.get(index) else { continue };
            blocks.push(self.block(row, &first, &further, look));
            let Some(children) = below.get(index) else { continue };
            for (place, child) in children.iter().enumerate().rev() {
                let (branch, trunk) = if place + 1 == children.len() { ("└─", "  ") } else { ("├─", "│ ") };
                stack.push((*child, format!("{further}{branch}"), format!("{further}{trunk}")));
            }
        }
        blocks
    }

    fn block(&self, row: &Row, first: &str, further: &str, look: Look) -> Vec<Vec<String>> {
        let lines = |cell: &Cell| match cell {
            Cell::Lines(lines) if !look.no_wrap => lines.iter().map(|line| visible(line)).collect(),
            cell => vec![visible(&one_line(cell))],
        };
        let cells: Vec<Vec<String>> = row.cells.iter().map(lines).collect();
        let height = cells.iter().map(Vec::len).max().unwrap_or(1).max(1);
        (0..height)
            .map(|line| {
                let cell = |(lines, column): (&Vec<String>, &Column)| {
                    let text = lines.get(line).map(String::as_str).unwrap_or_default();
                    match (self.tree == Some(*column), line) {
                        (true, 0) => format!("{first}{text}"),
                        (true, _) => format!("{further}{text}"),
                        (false, _) => text.to_owned(),
                    }
                };
                cells.iter().zip(&self.columns).map(cell).collect()
            })
            .collect()
    }

    /// Writes one line; whether it is a `further` one of its row.
    fn line(&self, cells: &[String], widths: &[usize], further: bool, text: &mut String) {
        let count = self.columns.len();
        for (place, ((cell, width), column)) in cells.iter().zip(widths).zip(&self.columns).enumerate() {
            let last = place + 1 == count;
            // Only a command is wider, where lines are cut.
            let cell: String = cell.chars().take(*width).collect();
            // As lsns does: what ends a further line of a row is not padded.
            let right = column.right() && self.tree != Some(*column) && !(last && further && cell.is_empty());
            // Writing to a string cannot fail.
            let _written = match (right, last) {
                (true, _) => write!(text, "{cell:>width$}"),
                (false, true) => write!(text, "{cell}"),
                (false, false) => write!(text, "{cell:<width$}"),
            };
            text.push(if last { '\n' } else { ' ' });
        }
    }
}

/// Returns a cell's text; several lines become one.
pub(crate) fn one_line(cell: &Cell) -> String {
    match cell {
        Cell::None => String::new(),
        Cell::Number(number) => number.to_string(),
        Cell::Text(text) => text.clone(),
        Cell::Lines(lines) => lines.join(","),
    }
}

/// What a program has put into its command line must not move the cursor.
fn visible(text: &str) -> String {
    if !text.contains(char::is_control) {
        return text.to_owned();
    }
    let escaped = |c: char| if c.is_control() { format!("\\x{:02x}", u32::from(c)) } else { c.to_string() };
    text.chars().map(escaped).collect()
}

/// Writes a text without a blank in it.
pub(crate) fn raw(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && byte != b'\\' {
            out.push(char::from(byte));
        } else {
            let _written = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(inode: u64, command: &str, parent: Option<usize>) -> Row {
        Row { cells: vec![Cell::Number(inode), Cell::Text(command.into())], parent }
    }

    fn table(tree: Option<Column>) -> RowTable {
        let rows = vec![
            row(1, "init", None),
            row(20, "a\tb", Some(0)),
            row(3, "c", Some(1)),
            row(4, "d", Some(0)),
            row(5, "apart", None),
        ];
        RowTable { columns: vec![Column::Ns, Column::Command], rows, tree }
    }

    #[test]
    fn branches_stand_in_the_trees_column() {
        assert_eq!(
            table(Some(Column::Command)).to_text(Look::default()),
            "NS COMMAND\n 1 init\n20 ├─a\\x09b\n 3 │ └─c\n 4 └─d\n 5 apart\n"
        );
        assert_eq!(
            table(Some(Column::Ns)).to_text(Look { no_headings: true, ..Look::default() }),
            "1     init\n├─20  a\\x09b\n│ └─3 c\n└─4   d\n5     apart\n"
        );
    }

    #[test]
    fn without_a_tree_rows_keep_their_order() {
        assert_eq!(
            table(None).to_text(Look { width: Some(10), ..Look::default() }),
            "NS COMMAND\n 1 init\n20 a\\x09b\n 3 c\n 4 d\n 5 apart\n"
        );
        assert_eq!(table(None).to_raw(Look::default()), "NS COMMAND\n1 init\n20 a\\x09b\n3 c\n4 d\n5 apart\n");
    }

    #[test]
    fn several_lines_of_a_cell_stand_below_each_other() {
        let lines = Cell::Lines(vec!["/run/a".into(), "/b".into()]);
        let rows = vec![
            Row { cells: vec![Cell::Number(7), lines, Cell::Text("x".into())], parent: None },
            Row { cells: vec![Cell::Number(8), Cell::None, Cell::Text("y".into())], parent: None },
        ];
        let table = RowTable { columns: vec![Column::Ns, Column::Nsfs, Column::Type], rows, tree: None };
        assert_eq!(table.to_text(Look::default()), "NS NSFS   TYPE\n 7 /run/a x\n   /b     \n 8        y\n");
        let wide = Look { no_wrap: true, ..Look::default() };
        assert_eq!(table.to_text(wide), "NS NSFS      TYPE\n 7 /run/a,/b x\n 8           y\n");
    }
}
