//! Rows and columns as JSON, in the very form of lsns: `{"namespaces": [...]}`, rows below a row in its `children`.

use serde_json::ser::{PrettyFormatter, Serializer};
use serde_json::{Map, Value, json};

use super::column::Column;
use super::table::{Cell, Row, RowTable};

/// Writes the table as one document.
pub(crate) fn document(table: &RowTable, separator: &str) -> String {
    let (top, below) = table.children();
    let value = |cell: &Cell| match cell {
        Cell::Lines(lines) if lines.is_empty() => Value::Null,
        Cell::Lines(lines) => json!(lines.join(separator)),
        cell => json!(cell),
    };
    let members = |row: &Row| row.cells.iter().map(value).collect();
    let mut nodes: Vec<Map<String, Value>> = table.rows.iter().map(|row| named(table, members(row))).collect();
    pretty("namespaces", &nested(&top, &below, &mut nodes))
}

/// Takes rows out, each with those below it.
fn nested(rows: &[usize], below: &[Vec<usize>], nodes: &mut [Map<String, Value>]) -> Value {
    let mut list = Vec::new();
    for index in rows {
        let mut node = nodes.get_mut(*index).map(std::mem::take).unwrap_or_default();
        if let Some(children) = below.get(*index).filter(|children| !children.is_empty()) {
            node.insert("children".to_owned(), nested(children, below, nodes));
        }
        list.push(Value::Object(node));
    }
    Value::Array(list)
}

fn named(table: &RowTable, values: Vec<Value>) -> Map<String, Value> {
    table.columns.iter().map(|column| column.json()).zip(values).collect()
}

/// Writes each row as one line.
pub(crate) fn lines(table: &RowTable) -> String {
    let line = |row: &Row| {
        let values = row.cells.iter().map(|cell| json!(cell)).collect();
        Value::Object(named(table, values)).to_string() + "\n"
    };
    table.rows.iter().map(line).collect()
}

/// Writes what columns there are as one document.
pub(crate) fn columns(columns: &[Column]) -> String {
    let column =
        |column: &Column| json!({"holder": column.name(), "type": column.type_name(), "description": column.help()});
    pretty("lsns-columns", &columns.iter().map(column).collect())
}

/// Breaks lines as lsns does. No text has a line end in it: JSON escapes those.
fn pretty(name: &str, list: &Value) -> String {
    let mut out = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut out, PrettyFormatter::with_indent(b"   "));
    // Writing to memory cannot fail.
    let _written = serde::Serialize::serialize(&json!({name: list}), &mut serializer);
    let text = String::from_utf8_lossy(&out) + "\n";
    if *list == json!([]) {
        return text.replace("[]", "[\n   ]");
    }
    regex_lite::Regex::new(r"\},\n *\{")
        .map_or(text.to_string(), |between| between.replace_all(&text, "},{").into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_below_a_row_are_its_children() {
        let row = |inode, parent| Row { cells: vec![Cell::Number(inode), Cell::Text("a\"b\u{1}".into())], parent };
        let columns = vec![Column::Ns, Column::Command];
        let table =
            RowTable { columns, rows: vec![row(1, None), row(2, Some(0)), row(3, None)], tree: Some(Column::Command) };
        let value: Value = serde_json::from_str(&document(&table, ",")).unwrap();
        assert_eq!(
            value.to_string(),
            r#"{"namespaces":[{"ns":1,"command":"a\"b\u0001","children":[{"ns":2,"command":"a\"b\u0001"}]},{"ns":3,"command":"a\"b\u0001"}]}"#
        );
        assert!(document(&table, ",").starts_with("{\n   \"namespaces\": [\n      {\n         \"ns\": 1,\n"));
        assert_eq!(lines(&table).lines().count(), 3);
    }

    #[test]
    fn no_rows_are_an_empty_list() {
        let table = RowTable { columns: vec![Column::Ns], rows: vec![], tree: None };
        let value: Value = serde_json::from_str(&document(&table, ",")).unwrap();
        assert_eq!(value.to_string(), r#"{"namespaces":[]}"#);
    }
}
