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

/// Something that happened in a block.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are named and typed as in the pallet's events")]
pub enum Event {
    /// A hoster posted or changed its offer.
    OfferPosted { hoster: AccountId },
    /// A hoster left; its bond returned.
    OfferWithdrawn { hoster: AccountId },
    /// A request was opened and its budget held.
    RequestOpened { request: RequestId, sponsor: AccountId, budget: Balance },
    /// A hoster was drawn for a contract: it is to take or pass.
    Drawn { request: RequestId, contract: ContractId, hoster: AccountId },
    /// Replicas of a request are vacant until the next draw.
    Waiting { request: RequestId, why: Why, next: Block },
    /// The hoster took the contract and fetches.
    Taken { contract: ContractId },
    /// The hoster passed.
    Passed { contract: ContractId, reason: Reason },
    /// The hoster has the data: money is reserved for so many periods.
    Accepted { contract: ContractId, reserve: Balance, periods: u32 },
    /// A hoster answered its challenge.
    Proven { hoster: AccountId, number: u32 },
    /// A hoster missed a challenge, so many in a row.
    ChallengeMissed { hoster: AccountId, number: u32, missed: u32 },
    /// A hoster missed too many challenges: its contracts end.
    Lapsed { hoster: AccountId },
    /// A contract ended.
    ContractEnded { contract: ContractId, why: End },
    /// A hoster was paid for a contract.
    Paid { contract: ContractId, amount: Balance },
    /// A request takes no new hosters.
    RequestClosing { request: RequestId, why: Closing },
    /// A request is over, and the rest of its budget returned.
    RequestClosed { request: RequestId, returned: Balance },
    /// Money was sent from one account to another.
    Transferred { from: AccountId, to: AccountId, amount: Balance },
}

impl Event {
    /// Reads an event; one that nobody here asks about is `None`.
    pub(crate) fn read(fields: &Fields<'_>) -> Result<Option<Self>, Unfit> {
        let event = match (fields.pallet, fields.event) {
            ("Datdot", "OfferPosted") => Self::OfferPosted { hoster: fields.get("hoster")? },
            ("Datdot", "OfferWithdrawn") => Self::OfferWithdrawn { hoster: fields.get("hoster")? },
            ("Datdot", "RequestOpened") => Self::RequestOpened {
                request: fields.get("request")?,
                sponsor: fields.get("sponsor")?,
                budget: fields.get("budget")?,
            },
            ("Datdot", "Drawn") => Self::Drawn {
                request: fields.get("request")?,
                contract: fields.get("contract")?,
                hoster: fields.get("hoster")?,
            },
            ("Datdot", "Waiting") => {
                Self::Waiting { request: fields.get("request")?, why: fields.get("why")?, next: fields.get("next")? }
            }
            ("Datdot", "Taken") => Self::Taken { contract: fields.get("contract")? },
            ("Datdot", "Passed") => Self::Passed { contract: fields.get("contract")?, reason: fields.get("reason")? },
            ("Datdot", "Accepted") => Self::Accepted {
                contract: fields.get("contract")?,
                reserve: fields.get("reserve")?,
                periods: fields.get("periods")?,
            },
            ("Datdot", "Proven") => Self::Proven { hoster: fields.get("hoster")?, number: fields.get("number")? },
            ("Datdot", "ChallengeMissed") => Self::ChallengeMissed {
                hoster: fields.get("hoster")?,
                number: fields.get("number")?,
                missed: fields.get("missed")?,
            },
            ("Datdot", "Lapsed") => Self::Lapsed { hoster: fields.get("hoster")? },
            ("Datdot", "ContractEnded") => {
                Self::ContractEnded { contract: fields.get("contract")?, why: fields.get("why")? }
            }
            ("Datdot", "Paid") => Self::Paid { contract: fields.get("contract")?, amount: fields.get("amount")? },
            ("Datdot", "RequestClosing") => {
                Self::RequestClosing { request: fields.get("request")?, why: fields.get("why")? }
            }
            ("Datdot", "RequestClosed") => {
                Self::RequestClosed { request: fields.get("request")?, returned: fields.get("returned")? }
            }
            ("Balances", "Transfer") => {
                Self::Transferred { from: fields.get("from")?, to: fields.get("to")?, amount: fields.get("amount")? }
            }
            _ => return Ok(None),
        };
        Ok(Some(event))
    }
}
