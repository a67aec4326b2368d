//! A chunked body ends where a plain decoder says, and is refused where that refuses it, however it is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lowport::http1::Chunks;
use lowport_fuzz::message::{Body, Bounds, Reader};
use lowport_fuzz::pieces::{cut, pieces};

const BOUNDS: Bounds = Bounds {
    extensions: 4096,
    trailers: 64,
    digits: 15,
};

fn look(pieces: &[&[u8]]) -> (Option<usize>, bool) {
    let mut chunks = Chunks::new(BOUNDS.trailers);
    let mut taken = 0;
    for piece in pieces {
        match chunks.look(piece) {
            Ok(count) => taken += count,
            Err((after, _)) => {
                assert!(after < piece.len());
                return (None, false);
            }
        }
    }
    (Some(taken), chunks.is_done())
}

fuzz_target!(|input: &[u8]| {
    let (lengths, bytes) = cut(input);
    let looked = look(&[bytes]);
    assert_eq!(look(&pieces(bytes, &[1])), looked);
    assert_eq!(look(&pieces(bytes, lengths)), looked);

    let mut reader = Reader::new(bytes);
    let wanted = match reader.chunked(&BOUNDS) {
        Body::Whole(_) => (Some(reader.at()), true),
        Body::Unfinished(_) => (Some(bytes.len()), false),
        Body::Broken(_) => (None, false),
    };
    assert_eq!(looked, wanted);
});
