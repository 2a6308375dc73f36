//! BLAKE3, plain or keyed, over many short inputs at once.
//!
//! One input of a few blocks leaves most of a processor idle, since every step
//! waits for the one before it. Here each word of the state is an array with a
//! lane per input, and the loops over lanes become vector instructions on
//! whatever the target has. Contract: the same values as
//! `blake3::hash` or `blake3::keyed_hash`, for inputs of at most one chunk; tests
//! compare them.

use super::Hash;

/// Inputs hashed side by side.
pub(super) const LANES: usize = 16;
/// Longer inputs have an inner tree, which is not made here.
pub(super) const CHUNK_BYTES: usize = 1024;

const BLOCK_BYTES: usize = 64;
const CHUNK_START: u32 = 1;
const CHUNK_END: u32 = 2;
const ROOT: u32 = 8;
const KEYED_HASH: u32 = 16;

const IV: [u32; 8] = [
    0x6A09_E667,
    0xBB67_AE85,
    0x3C6E_F372,
    0xA54F_F53A,
    0x510E_527F,
    0x9B05_688C,
    0x1F83_D9AB,
    0x5BE0_CD19,
];

/// Plain, or keyed and with which key.
pub(super) struct Mode {
    start: [u32; 8],
    flags: u32,
}

impl Mode {
    pub(super) const PLAIN: Self = Self {
        start: IV,
        flags: 0,
    };

    pub(super) fn keyed(key: &[u8; 32]) -> Self {
        let mut start = [0; 8];
        for (word, bytes) in start.iter_mut().zip(key.chunks_exact(4)) {
            *word = le_word(bytes);
        }
        Self {
            start,
            flags: KEYED_HASH,
        }
    }
}

/// The order in which each round takes the words of a block.
const SCHEDULE: [[usize; 16]; 7] = schedule();

const fn schedule() -> [[usize; 16]; 7] {
    const PERMUTATION: [usize; 16] = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8];
    let mut rounds = [[0; 16]; 7];
    let mut round = 0;
    while round < 7 {
        let mut i = 0;
        while i < 16 {
            rounds[round][i] = match round {
                0 => i,
                _ => rounds[round - 1][PERMUTATION[i]],
            };
            i += 1;
        }
        round += 1;
    }
    rounds
}

/// One word of every lane.
type Word = [u32; LANES];

/// Blocks of an input; an empty one has a block without bytes.
pub(super) const fn blocks(bytes: usize) -> usize {
    if bytes == 0 {
        1
    } else {
        bytes.div_ceil(BLOCK_BYTES)
    }
}

/// Hashes up to [`LANES`] inputs of at most [`CHUNK_BYTES`]; takes as long as the
/// longest of them.
pub(super) fn hash(mode: &Mode, inputs: &[&[u8]], out: &mut [Hash]) {
    let longest = inputs.iter().map(|input| blocks(input.len())).max();
    let mut cv = mode.start.map(|word| [word; LANES]);
    let (mut lens, mut flags) = ([0; LANES], [0; LANES]);
    for block in 0..longest.unwrap_or(0) {
        let first = if block == 0 { CHUNK_START } else { 0 };
        let mut padded = [[0; BLOCK_BYTES]; LANES];
        let lanes = inputs.iter().zip(lens.iter_mut().zip(&mut flags));
        for ((input, (len, flags)), padded) in lanes.zip(&mut padded) {
            let rest = input.get(block * BLOCK_BYTES..).unwrap_or_default();
            *len = load(rest, padded);
            *flags = mode.flags | first;
            if block + 1 == blocks(input.len()) {
                *flags |= CHUNK_END | ROOT;
            }
        }
        let message = turn(&padded);
        compress(&mut cv, &message, &lens, &flags);
        // What a lane holds behind its input's end is of no use.
        for (lane, (input, hash)) in inputs.iter().zip(out.iter_mut()).enumerate() {
            if block + 1 == blocks(input.len()) {
                for (bytes, word) in hash.0.chunks_exact_mut(4).zip(&cv) {
                    bytes.copy_from_slice(&word[lane].to_le_bytes());
                }
            }
        }
    }
}

/// Copies the next block of an input; returns its bytes.
fn load(rest: &[u8], padded: &mut [u8; BLOCK_BYTES]) -> u32 {
    if let Some(block) = rest.first_chunk::<BLOCK_BYTES>() {
        *padded = *block;
        return 64;
    }
    padded[..rest.len()].copy_from_slice(rest);
    // Less than 64.
    u32::try_from(rest.len()).unwrap_or(0)
}

/// Blocks by lane to words by lane.
fn turn(blocks: &[[u8; BLOCK_BYTES]; LANES]) -> [Word; 16] {
    let mut words = [[0; LANES]; 16];
    for (at, word) in words.iter_mut().enumerate() {
        for (word, block) in word.iter_mut().zip(blocks) {
            *word = le_word(&block[4 * at..4 * at + 4]);
        }
    }
    words
}

fn le_word(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_le_bytes)
}

fn compress(cv: &mut [Word; 8], m: &[Word; 16], lens: &Word, flags: &Word) {
    let [
        mut v0,
        mut v1,
        mut v2,
        mut v3,
        mut v4,
        mut v5,
        mut v6,
        mut v7,
    ] = *cv;
    let [mut v8, mut v9, mut v10, mut v11, ..] = IV.map(|word| [word; LANES]);
    // The counter of a chunk that is the first is 0.
    let (mut v12, mut v13) = ([0; LANES], [0; LANES]);
    let (mut v14, mut v15) = (*lens, *flags);
    for r in &SCHEDULE {
        mix(&mut v0, &mut v4, &mut v8, &mut v12, &m[r[0]], &m[r[1]]);
        mix(&mut v1, &mut v5, &mut v9, &mut v13, &m[r[2]], &m[r[3]]);
        mix(&mut v2, &mut v6, &mut v10, &mut v14, &m[r[4]], &m[r[5]]);
        mix(&mut v3, &mut v7, &mut v11, &mut v15, &m[r[6]], &m[r[7]]);
        mix(&mut v0, &mut v5, &mut v10, &mut v15, &m[r[8]], &m[r[9]]);
        mix(&mut v1, &mut v6, &mut v11, &mut v12, &m[r[10]], &m[r[11]]);
        mix(&mut v2, &mut v7, &mut v8, &mut v13, &m[r[12]], &m[r[13]]);
        mix(&mut v3, &mut v4, &mut v9, &mut v14, &m[r[14]], &m[r[15]]);
    }
    let upper = [v0, v1, v2, v3, v4, v5, v6, v7];
    let lower = [v8, v9, v10, v11, v12, v13, v14, v15];
    for (out, (a, b)) in cv.iter_mut().zip(upper.iter().zip(&lower)) {
        for (out, (a, b)) in out.iter_mut().zip(a.iter().zip(b)) {
            *out = a ^ b;
        }
    }
}

/// BLAKE3's mixing function in every lane. Not inlined: as a loop of its own
/// it is turned into vector instructions, inside of `compress` it is not.
#[inline(never)]
#[allow(clippy::many_single_char_names)] // the names of the BLAKE3 paper
fn mix(a: &mut Word, b: &mut Word, c: &mut Word, d: &mut Word, x: &Word, y: &Word) {
    for lane in 0..LANES {
        let (mut p, mut q, mut r, mut s) = (a[lane], b[lane], c[lane], d[lane]);
        p = p.wrapping_add(q).wrapping_add(x[lane]);
        s = (s ^ p).rotate_right(16);
        r = r.wrapping_add(s);
        q = (q ^ r).rotate_right(12);
        p = p.wrapping_add(q).wrapping_add(y[lane]);
        s = (s ^ p).rotate_right(8);
        r = r.wrapping_add(s);
        q = (q ^ r).rotate_right(7);
        (a[lane], b[lane], c[lane], d[lane]) = (p, q, r, s);
    }
}
