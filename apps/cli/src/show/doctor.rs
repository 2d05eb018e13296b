//! What `datdot doctor` found out, in words.

use super::progress::count;
use datdot_api::status::{Nat, SwarmStatus};
use std::fmt::{self, Display, Formatter};

/// To be shown with `{}`.
pub struct Findings {
    /// What the ledger is told about where this peer is; `None` if no daemon runs.
    pub addresses: Option<Vec<String>>,
    /// What the DHT says.
    pub swarm: SwarmStatus,
}

impl Display for Findings {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let swarm = &self.swarm;
        match (&swarm.off, swarm.answers) {
            (Some(why), _) => writeln!(f, "swarm     none: {why}")?,
            (None, None) => writeln!(f, "swarm     still finding out: ask again in some seconds")?,
            (None, Some(false)) => writeln!(f, "swarm     none of {} answers", swarm.bootstrap.join(", "))?,
            (None, Some(true)) => {
                let role = if swarm.host { ", and is one itself" } else { "" };
                let known = count(swarm.known, "node", "nodes");
                writeln!(f, "swarm     the DHT answers; this peer knows {known} of it{role}")?;
            }
        }
        if let Some(listen) = &swarm.listen {
            writeln!(f, "          listens at {listen}, UDP")?;
        }
        if let Some(outside) = &swarm.outside {
            let sight = if swarm.nat == Nat::Random { "with another port for each who looks" } else { "and all agree" };
            writeln!(f, "seen as   {outside}, {sight}")?;
        }
        match &self.addresses {
            Some(addresses) if !addresses.is_empty() => {
                writeln!(f, "TCP       {}: what offers and requests tell others", addresses.join(", "))?;
            }
            Some(_) => writeln!(f, "TCP       no address that others could dial; the swarm has to do")?,
            None => {}
        }
        let (who, what) = self.verdict();
        writeln!(f, "\n{who}")?;
        write!(f, "To do: {what}")
    }
}

impl Findings {
    /// Who reaches this peer, and what to do about it.
    fn verdict(&self) -> (&'static str, String) {
        let by_tcp = self.addresses.as_ref().is_some_and(|addresses| !addresses.is_empty());
        let port =
            self.swarm.listen.as_ref().and_then(|listen| listen.rsplit_once(':')).map_or("3282", |(_, port)| port);
        let dialled = match by_tcp {
            true => "Whoever reads the ledger reaches this peer by its TCP address, if that is right.".into(),
            false => {
                format!("For peers that dial, TCP port {port} too, and start the daemon with --address HOST:{port}.")
            }
        };
        let forward = format!("let the router forward UDP port {port} to this computer. {dialled}");
        let (off, answers) = (self.swarm.off.is_some(), self.swarm.answers);
        match (self.swarm.nat, by_tcp) {
            _ if off && by_tcp => (
                "Whoever reads the ledger reaches this peer by its TCP address, if that is right. Nobody finds it by a feed's key.",
                "nothing, or start the daemon without --no-swarm.".into(),
            ),
            _ if off => ("Nobody can find this peer.", "start the daemon without --no-swarm, or with --address HOST:PORT.".into()),
            _ if answers.is_none() => ("Not known yet.", "ask again in some seconds.".into()),
            _ if answers == Some(false) => (
                "Nobody can find this peer by a feed's key: this computer is offline, or its network blocks UDP.",
                "check the connection, and that UDP may go out. A network that allows neither needs --address HOST:PORT."
                    .into(),
            ),
            (Nat::Open, _) => ("Everybody reaches this peer: nothing keeps strangers out.", "nothing.".into()),
            (Nat::Consistent, _) => (
                "A NAT or firewall lets in nobody whom this peer didn't call first. Peers without one reach it with the help of \
                 the DHT. Two behind such NATs don't reach each other: holes aren't punched yet.",
                forward,
            ),
            (Nat::Random, _) => (
                "A NAT lets in nobody whom this peer didn't call first, and shows each remote another port, as mobile networks do. \
                 Peers without one reach it with the help of the DHT; others don't.",
                forward,
            ),
            (Nat::Unknown, _) => (
                "Too few nodes of the DHT have said how they see this peer, or they disagree.",
                "ask again in a minute. If that doesn't change, see that UDP isn't filtered.".into(),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(swarm: SwarmStatus, addresses: &[&str]) -> String {
        let addresses = Some(addresses.iter().map(|address| (*address).to_owned()).collect());
        Findings { addresses, swarm }.to_string()
    }

    fn behind(nat: Nat) -> SwarmStatus {
        SwarmStatus {
            listen: Some("0.0.0.0:4000".into()),
            answers: Some(true),
            known: 40,
            outside: Some("198.51.100.7:4000".into()),
            nat,
            ..SwarmStatus::default()
        }
    }

    #[test]
    fn who_is_reached_by_everybody_has_nothing_to_do() {
        let said = said(behind(Nat::Open), &[]);
        assert!(said.contains("40 nodes") && said.contains("Everybody reaches"), "{said}");
        assert!(said.ends_with("To do: nothing."), "{said}");
    }

    #[test]
    fn behind_a_nat_the_port_to_forward_is_named() {
        for nat in [Nat::Consistent, Nat::Random] {
            let said = said(behind(nat), &[]);
            assert!(said.contains("forward UDP port 4000") && said.contains("--address HOST:4000"), "{said}");
        }
        assert!(said(behind(Nat::Random), &[]).contains("another port for each"));
        let named = said(behind(Nat::Random), &["1.1.1.1:1"]);
        assert!(named.contains("forward UDP port 4000") && !named.contains("--address"), "{named}");
    }

    #[test]
    fn a_dead_network_and_no_swarm_are_told_apart() {
        let dead = SwarmStatus { answers: Some(false), bootstrap: vec!["node1:1".into()], ..SwarmStatus::default() };
        let dead = said(dead, &[]);
        assert!(dead.contains("none of node1:1 answers") && dead.contains("offline"), "{dead}");
        let off = SwarmStatus { off: Some("--no-swarm".into()), ..SwarmStatus::default() };
        assert!(said(off.clone(), &[]).contains("Nobody can find this peer."));
        assert!(said(off, &["1.1.1.1:1"]).contains("by its TCP address"));
    }
}
