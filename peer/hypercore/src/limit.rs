//! Limits in bytes per second, shared by all who take from them, in turn.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Each turn is so small a part of a second, so that nobody waits long for his.
const TURNS: u64 = 20;
/// No turn is a smaller part of a second than this.
const SHORTEST: u64 = 500;
/// So much unused time is made up for: who is busy with something else comes late for his turn, and may take more.
const SLACK: Duration = Duration::from_millis(250);
/// What is said unasked passes anyway. The next turns pay for so many seconds of it at most, and each with so much of it that some
/// is left to answer with: or who asks would wait until we say nothing more, and longer.
const UNASKED: f64 = 1.0;
const UNASKED_OF_TEN: u64 = 9;
/// Who leaves owes others no more than so many seconds.
const LEFT: f64 = 30.0;
/// Bytes of the smallest turn.
const LEAST: u64 = 1 << 10;

/// Limits in bytes per second, that can be changed while the network runs: keep a clone.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// What is sent to all peers together.
    pub upload: Limit,
    /// What is sent to each peer, over all of its connections.
    pub upload_each: Limit,
    /// What is received from all peers together.
    pub download: Limit,
    /// What is received from each peer, over all of its connections.
    pub download_each: Limit,
}

/// What one peer has for itself of [`Limits`]: shared by its connections.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    pub upload: Limit,
    pub download: Limit,
}

impl Limits {
    pub(crate) fn own(&self) -> Own {
        Own { upload: self.upload_each.alone(), download: self.download_each.alone() }
    }
}

/// Bytes that may pass per second; clones share it. May be changed at any time.
#[derive(Clone, Debug, Default)]
pub struct Limit {
    rate: Arc<Rate>,
    paid: Arc<Mutex<Paid>>,
}

#[derive(Debug, Default)]
struct Paid {
    /// When what was granted is paid for.
    at: Option<Instant>,
    /// The [`Rate::version`] under which it was.
    version: u64,
}

#[derive(Debug, Default)]
struct Rate {
    /// 0 is no limit.
    bytes: AtomicU64,
    /// Counts up when it is changed: what was granted under another limit counts no more.
    version: AtomicU64,
}

impl Limit {
    /// Sets the limit in bytes per second, at least one, or takes it away.
    pub fn set(&self, rate: Option<u64>) {
        self.rate.bytes.store(rate.map_or(0, |rate| rate.max(1)), Ordering::Release);
        self.rate.version.fetch_add(1, Ordering::AcqRel);
    }

    /// The limit in bytes per second.
    pub fn get(&self) -> Option<u64> {
        Some(self.rate.bytes.load(Ordering::Acquire)).filter(|rate| *rate > 0)
    }

    /// The same limit for somebody else alone.
    fn alone(&self) -> Limit {
        Limit { rate: self.rate.clone(), paid: Arc::default() }
    }

    fn paid(&self) -> MutexGuard<'_, Paid> {
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let version = self.rate.version.load(Ordering::Acquire);
        if paid.version != version {
            *paid = Paid { at: None, version };
        }
        paid
    }

    /// Grants so many bytes; they may pass from the first of the two times on, and are paid for at the second.
    fn grant(&self, now: Instant, bytes: u64) -> [Instant; 2] {
        let Some(rate) = self.get() else { return [now; 2] };
        let mut paid = self.paid();
        let start = paid.at.map_or(now, |paid| paid.max(made_up(now)));
        // No turn is longer than a day, whatever the limit was meant to be.
        let end = start + Duration::from_secs_f64((bytes as f64 / rate as f64).min(86_400.0));
        paid.at = Some(end);
        [start, end]
    }

    /// Takes back what was granted and is not used.
    fn give_back(&self, bytes: u64) {
        let Some(rate) = self.get() else { return };
        let unused = Duration::from_secs_f64((bytes as f64 / rate as f64).min(86_400.0));
        let mut paid = self.paid();
        paid.at = paid.at.and_then(|at| at.checked_sub(unused));
    }

    /// The usual turn, or what others left unused.
    fn turn(&self, now: Instant) -> Option<u64> {
        let rate = self.get()?;
        let paid = self.paid().at;
        let unused = paid.map_or(Duration::ZERO, |paid| now.saturating_duration_since(paid.max(made_up(now))));
        // With a wide line a turn is a block, so that hundreds need not wait for seconds.
        let usual = (rate / TURNS).min((rate / SHORTEST).max(64 << 10));
        Some(((rate as f64 * unused.as_secs_f64()) as u64).max(usual))
    }
}

fn made_up(now: Instant) -> Instant {
    now.checked_sub(SLACK).unwrap_or(now)
}

/// The limits for one direction of a connection: that of all peers, and its peer's own.
#[derive(Debug)]
pub(crate) struct Valve {
    limits: [Limit; 2],
    version: u64,
    /// When the next bytes may pass.
    opens: Instant,
    /// Bytes that were granted and have not passed yet; below zero what has passed ungranted.
    credit: i64,
    /// Bytes that have passed unasked, and are not paid for.
    owed: u64,
    /// Bytes that the next frame will have, if it is like those before; nothing is expected of who is silent.
    expected: usize,
}

impl Valve {
    pub fn new(now: Instant, all: &Limit, own: &Limit) -> Valve {
        Valve { limits: [all.clone(), own.clone()], version: 0, opens: now, credit: 0, owed: 0, expected: 0 }
    }

    pub fn is_limited(&self) -> bool {
        self.limits.iter().any(|limit| limit.get().is_some())
    }

    /// Waits for its turn: when that comes. To be called by who has something to let pass.
    pub fn turn(&mut self, now: Instant) -> Instant {
        self.follow_changes(now);
        // One block may have been more than a turn has. The next turns pay for it, and between them others have theirs:
        // who has large blocks gets no more than who has small ones.
        while self.is_limited() && self.credit <= 0 && self.opens <= now {
            let turns = self.limits.iter().filter_map(|limit| limit.turn(now));
            let turn = turns.min().unwrap_or(0).max(LEAST);
            self.opens = self.grant(now, turn, 0);
            let paid = self.owed.min(turn * UNASKED_OF_TEN / 10);
            self.owed -= paid;
            self.credit = self.credit.saturating_add_unsigned(turn - paid);
        }
        self.opens
    }

    /// Bytes that may pass in this turn, at most `most`.
    pub fn room(&self, most: usize) -> usize {
        if self.is_limited() { usize::try_from(self.credit).unwrap_or(0).min(most) } else { most }
    }

    /// Bytes have passed, maybe more than there was room for.
    pub fn passed(&mut self, bytes: usize) {
        if self.is_limited() {
            self.credit = self.credit.saturating_sub_unsigned(bytes as u64);
        }
    }

    /// Bytes have passed that nobody asked for.
    pub fn passed_unasked(&mut self, bytes: usize) {
        self.owed = self.owed.saturating_add(bytes as u64).min(self.in_seconds(UNASKED));
    }

    /// Bytes that were said to have passed will not.
    pub fn never_passed(&mut self, bytes: usize) {
        if self.credit < 0 {
            self.credit = self.credit.saturating_add_unsigned(bytes as u64).min(0);
        }
    }

    /// Nothing is left to pass: the rest of the turn is the others'.
    pub fn done(&mut self, now: Instant) {
        self.follow_changes(now);
        let paid = self.owed.min(self.credit.max(0).unsigned_abs());
        self.owed -= paid;
        self.credit = self.credit.saturating_sub_unsigned(paid);
        if self.credit > 0 {
            self.limits.iter().for_each(|limit| limit.give_back(self.credit as u64));
            self.credit = 0;
        }
    }

    /// When more may come. Who was silent may begin at once and pays for that frame before the next; who goes on waits for the
    /// turn of each. Otherwise as many frames would come ahead of their turns as there are peers.
    pub fn opens(&mut self, now: Instant) -> Instant {
        self.follow_changes(now);
        if self.is_limited() && self.expected > 0 && self.credit == 0 && self.opens <= now {
            self.opens = self.grant(now, self.expected as u64, 0);
            self.credit = self.expected as i64;
        }
        self.opens
    }

    /// A frame came.
    pub fn came(&mut self, now: Instant, bytes: usize) {
        let unpaid = (bytes as i64).saturating_sub(std::mem::take(&mut self.credit));
        if unpaid > 0 {
            self.opens = self.grant(now, unpaid.unsigned_abs(), 1);
        } else {
            self.limits.iter().for_each(|limit| limit.give_back(unpaid.unsigned_abs()));
        }
        // A short frame among long ones is soon forgotten.
        self.expected = bytes.max(self.expected / 2);
    }

    /// Nothing came though it might have: the turn is the others'.
    pub fn quiet(&mut self, now: Instant) {
        self.done(now);
        self.expected = 0;
    }

    /// What may pass in so many seconds; nothing without a limit.
    fn in_seconds(&self, seconds: f64) -> u64 {
        let rate = self.limits.iter().filter_map(Limit::get).min().unwrap_or(0);
        (rate as f64 * seconds) as u64
    }

    /// Takes what all limits grant; the start or the end of the later turn.
    fn grant(&self, now: Instant, bytes: u64, which: usize) -> Instant {
        self.limits.iter().map(|limit| limit.grant(now, bytes)[which]).fold(now, Instant::max)
    }

    /// Under new limits nobody waits for the end of a turn under the old ones.
    fn follow_changes(&mut self, now: Instant) {
        let version = self.limits.iter().map(|limit| limit.rate.version.load(Ordering::Acquire)).sum();
        if std::mem::replace(&mut self.version, version) != version {
            (self.opens, self.credit, self.owed) = (now, 0, 0);
        }
    }
}

impl Drop for Valve {
    /// What is owed others wait for, or it would be free to who comes anew for each block. What is left is theirs.
    fn drop(&mut self) {
        self.done(self.opens);
        let owed = self.credit.min(0).unsigned_abs().saturating_add(self.owed).min(self.in_seconds(LEFT));
        if owed > 0 {
            self.grant(self.opens, owed, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Senders that have always something to send, each turn seen a little late, as tasks are woken.
    struct Crowd {
        now: Instant,
        limits: Limits,
        senders: Vec<Sender>,
    }

    struct Sender {
        valve: Valve,
        block: usize,
        sent: u64,
    }

    impl Crowd {
        fn new(blocks: &[usize], limit: Option<u64>, each: Option<u64>) -> Crowd {
            let (now, limits) = (Instant::now(), Limits::default());
            limits.upload.set(limit);
            limits.upload_each.set(each);
            let sender = |block: &usize| Sender {
                valve: Valve::new(now, &limits.upload, &limits.own().upload),
                block: *block,
                sent: 0,
            };
            let senders = blocks.iter().map(sender).collect();
            Crowd { now, limits, senders }
        }

        /// What each sent in so many milliseconds.
        fn run(&mut self, milliseconds: u64) -> Vec<u64> {
            self.senders.iter_mut().for_each(|sender| sender.sent = 0);
            for _ in 0..milliseconds {
                self.now += Duration::from_millis(1);
                for Sender { valve, block, sent } in &mut self.senders {
                    // No link is wider than 100 MB/s.
                    let mut room = if valve.turn(self.now) <= self.now { valve.room(100_000) as i64 } else { 0 };
                    while room > 0 {
                        valve.passed(*block);
                        room -= *block as i64;
                        *sent += *block as u64;
                    }
                }
            }
            self.senders.iter().map(|sender| sender.sent).collect()
        }
    }

    fn is_near(bytes: u64, expected: u64) -> bool {
        bytes.abs_diff(expected) <= expected / 20
    }

    #[test]
    fn what_all_send_together_holds_the_limit_from_the_first_second_on_whatever_they_send() {
        for (senders, rate, block) in
            [(1, 1_000_000, 1000), (3, 2_000_000, 65_536), (20, 500_000, 300), (200, 10_000_000, 16_384)]
        {
            let mut crowd = Crowd::new(&vec![block; senders], Some(rate), None);
            let mut sent = Vec::new();
            for _ in 0..2 {
                sent = crowd.run(10_000);
                let sum = sent.iter().sum();
                assert!(is_near(sum, 10 * rate), "{senders} senders, {rate} B/s, {block} B: {sum}");
            }
            let (least, most) = (sent.iter().min().copied(), sent.iter().max().copied());
            let turn = (rate / TURNS).max(block as u64);
            assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 2 * turn), "{least:?} to {most:?}");
        }
    }

    #[test]
    fn large_blocks_give_nobody_more_than_small_ones() {
        let blocks = [300, 300, 65_536, 1_000_000];
        let mut crowd = Crowd::new(&blocks, Some(500_000), None);
        let sent = crowd.run(100_000);
        assert!(is_near(sent.iter().sum(), 50_000_000), "{sent:?}");
        // A block that has begun goes out whole.
        let fair = |(sent, block): (&u64, usize)| sent.abs_diff(12_500_000) < 300_000 + block as u64;
        assert!(sent.iter().zip(blocks).all(fair), "{sent:?}");
    }

    #[test]
    fn who_comes_late_for_his_turn_loses_nothing() {
        let mut crowd = Crowd::new(&[4096; 2], Some(400_000), None);
        let (mut sum, start) = (0, crowd.now);
        while crowd.now < start + Duration::from_secs(10) {
            // Each step takes long on a busy machine.
            crowd.now += Duration::from_millis(199);
            sum += crowd.run(1).iter().sum::<u64>();
        }
        assert!(is_near(sum, 4_000_000), "{sum}");
    }

    #[test]
    fn a_limit_for_each_holds_beside_one_for_all() {
        let mut crowd = Crowd::new(&[1000; 4], Some(1_000_000), Some(100_000));
        assert!(crowd.run(10_000).iter().all(|sent| is_near(*sent, 1_000_000)));
        crowd.limits.upload_each.set(Some(400_000));
        let sent = crowd.run(10_000);
        assert!(is_near(sent.iter().sum(), 10_000_000), "{sent:?}");
        assert!(sent.iter().all(|sent| is_near(*sent, 2_500_000)), "{sent:?}");
    }

    #[test]
    fn who_comes_anew_for_each_block_gets_no_more() {
        let (start, limits) = (Instant::now(), Limits::default());
        limits.upload.set(Some(500_000));
        let mut sent = 0;
        for ms in 0..100_000 {
            let at = start + Duration::from_millis(ms);
            let mut valve = Valve::new(at, &limits.upload, &limits.own().upload);
            if valve.turn(at) <= at {
                valve.passed(1_000_000);
                sent += 1_000_000;
            }
        }
        assert!(is_near(sent, 50_000_000), "{sent}");
    }

    #[test]
    fn what_was_never_taken_costs_nobody_anything() {
        let (now, limits) = (Instant::now(), Limits::default());
        limits.upload.set(Some(100_000));
        let valve = || Valve::new(now, &limits.upload, &limits.own().upload);
        let mut gone = valve();
        assert!(gone.turn(now) <= now);
        gone.passed(15_000_000);
        gone.never_passed(15_000_000);
        drop(gone);
        assert!(valve().turn(now) < now + Duration::from_millis(100));
    }

    #[test]
    fn an_hour_of_requests_of_ours_keeps_nobody_waiting() {
        let (start, limits) = (Instant::now(), Limits::default());
        limits.upload.set(Some(100_000));
        let mut valve = Valve::new(start, &limits.upload, &limits.own().upload);
        let mut run = |from: u64, unasked: usize| {
            let mut answered = 0;
            for ms in from..from + 10_000 {
                let at = start + Duration::from_millis(ms);
                valve.passed_unasked(unasked);
                if valve.turn(at) <= at && valve.room(100) > 0 {
                    valve.passed(100);
                    answered += 100;
                }
            }
            answered
        };
        assert!(is_near(run(0, 140_000), 100_000), "who is asked for more than he may say answers a little");
        assert!((850_000..950_000).contains(&run(10_000, 0)), "then what was said is paid for within a second");
        assert!(is_near(run(20_000, 50), 500_000), "what is said unasked is in the limit");
    }

    #[test]
    fn limits_can_be_changed_at_any_time() {
        let mut crowd = Crowd::new(&[1000; 2], Some(1), None);
        let sum = |crowd: &mut Crowd| crowd.run(10_000).iter().sum::<u64>();
        assert!(sum(&mut crowd) <= 4 * LEAST);
        crowd.limits.upload.set(Some(3_000_000));
        assert!(is_near(sum(&mut crowd), 30_000_000));
        crowd.limits.upload.set(None);
        assert!(sum(&mut crowd) >= 1_000_000_000);
        crowd.limits.upload_each.set(Some(1));
        assert!(sum(&mut crowd) <= 4 * LEAST);
        crowd.limits.upload_each.set(Some(1_000_000));
        assert!(is_near(sum(&mut crowd), 20_000_000), "nobody waits for the end of a turn under another limit");
        crowd.limits.upload.set(Some(50_000));
        assert!(is_near(sum(&mut crowd), 500_000));
    }

    #[test]
    fn what_comes_holds_the_limit_however_many_begin_at_once_and_whoever_falls_silent() {
        for peers in [1, 3, 100] {
            let (start, limits) = (Instant::now(), Limits::default());
            limits.download.set(Some(1_000_000));
            let valve = || Valve::new(start, &limits.download, &limits.own().download);
            let mut valves: Vec<_> = (0..peers).map(|_| (valve(), 0)).collect();
            let mut run = |from: u64, sending: usize| {
                let mut sum = 0;
                for ms in from..from + 10_000 {
                    let at = start + Duration::from_millis(ms);
                    for (number, (valve, came)) in valves.iter_mut().enumerate() {
                        let is_open = valve.opens(at) <= at;
                        if is_open && number < sending {
                            valve.came(at, 66_000);
                            *came += 66_000;
                            sum += 66_000;
                        } else if is_open && ms % 500 == 0 {
                            valve.quiet(at);
                        }
                    }
                }
                (sum, valves.iter().map(|(_, came)| *came).collect::<Vec<u64>>())
            };
            let (sum, came) = run(0, peers);
            assert!(is_near(sum, 10_000_000), "{sum} of {peers}");
            let (most, least) = (came.iter().max().copied(), came.iter().min().copied());
            assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 66_000), "{came:?}");
            // What the silent leave is the others', but for what they had been granted.
            run(10_000, 1);
            assert!(is_near(run(20_000, 1).0, 10_000_000), "of one among {peers}");
            assert!(is_near(run(30_000, peers).0, 10_000_000), "of {peers} again");
        }
    }
}
