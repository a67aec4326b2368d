//! Base64 (RFC 4648 section 4) of secrets: in a time that tells nothing of them, and with no copy left behind. The decoder
//! that rustls brings collects the text in a buffer that it does not wipe.

use crate::config::wipe;

/// What `text` stands for, white space aside; `None` if it is no base64. The caller wipes it.
pub(super) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    // Enough at once: growing would leave copies behind.
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 3);
    let done = decode_into(&mut bytes, text);
    if done.is_none() {
        wipe(&mut bytes);
    }
    done.map(|()| bytes)
}

fn decode_into(bytes: &mut Vec<u8>, text: &[u8]) -> Option<()> {
    let (mut held, mut count, mut padding) = (0u32, 0, 0);
    for character in text.iter().filter(|byte| !byte.is_ascii_whitespace()) {
        if *character == b'=' {
            padding += 1;
            continue;
        }
        let bits = u32::try_from(sextet(*character)).ok()?;
        if padding > 0 {
            return None;
        }
        held = held << 6 | bits;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((held >> count) as u8);
            held &= (1 << count) - 1;
        }
    }
    // What is left of the last byte is zeros, and each group is of four characters.
    (count == padding * 2 && padding < 3 && held == 0).then_some(())
}

/// The six bits that a character stands for, or -1: computed, since a table or a branch would tell which one it is by
/// the time that it takes.
fn sextet(character: u8) -> i32 {
    let character = i32::from(character);
    // All ones from `first` to `last`, and zero elsewhere.
    let within = |first: u8, last: u8| {
        ((i32::from(first) - 1 - character) & (character - i32::from(last) - 1)) >> 31
    };
    let upper = within(b'A', b'Z') & (character - i32::from(b'A') + 1);
    let lower = within(b'a', b'z') & (character - i32::from(b'a') + 27);
    let digit = within(b'0', b'9') & (character - i32::from(b'0') + 53);
    let plus = within(b'+', b'+') & 63;
    let slash = within(b'/', b'/') & 64;
    upper + lower + digit + plus + slash - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_has_its_place_in_the_alphabet() {
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        for character in 0..=u8::MAX {
            let place = alphabet.iter().position(|known| *known == character);
            let expected = place.map_or(-1, |place| place as i32);
            assert_eq!(sextet(character), expected, "{character}");
        }
    }

    #[test]
    fn the_vectors_of_the_standard_are_decoded() {
        // RFC 4648 section 10
        for (text, bytes) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9v\nYmE=\r\n", "fooba"),
            (" Zm9vYmFy\n", "foobar"),
        ] {
            assert_eq!(decode(text.as_bytes()).unwrap(), bytes.as_bytes(), "{text}");
        }
    }

    #[test]
    fn what_is_no_base64_is_refused() {
        for text in [
            "Z", "Zg", "Zg=", "Zg===", "Zm8", "Zm8==", "=", "====", "Z===", "Zm=8", "Zg==Zg==",
            "Zm9!", "Zh==", "Zm9-", "Zm\09",
        ] {
            assert!(decode(text.as_bytes()).is_none(), "{text}");
        }
    }
}
