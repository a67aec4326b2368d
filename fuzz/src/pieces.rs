//! Bytes as a network delivers them: in pieces.

/// Cuts `bytes` into pieces whose lengths are `lengths` in turn, over and over; a length of 0 stands for all the rest.
pub fn pieces<'a>(mut bytes: &'a [u8], lengths: &[u8]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let mut lengths = lengths.iter().cycle();
    while !bytes.is_empty() {
        let length = match lengths.next() {
            None | Some(0) => bytes.len(),
            Some(length) => usize::from(*length).min(bytes.len()),
        };
        let (piece, rest) = bytes.split_at(length);
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

/// Splits an input into the lengths of its pieces and the bytes themselves. A first byte of 1 to 8 tells how many lengths
/// follow; no text of interest begins with such a byte, so that a plain text is an input that is not cut at all.
pub fn cut(input: &[u8]) -> (&[u8], &[u8]) {
    match input {
        [count @ 1..=8, rest @ ..] if rest.len() >= usize::from(*count) => {
            rest.split_at(usize::from(*count))
        }
        _ => (&[], input),
    }
}
