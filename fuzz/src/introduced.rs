//! A plain reading of the PROXY protocol's two headers, from HAProxy's `proxy-protocol.txt` and what lowport says of itself.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::LazyLock;

use regex::bytes::Regex;

/// What bytes come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// A header of so many bytes, and the client that it tells
    Whole(usize, Option<SocketAddr>),
    /// More is needed to tell
    Unfinished,
    /// No header
    Broken,
}

/// The whole grammar of section 2.1, but for what an address of IPv6 may look like.
static LINE: LazyLock<Regex> = LazyLock::new(|| {
    let octet = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";
    let v4 = format!(r"{octet}\.{octet}\.{octet}\.{octet}");
    let v6 = "[0-9A-Fa-f:.]+";
    let port = "(?:0|[1-9][0-9]{0,4})";
    let line = format!(
        r"(?s-u)\APROXY (?:UNKNOWN(?: .*)?|TCP4 ({v4}) {v4} ({port}) ({port})|TCP6 ({v6}) ({v6}) ({port}) ({port}))\z"
    );
    Regex::new(&line).expect("an expression")
});

/// Reads the beginning of `bytes`, of which more may come.
pub fn read(bytes: &[u8]) -> Reading {
    let signature = [
        0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a,
    ];
    let agrees = |with: &[u8]| bytes.iter().zip(with).all(|(one, other)| one == other);
    if agrees(&signature) {
        binary(bytes)
    } else if agrees(b"PROXY ") {
        line(bytes)
    } else {
        Reading::Broken
    }
}

fn line(bytes: &[u8]) -> Reading {
    let ends = |end: &usize| bytes[..*end].ends_with(b"\r\n");
    let Some(end) = (2..=bytes.len().min(107)).find(ends) else {
        return match bytes.len() {
            0..107 => Reading::Unfinished,
            _ => Reading::Broken,
        };
    };
    let Some(found) = LINE.captures(&bytes[..end - 2]) else {
        return Reading::Broken;
    };
    let text = |at: usize| Some(str::from_utf8(found.get(at)?.as_bytes()).expect("ASCII"));
    let port = |at: usize| text(at)?.parse::<u32>().ok();
    let (source, ports) = match (text(1), text(4), text(5)) {
        (Some(v4), ..) => (v4.parse().ok(), [port(2), port(3)]),
        (_, Some(source), Some(other)) => {
            let source = v6(source).and_then(|source| v6(other).map(|_| IpAddr::V6(source)));
            (source, [port(6), port(7)])
        }
        _ => return Reading::Whole(end, None),
    };
    match (source, ports) {
        (Some(source), [Some(port @ 0..=65_535), Some(0..=65_535)]) => {
            Reading::Whole(end, Some(SocketAddr::new(source, port as u16)))
        }
        _ => Reading::Broken,
    }
}

/// Groups of up to four digits, of which one `::` may leave out some, and the last two of which may be written as IPv4
/// (RFC 4291 section 2.2).
fn v6(text: &str) -> Option<Ipv6Addr> {
    let groups = |text: &str| -> Option<Vec<u16>> {
        let mut all = Vec::new();
        if text.is_empty() {
            return Some(all);
        }
        let words: Vec<&str> = text.split(':').collect();
        for (at, word) in words.iter().enumerate() {
            if word.contains('.') && at + 1 == words.len() {
                let v4: std::net::Ipv4Addr = word.parse().ok()?;
                let [a, b, c, d] = v4.octets();
                all.extend([u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]);
            } else if (1..=4).contains(&word.len()) {
                all.push(u16::from_str_radix(word, 16).ok()?);
            } else {
                return None;
            }
        }
        Some(all)
    };
    let whole = match text.split_once("::") {
        None => groups(text)?,
        Some((left, right)) => {
            if left.contains('.') {
                return None;
            }
            let (left, right) = (groups(left)?, groups(right)?);
            let missing = 8_usize.checked_sub(left.len() + right.len())?;
            if missing == 0 {
                return None;
            }
            [left, vec![0; missing], right].concat()
        }
    };
    let whole: [u16; 8] = whole.try_into().ok()?;
    Some(whole.into())
}

fn binary(bytes: &[u8]) -> Reading {
    if bytes.len() < 16 {
        return Reading::Unfinished;
    }
    let (version, command) = (bytes[12] / 16, bytes[12] % 16);
    let (family, protocol) = (bytes[13] / 16, bytes[13] % 16);
    let block = usize::from(bytes[14]) * 256 + usize::from(bytes[15]);
    let length = 16 + block;
    if version != 2 || command > 1 || length > 536 {
        return Reading::Broken;
    }
    let local = command == 0;
    let known = match (family, protocol) {
        (0, 0) => Some(0),
        (1, 1 | 2) => Some(12),
        (2, 1 | 2) => Some(36),
        (3, 1 | 2) => Some(216),
        _ => None,
    };
    if !local && known.is_none_or(|known| known > block) {
        return Reading::Broken;
    }
    if bytes.len() < length {
        return Reading::Unfinished;
    }
    let size = match (family, protocol) {
        _ if local => return Reading::Whole(length, None),
        (1, 1) => 4,
        (2, 1) => 16,
        _ => return Reading::Whole(length, None),
    };
    let source = &bytes[16..16 + size];
    let port = u16::from_be_bytes([bytes[16 + 2 * size], bytes[17 + 2 * size]]);
    let address = match <[u8; 4]>::try_from(source) {
        Ok(v4) => IpAddr::from(v4),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(source).expect("the other size")),
    };
    Reading::Whole(length, Some(SocketAddr::new(address, port)))
}
