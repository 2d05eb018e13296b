//! What is said when there is no ledger.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use datdot_ledger::{Error, Ledger};
use std::{net::TcpListener, time::Duration};
use tokio::time::timeout;

async fn refused(url: &str) -> Error {
    timeout(Duration::from_secs(60), Ledger::connect(url)).await.unwrap().err().unwrap()
}

#[tokio::test]
async fn a_ledger_that_is_not_there_is_named_with_what_to_do() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("ws://127.0.0.1:{port}");
    let said = refused(&url).await.to_string();
    assert!(said.contains(&url) && said.contains("datdot dev"), "{said}");
}

#[tokio::test]
async fn a_text_that_is_no_address_of_a_ledger_is_not_dialled() {
    for url in ["", "9944", "127.0.0.1:9944", "http://127.0.0.1:9944"] {
        assert_eq!(refused(url).await, Error::BadUrl(url.into()));
    }
}

#[tokio::test]
async fn something_else_that_listens_there_is_not_taken_for_a_ledger() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"220 mail ready\r\n").await.ok();
        }
    });
    assert!(matches!(refused(&url).await, Error::Unreachable { .. }));
    server.abort();
}
