//! Our encoders beside JavaScript's: drives `encode.js`. Shared by the tests of the crates that encode.

#![allow(dead_code, reason = "each test program uses a part")]

use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// Messages of each kind.
pub const EACH: usize = 2_000;

/// The program; killed when dropped. One in a test program: it installs the packages if they are missing.
pub struct JavaScript {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl JavaScript {
    pub fn start() -> JavaScript {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/js");
        if !dir.join("node_modules").exists() {
            let npm = Command::new("npm").args(["ci", "--silent"]).current_dir(&dir).status();
            assert!(npm.expect("npm is installed").success());
        }
        let mut command = Command::new("node");
        command.arg("encode.js").current_dir(dir).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("node is installed");
        let input = child.stdin.take().expect("it is piped");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        JavaScript { child, input, output }
    }

    /// Values of a kind as it encodes them, in hex.
    pub fn encode(&mut self, kind: &str, values: &[Value]) -> Vec<String> {
        writeln!(self.input, "{}", json!({ "kind": kind, "values": values })).expect("it reads");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it writes");
        let answer: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(answer["event"], "encoded", "{kind}: {answer}");
        let bytes = answer["bytes"].as_array().expect("a list").iter();
        bytes.map(|bytes| bytes.as_str().expect("text").to_owned()).collect()
    }

    /// Makes many values of a kind, each with our bytes for it, and compares.
    pub fn compare(&mut self, kind: &str, make: impl FnMut() -> (Value, Vec<u8>)) {
        let (values, ours): (Vec<_>, Vec<_>) = std::iter::repeat_with(make).take(EACH).unzip();
        let theirs = self.encode(kind, &values);
        assert_eq!(theirs.len(), EACH);
        for ((value, ours), theirs) in values.iter().zip(&ours).zip(&theirs) {
            assert_eq!(&hex::encode(ours), theirs, "{kind}: {value}");
        }
    }
}

impl Drop for JavaScript {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// xorshift64*: good enough for odd messages, and the same in each run.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % end.max(1)
    }

    pub fn coin(&mut self) -> bool {
        self.below(2) == 0
    }

    /// Of all lengths up to what JavaScript can hold, and those where one more byte is needed.
    pub fn uint(&mut self) -> u64 {
        match self.below(5) {
            0 => [0, 0xfc, 0xfd, 0xffff, 0x1_0000, 0xffff_ffff, 0x1_0000_0000, (1 << 53) - 1][self.below(8) as usize],
            _ => {
                let bits = self.below(54);
                self.below(1 << bits)
            }
        }
    }

    pub fn fixed<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.below(256) as u8)
    }

    pub fn bytes(&mut self, most: u64) -> Vec<u8> {
        (0..self.below(most + 1)).map(|_| self.below(256) as u8).collect()
    }

    pub fn list<T>(&mut self, most: u64, mut item: impl FnMut(&mut Dice) -> T) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| item(self)).collect()
    }

    pub fn perhaps<T>(&mut self, item: impl FnOnce(&mut Dice) -> T) -> Option<T> {
        self.coin().then(|| item(self))
    }
}

/// Bytes as `encode.js` understands them.
pub fn bytes(bytes: impl AsRef<[u8]>) -> Value {
    json!(format!("0x{}", hex::encode(bytes)))
}
