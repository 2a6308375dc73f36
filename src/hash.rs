//! Layer 0. `Hash` and every use the ledger makes of BLAKE3; nothing else in
//! the crate calls it.
//!
//! Two kinds of hash exist (`spec/00-terms.md`):
//!
//! * **content**: plain BLAKE3, used for payloads, so that `b3sum` on a payload
//!   prints the same value;
//! * **keyed**: BLAKE3 keyed mode under a key that belongs to one [`Role`], so
//!   that a value made in one role can never be mistaken for one made in
//!   another. An inner node costs one compression (64 bytes in).

use std::fmt;
use std::sync::LazyLock;

mod lanes;

use lanes::{CHUNK_BYTES, LANES_MAX, Mode, Piece};

/// A 32-byte BLAKE3 value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hash([u8; Hash::LEN]);

impl Hash {
    /// Bytes in a hash.
    pub const LEN: usize = 32;

    /// Wraps 32 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// Wraps a slice of exactly 32 bytes.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// Parses exactly 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 2 * Self::LEN {
            return None;
        }
        let mut out = [0u8; Self::LEN];
        for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = (hex_digit(pair[0])? << 4) | hex_digit(pair[1])?;
        }
        Some(Self(out))
    }

    /// The hexadecimal digit at `depth` (0..=63), high half of each byte first:
    /// the path of a context in the directory.
    ///
    /// # Panics
    /// Never: `depth` is reduced to 0..=63.
    #[must_use]
    pub const fn nibble(&self, depth: u8) -> u8 {
        let byte = self.0[((depth & 63) / 2) as usize];
        if depth & 1 == 0 { byte >> 4 } else { byte & 15 }
    }
}

const fn hex_digit(c: u8) -> Option<u8> {
    match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What a keyed hash is for. The key of a role is
/// `derive_key("converge-ledger v1 <role>", "")`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// An entry's header.
    Leaf,
    /// An inner node of a context's tree: left and right child.
    Node,
    /// A context id, giving its place in the directory.
    DirectoryPath,
    /// A context's (size, root, id), as committed by the directory.
    DirectoryEntry,
    /// A node of the directory.
    DirectoryNode,
}

impl Role {
    /// All roles, in the order of `spec/00-terms.md`.
    pub const ALL: [Self; 5] = [
        Self::Leaf,
        Self::Node,
        Self::DirectoryPath,
        Self::DirectoryEntry,
        Self::DirectoryNode,
    ];

    /// The derivation context of the role's key.
    #[must_use]
    pub const fn context(self) -> &'static str {
        match self {
            Self::Leaf => "converge-ledger v1 leaf",
            Self::Node => "converge-ledger v1 node",
            Self::DirectoryPath => "converge-ledger v1 directory-path",
            Self::DirectoryEntry => "converge-ledger v1 directory-entry",
            Self::DirectoryNode => "converge-ledger v1 directory-node",
        }
    }

    /// The role's 32-byte key, computed once per process.
    #[must_use]
    pub fn key(self) -> &'static [u8; 32] {
        static KEYS: LazyLock<[[u8; 32]; 5]> =
            LazyLock::new(|| Role::ALL.map(|role| blake3::derive_key(role.context(), b"")));
        &KEYS[self as usize]
    }
}

/// Plain BLAKE3: the hash of a payload, as `b3sum` prints it.
#[must_use]
pub fn content(bytes: &[u8]) -> Hash {
    Hash(*blake3::hash(bytes).as_bytes())
}

/// BLAKE3 in keyed mode under the key of `role`.
#[must_use]
pub fn keyed(role: Role, bytes: &[u8]) -> Hash {
    keyed_with(role.key(), bytes)
}

/// BLAKE3 in keyed mode under an explicit key.
#[must_use]
pub fn keyed_with(key: &[u8; 32], bytes: &[u8]) -> Hash {
    Hash(*blake3::keyed_hash(key, bytes).as_bytes())
}

/// [`keyed`] of each input, in the same order: at half the time or less if there
/// are many short ones.
#[must_use]
pub fn keyed_many(role: Role, inputs: &[&[u8]]) -> Vec<Hash> {
    keyed_many_with(role.key(), inputs)
}

/// [`keyed_with`] of each input, like [`keyed_many`].
#[must_use]
pub fn keyed_many_with(key: &[u8; 32], inputs: &[&[u8]]) -> Vec<Hash> {
    many(&Mode::keyed(key), inputs)
}

/// [`content`] of each input, like [`keyed_many`].
#[must_use]
pub fn content_many(inputs: &[&[u8]]) -> Vec<Hash> {
    many(&Mode::PLAIN, inputs)
}

/// How many pieces one by one take as long as a full width of them.
const LONE_COST: usize = 2;
/// Inputs of more chunks are hashed alone: the library has lanes for them.
const SPLIT_BYTES_MAX: usize = 8 * CHUNK_BYTES;

/// Hashes chunks side by side, whichever input they belong to.
fn many(mode: &Mode<'_>, inputs: &[&[u8]]) -> Vec<Hash> {
    let mut out = vec![Hash::default(); inputs.len()];
    let mut pieces = Vec::with_capacity(inputs.len());
    for (input, out) in inputs.iter().zip(&mut out) {
        let whole = input.len() <= CHUNK_BYTES;
        if input.is_empty() {
            pieces.push(Piece {
                whole,
                ..Piece::default()
            });
        } else if input.len() <= SPLIT_BYTES_MAX {
            let chunks = (0..).zip(input.chunks(CHUNK_BYTES));
            pieces.extend(chunks.map(|(chunk, bytes)| Piece {
                bytes,
                chunk,
                whole,
            }));
        } else {
            *out = mode.alone(input);
        }
    }
    let values = side_by_side(mode, &pieces);
    let mut rest = values.as_slice();
    for (input, out) in inputs.iter().zip(&mut out) {
        let chunks = match input.len() {
            0 => 1,
            len if len <= SPLIT_BYTES_MAX => len.div_ceil(CHUNK_BYTES),
            _ => continue,
        };
        if let Some((chunks, others)) = rest.split_at_checked(chunks) {
            *out = match chunks {
                [whole] => *whole,
                chunks => mode.join(chunks),
            };
            rest = others;
        }
    }
    out
}

/// What each piece comes to.
fn side_by_side(mode: &Mode<'_>, pieces: &[Piece<'_>]) -> Vec<Hash> {
    let mut out = vec![Hash::default(); pieces.len()];
    // Lanes take as long as the longest among them.
    let mut order: Vec<usize> = (0..pieces.len()).collect();
    order.sort_by_key(|at| pieces.get(*at).map_or(0, Piece::blocks));
    let width = lanes::width();
    let mut lanes = [Piece::default(); LANES_MAX];
    let mut hashes = [Hash::default(); LANES_MAX];
    for alike in order.chunks(width) {
        for (at, lane) in alike.iter().zip(&mut lanes) {
            *lane = pieces.get(*at).copied().unwrap_or_default();
        }
        let lanes = lanes.get(..alike.len()).unwrap_or_default();
        let longest = lanes.last().map_or(0, Piece::blocks);
        let needed: usize = lanes.iter().map(Piece::blocks).sum();
        // All lanes together take as long as one or two of them one by one.
        if width > 1 && needed > longest * LONE_COST {
            lanes::hash(mode, lanes, &mut hashes);
        } else {
            for (lane, hash) in lanes.iter().zip(&mut hashes) {
                *hash = mode.alone_piece(lane);
            }
        }
        for (at, hash) in alike.iter().zip(&hashes) {
            if let Some(out) = out.get_mut(*at) {
                *out = *hash;
            }
        }
    }
    out
}

/// [`node`] of each pair of neighbours; a last one without a pair is left out.
#[must_use]
pub fn node_many(children: &[Hash]) -> Vec<Hash> {
    let pairs: Vec<[u8; 2 * Hash::LEN]> = children.chunks_exact(2).map(join).collect();
    let inputs: Vec<&[u8]> = pairs.iter().map(<[u8; 64]>::as_slice).collect();
    keyed_many(Role::Node, &inputs)
}

fn join(pair: &[Hash]) -> [u8; 2 * Hash::LEN] {
    let mut both = [0u8; 2 * Hash::LEN];
    for (half, hash) in both.chunks_exact_mut(Hash::LEN).zip(pair) {
        half.copy_from_slice(&hash.0);
    }
    both
}

/// A key for `context` (a constant of this crate) from `material`.
#[must_use]
pub fn derive_key(context: &str, material: &[u8]) -> [u8; 32] {
    blake3::derive_key(context, material)
}

/// The hash of an inner tree node: `keyed(node, left || right)`.
#[must_use]
pub fn node(left: &Hash, right: &Hash) -> Hash {
    keyed(Role::Node, &join(&[*left, *right]))
}

/// The root of the empty tree: `keyed(node, "")`.
#[must_use]
pub fn empty_root() -> Hash {
    keyed(Role::Node, b"")
}

/// BLAKE3 over bytes that arrive in parts, plain or keyed.
#[derive(Clone)]
pub struct Stream(blake3::Hasher);

impl Stream {
    /// Plain BLAKE3.
    #[must_use]
    pub fn content() -> Self {
        Self(blake3::Hasher::new())
    }

    /// Keyed BLAKE3.
    #[must_use]
    pub fn keyed_with(key: &[u8; 32]) -> Self {
        Self(blake3::Hasher::new_keyed(key))
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(bytes);
        self
    }

    /// The hash of everything added so far.
    #[must_use]
    pub fn finish(&self) -> Hash {
        Hash(*self.0.finalize().as_bytes())
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stream")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_never_collide() {
        let mut seen = std::collections::BTreeSet::new();
        for role in Role::ALL {
            assert!(seen.insert(keyed(role, b"")));
            assert!(seen.insert(keyed(role, &[0; 64])));
        }
        assert!(seen.insert(content(b"")));
    }

    #[test]
    fn many_are_hashed_like_one_by_one() {
        let bytes: Vec<u8> = (0..8300u32).map(|i| (i * i % 251) as u8).collect();
        // Every length, alone and beside 1 to 40 others of about that length.
        let long = [
            1025,
            1100,
            2048,
            2049,
            3000,
            5 << 10,
            7 << 10,
            8191,
            8192,
            8193,
        ];
        for len in (0..140).chain([192, 193, 959, 960, 1023, 1024]).chain(long) {
            for count in [1, 7, 8, 15, 16, 17, 40] {
                let inputs: Vec<&[u8]> = (0..count)
                    .map(|i| &bytes[i..i + len + i % 3 * (len % 2)])
                    .collect();
                let one_by_one: Vec<Hash> = inputs
                    .iter()
                    .map(|input| keyed(Role::Leaf, input))
                    .collect();
                assert_eq!(keyed_many(Role::Leaf, &inputs), one_by_one, "{len} {count}");
                let plain: Vec<Hash> = inputs.iter().map(|input| content(input)).collect();
                assert_eq!(content_many(&inputs), plain, "{len} {count}");
            }
        }
        // All lengths mixed.
        for (step, below) in [
            (1usize, 1200),
            (7, 1200),
            (61, 1200),
            (333, 1200),
            (333, 8200),
        ] {
            let len = |i: usize| i * step * 31 % below;
            let inputs: Vec<&[u8]> = (0..300).map(|i| &bytes[i % 90..][..len(i)]).collect();
            let plain: Vec<Hash> = inputs.iter().map(|input| content(input)).collect();
            assert_eq!(content_many(&inputs), plain, "{step}");
            for count in 0..20 {
                assert_eq!(content_many(&inputs[..count]), plain[..count], "{step}");
            }
        }
        assert_eq!(content_many(&[]), []);
        assert_eq!(keyed_many(Role::Leaf, &[]), []);
        let children: Vec<Hash> = (0..77u8).map(|i| content(&[i])).collect();
        let parents: Vec<Hash> = children
            .chunks_exact(2)
            .map(|c| node(&c[0], &c[1]))
            .collect();
        assert_eq!(node_many(&children), parents);
    }

    #[test]
    fn hex_is_lower_case_and_exact() {
        let h = content(b"x");
        let text = h.to_string();
        assert_eq!(Hash::from_hex(&text), Some(h));
        assert_eq!(Hash::from_hex(&text.to_uppercase()), None);
        assert_eq!(Hash::from_hex(&text[1..]), None);
        assert_eq!(Hash::from_hex(&format!("{text}0")), None);
    }

    #[test]
    fn nibbles_read_the_hex_text_from_left_to_right() {
        let h = content(b"nibbles");
        let text: String = (0..64)
            .map(|i| char::from_digit(u32::from(h.nibble(i)), 16).unwrap())
            .collect();
        assert_eq!(text, h.to_string());
    }

    #[test]
    fn a_stream_hashes_like_one_piece() {
        let mut s = Stream::content();
        s.update(b"ab").update(b"c");
        assert_eq!(s.finish(), content(b"abc"));
        let key = Role::Leaf.key();
        let mut s = Stream::keyed_with(key);
        s.update(b"ab").update(b"c");
        assert_eq!(s.finish(), keyed_with(key, b"abc"));
    }
}
