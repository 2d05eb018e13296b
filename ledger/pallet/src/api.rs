//! What peers ask the ledger, instead of reading its storage: each answer belongs to one block.

use alloc::vec::Vec;
use codec::Codec;
use datdot_market::{
    RequestId,
    terms::Source,
    view::{AccountView, MarketView, RequestView},
};

sp_api::decl_runtime_apis! {
    /// The market as one account, a sponsor or a reader sees it.
    pub trait DatdotApi<AccountId> where AccountId: Codec {
        /// All that concerns one account: what its duties are derived from.
        fn account(who: AccountId) -> AccountView<AccountId>;
        /// What a quote needs: the parameters, and the offers that stand.
        fn market() -> MarketView;
        /// One request with its contracts, as long as it is open.
        fn request(id: RequestId) -> Option<RequestView<AccountId>>;
        /// Where a feed can be read: hosters that have it, then the sources that its sponsors named.
        fn feed_sources(key: [u8; 32]) -> Vec<Source>;
    }
}
