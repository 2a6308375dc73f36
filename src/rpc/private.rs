//! Layer 4. Small files that hold settings or secrets: read whole, up to a
//! bound, and secrets only if nobody else can read them.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Bytes of such a file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The mode bits of everyone but the owner.
const OTHERS: u32 = 0o077;

/// Why a file was not taken.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system refused.
    #[error("{path}: could not read it: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Its answer.
        error: io::Error,
    },
    /// A directory, a pipe, a device.
    #[error("{path}: not a regular file")]
    NotRegular {
        /// The file.
        path: PathBuf,
    },
    /// Others than the owner may read or write it.
    #[error("{path}: it holds a secret, but its mode is {mode:o}: run `chmod 600` on it")]
    NotPrivate {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It has too many bytes.
    #[error("{path}: longer than {FILE_BYTES_MAX} bytes")]
    TooLong {
        /// The file.
        path: PathBuf,
    },
}

/// Reads a file that anybody may read.
pub(crate) fn read_public(path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    read(path, false)
}

/// Reads a file that only its owner may read.
pub(crate) fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    read(path, true)
}

fn read(path: &Path, secret: bool) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let at = || path.to_path_buf();
    let failed = |error| FileError::Io { path: at(), error };
    // Opening a pipe would wait for its writer.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(FileError::NotRegular { path: at() });
    }
    let file = File::open(path).map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    if !found.is_file() {
        return Err(FileError::NotRegular { path: at() });
    }
    let mode = found.mode() & 0o777;
    if secret && mode & OTHERS != 0 {
        return Err(FileError::NotPrivate { path: at(), mode });
    }
    // Made once, so that no copy of a secret is left behind by growing.
    let len = found.len().min(FILE_BYTES_MAX) + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(len).unwrap_or(0)));
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(FileError::TooLong { path: at() });
    }
    Ok(bytes)
}
