//! Nodes of the DHT in JavaScript that do what a test says.

use serde_json::{Value, json};
use std::net::SocketAddrV4;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Waits for something that has to come soon.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), what).await.expect("it comes in time")
}

/// `tests/js/dht.js`, ended with the value.
pub struct JsDht {
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    /// Where to begin.
    pub bootstrap: Vec<SocketAddrV4>,
    /// What it said when it was ready.
    pub ready: Value,
}

impl JsDht {
    /// Some nodes of the DHT and a guest, of a new DHT or of one that begins with `bootstrap`.
    pub async fn start(nodes: usize, bootstrap: &[SocketAddrV4]) -> JsDht {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/js");
        static INSTALL: Mutex<()> = Mutex::new(());
        {
            let _one_at_a_time = INSTALL.lock().unwrap_or_else(PoisonError::into_inner);
            if !dir.join("node_modules/hyperdht").exists() {
                let npm = std::process::Command::new("npm").args(["ci", "--silent"]).current_dir(&dir).status();
                assert!(npm.expect("npm is installed").success());
            }
        }
        let mut command = Command::new("node");
        command.arg("dht.js").arg(format!("--nodes={nodes}"));
        if !bootstrap.is_empty() {
            let bootstrap: Vec<_> = bootstrap.iter().map(ToString::to_string).collect();
            command.arg(format!("--bootstrap={}", bootstrap.join(",")));
        }
        let child = command.current_dir(dir).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn();
        let mut child = child.expect("node is installed");
        let input = child.stdin.take().expect("it is piped");
        let output = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let mut js = JsDht { _child: child, input, output, bootstrap: Vec::new(), ready: Value::Null };
        js.ready = js.event("ready").await;
        js.bootstrap = addresses(&js.ready["bootstrap"]);
        js
    }

    /// Lets the guest do something and returns what it says.
    pub async fn call(&mut self, command: &str, mut arguments: Value) -> Value {
        arguments["do"] = json!(command);
        self.input.write_all(format!("{arguments}\n").as_bytes()).await.expect("it reads");
        self.event(command).await
    }

    async fn event(&mut self, event: &str) -> Value {
        soon(async {
            let line = self.output.next_line().await.expect("text").expect("it goes on");
            println!("javascript: {line}");
            let line: Value = serde_json::from_str(&line).expect("JSON");
            assert_eq!(line["event"], event);
            line
        })
        .await
    }
}

/// The addresses of a JSON array.
pub fn addresses(list: &Value) -> Vec<SocketAddrV4> {
    let list = list.as_array().expect("a list");
    list.iter().map(|address| address.as_str().expect("text").parse().expect("an address")).collect()
}
