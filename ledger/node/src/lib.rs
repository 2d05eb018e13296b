//! A ledger node that makes, checks and serves blocks.
