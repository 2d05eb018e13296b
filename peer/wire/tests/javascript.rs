//! Our connection and multiplexer against @hyperswarm/secret-stream and protomux (`tests/js/echo.js`).

#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use datdot_wire::connection::{Options, TcpConnection, accept, connect};
use datdot_wire::mux::{ChannelId, Event, Mux};
use datdot_wire::noise::{Keypair, Role};
use serde_json::Value;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Once;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

struct Script {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Script {
    async fn start(args: &[&str]) -> Self {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/js");
        static INSTALL: Once = Once::new();
        INSTALL.call_once(|| {
            if !folder.join("node_modules").exists() {
                let installed = std::process::Command::new("npm").arg("ci").current_dir(&folder).status();
                assert!(installed.expect("npm is installed").success());
            }
        });
        let mut command = Command::new("node");
        command.arg("echo.js").args(args).current_dir(&folder).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("node is installed");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Script { _child: child, lines }
    }

    /// The next event of that name.
    async fn event(&mut self, event: &str) -> Value {
        loop {
            let line = timeout(Duration::from_secs(30), self.lines.next_line()).await.unwrap().unwrap();
            let value: Value = serde_json::from_str(&line.expect("the script still runs")).unwrap();
            if value["event"] == event {
                return value;
            }
        }
    }
}

struct Peer {
    connection: TcpConnection,
    mux: Mux,
}

impl Peer {
    async fn called(keys: &Keypair) -> (Script, Peer) {
        let mut script = Script::start(&["listen"]).await;
        let port = script.event("listening").await["port"].as_u64().unwrap() as u16;
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let connection = connect(stream, keys, None, &Options::default()).await.unwrap();
        (script, Peer { connection, mux: Mux::new() })
    }

    async fn flush(&mut self) {
        while let Some(frame) = self.mux.take_output() {
            self.connection.writer.send(&frame).await.unwrap();
        }
        self.connection.writer.flush().await.unwrap();
    }

    async fn event(&mut self) -> Event {
        timeout(Duration::from_secs(30), async {
            loop {
                if let Some(event) = self.mux.next().unwrap() {
                    return event;
                }
                self.flush().await;
                self.mux.receive(self.connection.reader.next().await.unwrap().expect("JavaScript is still there"));
            }
        })
        .await
        .unwrap()
    }

    async fn message(&mut self, on: ChannelId) -> Vec<u8> {
        let event = self.event().await;
        let Event::Message { channel, kind: 0, body } = event else { panic!("{event:?}") };
        assert_eq!(channel, on);
        body.to_vec()
    }
}

const HELLO: &[u8] = b"\x15hello from JavaScript";

#[tokio::test]
async fn we_call_javascript_and_it_answers() {
    let keys = Keypair::from_seed(&[1; 32]);
    let (mut script, mut peer) = Peer::called(&keys).await;
    let connected = script.event("connected").await;
    assert_eq!(connected["remotePublicKey"], hex::encode(keys.public()));
    assert_eq!(connected["publicKey"], hex::encode(peer.connection.remote));
    assert_eq!(connected["handshakeHash"], hex::encode(peer.connection.handshake_hash));

    // Data ahead of the answer, a channel that JavaScript does not know, and one that is closed too early.
    let room = peer.mux.open("echo", b"room", b"\x04hey!").unwrap();
    peer.mux.send(room, 0, b"early").unwrap();
    let unknown = peer.mux.open("wakeup", b"id", b"").unwrap();
    let early = peer.mux.open("echo", b"early", b"\0").unwrap();
    peer.mux.close(early);
    assert_eq!(peer.event().await, Event::Opened { channel: room, handshake: HELLO.into() });
    // In whichever order: JavaScript decides in promises.
    let next = [peer.event().await, peer.event().await];
    assert!(next.contains(&Event::Message { channel: room, kind: 0, body: "early".into() }), "{next:?}");
    assert!(next.contains(&Event::Rejected { channel: unknown }), "{next:?}");
    assert_eq!(script.event("open").await["greeting"], "hey!");

    // Sizes around each length of an integer, and one that needs frames of its own.
    for size in [0, 1, 252, 253, 65_535, 65_536, 300_000, 9_000_000] {
        let body: Vec<u8> = (0..size).map(|n: u32| (n % 251) as u8).collect();
        peer.mux.send(room, 0, &body).unwrap();
        assert!(peer.message(room).await == body, "{size} bytes came back changed");
    }
    peer.mux.send(room, 1, &[200]).unwrap();
    for n in 0..200 {
        assert_eq!(peer.message(room).await, vec![n as u8; n]);
    }
    peer.mux.close(room);
    peer.mux.open("echo", b"last", b"\0").unwrap();
    assert!(matches!(peer.event().await, Event::Opened { .. }));
}

#[tokio::test]
async fn javascript_calls_us_closes_and_opens_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut script = Script::start(&["connect", &listener.local_addr().unwrap().port().to_string()]).await;
    let keys = Keypair::from_seed(&[2; 32]);
    let connection = accept(listener.accept().await.unwrap().0, &keys, &Options::default()).await.unwrap();
    assert_eq!(connection.role, Role::Responder);
    let mut peer = Peer { connection, mux: Mux::new() };
    let connected = script.event("connected").await;
    assert_eq!(connected["remotePublicKey"], hex::encode(keys.public()));
    assert_eq!(connected["handshakeHash"], hex::encode(peer.connection.handshake_hash));

    for round in 0..3 {
        let event = peer.event().await;
        let Event::OpenRequested { protocol, id, handshake, .. } = event else { panic!("{event:?}") };
        assert_eq!((&protocol[..], &id[..], &handshake[..]), ("echo", &b"called"[..], HELLO));
        let channel = peer.mux.open(&protocol, &id, b"\x02hi").unwrap();
        assert_eq!(peer.event().await, Event::Opened { channel, handshake });
        peer.mux.send(channel, 0, &[round; 10]).unwrap();
        assert_eq!(peer.message(channel).await, [round; 10]);
        peer.mux.send(channel, 2, b"").unwrap();
        assert_eq!(peer.event().await, Event::Closed { channel });
    }
    let Event::OpenRequested { request, .. } = peer.event().await else { panic!() };
    peer.mux.reject(request);
    let again = peer.mux.open("echo", b"other", b"\0").unwrap();
    assert!(matches!(peer.event().await, Event::Opened { channel, .. } if channel == again));
}

#[tokio::test]
async fn keep_alives_of_both_sides_pass_unseen() {
    let (_script, mut peer) = Peer::called(&Keypair::from_seed(&[3; 32])).await;
    peer.connection.writer.queue(b"").unwrap();
    peer.connection.writer.flush().await.unwrap();
    // JavaScript sends one every 500 ms here.
    assert!(timeout(Duration::from_secs(2), peer.connection.reader.next()).await.is_err());
    let channel = peer.mux.open("echo", b"", b"\0").unwrap();
    assert!(matches!(peer.event().await, Event::Opened { channel: opened, .. } if opened == channel));
}
