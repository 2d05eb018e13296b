//! Who is looked at when: every request has one entry, in block `request.wake`.

use crate::{Agenda, Config, Pallet, RequestOf, Requests};
use datdot_market::{Block, RequestId};

/// Nothing is entered further ahead, so that the search below can't run into the end of time; looking early does no harm.
const FARTHEST: Block = 1 << 30;

impl<T: Config> Pallet<T> {
    /// Stores a request that has an entry, and sees to it that it is looked at in time.
    ///
    /// An entry that comes too early is left: looking does no harm and costs less than moving it.
    pub(crate) fn put_request(id: RequestId, mut request: RequestOf<T>) {
        let params = crate::Parameters::<T>::get();
        let due = request.next_wake(&Self::contracts_in(&request), Self::now(), &params);
        if due < request.wake {
            Agenda::<T>::mutate_exists(request.wake, |entries| {
                let left = entries.take().map(|mut entries| {
                    entries.retain(|entry| *entry != id);
                    entries
                });
                *entries = left.filter(|entries| !entries.is_empty());
            });
            request.wake = Self::enter(id, due);
        }
        Requests::<T>::insert(id, request);
    }

    /// Stores a request that has no entry yet, or whose entry was taken.
    pub(crate) fn put_request_anew(id: RequestId, mut request: RequestOf<T>) {
        let params = crate::Parameters::<T>::get();
        let due = request.next_wake(&Self::contracts_in(&request), Self::now(), &params);
        request.wake = Self::enter(id, due);
        Requests::<T>::insert(id, request);
    }

    /// Writes an entry into the first block from `due` on that has room. At most `MAX_REQUESTS` entries exist, so one of the next
    /// `MAX_REQUESTS / REQUESTS_PER_BLOCK` blocks has.
    fn enter(id: RequestId, due: Block) -> Block {
        let mut block = due.min(Self::now().saturating_add(FARTHEST));
        while Agenda::<T>::try_mutate(block, |entries| entries.try_push(id)).is_err() {
            block = block.saturating_add(1);
        }
        block
    }
}
