//! The story of a daemon, as it happens.

use crate::{Amount, Key};
use serde::{Deserialize, Serialize};

/// An event with when it happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// Counts from 0 since the daemon started.
    pub number: u64,
    /// Milliseconds since 1970, by the daemon's clock.
    pub millis: u64,
    /// The ledger's best block then.
    pub block: u32,
    /// What happened.
    pub event: Event,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// The ledger answers (again).
    LedgerFound {
        /// The chain's name.
        chain: String,
        /// Its best block.
        best: u32,
    },
    /// The ledger doesn't answer.
    LedgerLost {
        /// Why.
        why: String,
    },
    /// What was published is taken back.
    Unpublished {
        /// Its key.
        key: Key,
    },
    /// Our offer stands on the ledger.
    OfferPosted {
        /// Bytes offered.
        space: u64,
        /// Lowest price, per GiB and day.
        price: Amount,
    },
    /// Our offer takes nothing new.
    OfferWithdrawn,
    /// A file was made a feed and is served.
    Published {
        /// The feed.
        key: Key,
        /// Its bytes.
        bytes: u64,
        /// Its blocks.
        blocks: u64,
        /// Milliseconds that it took.
        millis: u64,
    },
    /// Our request is on the ledger.
    RequestOpened {
        /// Names it.
        request: u32,
        /// Its first feed.
        key: Key,
        /// Bytes of one replica.
        bytes: u64,
        /// Replicas wanted.
        replicas: u32,
        /// Highest price, per GiB and day.
        max_price: Amount,
        /// What was locked.
        budget: Amount,
    },
    /// Our request waits.
    RequestWaits {
        /// The request.
        request: u32,
        /// For what, as a sentence.
        why: String,
        /// The block of the next try.
        next: u32,
    },
    /// A hoster was drawn for our request.
    HosterDrawn {
        /// The request.
        request: u32,
        /// The contract.
        contract: u32,
        /// The hoster's SS58 address.
        hoster: String,
    },
    /// A hoster has the data of our request.
    HosterAccepted {
        /// The request.
        request: u32,
        /// The contract.
        contract: u32,
        /// The hoster's SS58 address.
        hoster: String,
        /// Hosters that have it now.
        hosted: u32,
        /// Replicas wanted.
        of: u32,
    },
    /// A contract of our request is gone.
    HosterLost {
        /// The request.
        request: u32,
        /// The contract.
        contract: u32,
        /// The hoster's SS58 address.
        hoster: String,
    },
    /// Our request is over.
    RequestClosed {
        /// The request.
        request: u32,
    },
    /// The draw named us for a contract.
    Matched {
        /// The contract.
        contract: u32,
        /// The request.
        request: u32,
        /// Bytes to host.
        bytes: u64,
    },
    /// We took a contract.
    Taken {
        /// The contract.
        contract: u32,
    },
    /// We passed a contract.
    Passed {
        /// The contract.
        contract: u32,
        /// Why, as a sentence.
        why: String,
    },
    /// We fetch the data of a contract.
    Fetching {
        /// The contract.
        contract: u32,
        /// Bytes that are here.
        bytes: u64,
        /// Bytes in all.
        total: u64,
    },
    /// A fetch failed, or waits.
    FetchFailed {
        /// The contract.
        contract: u32,
        /// Why, as a sentence.
        why: String,
    },
    /// All bytes of a contract are here, and their roots are those on the ledger.
    Fetched {
        /// The contract.
        contract: u32,
        /// Bytes in all.
        bytes: u64,
        /// Bytes that came over the network; the rest was here.
        fetched: u64,
        /// Milliseconds that it took.
        millis: u64,
    },
    /// We accepted a contract: it is on the ledger that we host.
    Accepted {
        /// The contract.
        contract: u32,
        /// What can be earned.
        reserve: Amount,
    },
    /// We made a proof and checked it.
    ProofMade {
        /// Number of the challenge.
        number: u32,
        /// Openings in it.
        openings: u32,
        /// Its bytes.
        bytes: u32,
        /// Microseconds to make it.
        micros_make: u64,
        /// Microseconds to check it.
        micros_check: u64,
    },
    /// Our proof is on the ledger.
    ProofOnLedger {
        /// Number of the challenge.
        number: u32,
        /// The block.
        block: u32,
    },
    /// A proof was not sent because stored data is damaged.
    ProofWithheld {
        /// Number of the challenge.
        number: u32,
        /// Why, as a sentence.
        why: String,
    },
    /// The ledger refused a proof.
    ProofRefused {
        /// Number of the challenge.
        number: u32,
        /// Why.
        why: String,
    },
    /// A challenge went unanswered.
    ProofMissed {
        /// Number of the challenge.
        number: u32,
        /// Challenges missed in a row.
        missed: u32,
    },
    /// Stored data is damaged.
    DamageFound {
        /// The feed.
        key: Key,
        /// BLAKE3 root of the segment.
        segment: Key,
        /// First and last damaged block, for each run of them.
        blocks: Vec<(u64, u64)>,
        /// First damaged byte and the one after the last, within the segment.
        bytes: (u64, u64),
    },
    /// Damaged data is whole again.
    Healed {
        /// The feed.
        key: Key,
    },
    /// We gave up a contract whose data can't be healed.
    Forfeited {
        /// The contract.
        contract: u32,
    },
    /// We were paid.
    Paid {
        /// The contract.
        contract: u32,
        /// How much.
        amount: Amount,
    },
    /// A proof earned pay; it is paid when it is settled.
    Earned {
        /// The contract.
        contract: u32,
        /// How much since the last time.
        amount: Amount,
        /// How much in all.
        total: Amount,
    },
    /// A contract of ours is over.
    ContractEnded {
        /// The contract.
        contract: u32,
    },
    /// Data that nobody needs any more was dropped.
    Dropped {
        /// The feed.
        key: Key,
    },
    /// A feed was read into a file.
    Read {
        /// The feed.
        key: Key,
        /// Its bytes.
        bytes: u64,
        /// Milliseconds that it took.
        millis: u64,
    },
    /// Something is wrong that a person should know.
    Trouble {
        /// What, and what to do.
        what: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_may_have_fields_of_the_same_names_as_its_telling() {
        for event in [
            Event::ProofOnLedger { number: 7, block: 8 },
            Event::Read { key: Key([1; 32]), bytes: 2, millis: 3 },
            Event::Trouble { what: "no disk".into() },
        ] {
            let told = Told { number: 1, millis: 2, block: 3, event };
            let json = serde_json::to_string(&told).unwrap();
            assert_eq!(serde_json::from_str::<Told>(&json).unwrap(), told, "{json}");
        }
    }
}
