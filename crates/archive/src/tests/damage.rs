//! Archives damaged at random, with their checksums made right again so that the damage goes deep. The same in each run.

use std::fs;

const BLOCK: usize = 512;

/// A generator of numbers that are the same in each run: xorshift64*.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).unwrap_or_default() % below
    }
}

/// Returns the fuzzer's seeds: layers that do what none may do, or oddly do.
pub(crate) fn corpus() -> Vec<Vec<u8>> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/archive");
    let mut seeds: Vec<_> = fs::read_dir(directory).unwrap().map(|seed| seed.unwrap().path()).collect();
    seeds.sort();
    seeds.iter().map(|seed| fs::read(seed).unwrap()).collect()
}

/// Changes a few bytes, exchanges blocks, or cuts the end off.
pub(crate) fn damage(archive: &[u8], random: &mut Random) -> Vec<u8> {
    const INTERESTING: &[u8] = b"\x00\xff0179 \n=-,xgLS./\x80";
    let mut damaged = archive.to_vec();
    for _ in 0..=random.next(4) {
        let place = random.next(damaged.len());
        damaged[place] = INTERESTING[random.next(INTERESTING.len())];
    }
    let blocks = damaged.len() / BLOCK;
    if random.next(6) == 0 {
        let (from, to) = (random.next(blocks) * BLOCK, random.next(blocks) * BLOCK);
        damaged.copy_within(from..from + BLOCK, to);
    }
    if random.next(8) == 0 {
        damaged.truncate(random.next(damaged.len()));
    }
    for block in damaged.chunks_exact_mut(BLOCK).filter(|block| block[257..].starts_with(b"ustar")) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    damaged
}
