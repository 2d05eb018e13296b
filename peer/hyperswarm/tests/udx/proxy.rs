//! A link between two real sockets: a UDP proxy that delays, loses, repeats and reorders by a seed.

use super::link::Dice;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until};

/// What happens to packets, in both directions.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// How long a packet takes, one way.
    pub delay: Duration,
    /// Up to so much more, at random: more than the time between packets reorders them.
    pub jitter: Duration,
    /// Packets lost, of a thousand.
    pub loss: u64,
    /// Packets that arrive twice, of a thousand.
    pub twice: u64,
    /// Where the dice begin.
    pub seed: u64,
}

/// The proxy; gone when dropped.
pub struct Proxy {
    /// Where the near end sends to reach the far one.
    pub for_near: SocketAddr,
    /// Where the far end sends to reach the near one.
    pub for_far: SocketAddr,
    tasks: [tokio::task::JoinHandle<()>; 2],
}

impl Proxy {
    /// Begins to forward between `near` and `far`.
    pub async fn start(near: SocketAddr, far: SocketAddr, faults: Faults) -> Proxy {
        let bind = || UdpSocket::bind("127.0.0.1:0");
        let (to_near, to_far) = (Arc::new(bind().await.expect("a port")), Arc::new(bind().await.expect("a port")));
        let (for_near, for_far) = (to_near.local_addr().expect("bound"), to_far.local_addr().expect("bound"));
        // What comes in by the socket that the near end knows leaves by the other one, and the other way round.
        let tasks = [
            tokio::spawn(forward(to_near.clone(), to_far.clone(), far, faults)),
            tokio::spawn(forward(to_far, to_near, near, Faults { seed: faults.seed ^ 0x5555, ..faults })),
        ];
        Proxy { for_near, for_far, tasks }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.tasks.iter().for_each(|task| task.abort());
    }
}

async fn forward(from: Arc<UdpSocket>, by: Arc<UdpSocket>, to: SocketAddr, faults: Faults) {
    let mut dice = Dice::new(faults.seed);
    let mut waiting: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>> = BinaryHeap::new();
    let mut count = 0;
    let mut buffer = vec![0; 65_536];
    loop {
        let next = waiting.peek().map(|Reverse((at, ..))| *at);
        tokio::select! {
            biased;
            () = async { match next { Some(at) => sleep_until(at).await, None => std::future::pending().await } } => {
                let now = Instant::now();
                while waiting.peek().is_some_and(|Reverse((at, ..))| *at <= now) {
                    let Some(Reverse((_, _, packet))) = waiting.pop() else { break };
                    let _ = by.send_to(&packet, to).await;
                }
            }
            received = from.readable() => {
                if received.is_err() { return }
                let now = Instant::now();
                while let Ok(len) = from.try_recv(&mut buffer) {
                    let copies = u64::from(!dice.one_in_thousand(faults.loss)) * (1 + u64::from(dice.one_in_thousand(faults.twice)));
                    for _ in 0..copies {
                        count += 1;
                        let jitter = faults.jitter.mul_f64(dice.part());
                        waiting.push(Reverse((now + faults.delay + jitter, count, buffer[..len].to_vec())));
                    }
                }
            }
        }
    }
}
