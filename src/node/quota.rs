//! Layer 4. How much of this machine an origin may take. Counts are compared
//! with the signed head before anything is fetched; bytes, whose number no head
//! says, bound what a sync may receive, and what its entries take at least.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::limits::HEADER_FIXED_BYTES;
use crate::sync::{LocalFault, MirrorLimits};

/// How often room is measured; how long a measure of the directory is good for.
pub(super) const MEASURE_EVERY: Duration = Duration::from_secs(2);
/// Directories within each other that are looked into.
const DEPTH_MAX: usize = 4;

/// Bounds of one origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Bytes of its store's directory.
    pub bytes_max: u64,
    /// Its contexts.
    pub contexts_max: u64,
    /// Its entries.
    pub entries_max: u64,
    /// Bytes that stay free on the file system.
    pub free_bytes_min: u64,
}

impl Default for Quota {
    /// A million contexts, whatever they hold, as long as 256 MiB stay free.
    fn default() -> Self {
        Self {
            bytes_max: u64::MAX,
            contexts_max: MirrorLimits::default().contexts_max,
            entries_max: u64::MAX,
            free_bytes_min: 256 << 20,
        }
    }
}

/// A quota, and the directory it is about.
#[derive(Debug)]
pub struct Meter {
    quota: Quota,
    directory: PathBuf,
    measured: Mutex<Option<(Instant, u64)>>,
}

impl Meter {
    /// Measures `directory` by `quota`.
    #[must_use]
    pub const fn new(quota: Quota, directory: PathBuf) -> Self {
        Self {
            quota,
            directory,
            measured: Mutex::new(None),
        }
    }

    /// What the next sync may bring to a store that holds so many entries.
    pub fn allowed(&self, held_entries: u64) -> Result<MirrorLimits, LocalFault> {
        let used_bytes = self.used_bytes()?;
        let left_by_quota = self.quota.bytes_max.saturating_sub(used_bytes);
        if left_by_quota == 0 {
            return Err(LocalFault::Quota {
                what: "bytes of the store",
                got: used_bytes,
                max: self.quota.bytes_max,
            });
        }
        let keep_bytes = self.quota.free_bytes_min;
        let free_bytes = free_bytes(&self.directory)?;
        let left_on_disk = free_bytes.saturating_sub(keep_bytes);
        if left_on_disk == 0 {
            return Err(LocalFault::Room {
                free_bytes,
                keep_bytes,
            });
        }
        let bytes = left_by_quota.min(left_on_disk);
        let entries = held_entries.saturating_add(bytes / HEADER_FIXED_BYTES as u64);
        Ok(MirrorLimits {
            contexts_max: self.quota.contexts_max,
            entries_max: self.quota.entries_max.min(entries),
            received_bytes_max: bytes,
        })
    }

    fn used_bytes(&self) -> Result<u64, LocalFault> {
        let mut measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, bytes)) = *measured
            && at.elapsed() < MEASURE_EVERY
        {
            return Ok(bytes);
        }
        let bytes = bytes_below(&self.directory, DEPTH_MAX).map_err(read)?;
        *measured = Some((Instant::now(), bytes));
        Ok(bytes)
    }
}

fn read(error: std::io::Error) -> LocalFault {
    LocalFault::Read(Box::new(error))
}

/// Bytes of all files, except those that go away meanwhile.
fn bytes_below(directory: &Path, depth: usize) -> std::io::Result<u64> {
    let mut bytes = 0u64;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        if metadata.is_file() {
            bytes = bytes.saturating_add(metadata.len());
        } else if metadata.is_dir() && depth > 0 {
            bytes = bytes.saturating_add(bytes_below(&entry.path(), depth - 1)?);
        }
    }
    Ok(bytes)
}

/// Bytes that this process may still take on the directory's file system.
fn free_bytes(directory: &Path) -> Result<u64, LocalFault> {
    let found = rustix::fs::statvfs(directory).map_err(|error| read(error.into()))?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("log")).unwrap();
        fs::write(directory.path().join("log/a"), [0; 700]).unwrap();
        fs::write(directory.path().join("b"), [0; 300]).unwrap();
        directory
    }

    fn allowed(quota: Quota, held: u64) -> Result<MirrorLimits, LocalFault> {
        let directory = directory();
        Meter::new(quota, directory.path().to_owned()).allowed(held)
    }

    #[test]
    fn what_is_left_bounds_bytes_and_entries() {
        let quota = Quota {
            bytes_max: 1000 + 72 * 5 + 71,
            contexts_max: 7,
            entries_max: 100,
            free_bytes_min: 0,
        };
        let limits = allowed(quota, 10).unwrap();
        assert_eq!((limits.contexts_max, limits.entries_max), (7, 15));
        assert_eq!(limits.received_bytes_max, 72 * 5 + 71);
        assert_eq!(allowed(quota, 99).unwrap().entries_max, 100);
    }

    #[test]
    fn nothing_is_allowed_beyond_the_bytes_or_on_a_full_disk() {
        let full = Quota {
            bytes_max: 1000,
            ..Quota::default()
        };
        let error = allowed(full, 0).unwrap_err();
        assert!(
            matches!(
                error,
                LocalFault::Quota {
                    got: 1000,
                    max: 1000,
                    ..
                }
            ),
            "{error}"
        );
        let keep = Quota {
            free_bytes_min: u64::MAX,
            ..Quota::default()
        };
        let error = allowed(keep, 0).unwrap_err();
        assert!(
            matches!(
                error,
                LocalFault::Room {
                    keep_bytes: u64::MAX,
                    ..
                }
            ),
            "{error}"
        );
    }
}
