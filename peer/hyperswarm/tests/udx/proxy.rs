//! A link between two real sockets: a UDP proxy that delays, loses, repeats and reorders by a seed, as fast as it is told.

use super::link::{Dice, Neck};
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
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
    /// How fast they come through, in each direction; as fast as can be without.
    pub neck: Option<Neck>,
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

/// A socket with large buffers that takes and gives datagrams in batches, so that the proxy isn't the narrowest link.
struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
}

impl Socket {
    async fn bind() -> Arc<Socket> {
        let io = UdpSocket::bind("127.0.0.1:0").await.expect("loopback has a port");
        let state = UdpSocketState::new(UdpSockRef::from(&io)).expect("it is a UDP socket");
        let _ = state.set_recv_buffer_size(UdpSockRef::from(&io), 4 << 20);
        Arc::new(Socket { io, state })
    }

    fn receive(&self, buffer: &mut [u8], mut take: impl FnMut(&[u8])) {
        loop {
            let mut meta = [RecvMeta::default(); 8];
            let mut slices = buffer.chunks_exact_mut(1 << 16).map(IoSliceMut::new);
            let mut slices: [_; 8] = std::array::from_fn(|_| slices.next().expect("the buffer has 8 parts"));
            let receive = || self.state.recv(UdpSockRef::from(&self.io), &mut slices, &mut meta);
            let Ok(count) = self.io.try_io(Interest::READABLE, receive) else { return };
            for (part, meta) in buffer.chunks_exact(1 << 16).zip(&meta).take(count) {
                part[..meta.len].chunks(meta.stride.max(1)).for_each(&mut take);
            }
        }
    }

    fn send(&self, contents: &[u8], segment: usize, to: SocketAddr) {
        let transmit = Transmit { destination: to, ecn: None, contents, segment_size: Some(segment), src_ip: None };
        let _ = self.state.try_send(UdpSockRef::from(&self.io), &transmit);
    }
}

impl Proxy {
    /// Begins to forward between `near` and `far`.
    pub async fn start(near: SocketAddr, far: SocketAddr, faults: Faults) -> Proxy {
        let (to_near, to_far) = (Socket::bind().await, Socket::bind().await);
        let (for_near, for_far) =
            (to_near.io.local_addr().expect("it is bound"), to_far.io.local_addr().expect("it is bound"));
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

async fn forward(from: Arc<Socket>, by: Arc<Socket>, to: SocketAddr, faults: Faults) {
    let mut dice = Dice::new(faults.seed);
    let mut waiting: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>> = BinaryHeap::new();
    let mut count = 0;
    let mut buffer = vec![0; 8 << 16];
    let mut train: Vec<u8> = Vec::new();
    let mut busy = Instant::now().into_std();
    loop {
        let next = waiting.peek().map(|Reverse((at, ..))| *at);
        let due = async {
            match next {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {
                let now = Instant::now();
                let mut segment = 0;
                while waiting.peek().is_some_and(|Reverse((at, ..))| *at <= now) {
                    let Some(Reverse((_, _, packet))) = waiting.pop() else { break };
                    if packet.len() != segment || train.len() + packet.len() > 60_000 {
                        if !train.is_empty() {
                            by.send(&train, segment, to);
                        }
                        train.clear();
                        segment = packet.len();
                    }
                    train.extend(packet);
                }
                if !train.is_empty() {
                    by.send(&train, segment, to);
                }
                train.clear();
            }
            readable = from.io.readable() => {
                if readable.is_err() {
                    return;
                }
                let now = Instant::now();
                from.receive(&mut buffer, |packet| {
                    if dice.one_in_thousand(faults.loss) {
                        return;
                    }
                    let through = match faults.neck {
                        Some(neck) => neck.pass(&mut busy, now.into_std(), packet.len()).map(Instant::from_std),
                        None => Some(now),
                    };
                    let Some(through) = through else { return };
                    for _ in 0..1 + u64::from(dice.one_in_thousand(faults.twice)) {
                        count += 1;
                        let jitter = faults.jitter.mul_f64(dice.part());
                        waiting.push(Reverse((through + faults.delay + jitter, count, packet.to_vec())));
                    }
                });
            }
        }
    }
}
