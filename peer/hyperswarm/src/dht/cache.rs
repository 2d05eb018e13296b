//! The nodes that were known last, in a file: so that a node that begins again needs nobody to introduce it.
//!
//! ```text
//! one line for each:  1.2.3.4:49737
//! ```

use std::io::{self, Read, Write};
use std::net::SocketAddrV4;
use std::path::Path;

/// Most nodes that are written or read.
pub const MAX_NODES: usize = 512;
/// The longest line, with its end: a longer file than so many has none of ours.
const LONGEST: usize = "255.255.255.255:65535\n".len();

/// The nodes in a file; none if there's no such file, and only those that can be read if it is damaged.
pub fn read(path: &Path) -> Vec<SocketAddrV4> {
    let mut text = Vec::new();
    let limit = (MAX_NODES * LONGEST) as u64;
    let Ok(_) = std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut text)) else {
        return Vec::new();
    };
    text.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok()?.parse().ok()).collect()
}

/// Puts nodes into a file, in the place of those that it had. Without any it is left as it was: they may be back.
pub fn write(path: &Path, nodes: &[SocketAddrV4]) -> io::Result<()> {
    if nodes.is_empty() {
        return Ok(());
    }
    let text: String = nodes.iter().take(MAX_NODES).map(|node| format!("{node}\n")).collect();
    let new = path.with_extension("new");
    std::fs::File::create(&new)?.write_all(text.as_bytes())?;
    std::fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_come_back_and_rubbish_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nodes");
        assert_eq!(read(&path), []);
        let nodes: Vec<SocketAddrV4> =
            (0..600u32).map(|n| SocketAddrV4::new((0xffff_0000 + n).into(), 65_535)).collect();
        write(&path, &nodes).unwrap();
        assert_eq!(read(&path), nodes[..MAX_NODES]);
        write(&path, &[]).unwrap();
        assert_eq!(read(&path).len(), MAX_NODES);
        std::fs::write(&path, b"1.2.3.4:5\n\xff\xfe\nrubbish\n6.7.8.9:1").unwrap();
        assert_eq!(read(&path), ["1.2.3.4:5".parse().unwrap(), "6.7.8.9:1".parse().unwrap()]);
        std::fs::write(&path, vec![b'7'; 10 << 20]).unwrap();
        assert_eq!(read(&path), []);
    }
}
