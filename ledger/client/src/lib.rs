//! Submit to the ledger and follow it
