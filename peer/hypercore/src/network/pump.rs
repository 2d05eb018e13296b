//! The task of one connection: it moves bytes, and lets the peer take steps on a blocking thread.

use super::{Ended, TICK, clock, steps::Steps, taking::Taking, unsent::Part};
use crate::{
    feed::{Change, Changed},
    key::FeedKey,
    limit::Valve,
    peer::{Fault, Peer, ROUND, Rest},
};
use bytes::Bytes;
use datdot_wire::{
    connection::{ConnectionError, FrameReader, FrameWriter},
    mux::Frame,
};
use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{
        Notify, broadcast,
        broadcast::error::{RecvError, TryRecvError},
    },
    task::{JoinHandle, spawn_blocking},
    time::{interval, sleep_until},
};

/// With so much unsent nothing more is served; requests wait, but reading goes on until they are more than one of ours would send:
/// two peers that both waited for the other to read would wait for ever.
const MAX_ANSWERS: usize = 1 << 20;
/// Bytes that are encrypted before they are written: while they are in a cache, and the remote has something to do.
const AT_ONCE: usize = 128 << 10;
/// A block and what else is said unasked never come to so much: who makes us say more without reading it is dropped.
const MAX_UNSENT: usize = 32 << 20;
/// Messages taken into one round.
const MAX_FRAMES: usize = 512;
/// With so much unsent, more than answers bring about, it is not told what blocks come.
const UNTOLD: usize = 2 * MAX_ANSWERS;
/// Then all that it wants to hear about is told anew, no more often than this: a bitfield is as much as many blocks.
const AGAIN: Duration = Duration::from_secs(1);
/// Changes of feeds are told to a remote together: of so much time, if nothing else is to be said.
const GATHER: Duration = Duration::from_millis(20);

/// What the task of a connection holds.
pub(super) struct Pump<R, W> {
    pub reader: FrameReader<R>,
    pub writer: FrameWriter<W>,
    pub changes: broadcast::Receiver<Change>,
    pub wake: broadcast::Receiver<FeedKey>,
    pub upload: Valve,
    pub download: Valve,
    pub steps: Steps,
    pub unsent: Arc<Part>,
}

/// What happened since the last step.
#[derive(Default)]
struct News {
    frames: Vec<Bytes>,
    bytes: usize,
    changes: Vec<Change>,
    missed: bool,
    wanted: BTreeSet<FeedKey>,
    /// Of any feed something else may be wanted.
    any_wanted: bool,
    tick: bool,
}

/// Texts that wait to be encrypted.
#[derive(Default)]
struct Output {
    texts: VecDeque<Frame>,
    bytes: usize,
}

struct Step {
    peer: Peer,
    output: Vec<Frame>,
    /// Bytes of it that answer nothing.
    unasked: usize,
    requests_left: bool,
    rest: Rest,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Pump<R, W> {
    /// Goes on until the connection ends, or is to be stopped; says why it did.
    pub async fn run(mut self, peer: Peer, stop: &Notify) -> Ended {
        let (mut idle, mut working, mut output) = (Some(peer), None, Output::default());
        let ended = tokio::select! {
            ended = self.go_on(&mut idle, &mut working, &mut output) => ended,
            () = stop.notified() => Ended::ByUs,
        };
        self.upload.never_passed(self.writer.queued() + output.bytes);
        // A step under way can't be stopped, and holds the feeds.
        if let Some(step) = working {
            idle = step.await.ok().and_then(Result::ok).map(|step| step.peer);
        }
        // It leaves the plans, which those who take steps hold.
        _ = spawn_blocking(|| drop(idle)).await;
        ended
    }

    async fn go_on(
        &mut self,
        idle: &mut Option<Peer>,
        working: &mut Option<JoinHandle<Result<Step, Fault>>>,
        output: &mut Output,
    ) -> Ended {
        let mut tick = interval(TICK);
        let mut news = News { tick: true, ..News::default() };
        let (mut requests_left, mut said, mut taking) = (false, 0, Taking::new(clock()));
        // Whether a frame came since the last tick, or could not.
        let mut heard = true;
        let (mut stepped, mut untold, mut rest) = (clock(), Untold::default(), Rest::None);
        loop {
            while self.writer.queued() < AT_ONCE
                && let Some(text) = output.next()
            {
                let before = self.writer.queued();
                if let Err(error) = self.writer.queue_frame(&text) {
                    return Ended::Connection(error.into());
                }
                said += (self.writer.queued() - before) as u64;
            }
            let queued = self.writer.queued() + output.bytes;
            if working.is_none() {
                self.unsent.set(queued);
            }
            let now = clock();
            news.missed |= untold.is_due(now, queued);
            // A step is due when something happened, or when there is room for more answers.
            let gathered = !news.changes.is_empty() && now >= stepped + GATHER;
            // When the limits allow to read more, and to serve. Who has nothing to serve takes no turn from others.
            let read_at = self.download.opens(now);
            let limited = self.upload.is_limited();
            let serve_at = if limited && requests_left { self.upload.turn(now) } else { now };
            let open = !limited || requests_left && serve_at <= now;
            // A few answers cost almost as much as many.
            let open = open && (limited || queued <= MAX_ANSWERS / 2) && !self.unsent.is_full();
            let room = if open { self.upload.room(MAX_ANSWERS).saturating_sub(queued) } else { 0 };
            let due = rest == Rest::Some || news.is_urgent() || gathered || requests_left && room > 0;
            // Otherwise each block of anybody would wake every connection.
            let listening = news.changes.is_empty() && now >= stepped + GATHER;
            if due && idle.is_some() {
                self.gather(&mut news, queued, &mut untold);
            }
            if let Some(peer) = idle.take_if(|_| due) {
                let (news, unsent) = (std::mem::take(&mut news), self.unsent.clone());
                stepped = now;
                *working = Some(self.steps.run(move || step(peer, now, news, room, &unsent)));
            }
            // A large frame is read to its end though nothing more is taken: others wait for its share.
            let takes = rest == Rest::None || self.reader.has_share();
            let reading = takes && news.bytes < ROUND && news.frames.len() < MAX_FRAMES;
            if !reading || read_at > now {
                self.reader.leave_queue();
            }
            let send = async {
                match self.writer.queued() {
                    0 => self.writer.keep_alive().await,
                    _ => self.writer.flush().await.map_err(ConnectionError::from),
                }
            };
            tokio::select! {
                done = async { working.as_mut().expect("checked by the branch's condition").await }, if working.is_some() => {
                    *working = None;
                    let step = match done {
                        Ok(Ok(step)) => step,
                        Ok(Err(fault)) => return fault.into(),
                        // A panic is a bug of ours; this connection goes, the process stays.
                        Err(error) => {
                            tracing::error!(target: "hypercore", %error, "a connection's step failed");
                            return Ended::ByUs;
                        }
                    };
                    self.upload.passed_unasked(step.unasked);
                    self.upload.passed(output.add(step.output).saturating_sub(step.unasked));
                    if self.writer.queued() + output.bytes > MAX_UNSENT {
                        return Ended::Stalled;
                    }
                    (requests_left, rest) = (step.requests_left, step.rest);
                    if !requests_left {
                        self.upload.done(clock());
                    }
                    *idle = Some(step.peer);
                }
                frame = self.reader.next_counted(), if reading && read_at <= now => match frame {
                    Ok(Some((frame, bytes))) => {
                        self.download.came(clock(), bytes);
                        heard = true;
                        news.bytes += bytes;
                        if !frame.is_empty() {
                            news.frames.push(frame);
                        }
                    }
                    Ok(None) => return Ended::Closed,
                    Err(error) => return error.into(),
                },
                sent = send => if let Err(error) = sent {
                    return error.into();
                },
                change = self.changes.recv(), if listening => match change {
                    Ok(change) => news.change(change, queued, &mut untold),
                    Err(RecvError::Lagged(_)) => news.missed = true,
                    Err(RecvError::Closed) => return Ended::ByUs,
                },
                () = sleep_until((stepped + GATHER).into()), if idle.is_some() && now < stepped + GATHER => {}
                () = sleep_until(read_at.into()), if reading && read_at > now => {}
                () = sleep_until(serve_at.into()), if idle.is_some() && requests_left && serve_at > now => {}
                wanted = self.wake.recv() => match wanted {
                    Ok(feed) => _ = news.wanted.insert(feed),
                    Err(RecvError::Lagged(_)) => news.any_wanted = true,
                    Err(RecvError::Closed) => return Ended::ByUs,
                },
                _ = tick.tick() => {
                    news.tick = true;
                    heard |= !reading || read_at > now;
                    if !std::mem::take(&mut heard) {
                        self.download.quiet(clock());
                    }
                    let queued = self.writer.queued();
                    // What keeps the connection alive is queued, too, and was not said by us.
                    let (taken, unsent) = (said.saturating_sub(queued as u64), queued + output.bytes);
                    if taking.is_stalled(clock(), taken, unsent, self.unsent.is_full()) {
                        return Ended::Stalled;
                    }
                }
            }
        }
    }

    /// Takes all changes that there are.
    fn gather(&mut self, news: &mut News, queued: usize, untold: &mut Untold) {
        loop {
            match self.changes.try_recv() {
                Ok(change) => news.change(change, queued, untold),
                Err(TryRecvError::Lagged(_)) => news.missed = true,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }
}

impl Output {
    /// Returns the bytes that it takes.
    fn add(&mut self, texts: Vec<Frame>) -> usize {
        let bytes = texts.iter().map(Frame::len).sum();
        self.bytes += bytes;
        self.texts.extend(texts);
        bytes
    }

    fn next(&mut self) -> Option<Frame> {
        let text = self.texts.pop_front()?;
        self.bytes -= text.len();
        Some(text)
    }
}

/// Whether blocks came that a remote was not told of, since it has too much to read.
#[derive(Debug, Default)]
struct Untold {
    any: bool,
    /// When it was told anew.
    told: Option<Instant>,
}

impl Untold {
    /// Whether all is to be told anew now; if so, that is noted.
    fn is_due(&mut self, now: Instant, queued: usize) -> bool {
        let due = self.any && queued < MAX_ANSWERS && self.told.is_none_or(|told| now >= told + AGAIN);
        if due {
            *self = Untold { any: false, told: Some(now) };
        }
        due
    }
}

impl News {
    /// Notes a change. What is gained is told all at once when there is room for it.
    fn change(&mut self, change: Change, queued: usize, untold: &mut Untold) {
        match change.what {
            Changed::Gained(_) if queued >= UNTOLD => untold.any = true,
            _ => self.changes.push(change),
        }
    }

    /// Whether it can't wait for more changes.
    fn is_urgent(&self) -> bool {
        let busy = self.changes.len() >= MAX_FRAMES;
        busy || !self.frames.is_empty() || self.missed || self.tick || self.any_wanted || !self.wanted.is_empty()
    }
}

fn step(mut peer: Peer, now: Instant, news: News, room: usize, unsent: &Part) -> Result<Step, Fault> {
    // What went is closed before what is wanted is opened: a feed may have been removed and made anew.
    if news.missed || !news.changes.is_empty() {
        peer.changed(now, &news.changes, news.missed);
    }
    if news.tick {
        peer.tick(now);
    }
    match news.any_wanted || news.missed {
        true => peer.any_wanted(now),
        false => peer.wanted(now, &news.wanted),
    }
    peer.receive(now, news.frames)?;
    let unasked = peer.output_len();
    // It may have waited for its turn.
    let serves = room > 0 && !unsent.is_full();
    let requests_left = if serves { peer.serve(now, room)? } else { peer.has_requests() };
    let output = peer.take_output();
    unsent.add(output.iter().map(Frame::len).sum());
    Ok(Step { output, unasked, rest: peer.rest(), peer, requests_left })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{key::Keypair, network::Unsent, peer::Setup, plan::Want, plans::Plans, store::Store};
    use datdot_wire::mux::{Event, Mux};

    #[test]
    fn a_feed_that_was_removed_and_made_anew_is_opened_anew_in_one_step() {
        let (dir, now) = (tempfile::tempdir().expect("a folder"), Instant::now());
        let store = Store::open(dir.path()).expect("the folder is free");
        let plans = Arc::<Plans>::default();
        let (setup_store, setup_plans, memory) = (store.clone(), plans.clone(), Default::default());
        let setup = Setup {
            id: 1,
            initiator: true,
            handshake: [5; 64],
            store: setup_store,
            plans: setup_plans,
            window: 8,
            memory,
        };
        let (mut peer, mut changes, mut remote) = (Peer::new(now, setup), store.changes(), Mux::new());
        let pair = Keypair::from_seed([1; 32]);
        let key = pair.feed_key(&pair.manifest());
        for missed in [false, true, false] {
            _ = store.remove(&key);
            store.open_remote(key, None).expect("room");
            plans.want(key, Want::all(), 1, false);
            let changes: Vec<_> = std::iter::from_fn(|| changes.try_recv().ok()).filter(|_| !missed).collect();
            let news = News { tick: true, changes, missed, wanted: [key].into(), ..News::default() };
            let done = step(peer, now, news, 0, &Unsent::default().part());
            let Ok(Step { peer: after, output, .. }) = done else { panic!("nothing was said") };
            output.into_iter().for_each(|frame| remote.receive(frame.into()));
            let events = std::iter::from_fn(|| remote.next().expect("we are honest"));
            assert_eq!(events.filter(|event| matches!(event, Event::OpenRequested { .. })).count(), 1);
            peer = after;
        }
    }

    #[test]
    fn a_slow_reader_is_told_everything_anew_once_for_much_that_it_takes_and_once_a_second() {
        let (start, mut untold, key) = (Instant::now(), Untold::default(), FeedKey([1; 32]));
        let change = Change { key, discovery: key.discovery(), what: Changed::Gained(0..1) };
        let mut told = 0;
        for ms in 0..10_000 {
            let mut news = News::default();
            // It is answered until there is a round, and a block.
            news.change(change.clone(), MAX_ANSWERS + (64 << 10), &mut untold);
            assert!(!untold.any && news.changes.len() == 1);
            // Others say so much that it hears of no block for a while.
            news.change(change.clone(), UNTOLD, &mut untold);
            assert!(untold.any && !untold.is_due(start, MAX_ANSWERS));
            told += u32::from(untold.is_due(start + Duration::from_millis(ms), 0));
            untold.any = false;
        }
        assert_eq!(told, 10);
    }
}
