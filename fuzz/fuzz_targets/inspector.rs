//! What the inspector lets pass has one reading: its own, hyper's and the RFC's are the same, however the bytes are cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lowport::http1::{Bounds, Inspector, Refusal, Refused};
use lowport_fuzz::message::{self, Message};
use lowport_fuzz::pieces::{cut, pieces};
use lowport_fuzz::served;

const BOUNDS: Bounds = Bounds {
    head: 512,
    target: 100,
    fields: 8,
};

/// What the inspector says to bytes in pieces.
#[derive(Debug)]
struct Inspected {
    /// How many bytes pass
    passed: usize,
    why: Option<Refusal>,
    opaque: bool,
    heads: u32,
}

fn inspect(pieces: &[&[u8]]) -> Inspected {
    let mut inspector = Inspector::new(BOUNDS);
    let (mut passed, mut why) = (0, None);
    for piece in pieces {
        if let Err(refused) = inspector.look(piece) {
            let Refused { after, why: reason } = refused;
            assert!(after < piece.len(), "what is refused is one of its bytes");
            passed += after;
            why = Some(reason);
            break;
        }
        passed += piece.len();
    }
    Inspected {
        passed,
        why,
        opaque: inspector.is_opaque(),
        heads: inspector.heads(),
    }
}

fuzz_target!(|input: &[u8]| {
    let (lengths, bytes) = cut(input);
    let whole = inspect(&[bytes]);
    let bytewise = inspect(&pieces(bytes, &[1]));
    let split = inspect(&pieces(bytes, lengths));
    for other in [&bytewise, &split] {
        assert_eq!(other.why, whole.why);
        assert_eq!((other.opaque, other.heads), (whole.opaque, whole.heads));
        // A refused line may have begun in a piece that passed.
        assert!((whole.passed..=bytewise.passed).contains(&other.passed));
    }
    if whole.opaque {
        return;
    }

    let passed = &bytes[..bytewise.passed];
    let read = message::messages(passed);
    let served = served::serve(&pieces(passed, lengths), BOUNDS.head, BOUNDS.fields);
    assert!(
        served.len() <= read.len(),
        "hyper took for a request what is none: {served:?}"
    );
    for (served, read) in served.iter().zip(&read) {
        let Message {
            method,
            target,
            head_end,
            body,
            complete,
        } = read;
        assert_eq!(&served.method, method);
        if target.starts_with(b"/") {
            assert_eq!(&served.path, target, "a target goes on byte for byte");
        }
        // hyper may find fault with trailers that nobody else reads, but takes nothing broken for whole.
        assert!(!served.complete || *complete);
        assert!(body.starts_with(&served.body));
        assert!(!served.complete || served.body.len() == body.len());
        let heads = |end| inspect(&[&bytes[..end]]).heads;
        assert_eq!(heads(*head_end), heads(head_end - 1) + 1);
    }
    // Nothing that hyper begins is hidden from the inspector.
    assert!(served.len() <= whole.heads as usize);
});
