//! The PROXY protocol, version 2, by which a load balancer in front says who its client is. Read before anything else,
//! and to the byte, so that nothing of what follows is taken for it. Whom it is believed from is decided by those who
//! listen, as is how long it may take.
//!
//! Version 1 is not read: it has no length, so a reader has to look for its end in what may already be the client's.

use ppp::v2::{Addresses, Command, Header, PROTOCOL_PREFIX};
use std::io;
use std::net::{IpAddr, SocketAddr};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes up to and with the length of the rest.
const MINIMUM_LENGTH: usize = 16;
/// Bytes behind the fixed part: addresses, and TLVs that nobody reads here.
const LONGEST: usize = 4 * 1024;

/// Whom the connection is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// An IPv4 address is never written as IPv6.
    Client(SocketAddr),
    /// The proxy itself, to see whether we live (LOCAL), or a client without an address.
    Proxy,
}

/// Reads the header. Fails where there is none, or one of another version; what was read is lost then.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Claim> {
    let bad = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let mut header = vec![0; MINIMUM_LENGTH];
    stream.read_exact(&mut header).await?;
    if !header.starts_with(PROTOCOL_PREFIX) {
        return Err(bad("the connection does not begin with a PROXY v2 header".to_owned()));
    }
    let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
    if length > LONGEST {
        return Err(bad(format!("a PROXY header of {length} bytes")));
    }
    header.resize(MINIMUM_LENGTH + length, 0);
    stream.read_exact(&mut header[MINIMUM_LENGTH..]).await?;
    let header = Header::try_from(&header[..]).map_err(|e| bad(format!("PROXY header: {e}")))?;
    Ok(match (header.command, header.addresses) {
        (Command::Proxy, Addresses::IPv4(ip)) => Claim::Client((ip.source_address, ip.source_port).into()),
        (Command::Proxy, Addresses::IPv6(ip)) => {
            Claim::Client((IpAddr::from(ip.source_address).to_canonical(), ip.source_port).into())
        }
        _ => Claim::Proxy,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
        [PROTOCOL_PREFIX, &[0x20 | command, family], &length, addresses].concat()
    }

    async fn claim(bytes: &[u8]) -> io::Result<Claim> {
        let mut rest = bytes;
        let claim = read(&mut rest).await?;
        assert_eq!(rest, b"EHLO", "nothing behind the header is taken");
        Ok(claim)
    }

    #[tokio::test]
    async fn headers() {
        let v4 = [192, 0, 2, 7, 127, 0, 0, 1, 0, 80, 0, 25];
        let with = |header: Vec<u8>| [&header[..], b"EHLO"].concat();
        let client = Claim::Client("192.0.2.7:80".parse().unwrap());
        assert_eq!(claim(&with(header(1, 0x11, &v4))).await.unwrap(), client);
        let tlv = [&v4[..], &[4, 0, 1, 9]].concat();
        assert_eq!(claim(&with(header(1, 0x11, &tlv))).await.unwrap(), client);
        let mapped = [&[0; 10][..], &[255, 255, 192, 0, 2, 7], &[0; 16], &[0, 80, 0, 25]].concat();
        assert_eq!(claim(&with(header(1, 0x21, &mapped))).await.unwrap(), client);
        assert_eq!(claim(&with(header(0, 0, &[]))).await.unwrap(), Claim::Proxy);
        assert_eq!(claim(&with(header(1, 0, &[]))).await.unwrap(), Claim::Proxy);
        let six = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[7], &[0; 16], &[0x12, 0x34, 0, 25]].concat();
        let client = Claim::Client("[2001:db8::7]:4660".parse().unwrap());
        assert_eq!(claim(&with(header(1, 0x21, &six))).await.unwrap(), client);
        for bad in [
            header(2, 0x11, &v4),
            header(1, 0x11, &v4[..4]),
            header(1, 0x11, &[0; 9_000]),
            b"EHLO client.example.com\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 127.0.0.1 1 25\r\n".to_vec(),
            PROTOCOL_PREFIX.to_vec(),
        ] {
            assert!(read(&mut &bad[..]).await.is_err(), "{bad:?}");
        }
    }
}
