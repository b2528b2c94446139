//! Which rows are shown: an expression over the columns, in the syntax of `scols-filter(5)`: `TYPE == "net" and PID > 1`.

use std::str::FromStr;

use regex_lite::Regex;

use super::column::Column;
use super::table::{Cell, one_line};

/// A condition on a row.
#[derive(Clone, Debug)]
pub(crate) struct Filter(Node);

#[derive(Clone, Debug)]
enum Node {
    Not(Box<Self>),
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
    /// Something that is there and neither 0 nor empty.
    Holds(Operand),
    Compare(Operand, Comparison, Operand),
    Matches(Operand, Regex),
}

#[derive(Clone, Debug)]
enum Operand {
    Column(Column),
    Number(f64),
    Text(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    Less,
    LessOrEqual,
}

impl Filter {
    /// Returns the columns that the expression needs.
    pub(crate) fn columns(&self) -> Vec<Column> {
        let mut columns = vec![];
        self.0.columns(&mut columns);
        columns
    }

    /// Tells whether a row is shown; `cell` returns its values.
    pub(crate) fn accepts(&self, cell: &dyn Fn(Column) -> Cell) -> bool {
        self.0.holds(cell)
    }
}

impl Node {
    fn columns(&self, columns: &mut Vec<Column>) {
        let operands: &[&Operand] = match self {
            Self::Not(node) => return node.columns(columns),
            Self::And(left, right) | Self::Or(left, right) => {
                left.columns(columns);
                return right.columns(columns);
            }
            Self::Holds(operand) | Self::Matches(operand, _) => &[operand],
            Self::Compare(left, _, right) => &[left, right],
        };
        columns.extend(operands.iter().filter_map(|operand| match operand {
            Operand::Column(column) => Some(*column),
            _ => None,
        }));
    }

    fn holds(&self, cell: &dyn Fn(Column) -> Cell) -> bool {
        match self {
            Self::Not(node) => !node.holds(cell),
            Self::And(left, right) => left.holds(cell) && right.holds(cell),
            Self::Or(left, right) => left.holds(cell) || right.holds(cell),
            Self::Holds(operand) => match operand.value(cell) {
                Value::None => false,
                Value::Number(number) => number != 0.0,
                Value::Text(text) => !text.is_empty(),
            },
            Self::Matches(operand, regex) => regex.is_match(&operand.value(cell).text()),
            Self::Compare(left, comparison, right) => compare(&left.value(cell), *comparison, &right.value(cell)),
        }
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
    fn value(&self, cell: &dyn Fn(Column) -> Cell) -> Value {
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
fn compare(left: &Value, comparison: Comparison, right: &Value) -> bool {
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
    order.is_some_and(|order| match comparison {
        Comparison::Equal => order.is_eq(),
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
    })
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parser = Parser { tokens: tokens(text)?, depth: 0 };
        let node = parser.or()?;
        match parser.tokens.pop() {
            None => Ok(Self(node)),
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
    depth: usize,
}

/// Nobody writes an expression deeper than this; a stack has an end.
const DEPTH: usize = 64;

impl Parser {
    fn or(&mut self) -> Result<Node, String> {
        let mut node = self.and()?;
        while self.accept("||", "or") {
            node = Node::Or(Box::new(node), Box::new(self.and()?));
        }
        Ok(node)
    }

    fn and(&mut self) -> Result<Node, String> {
        let mut node = self.not()?;
        while self.accept("&&", "and") {
            node = Node::And(Box::new(node), Box::new(self.not()?));
        }
        Ok(node)
    }

    fn not(&mut self) -> Result<Node, String> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err("too deep".to_owned());
        }
        let node = if self.accept("!", "not") {
            Node::Not(Box::new(self.not()?))
        } else if self.accept("(", "(") {
            let node = self.or()?;
            if !self.accept(")", ")") {
                return Err("`)` is missing".to_owned());
            }
            node
        } else {
            self.comparison()?
        };
        self.depth -= 1;
        Ok(node)
    }

    fn comparison(&mut self) -> Result<Node, String> {
        let left = self.operand()?;
        for (sign, word, comparison, turned, negated) in [
            ("==", "eq", Comparison::Equal, false, false),
            ("=", "=", Comparison::Equal, false, false),
            ("!=", "ne", Comparison::Equal, false, true),
            ("<=", "le", Comparison::LessOrEqual, false, false),
            (">=", "ge", Comparison::LessOrEqual, true, false),
            ("<", "lt", Comparison::Less, false, false),
            (">", "gt", Comparison::Less, true, false),
        ] {
            if self.accept(sign, word) {
                let right = self.operand()?;
                let (left, right) = if turned { (right, left) } else { (left, right) };
                let node = Node::Compare(left, comparison, right);
                return Ok(if negated { Node::Not(Box::new(node)) } else { node });
            }
        }
        for (sign, negated) in [("=~", false), ("!~", true)] {
            if self.accept(sign, sign) {
                let Some(Token::Text(pattern)) = self.tokens.pop() else {
                    return Err(format!("a quoted pattern is expected after {sign}"));
                };
                let regex = Regex::new(&pattern).map_err(|error| format!("{pattern:?}: {error}"))?;
                let node = Node::Matches(left, regex);
                return Ok(if negated { Node::Not(Box::new(node)) } else { node });
            }
        }
        Ok(Node::Holds(left))
    }

    fn operand(&mut self) -> Result<Operand, String> {
        match self.tokens.pop() {
            Some(Token::Number(number)) => Ok(Operand::Number(number)),
            Some(Token::Text(text)) => Ok(Operand::Text(text)),
            Some(Token::Word(word)) => match word.as_str() {
                "true" => Ok(Operand::Number(1.0)),
                "false" => Ok(Operand::Number(0.0)),
                name => Column::parse(name).map(Operand::Column).ok_or(format!("unknown column {name}")),
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
            let filter: Filter = text.parse().unwrap();
            assert_eq!(filter.accepts(&cell), want, "{text}");
        }
        let columns = "PID == 1 and not (TYPE =~ \"x\")".parse::<Filter>().unwrap().columns();
        assert_eq!(columns, [Column::Pid, Column::Type]);
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        let deep = "(".repeat(1000);
        for text in
            ["", "PID ==", "FOO == 1", "PID == 1 TYPE", "(PID", "COMMAND =~ x", "\"x", "COMMAND =~ \"(\"", "$", &deep]
        {
            assert!(text.parse::<Filter>().is_err(), "{text}");
        }
    }
}
