//! The task of a socket: receives packets in batches, hands them to their streams, sends what the streams want to send.

use super::header::{MAGIC, Packet, VERSION};
use super::shared::{Alarm, Shared};
use super::socket::{Datagram, Port};
use bytes::Bytes;
use quinn_udp::{RecvMeta, UdpSockRef};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, IoSliceMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::sleep_until;
use tracing::debug;

/// Most messages that one system call receives, and the room for each: with GRO one has up to 64 datagrams.
const BATCH: usize = 8;
const ROOM: usize = 64 << 10;
/// Calls to receive before what follows from them is sent.
const RECEIVE_ROUNDS: usize = 4;
/// Calls to send for one stream before another has its turn.
const SEND_ROUNDS: usize = 8;
/// How long a socket that fails is left alone.
const RETRY: Duration = Duration::from_millis(10);

/// The task.
pub(super) struct Driver {
    port: Arc<Port>,
    others: mpsc::Sender<Datagram>,
    buffer: Vec<u8>,
    out: Vec<u8>,
    /// Datagrams that the kernel had no room for.
    stuck: Option<(SocketAddr, usize)>,
    listed: Vec<Arc<Shared>>,
    alarms: BTreeMap<(Instant, u32), Arc<Shared>>,
}

impl Driver {
    pub fn new(port: Arc<Port>, others: mpsc::Sender<Datagram>) -> Self {
        Driver {
            port,
            others,
            buffer: vec![0; BATCH * ROOM],
            out: Vec::with_capacity(ROOM),
            stuck: None,
            listed: Vec::new(),
            alarms: BTreeMap::new(),
        }
    }

    /// Runs until the socket has neither users nor streams.
    pub async fn run(mut self) {
        loop {
            let received = self.receive();
            self.ring();
            // Before the list is taken: what the last user had listed is on it then.
            let closing = self.port.is_closing();
            self.port.clone().take_listed(&mut self.listed);
            let sent = self.send();
            if closing && self.alarms.is_empty() && self.listed.is_empty() {
                return;
            }
            if let Err(error) = &received {
                debug!(target: "udx", %error, "receiving");
            }
            if sent || matches!(received, Ok(true)) {
                tokio::task::yield_now().await;
                continue;
            }
            // A socket that fails stays readable: asked at once, it would fail again.
            let retry = received.is_err().then(|| Instant::now() + RETRY);
            let first = self.alarms.first_key_value().map(|((at, _), _)| *at).into_iter().chain(retry).min();
            let alarm = async {
                match first {
                    Some(at) => sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = self.port.io.readable(), if retry.is_none() => {}
                () = self.port.wake.notified() => {}
                _ = self.port.io.writable(), if self.stuck.is_some() => {}
                () = alarm => {}
            }
        }
    }

    /// Receives what is there, up to a few batches; whether there was anything.
    fn receive(&mut self) -> io::Result<bool> {
        for round in 0..RECEIVE_ROUNDS {
            let mut slices = self.buffer.chunks_exact_mut(ROOM).map(IoSliceMut::new);
            let mut slices: [_; BATCH] = std::array::from_fn(|_| slices.next().expect("the buffer has BATCH rooms"));
            let mut meta = [RecvMeta::default(); BATCH];
            let port = &self.port;
            let received = port
                .io
                .try_io(Interest::READABLE, || port.state.recv(UdpSockRef::from(&port.io), &mut slices, &mut meta));
            match received {
                Ok(count) => {
                    let now = Instant::now();
                    for (buffer, meta) in self.buffer.chunks_exact(ROOM).zip(&meta).take(count) {
                        self.sort(&buffer[..meta.len], meta, now);
                    }
                    if count < BATCH {
                        return Ok(true);
                    }
                }
                Err(error) if round > 0 || error.kind() == ErrorKind::WouldBlock => return Ok(round > 0),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Hands the datagrams of one message to their streams, or to whoever speaks another protocol.
    fn sort(&self, bytes: &[u8], meta: &RecvMeta, now: Instant) {
        let mut datagrams = bytes.chunks(meta.stride.max(1)).peekable();
        while let Some(datagram) = datagrams.next() {
            let Some(packet) = Packet::decode(datagram) else {
                if !datagram.starts_with(&[MAGIC, VERSION]) {
                    self.pass_on(datagram, meta.addr);
                }
                continue;
            };
            let id = packet.header.stream;
            let Some(stream) = self.port.streams.get(id) else { continue };
            // A train of packets is nearly always of one stream: lock it once.
            let rest = std::iter::from_fn(|| {
                let next = Packet::decode(datagrams.peek()?).filter(|next| next.header.stream == id)?;
                datagrams.next();
                Some(next)
            });
            stream.handle(std::iter::once(packet).chain(rest), meta.addr, &self.port, now);
        }
    }

    fn pass_on(&self, datagram: &[u8], from: SocketAddr) {
        match self.others.try_send(Datagram { from, bytes: Bytes::copy_from_slice(datagram) }) {
            Ok(()) | Err(TrySendError::Closed(_)) => {}
            Err(TrySendError::Full(_)) => debug!(target: "udx", %from, "dropped a datagram: nobody takes them"),
        }
    }

    /// Lists the streams whose alarm goes off.
    fn ring(&mut self) {
        let now = Instant::now();
        while let Some(first) = self.alarms.first_entry()
            && first.key().0 <= now
        {
            let stream = first.remove();
            stream.clear_alarm();
            stream.on_deadline(now);
            self.listed.push(stream);
        }
    }

    /// Sends for the streams that are listed; whether some are not done.
    fn send(&mut self) -> bool {
        if !self.resend_stuck() {
            return false;
        }
        let mut later = Vec::new();
        let mut listed = std::mem::take(&mut self.listed);
        for stream in listed.drain(..) {
            stream.unlist();
            let now = Instant::now();
            if self.stuck.is_some() || !self.send_for(&stream, now) {
                later.push(stream);
                continue;
            }
            match stream.set_alarm(&self.port, now) {
                Alarm::Move { from, to } => {
                    if let Some(from) = from {
                        self.alarms.remove(&(from, stream.id));
                    }
                    self.alarms.insert((to, stream.id), stream);
                }
                Alarm::Over => self.port.streams.remove(&stream),
                Alarm::Keep => {}
            }
        }
        listed.append(&mut later);
        self.listed = listed;
        !self.listed.is_empty() && self.stuck.is_none()
    }

    /// Sends what a stream has to send now; whether that was all.
    fn send_for(&mut self, stream: &Shared, now: Instant) -> bool {
        for _ in 0..SEND_ROUNDS {
            self.out.clear();
            let most = self.port.state.max_gso_segments();
            let Some(transmit) = stream.transmit(&self.port, now, most, &mut self.out) else { return true };
            self.stuck = Some((transmit.to, transmit.segment));
            if !self.resend_stuck() {
                return false;
            }
        }
        false
    }

    /// Sends what is in `out`; whether the kernel has taken it.
    fn resend_stuck(&mut self) -> bool {
        let Some((to, segment)) = self.stuck else { return true };
        let port = &self.port;
        match port.io.try_io(Interest::WRITABLE, || port.send(&self.out, to, Some(segment))) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            // As good as lost on the way.
            Err(error) => debug!(target: "udx", %to, segment, bytes = self.out.len(), %error, "sending"),
            Ok(()) => {}
        }
        self.stuck = None;
        true
    }
}
