//! One context at one size, run by run: what an archive is made of. Pinned when
//! it is made; holds no lock and keeps nobody from writing.

use super::StoreError;
use super::index::ContextView;
use super::view::View;
use crate::entry::ContextId;
use crate::hash::Hash;
use crate::ledger::ReadHistory;

/// See the module.
#[derive(Clone, Debug)]
pub struct History {
    view: View,
    context: ContextView,
    id: ContextId,
    size: u64,
    root: Hash,
}

impl View {
    /// The history of a context as it is now; `None` if it has no entries.
    pub fn history(&self, id: &ContextId) -> Result<Option<History>, StoreError> {
        let Some(context) = self.look_up(id)? else {
            return Ok(None);
        };
        let size = self.visible_size(id, &context)?;
        if size == 0 {
            return Ok(None);
        }
        Ok(Some(History {
            root: self.root_of(&context, size)?,
            view: self.clone(),
            context,
            id: id.clone(),
            size,
        }))
    }
}

#[cfg(test)]
impl History {
    /// Whose it is.
    pub(crate) fn view(&self) -> &View {
        &self.view
    }
}

impl ReadHistory for History {
    type Error = StoreError;

    fn id(&self) -> &ContextId {
        &self.id
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn root(&self) -> Hash {
        self.root
    }

    fn runs(&self, after: u64, bytes_max: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        self.view
            .stored_runs(&self.context, after, self.size, bytes_max)
    }

    fn outside_payload(&self, hash: &Hash) -> Result<Vec<u8>, StoreError> {
        self.view.stored_payload(hash)
    }
}
