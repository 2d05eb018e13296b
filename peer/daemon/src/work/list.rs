//! Listing what is in a drive.

use super::{
    Work, blocking,
    subject::{Subject, bytes_at, no_drive, no_files, not_there, path_in},
};
use datdot_api::{ListOrder, Listed};
use datdot_drive::{Content, DriveError, DrivePath, Entry, Version};
use tokio::sync::mpsc;

/// Who wants to have no more.
struct Enough;

impl Work {
    /// Lists a drive, or a folder or file of it; its metadata comes here for that.
    pub async fn list(self, order: ListOrder, to: mpsc::Sender<Listed>) {
        let (key, told) = (order.key, to.clone());
        let listing = async {
            tokio::select! {
                listed = self.list_kept(order, told) => listed,
                // What nobody waits for need not come.
                () = to.closed() => Ok(()),
            }
        };
        if let Err(error) = self.keeping(key, listing).await {
            // Nobody listens any more: fine.
            _ = to.send(Listed::Failed { error }).await;
        }
    }

    async fn list_kept(&self, order: ListOrder, to: mpsc::Sender<Listed>) -> Result<(), String> {
        let inside = path_in(order.inside.as_deref())?;
        // Progress of the metadata is of no interest.
        let (steps, _) = mpsc::channel(1);
        let key_file = order.encryption_key_file.as_deref();
        let version = match self.find_out(order.key, key_file, &order.from, self.ctx.room()?, &steps).await?.subject {
            Subject::Drive(version) => version,
            Subject::Feed(_) => return Err(no_drive(order.key)),
            Subject::Bee(_) => return Err(no_files(order.key)),
        };
        let path = inside.clone();
        let listed = blocking(move || list(&version, path.as_ref(), order.recursive, &to)).await?;
        match (listed.map_err(|error| error.to_string())?, inside) {
            (false, Some(path)) => Err(not_there(order.key, &path)),
            _ => Ok(()),
        }
    }
}

/// Says whether there was anything.
fn list(
    version: &Version,
    inside: Option<&DrivePath>,
    recursive: bool,
    to: &mpsc::Sender<Listed>,
) -> Result<bool, DriveError> {
    let mut any = false;
    let mut tell = |line| {
        any = true;
        to.blocking_send(line).map_err(|_| Enough)
    };
    let done = (|| {
        let single = inside.map_or(Ok(None), |path| version.entry(path))?;
        if let (Some(path), Some(entry)) = (inside, single) {
            let name = path.parts().next_back().expect("a path has a part").to_owned();
            if tell(line(name, &entry)).is_err() {
                return Ok(());
            }
        }
        let depth = inside.map_or(0, |path| path.parts().count());
        let mut folder: Option<Listed> = None;
        for entry in version.entries(inside) {
            let listed = match entry {
                Ok((path, entry)) => {
                    let mut parts = path.parts().skip(depth);
                    let first = parts.next().expect("it is a path below the folder");
                    let is_below = parts.next().is_some();
                    if is_below && !recursive && count(&mut folder, first, bytes_at(&entry)) {
                        continue;
                    }
                    match is_below && !recursive {
                        true => Listed::Folder { path: first.into(), files: 1, bytes: bytes_at(&entry) },
                        false => line(Vec::from_iter(path.parts().skip(depth)).join("/"), &entry),
                    }
                }
                Err(DriveError::Entry(bad)) => Listed::Bad { path: bad.name, why: bad.why.to_string() },
                Err(error) => return Err(error),
            };
            let before = match listed {
                Listed::Folder { .. } => folder.replace(listed).into_iter().collect::<Vec<_>>(),
                listed => folder.take().into_iter().chain([listed]).collect(),
            };
            if before.into_iter().try_for_each(&mut tell).is_err() {
                return Ok(());
            }
        }
        _ = folder.map(&mut tell);
        Ok(())
    })();
    done?;
    if any || inside.is_none() {
        _ = to.blocking_send(Listed::Done { version: version.version() });
    }
    Ok(any)
}

/// Counts a file to the folder that was met last, if it is in it: what is in one folder comes together.
fn count(folder: &mut Option<Listed>, name: &str, size: u64) -> bool {
    match folder {
        Some(Listed::Folder { path, files, bytes }) if path == name => {
            *files += 1;
            *bytes = bytes.saturating_add(size);
            true
        }
        _ => false,
    }
}

fn line(path: String, entry: &Entry) -> Listed {
    match &entry.content {
        Content::File { blob, executable } => Listed::File { path, bytes: blob.byte_length, executable: *executable },
        Content::Link { target } => Listed::Link { path, target: target.clone() },
        Content::Bare => Listed::Bad { path, why: "a name with nothing behind it".into() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::tests::alone;
    use datdot_api::{Key, StreamOrder};
    use datdot_drive::{Drive, import::import};
    use datdot_hypercore::{Keypair, Store};
    use std::{fs, net::TcpListener, ops::ControlFlow, time::Duration};
    use tokio::time::timeout;

    fn names(drive: &Drive, inside: &str, recursive: bool) -> Vec<String> {
        let (to, mut from) = mpsc::channel(100);
        list(&drive.latest(), path_in(Some(inside)).unwrap().as_ref(), recursive, &to).unwrap();
        drop(to);
        let shown = |listed| match listed {
            Listed::File { path, bytes, .. } => format!("{path} {bytes}"),
            Listed::Link { path, target } => format!("{path} -> {target}"),
            Listed::Folder { path, files, bytes } => format!("{path}/ {files} {bytes}"),
            other => format!("{other:?}"),
        };
        std::iter::from_fn(|| from.blocking_recv()).map(shown).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_nobody_waits_for_is_looked_for_no_longer() {
        let dir = tempfile::tempdir().unwrap();
        let daemon = alone(dir.path()).await;
        // It takes connections, and never says a word.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let (key, from) = (Key([1; 32]), vec![silent.local_addr().unwrap().to_string()]);
        let order = ListOrder { key, inside: None, recursive: false, encryption_key_file: None, from: from.clone() };
        let (to, listens) = mpsc::channel(1);
        let listing = tokio::spawn(daemon.work.clone().list(order, to));
        drop(listens);
        timeout(Duration::from_secs(1), listing).await.unwrap().unwrap();

        let order = StreamOrder { key, inside: Some("/file".into()), encryption_key_file: None, from };
        _ = timeout(Duration::from_millis(100), daemon.work.stream(order)).await;
        let mut jobs = daemon.work.jobs.close().unwrap();
        assert_eq!(jobs.len(), 1);
        timeout(Duration::from_secs(1), jobs.join_next()).await.unwrap();
        daemon.stop().await;
    }

    #[test]
    fn a_folder_is_listed_with_what_is_below_it_counted_or_named() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        for (name, content) in [("a/b/c", "1"), ("a/d", "22"), ("a.txt", "333"), ("z/y", "4444")] {
            let path = source.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        std::os::unix::fs::symlink("d", source.join("a/link")).unwrap();
        let store = Store::open(dir.path().join("store")).unwrap();
        let drive = Drive::create(&store, &Keypair::from_seed([1; 32])).unwrap();
        import(&drive, &source, &mut |_| ControlFlow::Continue(())).unwrap();
        let done = format!("Done {{ version: {} }}", drive.version());
        assert_eq!(names(&drive, "", false), ["a.txt 3", "a/ 3 3", "z/ 1 4", &done]);
        assert_eq!(names(&drive, "a", false), ["b/ 1 1", "d 2", "link -> d", &done]);
        assert_eq!(names(&drive, "/a/b/c", false), ["c 1", &done]);
        assert_eq!(names(&drive, "/", true), ["a.txt 3", "a/b/c 1", "a/d 2", "a/link -> d", "z/y 4", &done]);
        assert_eq!(names(&drive, "nothing", false), [""; 0]);
    }

    #[test]
    fn a_name_may_begin_and_end_with_a_space() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("store")).unwrap();
        let drive = Drive::create(&store, &Keypair::from_seed([1; 32])).unwrap();
        for path in ["/ a /b ", "/ "] {
            drive.put(&path.parse().unwrap(), &mut &b"1"[..], false).unwrap();
        }
        let done = format!("Done {{ version: {} }}", drive.version());
        assert_eq!(names(&drive, " a ", false), ["b  1", &done]);
        assert_eq!(names(&drive, "/ a /b ", false), ["b  1", &done]);
        assert_eq!(names(&drive, " ", false), ["  1", &done]);
    }
}
