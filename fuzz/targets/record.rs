//! Records: any bytes are one or an error. A record that is written out is the same, and so is a member that is set again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use record::{Bundle, Id, Image, Network, NetworkOptions, OwnedBy, Part, PortOptions, Ports, Record, Rootfs, State};

fn set_again<P: Part + PartialEq + std::fmt::Debug>(record: &Record) -> Option<P> {
    let part = record.find::<P>().ok()??;
    let mut other = record.clone();
    other.set(&part);
    let again = other.find::<P>();
    assert!(matches!(&again, Ok(Some(again)) if *again == part), "{part:?} {again:?}");
    Some(part)
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(record) = Record::parse(bytes, "the record") else { return };
    let line = record.to_line();
    assert!(!line.contains('\n'));
    assert_eq!(Record::parse(line.as_bytes(), "the line").as_ref().ok(), Some(&record));
    set_again::<Bundle>(&record);
    set_again::<Id>(&record);
    set_again::<Image>(&record);
    set_again::<NetworkOptions>(&record);
    set_again::<OwnedBy>(&record);
    set_again::<PortOptions>(&record);
    set_again::<Ports>(&record);
    set_again::<Rootfs>(&record);
    set_again::<State>(&record);
    if let Some(network) = set_again::<Network>(&record) {
        let _what_a_result_says = (network.addresses(), network.gateway(), network.namespace(), network.is_internal());
    }
});
