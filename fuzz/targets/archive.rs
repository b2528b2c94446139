//! The reader of tar archives: any bytes are entries or an error, no entry has data that is not there, and what the writer
//! makes of entries is read as the same ones.

#![no_main]

#[path = "../src/checksum.rs"]
mod checksum;

use archive::{Archive, Entry, Writer};
use libfuzzer_sys::fuzz_target;

type Entries = Vec<(Entry, Vec<u8>)>;

fn read(bytes: &[u8]) -> anyhow::Result<Entries> {
    let mut archive = Archive::new(bytes);
    let mut entries = Vec::new();
    while let Some(entry) = archive.advance()? {
        let mut content = Vec::new();
        loop {
            let data = archive.data()?;
            if data.is_empty() {
                break;
            }
            content.extend_from_slice(data);
            let count = data.len();
            archive.take_data(count);
        }
        entries.push((entry, content));
    }
    Ok(entries)
}

/// Writes what the writer can say: an entry whose data its sparse map does not tell is none of them.
fn write(entries: &Entries) -> anyhow::Result<Vec<u8>> {
    let mut writer = Writer::new(Vec::new());
    for (entry, content) in entries {
        writer.entry(entry)?;
        writer.data(content)?;
    }
    writer.finish()
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(entries) = read(&checksum::mended(bytes)) else { return };
    assert!(entries.iter().map(|(_, data)| data.len()).sum::<usize>() <= bytes.len());
    let Ok(written) = write(&entries) else { return };
    // The first writing may decide what the format has two ways for; after that nothing changes any more.
    let Ok(rewritten) = read(&written) else { panic!("what was written is not read: {entries:?}") };
    let again = write(&rewritten).and_then(|written| read(&written));
    assert_eq!(again.ok().as_ref(), Some(&rewritten));
});
