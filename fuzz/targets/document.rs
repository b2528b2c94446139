//! Manifests and indexes: any bytes are one or an error, of one form and not of two, and all that they lead to is named by
//! digests that are paths to nowhere else.

#![no_main]

use layout::{Document, Platform};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
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
