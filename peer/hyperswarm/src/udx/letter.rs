//! Datagrams of another protocol on their way out.

use std::io;
use std::net::SocketAddrV4;
#[cfg(target_os = "linux")]
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tracing::trace;

/// Most datagrams that a system call sends.
pub(super) const LETTERS: usize = 64;

/// A datagram, and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Who gets it.
    pub to: SocketAddrV4,
    /// All of it.
    pub bytes: Vec<u8>,
}

/// Sends up to [`LETTERS`] datagrams. One that can't be sent is left out; when the kernel has no room, so are the rest.
pub(super) fn send(socket: &UdpSocket, mut letters: &[Letter]) {
    while let Some(first) = letters.first() {
        let done = match send_some(socket, letters) {
            Ok(sent) => sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                trace!(target: "udx", lost = letters.len(), "no room for datagrams");
                return;
            }
            Err(error) => {
                trace!(target: "udx", to = %first.to, %error, "a datagram is not sent");
                1
            }
        };
        letters = &letters[done..];
    }
}

/// Sends some of the datagrams, at least the first; returns how many.
fn send_some(socket: &UdpSocket, letters: &[Letter]) -> io::Result<usize> {
    match letters {
        #[cfg(target_os = "linux")]
        [_, _, ..] => socket.try_io(Interest::WRITABLE, || send_many(socket, letters)),
        _ => socket.try_send_to(&letters[0].bytes, letters[0].to.into()).map(|_| 1),
    }
}

#[cfg(target_os = "linux")]
fn send_many(socket: &UdpSocket, letters: &[Letter]) -> io::Result<usize> {
    use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg};
    use std::io::IoSlice;

    let to: Vec<_> = letters.iter().map(|letter| SocketAddrAny::from(letter.to)).collect();
    let bytes: Vec<_> = letters.iter().map(|letter| [IoSlice::new(&letter.bytes)]).collect();
    let mut beside: Vec<_> = letters.iter().map(|_| SendAncillaryBuffer::default()).collect();
    let parts = to.iter().zip(&bytes).zip(&mut beside);
    let mut headers: Vec<_> = parts.map(|((to, bytes), beside)| MMsgHdr::new_with_addr(to, bytes, beside)).collect();
    // The kernel reports an error only if it's the first that can't be sent.
    Ok(sendmmsg(socket, &mut headers, SendFlags::DONTWAIT)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    #[tokio::test]
    async fn one_that_cannot_be_sent_costs_the_others_nothing() -> io::Result<()> {
        let [from, to] = [UdpSocket::bind("127.0.0.1:0").await?, UdpSocket::bind("127.0.0.1:0").await?];
        from.writable().await?;
        let SocketAddr::V4(there) = to.local_addr()? else { unreachable!("it is bound to an IPv4 address") };
        let nowhere = SocketAddrV4::new(*there.ip(), 0);
        let letter = |n: u8| Letter { to: if n % 4 == 3 { nowhere } else { there }, bytes: vec![n; n.into()] };
        let letters: Vec<_> = (1..=LETTERS as u8).map(letter).collect();

        send(&from, &letters);

        let mut buffer = [0; 100];
        for letter in letters.iter().filter(|letter| letter.to == there) {
            let size = to.recv(&mut buffer).await?;
            assert_eq!(buffer[..size], letter.bytes);
        }
        Ok(())
    }
}
