//! What happened on the ledger, block by block.
//!
//! Events tell a story; what is owed and what is owned stands in the account's view, since a block can be reorganised away
//! after its events were told.

use crate::{
    account::AccountId,
    runtime::{Fields, Unfit},
};
use datdot_market::{
    Balance, Block, ContractId, RequestId,
    contract::{End, Reason},
    request::{Closing, Why},
};

/// The events by their pallet, with their fields: each is read by its name from the ledger's metadata.
macro_rules! events {
    ($(#[$outer:meta])* pub enum Event {
        $($(#[$doc:meta])* $pallet:literal $name:ident { $($field:ident: $type:ty),* $(,)? },)*
    }) => {
        $(#[$outer])*
        pub enum Event {
            $($(#[$doc])* $name { $($field: $type),* },)*
        }

        impl Event {
            /// Reads an event; one that nobody here asks about is `None`.
            pub(crate) fn read(fields: &Fields<'_>) -> Result<Option<Self>, Unfit> {
                Ok(match (fields.pallet, fields.event) {
                    $(($pallet, name) if name == stringify!($name) => {
                        Some(Self::$name { $($field: fields.get(stringify!($field))?),* })
                    })*
                    _ => None,
                })
            }
        }
    };
}

events! {
    /// Something that happened in a block. Amounts are in the smallest unit.
    #[derive(Clone, Debug, PartialEq, Eq)]
    #[allow(missing_docs, reason = "the fields are the pallet's")]
    pub enum Event {
        /// A hoster posted or changed its offer; so much of its money is held as bond.
        "Datdot" OfferPosted { hoster: AccountId, space: u64, price: Balance, bond: Balance },
        /// A hoster takes nothing new, and leaves with the last of its contracts.
        "Datdot" OfferClosing { hoster: AccountId, contracts: u32 },
        /// A hoster left; its bond returned.
        "Datdot" OfferWithdrawn { hoster: AccountId, bond: Balance },
        /// A request was opened, its budget and its deposit held; hosters are drawn in block `draw`.
        "Datdot" RequestOpened {
            request: RequestId,
            sponsor: AccountId,
            bytes: u64,
            budget: Balance,
            deposit: Balance,
            draw: Block,
        },
        /// A hoster was drawn for a contract: it is to take or pass.
        "Datdot" Drawn { request: RequestId, contract: ContractId, hoster: AccountId, answer_by: Block },
        /// Replicas of a request are vacant until the next draw.
        "Datdot" Waiting { request: RequestId, vacant: u32, why: Why, next: Block },
        /// The hoster took the contract and fetches.
        "Datdot" Taken { request: RequestId, contract: ContractId, hoster: AccountId, by: Block },
        /// The hoster passed.
        "Datdot" Passed { request: RequestId, contract: ContractId, hoster: AccountId, reason: Reason },
        /// The hoster has the data. Money is reserved for so many periods, from challenge `first` on.
        "Datdot" Accepted {
            request: RequestId,
            contract: ContractId,
            hoster: AccountId,
            reserve: Balance,
            first: u32,
            periods: u32,
        },
        /// A hoster answered its challenge, for so many contracts, with a proof of so many bytes.
        "Datdot" Proven { hoster: AccountId, number: u32, contracts: u32, openings: u32, bytes: u32 },
        /// A hoster missed a challenge, so many in a row.
        "Datdot" ChallengeMissed { hoster: AccountId, number: u32, missed: u32 },
        /// A hoster missed too many challenges: its contracts ended, and its bond paid for each.
        "Datdot" Lapsed { hoster: AccountId, contracts: u32, penalty: Balance },
        /// A hoster gave up a contract, and its bond paid for it.
        "Datdot" Forfeited { request: RequestId, contract: ContractId, hoster: AccountId, penalty: Balance },
        /// A contract ended; it paid so much in all.
        "Datdot" ContractEnded {
            request: RequestId,
            contract: ContractId,
            hoster: AccountId,
            why: End,
            paid: Balance,
        },
        /// A hoster was paid for a contract.
        "Datdot" Paid { request: RequestId, contract: ContractId, hoster: AccountId, amount: Balance },
        /// A hoster has earned what its account can't take now; it is still owed.
        "Datdot" PayOwed { request: RequestId, contract: ContractId, hoster: AccountId, amount: Balance },
        /// A request takes no new hosters.
        "Datdot" RequestClosing { request: RequestId, why: Closing },
        /// A request is over, and the rest of its budget returned.
        "Datdot" RequestClosed { request: RequestId, sponsor: AccountId, returned: Balance },
        /// Money was sent from one account to another.
        "Balances" Transfer { from: AccountId, to: AccountId, amount: Balance },
    }
}
