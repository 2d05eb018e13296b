//! Tokens: who wants something stored must first show that it receives at its address.
//!
//! A token is a hash of the asker's host under a secret of ours that changes every 10 s; the one before is still
//! good. So nothing is kept per asker, and a token lives 10 to 20 s, enough for a search with dead nodes on its way.

use super::id::keyed_hash;
use super::packet::Token;
use std::net::Ipv4Addr;
use std::time::Duration;

/// How long a secret is the newest.
const ROTATION: Duration = Duration::from_secs(10);

/// Our secrets.
#[derive(Clone)]
pub struct Tokens {
    current: [u8; 32],
    previous: [u8; 32],
    since: Duration,
}

impl Tokens {
    /// Begins with two random secrets.
    pub fn new(now: Duration, secrets: [[u8; 32]; 2]) -> Self {
        Tokens { current: secrets[0], previous: secrets[1], since: now }
    }

    /// Changes the secret if it is time for it; `fresh` makes a new one.
    pub fn rotate(&mut self, now: Duration, fresh: impl FnOnce() -> [u8; 32]) {
        if now >= self.since + ROTATION {
            // After a long pause the current secret is as old as a previous one may be, or older.
            self.previous = self.current;
            self.current = fresh();
            self.since = now;
        }
    }

    /// The token for whoever asks from `host`.
    pub fn issue(&self, host: Ipv4Addr) -> Token {
        token(&self.current, host)
    }

    /// Whether `token` was issued to `host` lately.
    pub fn accepts(&self, token_: &Token, host: Ipv4Addr) -> bool {
        [&self.current, &self.previous].iter().any(|secret| token(secret, host) == *token_)
    }
}

fn token(secret: &[u8; 32], host: Ipv4Addr) -> Token {
    keyed_hash(secret, &host.octets())
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("since", &self.since).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_lives_one_to_two_rotations_and_for_one_host() {
        let [a, b] = [Ipv4Addr::new(1, 2, 3, 4), Ipv4Addr::new(1, 2, 3, 5)];
        let mut tokens = Tokens::new(Duration::ZERO, [[1; 32], [2; 32]]);
        let token = tokens.issue(a);
        assert!(tokens.accepts(&token, a) && !tokens.accepts(&token, b));
        tokens.rotate(Duration::from_millis(9_999), || [3; 32]);
        assert_eq!(tokens.issue(a), token);
        tokens.rotate(Duration::from_secs(10), || [3; 32]);
        assert!(tokens.issue(a) != token && tokens.accepts(&token, a));
        tokens.rotate(Duration::from_millis(20_000), || [4; 32]);
        assert!(!tokens.accepts(&token, a));
    }
}
