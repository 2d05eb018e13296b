//! The ledger's state machine.
#![cfg_attr(not(feature = "std"), no_std)]
