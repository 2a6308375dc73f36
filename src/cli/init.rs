//! `init`: a store with fresh keys, or a mirror of another origin.

use clap::Args;

use super::data::{DataDir, options};
use super::error::CliError;
use super::output::{Out, escape};
use crate::note::{OriginName, SignerKey, VerifierKey};
use crate::store::{StoreError, StoreRole, keys};

#[derive(Debug, Args)]
pub(super) struct InitArguments {
    /// The origin's name: 1 to 255 bytes without spaces or plus signs
    /// [default: ledger-<first 8 digits of its public key>]
    #[arg(long, conflicts_with = "mirror")]
    name: Option<String>,
    /// Make a mirror of the origin with this public key (`keys` prints it)
    #[arg(long, value_name = "VKEY")]
    mirror: Option<String>,
}

pub(super) fn run(data: &DataDir, arguments: InitArguments) -> Result<(), CliError> {
    // Arguments are judged before anything is made.
    let name = match arguments.name {
        Some(name) => {
            Some(OriginName::new(&name).map_err(|error| CliError::usage(error).context("--name"))?)
        }
        None => None,
    };
    let pinned = match &arguments.mirror {
        Some(vkey) => Some(parse_vkey(vkey).map_err(|error| error.context("--mirror"))?),
        None => None,
    };
    if data.peek_if_any()?.is_some() {
        return Err(CliError::from(StoreError::AlreadyAStore).context(data.path().display()));
    }
    data.prepare_new()?;
    match pinned {
        Some(origin) => init_mirror(data, &origin),
        None => init_own(data, name),
    }
}

/// A vkey from the command line.
pub(super) fn parse_vkey(text: &str) -> Result<VerifierKey, CliError> {
    VerifierKey::parse(text).map_err(|error| {
        CliError::usage(error).hint("`converge-ledger keys` prints it: name+8 digits+base64.")
    })
}

fn init_own(data: &DataDir, name: Option<OriginName>) -> Result<(), CliError> {
    let node = data.node_key(true)?;
    let signer = fresh_signer(name)?;
    let origin = signer.verifier().clone();
    // The key first: a log without its key could never be opened.
    keys::create_origin_key(data.disk(), &signer)?;
    data.create(StoreRole::Own, &origin)?;
    // The first head: from here a mirror can tell empty from unreachable.
    let store = data.open_new(options())?;
    store.publish()?;
    store.close()?;

    let mut out = Out::new();
    let dir = escape(&data.path().display().to_string());
    out.line(format_args!("made the store {dir}"))?;
    out.line(format_args!("origin key  {}", escape(&origin.to_string())))?;
    out.line(format_args!("node key    {}", node.id()))?;
    out.line(format_args!(
        "
{dir}/origin.key signs this ledger's heads, {dir}/node.key names this node to mirrors.
Both are readable by you alone (mode 600). Whoever has origin.key can sign history in
this ledger's name; if it is lost, nothing can be appended any more. Keep a copy offline:
    install -m 600 {dir}/origin.key /path/to/safe/place/
Never run two stores with one origin.key: mirrors would see two histories."
    ))?;
    out.flush()
}

fn fresh_signer(name: Option<OriginName>) -> Result<SignerKey, CliError> {
    let seed = keys::random_seed()?;
    if let Some(name) = name {
        return Ok(SignerKey::from_seed(name, &seed));
    }
    let wrong = |error| CliError::could_not(error).context("default name");
    let unnamed = SignerKey::from_seed(OriginName::new("ledger").map_err(wrong)?, &seed);
    let [a, b, c, d, ..] = unnamed.verifier().public_key();
    let name = format!("ledger-{a:02x}{b:02x}{c:02x}{d:02x}");
    let name = OriginName::new(&name).map_err(wrong)?;
    Ok(SignerKey::from_seed(name, &seed))
}

fn init_mirror(data: &DataDir, origin: &VerifierKey) -> Result<(), CliError> {
    let node = data.node_key(true)?;
    data.create(StoreRole::Mirror, origin)?;
    let mut out = Out::new();
    let dir = escape(&data.path().display().to_string());
    out.line(format_args!("made the mirror {dir}"))?;
    out.line(format_args!("origin key  {}", escape(&origin.to_string())))?;
    out.line(format_args!("node key    {}", node.id()))?;
    out.line(format_args!(
        "\nLet it in at the source: converge-ledger serve --allow {}",
        node.id()
    ))?;
    out.flush()
}
