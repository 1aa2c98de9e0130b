//! Sockets that take connections: those that systemd has bound, else our own.

use super::{StartError, systemd};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use tokio::net::{TcpListener, TcpSocket};

/// Connections that wait to be taken.
const BACKLOG: u32 = 1_024;

/// The socket that systemd has bound for this address, else one of our own.
pub async fn bind(sockets: &mut systemd::Sockets, address: SocketAddr) -> Result<TcpListener, StartError> {
    let bound = match sockets.for_address(address) {
        Some(socket) => TcpListener::from_std(socket),
        None => open(address),
    };
    bound.map_err(|e| StartError::Bind(address, e))
}

/// One for IPv6 takes IPv6 alone, whatever the system's default is, so that `0.0.0.0:80` and `[::]:80` go together.
fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if address.is_ipv6() {
        only_ipv6(&socket)?;
    }
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn only_ipv6(socket: &TcpSocket) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open as long as `socket` is, and the option is read from an int of that length.
    let set = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, (&raw const on).cast(), length)
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[tokio::test]
    async fn both_wildcards_share_a_port() {
        for v6_first in [false, true] {
            let addresses = |port| [(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()];
            let mut both: [SocketAddr; 2] = addresses(0);
            if v6_first {
                both.reverse();
            }
            let first = open(both[0]).unwrap();
            both[1].set_port(first.local_addr().unwrap().port());
            let second = open(both[1]).unwrap();
            assert_eq!(second.local_addr().unwrap().port(), first.local_addr().unwrap().port());
            // What is bound alone is taken alone: nobody else gets this port a second time.
            assert!(open(second.local_addr().unwrap()).is_err());
        }
    }
}
