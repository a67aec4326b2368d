//! A PROXY header tells the client that a plain reading finds, ends where that does, and however it arrives.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lowport::proxy_header::{self, MOST};
use lowport_fuzz::introduced::{self, Reading};
use lowport_fuzz::pieces::{cut, pieces};

fn parse(bytes: &[u8]) -> Reading {
    match proxy_header::parse(bytes) {
        Ok(Some(header)) => Reading::Whole(header.length, header.client),
        Ok(None) => Reading::Unfinished,
        Err(_) => Reading::Broken,
    }
}

/// What comes of the bytes when they arrive in these pieces, and how much of them is taken.
fn arrived(pieces: &[&[u8]]) -> (Reading, usize) {
    let mut taken = Vec::new();
    for piece in pieces {
        let before = taken.len();
        taken.extend_from_slice(piece);
        match parse(&taken) {
            Reading::Unfinished => assert!(taken.len() < MOST, "there is room for more"),
            Reading::Whole(length, client) => {
                assert!(length > before, "it was whole before");
                return (Reading::Whole(length, client), length);
            }
            Reading::Broken => return (Reading::Broken, before),
        }
    }
    (Reading::Unfinished, taken.len())
}

fuzz_target!(|input: &[u8]| {
    let (lengths, bytes) = cut(input);
    let found = parse(bytes);
    assert_eq!(found, introduced::read(bytes));
    if let Reading::Whole(length, _) = found {
        assert!((15..=MOST).contains(&length) && length <= bytes.len());
        // What follows is nobody's business here.
        assert_eq!(parse(&bytes[..length]), found);
    }
    for pieces in [pieces(bytes, &[1]), pieces(bytes, lengths)] {
        let (reading, taken) = arrived(&pieces);
        assert_eq!(reading, found);
        if found != Reading::Broken {
            let wanted = match found {
                Reading::Whole(length, _) => length,
                _ => bytes.len(),
            };
            assert_eq!(taken, wanted);
        }
    }
});
