//! The handshake of two peers: Noise IK, whose messages carry each side's [`Payload`].

use super::ConnectError;
use crate::dht::handshake::{Payload, PayloadError, prologue};
use crate::dht::{Identity, PublicKey};
use datdot_wire::noise::{Handshake, HandshakeError, Session};

/// The side that calls.
#[derive(Debug, Clone)]
pub struct Caller {
    identity: Identity,
    remote: PublicKey,
    ephemeral: [u8; 32],
    payload: Vec<u8>,
    message: Vec<u8>,
}

impl Caller {
    /// Calls `remote`; `ephemeral` is 32 fresh random bytes.
    pub fn new(
        identity: &Identity,
        remote: PublicKey,
        ephemeral: [u8; 32],
        payload: &Payload,
    ) -> Result<Self, HandshakeError> {
        let mut caller =
            Caller { identity: identity.clone(), remote, ephemeral, payload: payload.encode(), message: Vec::new() };
        caller.message = caller.begin()?.1;
        Ok(caller)
    }

    /// What to send, to as many nodes as needed: the peer takes all for one.
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// Reads the answer. Whoever passed it on can damage it: then another may be right.
    pub fn read(&self, answer: &[u8]) -> Result<(Session, Payload), ConnectError> {
        let (mut noise, _) = self.begin()?;
        let payload = noise.read(answer)?;
        let payload = Payload::decode(&payload).map_err(|error| match error {
            PayloadError::Version(_) => ConnectError::Refused(crate::dht::handshake::Refusal::VersionMismatch),
            PayloadError::Damaged(_) => ConnectError::Damaged("its payload"),
        })?;
        Ok((noise.finish()?, payload))
    }

    /// The same state every time: a Noise handshake can't go back after a damaged answer.
    fn begin(&self) -> Result<(Handshake, Vec<u8>), HandshakeError> {
        let mut noise = Handshake::ik_initiator(&self.identity.noise(), self.remote, &prologue(), &self.ephemeral);
        let message = noise.write(&self.payload)?;
        Ok((noise, message))
    }
}

/// The side that is called.
#[derive(Debug)]
pub struct Called {
    /// What the caller says, unless its version is another.
    pub payload: Result<Payload, PayloadError>,
    /// Who wrote it; whether it is they who send it now shows when they answer us.
    pub remote: PublicKey,
    noise: Handshake,
}

impl Called {
    /// Reads a call for `identity`; `ephemeral` is 32 fresh random bytes.
    pub fn read(identity: &Identity, message: &[u8], ephemeral: &[u8; 32]) -> Result<Self, HandshakeError> {
        let mut noise = Handshake::ik_responder(&identity.noise(), &prologue(), ephemeral);
        let payload = noise.read(message)?;
        let remote = noise.remote().expect("the first message has it");
        Ok(Called { payload: Payload::decode(&payload), remote, noise })
    }

    /// The answer, and the session that begins if it's sent.
    pub fn answer(mut self, payload: &Payload) -> Result<(Vec<u8>, Session), HandshakeError> {
        let message = self.noise.write(&payload.encode())?;
        Ok((message, self.noise.finish()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dht::handshake::{Firewall, UdxInfo};
    use proptest::prelude::*;

    fn identity(seed: u8) -> Identity {
        Identity::from_seed(&[seed; 32])
    }

    fn payload(id: u32) -> Payload {
        Payload {
            refusal: None,
            firewall: Firewall::Open,
            holepunch: None,
            addresses: Vec::new(),
            udx: Some(UdxInfo { reusable_socket: false, id, seq: 0 }),
            secret_stream: true,
            relay_through: None,
            relays: Vec::new(),
        }
    }

    #[test]
    fn both_learn_the_key_and_the_payload_of_the_other() {
        let caller = Caller::new(&identity(1), identity(2).public(), [3; 32], &payload(10)).unwrap();
        let called = Called::read(&identity(2), caller.message(), &[4; 32]).unwrap();
        assert_eq!(called.payload, Ok(payload(10)));
        let (answer, theirs) = called.answer(&payload(20)).unwrap();
        assert_eq!(theirs.remote, identity(1).public());
        // A damaged answer changes nothing: the right one may come another way.
        assert!(caller.read(b"garbage").is_err());
        let (ours, told) = caller.read(&answer).unwrap();
        assert_eq!((ours.remote, ours.hash, told), (identity(2).public(), theirs.hash, payload(20)));
    }

    #[test]
    fn nobody_else_can_answer() {
        let caller = Caller::new(&identity(1), identity(2).public(), [3; 32], &payload(10)).unwrap();
        assert!(Called::read(&identity(5), caller.message(), &[4; 32]).is_err());
    }

    proptest! {
        #[test]
        fn any_call_and_any_answer_are_read_or_refused(message: Vec<u8>) {
            prop_assert!(Called::read(&identity(2), &message, &[4; 32]).is_err());
            let caller = Caller::new(&identity(1), identity(2).public(), [3; 32], &payload(10)).unwrap();
            prop_assert!(caller.read(&message).is_err());
        }
    }
}
