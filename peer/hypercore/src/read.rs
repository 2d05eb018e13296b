//! Reading what may not be here yet: blocks, bytes and what is still to be written come from peers as they are asked for.

use crate::{
    feed::{Feed, FeedError, Info, Located},
    network::{Download, Network},
    plan::Want,
    plans::Stopped,
    view::View,
};
use bytes::{Buf, Bytes};
use futures::stream::{Stream, try_unfold};
use std::{
    fmt, io,
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, ReadBuf},
    sync::mpsc,
    task::AbortHandle,
    time::timeout,
};

/// Blocks that a [`Reader`] holds ready.
const READY: usize = 4;
/// Questions for the place of one byte; each honest answer brings it nearer, and a tree is no deeper.
const MAX_QUESTIONS: usize = 64;

/// Why something can't be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// What is here says no.
    #[error(transparent)]
    Feed(#[from] FeedError),
    /// Nothing more is fetched.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// No peer sent it in time.
    #[error("no peer sent it in time")]
    TimedOut,
    /// Peers send what is true but leads nowhere.
    #[error("no peer says where byte {byte} is")]
    NotFound {
        /// Offset in the feed.
        byte: u64,
    },
}

/// What is read is a [`Feed`] as it is, or [decrypted](crate::Feed::decrypted).
impl Network {
    /// A block, from here or from peers, before other blocks that are wanted. Waits at most so long for it; also for a block
    /// that its author has not written yet.
    pub async fn get(&self, feed: impl Into<View>, block: u64, wait: Duration) -> Result<Bytes, ReadError> {
        let view = feed.into();
        if let Some(bytes) = here(&view, block).await? {
            return Ok(bytes);
        }
        let want = Want { blocks: block..block.saturating_add(1), follow: block >= view.feed().info().length };
        let mut download = self.begin(view.feed(), want, true);
        timeout(wait, wait_for(&view, block, &mut download)).await.map_err(|_| ReadError::TimedOut)?
    }

    /// Asks all connected peers for the newest head, and waits until each has said which it has and proven it, if that is newer than
    /// what is known here: at most so long, and not at all if nobody is connected. No block is fetched. What an author appends
    /// meanwhile is told a moment later, as always: see [`Feed::watch`]. Fails with [`Stopped::Forked`] or [`Stopped::Conflict`] if there is
    /// something newer that is not followed.
    pub async fn update(&self, feed: &Feed, wait: Duration) -> Result<Info, Stopped> {
        let mut heads = self.heads();
        let mut download = self.begin(feed, Want { blocks: 0..0, follow: true }, true);
        let heard = async {
            loop {
                heads.borrow_and_update();
                if self.has_heard(feed) {
                    return Ok(());
                }
                tokio::select! {
                    _ = heads.changed() => {}
                    why = stopped(&mut download) => return Err(why),
                }
            }
        };
        // Who is silent for so long has nothing to say.
        timeout(wait, heard).await.unwrap_or(Ok(()))?;
        match feed.halt() {
            Some(halt) => Err(halt.into()),
            None => Ok(feed.info()),
        }
    }

    /// The block that has a byte of the feed, and how many of its bytes come before. Peers are asked for what is not known of
    /// the tree, and for a head if there is none; waits at most so long for them. They may lie about the sizes of blocks that are not
    /// here: the place is certain if [`View::seek`] says the same once the block is here, as [`Network::reader`] sees to.
    pub async fn seek(&self, feed: impl Into<View>, byte: u64, wait: Duration) -> Result<(u64, u64), ReadError> {
        timeout(wait, self.find(&feed.into(), byte)).await.map_err(|_| ReadError::TimedOut)?
    }

    async fn find(&self, view: &View, byte: u64) -> Result<(u64, u64), ReadError> {
        let feed = view.feed();
        let mut progress = feed.watch();
        // Asks for no block, but for the first head, and opens the feed to peers.
        let mut download = self.begin(feed, Want::blocks(0..0), true);
        let mut questions = 0;
        while questions <= MAX_QUESTIONS {
            match locate(view, byte).await {
                Err(FeedError::NoSuchByte { .. }) if feed.info().length == 0 => tokio::select! {
                    _ = progress.changed() => {}
                    why = stopped(&mut download) => return Err(why.into()),
                },
                Ok(place @ Located::Under { near, .. }) => {
                    let (mut settled, new) = self.look(feed, near);
                    questions += usize::from(new);
                    // Another question may have brought it just now: then nobody is asked, and nothing is settled.
                    if locate(view, byte).await? != place {
                        continue;
                    }
                    tokio::select! {
                        _ = settled.changed() => {}
                        why = stopped(&mut download) => return Err(why.into()),
                    }
                }
                Ok(Located::Block { index, offset }) => return Ok((index, offset)),
                Err(error) => return Err(error.into()),
            }
        }
        Err(ReadError::NotFound { byte })
    }

    /// Blocks one after the other from this one on, each as soon as its author has written it and a peer has sent it.
    pub fn tail(&self, feed: impl Into<View>, from: u64) -> Tail {
        let view = feed.into();
        let download = self.begin(view.feed(), Want { blocks: from..u64::MAX, follow: true }, true);
        Tail { view, next: from, download }
    }

    /// Bytes of a feed, fetched as they are read; the range has to be within the head that is known or comes first. Needs a
    /// tokio runtime. Waits for peers as long as it takes: a reader who won't can put a time limit around each read.
    pub fn reader(&self, feed: impl Into<View>, bytes: Range<u64>) -> Reader {
        let (sender, blocks) = mpsc::channel(READY);
        let (network, view, left) = (self.clone(), feed.into(), bytes.end.saturating_sub(bytes.start));
        let task = tokio::spawn(async move {
            let poured = network.pour(&view, bytes, &sender).await;
            // Who has read to the end may count on it that nobody holds the store any more.
            drop((network, view));
            if let Err(error) = poured {
                // Nobody reads any more: fine.
                _ = sender.send(Err(error)).await;
            }
        });
        Reader { blocks, left, current: Bytes::new(), task: task.abort_handle() }
    }

    async fn pour(&self, view: &View, bytes: Range<u64>, sender: &Blocks) -> Result<(), ReadError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let mut place = self.find(view, bytes.start).await?;
        let (mut last, _) = self.find(view, bytes.end - 1).await?;
        let mut download = self.begin(view.feed(), Want::blocks(place.0..last + 1), true);
        // Peers can lie about the sizes of blocks that are not here. With a block come the true ones of all before it.
        for questions in 0.. {
            wait_for(view, place.0, &mut download).await?;
            let true_place = self.find(view, bytes.start).await?;
            if true_place == place {
                break;
            }
            if questions > MAX_QUESTIONS {
                return Err(ReadError::NotFound { byte: bytes.start });
            }
            place = true_place;
            download = self.begin(view.feed(), Want::blocks(place.0..last.max(place.0) + 1), true);
        }
        let ((mut block, mut skip), mut left) = (place, bytes.end - bytes.start);
        while left > 0 {
            if block > last {
                (last, _) = self.find(view, bytes.end - 1).await?;
                if block > last {
                    return Err(ReadError::NotFound { byte: bytes.end - 1 });
                }
                download = self.begin(view.feed(), Want::blocks(block..last + 1), true);
            }
            let mut bytes = wait_for(view, block, &mut download).await?;
            bytes.advance(usize::try_from(skip).unwrap_or(usize::MAX).min(bytes.len()));
            bytes.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            (block, skip, left) = (block + 1, 0, left - bytes.len() as u64);
            if sender.send(Ok(bytes)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// A feed as it grows: see [`Network::tail`].
#[derive(Debug)]
pub struct Tail {
    view: View,
    next: u64,
    download: Download,
}

impl Tail {
    /// The next block with its number. May be cancelled without loss. After [`Stopped::Forked`] and [`Stopped::Conflict`] it can be
    /// called again.
    pub async fn next(&mut self) -> Result<(u64, Bytes), ReadError> {
        let block = self.next;
        let bytes = wait_for(&self.view, block, &mut self.download).await?;
        self.next += 1;
        Ok((block, bytes))
    }

    /// The same as a stream. It ends only with an error.
    pub fn into_stream(self) -> impl Stream<Item = Result<(u64, Bytes), ReadError>> + Send + Unpin + 'static {
        Box::pin(try_unfold(self, |mut tail| async move {
            let next = tail.next().await?;
            Ok::<_, ReadError>(Some((next, tail)))
        }))
    }
}

type Blocks = mpsc::Sender<Result<Bytes, ReadError>>;

/// A range of bytes of a feed: see [`Network::reader`]. Dropping it ends the fetching.
pub struct Reader {
    blocks: mpsc::Receiver<Result<Bytes, ReadError>>,
    /// Bytes that are still to come.
    left: u64,
    current: Bytes,
    task: AbortHandle,
}

impl AsyncRead for Reader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.current.is_empty() {
            match ready!(self.blocks.poll_recv(cx)) {
                Some(block) => self.current = block.map_err(io::Error::other)?,
                None if self.left > 0 => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                None => return Poll::Ready(Ok(())),
            }
            self.left = self.left.saturating_sub(self.current.len() as u64);
        }
        let len = self.current.len().min(buffer.remaining());
        buffer.put_slice(&self.current.split_to(len));
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The place of a byte, as far as it is known. Reads the tree.
async fn locate(view: &View, byte: u64) -> Result<Located, FeedError> {
    let view = view.clone();
    view.feed().clone().blocking(move |_| view.locate(byte)).await
}

/// The block if it is here and whole.
async fn here(view: &View, block: u64) -> Result<Option<Bytes>, FeedError> {
    match view.get(block).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(FeedError::NotHere { .. } | FeedError::OutOfRange { .. } | FeedError::Damaged { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn wait_for(view: &View, block: u64, download: &mut Download) -> Result<Bytes, ReadError> {
    let feed = view.feed();
    let mut progress = feed.watch();
    loop {
        progress.borrow_and_update();
        let halt = feed.halt();
        if let Some(bytes) = here(view, block).await? {
            return Ok(bytes);
        }
        if let Some(why) = download.halted() {
            return Err(why.into());
        }
        let news = |_: &Info| feed.is_removed() || feed.has(block) || feed.halt() != halt;
        tokio::select! {
            _ = async { _ = progress.wait_for(news).await } => {}
            why = stopped(download) => return Err(why.into()),
        }
    }
}

async fn stopped(download: &mut Download) -> Stopped {
    match download.stopped().wait_for(Option::is_some).await.map(|why| why.clone()) {
        Ok(Some(why)) => why,
        // The sender is gone with the plan: somebody else wants the feed anew.
        _ => Stopped::Replaced,
    }
}
