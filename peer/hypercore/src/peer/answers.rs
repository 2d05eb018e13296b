//! Answers to the remote's requests, several at a time.

use super::{Channel, Fault, Peer};
use crate::{
    feed::{Draft, Feed, FeedError},
    messages::{Data, Message, Refusal, Request},
    prove::ProveError,
};
use datdot_wire::mux::ChannelId;

impl Peer {
    /// Checks answers and says them.
    pub(super) fn say_answers(&mut self, answers: Answers) -> Result<(), Fault> {
        for (id, messages, valid) in answers.checked() {
            if !valid && let Some(Channel { session: Some(session), .. }) = self.channels.get_mut(&id) {
                session.invalid_request()?;
            }
            messages.iter().for_each(|message| self.say(id, message));
        }
        Ok(())
    }
}

/// Blocks of so many bytes are checked together: at 64 KiB as many as a processor has lanes.
const TOGETHER: usize = 256 << 10;

/// Answers that are said once their blocks are checked.
#[derive(Default)]
pub(super) struct Answers {
    /// The requests. Those without an error have a draft.
    asked: Vec<(ChannelId, Feed, Request, Option<ProveError<FeedError>>)>,
    drafts: Vec<Draft>,
    pub bytes: usize,
}

impl Answers {
    pub fn add(&mut self, id: ChannelId, feed: &Feed, request: Request) {
        let error = match feed.draft(&request) {
            Ok(draft) => {
                self.bytes += draft.bytes();
                self.drafts.push(draft);
                None
            }
            Err(error) => Some(error),
        };
        self.asked.push((id, feed.clone(), request, error));
    }

    /// Whether they are enough to be checked together.
    pub fn are_many(&self) -> bool {
        self.bytes >= TOGETHER
    }

    /// What to say on which channel, in the order of the requests, and whether these made sense.
    fn checked(self) -> impl Iterator<Item = (ChannelId, Vec<Message>, bool)> {
        let mut checked = Draft::check(self.drafts).into_iter();
        self.asked.into_iter().map(move |(id, feed, request, error)| {
            let answer = match error {
                Some(error) => Err(error),
                // One that is damaged is read once more, alone, and withdrawn.
                None => checked.next().flatten().map_or_else(|| feed.answer(&request), Ok),
            };
            let (messages, valid) = said(&feed, &request, answer);
            (id, messages, valid)
        })
    }
}

/// What to say to a request, and whether the request made sense.
///
/// JavaScript stops asking a peer that refused 32 requests with a reason. Without one it takes a refusal for what it is, and
/// does not ask again for what it has heard to be gone.
fn said(feed: &Feed, request: &Request, answer: Result<Data, ProveError<FeedError>>) -> (Vec<Message>, bool) {
    let refuse = |reason| Message::NoData { id: request.id, reason };
    match answer {
        Ok(data) => (vec![Message::Data(Box::new(data))], true),
        Err(ProveError::Invalid { .. }) => (vec![refuse(Some(Refusal::Invalid))], false),
        Err(error) => {
            tracing::debug!(target: "hypercore", feed = %feed.key(), %error, "request refused");
            let lacking = match (&error, request.block) {
                (ProveError::Read(FeedError::NotHere { block } | FeedError::Damaged { block }), _) => Some(*block),
                (ProveError::Missing { .. }, Some(block)) => Some(block.index),
                _ => None,
            };
            let messages = match (error, lacking) {
                // It asks for another fork, and hears of ours first.
                (ProveError::Read(FeedError::NoHead), _) => vec![refuse(None)],
                (_, Some(start)) => vec![Message::Range { drop: true, start, length: 1 }, refuse(None)],
                _ => vec![refuse(Some(Refusal::NotAvailable))],
            };
            (messages, true)
        }
    }
}
