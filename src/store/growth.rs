//! What a durable group lets readers see that they could not see before, for
//! whoever listens ([`Listener`](super::Listener)).

use super::body::StoreRole;
use super::index::{Effect, Index};
use super::{Change, Listener};
use crate::entry::ContextId;

/// Contexts that are named to a listener one by one.
const NAMED_MAX: usize = 64;

/// What a group's effects will show.
pub(super) enum Growth {
    Nothing,
    /// More contexts than it is worth telling apart.
    Any,
    /// Numbers of contexts.
    Contexts(Vec<u64>),
}

impl Growth {
    /// Entries of an own store are visible when they are durable, those of a
    /// mirror when a head that covers them is complete.
    pub(super) fn of(effects: &[Effect], role: StoreRole) -> Self {
        let mut numbers = Vec::new();
        for effect in effects {
            let number = match (effect, role) {
                (Effect::Run { number, .. } | Effect::Named { number, .. }, StoreRole::Own) => {
                    *number
                }
                (Effect::Head { .. }, StoreRole::Mirror) => return Self::Any,
                _ => continue,
            };
            // The runs of a context follow each other.
            if numbers.last() != Some(&number) {
                numbers.push(number);
            }
            if numbers.len() > NAMED_MAX {
                return Self::Any;
            }
        }
        if numbers.is_empty() {
            return Self::Nothing;
        }
        Self::Contexts(numbers)
    }

    /// The same with names, once the effects are applied.
    pub(super) fn named(self, index: &Index) -> Grown {
        match self {
            Self::Nothing => Grown::Nothing,
            Self::Any => Grown::Any,
            Self::Contexts(numbers) => {
                let contexts = numbers.iter().filter_map(|n| index.tail.context(*n));
                let names = contexts.filter_map(|context| context.state.name.clone());
                let names: Vec<ContextId> = names.collect();
                // What is being loaded shows nothing yet.
                if names.is_empty() {
                    return Grown::Nothing;
                }
                Grown::Contexts(names)
            }
        }
    }
}

/// What readers see now.
pub(super) enum Grown {
    Nothing,
    Any,
    Contexts(Vec<ContextId>),
}

impl Grown {
    pub(super) fn tell(&self, listener: &Listener) {
        match self {
            Self::Nothing => (),
            Self::Any => (listener.0)(Change::Any),
            Self::Contexts(ids) => (listener.0)(Change::Grown(ids)),
        }
    }
}
