//! What hosting would cost and what it would give, before anything is signed.

use crate::context::Context;
use datdot_api::{Amount, Quote, Wanted};
use datdot_ledger::{At, Call, Error};
use datdot_market::{
    Balance, Block,
    params::{Dat, Params},
    payout,
    terms::{Address, Feed, Source, Terms},
    view::MarketView,
};
use datdot_proof::{
    challenge::DRAWS,
    head::{DEFAULT_NAMESPACE, Manifest, Root, SignedHead},
};

/// The chance with which a loss is to be met when a quote says how long that takes: 99 %.
const MET: f64 = 0.99;

/// Says what it would cost to have so many bytes hosted.
pub(crate) async fn quote(ctx: &Context, bytes: u64, wanted: &Wanted) -> Result<Quote, String> {
    let cost = cost(ctx, bytes, wanted).await?;
    let affordable = cost.is_affordable();
    let Cost { market, terms, bytes, budget, deposit, fee, .. } = cost;
    let (params, max_price) = (market.params, terms.max_price);

    let fitting = fitting(&market, &terms, bytes);
    let cheapest = fitting.iter().take(wanted.replicas as usize);
    let periods = wanted.term / params.period;
    let expected = (fitting.len() >= wanted.replicas as usize)
        .then(|| cheapest.map(|price| payout::due(periods, *price, bytes, &params)).sum::<Option<Balance>>())
        .flatten();
    let problem = affordable.err().or_else(|| too_few(fitting.len(), market.offers.len(), wanted.replicas));
    let seconds = |blocks: u32| u64::from(blocks) * u64::from(params.block_millis) / 1000;
    Ok(Quote {
        bytes,
        replicas: wanted.replicas,
        term: wanted.term,
        term_seconds: seconds(wanted.term),
        max_price: Amount(max_price),
        budget: Amount(budget),
        expected: expected.map(Amount),
        fee: Amount(fee),
        deposit: Amount(deposit),
        offers_that_fit: fitting.len() as u32,
        offers: market.offers.len() as u32,
        period_seconds: seconds(params.period),
        chunks_a_challenge: DRAWS as u32,
        tenth_lost_found_within: found_within(0.1, &params),
        all_lost_found_within: found_within(1.0, &params),
        problem,
    })
}

/// What a request would take, as the ledger stands now.
pub(crate) struct Cost {
    market: MarketView,
    terms: Terms,
    bytes: u64,
    budget: Balance,
    deposit: Balance,
    fee: Balance,
    free: Balance,
}

/// Works out what a request would take, or says why the ledger would refuse it.
pub(crate) async fn cost(ctx: &Context, bytes: u64, wanted: &Wanted) -> Result<Cost, String> {
    if !ctx.ledger.is_up() {
        return Err(ctx.ledger_is_away());
    }
    let market = ctx.ledger.market().await.map_err(|error| error.to_string())?;
    let params = market.params;
    long_enough(wanted.term, &params)?;
    let terms = Terms { replicas: wanted.replicas, term: wanted.term, max_price: highest(wanted, &market)? };
    let (call, bytes) = example(bytes, &terms)?;
    if let Call::Request { feeds, terms, .. } = &call {
        terms.check(feeds, &params).map_err(|error| error.to_string())?;
    }
    let (budget, deposit) = (budget(&terms, bytes, &params)?, params.deposit_for(terms.replicas));
    let fee = ctx.ledger.fee(&call).await.map_err(|error: Error| error.to_string())?;
    let free = ctx.ledger.account(&ctx.submitter.id(), At::Best).await.map_err(|error| error.to_string())?.free;
    Ok(Cost { market, terms, bytes, budget, deposit, fee, free })
}

impl Cost {
    /// Whether the account has as much.
    pub fn is_affordable(&self) -> Result<(), String> {
        let Self { budget, deposit, fee, free, .. } = *self;
        if budget.saturating_add(deposit).saturating_add(fee) <= free {
            return Ok(());
        }
        Err(format!(
            "the account has {} free, which is less than the budget of {}, the deposit of {} and the fee of {}: fund it, \
             or ask for less",
            Dat(free),
            Dat(budget),
            Dat(deposit),
            Dat(fee)
        ))
    }
}

/// Refuses a term that no request can have.
fn long_enough(term: Block, params: &Params) -> Result<(), String> {
    let least = params.period.saturating_mul(2);
    if term >= least {
        return Ok(());
    }
    let seconds = |blocks: Block| u64::from(blocks) * u64::from(params.block_millis) / 1000;
    let (least, period) = (seconds(least), seconds(params.period));
    Err(format!("a request lasts at least two periods, {least} s: a hoster is asked for a proof every {period} s"))
}

/// Why a request would wait for hosters.
fn too_few(fitting: usize, offers: usize, replicas: u32) -> Option<String> {
    let advice = match fitting {
        fitting if fitting >= replicas as usize => return None,
        fitting if fitting == offers => "all offers fit: ask for fewer replicas, or wait for more hosters",
        _ => "a higher price, a shorter term or fewer replicas may help",
    };
    Some(format!("{fitting} of {offers} offers fit; the request would wait until more do: {advice}"))
}

/// The highest price of a wish, or a sensible one if it names none.
pub(crate) async fn max_price(ctx: &Context, wanted: &Wanted) -> Result<Balance, String> {
    match wanted.max_price {
        Some(price) => Ok(price.0),
        None => highest(wanted, &ctx.ledger.market().await.map_err(|error| error.to_string())?),
    }
}

fn highest(wanted: &Wanted, market: &MarketView) -> Result<Balance, String> {
    if let Some(price) = wanted.max_price {
        return Ok(price.0);
    }
    let mut prices: Vec<_> = market.offers.iter().map(|(price, ..)| *price).collect();
    prices.sort_unstable();
    match prices.get(prices.len() / 2) {
        Some(middle) => Ok(middle.saturating_mul(2)),
        None => {
            Err("nobody offers space now, so there is no price to go by: say the highest one with --max-price".into())
        }
    }
}

/// What a request locks.
pub(crate) fn budget(terms: &Terms, bytes: u64, params: &Params) -> Result<Balance, String> {
    payout::budget(terms.replicas, terms.max_price, bytes, terms.term, params)
        .ok_or_else(|| "the cost doesn't fit into 128 bits: a lower price or a shorter term is needed".into())
}

/// Prices of the offers that fit, the cheapest first.
fn fitting(market: &MarketView, terms: &Terms, bytes: u64) -> Vec<Balance> {
    let fits = |(price, free, max_term): &&(Balance, u64, u32)| {
        *price <= terms.max_price && *free >= bytes && *max_term >= terms.term
    };
    let mut prices: Vec<_> = market.offers.iter().filter(fits).map(|(price, ..)| *price).collect();
    prices.sort_unstable();
    prices
}

/// Seconds until a loss of a part of a hoster's only contract is met with a chance of [`MET`], the last deadline
/// included.
fn found_within(lost: f64, params: &Params) -> u64 {
    let unmet = (1.0 - lost).powi(DRAWS as i32);
    let periods = if unmet <= 1.0 - MET { 1.0 } else { ((1.0 - MET).ln() / unmet.ln()).ceil() };
    let blocks = periods as u64 * u64::from(params.period) + u64::from(params.deadline);
    blocks * u64::from(params.block_millis) / 1000
}

/// A request of this size as the ledger would get it: its fee depends on its length.
fn example(bytes: u64, terms: &Terms) -> Result<(Call, u64), String> {
    let bytes = bytes.max(1);
    let length = bytes.div_ceil(crate::work::BLOCK_BYTES as u64);
    let mut left = bytes;
    let roots = (0..length.count_ones())
        .map(|at| {
            let size = if at + 1 == length.count_ones() { left } else { 1 };
            left -= size;
            Root { hash: [0; 32], size }
        })
        .collect();
    let manifest = Manifest::V1 { namespace: DEFAULT_NAMESPACE, signer: [0; 32] };
    let head = SignedHead { fork: 0, length, roots, manifest, signature: [0; 64] };
    let source = Source { noise_key: [0; 32], address: Address::V4([0; 4], 0) };
    let feeds = vec![Feed { key: [0; 32], head, root: [0; 32] }];
    let call = Call::Request {
        feeds: feeds.try_into().map_err(|_| "too many feeds")?,
        terms: *terms,
        sources: vec![source].try_into().map_err(|_| "too many sources")?,
    };
    Ok((call, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detection_follows_from_the_draws() {
        let params = Params::dev();
        // (1 - 0.1)^16 is 0.185 a period, so three periods make it less than 0.01.
        assert_eq!(found_within(0.1, &params), 35);
        assert_eq!(found_within(1.0, &params), 15);
    }

    #[test]
    fn a_term_that_is_too_short_is_refused_in_seconds() {
        assert_eq!(long_enough(20, &Params::dev()), Ok(()));
        let why = long_enough(19, &Params::dev()).unwrap_err();
        assert!(why.contains("two periods, 20 s"), "{why}");
        let why = long_enough(19, &Params::production()).unwrap_err();
        assert!(why.contains("172800 s"), "{why}");
    }

    #[test]
    fn what_is_advised_can_help() {
        assert_eq!(too_few(3, 5, 3), None);
        assert!(too_few(3, 3, 16).unwrap().ends_with("ask for fewer replicas, or wait for more hosters"));
        assert!(too_few(2, 3, 3).unwrap().contains("a higher price"));
    }

    #[test]
    fn the_price_is_twice_the_middle_of_the_offers_unless_one_is_named() {
        let offers = vec![(1, 10, 10), (5, 10, 10), (100, 10, 10)];
        let market = MarketView { at: 1, params: Params::dev(), offers };
        let wanted = Wanted { replicas: 1, term: 10, max_price: None };
        assert_eq!(highest(&wanted, &market), Ok(10));
        assert_eq!(highest(&Wanted { max_price: Some(Amount(7)), ..wanted }, &market), Ok(7));
        assert!(highest(&wanted, &MarketView { offers: vec![], ..market }).is_err());
    }

    #[test]
    fn an_example_has_the_size_that_is_asked_for() {
        let terms = Terms { replicas: 1, term: 100, max_price: 1 };
        for bytes in [0, 1, 65_536, 1 << 30] {
            let (Call::Request { feeds, terms, .. }, bytes) = example(bytes, &terms).unwrap() else { panic!() };
            let segments = terms.check(&feeds, &Params::dev()).unwrap();
            assert_eq!(segments[0].bytes, bytes);
        }
    }
}
