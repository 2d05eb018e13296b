//! What is asked of a remote, and what becomes of its answers.

use super::{Came, Channel, Fault, Peer};
use crate::{
    blocks::Blocks,
    feed::{Feed, FeedError, Info, Located, Refused},
    messages::{Data, DataBlock},
    plan::{Asker, Plan, overlap},
    plans::Stopped,
    prove::{self, cover},
    session::{Asked, Question, Session, above},
};
use bytes::Bytes;
use datdot_proof::{
    flat,
    tree::{Node, Roots},
};
use datdot_wire::mux::ChannelId;
use std::{ops::Range, sync::Arc};

/// Bytes of blocks that wait for one before them, with what came along: nodes as they are in memory, and the rest.
const MAX_EARLY: usize = 1 << 20;
const NODE: usize = size_of::<Node>();
const ANSWER: usize = 256;

impl Peer {
    /// Asks the remote for what is wanted and it has, up to the window.
    pub(super) fn ask(&mut self, id: ChannelId) {
        self.follow_known(id);
        let share = (super::MAX_ASKED / self.busy.max(1)).max(1);
        let Some(Channel { feed, session: Some(session), pace, hopes, history, .. }) = self.channels.get_mut(&id)
        else {
            return;
        };
        let Info { length, bytes, .. } = feed.info();
        let (peer, now) = (self.setup.id, self.now);
        let window = pace.window(bytes.checked_div(length).unwrap_or(0), self.setup.window).min(share);
        let mut messages = Vec::new();
        messages.extend(history.ask(now, feed, session));
        let mut blocks = Vec::new();
        let (mut heard, mut found) = (false, false);
        self.setup.plans.with(&feed.key(), |plan| {
            // With the plan, so that what holds when somebody begins to wait for it counts.
            let newer = session.serves() && session.can_upgrade(now) && feed.conflict().is_none();
            heard = plan.hear(peer, session.remote().is_some() && !history.is_open(now, feed, session) && !newer);
            if !session.serves() || history.is_doubted(feed) {
                return;
            }
            plan.joined(peer, session.offers_all());
            let theirs = session.remote().map_or(0, |sync| sync.length);
            if session.can_upgrade(now) && feed.conflict().is_none() && plan.ask_head(now, peer, length, theirs) {
                messages.extend(session.ask_upgrade(now));
            }
            // Blocks that came may have brought it: then no answer will.
            found = plan.drop_seeks(|byte| !matches!(feed.locate(byte, 0), Ok(Located::Under { .. })));
            // Where bytes are that the remote can't be asked about: it is not known to have a block there.
            let mut places = Vec::new();
            while let Some((byte, (index, nodes))) = plan.ask_seek(now, peer, |byte| match feed.locate(byte, 0) {
                Ok(Located::Under { node, .. }) => {
                    let blocks = flat::first_block(node)..flat::end_block(node);
                    let block = session.next_offer(blocks.clone());
                    places.extend(block.is_none().then_some(blocks));
                    Some((flat::leaf(block?), u64::from(flat::depth(node))))
                }
                _ => None,
            }) {
                messages.push(session.ask_seek(byte, index, nodes));
            }
            feed.with_blocks(|have| {
                let offer = |range| session.next_news(range, have);
                while session.in_flight() + blocks.len() < window {
                    self.dice = self.dice.wrapping_add(1);
                    let asker = Asker { peer, now, takes: pace.takes(blocks.len()), dice: self.dice };
                    let Some(block) = plan.ask_block(&asker, length, have, offer) else { break };
                    blocks.push((block, u64::from(plan.is_urgent(block))));
                }
                let more = session.in_flight() + blocks.len() < window;
                let end = length.min(theirs);
                if let Some((block, urgent)) = untold(session, plan, &places, end, have, more) {
                    let needed = |region: Range<u64>| {
                        let region = overlap(&region, &(0..end));
                        let place = places.iter().any(|place| !overlap(place, &region).is_empty());
                        place || plan.first(urgent, &region, |blocks| have.first_missing(blocks)).is_some()
                    };
                    messages.extend(session.want_around(now, block, needed));
                }
            });
        });
        if heard {
            self.setup.plans.heads.send_modify(|count| *count += 1);
        }
        if found {
            self.setup.plans.seeks.send_modify(|count| *count += 1);
        }
        let mut top = None;
        for (block, priority) in blocks {
            let leaf = flat::leaf(block);
            // Answers come in the order of the questions. With the block before come all nodes beside its way to the root: this
            // one's way meets it in the tree that begins with this one.
            if priority == 0 && block.checked_sub(1).is_some_and(|before| session.has_asked(before)) {
                let nodes = cover(block, length).next().map_or(0, flat::depth);
                hopes.insert(block);
                pace.asked(now, block);
                messages.push(session.ask_block(block, nodes.into(), priority));
                continue;
            }
            hopes.remove(&block);
            // Nodes are stored in pairs: all blocks below the one that was found know no nearer one.
            let near = top.filter(|top| flat::is_under(leaf, *top));
            match near.map_or_else(|| feed.steps_to_known(block), |top| Ok(flat::depth(top).into())) {
                Ok(nodes) => {
                    top = Some(above(leaf, nodes));
                    pace.asked(now, block);
                    messages.push(session.ask_block(block, nodes, priority));
                }
                Err(error) => {
                    tracing::warn!(target: "hypercore", %error, "the tree can't be read");
                    self.setup.plans.with(&feed.key(), |plan| plan.released(peer, block));
                    self.setup.plans.stop(&feed.key(), Stopped::Feed(Arc::new(error)));
                }
            }
        }
        messages.iter().for_each(|message| self.say(id, message));
    }

    /// Takes questions back whose answer came from elsewhere, or that nobody wants answered any more.
    pub(super) fn take_back(&mut self, id: ChannelId) {
        let peer = self.setup.id;
        let Some(Channel { feed, session: Some(session), .. }) = self.channels.get(&id) else { return };
        let asked: Vec<u64> = session.asked_blocks().collect();
        if asked.is_empty() {
            return;
        }
        let needless = self
            .setup
            .plans
            .with(&feed.key(), |plan| asked.iter().copied().filter(|block| !plan.expects(peer, *block)).collect());
        self.cancel(id, needless.unwrap_or(asked));
    }

    /// Takes all questions back.
    pub(super) fn take_all_back(&mut self, id: ChannelId) {
        let peer = self.setup.id;
        let Some(Channel { feed, session: Some(session), .. }) = self.channels.get(&id) else { return };
        let asked: Vec<u64> = session.asked_blocks().collect();
        self.setup.plans.with(&feed.key(), |plan| {
            asked.iter().for_each(|block| plan.released(peer, *block));
            plan.forgive(peer);
        });
        self.cancel(id, asked);
    }

    fn cancel(&mut self, id: ChannelId, blocks: Vec<u64>) {
        for block in blocks {
            let Some(Channel { session: Some(session), pace, hopes, .. }) = self.channels.get_mut(&id) else { return };
            pace.failed(block);
            hopes.remove(&block);
            let message = session.cancel(block);
            message.into_iter().for_each(|message| self.say(id, &message));
        }
    }

    /// The remote does not have what we asked for.
    pub(super) fn refused(&mut self, id: ChannelId, asked: Asked) {
        let Some(Channel { feed, pace, hopes, .. }) = self.channels.get_mut(&id) else { return };
        let feed = feed.clone();
        match asked {
            Asked::Block(block) => {
                pace.failed(block);
                hopes.remove(&block);
            }
            Asked::Whole | Asked::Hash(_) => self.give_up(id),
            Asked::Upgrade(_) | Asked::Seek { .. } => {}
        }
        self.settle(&feed, asked, false);
    }

    /// Verifies the blocks that came, several at once, and stores them.
    pub(super) fn check_blocks(&mut self) -> Result<(), Fault> {
        let mut came: Vec<(Came, bool)> = self.early.drain(..).map(|came| (came, true)).collect();
        came.extend(self.came.drain(..).map(|came| (came, false)));
        came.sort_by_key(|(came, _)| (came.id, came.block));
        let (mut ready, mut early) = (Vec::new(), 0);
        for (mut came, kept) in came {
            let Some(Channel { session: Some(session), hopes, .. }) = self.channels.get(&came.id) else { continue };
            let waits = |before| {
                let last = self.early.last().is_some_and(|last| last.id == came.id && last.block == before);
                hopes.contains(&came.block) && (last || session.has_asked(before))
            };
            let before = came.block.checked_sub(1).is_some_and(waits);
            match block_alone(&mut came.data).filter(|_| before) {
                Some(block) if early + held(block) <= MAX_EARLY => {
                    early += held(block);
                    if !kept {
                        // Not with the whole frame in which it came.
                        block.value = Bytes::copy_from_slice(&block.value);
                    }
                    self.early.push(came);
                }
                _ => ready.push(came),
            }
        }
        for group in ready.chunk_by(|one, next| one.id == next.id) {
            let id = group[0].id;
            let Some(Channel { feed, pace, hopes, .. }) = self.channels.get_mut(&id) else { continue };
            let feed = feed.clone();
            group.iter().for_each(|came| pace.arrived(self.now, came.block));
            let hoped: Vec<bool> = group.iter().map(|came| hopes.remove(&came.block)).collect();
            let fits = |Came { block, question, data, .. }: &Came| {
                let asked = data.block.as_ref().is_some_and(|came| came.index == *block);
                asked && data.upgrade.is_none() && data.fork == question.fork
            };
            let blocks: Vec<&Data> = group.iter().filter(|came| fits(came)).map(|came| &*came.data).collect();
            let mut results = feed.accept_blocks(&blocks).into_iter();
            for (came, hoped) in group.iter().zip(hoped) {
                let fits = fits(came);
                match if fits { results.next() } else { None }.unwrap_or(Err(Refused::NotAsked)) {
                    // The block before did not come: it is no fault to have been asked for too little.
                    Err(Refused::TooShort) if fits && hoped => self.release(&feed, came.question.asked),
                    result => self.conclude(id, &feed, &came.data, came.question, fits, result)?,
                }
            }
        }
        Ok(())
    }

    /// Verifies another answer and stores it.
    pub(super) fn check(&mut self, id: ChannelId, data: &Data, question: Question) -> Result<(), Fault> {
        let Some(Channel { feed, .. }) = self.channels.get_mut(&id) else { return Ok(()) };
        let (feed, asked) = (feed.clone(), question.asked);
        let fits = match asked {
            // With nothing beside it: we never ask for more at once.
            Asked::Upgrade(start) => {
                let alone = data.block.is_none() && data.hash.is_none() && data.seek.is_none();
                alone && data.upgrade.as_ref().is_some_and(|upgrade| upgrade.start == start)
            }
            Asked::Whole | Asked::Hash(_) => return self.look_into(id, &feed, data, question),
            Asked::Seek { index, .. } => {
                let hash = data.hash.as_ref().is_some_and(|hash| hash.index == index);
                hash && data.upgrade.is_none() && data.block.is_none()
            }
            Asked::Block(_) => false,
        };
        let fits = fits && data.fork == question.fork;
        let result = if fits { feed.accept(data) } else { Err(Refused::NotAsked) };
        self.conclude(id, &feed, data, question, fits, result)?;
        if matches!(asked, Asked::Upgrade(_)) {
            self.tell(id);
        }
        Ok(())
    }

    /// Draws the conclusions from what came of an answer, which `fits` its question or not.
    fn conclude(
        &mut self,
        id: ChannelId,
        feed: &Feed,
        data: &Data,
        question: Question,
        fits: bool,
        result: Result<(), Refused>,
    ) -> Result<(), Fault> {
        let Some(Channel { moves, session, .. }) = self.channels.get_mut(&id) else { return Ok(()) };
        let (key, asked) = (feed.key(), question.asked);
        match result {
            Ok(()) => {
                moves.proven(data.fork);
                // Who proves less of a head than it told of gives way to others.
                let told = session.as_ref().map_or(0, Session::asked_length);
                let less = matches!(asked, Asked::Upgrade(_)) && feed.info().length < told;
                self.settle(feed, asked, !less);
            }
            // It is as long as we asked for. What it leads to turned out to be false meanwhile, and was forgotten.
            Err(Refused::TooShort) if leads_to(data, question.top) => self.release(feed, asked),
            Err(refused) if refused.is_peers_fault() && !moves.excuse(question.id) => {
                // What contradicts our history may be the authors' doing.
                let doubtful = matches!(asked, Asked::Upgrade(1..) | Asked::Block(_));
                if !doubtful || !fits || data.fork != feed.info().fork {
                    return Err(Fault::False { feed: key, refused });
                }
                self.settle(feed, asked, false);
                self.doubt(id, refused)?;
            }
            Err(refused) => {
                tracing::debug!(target: "hypercore", feed = %key, %refused, "answer not used");
                self.release(feed, asked);
                match refused {
                    // Somebody's lie was forgotten meanwhile, and what was built on it: the next question asks for more.
                    Refused::Feed(FeedError::Damaged { .. }) => {}
                    Refused::Feed(FeedError::Removed) => self.setup.plans.stop(&key, Stopped::Replaced),
                    Refused::Feed(error) => self.setup.plans.stop(&key, Stopped::Feed(Arc::new(error))),
                    Refused::Unsupported(error) => self.setup.plans.stop(&key, Stopped::Unsupported(error)),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn settle(&self, feed: &Feed, asked: Asked, well: bool) {
        let (peer, now) = (self.setup.id, self.now);
        self.setup.plans.with(&feed.key(), |plan| match (asked, well) {
            (Asked::Block(block), true) => plan.arrived(block),
            (Asked::Block(block), false) => plan.failed(now, peer, block),
            (Asked::Upgrade(_), _) => plan.head_settled(peer, well),
            (Asked::Whole | Asked::Hash(_), _) => {}
            (Asked::Seek { byte, .. }, _) => {
                plan.seek_settled(peer, byte, well);
                self.setup.plans.seeks.send_modify(|count| *count += 1);
            }
        });
    }

    /// The answer is of no use, for which nobody is to blame.
    fn release(&self, feed: &Feed, asked: Asked) {
        match asked {
            Asked::Block(block) => {
                self.setup.plans.with(&feed.key(), |plan| plan.released(self.setup.id, block));
            }
            _ => self.settle(feed, asked, true),
        }
    }
}

/// A block of a head of `length` around which to ask what the remote has: beyond its first gap it tells nothing else. Whether a
/// reader waits for it; what nobody waits for counts if `more` can be asked for. Of all such blocks the first one behind the last
/// question comes first, so that each has its turn.
fn untold(
    session: &Session,
    plan: &Plan,
    places: &[Range<u64>],
    length: u64,
    have: &Blocks,
    more: bool,
) -> Option<(u64, bool)> {
    let gap = session.first_gap().min(length);
    let last = session.last_region().clamp(gap, length);
    let ranges = [last..length, gap..last];
    let find = |blocks| session.untold(blocks, have);
    let place = |range: &Range<u64>| places.iter().find_map(|place| find(overlap(place, range)));
    let wanted = |urgent| ranges.iter().find_map(move |range| plan.first(urgent, range, find));
    let urgent = ranges.iter().find_map(place).or_else(|| wanted(true)).map(|block| (block, true));
    urgent.or_else(|| more.then(|| wanted(false)).flatten().map(|block| (block, false)))
}

/// The block of an answer with nothing else: what is kept of another one would keep its whole frame.
fn block_alone(data: &mut Data) -> Option<&mut DataBlock> {
    let Data { block, hash: None, seek: None, upgrade: None, manifest: None, .. } = data else { return None };
    block.as_mut()
}

/// Bytes of memory that an answer with this block takes, about.
fn held(block: &DataBlock) -> usize {
    block.value.len() + NODE * block.nodes.capacity() + ANSWER
}

/// Whether an answer, if it is true, shows something about the node `top`.
fn leads_to(data: &Data, top: Option<u64>) -> bool {
    let shown = prove::check(data, &Roots::new()).ok().and_then(|checked| checked.top);
    shown.is_some_and(|shown| Some(shown.index) == top)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_the_block_before_keeps_no_frame_and_counts_with_its_nodes() {
        let (value, node) = (Bytes::from_static(b"block"), Node { index: 2, size: 5, hash: [7; 32] });
        let block = DataBlock { index: 0, value, nodes: vec![node; 100] };
        assert!(held(&block) > 5 + 100 * 48);
        let mut data = Data { block: Some(block), ..Data::default() };
        assert!(block_alone(&mut data).is_some());
        // Slices of the frame.
        let mut with_manifest = Data { manifest: Some(Bytes::from_static(b"manifest")), ..data.clone() };
        let mut with_head = Data { upgrade: Some(Default::default()), ..data };
        assert!(block_alone(&mut with_manifest).is_none() && block_alone(&mut with_head).is_none());
    }
}
