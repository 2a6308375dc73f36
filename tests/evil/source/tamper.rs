//! Honest frames, changed.

use converge_ledger::directory::Node;
use converge_ledger::entry::ContextId;
use converge_ledger::hash::Hash;
use converge_ledger::ledger::{OpenedNode, ReadLedger};
use converge_ledger::limits::{NOTES_PER_REPLY_MAX, SPAN_BYTES_MAX};
use converge_ledger::node::NodeId as PeerId;
use converge_ledger::run::Run;
use converge_ledger::store::{StoreError, View};
use converge_ledger::sync;
use converge_ledger::sync::message::{Kind, NodeAnswer, Refusal, Reply, Request};
use converge_ledger::tree::range::right_build;
use converge_ledger::tree::{NodeId, ReadNodes, TreeSize};

use crate::act::Act;
use crate::attack::Attack;
use crate::span::{self, Span};
use crate::world::World;

/// Bytes of what follows a length nobody should believe.
const NOISE_BYTES: usize = 64 << 10;
/// A run that fits its span once more.
const SMALL_RUN_BYTES: usize = 64 << 10;
/// One request of so many is broken off by a source that closes at random.
const CLOSE_ONE_OF: usize = 6;

/// Where an attack takes place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Nowhere in the frames: in the stores, the keys or beside the streams.
    Beside,
    Head,
    Nodes,
    Entries,
    Payloads,
    Consistency,
    Everywhere,
}

/// The only list besides that of the attacks; no attack can be left out.
const fn place(attack: Attack) -> Place {
    use Attack as A;
    match attack {
        A::Canary
        | A::CanaryFromNothing
        | A::RewriteAfterSync
        | A::RewriteOtherRuns
        | A::SameSizeTwoRoots
        | A::SameEpochTwoTexts
        | A::ShrunkContext
        | A::DroppedContext
        | A::Shrink
        | A::ShrinkThenDiverge
        | A::TwoViews
        | A::WrongOriginName
        | A::WrongNodeKey
        | A::ForgedDrop
        | A::InflatedCounts
        | A::SameRootOtherCounts
        | A::FewerCounts
        | A::InvalidEntries
        | A::InvalidDirectory
        | A::HalfRotation
        | A::HeadBeforeHead
        | A::LaterTerm
        | A::Flood => Place::Beside,
        A::ReplayedOldHead
        | A::WrongOriginKey
        | A::FlippedNote
        | A::EndlessHeads
        | A::TooManyNotes
        | A::LengthMax
        | A::LengthZero
        | A::UnknownKind
        | A::RequestAsReply
        | A::TruncatedFrame
        | A::Stall
        | A::Drip
        | A::Mute
        | A::ClaimsNothing => Place::Head,
        A::FlippedNode
        | A::FlippedOpening
        | A::OtherNode
        | A::MissingOpening
        | A::MissingNodes
        | A::WithheldNode
        | A::EchoNode
        | A::EndlessNodes => Place::Nodes,
        A::FlippedHeader
        | A::FlippedInlinePayload
        | A::FlippedRightHash
        | A::MissingTail
        | A::NothingAfterBegin
        | A::OtherEntries
        | A::ReorderedEntries
        | A::ReorderedRuns
        | A::DuplicatedRun
        | A::Gap
        | A::HalfRun
        | A::JoinedRuns
        | A::EchoContext
        | A::EchoStart
        | A::EchoSize
        | A::EndlessSpans
        | A::LengthAboveLimit => Place::Entries,
        A::FlippedOutsidePayload | A::WithheldPayload | A::EchoPayload | A::EndlessPayloads => {
            Place::Payloads
        }
        A::RefusesConsistency
        | A::LiesInConsistency
        | A::FailingProof
        | A::MuteConsistency
        | A::EchoConsistency => Place::Consistency,
        A::RefusesEverything | A::ResetsEverything | A::ClosesAtRandom => Place::Everywhere,
    }
}

/// What is done in answer to a request.
pub(crate) fn acts(world: &World, peer: PeerId, request: &Request, frame: &[u8]) -> Vec<Act> {
    if let Some(forged) = &world.forged
        && let Some(frames) = forged.answer(request)
    {
        return plain(frames);
    }
    let view = world.shown_to(peer);
    let honest = honest(view, frame);
    match (place(world.attack), request) {
        (Place::Head, Request::Head { .. }) => head(world, &honest[0]),
        (Place::Nodes, Request::Nodes { .. }) => nodes(world.attack, honest),
        (Place::Entries, Request::Entries { context, .. }) => {
            entries(world.attack, view, context, honest)
        }
        (Place::Payloads, Request::Payloads { .. }) => payloads(world.attack, honest),
        (Place::Consistency, Request::Consistency { .. }) => consistency(world, &honest[0]),
        (Place::Everywhere, _) => everywhere(world, request, honest),
        _ => plain(honest),
    }
}

fn plain(frames: Vec<Vec<u8>>) -> Vec<Act> {
    frames.into_iter().map(Act::Bytes).collect()
}

/// Every frame of the honest answer.
fn honest(view: &View, frame: &[u8]) -> Vec<Vec<u8>> {
    let mut answer = sync::answer(frame).unwrap();
    let mut frames = Vec::new();
    while let Some(frame) = answer.next_frame(view).unwrap() {
        frames.push(frame);
    }
    frames
}

/// A header by hand: no encoder would write these.
fn header(body_bytes: u32, kind: u8) -> Act {
    Act::Bytes([&body_bytes.to_le_bytes()[..], &[kind]].concat())
}

fn encoded(reply: &Reply<'_>) -> Vec<Act> {
    plain(vec![reply.encode().unwrap()])
}

fn flipped(hash: &Hash) -> Hash {
    Hash::from_slice(&span::flipped(hash.as_bytes(), 9)).unwrap()
}

fn head(world: &World, frame: &[u8]) -> Vec<Act> {
    let half = frame[..frame.len() / 2].to_vec();
    let noise = || Act::Endless(vec![0; NOISE_BYTES]);
    match world.attack {
        Attack::ReplayedOldHead | Attack::WrongOriginKey => {
            let shown = world
                .other
                .as_ref()
                .unwrap()
                .newest_head()
                .unwrap()
                .unwrap();
            let notes = vec![shown.note_bytes()];
            encoded(&Reply::Head { notes })
        }
        Attack::FlippedNote => {
            let Ok(Reply::Head { mut notes }) = Reply::decode(frame) else {
                panic!("no head");
            };
            // A digit of the time, which is the last line of the text.
            let note = notes.last_mut().unwrap();
            let at = note.windows(2).position(|two| two == b"\n\n").unwrap() - 1;
            *note = span::flipped(note, at);
            encoded(&Reply::Head { notes })
        }
        Attack::ClaimsNothing => encoded(&Reply::Head { notes: Vec::new() }),
        Attack::TooManyNotes => {
            let notes = NOTES_PER_REPLY_MAX + 1;
            let list = [vec![u8::try_from(notes).unwrap()], [1, b'x'].repeat(notes)].concat();
            let len = u32::try_from(list.len()).unwrap();
            vec![header(len, Kind::Head as u8), Act::Bytes(list)]
        }
        Attack::EndlessHeads => vec![Act::Endless(frame.to_vec())],
        Attack::LengthMax => vec![header(u32::MAX, Kind::Head as u8), noise()],
        Attack::LengthZero => vec![header(0, Kind::Head as u8)],
        Attack::UnknownKind => vec![header(1, 0x42), noise()],
        Attack::RequestAsReply => {
            let newest = Vec::new();
            plain(vec![Request::Head { newest }.encode().unwrap()])
        }
        Attack::TruncatedFrame => plain(vec![half]),
        Attack::Stall => vec![Act::Bytes(half), Act::Silence],
        Attack::Drip => vec![Act::Drip(frame.to_vec())],
        Attack::Mute => vec![Act::Silence],
        other => panic!("{other:?} is not about heads"),
    }
}

fn nodes(attack: Attack, honest: Vec<Vec<u8>>) -> Vec<Act> {
    let Ok(Reply::Nodes { mut answers }) = Reply::decode(&honest[0]) else {
        panic!("no nodes");
    };
    let opened = |answer: &NodeAnswer| answer.node.clone().unwrap();
    match attack {
        Attack::FlippedNode => {
            let node = &mut answers[0].node.as_mut().unwrap().node;
            *node = span::flipped(node, node.len() - 1);
        }
        Attack::OtherNode => {
            answers[0].node = Some(OpenedNode {
                node: Node::empty().encode(),
                openings: Vec::new(),
            });
        }
        Attack::FlippedOpening | Attack::MissingOpening => {
            let nodes = answers.iter_mut().filter_map(|answer| answer.node.as_mut());
            let mut openings = nodes.map(|node| &mut node.openings);
            // The root may have none of its own.
            let Some(openings) = openings.find(|openings| !openings.is_empty()) else {
                return plain(honest);
            };
            if attack == Attack::FlippedOpening {
                openings[0].root = flipped(&openings[0].root);
            } else {
                openings.pop();
            }
        }
        Attack::WithheldNode => answers[0].node = None,
        Attack::EchoNode => answers[0].hash = flipped(&answers[0].hash),
        Attack::MissingNodes => {
            answers.pop();
            if answers.is_empty() {
                return Vec::new();
            }
        }
        Attack::EndlessNodes => {
            // Only once no more are needed: nobody waits for another one.
            let sums = |node: OpenedNode| Node::decode(&node.node).unwrap().sums().contexts;
            let below = |answer: &NodeAnswer| sums(opened(answer));
            let named = |answer: &NodeAnswer| opened(answer).openings.len() as u64;
            let last = answers.iter().all(|answer| below(answer) == named(answer));
            let endless = last.then(|| Act::Endless(honest[0].clone()));
            return plain(honest).into_iter().chain(endless).collect();
        }
        other => panic!("{other:?} is not about nodes"),
    }
    encoded(&Reply::Nodes { answers })
}

fn entries(attack: Attack, view: &View, context: &ContextId, honest: Vec<Vec<u8>>) -> Vec<Act> {
    let mut frames = honest;
    match attack {
        Attack::MissingTail if frames.len() > 2 => {
            frames.pop();
        }
        // A context of one span: the next attack is about those.
        Attack::MissingTail => {}
        Attack::NothingAfterBegin => frames.truncate(1),
        Attack::HalfRun => {
            if let Some(half) = half_span(view, context, &frames) {
                frames.splice(1.., [half]);
            }
        }
        Attack::OtherEntries => {
            if let Some(other) = same_size(view, context) {
                frames.splice(1.., other);
            }
        }
        Attack::EchoContext | Attack::EchoStart | Attack::EchoSize => {
            frames[0] = echo(attack, &frames[0]);
        }
        Attack::EndlessSpans => {
            let last = Act::Endless(frames[frames.len() - 1].clone());
            return plain(frames).into_iter().chain([last]).collect();
        }
        Attack::LengthAboveLimit => {
            let len = u32::try_from(SPAN_BYTES_MAX + 1).unwrap();
            let begin = Act::Bytes(frames.swap_remove(0));
            let noise = Act::Endless(vec![0; NOISE_BYTES]);
            return vec![begin, header(len, Kind::Span as u8), noise];
        }
        _ => {
            for frame in &mut frames {
                if let Some(mut span) = Span::of_frame(frame) {
                    change(attack, &mut span);
                    *frame = span.to_frame();
                }
            }
        }
    }
    plain(frames)
}

/// The first span of an answer, with half of its first run, and proven.
fn half_span(view: &View, context: &ContextId, frames: &[Vec<u8>]) -> Option<Vec<u8>> {
    let Ok(Reply::EntriesBegin { size, .. }) = Reply::decode(frames.first()?) else {
        return None;
    };
    let mut span = Span::of_frame(frames.get(1)?)?;
    let run = Run::decode(&span.runs[0]).unwrap();
    let middle = run.first() + run.count() as u64 / 2 - 1;
    if run.count() < 2 {
        return None;
    }
    span.runs = vec![run.part(span.start, middle).unwrap()];
    span.end = middle;
    let (end, size) = (TreeSize::new(middle), TreeSize::new(size));
    span.right = right_build(end, size, &OfContext(view, context)).unwrap();
    Some(span.to_frame())
}

/// The tree of a context.
struct OfContext<'v>(&'v View, &'v ContextId);

impl ReadNodes for OfContext<'_> {
    type Error = StoreError;

    fn read_nodes(&self, nodes: &[NodeId]) -> Result<Vec<Hash>, StoreError> {
        self.0.tree_nodes(self.1, nodes)
    }
}

/// Changes a span, if there is in it what the attack is about.
fn change(attack: Attack, span: &mut Span) {
    let runs = &mut span.runs;
    let is_inline = |run: &[u8]| {
        let run = Run::decode(run).unwrap();
        run.count() > 1 && run.entries().all(|e| e.unwrap().inline_payload.is_some())
    };
    match attack {
        Attack::FlippedHeader => runs[0] = span::flip_header(&runs[0]),
        Attack::FlippedInlinePayload if is_inline(&runs[0]) => {
            runs[0] = span::flip_payload(&runs[0]);
        }
        Attack::FlippedRightHash if !span.right.is_empty() => {
            span.right[0] = flipped(&span.right[0]);
        }
        Attack::ReorderedEntries if is_inline(&runs[0]) => runs[0] = span::reorder(&runs[0]),
        Attack::ReorderedRuns if runs.len() > 1 => runs.swap(0, 1),
        Attack::DuplicatedRun if runs[0].len() < SMALL_RUN_BYTES => {
            let first = runs[0].clone();
            runs.insert(0, first);
        }
        Attack::Gap if runs.len() > 2 => {
            runs.remove(1);
        }
        Attack::JoinedRuns => *runs = span::join(runs),
        Attack::FlippedInlinePayload
        | Attack::FlippedRightHash
        | Attack::ReorderedEntries
        | Attack::ReorderedRuns
        | Attack::DuplicatedRun
        | Attack::Gap => {}
        other => panic!("{other:?} is not about entries"),
    }
}

/// The spans of another context of the same size, if there is one.
fn same_size(view: &View, context: &ContextId) -> Option<Vec<Vec<u8>>> {
    let contexts = view.contexts(None, 1000).unwrap();
    let size = view.signed_size(context).unwrap()?;
    let other = contexts
        .into_iter()
        .find(|c| c.id != *context && c.size == size)?;
    let request = Request::Entries {
        context: other.id,
        after_sequence: 0,
        size,
    };
    Some(honest(view, &request.encode().unwrap()).split_off(1))
}

fn echo(attack: Attack, begin: &[u8]) -> Vec<u8> {
    let Ok(Reply::EntriesBegin {
        mut context,
        mut after_sequence,
        mut size,
    }) = Reply::decode(begin)
    else {
        panic!("no beginning");
    };
    match attack {
        Attack::EchoContext => context = ContextId::new("another").unwrap(),
        Attack::EchoStart => after_sequence += 1,
        _ => size += 1,
    }
    let begin = Reply::EntriesBegin {
        context,
        after_sequence,
        size,
    };
    begin.encode().unwrap()
}

fn payloads(attack: Attack, honest: Vec<Vec<u8>>) -> Vec<Act> {
    let Ok(Reply::Payload {
        mut hash,
        mut bytes,
    }) = Reply::decode(&honest[0])
    else {
        panic!("no payload");
    };
    match attack {
        Attack::FlippedOutsidePayload => {
            let whole = bytes.unwrap();
            bytes = Some(span::flipped(&whole, whole.len() / 2));
        }
        Attack::WithheldPayload => bytes = None,
        Attack::EchoPayload => hash = flipped(&hash),
        Attack::EndlessPayloads => {
            let last = Act::Endless(honest[honest.len() - 1].clone());
            return plain(honest).into_iter().chain([last]).collect();
        }
        other => panic!("{other:?} is not about payloads"),
    }
    encoded(&Reply::Payload { hash, bytes })
}

fn consistency(world: &World, frame: &[u8]) -> Vec<Act> {
    let Ok(Reply::Consistency {
        context,
        from,
        mut to,
        mut from_root,
        mut hashes,
    }) = Reply::decode(frame)
    else {
        panic!("no consistency");
    };
    match world.attack {
        Attack::RefusesConsistency => {
            return encoded(&Reply::Refused(Refusal::NotServed));
        }
        Attack::MuteConsistency => return vec![Act::Silence],
        Attack::LiesInConsistency => {
            let held = world.other.as_ref().unwrap();
            from_root = held.root_at(&context, from).unwrap();
        }
        Attack::FailingProof => hashes[0] = flipped(&hashes[0]),
        Attack::EchoConsistency => to += 1,
        other => panic!("{other:?} is not about consistency"),
    }
    encoded(&Reply::Consistency {
        context,
        from,
        to,
        from_root,
        hashes,
    })
}

fn everywhere(world: &World, request: &Request, honest: Vec<Vec<u8>>) -> Vec<Act> {
    match world.attack {
        Attack::RefusesEverything => encoded(&Reply::Refused(Refusal::NotServed)),
        Attack::ResetsEverything => vec![Act::Reset],
        Attack::ClosesAtRandom => {
            if matches!(request, Request::Head { .. }) || world.below(CLOSE_ONE_OF) > 0 {
                return plain(honest);
            }
            let mut bytes = honest.concat();
            bytes.truncate(world.below(bytes.len()));
            vec![Act::Bytes(bytes), Act::Close]
        }
        other => panic!("{other:?} is not everywhere"),
    }
}
