//! Limits of what passes between peers. The network holds them, and is asked for them; TCP connections and those of the swarm
//! are all its own.

use datdot_api::Limits;
use datdot_hypercore::{Limit, Limits as Held};

/// Limits for a network that is to be started.
pub fn begin(limits: Limits) -> Held {
    let held = Held::default();
    set(&held, limits);
    held
}

/// The limits that a network holds.
pub fn of(held: &Held) -> Limits {
    Limits {
        upload: held.upload.get(),
        download: held.download.get(),
        upload_each: held.upload_each.get(),
        download_each: held.download_each.get(),
    }
}

/// Changes them.
pub fn set(held: &Held, limits: Limits) {
    set_one(&held.upload, limits.upload);
    set_one(&held.download, limits.download);
    set_one(&held.upload_each, limits.upload_each);
    set_one(&held.download_each, limits.download_each);
}

fn set_one(held: &Limit, rate: Option<u64>) {
    // A new limit begins anew; one that stays goes on.
    if held.get() != rate {
        held.set(rate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_each_limit_that_it_is_given() {
        let limits = Limits { upload: Some(1), download: Some(2), upload_each: Some(3), download_each: Some(4) };
        let held = begin(limits);
        assert_eq!(of(&held), limits);
        assert_eq!((held.upload_each.get(), held.download.get()), (Some(3), Some(2)));
        set(&held, Limits::default());
        assert_eq!(of(&held), Limits::default());
    }
}
