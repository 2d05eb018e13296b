//! The `datdot` command.
#![allow(dead_code)]
mod parse;
fn main() {}
