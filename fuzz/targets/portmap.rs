//! What `portmap` reads, by the reader that the first line names: `-p`, and a CNI configuration. Any text is a value or an
//! error, and what is written out is read as the same.

#![no_main]
#![allow(dead_code, unused_imports, reason = "the tool's own modules, of which this uses a part")]

#[path = "../src/named.rs"]
mod named;

#[path = "../../tools/portmap/src"]
mod portmap {
    pub(crate) mod condition;
    pub(crate) mod spec;
}

// By itself: the plugin around it is the whole tool.
#[path = "../../tools/portmap/src/cni/config.rs"]
mod cni;

use libfuzzer_sys::{Corpus, fuzz_target};
// The modules know each other by these paths.
use portmap::{condition, spec};
use record::Record;
use spec::{HostPorts, PublishFlag, Served};

fn publish(text: &str) {
    let Ok(flag) = text.parse::<PublishFlag>() else { return };
    let written = match &flag {
        PublishFlag::Ports(spec) => spec.to_string(),
        PublishFlag::Socket(spec) => spec.to_string(),
    };
    assert_eq!(written.parse().as_ref(), Ok(&flag), "{text:?} {written:?}");
    if let PublishFlag::Ports(spec) = flag {
        let ports = match spec.host {
            HostPorts::Exactly(host) => host.len() == spec.container.len() && host.first > 0,
            HostPorts::FirstFree(_) => spec.container.len() == 0,
            HostPorts::Random => true,
        };
        assert!(ports && spec.container.first > 0 && spec.container.first <= spec.container.last, "{spec}");
    }
}

fn plugin(text: &[u8]) {
    let Ok(config) = cni::Config::parse(text) else { return };
    let _may_have_none = (config.previous(), config.valid_attachments());
    for spec in config.specs().unwrap_or_default() {
        assert_eq!(spec.to_string().parse().as_ref(), Ok(&spec), "{spec}");
    }
    let Ok(conditions) = config.conditions() else { return };
    assert!(conditions.check().is_ok(), "{conditions:?}");
    // Each becomes an element of an interval set, which must not overlap another.
    for (index, one) in conditions.0.iter().enumerate() {
        assert!(!conditions.0[index + 1..].iter().any(|other| one.overlaps(other)), "{conditions:?}");
    }
}

/// A record's sockets stand there as `-p` takes them.
fn served(text: &[u8]) {
    let Ok(mut record) = Record::parse(text, "the record") else { return };
    let Ok(served) = Served::of_record(&record) else { return };
    assert!(Served::add_to(&mut record, &served).is_ok());
    assert_eq!(Served::of_record(&record).ok(), Some(served));
}

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let Some((reader, text)) = named::split(bytes) else { return Corpus::Reject };
    match reader {
        "publish" => publish(&String::from_utf8_lossy(text)),
        "plugin" => plugin(text),
        "served" => served(text),
        _ => return Corpus::Reject,
    }
    Corpus::Keep
});
