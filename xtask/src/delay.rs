//! A link with a long way: a proxy on loopback that hands on what it gets a while later.

use anyhow::Result;
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::mpsc::sync_channel,
    thread,
    time::{Duration, Instant},
};

/// Bytes read at a time.
const PIECE: usize = 64 << 10;
/// Pieces on their way: the link holds so much at most, as buffers on a real one do.
const PIECES: usize = 1024;

/// Begins to forward connections to `port`, each byte `delay` late in both directions. Returns the port to connect to.
pub fn link(port: u16, delay: Duration) -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            let Ok(far) = TcpStream::connect(("127.0.0.1", port)) else { continue };
            for (from, to) in [(&near, &far), (&far, &near)] {
                if let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) {
                    pour(from, to, delay);
                }
            }
        }
    });
    Ok(address.port())
}

fn pour(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    _ = to.set_nodelay(true);
    let (piece, pieces) = sync_channel::<(Instant, Vec<u8>)>(PIECES);
    thread::spawn(move || {
        for (at, bytes) in pieces {
            thread::sleep(at.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                return;
            }
        }
        _ = to.shutdown(std::net::Shutdown::Write);
    });
    thread::spawn(move || {
        let mut buffer = vec![0; PIECE];
        while let Ok(len @ 1..) = from.read(&mut buffer) {
            if piece.send((Instant::now() + delay, buffer[..len].to_vec())).is_err() {
                return;
            }
        }
    });
}
