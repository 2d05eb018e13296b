//! All there is to see of a daemon.

use crate::{Amount, Key, Limits};
use serde::{Deserialize, Serialize};

/// A daemon at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// SS58 address of its account.
    pub account: String,
    /// Static Noise key of its peer.
    pub noise_key: Key,
    /// Where its peer listens.
    pub listen: Option<String>,
    /// What offers and requests say about where it can be reached, as HOST:PORT.
    pub addresses: Vec<String>,
    /// The folder with its state.
    pub dir: String,
    /// The ledger.
    pub ledger: LedgerStatus,
    /// Money; `None` until the ledger has shown the account.
    pub money: Option<Money>,
    /// Its offer, if it has one or wants one.
    pub offer: Option<OfferStatus>,
    /// Requests that it sponsors, oldest first.
    pub requests: Vec<RequestStatus>,
    /// Contracts that it has as a hoster, oldest first.
    pub contracts: Vec<ContractStatus>,
    /// The last proofs, newest first.
    pub proofs: Vec<ProofStatus>,
    /// Damage found since it started, newest first.
    pub damage: Vec<DamageStatus>,
    /// Feeds in its store.
    pub feeds: Vec<FeedStatus>,
    /// Drives that it published or sponsors; their feeds are among `feeds`.
    #[serde(default)]
    pub drives: Vec<DriveStatus>,
    /// Peers that it is connected to.
    pub peers: Vec<PeerStatus>,
    /// Limits of what passes between it and its peers.
    #[serde(default)]
    pub limits: Limits,
    /// How it is found, and finds others, by the keys of feeds.
    pub swarm: SwarmStatus,
    /// Free bytes on the disk that its store is on.
    pub disk_free: Option<u64>,
}

/// The ledger as the daemon sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerStatus {
    /// Where it is asked.
    pub url: String,
    /// Address of the node's RPC, if the node runs in the same process.
    pub rpc: Option<String>,
    /// The chain's name.
    pub chain: String,
    /// Whether it answers now.
    pub connected: bool,
    /// For how many seconds it has not, if it may again.
    #[serde(default)]
    pub away_seconds: Option<u64>,
    /// Why not, if not.
    pub problem: Option<String>,
    /// Number of the best block.
    pub best: u32,
    /// Number of the last finalized block.
    pub finalized: u32,
    /// Milliseconds between blocks.
    pub block_millis: u32,
    /// Blocks between two challenges of a hoster.
    pub period: u32,
    /// Blocks within which a challenge is to be answered.
    pub deadline: u32,
}

/// The account's money.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Money {
    /// What it can spend.
    pub free: Amount,
    /// Held as budgets of its requests.
    pub budgets: Amount,
    /// Held as deposits of its requests; they return whole.
    pub deposits: Amount,
    /// Held as a hoster's bond.
    pub bond: Amount,
    /// Paid to it for the contracts that it has now.
    pub paid: Amount,
    /// Earned by proofs but not paid yet; `settle` pays it, and the end of a contract does.
    pub earned_unpaid: Amount,
}

/// An offer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferStatus {
    /// How it stands on the ledger.
    pub standing: Standing,
    /// Bytes offered.
    pub space: u64,
    /// Bytes that contracts reserve.
    pub used: u64,
    /// Lowest price, per GiB and day.
    pub price: Amount,
    /// Longest term in blocks.
    pub max_term: u32,
    /// Where the hoster says it is.
    pub region: Option<String>,
    /// Challenges missed in a row.
    pub missed: u32,
    /// The block of the next challenge.
    pub next_challenge: Option<u32>,
    /// What stands in the way of what was ordered, if something does.
    pub why: Option<String>,
}

/// Whether an offer takes contracts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Wanted, but not on the ledger yet.
    Posting,
    /// It takes contracts.
    Open,
    /// The ledger closed it: three silences, or a lapse.
    Away,
    /// It takes nothing new; with its last contract it goes.
    Leaving,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestStatus {
    /// Names it; `None` while it isn't on the ledger.
    pub id: Option<u32>,
    /// Its feeds.
    pub feeds: Vec<Key>,
    /// The file or folder that was published, if it was one.
    pub file: Option<String>,
    /// Bytes of one replica.
    pub bytes: u64,
    /// Where it stands.
    pub state: RequestState,
    /// What it waits for, as a sentence, if it waits.
    pub why: Option<String>,
    /// The block in which that is tried again.
    pub next: Option<u32>,
    /// Replicas wanted.
    pub replicas: u32,
    /// Hosters that have it.
    pub hosted: u32,
    /// Hosters that were drawn or are fetching.
    pub coming: u32,
    /// Term in blocks.
    pub term: u32,
    /// The block in which the term ends, once it runs.
    pub ends: Option<u32>,
    /// Highest price, per GiB and day.
    pub max_price: Amount,
    /// Money that no contract has reserved.
    pub budget: Amount,
    /// Its contracts.
    pub contracts: Vec<ReplicaStatus>,
}

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestState {
    /// Not on the ledger yet.
    Opening,
    /// Replicas are vacant or being fetched.
    Matching,
    /// Every replica is hosted.
    Hosted,
    /// It takes no new hosters.
    Closing,
}

/// A replica of a request, as its sponsor sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// The contract.
    pub contract: u32,
    /// The hoster's SS58 address.
    pub hoster: String,
    /// Where the contract stands.
    pub state: ContractState,
    /// The block by which its state must change, or hosting is over.
    pub by: u32,
    /// Price per GiB and day.
    pub price: Amount,
    /// Set apart for it.
    pub reserve: Amount,
    /// Paid so far.
    pub paid: Amount,
    /// Periods proven.
    pub proven: u32,
    /// Where the hoster can be reached, as HOST:PORT.
    pub addresses: Vec<String>,
    /// The hoster's Noise key.
    pub noise_key: Option<Key>,
}

/// Where a contract stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContractState {
    /// The hoster is to take or pass.
    Drawn,
    /// The hoster fetches.
    Fetching,
    /// The hoster holds and proves.
    Hosting,
    /// It ended early; the last challenge still counts.
    Ending,
}

/// A contract, as its hoster sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContractStatus {
    /// Names it.
    pub id: u32,
    /// Its request.
    pub request: u32,
    /// Its feeds.
    pub feeds: Vec<Key>,
    /// Bytes in all.
    pub bytes: u64,
    /// Bytes that are here.
    pub held: u64,
    /// Where it stands on the ledger.
    pub state: ContractState,
    /// The block by which its state must change, or hosting is over.
    pub by: u32,
    /// What is done with its data, as a sentence: fetched, checked, held, healed, or why it waits.
    pub data: String,
    /// Price per GiB and day.
    pub price: Amount,
    /// What can be earned in all.
    pub reserve: Amount,
    /// Earned by proofs so far.
    pub earned: Amount,
    /// Paid so far.
    pub paid: Amount,
    /// Periods proven.
    pub proven: u32,
}

/// A challenge and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProofStatus {
    /// Number of the challenge.
    pub number: u32,
    /// The block in which it was asked.
    pub asked: u32,
    /// Last block to answer it in.
    pub by: u32,
    /// The block that the proof is in.
    pub block: Option<u32>,
    /// Openings in the proof.
    pub openings: u32,
    /// Bytes of the proof.
    pub bytes: u32,
    /// Milliseconds to make it.
    pub millis_to_make: f64,
    /// Milliseconds to check it here, before it was sent.
    pub millis_to_check: f64,
    /// What came of it.
    pub outcome: ProofOutcome,
    /// Why, if it is not on the ledger.
    pub why: Option<String>,
}

/// What came of a challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProofOutcome {
    /// Being made or sent.
    Sending,
    /// On the ledger.
    Proven,
    /// Not sent: data is damaged.
    Withheld,
    /// Sent and refused.
    Refused,
    /// The deadline passed.
    Missed,
}

/// Damage found in stored data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamageStatus {
    /// The feed.
    pub feed: Key,
    /// BLAKE3 root of the segment.
    pub segment: Key,
    /// First and last damaged block, for each run of them.
    pub blocks: Vec<(u64, u64)>,
    /// First damaged byte and the one after the last, within the segment.
    pub bytes: (u64, u64),
    /// The ledger's block when it was found.
    pub found: u32,
    /// The ledger's block when it was whole again.
    pub healed: Option<u32>,
    /// What is done about it, as a sentence.
    pub state: String,
}

/// A feed in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedStatus {
    /// Its key.
    pub key: Key,
    /// Why it is here.
    pub role: FeedRole,
    /// Blocks of its head.
    pub blocks: u64,
    /// Bytes of its head.
    pub bytes: u64,
    /// Bytes that are here.
    pub held: u64,
    /// Seconds since others were last told that it is here; `None` if they aren't, or not yet.
    pub announced: Option<u64>,
}

/// A drive: two feeds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriveStatus {
    /// Its key: that of the feed with names and places.
    pub key: Key,
    /// The feed with the contents.
    pub blobs: Key,
    /// The folder that is published as this drive, if one is.
    pub folder: Option<String>,
    /// Its version: blocks of its first feed.
    pub version: u64,
    /// Files and links of that version.
    pub files: u64,
    /// Bytes of its files.
    pub bytes: u64,
}

/// Why a feed is in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeedRole {
    /// Published here.
    Author,
    /// Published here before, and taken back: it is shown to nobody.
    Unpublished,
    /// Sponsored here, made elsewhere.
    Sponsor,
    /// Hosted for somebody.
    Hoster,
    /// Fetched to be read.
    Reader,
}

/// A connected peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its address.
    pub address: String,
    /// Its Noise key.
    pub noise_key: Key,
}

/// The swarm, in which peers find each other by the keys of feeds, as one peer sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwarmStatus {
    /// Why there is none, if so.
    pub off: Option<String>,
    /// Where it listens, over UDP.
    pub listen: Option<String>,
    /// Nodes at which it begins.
    pub bootstrap: Vec<String>,
    /// Whether the DHT answers; `None` until that is known.
    pub answers: Option<bool>,
    /// Nodes of the DHT that it knows.
    pub known: u32,
    /// How strangers see and reach it.
    pub nat: Nat,
    /// Its address as others see it: HOST:PORT, or HOST if each of them sees another port.
    pub outside: Option<String>,
    /// Whether it is a node of the DHT that others ask.
    pub host: bool,
    /// Connections that came about this way.
    pub connections: u32,
    /// Feeds that it announces.
    pub topics: u32,
}

/// What is between a peer and the Internet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Nat {
    /// Not known: too few have said how they see us, or they disagree.
    #[default]
    Unknown,
    /// Nothing that keeps strangers out.
    Open,
    /// A NAT or firewall that lets nobody in; all see the same address.
    Consistent,
    /// A NAT that lets nobody in and shows each remote another port.
    Random,
}
