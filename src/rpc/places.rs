//! Layer 4. The places that a server reads from: a store of its own, mirrors of
//! other origins, or both. Each has its own view and its own watchers.
//!
//! Which place a context is read from:
//!
//! | the request names | own store has it | mirrors that have it | read from |
//! |---|---|---|---|
//! | an origin | | | the place of this origin, or `NoOrigin` |
//! | nothing | yes | any | the own store |
//! | nothing | no, or there is none | one | that mirror |
//! | nothing | no, or there is none | several | `Ambiguous` |
//! | nothing | no, or there is none | none | `NoContext`; a watch waits: in the own store, or in the only place; with mirrors alone, `WhichOrigin` |
//!
//! Writes go to the own store whatever mirrors hold.
//!
//! Invariants: there is at least one place; no two are of one origin; the own
//! store is the first, mirrors follow in the order of their names. With a single
//! place nothing is looked up.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

use super::config::{ORIGINS_NAMED_MAX, PLACES_MAX};
use super::hub::{Hub, Phase};
use super::status::RpcError;
use crate::entry::ContextId;
use crate::note::OriginName;
use crate::store::{Listener, Store, StoreRole, View};

/// A place whose store is not open yet: a store is opened with the listener of
/// the place it is served from, since watchers are woken by it.
#[derive(Debug)]
pub struct Opening(Hub);

impl Default for Opening {
    fn default() -> Self {
        Self::new()
    }
}

impl Opening {
    /// A place to be.
    #[must_use]
    pub fn new() -> Self {
        Self(Hub::new())
    }

    /// What the store is to be opened with ([`StoreOptions::listener`]).
    ///
    /// [`StoreOptions::listener`]: crate::store::StoreOptions::listener
    #[must_use]
    pub fn listener(&self) -> Listener {
        self.0.listener()
    }

    /// The store, which was opened with [`Opening::listener`].
    #[must_use]
    pub fn with(self, store: Store) -> Place {
        let view = store.view();
        Place {
            origin: view.origin().name().clone(),
            role: view.role(),
            store,
            hub: self.0,
            number: 0,
        }
    }
}

/// A store that is served.
#[derive(Debug)]
pub struct Place {
    /// Whose history it is. A rotation of the key does not change the name.
    origin: OriginName,
    role: StoreRole,
    store: Store,
    hub: Hub,
    /// Its place among the places.
    number: usize,
}

impl Place {
    pub(super) const fn origin(&self) -> &OriginName {
        &self.origin
    }

    pub(super) const fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn view(&self) -> &View {
        self.store.view()
    }

    pub(super) const fn hub(&self) -> &Hub {
        &self.hub
    }

    pub(super) const fn number(&self) -> usize {
        self.number
    }

    /// Whether its store works. One that has failed can be read, as far as what
    /// it holds is in order, but shows nothing new.
    pub(super) fn works(&self) -> bool {
        let ended = self.store.failure().is_some() || self.store.frozen().is_some();
        if self.hub.phase() == Phase::Serving && ended {
            // Its listener has said so already, but for a writer that is gone.
            self.hub.enter(Phase::Failed);
        }
        self.hub.phase() == Phase::Serving
    }

    /// Whether its origin has signed two histories and nobody has said which of
    /// them is followed.
    pub(super) fn is_forked(&self) -> bool {
        self.view().fork().is_some_and(|fork| !fork.resolved)
    }
}

/// Why stores cannot be served together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacesError {
    /// There is nothing to serve.
    #[error("there is no store to serve")]
    Nothing,
    /// Entries could go to either of them.
    #[error("{first} and {second} are both own stores: a server writes to one")]
    TwoOwn {
        /// The origin of one of them.
        first: OriginName,
        /// That of the other.
        second: OriginName,
    },
    /// A context of that origin would be in two places.
    #[error("two stores are of the origin {origin}: serve one of them")]
    SameOrigin {
        /// Their origin.
        origin: OriginName,
    },
    /// There are too many of them.
    #[error("{got} stores are too many: a server serves at most {PLACES_MAX}")]
    TooMany {
        /// How many there are.
        got: usize,
    },
}

/// All places of a server. See the module. Copies share them.
#[derive(Clone, Debug)]
pub struct Places {
    all: Vec<Arc<Place>>,
    /// Origins that should be here, and whose store could not be opened.
    missing: Vec<OriginName>,
    origins_ok: Option<watch::Receiver<bool>>,
}

impl Places {
    /// Puts them together; the order does not matter. At most one is an own
    /// store.
    pub fn new(mut places: Vec<Place>) -> Result<Self, PlacesError> {
        if places.is_empty() {
            return Err(PlacesError::Nothing);
        }
        if places.len() > PLACES_MAX {
            return Err(PlacesError::TooMany { got: places.len() });
        }
        places.sort_by(|a, b| a.origin.cmp(&b.origin));
        for pair in places.windows(2) {
            if let [a, b] = pair
                && a.origin == b.origin
            {
                let origin = a.origin.clone();
                return Err(PlacesError::SameOrigin { origin });
            }
        }
        let mut own = places.iter().filter(|place| place.role == StoreRole::Own);
        if let (Some(first), Some(second)) = (own.next(), own.next()) {
            return Err(PlacesError::TwoOwn {
                first: first.origin.clone(),
                second: second.origin.clone(),
            });
        }
        // Stable: mirrors stay in the order of their names.
        places.sort_by_key(|place| place.role != StoreRole::Own);
        let numbered = places.into_iter().enumerate();
        let all = numbered.map(|(number, place)| Arc::new(Place { number, ..place }));
        Ok(Self {
            all: all.collect(),
            missing: Vec::new(),
            origins_ok: None,
        })
    }

    /// Origins that should be here, and whose store could not be opened: nobody
    /// knows which contexts they have.
    #[must_use]
    pub fn without(mut self, missing: Vec<OriginName>) -> Self {
        self.missing = missing;
        self
    }

    /// What else is known of the origins: while it says `false`, health says
    /// that not all of them are in order, whatever the stores say. What it said
    /// last counts when its sender is gone.
    #[must_use]
    pub fn with_origins_ok(mut self, origins_ok: watch::Receiver<bool>) -> Self {
        self.origins_ok = Some(origins_ok);
        self
    }

    pub(super) fn origins_ok(&self) -> Option<watch::Receiver<bool>> {
        self.origins_ok.clone()
    }

    pub(super) fn all(&self) -> &[Arc<Place>] {
        &self.all
    }

    /// The own store, if there is one.
    pub(super) fn own(&self) -> Option<&Arc<Place>> {
        self.all
            .first()
            .filter(|place| place.role == StoreRole::Own)
    }

    /// Where entries go.
    pub(super) fn to_write(&self) -> Result<&Store, RpcError> {
        match self.own() {
            Some(own) => Ok(own.store()),
            None => Err(RpcError::MirrorsOnly {
                origins: names(&self.all),
            }),
        }
    }

    /// The place of a listing: the first if none is named.
    pub(super) fn to_list(&self, origin: &str) -> Result<&Arc<Place>, RpcError> {
        match (origin, self.all.first()) {
            ("", Some(first)) => Ok(first),
            ("", None) => Err(RpcError::Mistake("there is no store")),
            (name, _) => self.named(name),
        }
    }

    /// The place that a request means whatever the places hold: the one it
    /// names, or the only one there is.
    pub(super) fn certain(&self, origin: &str) -> Result<Option<&Arc<Place>>, RpcError> {
        match (origin, self.all.as_slice()) {
            ("", [only]) if self.missing.is_empty() => Ok(Some(only)),
            ("", _) => Ok(None),
            (name, _) => self.named(name).map(Some),
        }
    }

    fn named(&self, origin: &str) -> Result<&Arc<Place>, RpcError> {
        let found = self
            .all
            .iter()
            .find(|place| place.origin.as_str() == origin);
        found.ok_or_else(|| match OriginName::new(origin) {
            Ok(origin) if self.missing.contains(&origin) => RpcError::Missing { origin },
            Ok(origin) => RpcError::NoOrigin { origin },
            Err(error) => RpcError::OriginName(error),
        })
    }

    /// Reads a context where it is; `read` gives `None` where it is not. Blocks.
    pub(super) fn read<T, E: Into<RpcError>>(
        &self,
        id: &ContextId,
        origin: &str,
        read: impl Fn(&View) -> Result<Option<T>, E>,
    ) -> Result<(&Place, T), RpcError> {
        let read = |place: &'_ Arc<Place>| read(place.view()).map_err(Into::into);
        let certain = self.certain(origin)?;
        if let (None, Some(own)) = (certain, self.own())
            && let Some(found) = read(own)?
        {
            return Ok((own, found));
        }
        let place = match certain {
            Some(place) => Some(place),
            None => self.mirror_with(id)?,
        };
        let found = match place {
            Some(place) => read(place)?.map(|found| (&**place, found)),
            None => None,
        };
        found.ok_or_else(|| RpcError::NoContext {
            id: id.as_str().to_owned(),
        })
    }

    /// The place to watch a context in, be it there or not. Blocks, unless it is
    /// certain.
    pub(super) fn to_watch(&self, id: &ContextId, origin: &str) -> Result<&Arc<Place>, RpcError> {
        if let Some(place) = self.certain(origin)? {
            return Ok(place);
        }
        let own = self.own();
        if let Some(own) = own
            && own.view().size(id)?.is_some()
        {
            return Ok(own);
        }
        // One that has no entry anywhere is waited for where it can be written.
        let found = self.mirror_with(id)?.or(own);
        found.ok_or_else(|| RpcError::WhichOrigin {
            id: id.as_str().to_owned(),
            origins: names(&self.all),
        })
    }

    /// The one mirror that has a context, if any has.
    fn mirror_with(&self, id: &ContextId) -> Result<Option<&Arc<Place>>, RpcError> {
        if let Some(origin) = self.missing.first() {
            let origin = origin.clone();
            return Err(RpcError::Missing { origin });
        }
        let mut having = Vec::new();
        for place in self.all.iter().filter(|p| p.role == StoreRole::Mirror) {
            let size = place.view().size(id).map_err(|error| RpcError::Unsure {
                origin: place.origin.clone(),
                error,
            })?;
            if size.is_some() {
                having.push(place);
            }
        }
        match having.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(one)),
            several => Err(RpcError::Ambiguous {
                id: id.as_str().to_owned(),
                origins: names(several.iter().copied()),
            }),
        }
    }
}

/// The origins of places, for a message: it has to fit the headers of a reply.
fn names<'a>(places: impl IntoIterator<Item = &'a Arc<Place>>) -> String {
    let mut places = places.into_iter();
    let named: Vec<&str> = places
        .by_ref()
        .take(ORIGINS_NAMED_MAX)
        .map(|place| place.origin.as_str())
        .collect();
    let mut text = named.join(", ");
    let left = places.count();
    if left > 0 {
        // Writing to a string does not fail.
        let _ = fmt::Write::write_fmt(&mut text, format_args!(" and {left} more"));
    }
    text
}

#[cfg(test)]
mod tests;
