//! What `serve --mirror FILE` reads: which origin is mirrored where, from whom,
//! and how much of this machine it may take.

use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::cli::error::CliError;
use crate::cli::init::parse_vkey;
use crate::node::{Held, NodeId, OriginGauge, PEERS_MAX, Peer, Quota};
use crate::note::VerifierKey;

/// Bytes of the file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// No newer head for this long is worth an alarm: three heartbeats of `serve`.
pub(in crate::cli) const STALE_AFTER: Duration = Duration::from_mins(3);

/// The file, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MirrorFile {
    data: PathBuf,
    origin: String,
    source: Option<String>,
    #[serde(default)]
    mirrors: Vec<String>,
    listen: Option<SocketAddr>,
    #[serde(default)]
    allow: Vec<String>,
    allow_file: Option<PathBuf>,
    stale_seconds: Option<u32>,
    #[serde(default)]
    quota: QuotaTable,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct QuotaTable {
    bytes: Option<u64>,
    contexts: Option<u64>,
    entries: Option<u64>,
    free_bytes: Option<u64>,
}

/// One origin to be mirrored.
#[derive(Debug)]
pub(super) struct MirrorConfig {
    /// The directory of its store.
    pub(super) data: PathBuf,
    pub(super) origin: VerifierKey,
    /// The origin's own node comes first, if it is one of them.
    pub(super) peers: Vec<Peer>,
    pub(super) own_node: Option<usize>,
    pub(super) listen: Option<SocketAddr>,
    pub(super) allow: Vec<NodeId>,
    pub(super) allow_file: Option<PathBuf>,
    pub(super) stale_after: Duration,
    pub(super) quota: Quota,
}

impl MirrorConfig {
    /// Reads a file. Paths in it are relative to its directory.
    pub(super) fn read(path: &Path) -> Result<Self, CliError> {
        let failed = |error: std::io::Error| CliError::could_not(error).context(path.display());
        let mut text = String::new();
        let file = File::open(path).map_err(failed)?;
        let mut bounded = file.take(FILE_BYTES_MAX + 1);
        bounded.read_to_string(&mut text).map_err(failed)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            let error = CliError::usage(format_args!("longer than {FILE_BYTES_MAX} bytes"));
            return Err(error.context(path.display()));
        }
        let here = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, here).map_err(|error| error.context(path.display()))
    }

    /// What is known of the origin at the start.
    pub(super) fn gauge(&self, held: &Held) -> OriginGauge {
        let name = self.origin.name().clone();
        OriginGauge::new(name, &self.peers, self.own_node, self.stale_after, held)
    }

    fn parse(text: &str, here: &Path) -> Result<Self, CliError> {
        let file: MirrorFile = toml::from_str(text).map_err(CliError::usage)?;
        let peer = |text: &String| {
            let peer = text.parse::<Peer>();
            peer.map_err(|error| CliError::usage(error).context(format_args!("{text:?}")))
        };
        let peers = file.source.iter().chain(&file.mirrors).map(peer);
        let peers = peers.collect::<Result<Vec<Peer>, CliError>>()?;
        if peers.is_empty() {
            return Err(CliError::usage("whom to mirror from: source or mirrors"));
        }
        if peers.len() > PEERS_MAX {
            let message = format_args!("{} peers, at most {PEERS_MAX} may be", peers.len());
            return Err(CliError::usage(message));
        }
        if file.listen.is_none() && (!file.allow.is_empty() || file.allow_file.is_some()) {
            return Err(CliError::usage("allow and allow_file need listen"));
        }
        let allow = file.allow.iter().map(|text| {
            let node = super::parse_node(text).map_err(CliError::usage);
            node.map_err(|error| error.context("allow"))
        });
        if file.stale_seconds == Some(0) {
            return Err(CliError::usage("stale_seconds is at least 1"));
        }
        let stale = file.stale_seconds.map(|s| Duration::from_secs(s.into()));
        let quota = Quota::default();
        Ok(Self {
            data: here.join(file.data),
            origin: parse_vkey(&file.origin).map_err(|error| error.context("origin"))?,
            own_node: file.source.is_some().then_some(0),
            peers,
            listen: file.listen,
            allow: allow.collect::<Result<_, _>>()?,
            allow_file: file.allow_file.map(|file| here.join(file)),
            stale_after: stale.unwrap_or(STALE_AFTER),
            quota: Quota {
                bytes_max: file.quota.bytes.unwrap_or(quota.bytes_max),
                contexts_max: file.quota.contexts.unwrap_or(quota.contexts_max),
                entries_max: file.quota.entries.unwrap_or(quota.entries_max),
                free_bytes_min: file.quota.free_bytes.unwrap_or(quota.free_bytes_min),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::testing::signer;

    fn whole() -> String {
        let key = "0b".repeat(32);
        let origin = signer(1).verifier().to_string();
        format!(
            "data = \"m\"\norigin = \"{origin}\"\nsource = \"{key}@a:1\"\n\
             mirrors = [\"{key}@b:2\"]\nlisten = \"127.0.0.1:0\"\nallow = [\"{key}\"]\n\
             allow_file = \"/etc/nodes\"\nstale_seconds = 7\n\
             [quota]\nbytes = 1\ncontexts = 2\nentries = 3\nfree_bytes = 4\n"
        )
    }

    fn parse(text: &str) -> Result<MirrorConfig, CliError> {
        MirrorConfig::parse(text, Path::new("/here"))
    }

    #[test]
    fn every_field_counts() {
        let config = parse(&whole()).unwrap();
        assert_eq!(config.data, Path::new("/here/m"));
        assert_eq!(&config.origin, signer(1).verifier());
        let addresses: Vec<&str> = config.peers.iter().map(|p| p.address.as_str()).collect();
        assert_eq!((addresses, config.own_node), (vec!["a:1", "b:2"], Some(0)));
        assert_eq!(config.allow.len(), 1);
        assert_eq!(config.allow_file.as_deref(), Some(Path::new("/etc/nodes")));
        assert_eq!(config.stale_after, Duration::from_secs(7));
        let quota = Quota {
            bytes_max: 1,
            contexts_max: 2,
            entries_max: 3,
            free_bytes_min: 4,
        };
        assert_eq!(config.quota, quota);
    }

    #[test]
    fn what_is_missing_has_defaults_or_is_refused() {
        let text = whole();
        let without = |name: &str| {
            let lines = text.lines().filter(|line| !line.starts_with(name));
            lines.collect::<Vec<_>>().join("\n")
        };
        let plain = without("[");
        let plain = plain.lines().take(3).collect::<Vec<_>>().join("\n");
        let config = parse(&plain).unwrap();
        assert_eq!((config.quota, config.listen), (Quota::default(), None));
        assert_eq!(config.stale_after, STALE_AFTER);
        let config = parse(&without("source")).unwrap();
        assert_eq!((config.peers.len(), config.own_node), (1, None));
        for name in ["data", "origin", "listen"] {
            assert!(parse(&without(name)).is_err(), "{name}");
        }
        let nobody = without("source").replace("mirrors", "# mirrors");
        assert!(parse(&nobody).is_err());
        assert!(parse(&format!("sauce = 1\n{text}")).is_err());
        assert!(parse(&text.replace("stale_seconds = 7", "stale_seconds = 0")).is_err());
        let many = format!("\"{}@b:2\", ", "0b".repeat(32)).repeat(PEERS_MAX);
        assert!(parse(&text.replace("mirrors = [", &format!("mirrors = [{many}"))).is_err());
    }
}
