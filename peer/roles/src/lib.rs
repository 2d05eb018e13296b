//! Sponsor and hoster as state machines
