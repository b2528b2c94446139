//! References: any text is one or an error, and one that is written out again is the same.

#![no_main]

use layout::Reference;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(reference) = text.parse::<Reference>() else { return };
    let written = reference.to_string();
    assert_eq!(written.parse::<Reference>().as_ref(), Ok(&reference), "{text:?} {written:?}");
    // Nothing that could lead elsewhere in a URL or in a file's name.
    for part in [&reference.registry, &reference.repository] {
        assert!(!part.is_empty() && !part.split('/').any(|name| name.is_empty() || name.starts_with('.')));
        assert!(part.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#%@\\".contains(&byte)));
    }
});
