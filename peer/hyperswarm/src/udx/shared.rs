//! A stream as its users and the tasks of the sockets share it: behind one lock that no other file takes.

use super::header::Packet;
use super::socket::Port;
use super::stream::{Closed, Path, Stats, Stream, TooLong, Transmit};
use bytes::Bytes;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;
use tokio::io::ReadBuf;

/// One stream.
#[derive(Debug)]
pub struct Shared {
    /// Our id of it.
    pub id: u32,
    state: Mutex<State>,
    /// Whether it is in its port's list of streams to look at.
    listed: AtomicBool,
}

#[derive(Debug)]
struct State {
    stream: Stream,
    port: Option<Arc<Port>>,
    /// Where the first packet came in.
    heard_on: Option<Arc<Port>>,
    waiting: Waiting,
    /// When the port's task looks at it by itself.
    alarm: Option<Instant>,
}

/// Who waits for what.
#[derive(Debug, Default)]
struct Waiting {
    reader: Option<Waker>,
    writer: Option<Waker>,
    messages: Option<Waker>,
    path: Option<Waker>,
    /// Any number may wait for the end: a handle can be cloned.
    end: Vec<Waker>,
}

/// Wakers to be called once the lock is released.
#[derive(Debug, Default)]
pub struct Awake([Option<Waker>; 4], Vec<Waker>);

impl Drop for Awake {
    fn drop(&mut self) {
        let some = self.0.iter_mut().filter_map(Option::take);
        some.chain(self.1.drain(..)).for_each(Waker::wake);
    }
}

impl State {
    fn is_at(&self, port: &Arc<Port>) -> bool {
        self.port.as_ref().is_some_and(|own| Arc::ptr_eq(own, port))
    }

    /// Takes the wakers of those who have something to do now.
    fn awake(&mut self) -> Awake {
        let (stream, waiting) = (&self.stream, &mut self.waiting);
        let closed = stream.closed().is_some();
        let knows_where = stream.heard().is_some() || stream.path().is_some();
        let take = |waker: &mut Option<Waker>, now: bool| waker.take_if(|_| now || closed);
        let some = [
            take(&mut waiting.reader, stream.readable() > 0 || stream.is_ended()),
            take(&mut waiting.writer, stream.is_finished() || stream.has_much_room()),
            take(&mut waiting.messages, stream.has_message()),
            take(&mut waiting.path, knows_where && !stream.is_changing_path()),
        ];
        Awake(some, if closed { std::mem::take(&mut waiting.end) } else { Vec::new() })
    }
}

impl Shared {
    /// A stream that is not connected.
    pub fn new(id: u32, stream: Stream) -> Self {
        let state = State { stream, port: None, heard_on: None, waiting: Waiting::default(), alarm: None };
        Shared { id, state: Mutex::new(state), listed: AtomicBool::new(false) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic inside leaves a stream that is at worst stuck, and one stream only.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the task of the stream's port look at it soon.
    fn nudge(self: &Arc<Self>, state: MutexGuard<'_, State>) {
        if let Some(port) = &state.port
            && !self.listed.swap(true, Ordering::AcqRel)
        {
            let port = port.clone();
            drop(state);
            port.list(self.clone());
        }
    }

    // ---- the user's side ----

    pub fn connect(self: &Arc<Self>, port: Arc<Port>, path: Path, first: u32) {
        let mut state = self.lock();
        state.stream.connect(path, first, Instant::now());
        state.port = Some(port);
        self.nudge(state);
    }

    pub fn change_path(self: &Arc<Self>, port: Arc<Port>, path: Path) {
        let mut state = self.lock();
        state.stream.change_path(path, Instant::now());
        // The old port's task hands the stream over when it comes across it.
        state.alarm = None;
        state.port = Some(port);
        self.nudge(state);
    }

    pub fn poll_heard(&self, context: &Context<'_>) -> Poll<(SocketAddr, Arc<Port>)> {
        let mut state = self.lock();
        match (state.stream.heard(), state.heard_on.clone()) {
            (Some(address), Some(port)) => Poll::Ready((address, port)),
            _ => wait(&mut state.waiting.path, context),
        }
    }

    pub fn poll_path_changed(&self, context: &Context<'_>) -> Poll<Result<(), Closed>> {
        let mut state = self.lock();
        match state.stream.closed() {
            Some(closed) => Poll::Ready(Err(closed)),
            None if !state.stream.is_changing_path() => Poll::Ready(Ok(())),
            None => wait(&mut state.waiting.path, context),
        }
    }

    pub fn poll_closed(&self, context: &Context<'_>) -> Poll<Closed> {
        let mut state = self.lock();
        match state.stream.closed() {
            Some(closed) => Poll::Ready(closed),
            None => {
                let end = &mut state.waiting.end;
                if !end.iter().any(|waker| waker.will_wake(context.waker())) {
                    end.push(context.waker().clone());
                }
                Poll::Pending
            }
        }
    }

    pub fn poll_read(self: &Arc<Self>, context: &Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.lock();
        if state.stream.readable() > 0 {
            // No more is initialised than will be read: readers keep much room.
            let room = buffer.remaining().min(state.stream.readable());
            let count = state.stream.read(buffer.initialize_unfilled_to(room));
            buffer.advance(count);
            if state.stream.has_something_to_say() {
                self.nudge(state);
            }
            return Poll::Ready(Ok(()));
        }
        match state.stream.closed() {
            _ if state.stream.is_ended() => Poll::Ready(Ok(())),
            Some(closed) => Poll::Ready(Err(error(closed))),
            None => wait(&mut state.waiting.reader, context),
        }
    }

    pub fn poll_write(self: &Arc<Self>, context: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.lock();
        if let Some(closed) = state.stream.closed() {
            return Poll::Ready(Err(error(closed)));
        }
        if state.stream.is_finishing() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        match state.stream.write(bytes) {
            0 if !bytes.is_empty() => wait(&mut state.waiting.writer, context),
            count => {
                self.nudge(state);
                Poll::Ready(Ok(count))
            }
        }
    }

    /// Ends our half; ready when the remote has everything.
    pub fn poll_shutdown(self: &Arc<Self>, context: &Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.lock();
        match state.stream.closed() {
            _ if state.stream.is_finished() => return Poll::Ready(Ok(())),
            Some(Closed::Finished) => return Poll::Ready(Ok(())),
            Some(closed) => return Poll::Ready(Err(error(closed))),
            None => {}
        }
        let ready = wait(&mut state.waiting.writer, context);
        if !state.stream.is_finishing() {
            state.stream.finish();
            self.nudge(state);
        }
        ready
    }

    pub fn finish(self: &Arc<Self>) {
        let mut state = self.lock();
        state.stream.finish();
        self.nudge(state);
    }

    pub fn stop_reading(self: &Arc<Self>) {
        let mut state = self.lock();
        state.stream.stop_reading(Instant::now());
        self.nudge(state);
    }

    pub fn abort(self: &Arc<Self>) {
        let mut state = self.lock();
        state.stream.abort(Instant::now());
        let awake = state.awake();
        self.nudge(state);
        drop(awake);
    }

    pub fn send_message(self: &Arc<Self>, message: Bytes) -> Result<(), TooLong> {
        let mut state = self.lock();
        state.stream.send_message(message)?;
        self.nudge(state);
        Ok(())
    }

    pub fn poll_message(&self, context: &Context<'_>) -> Poll<Result<Bytes, Closed>> {
        let mut state = self.lock();
        match (state.stream.next_message(), state.stream.closed()) {
            (Some(message), _) => Poll::Ready(Ok(message)),
            (None, Some(closed)) => Poll::Ready(Err(closed)),
            (None, None) => wait(&mut state.waiting.messages, context),
        }
    }

    pub fn stats(&self) -> Stats {
        self.lock().stream.stats()
    }

    pub fn path(&self) -> Option<Path> {
        self.lock().stream.path()
    }

    // ---- the side of the ports' tasks ----

    /// Takes in packets of this stream that came in on `port`.
    pub fn handle<'a>(
        self: &Arc<Self>,
        packets: impl Iterator<Item = Packet<'a>>,
        from: SocketAddr,
        port: &Arc<Port>,
        now: Instant,
    ) {
        let mut state = self.lock();
        for packet in packets {
            state.stream.handle(&packet, from, now);
        }
        if state.port.is_none() && state.heard_on.is_none() {
            state.heard_on = Some(port.clone());
        }
        let awake = state.awake();
        self.nudge(state);
        drop(awake);
    }

    /// The port's task has taken the stream from its list.
    pub fn unlist(&self) {
        self.listed.store(false, Ordering::Release);
    }

    /// The next datagrams that are to leave by `port`.
    pub fn transmit(&self, port: &Arc<Port>, now: Instant, most: usize, out: &mut Vec<u8>) -> Option<Transmit> {
        let mut state = self.lock();
        if !state.is_at(port) {
            return None;
        }
        let transmit = state.stream.transmit(now, most, out);
        let awake = state.awake();
        drop(state);
        drop(awake);
        transmit
    }

    pub fn on_deadline(&self, now: Instant) {
        let mut state = self.lock();
        state.stream.on_deadline(now);
        let awake = state.awake();
        drop(state);
        drop(awake);
    }

    /// When `port` has to look at the stream again, if that is sooner than it knows.
    pub fn set_alarm(self: &Arc<Self>, port: &Arc<Port>, now: Instant) -> Alarm {
        let mut state = self.lock();
        if !state.is_at(port) {
            self.nudge(state);
            return Alarm::Keep;
        }
        if state.stream.is_over(now) {
            return Alarm::Over;
        }
        let due = state.stream.deadline(now);
        match (due, state.alarm) {
            (None, _) => Alarm::Keep,
            (Some(due), Some(set)) if set <= due => Alarm::Keep,
            (Some(due), set) => {
                state.alarm = Some(due);
                Alarm::Move { from: set, to: due }
            }
        }
    }

    /// The alarm has gone off.
    pub fn clear_alarm(&self) {
        self.lock().alarm = None;
    }
}

/// What becomes of a stream's place among its port's alarms.
#[derive(Debug, PartialEq, Eq)]
pub enum Alarm {
    /// It goes off soon enough, or isn't needed here.
    Keep,
    /// It goes off at another time.
    Move {
        /// When it was set to, if it was.
        from: Option<Instant>,
        /// When it goes off.
        to: Instant,
    },
    /// The stream is done with.
    Over,
}

fn wait<T>(place: &mut Option<Waker>, context: &Context<'_>) -> Poll<T> {
    match place {
        Some(waker) => waker.clone_from(context.waker()),
        None => *place = Some(context.waker().clone()),
    }
    Poll::Pending
}

fn error(closed: Closed) -> io::Error {
    let kind = match closed {
        Closed::Finished => io::ErrorKind::BrokenPipe,
        Closed::Aborted => io::ErrorKind::ConnectionAborted,
        Closed::Reset => io::ErrorKind::ConnectionReset,
        Closed::Silent => io::ErrorKind::TimedOut,
    };
    io::Error::new(kind, closed)
}
