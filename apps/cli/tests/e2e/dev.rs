//! `datdot dev`: the network that stays up.

use crate::bad_input::{assert_says, run};
use crate::network::bytes;
use crate::process::{Process, datdot_in, eventually, output};
use std::{net::TcpListener, time::Duration};
use tempfile::TempDir;

#[test]
fn a_port_in_use_is_an_error_that_names_it() {
    let dir = TempDir::new().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let args = ["--dir", dir.path().to_str().unwrap(), "dev", "--hosters", "0", "--rpc-port", &port];
    assert_says(run(&args), 1, &[&port, "--rpc-port"]);
}

#[test]
fn the_demo_publishes_hosts_proves_pays_and_reads_back_and_leaves_nothing() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, bytes(3 << 20, 5)).unwrap();
    let place = dir.path().join("place");
    let output = output(datdot_in(&place).arg("demo").arg(&file));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    for words in ["3.0 MiB", "hosted by 3 of 3", "is gone", "challenge 1"] {
        assert!(said.contains(words), "no `{words}` in {said}");
    }
    assert_eq!(std::fs::read_dir(place).unwrap().count(), 0, "its folder is removed");
    let missing = ["--dir", dir.path().to_str().unwrap(), "demo", "/nowhere"];
    assert_says(run(&missing), 1, &["/nowhere"]);
}

#[test]
fn a_dev_network_goes_on_where_it_was() {
    let dir = TempDir::new().unwrap();
    let log = dir.path().join("log");
    let start = || {
        let mut command = datdot_in(dir.path());
        command.args(["dev", "--rpc-port", "0"]);
        let mut process = Process::start("datdot dev", &log, command);
        let status = eventually("the network answers", Duration::from_secs(60), || {
            process.must_run();
            let client = datdot_api::Client::open(dir.path()).ok()?;
            client.status().ok().filter(|status| status.ledger.connected && status.ledger.best > 2)
        });
        (process, status)
    };
    let (process, first) = start();
    let [bootstrap] = &first.swarm.bootstrap[..] else { panic!("{first:?}") };
    eventually("it says how to join its swarm", Duration::from_secs(60), || {
        let said = std::fs::read_to_string(&log).ok()?;
        said.contains(&format!("bootstrap: ['{bootstrap}']")).then_some(())
    });
    let args = ["--dir", dir.path().to_str().unwrap(), "dev", "--rpc-port", "0"];
    assert_says(run(&args), 1, &["another node is running", "--dir"]);
    assert!(process.terminate().success());
    assert!(!dir.path().join("api.json").exists(), "a daemon that stopped is not found");
    let (process, second) = start();
    assert!(second.ledger.best >= first.ledger.best, "{second:?}");
    assert_eq!((first.account, first.noise_key), (second.account, second.noise_key));
    assert!(process.terminate().success());
}
