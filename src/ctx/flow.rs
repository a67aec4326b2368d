//! Whether an HTTP/2 client takes its response.

use std::cell::Cell;

/// One stream's response, as its body and its task tell each other: hyper asks the body for more only when it is rid of
/// what it was given, and that it is not until the client has opened the stream's window.
#[derive(Debug, Default)]
pub struct Flow {
    /// How often more was asked for
    turn: Cell<u64>,
    /// Whether what was given last waits for the client
    given: Cell<bool>,
    stalled: Cell<bool>,
}

impl Flow {
    /// The body is asked for more: whatever it gave has left.
    pub fn ask(&self) {
        self.turn.set(self.turn.get().wrapping_add(1));
        self.given.set(false);
    }

    /// The body gives something.
    pub fn give(&self) {
        self.given.set(true);
    }

    /// The turn that waits for the client, if one does.
    pub fn waits(&self) -> Option<u64> {
        self.given.get().then(|| self.turn.get())
    }

    /// The client did not take it in time.
    pub fn stall(&self) {
        self.stalled.set(true);
    }

    /// Whether it did not.
    pub fn has_stalled(&self) -> bool {
        self.stalled.get()
    }
}
