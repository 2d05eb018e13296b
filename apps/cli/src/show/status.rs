//! A daemon's status as a page of text.

use super::{blocks, bytes, limits, millis, money, price, progress::count, short, span, thousands};
use datdot_api::{
    Status,
    status::{
        ContractState, ContractStatus, DamageStatus, FeedRole, FeedStatus, Money, OfferStatus, ProofOutcome,
        ProofStatus, RequestState, RequestStatus, Standing, SwarmStatus,
    },
};
use std::fmt::{self, Display, Formatter};

/// Proofs that the page shows; `--json` has them all.
const PROOFS: usize = 5;

/// A status, to be shown with `{}`.
pub struct Page<'a>(pub &'a Status);

impl Display for Page<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let status = self.0;
        ledger(f, status)?;
        if let Some(offer) = &status.offer {
            self.offer(f, offer)?;
        }
        self.requests(f)?;
        self.contracts(f)?;
        self.proofs(f)?;
        damage(f, &status.damage)?;
        drives(f, status)?;
        feeds(f, status)?;
        if status.offer.is_none() && status.requests.is_empty() && status.contracts.is_empty() {
            writeln!(
                f,
                "\nNothing offered and nothing requested yet. Try: datdot publish FILE (or a folder), or datdot host --space 50GB --price 0.5"
            )?;
        }
        Ok(())
    }
}

fn ledger(f: &mut Formatter<'_>, status: &Status) -> fmt::Result {
    let ledger = &status.ledger;
    writeln!(f, "account   {}", status.account)?;
    match &status.money {
        Some(of) => self::account(f, of)?,
        None => writeln!(f, "money     not known before the ledger answers")?,
    }
    let away = ledger.away_seconds.map_or(String::new(), |seconds| format!(" for {}", span(seconds)));
    match &ledger.problem {
        Some(problem) if !ledger.connected => writeln!(f, "ledger    not connected{away}: {problem}")?,
        _ if !ledger.connected => writeln!(f, "ledger    not connected{away}: {}", ledger.url)?,
        _ => writeln!(
            f,
            "ledger    {} at {}: block {}, {} finalized",
            ledger.chain,
            ledger.rpc.as_ref().unwrap_or(&ledger.url),
            thousands(ledger.best.into()),
            thousands(ledger.finalized.into()),
        )?,
    }
    match (&status.listen, status.addresses.is_empty()) {
        (Some(listen), false) => {
            writeln!(f, "peer      listens at {listen}, known as {}", status.addresses.join(", "))?
        }
        (Some(listen), true) => writeln!(f, "peer      listens at {listen}")?,
        (None, _) => writeln!(f, "peer      does not listen")?,
    }
    swarm(f, &status.swarm)?;
    let peers = status.peers.len() as u64;
    let disk = status.disk_free.map_or(String::new(), |free| format!(", {} free on its disk", bytes(free)));
    writeln!(f, "          connected to {}; state in {}{disk}", count(peers, "peer", "peers"), status.dir)?;
    limits::both(&status.limits).map_or(Ok(()), |limits| writeln!(f, "limits    {limits}"))
}

fn swarm(f: &mut Formatter<'_>, swarm: &SwarmStatus) -> fmt::Result {
    if let Some(why) = &swarm.off {
        return writeln!(f, "swarm     none: {why}");
    }
    let state = match swarm.answers {
        None => "begins".into(),
        Some(false) => "the DHT does not answer; `datdot doctor` says more".into(),
        Some(true) => format!("knows {}", count(swarm.known, "node of the DHT", "nodes of the DHT")),
    };
    let topics = count(swarm.topics, "feed", "feeds");
    writeln!(f, "swarm     {state}; {topics} to announce, {}", count(swarm.connections, "connection", "connections"))
}

fn account(f: &mut Formatter<'_>, of: &Money) -> fmt::Result {
    write!(f, "money     {} free", money(of.free))?;
    for (amount, what) in [
        (of.budgets, "in budgets of requests"),
        (of.deposits, "in deposits of requests"),
        (of.bond, "as bond"),
        (of.paid, "paid for current contracts"),
        (of.earned_unpaid, "earned and not paid yet"),
    ] {
        if amount.0 > 0 {
            write!(f, ", {} {what}", money(amount))?;
        }
    }
    writeln!(f)
}

impl Page<'_> {
    fn time(&self, number: u32) -> String {
        blocks(number, self.0.ledger.block_millis)
    }

    /// `block 812 (in 12 min)`
    fn block(&self, number: u32) -> String {
        match number.checked_sub(self.0.ledger.best) {
            Some(0) | None => format!("block {}", thousands(number.into())),
            Some(ahead) => format!("block {} (in {})", thousands(number.into()), self.time(ahead)),
        }
    }

    fn offer(&self, f: &mut Formatter<'_>, offer: &OfferStatus) -> fmt::Result {
        let standing = match offer.standing {
            Standing::Posting => "being posted",
            Standing::Open => "open",
            Standing::Away => "closed by the ledger; `datdot host` opens it again",
            Standing::Leaving => "leaving: nothing new is taken",
        };
        writeln!(f, "\nOffer: {standing}")?;
        writeln!(
            f,
            "  {} of {} reserved, at {}, for at most {}",
            bytes(offer.used),
            bytes(offer.space),
            price(offer.price),
            self.time(offer.max_term)
        )?;
        if let Some(next) = offer.next_challenge {
            writeln!(f, "  next challenge in {}", self.block(next))?;
        }
        if offer.missed > 0 {
            writeln!(f, "  {} missed in a row", count(offer.missed, "challenge", "challenges"))?;
        }
        why(f, &offer.why)
    }

    fn requests(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if !self.0.requests.is_empty() {
            writeln!(f, "\nRequests")?;
        }
        self.0.requests.iter().try_for_each(|request| self.request(f, request))
    }

    fn request(&self, f: &mut Formatter<'_>, request: &RequestStatus) -> fmt::Result {
        let id = request.id.map_or("new".into(), |id| format!("#{id}"));
        let state = match request.state {
            RequestState::Opening => "not on the ledger yet".into(),
            RequestState::Matching | RequestState::Hosted => {
                let coming =
                    if request.coming > 0 { format!(", {} on the way", request.coming) } else { String::new() };
                format!("hosted by {} of {}{coming}", request.hosted, request.replicas)
            }
            RequestState::Closing => "closing: what was earned is being paid".into(),
        };
        let file = request.file.as_ref().map_or(String::new(), |file| format!(" ({file})"));
        writeln!(f, "  {id:<5} {}{file}: {state}", bytes(request.bytes))?;
        for key in &request.feeds {
            writeln!(f, "        feed {key}")?;
        }
        let ends = request
            .ends
            .map_or(format!("for {}", self.time(request.term)), |ends| format!("until {}", self.block(ends)));
        writeln!(f, "        {ends}, at most {}, {} unspent", price(request.max_price), money(request.budget))?;
        if let Some(why) = &request.why {
            let next = request.next.map_or(String::new(), |next| format!("; tried again in {}", self.block(next)));
            writeln!(f, "        waits: {why}{next}")?;
        }
        for replica in &request.contracts {
            writeln!(
                f,
                "        contract #{} with {}: {}, {} proven, {} of {} paid",
                replica.contract,
                short(&replica.hoster),
                self.contract_state(replica.state, replica.by),
                count(replica.proven, "period", "periods"),
                money(replica.paid),
                money(replica.reserve),
            )?;
        }
        Ok(())
    }

    fn contract_state(&self, state: ContractState, by: u32) -> String {
        match state {
            ContractState::Drawn => format!("to be taken by {}", self.block(by)),
            ContractState::Fetching => format!("fetching, until {}", self.block(by)),
            ContractState::Hosting => format!("hosting until {}", self.block(by)),
            ContractState::Ending => format!("ended; settled after {}", self.block(by)),
        }
    }

    fn contracts(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if !self.0.contracts.is_empty() {
            writeln!(f, "\nContracts")?;
        }
        self.0.contracts.iter().try_for_each(|contract| self.contract(f, contract))
    }

    fn contract(&self, f: &mut Formatter<'_>, contract: &ContractStatus) -> fmt::Result {
        let state = self.contract_state(contract.state, contract.by);
        let held = if contract.held < contract.bytes {
            format!("{} of {}", bytes(contract.held), bytes(contract.bytes))
        } else {
            bytes(contract.bytes)
        };
        writeln!(f, "  #{:<4} {held}: {state}", contract.id)?;
        writeln!(f, "        data: {}", contract.data)?;
        if contract.reserve.0 > 0 {
            writeln!(
                f,
                "        {} proven, {} earned of {}, {} paid",
                count(contract.proven, "period", "periods"),
                money(contract.earned),
                money(contract.reserve),
                money(contract.paid)
            )?;
        }
        Ok(())
    }

    fn proofs(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if !self.0.proofs.is_empty() {
            writeln!(f, "\nLast proofs")?;
        }
        self.0.proofs.iter().take(PROOFS).try_for_each(|proof| self.proof(f, proof))
    }

    fn proof(&self, f: &mut Formatter<'_>, proof: &ProofStatus) -> fmt::Result {
        let outcome = match (proof.outcome, proof.block) {
            (ProofOutcome::Proven, Some(block)) => format!("on the ledger in block {}", thousands(block.into())),
            (ProofOutcome::Proven, None) => "on the ledger".into(),
            (ProofOutcome::Sending, _) => format!("on its way, due by {}", self.block(proof.by)),
            (ProofOutcome::Withheld, _) => "withheld".into(),
            (ProofOutcome::Refused, _) => "refused by the ledger".into(),
            (ProofOutcome::Missed, _) => "missed".into(),
        };
        write!(f, "  #{:<4} asked in block {}: {outcome}", proof.number, thousands(proof.asked.into()))?;
        if proof.bytes > 0 {
            write!(f, "; {}, made in {}", bytes(proof.bytes.into()), millis(proof.millis_to_make))?;
        }
        writeln!(f)?;
        why(f, &proof.why)
    }
}

fn damage(f: &mut Formatter<'_>, damage: &[DamageStatus]) -> fmt::Result {
    if !damage.is_empty() {
        writeln!(f, "\nDamage found")?;
    }
    for found in damage {
        let runs: Vec<String> = found
            .blocks
            .iter()
            .map(|(first, last)| if first == last { first.to_string() } else { format!("{first} to {last}") })
            .collect();
        writeln!(f, "  segment {} of feed {}", found.segment, found.feed)?;
        writeln!(
            f,
            "        blocks {} (bytes {} to {}), found in block {}",
            runs.join(", "),
            thousands(found.bytes.0.into()),
            thousands(found.bytes.1.into()),
            thousands(found.found.into())
        )?;
        match found.healed {
            Some(block) => writeln!(f, "        whole again since block {}", thousands(block.into()))?,
            None => writeln!(f, "        {}", found.state)?,
        }
    }
    Ok(())
}

fn drives(f: &mut Formatter<'_>, status: &Status) -> fmt::Result {
    if !status.drives.is_empty() {
        writeln!(f, "\nDrives")?;
    }
    for drive in &status.drives {
        let folder = drive.folder.as_deref().unwrap_or("sponsored here");
        let of = |key| status.feeds.iter().find(|feed| feed.key == key);
        let is_hidden = of(drive.key).is_some_and(|feed| feed.role == FeedRole::Unpublished);
        let hidden = if is_hidden { ", unpublished: nobody gets to see it" } else { "" };
        let announced = announced(of(drive.key));
        writeln!(f, "  {}  {folder}{hidden}{announced}", drive.key)?;
        let stored: u64 = [drive.key, drive.blobs].into_iter().filter_map(of).map(|feed| feed.held).sum();
        match drive.version {
            0 => writeln!(f, "        being read for the first time, {} so far", bytes(stored))?,
            version => writeln!(
                f,
                "        version {}: {} with {}; {} stored with its history",
                thousands(version.into()),
                count(drive.files, "file", "files"),
                bytes(drive.bytes),
                bytes(stored)
            )?,
        }
    }
    Ok(())
}

fn feeds(f: &mut Formatter<'_>, status: &Status) -> fmt::Result {
    let is_shown = |key| status.drives.iter().any(|drive| drive.key == key || drive.blobs == key);
    let feeds: Vec<_> = status.feeds.iter().filter(|feed| !is_shown(feed.key)).collect();
    if !feeds.is_empty() {
        writeln!(f, "\nFeeds")?;
    }
    for feed in feeds {
        let role = match feed.role {
            FeedRole::Author => "made here",
            FeedRole::Unpublished => "unpublished: nobody gets to see it",
            FeedRole::Sponsor => "sponsored here",
            FeedRole::Hoster => "hosted for others",
            FeedRole::Reader => "read here",
        };
        let held = if feed.held < feed.bytes {
            format!("{} of {}", bytes(feed.held), bytes(feed.bytes))
        } else {
            bytes(feed.bytes)
        };
        let announced = announced(Some(feed));
        writeln!(f, "  {}  {held} in {}, {role}{announced}", feed.key, count(feed.blocks, "block", "blocks"))?;
    }
    Ok(())
}

fn announced(feed: Option<&FeedStatus>) -> String {
    let ago = feed.and_then(|feed| feed.announced);
    ago.map_or(String::new(), |ago| format!(", announced {} ago", span(ago)))
}

fn why(f: &mut Formatter<'_>, why: &Option<String>) -> fmt::Result {
    why.iter().try_for_each(|why| writeln!(f, "        because {why}"))
}
