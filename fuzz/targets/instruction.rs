//! Instructions that change an image's config, one a line: any text is some or an error, and what they make is a config.

#![no_main]
#![allow(dead_code, reason = "the tool's own modules, of which this uses a part")]

#[path = "../../tools/unpack/src"]
mod unpack {
    pub(crate) mod instruction;
}

use libfuzzer_sys::fuzz_target;
use oci_spec::image::Config;
use serde_json::{Map, Value};
use unpack::instruction::Instruction;

fuzz_target!(|text: &str| {
    let instructions: Vec<Instruction> = text.lines().filter_map(|line| line.parse().ok()).collect();
    let mut config = Map::new();
    if Instruction::apply_all(&instructions, &mut config).is_ok() {
        let read = serde_json::from_value::<Config>(Value::Object(config.clone()));
        assert!(read.is_ok(), "{read:?} {config:?}");
    }
});
