//! Locks by name: one task at a time does something about one thing.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};
use tokio::sync::Mutex as AsyncMutex;

/// The locks that somebody holds or waits for.
#[derive(Debug)]
pub struct Locks<Name>(Mutex<BTreeMap<Name, Weak<AsyncMutex<()>>>>);

impl<Name: Ord> Locks<Name> {
    /// The lock of a name.
    pub fn of(&self, name: Name) -> Arc<AsyncMutex<()>> {
        let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| lock.strong_count() > 0);
        let lock = locks.get(&name).and_then(Weak::upgrade).unwrap_or_default();
        locks.insert(name, Arc::downgrade(&lock));
        lock
    }
}

impl<Name> Default for Locks<Name> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_has_one_lock_as_long_as_somebody_holds_it() {
        let locks = Locks::default();
        let first = locks.of("a");
        let held = first.try_lock().unwrap();
        assert!(locks.of("a").try_lock().is_err());
        assert!(locks.of("b").try_lock().is_ok());
        drop(held);
        assert!(locks.of("a").try_lock().is_ok());
    }
}
