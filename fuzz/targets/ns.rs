//! What `ns` reads, by the reader that the first line names: a CNI configuration list, the kernel's list of mounts, and filters
//! of rows. Any bytes are a value or an error.

#![no_main]
#![allow(dead_code, unused_imports, reason = "the tool's own modules, of which this uses a part")]

#[path = "../src/named.rs"]
mod named;

#[path = "../../tools/ns/src"]
mod ns {
    pub(crate) mod network;
    pub(crate) mod request;
}

#[path = "../../tools/ns/src/list"]
mod list {
    pub(crate) mod column;
    pub(crate) mod filter;
    pub(crate) mod process;
    pub(crate) mod refs;
    pub(crate) mod relation;
    pub(crate) mod scan;
    pub(crate) mod table;
}

use libfuzzer_sys::{Corpus, fuzz_target};
use list::table::Cell;
// The modules know each other by these paths.
use ns::{network, request};

fn plugins(text: &[u8]) {
    let Ok(list) = network::cni::parse_list(text) else { return };
    for plugin in list["plugins"].as_array().expect("that was checked") {
        let name = plugin["type"].as_str().expect("that was checked");
        assert!(!name.is_empty() && !name.contains('/') && name != "..", "{name:?}");
    }
}

fn mounts(text: &str) {
    for (_, inode, path) in list::refs::parse_mounts(text) {
        assert!(text.contains(&inode.to_string()) && path.len() <= 3 * text.len());
    }
}

fn filter(text: &str) {
    let Ok(filter) = text.parse::<list::filter::RowFilter>() else { return };
    for cell in [Cell::None, Cell::Number(7), Cell::Text("net".to_owned()), Cell::Lines(vec!["a".to_owned()])] {
        let _answer = filter.accepts(&|_| cell.clone());
    }
}

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let Some((reader, text)) = named::split(bytes) else { return Corpus::Reject };
    let words = String::from_utf8_lossy(text);
    match reader {
        "plugins" => plugins(text),
        "mounts" => mounts(&words),
        "filter" => filter(&words),
        _ => return Corpus::Reject,
    }
    Corpus::Keep
});
