//! A feed, or a file of a drive, as bytes that are sent on as they come.

use super::{
    Work, blobs_of, blocking,
    subject::{Subject, no_drive, no_files, not_there, path_in, view_of},
};
use crate::fetch::Wanted as Fetch;
use bytes::Bytes;
use datdot_api::{Key, Size, StreamOrder};
use datdot_drive::{
    Blob, Content, DriveError, DrivePath, Version,
    fetch::{Round, wanted},
};
use datdot_hypercore::{FeedError, View};
use std::{io, ops::Range, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

/// Pieces that wait for a slow reader.
const WAITING: usize = 4;
/// A block that was here and is damaged comes again within this time, or not at all.
const LATE: Duration = Duration::from_secs(60);

/// A content that comes.
pub(crate) struct Streamed {
    /// Its bytes. Fewer come if it fails.
    pub bytes: u64,
    /// The bytes.
    pub pieces: mpsc::Receiver<io::Result<Bytes>>,
}

/// Who waits to hear that it comes.
type Asked = Option<oneshot::Sender<Result<Streamed, String>>>;

/// Where a content is.
struct Place {
    feed: View,
    /// Its blocks in its order.
    blocks: Vec<Range<u64>>,
    /// The same in ascending order.
    runs: Vec<Range<u64>>,
    bytes: u64,
}

impl Work {
    /// Begins to send a feed or a file of a drive; answers when its size is known.
    pub async fn stream(&self, order: StreamOrder) -> Result<Streamed, String> {
        let (ask, answer) = oneshot::channel();
        let work = self.clone();
        self.jobs.spawn(async move {
            let mut asked = Some(ask);
            let streamed = work.keeping(order.key, work.stream_kept(&order, &mut asked)).await;
            match (streamed, asked) {
                (Err(why), Some(asked)) => _ = asked.send(Err(why)),
                (Err(why), None) => work.ctx.trouble(format!("{} was sent in part only: {why}", order.key)),
                (Ok(()), _) => {}
            }
        });
        answer.await.map_err(|_| "the daemon stops".to_owned())?
    }

    async fn stream_kept(&self, order: &StreamOrder, asked: &mut Asked) -> Result<(), String> {
        let inside = path_in(order.inside.as_deref())?;
        let (steps, _) = mpsc::channel(1);
        let key_file = order.encryption_key_file.as_deref();
        let finding = self.find_out(order.key, key_file, &order.from, self.ctx.room()?, &steps);
        match (as_long_as_asked(asked, finding).await?.subject, inside) {
            (Subject::Bee(_), _) => Err(no_files(order.key)),
            (Subject::Feed(_), Some(_)) => Err(no_drive(order.key)),
            (Subject::Feed(feed), None) => {
                let whole = vec![0..feed.info().length];
                let feed = view_of(&feed, key_file).await?;
                let place = Place { blocks: whole.clone(), runs: whole, bytes: feed.bytes(), feed };
                self.pour(order, place, asked).await
            }
            (Subject::Drive(_), None) => Err(format!(
                "{key} is a drive: name a file of it, as in {key}/path; `datdot ls {key}` shows them",
                key = order.key
            )),
            (Subject::Drive(version), Some(path)) => {
                let work = async {
                    let blob = file_at(order.key, &version, &path).await?;
                    let place = as_long_as_asked(asked, self.place(order, &version, &path, blob)).await?;
                    self.pour(order, place, asked).await
                };
                self.keeping(blobs_of(&version).await?, work).await
            }
        }
    }

    /// Where the file is; of a deduplicated one the list of blocks comes for that.
    async fn place(
        &self,
        order: &StreamOrder,
        version: &Arc<Version>,
        path: &DrivePath,
        blob: Blob,
    ) -> Result<Place, String> {
        if blob.block_map {
            let list = blob.block_offset..blob.block_offset.saturating_add(blob.block_length);
            let lists = Fetch::Runs { runs: vec![list], bytes: 0, room: self.ctx.room()? };
            let (steps, _) = mpsc::channel(1);
            self.fetch_as(blobs_of(version).await?, lists, &order.from, &steps).await?;
        }
        let (version, path) = (version.clone(), path.clone());
        let place = blocking(move || {
            let layout = version.layout(&path, &blob)?;
            let runs = wanted(&version, Some(&path), Round::Contents)?;
            let feed = version.drive().contents()?;
            Ok(Place { feed, blocks: layout.runs(), runs, bytes: layout.bytes() })
        });
        place.await?.map_err(|error: DriveError| error.to_string())
    }

    /// Fetches what is not here and sends it on in its order.
    async fn pour(&self, order: &StreamOrder, place: Place, asked: &mut Asked) -> Result<(), String> {
        let Place { feed: view, blocks, runs, bytes } = place;
        let feed = view.feed();
        let room = self.ctx.room()?;
        if bytes > room && runs.iter().any(|run| feed.missing_in(run.clone()) > 0) {
            return Err(format!("it has {}, but there is room for {} to fetch it", Size(bytes), Size(room)));
        }
        let (to, pieces) = mpsc::channel(WAITING);
        let Some(asked) = asked.take() else { return Ok(()) };
        if asked.send(Ok(Streamed { bytes, pieces })).is_err() {
            return Ok(());
        }
        let (steps, _) = mpsc::channel(1);
        let wanted = Fetch::Runs { runs, bytes, room };
        let fetching = self.fetch_as(Key(feed.key().0), wanted, &order.from, &steps);
        let sent = async {
            let sending = send(&view, blocks, bytes, &to);
            tokio::pin!(sending);
            tokio::select! {
                sent = &mut sending => return sent,
                fetched = fetching => { fetched?; }
            }
            sending.await
        };
        let sent = sent.await;
        if let Err(why) = &sent {
            // The other side notices that not all has come.
            _ = to.send(Err(io::Error::other(why.clone()))).await;
        }
        sent
    }
}

/// Does what somebody waits for who asked, for no longer than that.
async fn as_long_as_asked<T>(asked: &mut Asked, work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let Some(asked) = asked else { return work.await };
    tokio::select! {
        done = work => done,
        () = asked.closed() => Err("nobody waits for it any more".into()),
    }
}

/// Sends blocks one after the other, each as soon as it is here; ends early if nobody takes them.
async fn send(
    view: &View,
    blocks: Vec<Range<u64>>,
    bytes: u64,
    to: &mpsc::Sender<io::Result<Bytes>>,
) -> Result<(), String> {
    let mut left = bytes;
    let mut watch = view.feed().watch();
    for block in blocks.into_iter().flatten() {
        let piece = loop {
            watch.borrow_and_update();
            match view.get(block).await {
                Ok(piece) => break piece,
                Err(FeedError::NotHere { .. } | FeedError::Damaged { .. } | FeedError::OutOfRange { .. }) => {
                    _ = timeout(LATE, watch.changed()).await.map_err(|_| format!("block {block} does not come"))?;
                }
                Err(error) => return Err(error.to_string()),
            }
        };
        let len = piece.len() as u64;
        left = left.checked_sub(len).ok_or("it is longer than the drive says")?;
        if to.send(Ok(piece)).await.is_err() {
            return Ok(());
        }
    }
    if left == 0 { Ok(()) } else { Err("it is shorter than the drive says".into()) }
}

/// The place of a file that can be sent.
async fn file_at(key: Key, version: &Arc<Version>, path: &DrivePath) -> Result<Blob, String> {
    let (version, at) = (version.clone(), path.clone());
    let found = blocking(move || match version.entry(&at)? {
        None => Ok((None, version.entries(Some(&at)).next().is_some())),
        Some(entry) => Ok((Some(entry.content), false)),
    });
    match found.await?.map_err(|error: DriveError| error.to_string())? {
        (Some(Content::File { blob, .. }), _) => Ok(blob),
        (Some(Content::Link { target }), _) => {
            Err(format!("{path} is a link to {}: ask for that", target.escape_debug()))
        }
        (Some(Content::Bare), _) => Err(format!("{path} is a name with nothing behind it")),
        (None, true) => Err(format!("{path} is a folder: `datdot get {key}{path} FOLDER` reads it")),
        (None, false) => Err(not_there(key, path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datdot_drive::Drive;
    use datdot_hypercore::{Encryption, Keypair, Store};

    async fn sent(feed: impl Into<View>, blocks: Vec<Range<u64>>, bytes: u64) -> (Result<(), String>, Vec<u8>) {
        let (to, mut pieces) = mpsc::channel(100);
        let sent = send(&feed.into(), blocks, bytes, &to).await;
        drop(to);
        let mut all = Vec::new();
        while let Some(Ok(piece)) = pieces.recv().await {
            all.extend_from_slice(&piece);
        }
        (sent, all)
    }

    #[tokio::test]
    async fn where_a_strangers_link_leads_is_told_without_moving_the_cursor() {
        let dir = tempfile::tempdir().unwrap();
        let drive = Drive::create(&Store::open(dir.path()).unwrap(), &Keypair::from_seed([1; 32])).unwrap();
        let path: DrivePath = "/link".parse().unwrap();
        drive.put_link(&path, "\u{1b}[2Jfile").unwrap();
        let why = file_at(Key(drive.key().0), &Arc::new(drive.latest()), &path).await.unwrap_err();
        assert!(why.contains("[2Jfile") && !why.contains('\u{1b}'), "{why:?}");
    }

    #[tokio::test]
    async fn a_content_is_sent_in_its_order_and_never_more_of_it_than_was_told() {
        let dir = tempfile::tempdir().unwrap();
        let feed = Store::open(dir.path()).unwrap().create(&Keypair::from_seed([1; 32])).unwrap();
        feed.append(["a", "bb", "ccc"].map(Bytes::from).into()).await.unwrap();
        assert_eq!(sent(&feed, vec![2..3, 0..2, 2..3], 9).await, (Ok(()), b"cccabbccc".into()));
        let (short, _) = sent(&feed, vec![0..3], 7).await;
        assert!(short.unwrap_err().contains("shorter"));
        let (long, all) = sent(&feed, vec![0..3], 5).await;
        assert!(long.unwrap_err().contains("longer"));
        assert_eq!(all, b"abb");
    }

    #[tokio::test]
    async fn a_block_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let feed = Store::open(dir.path()).unwrap().create(&Keypair::from_seed([1; 32])).unwrap();
        feed.append(vec!["a".into()]).await.unwrap();
        let (sent, ()) = tokio::join!(sent(&feed, vec![0..2], 2), async {
            tokio::task::yield_now().await;
            feed.append(vec!["b".into()]).await.unwrap();
        });
        assert_eq!(sent, (Ok(()), b"ab".into()));
    }

    #[tokio::test]
    async fn with_its_key_file_a_feed_is_sent_as_it_was_before_it_was_encrypted() {
        let dir = tempfile::tempdir().unwrap();
        let feed = Store::open(dir.path().join("store")).unwrap().create(&Keypair::from_seed([1; 32])).unwrap();
        let encryption = Encryption::new(&feed.key(), &[7; 32]);
        feed.append(vec![encryption.encrypt(0, 0, b"sec"), encryption.encrypt(1, 0, b"ret")]).await.unwrap();
        let file = dir.path().join("key");
        std::fs::write(&file, format!("{}\n", "07".repeat(32))).unwrap();
        let view = view_of(&feed, Some(&file)).await.unwrap();
        assert_eq!(view.bytes(), 6);
        assert_eq!(sent(&view, vec![0..2], 6).await, (Ok(()), b"secret".into()));

        std::fs::write(&file, "07").unwrap();
        for (file, word) in [(file, "64 hex digits"), (dir.path().join("none"), "none"), ("key".into(), "absolute")] {
            let why = view_of(&feed, Some(&file)).await.unwrap_err();
            assert!(why.contains(word), "{why}");
        }
    }
}
