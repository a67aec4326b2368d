//! The PROXY protocol, versions 1 and 2: what a proxy that passes bytes on says of a connection before the client's first
//! byte (HAProxy's `proxy-protocol.txt`).
//!
//! Pure: bytes in, and what they come to. Whose bytes are read like this at all is decided elsewhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::{self, FromStr};

use memchr::memmem;

/// The longest header that is taken, in bytes: a segment that every network carries. Of version 2, whose addresses take 232
/// at most, the rest is for extensions.
pub const MOST: usize = 536;

/// A header of version 2 with which a proxy speaks for itself, as in a health check (section 2.2).
pub const LOCAL: [u8; FIXED] = *b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// The longest line of version 1, with its end, in bytes (section 2.1).
const LINE: usize = 107;
/// What version 1 begins with, and the space behind it.
const WORD: &[u8] = b"PROXY ";
/// What version 2 begins with (section 2.2).
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, version and command, family, and the length of what follows.
const FIXED: usize = 16;

/// A whole header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// How many bytes it takes: 15 to [`MOST`]. What follows is the client's
    pub length: usize,
    /// Where the client is. `None` where the proxy speaks for itself (`LOCAL`), or for a client that it has no address of
    /// TCP for: `UNKNOWN`, `UNSPEC`, and by section 2.2's fallback Unix sockets and UDP
    pub client: Option<SocketAddr>,
}

/// What is wrong with bytes that should be a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// They begin as neither version does
    NoHeader,
    /// A line of version 1 that has not ended after 107 bytes, or a header of version 2 that says that it is longer than
    /// [`MOST`]
    TooLong,
    /// Words of version 1 that are missing, too many, or not where they should be
    Line,
    /// An address of version 1 that is none of its family
    Address,
    /// A port of version 1 that is not 0 to 65535 in plain digits
    Port,
    /// Another version than 2 behind the signature of version 2
    Version,
    /// Neither `LOCAL` nor `PROXY`
    Command,
    /// A family or protocol that the version does not have
    Family,
    /// Addresses of version 2 that are shorter than their family's
    Addresses,
}

impl Malformed {
    /// For the log.
    pub fn why(self) -> &'static str {
        match self {
            Self::NoHeader => "it does not begin with a PROXY header",
            Self::TooLong => "the PROXY header is too long",
            Self::Line => "the PROXY line is not of version 1",
            Self::Address => "the PROXY line has an address that is none",
            Self::Port => "the PROXY line has a port that is none",
            Self::Version => "the PROXY header has an unknown version",
            Self::Command => "the PROXY header has an unknown command",
            Self::Family => "the PROXY header has an unknown family or protocol",
            Self::Addresses => "the PROXY header is too short for its addresses",
        }
    }
}

/// Reads the header at the beginning of `bytes`, whatever follows it. `None` while it is not whole: then all of `bytes` is
/// part of it, and fewer than [`MOST`].
///
/// # Errors
/// As soon as it is certain that no header comes of it.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    if may_begin(bytes, SIGNATURE) {
        binary(bytes)
    } else if may_begin(bytes, WORD) {
        line(bytes)
    } else {
        Err(Malformed::NoHeader)
    }
}

/// Whether `bytes` begin with `with`, as far as they go.
fn may_begin(bytes: &[u8], with: &[u8]) -> bool {
    let common = bytes.len().min(with.len());
    bytes[..common] == with[..common]
}

/// Version 1.
fn line(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let most = &bytes[..bytes.len().min(LINE)];
    let Some(end) = memmem::find(most, b"\r\n") else {
        return match most.len() {
            LINE => Err(Malformed::TooLong),
            _ => Ok(None),
        };
    };
    let said = most.get(WORD.len()..end).unwrap_or_default();
    Ok(Some(Header {
        length: end + 2,
        client: client(said)?,
    }))
}

/// What the line says behind its first word. Whatever follows `UNKNOWN` is ignored (section 2.1).
fn client(said: &[u8]) -> Result<Option<SocketAddr>, Malformed> {
    if said == b"UNKNOWN" || said.starts_with(b"UNKNOWN ") {
        return Ok(None);
    }
    let said = str::from_utf8(said).map_err(|_| Malformed::Line)?;
    let mut words = said.split(' ');
    let mut next = || words.next().ok_or(Malformed::Line);
    let family = match next()? {
        "TCP4" => address::<Ipv4Addr>,
        "TCP6" => address::<Ipv6Addr>,
        _ => return Err(Malformed::Family),
    };
    let (source, _) = (family(next()?)?, family(next()?)?);
    let (source_port, _) = (port(next()?)?, port(next()?)?);
    match words.next() {
        None => Ok(Some(SocketAddr::new(source, source_port))),
        Some(_) => Err(Malformed::Line),
    }
}

/// The standard library takes what the specification does: no leading zeros in IPv4, no zone in IPv6.
fn address<A: FromStr + Into<IpAddr>>(word: &str) -> Result<IpAddr, Malformed> {
    let address: Result<A, _> = word.parse();
    address.map(Into::into).map_err(|_| Malformed::Address)
}

/// In digits alone, where `u16` would take a sign and leading zeros as well.
fn port(word: &str) -> Result<u16, Malformed> {
    let plain = word == "0" || !word.starts_with(['0', '+']);
    let port = word.parse().ok().filter(|_| plain);
    port.ok_or(Malformed::Port)
}

/// Version 2. What the first 16 bytes rule out is not waited for.
fn binary(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED>() else {
        return Ok(None);
    };
    let [.., command, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let local = match command {
        0x20 => true,
        0x21 => false,
        0x22..=0x2f => return Err(Malformed::Command),
        _ => return Err(Malformed::Version),
    };
    let needed = match family {
        // It says nothing then (section 2.2).
        _ if local => 0,
        0x00 => 0,
        0x11 | 0x12 => 12,
        0x21 | 0x22 => 36,
        0x31 | 0x32 => 216,
        _ => return Err(Malformed::Family),
    };
    if length < needed {
        return Err(Malformed::Addresses);
    }
    if FIXED + length > MOST {
        return Err(Malformed::TooLong);
    }
    let Some(block) = rest.get(..length) else {
        return Ok(None);
    };
    let client = match family {
        _ if local => None,
        0x11 => source(block, |source: [u8; 4]| Ipv4Addr::from(source)),
        0x21 => source(block, |source: [u8; 16]| Ipv6Addr::from(source)),
        _ => None,
    };
    Ok(Some(Header {
        length: FIXED + length,
        client,
    }))
}

/// The first of two addresses of `N` bytes, and of the two ports behind them.
fn source<const N: usize, A: Into<IpAddr>>(
    block: &[u8],
    address: fn([u8; N]) -> A,
) -> Option<SocketAddr> {
    let source = block.first_chunk::<N>()?;
    let port = block.get(2 * N..)?.first_chunk()?;
    Some(SocketAddr::new(
        address(*source).into(),
        u16::from_be_bytes(*port),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header of version 2.
    fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family], &length, block].concat()
    }

    /// Both addresses and both ports, of IPv4.
    const INET: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 0x04, 0x01, 0xbb];

    fn inet6(source: &str) -> Vec<u8> {
        let source: Ipv6Addr = source.parse().unwrap();
        [&source.octets()[..], &[0; 16], &[0xdc, 0x04], &[0x01, 0xbb]].concat()
    }

    /// What a whole header says, behind which the client has begun.
    fn told(header: &[u8]) -> Option<String> {
        let bytes = [header, b"\r\n\r\n\0"].concat();
        let parsed = parse(&bytes).unwrap().expect("whole");
        assert_eq!(parsed.length, header.len());
        // However it arrives, it is not whole until it is.
        for end in 0..header.len() {
            assert_eq!(parse(&header[..end]), Ok(None), "{end}");
        }
        assert_eq!(parse(header), Ok(Some(parsed)));
        parsed.client.map(|client| client.to_string())
    }

    #[test]
    fn a_proxy_that_speaks_for_itself_tells_no_client() {
        assert_eq!(LOCAL.to_vec(), v2(0x20, 0, &[]));
        assert_eq!(told(&LOCAL), None);
    }

    #[test]
    fn a_line_tells_the_client() {
        for (line, client) in [
            (
                "TCP4 192.0.2.7 198.51.100.1 56324 443",
                Some("192.0.2.7:56324"),
            ),
            (
                "TCP4 255.255.255.255 255.255.255.255 65535 65535",
                Some("255.255.255.255:65535"),
            ),
            ("TCP4 0.0.0.0 0.0.0.0 0 0", Some("0.0.0.0:0")),
            (
                "TCP6 2001:DB8::7 2001:db8:0:0:0:0:0:1 1 443",
                Some("[2001:db8::7]:1"),
            ),
            (
                "TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535",
                Some("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"),
            ),
            (
                "TCP6 ::ffff:c000:207 ::1 1 443",
                Some("[::ffff:192.0.2.7]:1"),
            ),
            ("UNKNOWN", None),
            ("UNKNOWN TCP4 192.0.2.7\n\x7f \r x", None),
            (
                "UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535",
                None,
            ),
        ] {
            let header = format!("PROXY {line}\r\n");
            assert_eq!(told(header.as_bytes()).as_deref(), client, "{line}");
        }
        assert_eq!(told(b"PROXY UNKNOWN \xff\xfe\0\r\n"), None);
    }

    #[test]
    fn a_line_is_read_strictly() {
        for (line, malformed) in [
            ("TCP4 192.0.2.07 198.51.100.1 1 443", Malformed::Address),
            ("TCP4 192.0.2 198.51.100.1 1 443", Malformed::Address),
            ("TCP4 2001:db8::1 2001:db8::2 1 443", Malformed::Address),
            ("TCP4 192.0.2.7 2001:db8::2 1 443", Malformed::Address),
            ("TCP6 192.0.2.7 198.51.100.1 1 443", Malformed::Address),
            ("TCP6 fe80::1%eth0 ::1 1 443", Malformed::Address),
            ("TCP6 [::1] ::1 1 443", Malformed::Address),
            ("TCP6 1::2::3 ::1 1 443", Malformed::Address),
            ("TCP4  192.0.2.7 198.51.100.1 1 443", Malformed::Address),
            ("TCP4 192.0.2.7\t198.51.100.1 1 443", Malformed::Address),
            ("TCP4 192.0.2.7 198.51.100.1 01 443", Malformed::Port),
            ("TCP4 192.0.2.7 198.51.100.1 00 443", Malformed::Port),
            ("TCP4 192.0.2.7 198.51.100.1 +1 443", Malformed::Port),
            ("TCP4 192.0.2.7 198.51.100.1 -1 443", Malformed::Port),
            ("TCP4 192.0.2.7 198.51.100.1 65536 443", Malformed::Port),
            ("TCP4 192.0.2.7 198.51.100.1 1 0443", Malformed::Port),
            ("TCP4 192.0.2.7 198.51.100.1 1 443\n", Malformed::Port),
            ("TCP4 192.0.2.7 198.51.100.1 1 ", Malformed::Port),
            ("TCP4 192.0.2.7 198.51.100.1 1 443 ", Malformed::Line),
            ("TCP4 192.0.2.7 198.51.100.1 1 443 5", Malformed::Line),
            ("TCP4 192.0.2.7 198.51.100.1 1", Malformed::Line),
            ("TCP4", Malformed::Line),
            ("TCP4 \u{661}", Malformed::Address),
            ("", Malformed::Family),
            (" TCP4 192.0.2.7 198.51.100.1 1 443", Malformed::Family),
            ("tcp4 192.0.2.7 198.51.100.1 1 443", Malformed::Family),
            ("TCP5 192.0.2.7 198.51.100.1 1 443", Malformed::Family),
            ("UDP4 192.0.2.7 198.51.100.1 1 443", Malformed::Family),
            ("UNKNOWNS", Malformed::Family),
            ("unknown", Malformed::Family),
        ] {
            let header = format!("PROXY {line}\r\n");
            assert_eq!(parse(header.as_bytes()), Err(malformed), "{line:?}");
        }
        assert_eq!(parse(b"PROXY TCP4 \xff\r\n"), Err(Malformed::Line));
    }

    #[test]
    fn only_its_own_end_ends_a_line_and_not_too_late() {
        assert_eq!(parse(b"PROXY UNKNOWN\n"), Ok(None));
        assert_eq!(parse(b"PROXY UNKNOWN\r"), Ok(None));
        assert_eq!(parse(b"PROXY UNKNOWN\rGET / HTTP/1.1\n"), Ok(None));
        let line = |length: usize| {
            let word = b"PROXY UNKNOWN ";
            let rest = vec![b'x'; length - word.len() - 2];
            [&word[..], &rest, b"\r\n"].concat()
        };
        assert_eq!(told(&line(107)), None);
        assert_eq!(parse(&line(108)), Err(Malformed::TooLong));
        assert_eq!(parse(&line(108)[..106]), Ok(None));
        assert_eq!(parse(&line(108)[..107]), Err(Malformed::TooLong));
    }

    #[test]
    fn what_begins_otherwise_is_known_at_once() {
        for bytes in [
            &b"G"[..],
            b"PRI * HTTP/2.0\r\n\r\n",
            b"PROXYFIND / HTTP/1.1\r\n",
            b"PROXY\r\n",
            b"PROXY\tTCP4",
            b"proxy ",
            b" PROXY ",
            b"\x16\x03\x01",
            b"\r\n\r\nGET / HTTP/1.1",
            b"\r\n\r\n\0\r\nQUIT\r",
        ] {
            assert_eq!(parse(bytes), Err(Malformed::NoHeader), "{bytes:?}");
        }
        assert_eq!(parse(b""), Ok(None));
    }

    #[test]
    fn a_binary_header_tells_the_client() {
        let with_more = [&INET[..], &[0x04, 0, 2, 9, 9]].concat();
        for (header, client) in [
            (v2(0x21, 0x11, &INET), Some("192.0.2.7:56324")),
            (v2(0x21, 0x11, &with_more), Some("192.0.2.7:56324")),
            (
                v2(0x21, 0x21, &inet6("2001:db8::7")),
                Some("[2001:db8::7]:56324"),
            ),
            (
                v2(0x21, 0x21, &inet6("::ffff:192.0.2.7")),
                Some("[::ffff:192.0.2.7]:56324"),
            ),
            // The proxy itself, whatever it says besides.
            (v2(0x20, 0x00, b""), None),
            (v2(0x20, 0x11, &INET), None),
            (v2(0x20, 0x11, b"short"), None),
            (v2(0x20, 0xff, b"any"), None),
            // A client that it has no address of TCP for.
            (v2(0x21, 0x00, b""), None),
            (v2(0x21, 0x00, &INET), None),
            (v2(0x21, 0x12, &INET), None),
            (v2(0x21, 0x22, &inet6("2001:db8::7")), None),
            (v2(0x21, 0x31, &[b'/'; 216]), None),
            (v2(0x21, 0x32, &[0; 216]), None),
            (v2(0x20, 0x00, &[0; MOST - FIXED]), None),
        ] {
            assert_eq!(told(&header).as_deref(), client, "{header:?}");
        }
    }

    #[test]
    fn a_binary_header_is_read_strictly() {
        for (header, malformed) in [
            (v2(0x11, 0x11, &INET), Malformed::Version),
            (v2(0x31, 0x11, &INET), Malformed::Version),
            (v2(0x01, 0x11, &INET), Malformed::Version),
            (v2(0x22, 0x11, &INET), Malformed::Command),
            (v2(0x2f, 0x11, &INET), Malformed::Command),
            (v2(0x21, 0x10, &INET), Malformed::Family),
            (v2(0x21, 0x01, &INET), Malformed::Family),
            (v2(0x21, 0x13, &INET), Malformed::Family),
            (v2(0x21, 0x41, &INET), Malformed::Family),
            (v2(0x21, 0xff, &INET), Malformed::Family),
            (v2(0x21, 0x11, &INET[..11]), Malformed::Addresses),
            (v2(0x21, 0x12, b""), Malformed::Addresses),
            (v2(0x21, 0x21, &[0; 35]), Malformed::Addresses),
            (v2(0x21, 0x31, &[0; 215]), Malformed::Addresses),
            (v2(0x21, 0x11, &[0; MOST - FIXED + 1]), Malformed::TooLong),
            (v2(0x20, 0x00, &[0; MOST - FIXED + 1]), Malformed::TooLong),
            (v2(0x21, 0x11, &[0; 65_535]), Malformed::TooLong),
        ] {
            assert_eq!(parse(&header), Err(malformed), "{header:?}");
            // Before any of the rest has come.
            assert_eq!(parse(&header[..FIXED]), Err(malformed), "{header:?}");
        }
    }

    #[test]
    fn each_reason_has_a_text_of_its_own() {
        let mut texts = [
            Malformed::NoHeader,
            Malformed::TooLong,
            Malformed::Line,
            Malformed::Address,
            Malformed::Port,
            Malformed::Version,
            Malformed::Command,
            Malformed::Family,
            Malformed::Addresses,
        ]
        .map(Malformed::why);
        texts.sort_unstable();
        assert!(texts.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
