//! Rows and columns as JSON, in the very form of lsns: `{"namespaces": [...]}`, rows below a row in its `children`.

use std::fmt::Write;

use super::column::Column;
use super::table::{Cell, Row, Table};

/// Writes the table as one document.
pub(crate) fn document(table: &Table, separator: &str) -> String {
    let (top, below) = table.children();
    let mut out = String::from("{\n   \"namespaces\": [\n      ");
    Writer { table, below: &below, separator }.list(&top, 2, &mut out);
    if top.is_empty() {
        out.truncate(out.trim_end().len());
    }
    out.push_str("\n   ]\n}\n");
    out
}

/// Writes each row as one line.
pub(crate) fn lines(table: &Table) -> String {
    let line = |row: &Row| {
        let members = row.cells.iter().zip(&table.columns);
        let members = members.map(|(cell, column)| (column.json().to_owned(), serde_json::json!(cell)));
        serde_json::Value::Object(members.collect()).to_string() + "\n"
    };
    table.rows.iter().map(line).collect()
}

/// Writes what columns there are as one document.
pub(crate) fn columns(columns: &[Column]) -> String {
    let column = |column: &Column| {
        let (name, holds, help) = (column.name(), column.type_name(), column.help());
        format!(
            "{{\n         \"holder\": \"{name}\",\n         \"type\": \"{holds}\",\n         \"description\": \"{help}\"\n      }}"
        )
    };
    let members: Vec<String> = columns.iter().map(column).collect();
    format!("{{\n   \"lsns-columns\": [\n      {}\n   ]\n}}\n", members.join(","))
}

/// A table that is written as a document.
struct Writer<'a> {
    table: &'a Table,
    below: &'a [Vec<usize>],
    separator: &'a str,
}

impl Writer<'_> {
    fn list(&self, rows: &[usize], depth: usize, out: &mut String) {
        let indent = "   ".repeat(depth);
        for (place, index) in rows.iter().enumerate() {
            let Some(row) = self.table.rows.get(*index) else { continue };
            out.push_str(if place == 0 { "{" } else { ",{" });
            for (member, (cell, column)) in row.cells.iter().zip(&self.table.columns).enumerate() {
                let comma = if member == 0 { "" } else { "," };
                // Writing to a string cannot fail.
                let _written = write!(out, "{comma}\n{indent}   \"{}\": ", column.json());
                self.value(cell, out);
            }
            if let Some(children) = self.below.get(*index).filter(|children| !children.is_empty()) {
                let _written = write!(out, ",\n{indent}   \"children\": [\n{indent}      ");
                self.list(children, depth + 2, out);
                let _written = write!(out, "\n{indent}   ]");
            }
            let _written = write!(out, "\n{indent}}}");
        }
    }

    fn value(&self, cell: &Cell, out: &mut String) {
        match cell {
            Cell::None => out.push_str("null"),
            Cell::Number(number) => out.push_str(&number.to_string()),
            Cell::Text(text) => string(text, out),
            Cell::Lines(lines) if lines.is_empty() => out.push_str("null"),
            Cell::Lines(lines) => string(&lines.join(self.separator), out),
        }
    }
}

fn string(text: &str, out: &mut String) {
    match serde_json::to_string(text) {
        Ok(quoted) => out.push_str(&quoted),
        Err(_) => out.push_str("null"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_below_a_row_are_its_children() {
        let row = |inode, parent| Row { cells: vec![Cell::Number(inode), Cell::Text("a\"b\u{1}".into())], parent };
        let columns = vec![Column::Ns, Column::Command];
        let table =
            Table { columns, rows: vec![row(1, None), row(2, Some(0)), row(3, None)], tree: Some(Column::Command) };
        let value: serde_json::Value = serde_json::from_str(&document(&table, ",")).unwrap();
        assert_eq!(
            value.to_string(),
            r#"{"namespaces":[{"ns":1,"command":"a\"b\u0001","children":[{"ns":2,"command":"a\"b\u0001"}]},{"ns":3,"command":"a\"b\u0001"}]}"#
        );
        assert!(document(&table, ",").starts_with("{\n   \"namespaces\": [\n      {\n         \"ns\": 1,\n"));
        assert_eq!(lines(&table).lines().count(), 3);
    }

    #[test]
    fn no_rows_are_an_empty_list() {
        let table = Table { columns: vec![Column::Ns], rows: vec![], tree: None };
        let value: serde_json::Value = serde_json::from_str(&document(&table, ",")).unwrap();
        assert_eq!(value.to_string(), r#"{"namespaces":[]}"#);
    }
}
