//! BLAKE3, plain or keyed, over many short inputs at once.
//!
//! One input of a few blocks leaves most of a processor idle, since every step
//! waits for the one before it. Here each word of the state is a vector with a
//! lane per input: sixteen with AVX-512, eight with AVX2, four with NEON, as the
//! processor at hand has them; without any, inputs are hashed one by one.
//! Contract: the same values as `blake3::hash` or `blake3::keyed_hash` for inputs
//! of one chunk, and for longer ones the chaining values of their chunks, which
//! the library's own functions join; tests compare them.

// What uses vectors must end up in the one function that is compiled for them.
#![allow(clippy::inline_always)]

use std::sync::LazyLock;

use blake3::hazmat::{self, HasherExt};
use pulp::{Arch, Simd, WithSimd};

use super::Hash;

/// Pieces hashed side by side, at most.
pub(super) const LANES_MAX: usize = 16;
/// Longer inputs are trees of chunks.
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
#[derive(Clone, Copy)]
pub(super) struct Mode<'k> {
    key: Option<&'k [u8; 32]>,
    start: [u32; 8],
    flags: u32,
}

impl<'k> Mode<'k> {
    pub(super) const PLAIN: Self = Self {
        key: None,
        start: IV,
        flags: 0,
    };

    pub(super) fn keyed(key: &'k [u8; 32]) -> Self {
        let mut start = [0; 8];
        for (word, bytes) in start.iter_mut().zip(key.chunks_exact(4)) {
            *word = le_word(bytes);
        }
        Self {
            key: Some(key),
            start,
            flags: KEYED_HASH,
        }
    }

    /// The hash of one input, by the library alone.
    pub(super) fn alone(&self, input: &[u8]) -> Hash {
        let hash = match self.key {
            Some(key) => blake3::keyed_hash(key, input),
            None => blake3::hash(input),
        };
        Hash(*hash.as_bytes())
    }

    /// What a piece comes to, by the library alone.
    pub(super) fn alone_piece(&self, piece: &Piece<'_>) -> Hash {
        if piece.whole {
            return self.alone(piece.bytes);
        }
        let mut hasher = match self.key {
            Some(key) => blake3::Hasher::new_keyed(key),
            None => blake3::Hasher::new(),
        };
        let offset = u64::from(piece.chunk) * CHUNK_BYTES as u64;
        hasher.set_input_offset(offset).update(piece.bytes);
        Hash(hasher.finalize_non_root())
    }

    /// The hash of an input of these chunks; at least two.
    pub(super) fn join(&self, chunks: &[Hash]) -> Hash {
        let (left, right) = self.halves(chunks);
        Hash(*hazmat::merge_subtrees_root(&left, &right, self.library()).as_bytes())
    }

    fn subtree(&self, chunks: &[Hash]) -> hazmat::ChainingValue {
        if let [one] = chunks {
            return one.0;
        }
        let (left, right) = self.halves(chunks);
        hazmat::merge_subtrees_non_root(&left, &right, self.library())
    }

    /// Split at the largest power of two below their number.
    fn halves(&self, chunks: &[Hash]) -> (hazmat::ChainingValue, hazmat::ChainingValue) {
        let (left, right) = chunks.split_at(chunks.len().div_ceil(2).next_power_of_two());
        (self.subtree(left), self.subtree(right))
    }

    fn library(&self) -> hazmat::Mode<'k> {
        self.key.map_or(hazmat::Mode::Hash, hazmat::Mode::KeyedHash)
    }
}

/// One chunk of an input.
#[derive(Clone, Copy, Default)]
pub(super) struct Piece<'i> {
    pub(super) bytes: &'i [u8],
    /// Its place in the input.
    pub(super) chunk: u32,
    /// It is the input.
    pub(super) whole: bool,
}

impl Piece<'_> {
    pub(super) fn blocks(&self) -> usize {
        blocks(self.bytes.len())
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

/// Blocks of an input; an empty one has a block without bytes.
const fn blocks(bytes: usize) -> usize {
    if bytes == 0 {
        1
    } else {
        bytes.div_ceil(BLOCK_BYTES)
    }
}

/// What this processor has; found out once.
static ARCH: LazyLock<Arch> = LazyLock::new(Arch::new);

/// Pieces that this processor hashes side by side.
pub(super) fn width() -> usize {
    static WIDTH: LazyLock<usize> = LazyLock::new(|| ARCH.dispatch(Width));
    *WIDTH
}

struct Width;

impl WithSimd for Width {
    type Output = usize;

    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::U32_LANES.clamp(1, LANES_MAX)
    }
}

/// What pieces of at most [`CHUNK_BYTES`] come to: hashes of whole inputs,
/// chaining values of others. Each [`width`] of them take as long as the longest.
pub(super) fn hash(mode: &Mode<'_>, pieces: &[Piece<'_>], out: &mut [Hash]) {
    ARCH.dispatch(SideBySide { mode, pieces, out });
}

struct SideBySide<'j, 'i> {
    mode: &'j Mode<'j>,
    pieces: &'j [Piece<'i>],
    out: &'j mut [Hash],
}

impl WithSimd for SideBySide<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let width = S::U32_LANES.clamp(1, LANES_MAX);
        for (pieces, out) in self.pieces.chunks(width).zip(self.out.chunks_mut(width)) {
            hash_lanes(simd, self.mode, pieces, out);
        }
    }
}

/// One word of every lane, on its way into or out of a vector.
type Lanes = [u32; LANES_MAX];

#[inline(always)]
fn hash_lanes<S: Simd>(simd: S, mode: &Mode<'_>, pieces: &[Piece<'_>], out: &mut [Hash]) {
    let longest = pieces.iter().map(Piece::blocks).max();
    let mut cv = mode.start.map(|word| simd.splat_u32s(word));
    let mut counters = Lanes::default();
    for (counter, piece) in counters.iter_mut().zip(pieces) {
        *counter = piece.chunk;
    }
    for block in 0..longest.unwrap_or(0) {
        let first = if block == 0 { CHUNK_START } else { 0 };
        let (mut lens, mut flags) = (Lanes::default(), Lanes::default());
        let mut words = [Lanes::default(); 16];
        for (lane, piece) in pieces.iter().enumerate() {
            let rest = piece.bytes.get(block * BLOCK_BYTES..).unwrap_or_default();
            lens[lane] = load(rest, lane, &mut words);
            flags[lane] = mode.flags | first;
            if block + 1 == piece.blocks() {
                flags[lane] |= CHUNK_END | if piece.whole { ROOT } else { 0 };
            }
        }
        let message = words.map(|word| vector(simd, &word));
        // A chunk's number has less than 32 bits here.
        let last_row = [
            vector(simd, &counters),
            simd.splat_u32s(0),
            vector(simd, &lens),
            vector(simd, &flags),
        ];
        compress(simd, &mut cv, &message, last_row);
        // What a lane holds behind its piece's end is of no use.
        if !pieces.iter().any(|piece| block + 1 == piece.blocks()) {
            continue;
        }
        let mut words = [Lanes::default(); 8];
        for (word, cv) in words.iter_mut().zip(cv) {
            if let Some(vector) = S::as_mut_simd_u32s(word).0.first_mut() {
                *vector = cv;
            }
        }
        for (lane, (piece, hash)) in pieces.iter().zip(out.iter_mut()).enumerate() {
            if block + 1 == piece.blocks() {
                for (bytes, word) in hash.0.chunks_exact_mut(4).zip(&words) {
                    bytes.copy_from_slice(&word[lane].to_le_bytes());
                }
            }
        }
    }
}

#[inline(always)]
fn vector<S: Simd>(simd: S, lanes: &Lanes) -> S::u32s {
    let (vectors, _) = S::as_simd_u32s(lanes);
    vectors.first().copied().unwrap_or(simd.splat_u32s(0))
}

/// Puts the next block of a piece into its lane; returns the block's bytes.
#[inline(always)]
fn load(rest: &[u8], lane: usize, words: &mut [Lanes; 16]) -> u32 {
    let mut padded = [0; BLOCK_BYTES];
    let len = rest.len().min(BLOCK_BYTES);
    let block = if let Some(block) = rest.first_chunk::<BLOCK_BYTES>() {
        block
    } else {
        padded[..len].copy_from_slice(rest);
        &padded
    };
    for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
        word[lane] = le_word(bytes);
    }
    // At most 64.
    u32::try_from(len).unwrap_or(0)
}

#[inline(always)]
fn le_word(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_le_bytes)
}

#[inline(always)]
fn compress<S: Simd>(simd: S, cv: &mut [S::u32s; 8], m: &[S::u32s; 16], last_row: [S::u32s; 4]) {
    let [i0, i1, i2, i3, ..] = IV.map(|word| simd.splat_u32s(word));
    let [c0, c1, c2, c3, c4, c5, c6, c7] = *cv;
    let [l0, l1, l2, l3] = last_row;
    let mut v = [
        c0, c1, c2, c3, c4, c5, c6, c7, i0, i1, i2, i3, l0, l1, l2, l3,
    ];
    for r in &SCHEDULE {
        mix(simd, &mut v, [0, 4, 8, 12], m[r[0]], m[r[1]]);
        mix(simd, &mut v, [1, 5, 9, 13], m[r[2]], m[r[3]]);
        mix(simd, &mut v, [2, 6, 10, 14], m[r[4]], m[r[5]]);
        mix(simd, &mut v, [3, 7, 11, 15], m[r[6]], m[r[7]]);
        mix(simd, &mut v, [0, 5, 10, 15], m[r[8]], m[r[9]]);
        mix(simd, &mut v, [1, 6, 11, 12], m[r[10]], m[r[11]]);
        mix(simd, &mut v, [2, 7, 8, 13], m[r[12]], m[r[13]]);
        mix(simd, &mut v, [3, 4, 9, 14], m[r[14]], m[r[15]]);
    }
    for (i, out) in cv.iter_mut().enumerate() {
        *out = simd.xor_u32s(v[i], v[i + 8]);
    }
}

/// BLAKE3's mixing function in every lane.
#[inline(always)]
#[allow(clippy::many_single_char_names)] // the names of the BLAKE3 paper
fn mix<S: Simd>(simd: S, v: &mut [S::u32s; 16], [a, b, c, d]: [usize; 4], x: S::u32s, y: S::u32s) {
    let add = |x, y| simd.add_u32s(x, y);
    v[a] = add(add(v[a], v[b]), x);
    v[d] = rotate_right::<S, 16>(simd, simd.xor_u32s(v[d], v[a]));
    v[c] = add(v[c], v[d]);
    v[b] = rotate_right::<S, 12>(simd, simd.xor_u32s(v[b], v[c]));
    v[a] = add(add(v[a], v[b]), y);
    v[d] = rotate_right::<S, 8>(simd, simd.xor_u32s(v[d], v[a]));
    v[c] = add(v[c], v[d]);
    v[b] = rotate_right::<S, 7>(simd, simd.xor_u32s(v[b], v[c]));
}

#[inline(always)]
fn rotate_right<S: Simd, const BITS: u32>(simd: S, word: S::u32s) -> S::u32s {
    let right = simd.wrapping_dyn_shr_u32s(word, simd.splat_u32s(BITS));
    let left = simd.wrapping_dyn_shl_u32s(word, simd.splat_u32s(32 - BITS));
    simd.or_u32s(right, left)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that this processor has, and none.
    fn everything() -> Vec<Arch> {
        let mut all = vec![Arch::Scalar, Arch::new()];
        #[cfg(target_arch = "x86_64")]
        all.extend(pulp::x86::V3::try_new().map(Arch::V3));
        all
    }

    #[test]
    fn every_instruction_set_agrees_with_the_library() {
        let bytes: Vec<u8> = (0..2000u32).map(|i| (i * i % 251) as u8).collect();
        let piece = |i: usize| {
            let len = i * 89 % (CHUNK_BYTES + 1);
            Piece {
                bytes: &bytes[i..i + len.max(1)],
                chunk: u32::try_from(i % 3).unwrap(),
                whole: i.is_multiple_of(3),
            }
        };
        let pieces: Vec<Piece<'_>> = (0..67).map(piece).collect();
        for mode in [Mode::PLAIN, Mode::keyed(crate::hash::Role::Leaf.key())] {
            let alone: Vec<Hash> = pieces.iter().map(|piece| mode.alone_piece(piece)).collect();
            for arch in everything() {
                let (mode, pieces) = (&mode, pieces.as_slice());
                let mut out = vec![Hash::default(); pieces.len()];
                let job = SideBySide {
                    mode,
                    pieces,
                    out: &mut out,
                };
                arch.dispatch(job);
                assert_eq!(out, alone, "{arch:?}");
            }
        }
    }
}
