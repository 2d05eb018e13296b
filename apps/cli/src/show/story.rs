//! What a daemon tells, as sentences.

use super::{bytes, millis, money, price, progress::count, short, thousands};
use datdot_api::Event;

/// The sentence for an event; `None` for those that only move a progress bar.
pub fn sentence(event: &Event) -> Option<String> {
    Some(match event {
        Event::Fetching { .. } => return None,
        Event::LedgerFound { chain, best } => {
            format!("the ledger answers: {chain}, block {}", thousands((*best).into()))
        }
        Event::LedgerLost { why } => format!("no ledger for now: {why}"),
        Event::OfferPosted { space, price: lowest } => format!("offers {} at {}", bytes(*space), price(*lowest)),
        Event::OfferWithdrawn => "takes no new contracts".into(),
        Event::Published { key, bytes: size, blocks, millis } => format!(
            "made a feed of {} in {}: {} in {}",
            bytes(*size),
            span(*millis),
            count(*blocks, "block", "blocks"),
            key
        ),
        Event::Unpublished { key } => format!("unpublished {key}: nobody gets to see it here any longer"),
        Event::RequestOpened { request, bytes: size, replicas, max_price, budget, .. } => format!(
            "opened request {request}: {} of {}, at most {}; {} locked",
            count(*replicas, "copy", "copies"),
            bytes(*size),
            price(*max_price),
            money(*budget)
        ),
        Event::RequestWaits { request, why, next } => {
            format!("request {request} waits: {why}; tried again in block {}", thousands((*next).into()))
        }
        Event::HosterDrawn { request, hoster, .. } => format!("request {request}: {} was drawn", short(hoster)),
        Event::HosterAccepted { request, hoster, hosted, of, .. } => {
            format!("request {request}: hosted by {hosted} of {of}, {} has it now", short(hoster))
        }
        Event::HosterLost { request, hoster, .. } => format!("request {request}: {} no longer hosts it", short(hoster)),
        Event::RequestClosed { request } => format!("request {request} is over; what was not earned has returned"),
        Event::Matched { contract, bytes: size, .. } => format!("was drawn for contract {contract}: {}", bytes(*size)),
        Event::Taken { contract } => format!("takes contract {contract}"),
        Event::Passed { contract, why } => format!("passes contract {contract}: {why}"),
        Event::FetchFailed { contract, why } => format!("can't fetch contract {contract} now: {why}"),
        Event::Fetched { contract, bytes: size, fetched, millis } => {
            let part = if fetched < size { format!(" ({} were here)", bytes(size - fetched)) } else { String::new() };
            format!(
                "fetched {} for contract {contract} in {}, {} a second{part}; every block verified, the root is the ledger's",
                bytes(*fetched),
                span(*millis),
                bytes(per_second(*fetched, *millis)),
            )
        }
        Event::Accepted { contract, reserve } => {
            format!("hosts contract {contract}: {} can be earned", money(*reserve))
        }
        Event::ProofMade { number, openings, bytes: size, micros_make, micros_check } => format!(
            "challenge {number}: proof of {}, {}, made in {}, checked in {}",
            count(*openings, "chunk", "chunks"),
            bytes((*size).into()),
            millis(*micros_make as f64 / 1e3),
            millis(*micros_check as f64 / 1e3)
        ),
        Event::ProofOnLedger { number, block } => {
            format!("challenge {number}: proven on the ledger in block {}", thousands((*block).into()))
        }
        Event::ProofWithheld { number, why } => format!("challenge {number}: no proof sent: {why}"),
        Event::ProofRefused { number, why } => format!("challenge {number}: the ledger refused the proof: {why}"),
        Event::ProofMissed { number, missed } => {
            format!("challenge {number}: missed, {} in a row", thousands((*missed).into()))
        }
        Event::DamageFound { key, segment, blocks, bytes } => {
            let damaged: u64 = blocks.iter().map(|(first, last)| last - first + 1).sum();
            format!(
                "found damage in segment {segment} of feed {key}: {} in bytes {} to {}; fetching them again",
                count(damaged, "block", "blocks"),
                thousands(bytes.0.into()),
                thousands(bytes.1.into())
            )
        }
        Event::Healed { key } => format!("feed {key} is whole again"),
        Event::Forfeited { contract } => format!("gave up contract {contract}: its data can't be had again"),
        Event::Paid { contract, amount } => format!("was paid {} for contract {contract}", money(*amount)),
        Event::Earned { contract, amount, total } => {
            format!("earned {} with contract {contract}, {} in all", money(*amount), money(*total))
        }
        Event::ContractEnded { contract } => format!("contract {contract} is over"),
        Event::Dropped { key } => format!("dropped feed {key}: nobody needs it any more"),
        Event::Read { key, bytes: size, millis } => format!("read {} of feed {key} in {}", bytes(*size), span(*millis)),
        Event::Trouble { what } => format!("trouble: {what}"),
    })
}

/// `0.8 s`
pub fn span(millis: u64) -> String {
    if millis < 1_000 { format!("{millis} ms") } else { format!("{:.1} s", millis as f64 / 1e3) }
}

/// Bytes a second.
pub fn per_second(bytes: u64, millis: u64) -> u64 {
    bytes.saturating_mul(1_000) / millis.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use datdot_api::{Amount, Key};

    #[test]
    fn damage_is_told_with_its_segment() {
        let event = Event::DamageFound {
            key: Key([1; 32]),
            segment: Key([2; 32]),
            blocks: vec![(3, 3), (7, 9)],
            bytes: (196_608, 655_360),
        };
        let said = sentence(&event).unwrap();
        assert!(said.contains(&Key([2; 32]).to_string()) && said.contains("4 blocks"), "{said}");
    }

    #[test]
    fn numbers_come_with_their_units() {
        let event = Event::ProofMade { number: 7, openings: 16, bytes: 25_000, micros_make: 1_900, micros_check: 640 };
        assert_eq!(
            sentence(&event).unwrap(),
            "challenge 7: proof of 16 chunks, 24.4 KiB, made in 1.9 ms, checked in 640 µs"
        );
        let event = Event::Paid { contract: 2, amount: Amount(5_000_000_000) };
        assert_eq!(sentence(&event).unwrap(), "was paid 0.005 DAT for contract 2");
    }
}
