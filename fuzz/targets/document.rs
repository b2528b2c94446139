//! Manifests, indexes and images' configs: any bytes are one or an error, of one form and not of two, and all that they lead to
//! is named by digests that are paths to nowhere else.

#![no_main]

use layout::{Document, Platform, lenient};
use libfuzzer_sys::fuzz_target;
use oci_spec::image::ImageConfiguration;

/// What Go programs write is read, and what that is in the strict form is read as the same.
fn config(bytes: &[u8]) {
    let Ok(config) = lenient::read::<ImageConfiguration>(bytes) else { return };
    // As values: ports and volumes are sets, in no order.
    let written = serde_json::to_value(&config).expect("it was read");
    let again = lenient::read::<ImageConfiguration>(written.to_string().as_bytes());
    let again = again.map(|again| serde_json::to_value(&again).expect("it was read"));
    assert_eq!(again.ok(), Some(written));
}

fuzz_target!(|bytes: &[u8]| {
    config(bytes);
    let media_type = Document::media_type(bytes).to_string();
    let Ok(document) = Document::parse(bytes, &media_type, "the document") else { return };
    for child in document.children() {
        let hex = child.digest().digest();
        assert!(!hex.is_empty() && hex.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"=_-".contains(&byte)));
        assert!(!child.digest().algorithm().as_ref().contains(['/', '.']) || hex.len() > 2);
    }
    if let Document::Index(index) = &document {
        let _none_fits = Document::choose(index, &Platform::host());
    }
});
