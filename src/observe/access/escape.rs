//! What clients send, made harmless: it can neither end a line or a field nor command a terminal.

use std::io::Write;

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Which bytes stand for themselves.
type Plain = [bool; 256];

/// Inside quotes, as nginx: printable ASCII but `"` and `\`.
const QUOTED: Plain = plain(b"\"\\");
/// A field that ends at a space.
const BARE: Plain = plain(b"\"\\ ");

const fn plain(but: &[u8]) -> Plain {
    let mut table = [false; 256];
    let mut byte = 0x20;
    while byte < 0x7f {
        table[byte] = true;
        byte += 1;
    }
    let mut at = 0;
    while at < but.len() {
        table[but[at] as usize] = false;
        at += 1;
    }
    table
}

/// For between quotes: all else as `\xHH`.
pub(super) fn quoted(out: &mut Vec<u8>, bytes: &[u8]) {
    escaped(out, bytes, &QUOTED);
}

/// For a field without quotes: all else, spaces too, as `\xHH`; nothing as `-`.
pub(super) fn bare(out: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.is_empty() {
        return out.push(b'-');
    }
    escaped(out, bytes, &BARE);
}

fn escaped(out: &mut Vec<u8>, mut bytes: &[u8], plain: &Plain) {
    while let Some(at) = odd(bytes, plain) {
        let byte = bytes[at];
        out.extend_from_slice(&bytes[..at]);
        out.extend_from_slice(&[
            b'\\',
            b'x',
            HEX[usize::from(byte >> 4)],
            HEX[usize::from(byte & 15)],
        ]);
        bytes = &bytes[at + 1..];
    }
    out.extend_from_slice(bytes);
}

fn odd(bytes: &[u8], plain: &Plain) -> Option<usize> {
    bytes.iter().position(|byte| !plain[usize::from(*byte)])
}

/// A JSON string (RFC 8259 section 7), quotes included. What is no UTF-8 becomes U+FFFD.
pub(super) fn json(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    if odd(bytes, &QUOTED).is_none() {
        out.extend_from_slice(bytes);
    } else {
        for chunk in bytes.utf8_chunks() {
            chunk
                .valid()
                .chars()
                .for_each(|character| json_char(out, character));
            if !chunk.invalid().is_empty() {
                out.extend_from_slice("\u{fffd}".as_bytes());
            }
        }
    }
    out.push(b'"');
}

fn json_char(out: &mut Vec<u8>, character: char) {
    match character {
        '"' | '\\' => out.extend_from_slice(&[b'\\', character as u8]),
        hostile if is_hostile(hostile) => {
            // All of them are in the Basic Multilingual Plane. Writing to memory does not fail.
            let _ = write!(out, "\\u{:04x}", u32::from(hostile));
        }
        _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

/// Controls (also the eight-bit ones, which some terminals obey), what else some readers end a line at, and what
/// reorders or hides text.
fn is_hostile(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(escape: fn(&mut Vec<u8>, &[u8]), bytes: &[u8]) -> String {
        let mut out = Vec::new();
        escape(&mut out, bytes);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn nothing_but_printable_ascii_comes_out() {
        let all: Vec<u8> = (0..=255).collect();
        for escape in [quoted, bare] {
            let out = done(escape, &all);
            assert!(
                out.bytes().all(|byte| (0x20..0x7f).contains(&byte)),
                "{out}"
            );
            assert!(!out.contains('"'));
        }
        assert_eq!(
            done(quoted, b"a b\"c\\d\ne\x1b[31m\xff"),
            "a b\\x22c\\x5Cd\\x0Ae\\x1B[31m\\xFF"
        );
        assert_eq!(done(bare, b"a b"), "a\\x20b");
        assert_eq!(done(bare, b""), "-");
        assert_eq!(done(quoted, b""), "");
    }

    #[test]
    fn a_json_string_is_one_harmless_line_and_means_the_same() {
        let text = "q\" b\\ n\n r\r z\0 e\u{1b} d\u{7f} c\u{9b}31m l\u{2028} b\u{202e} é 🦀";
        let out = done(json, text.as_bytes());
        assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
        assert!(!out.chars().any(is_hostile), "{out}");
        assert!(out.contains("é 🦀"));
        assert_eq!(done(json, b"a\xff\xfeb"), "\"a\u{fffd}\u{fffd}b\"");
        assert_eq!(done(json, b""), "\"\"");
    }
}
