//! What a face asks of the daemon, and how the daemon answers.

use crate::{Amount, Key};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The terms to offer space on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostOrder {
    /// Bytes offered in all.
    pub space: u64,
    /// Lowest price accepted, per GiB and day.
    pub price: Amount,
    /// Longest term accepted, in blocks; the daemon's default (a year) if not given.
    #[serde(default)]
    pub max_term: Option<u32>,
    /// Where the hoster says it is: two upper-case letters (ISO 3166).
    #[serde(default)]
    pub region: Option<String>,
}

/// How something is to be hosted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Copies, at distinct hosters.
    pub replicas: u32,
    /// Blocks from the first acceptance on; see [`crate::status::LedgerStatus::block_millis`].
    pub term: u32,
    /// Highest price accepted, per GiB and day; twice the middle of the standing offers' prices if not given.
    #[serde(default)]
    pub max_price: Option<Amount>,
}

/// Make a feed of a file, or a drive of a folder, serve it, and have it hosted. A folder that is published again is the same drive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishOrder {
    /// The file or folder, on the daemon's machine; absolute.
    pub path: PathBuf,
    /// How it is to be hosted; without, it is only made and served.
    pub wanted: Option<Wanted>,
}

/// Have a feed, or a drive with both of its feeds, hosted that somebody else may have made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestOrder {
    /// The feed.
    pub key: Key,
    /// Where to fetch it, as HOST:PORT; not needed if the daemon has it or finds it on the ledger.
    #[serde(default)]
    pub from: Vec<String>,
    /// How it is to be hosted.
    pub wanted: Wanted,
}

/// Read a feed into a file, or a drive into a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetOrder {
    /// The feed or drive.
    pub key: Key,
    /// A file or folder of the drive, if not all of it.
    #[serde(default)]
    pub inside: Option<String>,
    /// The file or folder to write, on the daemon's machine; absolute. A file is written beside it first, then renamed, and must
    /// not exist. A folder may; what it has besides is left alone.
    pub path: PathBuf,
    /// Whether files of the folder that are others in the drive are replaced.
    #[serde(default)]
    pub replace: bool,
    /// If the feed or drive is encrypted: the file with its key, 64 hex digits, on the daemon's machine; absolute. The daemon reads it when
    /// it needs the key, which is thus in no order, and not noted with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_key_file: Option<PathBuf>,
    /// Where to fetch it, as HOST:PORT; without, hosters found on the ledger.
    #[serde(default)]
    pub from: Vec<String>,
}

/// Read a feed, or a file of a drive, as a stream of bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamOrder {
    /// The feed or drive.
    pub key: Key,
    /// The file of the drive.
    #[serde(default)]
    pub inside: Option<String>,
    /// As in [`GetOrder`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_key_file: Option<PathBuf>,
    /// Where to fetch it, as HOST:PORT; without, hosters found on the ledger.
    #[serde(default)]
    pub from: Vec<String>,
}

/// List what is in a drive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListOrder {
    /// The drive.
    pub key: Key,
    /// A folder or file of it, if not all.
    #[serde(default)]
    pub inside: Option<String>,
    /// Whether what is in folders is listed too.
    #[serde(default)]
    pub recursive: bool,
    /// As in [`GetOrder`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_key_file: Option<PathBuf>,
    /// Where to fetch it, as HOST:PORT; without, hosters found on the ledger.
    #[serde(default)]
    pub from: Vec<String>,
}

/// A line of a list. The last one is [`Listed::Done`] or [`Listed::Failed`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Listed {
    /// A file.
    File {
        /// Its path, from the folder that is listed.
        path: String,
        /// Its bytes.
        bytes: u64,
        /// Whether it can be run.
        executable: bool,
    },
    /// A symbolic link.
    Link {
        /// Its path.
        path: String,
        /// Where it leads.
        target: String,
    },
    /// A folder; only if it isn't listed itself.
    Folder {
        /// Its path.
        path: String,
        /// Files and links in it and below.
        files: u64,
        /// Bytes of the files.
        bytes: u64,
    },
    /// An entry that makes no sense.
    Bad {
        /// Its name, fit to be shown.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// The end.
    Done {
        /// The drive's version.
        version: u64,
    },
    /// The end: it can't be listed.
    Failed {
        /// Why, and what to do.
        error: String,
    },
}

impl Listed {
    /// Whether no other line follows.
    pub fn is_last(&self) -> bool {
        matches!(self, Listed::Done { .. } | Listed::Failed { .. })
    }
}

/// Ask what hosting would cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuoteOrder {
    /// What would be hosted.
    pub of: QuoteOf,
    /// How.
    pub wanted: Wanted,
}

/// What a quote is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuoteOf {
    /// A number of bytes.
    Bytes(u64),
    /// A file or folder on the daemon's machine; absolute path.
    File(PathBuf),
    /// A feed or drive that the daemon holds.
    Feed(Key),
}

/// What hosting would cost and what it would give. Nothing was signed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quote {
    /// Bytes of one replica.
    pub bytes: u64,
    /// Replicas.
    pub replicas: u32,
    /// Term in blocks.
    pub term: u32,
    /// Term in seconds, at the chain's block time.
    pub term_seconds: u64,
    /// Highest price per GiB and day.
    pub max_price: Amount,
    /// What is locked: every replica at the highest price for the whole term. What isn't earned returns.
    pub budget: Amount,
    /// What it would cost with the cheapest offers that fit; `None` if fewer fit than there are replicas.
    pub expected: Option<Amount>,
    /// The transaction's fee.
    pub fee: Amount,
    /// Held besides the budget while the request lives, and returned.
    pub deposit: Amount,
    /// Offers standing that fit, of those looked at.
    pub offers_that_fit: u32,
    /// Offers looked at.
    pub offers: u32,
    /// Seconds between two challenges of a hoster.
    pub period_seconds: u64,
    /// Chunks of 1 KiB asked for in a challenge.
    pub chunks_a_challenge: u32,
    /// Seconds until the loss of a tenth of a replica is met with a chance of 99 %, if it is all that its hoster holds.
    pub tenth_lost_found_within: u64,
    /// The same for the loss of everything.
    pub all_lost_found_within: u64,
    /// What stands in the way, if something does: too little money, no offers that fit.
    pub problem: Option<String>,
}

/// Send money.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendOrder {
    /// SS58 address.
    pub to: String,
    /// How much.
    pub amount: Amount,
}

/// End a request; what is not earned returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelOrder {
    /// The request.
    pub request: u32,
}

/// Take back what was published here: its requests end, and nobody is served any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnpublishOrder {
    /// The feed or drive.
    pub key: Key,
    /// Whether its data is deleted here, with the secret key that it was signed with.
    #[serde(default)]
    pub delete: bool,
}

/// What was published is taken back. Those who have it may keep it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unpublished {
    /// Requests that are closing since.
    pub requests: Vec<u32>,
    /// Bytes that were deleted.
    pub deleted: u64,
}

/// A transaction is in a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The block's number.
    pub block: u32,
}

/// The daemon's account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wallet {
    /// SS58 address.
    pub address: String,
    /// What it can spend.
    pub free: Amount,
    /// Held as budgets of requests.
    pub budgets: Amount,
    /// Held as deposits of requests; they return whole.
    pub deposits: Amount,
    /// Held as a hoster's bond.
    pub bond: Amount,
}

/// A step of something that takes a while. The last one is [`Progress::Done`] or [`Progress::Failed`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Progress {
    /// The file or folder is being read.
    Reading {
        /// Bytes read.
        bytes: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The folder is in its drive.
    Imported {
        /// Paths that are new.
        added: u64,
        /// Paths that have changed.
        changed: u64,
        /// Paths that are gone.
        deleted: u64,
        /// Paths that are as they were.
        unchanged: u64,
        /// Bytes of content that the drive did not have.
        new_bytes: u64,
    },
    /// Something is left out.
    Skipped {
        /// Its path.
        name: String,
        /// Why.
        why: String,
    },
    /// An older request is for what the drive was before; it goes on until it ends or is cancelled.
    Superseded {
        /// The older request.
        request: u32,
    },
    /// The drive is in its folder.
    Exported {
        /// Files and links that were written.
        written: u64,
        /// Files and links that were there already.
        unchanged: u64,
    },
    /// The feed or drive is complete here and served to everyone.
    Serving {
        /// Its key: all that a reader needs.
        key: Key,
        /// Its blocks; of both feeds of a drive.
        blocks: u64,
        /// Their bytes.
        bytes: u64,
        /// Where it is served, as HOST:PORT.
        addresses: Vec<String>,
    },
    /// The feed is being fetched.
    Fetching {
        /// Bytes that are here and verified.
        bytes: u64,
        /// Bytes of the feed.
        total: u64,
        /// Peers that it comes from now.
        peers: u32,
    },
    /// The request is on the ledger.
    Opened {
        /// Names it.
        request: u32,
        /// What was locked.
        budget: Amount,
        /// Whether it was there before: the same wish again opens nothing.
        already: bool,
    },
    /// Something has to happen first.
    Waiting {
        /// What, as a sentence.
        why: String,
        /// The block in which it is tried again, if that is known.
        next: Option<u32>,
    },
    /// Hosters have it or are fetching it.
    Hosted {
        /// Hosters that accepted.
        hosted: u32,
        /// Hosters that were drawn or are fetching.
        coming: u32,
        /// Replicas wanted.
        of: u32,
    },
    /// The end: it is as it was wanted.
    Done {
        /// The feed.
        key: Key,
        /// Its bytes.
        bytes: u64,
        /// The request, if one was wanted.
        request: Option<u32>,
        /// Hosters that have it.
        hosted: u32,
        /// Replicas wanted.
        of: u32,
    },
    /// The end: it can't be done.
    Failed {
        /// Why, and what to do.
        error: String,
    },
}

impl Progress {
    /// Whether no other step follows.
    pub fn is_last(&self) -> bool {
        matches!(self, Progress::Done { .. } | Progress::Failed { .. })
    }
}

/// Why the daemon didn't do it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What is wrong and what to do, as a sentence.
    pub error: String,
}
