//! A simulated link between two streams: virtual time, dice with a seed, every byte compared.

use super::pattern;
use datdot_hyperswarm::udx::header::Packet;
use datdot_hyperswarm::udx::stream::Stream;
use datdot_hyperswarm::udx::{Config, Path};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Dice that fall the same way for the same seed (SplitMix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Dice(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to 1.
    pub fn part(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn one_in_thousand(&mut self, chances: u64) -> bool {
        self.next() % 1000 < chances
    }
}

/// A link, the same in both directions.
#[derive(Debug, Clone, Copy)]
pub struct Link {
    /// How long a packet takes, one way.
    pub delay: Duration,
    /// Up to so much more, at random.
    pub jitter: Duration,
    /// Packets lost, of a thousand.
    pub loss: u64,
    /// Packets that arrive twice, of a thousand.
    pub twice: u64,
    /// Bytes a second.
    pub rate: f64,
    /// Bytes that may wait where the link begins.
    pub queue: usize,
    /// Datagrams larger than this do not pass.
    pub mtu: usize,
}

impl Default for Link {
    fn default() -> Self {
        Link {
            delay: Duration::from_millis(25),
            jitter: Duration::ZERO,
            loss: 0,
            twice: 0,
            rate: 12.5e6,
            queue: 1 << 20,
            mtu: 1472,
        }
    }
}

/// Where a link begins: `rate` bytes a second go in, and `queue` bytes may wait for it.
#[derive(Debug, Clone, Copy)]
pub struct Neck {
    pub rate: f64,
    pub queue: usize,
}

impl Neck {
    /// When a datagram that comes `now` is through; `None` if it finds no room. The neck is busy until `busy`.
    pub fn pass(&self, busy: &mut Instant, now: Instant, datagram: usize) -> Option<Instant> {
        *busy = (*busy).max(now);
        let waiting = (*busy - now).as_secs_f64() * self.rate;
        if waiting > self.queue as f64 {
            return None;
        }
        *busy += Duration::from_secs_f64((datagram + 28) as f64 / self.rate);
        Some(*busy)
    }
}

/// One end and what its user wants.
pub struct End {
    pub stream: Stream,
    pub to_write: u64,
    pub written: u64,
    pub read: u64,
    /// Bytes a second that the user reads.
    pub reads: f64,
    read_until: Instant,
    /// Until when the link is busy with what was sent.
    busy: Instant,
    /// Datagrams sent.
    pub sent: usize,
    /// Bytes of the largest.
    pub largest: usize,
    /// Where this end is reached, and how many datagrams came that way.
    pub doors: Vec<(SocketAddr, usize)>,
}

impl End {
    /// Reads at another pace from now on.
    pub fn resume(&mut self, reads: f64) {
        (self.reads, self.read_until) = (reads, Instant::now());
    }
}

/// When a datagram arrives, which one it is, at which end, and its bytes.
type Flying = (Instant, u64, usize, Vec<u8>);

/// Two ends and the link between them.
pub struct World {
    pub now: Instant,
    start: Instant,
    link: Link,
    dice: Dice,
    pub ends: [End; 2],
    flying: BinaryHeap<Reverse<Flying>>,
    count: u64,
    still: usize,
    /// Packets that the link had no room for.
    pub overflows: u64,
}

pub fn address(end: usize) -> SocketAddr {
    ([10, 0, 0, end as u8 + 1], 1000).into()
}

impl World {
    pub fn new(link: Link, seed: u64) -> World {
        World::with(link, seed, [Config::default(), Config::default()])
    }

    pub fn with(link: Link, seed: u64, configs: [Config; 2]) -> World {
        let now = Instant::now();
        let first = [configs[0].seq, configs[1].seq];
        let mut end = 0;
        let ends = configs.map(|config| {
            let mut stream = Stream::new(config, now);
            stream.connect(Path { stream: 1 - end, address: address(1 - end as usize) }, first[1 - end as usize], now);
            let end_now = End {
                stream,
                to_write: 0,
                written: 0,
                read: 0,
                reads: f64::INFINITY,
                read_until: now,
                busy: now,
                sent: 0,
                largest: 0,
                doors: vec![(address(end as usize), 0)],
            };
            end += 1;
            end_now
        });
        World {
            now,
            start: now,
            link,
            dice: Dice::new(seed),
            ends,
            flying: BinaryHeap::new(),
            count: 0,
            still: 0,
            overflows: 0,
        }
    }

    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Changes the link; what flies is not touched.
    pub fn set_link(&mut self, link: Link) {
        self.link = link;
    }

    /// Lets `end` write so much and end.
    pub fn sends(mut self, end: usize, len: u64) -> World {
        self.ends[end].to_write = len;
        self
    }

    /// Runs until `done`, or fails after `most` of virtual time.
    pub fn run(&mut self, most: Duration, done: impl Fn(&World) -> bool) {
        let last = self.now + most;
        while !done(self) {
            assert!(self.now < last, "not done after {most:?}: {:?}", self.stats());
            self.step(last - self.now);
        }
    }

    /// Runs until both ends have closed.
    pub fn finish(&mut self, most: Duration) {
        self.run(most, |world| world.ends.iter().all(|end| end.stream.closed().is_some()));
    }

    fn stats(&self) -> Vec<String> {
        self.ends.iter().map(|end| format!("{} read, {:?}", end.read, end.stream.stats())).collect()
    }

    /// Goes on until the next thing happens, at most so long.
    pub fn step(&mut self, most: Duration) {
        let last = self.now + most;
        self.use_streams();
        self.transmit(0);
        self.transmit(1);
        let now = self.now;
        let arrival = self.flying.peek().map(|Reverse((at, ..))| *at);
        let dues = self.ends.iter_mut().filter(|end| !end.stream.is_over(now)).flat_map(|end| {
            [end.stream.deadline(now), (end.stream.readable() > 0).then_some(end.read_until)].into_iter().flatten()
        });
        let next = arrival.into_iter().chain(dues).min().unwrap_or(last);
        self.now = next.max(now);
        self.still = if self.now > now { 0 } else { self.still + 1 };
        assert!(self.still < 10_000, "time stands still: {:?}", self.stats());
        while let Some(Reverse((at, ..))) = self.flying.peek()
            && *at <= self.now
        {
            let Some(Reverse((_, _, to, datagram))) = self.flying.pop() else { break };
            let packet = Packet::decode(&datagram).expect("we wrote it");
            if !self.ends[to].stream.is_over(self.now) {
                self.ends[to].stream.handle(&packet, address(1 - to), self.now);
            }
        }
        let now = self.now;
        for end in &mut self.ends {
            if !end.stream.is_over(now) && end.stream.deadline(now).is_some_and(|due| due <= now) {
                end.stream.on_deadline(now);
            }
        }
    }

    fn use_streams(&mut self) {
        let mut buffer = [0; 16 << 10];
        for end in &mut self.ends {
            while end.written < end.to_write && end.stream.closed().is_none() {
                let len = (end.to_write - end.written).min(buffer.len() as u64);
                let bytes = super::piece(end.written, len as usize);
                let count = end.stream.write(&bytes);
                end.written += count as u64;
                if count == 0 {
                    break;
                }
            }
            if end.written == end.to_write && end.to_write > 0 {
                end.stream.finish();
            }
            while end.read_until <= self.now {
                let count = end.stream.read(&mut buffer);
                if count == 0 {
                    break;
                }
                for byte in &buffer[..count] {
                    assert_eq!(*byte, pattern(end.read), "at {}", end.read);
                    end.read += 1;
                }
                if end.reads.is_finite() {
                    end.read_until = self.now + Duration::from_secs_f64(count as f64 / end.reads);
                }
            }
            if end.to_write == 0 && end.stream.is_ended() {
                end.stream.finish();
            }
        }
    }

    fn transmit(&mut self, from: usize) {
        let mut out = Vec::new();
        while let Some(transmit) = self.ends[from].stream.transmit(self.now, 16, &mut out) {
            assert!(out.len() <= 65_507, "{} bytes at once", out.len());
            for datagram in out.chunks(transmit.segment) {
                self.ends[from].sent += 1;
                self.ends[from].largest = self.ends[from].largest.max(datagram.len());
                if let Some(door) = self.ends[1 - from].doors.iter_mut().find(|(door, _)| *door == transmit.to) {
                    door.1 += 1;
                    self.fly(from, datagram);
                }
            }
            out.clear();
        }
    }

    fn fly(&mut self, from: usize, datagram: &[u8]) {
        if datagram.len() > self.link.mtu || self.dice.one_in_thousand(self.link.loss) {
            return;
        }
        let neck = Neck { rate: self.link.rate, queue: self.link.queue };
        let Some(through) = neck.pass(&mut self.ends[from].busy, self.now, datagram.len()) else {
            self.overflows += 1;
            return;
        };
        let copies = 1 + u64::from(self.dice.one_in_thousand(self.link.twice));
        for _ in 0..copies {
            self.count += 1;
            let at = through + self.link.delay + self.link.jitter.mul_f64(self.dice.part());
            self.flying.push(Reverse((at, self.count, 1 - from, datagram.to_vec())));
        }
    }
}
