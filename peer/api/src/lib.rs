//! Requests and replies between the daemon and its faces
