//! The rules' errors as the pallet's.

use crate::Error;
use datdot_market::{contract::WrongState, hoster::NotDue, terms::BadTerms};
use datdot_proof::{challenge::Position, head::HeadError, opening::OpeningError, proof::ProofError};

impl<T> From<BadTerms> for Error<T> {
    fn from(why: BadTerms) -> Self {
        match why {
            BadTerms::NoSpace => Self::NoSpace,
            BadTerms::TermTooShort(_) => Self::TermTooShort,
            BadTerms::Replicas => Self::BadReplicas,
            BadTerms::Feeds => Self::BadFeeds,
            BadTerms::TooLarge => Self::TooLarge,
        }
    }
}

impl<T> From<WrongState> for Error<T> {
    fn from(why: WrongState) -> Self {
        match why {
            WrongState::NotDrawn => Self::NotDrawn,
            WrongState::NotFetching => Self::NotFetching,
            WrongState::NotHosting => Self::NotHosting,
            WrongState::TooLate(_) => Self::TooLate,
            WrongState::NothingLeft => Self::NothingLeft,
        }
    }
}

impl<T> From<NotDue> for Error<T> {
    fn from(why: NotDue) -> Self {
        match why {
            NotDue::NotOpen(_) => Self::ChallengeNotOpen,
            NotDue::Answered(_) => Self::ChallengeAnswered,
            NotDue::Nothing(_) => Self::NothingToProve,
        }
    }
}

/// The refusal of the head of the feed in that place.
pub(crate) fn bad_head<T>(place: usize, why: HeadError) -> Error<T> {
    let place = place as u8;
    match why {
        HeadError::WrongSignature => Error::HeadNotSigned(place),
        HeadError::OtherFeed => Error::OtherFeed(place),
        _ => Error::BadHead(place),
    }
}

/// The refusal of a proof for these positions.
pub(crate) fn bad_proof<T>(positions: &[Position], why: ProofError) -> Error<T> {
    let ProofError::Opening { at, why } = why else { return Error::WrongOpenings };
    // At most `DRAWS` positions: the place fits.
    let place = positions.iter().position(|position| *position == at).unwrap_or_default() as u8;
    match why {
        OpeningError::Mismatch => Error::FalseOpening(place),
        _ => Error::MalformedOpening(place),
    }
}
