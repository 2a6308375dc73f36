//! Layer 4. The bounds of the API server. Whatever it holds for others is
//! bounded by a field or a constant of this file.
//!
//! Worst case of memory, with the defaults:
//!
//! | what | bound | bytes |
//! |---|---|---|
//! | bytes received and not yet looked at | connections x `CONNECTION_WINDOW_BYTES` | 1 GiB |
//! | requests being read or worked on | `request_bytes_max`, times 3 while decoded | 768 MiB |
//! | replies to Get and Snapshot | `reply_bytes_max`, times 2 while encoded | 512 MiB |
//! | replies to Append | as the requests they repeat | 256 MiB |
//! | pages shared by watchers | `WATCH_CACHE_BYTES_MAX` | 64 MiB |
//! | watchers | watches x (16 KiB, and at most one event under way) | 160 MiB idle |
//!
//! An event under way is one entry of the context that is watched and up to
//! 32 KiB of others: 10,000 watchers that all stop reading in front of a
//! payload of 4 MiB hold 40 GiB. Whoever stores such payloads and does not
//! trust the readers sets `watches_max` accordingly.

use std::time::Duration;

use crate::limits::{ORIGIN_NAME_BYTES_MAX, PAYLOAD_BYTES_MAX};

/// Bytes of an append's message: a payload, and room for everything else.
pub const APPEND_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + (256 << 10);
/// What a message with an archive has besides the archive.
pub const LOAD_HEADROOM_BYTES: usize = 64 << 10;
/// Bytes of the message of any other call.
pub const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// Bytes of the entries in a reply to Get, encoded; one entry fits always.
pub const GET_REPLY_BYTES_MAX: usize = 3 << 20;
/// Bytes set aside while a reply to Get is read: its last entry may be larger
/// than the rest.
pub const GET_PAGE_BYTES_MAX: usize = GET_REPLY_BYTES_MAX + APPEND_BYTES_MAX;
/// How long one read may look for entries of one key.
pub const READ_TIME_MAX: Duration = Duration::from_secs(1);
/// Archives that are loaded at a time; more wait.
pub const LOADS_MAX: usize = 2;
/// Stores that one server reads from: its own and mirrors.
pub const PLACES_MAX: usize = 64;
/// Origins that one message to a caller names; it is in the headers of a reply.
pub const ORIGINS_NAMED_MAX: usize = 8;
/// Contexts in one listing.
pub const CONTEXTS_PER_REPLY_MAX: usize = 1000;
/// Bytes of entries read for watchers at a time; one entry fits always.
pub const WATCH_PAGE_BYTES: usize = 256 << 10;
/// Entries read for watchers at a time.
pub const WATCH_PAGE_ENTRIES: usize = 1024;
/// Bytes of the pages that watchers share.
pub const WATCH_CACHE_BYTES_MAX: usize = 64 << 20;
/// Payloads up to this many bytes are hashed without leaving the task.
pub const HASH_INLINE_BYTES_MAX: usize = 64 << 10;
/// Health checks at a time, and watches of health apart from them, since no
/// token is asked for either.
pub const HEALTH_CALLS_MAX: usize = 64;
/// Reflection streams at a time.
pub const REFLECTION_CALLS_MAX: usize = 64;
/// Bytes a stream may have on the way to us.
pub const STREAM_WINDOW_BYTES: u32 = 512 << 10;
/// Bytes a connection may have on the way to us.
pub const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;

/// The least and the most bytes an archive in one message may be limited to.
/// One message is at most 4 GiB by its format, and is in memory as a whole.
const SNAPSHOT_BYTES: (usize, usize) = (64 << 10, 1 << 30);
/// The same for what is reserved for requests, and for replies.
const BUDGET_BYTES_MAX: usize = 64 << 30;
/// Threads that serve connections, however many processors there are.
const LANES_DEFAULT_MAX: usize = 16;
/// The most of anything that is counted.
const COUNT_MAX: usize = 1_000_000;

/// Settings of the server. Counts are at least 1.
#[derive(Clone, Debug)]
pub struct RpcConfig {
    /// Bytes of an archive in one message. 64 MiB; 64 KiB to 1 GiB.
    pub snapshot_bytes_max: usize,
    /// Bytes of all request messages that are being read or worked on; one
    /// more is refused at once. 256 MiB; at least the largest message.
    pub request_bytes_max: usize,
    /// Bytes of all replies to Get and Snapshot that are not sent yet; one
    /// more waits. 256 MiB; at least the largest reply.
    pub reply_bytes_max: usize,
    /// Connections, handshakes included; one more is closed at once. 1,024.
    pub connections_max: usize,
    /// Calls on one connection, watches included; more wait at the client.
    /// 1,024: a client may have 1,000 watches on one connection.
    pub streams_per_connection_max: u32,
    /// Bytes of the headers of one call. 16 KiB.
    pub header_list_bytes_max: u32,
    /// Calls that are being worked on, watches apart; one more is refused at
    /// once. 1,024.
    pub requests_max: usize,
    /// Watches; one more is refused at once. 10,000.
    pub watches_max: usize,
    /// Threads that serve connections, each its share. One for each processor,
    /// at most 16.
    pub lanes: usize,
    /// Threads that read the store at a time; more reads wait. 8.
    pub read_threads: usize,
    /// A connection must have said that it speaks HTTP/2 by then, TLS
    /// included. 10 s.
    pub handshake_deadline: Duration,
    /// A call must have been read and answered by then, if its own deadline is
    /// not earlier; a watch must have begun. 30 s.
    pub request_deadline: Duration,
    /// An idle connection is asked this often whether it is alive. 30 s.
    pub keepalive_interval: Duration,
    /// And is closed if it does not answer in this time. 20 s.
    pub keepalive_timeout: Duration,
    /// What was accepted gets this long to end at shutdown, then it is cut. 5 s.
    pub drain: Duration,
    /// Serve others than this machine without TLS.
    pub insecure: bool,
}

impl Default for RpcConfig {
    fn default() -> Self {
        Self {
            snapshot_bytes_max: 64 << 20,
            request_bytes_max: 256 << 20,
            reply_bytes_max: 256 << 20,
            connections_max: 1024,
            streams_per_connection_max: 1024,
            header_list_bytes_max: 16 << 10,
            requests_max: 1024,
            watches_max: 10_000,
            lanes: std::thread::available_parallelism()
                .map_or(1, |n| n.get().min(LANES_DEFAULT_MAX)),
            read_threads: 8,
            handshake_deadline: Duration::from_secs(10),
            request_deadline: Duration::from_secs(30),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(20),
            drain: Duration::from_secs(5),
            insecure: false,
        }
    }
}

/// A setting is outside its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is {got}, allowed are {min}..={max}")]
pub struct ConfigError {
    /// The setting.
    pub what: &'static str,
    /// What it was set to.
    pub got: usize,
    /// The least it may be.
    pub min: usize,
    /// The most it may be.
    pub max: usize,
}

impl RpcConfig {
    /// Bytes of a message to Load.
    pub(super) const fn load_bytes_max(&self) -> usize {
        self.snapshot_bytes_max.saturating_add(LOAD_HEADROOM_BYTES)
    }

    /// The largest message of any call.
    pub(super) const fn message_bytes_max(&self) -> usize {
        let load = self.load_bytes_max();
        if load > APPEND_BYTES_MAX {
            load
        } else {
            APPEND_BYTES_MAX
        }
    }

    /// The most that is set aside for one reply.
    const fn largest_reply_bytes(&self) -> usize {
        if self.snapshot_bytes_max > GET_PAGE_BYTES_MAX {
            self.snapshot_bytes_max
        } else {
            GET_PAGE_BYTES_MAX
        }
    }

    /// Refuses what cannot work.
    pub fn check(&self) -> Result<(), ConfigError> {
        let within = |what, got, min, max| {
            if (min..=max).contains(&got) {
                Ok(())
            } else {
                Err(ConfigError {
                    what,
                    got,
                    min,
                    max,
                })
            }
        };
        let (least, most) = SNAPSHOT_BYTES;
        let streams = self.streams_per_connection_max as usize;
        let headers = self.header_list_bytes_max as usize;
        let largest = self.message_bytes_max();
        let reply = self.largest_reply_bytes();
        let budget = BUDGET_BYTES_MAX;
        within("bytes of a snapshot", self.snapshot_bytes_max, least, most)?;
        within("bytes of requests", self.request_bytes_max, largest, budget)?;
        within("bytes of replies", self.reply_bytes_max, reply, budget)?;
        within("connections", self.connections_max, 1, COUNT_MAX)?;
        within("calls of a connection", streams, 1, COUNT_MAX)?;
        within("bytes of headers", headers, 1 << 10, 1 << 20)?;
        within("requests", self.requests_max, 1, COUNT_MAX)?;
        within("watches", self.watches_max, 1, COUNT_MAX)?;
        within("lanes", self.lanes, 1, 256)?;
        within("read threads", self.read_threads, 1, 256)
    }
}

const _: () = {
    assert!(CONNECTION_WINDOW_BYTES >= STREAM_WINDOW_BYTES);
    assert!(GET_REPLY_BYTES_MAX < 4 << 20); // what clients take by default
    assert!(
        CONTEXTS_PER_REPLY_MAX * (1024 + 64) + (PLACES_MAX + 1) * (ORIGIN_NAME_BYTES_MAX + 8)
            < 4 << 20
    );
    // Not ASCII, a byte of them takes three. Half of the 16 KiB of headers that
    // clients take by default.
    assert!(ORIGINS_NAMED_MAX * (ORIGIN_NAME_BYTES_MAX * 3 + 8) < 8 << 10);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_within_bounds() {
        assert_eq!(RpcConfig::default().check(), Ok(()));
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let refused = |change: fn(&mut RpcConfig)| {
            let mut config = RpcConfig::default();
            change(&mut config);
            config.check().unwrap_err().what
        };
        assert_eq!(refused(|c| c.snapshot_bytes_max = 0), "bytes of a snapshot");
        assert_eq!(
            refused(|c| c.snapshot_bytes_max = usize::MAX),
            "bytes of a snapshot"
        );
        assert_eq!(
            refused(|c| c.request_bytes_max = 64 << 20),
            "bytes of requests"
        );
        assert_eq!(refused(|c| c.reply_bytes_max = 1), "bytes of replies");
        assert_eq!(refused(|c| c.connections_max = 0), "connections");
        assert_eq!(refused(|c| c.lanes = 0), "lanes");
        assert_eq!(refused(|c| c.read_threads = 0), "read threads");
    }
}
