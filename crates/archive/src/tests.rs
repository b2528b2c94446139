//! Archives built byte by byte, and what the reader makes of them; and archives damaged at random.

mod damage;

use super::*;
use damage::Random;

const END: [u8; 1024] = [0; 1024];

/// One header block: fields by offset over the usual ones.
fn header(name: &[u8], kind: u8, size: u64, fields: &[(usize, &[u8])]) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    let size = format!("{size:011o}\0");
    let usual: [(usize, &[u8]); 8] = [
        (0, name),
        (100, b"0000644\0"),
        (108, b"0000007\0"),
        (116, b"0000010\0"),
        (124, size.as_bytes()),
        (136, b"14524500000\0"),
        (156, &[kind]),
        (257, b"ustar\x0000"),
    ];
    for (offset, value) in usual.iter().chain(fields) {
        block[*offset..offset + value.len()].copy_from_slice(value);
    }
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn padded(data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    data.resize(data.len().next_multiple_of(BLOCK), 0);
    data
}

fn entry(name: &[u8], kind: u8, data: &[u8], fields: &[(usize, &[u8])]) -> Vec<u8> {
    [header(name, kind, data.len() as u64, fields), padded(data)].concat()
}

fn records(records: &[(&str, &[u8])]) -> Vec<u8> {
    let record = |(key, value): &(&str, &[u8])| {
        let body = [b" ", key.as_bytes(), b"=", *value, b"\n"].concat();
        let length =
            (1..9).map(|digits| body.len() + digits).find(|length| length.to_string().len() + body.len() == *length);
        [length.unwrap().to_string().into_bytes(), body].concat()
    };
    records.iter().flat_map(record).collect()
}

fn pax(list: &[(&str, &[u8])]) -> Vec<u8> {
    entry(b"pax", b'x', &records(list), &[])
}

/// Reads all of an archive: the entries with their data, or the error. The source gives few bytes at a time.
fn read(archive: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, String> {
    let mut archive = Archive::new(std::io::BufReader::with_capacity(100, archive));
    let mut entries = Vec::new();
    let mut read = || -> anyhow::Result<()> {
        while let Some(entry) = archive.advance()? {
            let mut content = Vec::new();
            loop {
                let data = archive.data()?;
                let count = data.len();
                if count == 0 {
                    break;
                }
                content.extend_from_slice(data);
                archive.take_data(count);
            }
            entries.push((entry, content));
        }
        Ok(())
    };
    read().map_err(|error| format!("{error:#}"))?;
    Ok(entries)
}

#[track_caller]
fn only(archive: &[Vec<u8>]) -> (Entry, Vec<u8>) {
    let mut entries = read(&[archive.concat(), END.to_vec()].concat()).unwrap();
    assert_eq!(entries.len(), 1, "{entries:?}");
    entries.remove(0)
}

#[test]
fn a_ustar_entry_has_all_its_fields() {
    let (got, data) = only(&[entry(b"name", b'0', b"data", &[(345, b"some/prefix"), (100, b"0104755\0")])]);
    let want = Entry {
        path: b"some/prefix/name".to_vec(),
        kind: EntryKind::Regular,
        mode: 0o4755,
        uid: 7,
        gid: 8,
        mtime: Time { seconds: 0o14_524_500_000, nanoseconds: 0 },
        atime: None,
        link: vec![],
        size: 4,
        sparse: None,
        device: (0, 0),
        xattrs: vec![],
    };
    assert_eq!((got, data.as_slice()), (want, &b"data"[..]));
}

#[test]
fn types_are_told_by_flag_and_name() {
    for (kind, name, want) in [
        (0, &b"f"[..], EntryKind::Regular),
        (0, b"d/", EntryKind::Directory),
        (b'0', b"f", EntryKind::Regular),
        (b'7', b"f", EntryKind::Regular),
        (b'1', b"l", EntryKind::HardLink),
        (b'2', b"l", EntryKind::Symlink),
        (b'3', b"c", EntryKind::CharacterDevice),
        (b'4', b"b", EntryKind::BlockDevice),
        (b'5', b"d", EntryKind::Directory),
        (b'6', b"p", EntryKind::Fifo),
    ] {
        assert_eq!(only(&[header(name, kind, 0, &[])]).0.kind, want);
    }
    let (device, _) = only(&[header(b"d", b'4', 0, &[(329, b"0000007\0"), (337, b"0000310\0")])]);
    assert_eq!(device.device, (7, 200));
}

#[test]
fn numbers_may_be_binary() {
    let large: &[u8] = &[0x80, 0, 0, 0, 0, 0x2d, 0xc6, 0xc0];
    let before_1970: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfc, 0x18];
    let (got, _) = only(&[header(b"f", b'0', 0, &[(108, large), (136, before_1970)])]);
    assert_eq!((got.uid, got.mtime.seconds), (3_000_000, -1000));
}

#[test]
fn pax_records_count_for_the_next_entry_only() {
    let list: [(&str, &[u8]); 6] = [
        ("path", "dir/\u{fc}\u{fffd}".as_bytes()),
        ("uid", b"3000000"),
        ("gid", b"0"),
        ("mtime", b"-1000.5"),
        ("atime", b"1600000000.1234567899"),
        ("SCHILY.xattr.user.x", b"a=\n\0"),
    ];
    let archive = [pax(&list), entry(b"f", b'0', b"1", &[]), entry(b"g", b'0', b"2", &[]), END.to_vec()].concat();
    let entries = read(&archive).unwrap();
    let (first, second) = (&entries[0].0, &entries[1].0);
    assert_eq!(first.path, "dir/\u{fc}\u{fffd}".as_bytes());
    assert_eq!((first.uid, first.gid), (3_000_000, 0));
    assert_eq!(first.mtime, Time { seconds: -1001, nanoseconds: 500_000_000 });
    assert_eq!(first.atime, Some(Time { seconds: 1_600_000_000, nanoseconds: 123_456_789 }));
    assert_eq!(first.xattrs, [(b"user.x".to_vec(), b"a=\n\0".to_vec())]);
    assert_eq!((second.path.as_slice(), second.uid, second.xattrs.len()), (&b"g"[..], 7, 0));
}

#[test]
fn global_records_count_until_they_are_taken_back() {
    let global = entry(b"g", b'g', &records(&[("mtime", b"5"), ("uid", b"9"), ("comment", b"c")]), &[]);
    let back = pax(&[("uid", b"")]);
    let archive =
        [global, header(b"a", b'0', 0, &[]), back, header(b"b", b'0', 0, &[]), header(b"c", b'0', 0, &[])].concat();
    let got: Vec<_> = read(&archive).unwrap().iter().map(|(entry, _)| (entry.uid, entry.mtime.seconds)).collect();
    assert_eq!(got, [(9, 5), (7, 5), (9, 5)]);
}

#[test]
fn gnu_names_may_be_long_and_any_bytes() {
    let name = [b"\xff".repeat(300), b"\0".to_vec()].concat();
    let gnu: &[(usize, &[u8])] = &[(257, b"ustar  \0")];
    let long = |kind, name: &[u8]| entry(b"././@LongLink", kind, name, gnu);
    let (got, _) = only(&[long(b'K', b"target\0"), long(b'L', &name), header(b"short", b'2', 0, gnu)]);
    assert_eq!((got.path, got.link), (b"\xff".repeat(300), b"target".to_vec()));
}

#[test]
fn libarchive_attributes_are_decoded_and_stars_win() {
    let list: [(&str, &[u8]); 3] = [
        ("LIBARCHIVE.xattr.user.a%3Db", b"dmFsdWU"),
        ("SCHILY.xattr.user.c", b"star"),
        ("LIBARCHIVE.xattr.user.c", b"b3RoZXI="),
    ];
    let (got, _) = only(&[pax(&list), header(b"f", b'0', 0, &[])]);
    assert_eq!(got.xattrs, [(b"user.a=b".to_vec(), b"value".to_vec()), (b"user.c".to_vec(), b"star".to_vec())]);
}

#[test]
fn all_sparse_formats_give_the_same_map() {
    let want = Some(vec![Segment { offset: 0, length: 4 }, Segment { offset: 1 << 20, length: 4 }]);
    let octal = |number: u64| format!("{number:011o}\0").into_bytes();
    let pairs = [octal(0), octal(4), octal(1 << 20), octal(4)].concat();
    let real = octal(2 << 20);
    let old = entry(b"s", b'S', b"datamore", &[(257, b"ustar  \0"), (386, &pairs), (483, &real)]);
    let extended = [
        header(b"s", b'S', 8, &[(257, b"ustar  \0"), (386, &pairs[..24]), (482, b"\x01"), (483, &real)]),
        padded(&pairs[24..]),
        padded(b"datamore"),
    ]
    .concat();
    let size: (&str, &[u8]) = ("GNU.sparse.size", b"2097152");
    let offset = |value: &'static [u8]| ("GNU.sparse.offset", value);
    let four: (&str, &[u8]) = ("GNU.sparse.numbytes", b"4");
    let version_0_0 = [size, ("GNU.sparse.numblocks", b"2"), offset(b"0"), four, offset(b"1048576"), four];
    let version_0_1 = [size, ("GNU.sparse.map", b"0,4,1048576,4"), ("GNU.sparse.name", b"s")];
    let version_1_0: [(&str, &[u8]); 4] = [
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"s"),
        ("GNU.sparse.realsize", b"2097152"),
    ];
    let with_map = [padded(b"2\n0\n4\n1048576\n4\n"), b"datamore".to_vec()].concat();
    for archive in [
        vec![old],
        vec![extended],
        vec![pax(&version_0_0), entry(b"s", b'0', b"datamore", &[])],
        vec![pax(&version_0_1), entry(b"x", b'0', b"datamore", &[])],
        vec![pax(&version_1_0), entry(b"x", b'0', &with_map, &[])],
    ] {
        let (got, data) = only(&archive);
        assert_eq!((got.path.as_slice(), got.size, &got.sparse), (&b"s"[..], 2 << 20, &want));
        assert_eq!(data, b"datamore");
    }
}

#[test]
fn ids_are_cut_to_what_the_system_call_takes() {
    for (value, want) in [
        (&b"7"[..], 7),
        (b"-1", 0),
        (b"4294967295", 0),
        (b"4294967301", 5),
        (b"-2", u32::MAX - 1),
        (b"4294967294", u32::MAX - 1),
    ] {
        let archive = [pax(&[("uid", value)]), entry(b"f", b'0', b"data", &[])].concat();
        assert_eq!(read(&archive).unwrap()[0].0.uid, want);
    }
}

#[test]
fn malformed_archives_say_what_is_wrong() {
    let file = entry(b"f", b'0', b"data", &[]);
    for (archive, want) in [
        (file[..515].to_vec(), "tar: archive ends inside an entry's data"),
        (file[..300].to_vec(), "tar: archive ends inside a block"),
        ([b"x".repeat(512), file.clone()].concat(), "tar: header's checksum: not an octal number"),
        (
            [pax(&[("path", b"a")]), pax(&[("path", b"b")]), file.clone()].concat(),
            "tar: second PAX header for one entry",
        ),
        (pax(&[("path", b"a")]), "tar: extended header without an entry"),
        (header(b"f", b'0', 0, &[(124, &[0xff; 12])]), "entry f: size -1"),
        (header(b"f", b'V', 0, &[]), "entry f: unknown tar entry type 'V'"),
        (header(b"d", b'3', 0, &[(329, b"0010000\0")]), "entry d: no such device: 4096:0"),
        (header(b"x", b'x', 2 << 20, &[]), "tar: extended header of 2097152 bytes"),
    ] {
        assert!(read(&archive).unwrap_err().starts_with(want), "{:?}, not {want}", read(&archive));
    }
}

/// Damages good archives and those of the fuzzer's corpus at random. Whatever comes out, nothing panics, and no more data is
/// given than there is.
#[test]
fn damaged_archives_never_panic() {
    let sparse = records(&[("GNU.sparse.map", b"0,4,9,4"), ("GNU.sparse.size", b"20"), ("mtime", b"1.5")]);
    let good = [
        entry(b"pax", b'x', &sparse, &[]),
        entry(b"s", b'0', b"datamore", &[]),
        entry(b"././@LongLink", b'L', b"name\0", &[(257, b"ustar  \0")]),
        header(b"s", b'S', 4, &[(257, b"ustar  \0"), (386, b"00000000000\x0000000000004\0"), (483, b"00000000100\0")]),
        padded(b"data"),
        pax(&[("SCHILY.xattr.user.x", b"v"), ("LIBARCHIVE.xattr.user.y", b"dg"), ("size", b"4")]),
        entry(b"f", b'0', b"data", &[]),
        END.to_vec(),
    ]
    .concat();
    assert_eq!(read(&good).unwrap().len(), 3);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let corpus = damage::corpus();
    assert!(corpus.len() > 100, "{}", corpus.len());
    for (archive, times) in corpus.iter().map(|archive| (archive, 100)).chain([(&good, 5_000)]) {
        for _ in 0..times {
            let damaged = damage::damage(archive, &mut random);
            let Ok(entries) = read(&damaged) else { continue };
            assert!(entries.iter().map(|(_, data)| data.len()).sum::<usize>() <= damaged.len());
            for (entry, _) in entries.iter().filter(|(entry, _)| entry.sparse.is_none()) {
                assert!(entry.size <= damaged.len() as u64);
            }
        }
    }
}
