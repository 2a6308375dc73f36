//! An evil source: answers mirrors over QUIC as `serve` does, and lies in one
//! way. Run by `tests/evil`; no part of the product.
//!
//! ```text
//!  attack.rs   what can be done, shared with the tests
//!  world.rs    whose stores are shown to whom
//!  forge.rs    heads and directories signed with the origin's own key
//!  tamper.rs   honest frames, changed
//!  span.rs     the parts of a span, to be changed
//!  act.rs      what happens on a stream
//! ```
//!
//! It ends when its stdin does, so that it never outlives who started it.

// It fails by panicking, as the tests that run it do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// Its address, as `serve` prints it.
#![allow(clippy::print_stdout)]

mod act;
#[path = "../attack.rs"]
mod attack;
mod forge;
mod span;
mod tamper;
mod world;

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;
use converge_ledger::node::tls::peer_id;
use converge_ledger::node::{self, NodeId};
use converge_ledger::sync::message::{FRAME_HEADER_BYTES, REQUEST_BODY_BYTES_MAX, Request};
use quinn::{Connection, RecvStream, SendStream};

use act::Act;
use attack::Attack;
use world::World;

/// A source that lies in one way
#[derive(Debug, Parser)]
struct Arguments {
    /// What to do; `--list` names everything
    #[arg(long, value_parser = parse_attack, required_unless_present = "list")]
    attack: Option<Attack>,
    /// The store that is shown; its keys are used
    #[arg(long, value_name = "DIR", required_unless_present = "list")]
    store: Option<PathBuf>,
    /// Another store, if the attack needs one
    #[arg(long, value_name = "DIR")]
    other: Option<PathBuf>,
    /// Node key that may connect, may be repeated
    #[arg(long, value_name = "NODEKEY", value_parser = parse_node)]
    allow: Vec<NodeId>,
    /// Node key that is shown another store, may be repeated
    #[arg(long, value_name = "NODEKEY=DIR", value_parser = parse_view)]
    view: Vec<(NodeId, PathBuf)>,
    /// Print the names of all attacks
    #[arg(long)]
    list: bool,
}

fn parse_attack(name: &str) -> Result<Attack, String> {
    let found = Attack::ALL.iter().find(|attack| attack.name() == name);
    found.copied().ok_or_else(|| "no such attack".to_owned())
}

fn parse_node(text: &str) -> Result<NodeId, String> {
    NodeId::from_hex(text).ok_or_else(|| "not a node key".to_owned())
}

fn parse_view(text: &str) -> Result<(NodeId, PathBuf), String> {
    let (node, dir) = text.split_once('=').ok_or("not NODEKEY=DIR")?;
    Ok((parse_node(node)?, dir.into()))
}

fn main() {
    let arguments = Arguments::parse();
    if arguments.list {
        for attack in Attack::ALL {
            println!("{}", attack.name());
        }
        return;
    }
    // A lie that could not be told must not look like one that was.
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::exit(101);
    }));
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(listen(arguments));
}

async fn listen(arguments: Arguments) {
    let mut allowed = arguments.allow;
    allowed.extend(arguments.view.iter().map(|(node, _)| *node));
    let world = Arc::new(World::open(
        arguments.attack.unwrap(),
        &arguments.store.unwrap(),
        arguments.other.as_deref(),
        arguments.view,
    ));
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let allowed = node::Allowlist::new(allowed).unwrap();
    let endpoint = node::listen(address, &world.node_key, &allowed).unwrap();
    println!("quic listening on {}", endpoint.local_addr().unwrap());
    while let Some(incoming) = endpoint.accept().await {
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            // A mirror that pinned another key goes away here.
            if let Ok(connection) = incoming.await {
                serve(world, connection).await;
            }
        });
    }
}

async fn serve(world: Arc<World>, connection: Connection) {
    let Some(peer) = peer_id(&connection) else {
        return;
    };
    if world.attack == Attack::Flood {
        tokio::spawn(act::flood(connection.clone()));
    }
    while let Ok((send, recv)) = connection.accept_bi().await {
        let (world, connection) = (Arc::clone(&world), connection.clone());
        tokio::spawn(async move {
            // An error is a mirror that has heard enough.
            let _ = answer(&world, peer, &connection, send, recv).await;
        });
    }
}

async fn answer(
    world: &World,
    peer: NodeId,
    connection: &Connection,
    mut send: SendStream,
    mut recv: RecvStream,
) -> Result<(), quinn::WriteError> {
    let request_bytes_max = FRAME_HEADER_BYTES + REQUEST_BODY_BYTES_MAX;
    let Ok(frame) = recv.read_to_end(request_bytes_max).await else {
        return Ok(());
    };
    let request = Request::decode(&frame).unwrap();
    for act in tamper::acts(world, peer, &request, &frame) {
        match act {
            Act::Bytes(bytes) => send.write_all(&bytes).await?,
            Act::Drip(bytes) => act::drip(&mut send, &bytes).await?,
            Act::Endless(bytes) => loop {
                send.write_all(&bytes).await?;
            },
            Act::Silence => {
                connection.closed().await;
                return Ok(());
            }
            Act::Reset => {
                let _ = send.reset(node::CloseCode::Internal.code());
                return Ok(());
            }
            Act::Close => {
                node::CloseCode::Internal.close(connection);
                return Ok(());
            }
        }
    }
    let _ = send.finish();
    Ok(())
}
