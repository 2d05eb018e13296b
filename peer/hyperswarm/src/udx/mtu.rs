//! How large a packet the path takes, found out by data packets that are padded (RFC 8899).

/// Size of an IP packet that every path takes.
const BASE: usize = 1200;
/// Sizes to try, upwards: tunnels, then Ethernet.
const STEPS: [usize; 6] = [1280, 1360, 1420, 1460, 1480, 1500];
const TRIES: u8 = 3;

/// The search, for one path.
#[derive(Debug, Clone)]
pub struct Mtu {
    /// Bytes of the IP and UDP headers.
    below: usize,
    size: usize,
    step: usize,
    tries: u8,
    probing: bool,
    /// Something was acknowledged: the base size works.
    begun: bool,
}

impl Mtu {
    /// Begins with the base size.
    pub fn new(ipv4: bool) -> Self {
        Mtu { below: if ipv4 { 28 } else { 48 }, size: BASE, step: 0, tries: 0, probing: false, begun: false }
    }

    /// Bytes that a UDP datagram may have.
    pub fn datagram(&self) -> usize {
        self.size - self.below
    }

    /// The size of a datagram to try now.
    pub fn wanted(&self) -> Option<usize> {
        let size = STEPS.get(self.step)?;
        (self.begun && !self.probing && self.tries < TRIES).then(|| size - self.below)
    }

    /// A probe of the wanted size leaves.
    pub fn on_probe(&mut self) {
        self.probing = true;
        self.tries += 1;
    }

    /// A packet arrived.
    pub fn on_acked(&mut self, probe: bool) {
        self.begun = true;
        if probe && self.probing {
            (self.size, self.step, self.tries, self.probing) = (STEPS[self.step], self.step + 1, 0, false);
        }
    }

    /// A probe did not arrive.
    pub fn on_lost_probe(&mut self) {
        self.probing = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_size_that_passes_is_found() {
        for limit in [1200, 1400, 1499, 1500] {
            let mut mtu = Mtu::new(true);
            assert_eq!((mtu.datagram(), mtu.wanted()), (1172, None));
            mtu.on_acked(false);
            while let Some(size) = mtu.wanted() {
                mtu.on_probe();
                assert_eq!(mtu.wanted(), None, "one at a time");
                if size + 28 <= limit { mtu.on_acked(true) } else { mtu.on_lost_probe() }
            }
            let best = STEPS.iter().rfind(|size| **size <= limit).unwrap_or(&BASE);
            assert_eq!(mtu.datagram() + 28, *best);
        }
    }
}
