//! Requests of a remote that wait for their answers, in the order in which they are due.

use crate::messages::Request;
use std::collections::{BTreeMap, HashMap};

/// Each is found by its id: a remote may take back what it asked for as often as it likes.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// By their place: below 0 what is urgent, the newest before the older; then the rest.
    requests: BTreeMap<i64, Request>,
    places: HashMap<u64, i64>,
    /// Counts up with each.
    count: i64,
}

impl Waiting {
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Takes a request whose id is free.
    pub fn add(&mut self, request: Request) {
        self.count += 1;
        let place = if request.priority == 0 { self.count } else { -self.count };
        self.places.insert(request.id, place);
        self.requests.insert(place, request);
    }

    /// Forgets the request with this id.
    pub fn cancel(&mut self, id: u64) {
        if let Some(place) = self.places.remove(&id) {
            self.requests.remove(&place);
        }
    }

    /// The one that is due.
    pub fn next(&mut self) -> Option<Request> {
        let (_, request) = self.requests.pop_first()?;
        self.places.remove(&request.id);
        Some(request)
    }
}
