//! Which rows are shown: an expression over the columns, in the syntax of `scols-filter(5)`: `TYPE == "net" and PID > 1`.

use std::cmp::Ordering;
use std::str::FromStr;
use std::sync::Arc;

use regex_lite::Regex;

use super::column::Column;
use super::table::{Cell, one_line};

/// A row's values.
type Row<'a> = &'a dyn Fn(Column) -> Cell;
/// What holds for a row.
type Test = Arc<dyn Fn(Row<'_>) -> bool + Send + Sync>;

/// What holds between two values.
type Comparison = fn(Ordering) -> bool;

/// A condition on a row.
#[derive(Clone)]
pub(crate) struct RowFilter {
    columns: Vec<Column>,
    test: Test,
}

#[derive(Clone, Debug)]
enum Operand {
    Column(Column),
    Number(f64),
    Text(String),
}

impl RowFilter {
    /// Returns the columns that the expression needs.
    pub(crate) fn columns(&self) -> Vec<Column> {
        self.columns.clone()
    }

    /// Tells whether a row is shown; `cell` returns its values.
    pub(crate) fn accepts(&self, cell: Row<'_>) -> bool {
        (self.test)(cell)
    }
}

enum Value {
    None,
    Number(f64),
    Text(String),
}

impl Value {
    fn text(&self) -> String {
        match self {
            Self::None => String::new(),
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

impl Operand {
    fn value(&self, cell: Row<'_>) -> Value {
        match self {
            Self::Number(number) => Value::Number(*number),
            Self::Text(text) => Value::Text(text.clone()),
            Self::Column(column) => match cell(*column) {
                Cell::None => Value::None,
                #[expect(clippy::cast_precision_loss, reason = "inode numbers and pids are far below 2^53")]
                Cell::Number(number) => Value::Number(number as f64),
                cell => Value::Text(one_line(&cell)),
            },
        }
    }
}

/// Numbers compare as numbers as soon as both sides are ones; a value that is not there compares with nothing.
fn compare(left: &Value, right: &Value, holds: Comparison) -> bool {
    let number = |value: &Value| match value {
        Value::None => None,
        Value::Number(number) => Some(*number),
        Value::Text(text) => text.trim().parse().ok(),
    };
    if matches!(left, Value::None) || matches!(right, Value::None) {
        return false;
    }
    let order = match (number(left), number(right)) {
        (Some(left), Some(right)) => left.partial_cmp(&right),
        _ => Some(left.text().cmp(&right.text())),
    };
    order.is_some_and(holds)
}

impl FromStr for RowFilter {
    type Err = String;

    fn from_str(expression: &str) -> Result<Self, String> {
        let mut parser = Parser { tokens: tokens(expression)?, columns: Vec::new(), depth: 0 };
        let test = parser.or()?;
        match parser.tokens.pop() {
            None => Ok(Self { columns: parser.columns, test }),
            Some(token) => Err(format!("unexpected {token:?}")),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Number(f64),
    Sign(&'static str),
}

const SIGNS: [&str; 14] = ["==", "!=", "<=", ">=", "=~", "!~", "&&", "||", "<", ">", "!", "(", ")", "="];

/// Splits the text into tokens, the last one first.
fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = vec![];
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let taken;
        if first == '"' || first == '\'' {
            let inner = rest.get(1..).unwrap_or_default();
            let end = inner.find(first).ok_or("a quotation mark is missing")?;
            tokens.push(Token::Text(inner.get(..end).unwrap_or_default().to_owned()));
            taken = end + 2;
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            tokens.push(Token::Sign(sign));
            taken = sign.len();
        } else {
            let end = rest.find(|c: char| !(c.is_alphanumeric() || "_-.:".contains(c))).unwrap_or(rest.len());
            let word = rest.get(..end).filter(|word| !word.is_empty()).ok_or(format!("unexpected {first:?}"))?;
            tokens.push(word.parse().map_or_else(|_| Token::Word(word.to_owned()), Token::Number));
            taken = end;
        }
        rest = rest.get(taken..).unwrap_or_default().trim_start();
    }
    tokens.reverse();
    Ok(tokens)
}

struct Parser {
    tokens: Vec<Token>,
    /// Those that were met.
    columns: Vec<Column>,
    depth: usize,
}

/// Nobody writes an expression deeper than this; a stack has an end.
const DEPTH: usize = 64;

impl Parser {
    fn or(&mut self) -> Result<Test, String> {
        let mut test = self.and()?;
        while self.accept("||", "or") {
            let (left, right) = (test, self.and()?);
            test = Arc::new(move |row| left(row) || right(row));
        }
        Ok(test)
    }

    fn and(&mut self) -> Result<Test, String> {
        let mut test = self.not()?;
        while self.accept("&&", "and") {
            let (left, right) = (test, self.not()?);
            test = Arc::new(move |row| left(row) && right(row));
        }
        Ok(test)
    }

    fn not(&mut self) -> Result<Test, String> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err("too deep".to_owned());
        }
        let test = if self.accept("!", "not") {
            let test = self.not()?;
            Arc::new(move |row: Row<'_>| !test(row))
        } else if self.accept("(", "(") {
            let test = self.or()?;
            if !self.accept(")", ")") {
                return Err("`)` is missing".to_owned());
            }
            test
        } else {
            self.comparison()?
        };
        self.depth -= 1;
        Ok(test)
    }

    fn comparison(&mut self) -> Result<Test, String> {
        let left = self.operand()?;
        let signs: [(_, _, Comparison); 6] = [
            ("==", "eq", Ordering::is_eq),
            ("=", "=", Ordering::is_eq),
            ("<=", "le", Ordering::is_le),
            (">=", "ge", Ordering::is_ge),
            ("<", "lt", Ordering::is_lt),
            (">", "gt", Ordering::is_gt),
        ];
        if let Some((.., holds)) = signs.into_iter().find(|(sign, word, _)| self.accept(sign, word)) {
            let right = self.operand()?;
            return Ok(Arc::new(move |row| compare(&left.value(row), &right.value(row), holds)));
        }
        if self.accept("!=", "ne") {
            let right = self.operand()?;
            return Ok(Arc::new(move |row| !compare(&left.value(row), &right.value(row), Ordering::is_eq)));
        }
        for (sign, wanted) in [("=~", true), ("!~", false)] {
            if self.accept(sign, sign) {
                let Some(Token::Text(pattern)) = self.tokens.pop() else {
                    return Err(format!("a quoted pattern is expected after {sign}"));
                };
                let regex = Regex::new(&pattern).map_err(|error| format!("{pattern:?}: {error}"))?;
                return Ok(Arc::new(move |row| regex.is_match(&left.value(row).text()) == wanted));
            }
        }
        // Something that is there and neither 0 nor empty.
        Ok(Arc::new(move |row| match left.value(row) {
            Value::None => false,
            Value::Number(number) => number != 0.0,
            Value::Text(text) => !text.is_empty(),
        }))
    }

    fn operand(&mut self) -> Result<Operand, String> {
        match self.tokens.pop() {
            Some(Token::Number(number)) => Ok(Operand::Number(number)),
            Some(Token::Text(text)) => Ok(Operand::Text(text)),
            Some(Token::Word(word)) => match word.as_str() {
                "true" => Ok(Operand::Number(1.0)),
                "false" => Ok(Operand::Number(0.0)),
                name => {
                    let column = Column::parse(name).ok_or(format!("unknown column {name}"))?;
                    self.columns.push(column);
                    Ok(Operand::Column(column))
                }
            },
            Some(Token::Sign(sign)) => Err(format!("unexpected {sign:?}")),
            None => Err("the expression ends too early".to_owned()),
        }
    }

    fn accept(&mut self, sign: &str, word: &str) -> bool {
        let found = match self.tokens.last() {
            Some(Token::Sign(token)) => *token == sign,
            Some(Token::Word(token)) => token.eq_ignore_ascii_case(word),
            _ => false,
        };
        if found {
            self.tokens.pop();
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(column: Column) -> Cell {
        match column {
            Column::Ns => Cell::Number(4_026_531_840),
            Column::Type => Cell::Text("net".into()),
            Column::Pid => Cell::Number(7),
            Column::Netnsid => Cell::Text("12".into()),
            Column::Command => Cell::Text("nginx: master".into()),
            _ => Cell::None,
        }
    }

    #[test]
    fn an_expression_chooses_rows() {
        for (text, want) in [
            ("TYPE == \"net\"", true),
            ("type eq 'net' and pid > 6", true),
            ("PID >= 8 or PID lt 8", true),
            ("!(PID == 7)", false),
            ("not PID", false),
            ("NETNSID > 9", true),
            ("COMMAND =~ \"^nginx\"", true),
            ("COMMAND !~ \"apache|nginx\"", false),
            ("NSFS", false),
            ("NSFS != \"/x\"", true),
            ("PNS < 5", false),
            ("NS == 4026531840 && (TYPE == \"pid\" || TYPE == \"net\")", true),
            ("true", true),
        ] {
            let filter: RowFilter = text.parse().unwrap();
            assert_eq!(filter.accepts(&cell), want, "{text}");
        }
        let columns = "PID == 1 and not (TYPE =~ \"x\")".parse::<RowFilter>().unwrap().columns();
        assert_eq!(columns, [Column::Pid, Column::Type]);
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        let deep = "(".repeat(1000);
        for text in
            ["", "PID ==", "FOO == 1", "PID == 1 TYPE", "(PID", "COMMAND =~ x", "\"x", "COMMAND =~ \"(\"", "$", &deep]
        {
            assert!(text.parse::<RowFilter>().is_err(), "{text}");
        }
    }
}
