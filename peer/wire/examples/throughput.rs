//! How fast an encrypted connection is on this machine, over loopback and without one.
//!
//! `cargo run --release -p datdot-wire --example throughput`

use bytes::{Bytes, BytesMut};
use datdot_wire::connection::{Options, accept, connect};
use datdot_wire::mux::{Event, Mux};
use datdot_wire::noise::{Handshake, Keypair, Role};
use datdot_wire::secret_stream::{Pull, Push};
use std::error::Error;
use std::time::Instant;
use tokio::net::{TcpListener, TcpStream};

const TOTAL: usize = 2 << 30;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    for size in [1 << 10, 64 << 10, 256 << 10] {
        let (seal, open) = cipher(size)?;
        let raw = loopback(size, false).await?;
        let multiplexed = loopback(size, true).await?;
        println!(
            "{size:>7} B: encrypt {seal:.0}, decrypt {open:.0}, over TCP {raw:.0}, with mux {multiplexed:.0} MB/s"
        );
    }
    Ok(())
}

/// Encrypting and decrypting alone, each on one core.
fn cipher(size: usize) -> Result<(f64, f64), Box<dyn Error>> {
    let mut i = Handshake::xx(Role::Initiator, &Keypair::from_seed(&[1; 32]), None, &[3; 32]);
    let mut r = Handshake::xx(Role::Responder, &Keypair::from_seed(&[2; 32]), None, &[4; 32]);
    r.read(&i.write(b"")?)?;
    i.read(&r.write(b"")?)?;
    r.read(&i.write(b"")?)?;
    let (mut push, header) = Push::new(&i.finish()?, &[9; 24]);
    let mut pull = Pull::new(&r.finish()?, &header)?;
    let text = vec![7; size];
    let (mut sealing, mut opening) = (0.0, 0.0);
    let rounds = TOTAL / 8 / size;
    for _ in 0..rounds {
        let mut out = Vec::with_capacity(size + 20);
        let start = Instant::now();
        push.push(&text, &mut out)?;
        sealing += start.elapsed().as_secs_f64();
        let frame = BytesMut::from(&out[3..]);
        let start = Instant::now();
        pull.pull(frame)?;
        opening += start.elapsed().as_secs_f64();
    }
    let megabytes = (rounds * size) as f64 / 1e6;
    Ok((megabytes / sealing, megabytes / opening))
}

async fn loopback(size: usize, multiplexed: bool) -> Result<f64, Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let total = if size < 4 << 10 { TOTAL / 8 } else { TOTAL };
    let sender = tokio::spawn(async move {
        let mut connection =
            connect(TcpStream::connect(address).await.ok()?, &Keypair::from_seed(&[1; 32]), None, &Options::default())
                .await
                .ok()?;
        let body = vec![7; size];
        let mut mux = Mux::new();
        let channel = mux.open("throughput", b"", b"").ok()?;
        for n in 1..=total / size {
            if multiplexed {
                mux.send(channel, 0, &body).ok()?;
                if mux.output_len() < 256 << 10 && n < total / size {
                    continue;
                }
                while let Some(frame) = mux.take_output() {
                    connection.writer.send(&frame).await.ok()?;
                }
            } else {
                connection.writer.send(&body).await.ok()?;
            }
        }
        connection.writer.close().await.ok()
    });
    let mut connection = accept(listener.accept().await?.0, &Keypair::from_seed(&[2; 32]), &Options::default()).await?;
    let start = Instant::now();
    let mut mux = Mux::new();
    let mut received = 0;
    while received < total {
        let text: Bytes = connection.reader.next().await?.ok_or("ended early")?;
        if !multiplexed {
            received += text.len();
            continue;
        }
        mux.receive(text);
        while let Some(event) = mux.next()? {
            match event {
                Event::OpenRequested { .. } => _ = mux.open("throughput", b"", b"")?,
                Event::Message { body, .. } => received += body.len(),
                _ => {}
            }
        }
    }
    let rate = total as f64 / 1e6 / start.elapsed().as_secs_f64();
    sender.await?.ok_or("the sender failed")?;
    Ok(rate)
}
