//! Whether a client takes what is there for it.

use std::cell::Cell;

/// Of one response. Over HTTP/2 a client can leave a stream standing for ever, without the connection showing it: the
/// response's body says here when it waits for the client and when for the upstream.
#[derive(Debug, Default)]
pub struct Uptake {
    given: Cell<u64>,
    waits: Cell<bool>,
    given_up: Cell<bool>,
}

impl Uptake {
    /// There is something for the client.
    pub fn give(&self) {
        self.given.set(self.given.get() + 1);
        self.waits.set(true);
    }

    /// The client has taken all that there was.
    pub fn taken(&self) {
        self.waits.set(false);
    }

    /// How often something was given, while the last of it waits to be taken.
    pub fn waits(&self) -> Option<u64> {
        self.waits.get().then(|| self.given.get())
    }

    /// The client has taken too long.
    pub fn give_up(&self) {
        self.given_up.set(true);
    }

    /// Whether it has.
    pub fn is_given_up(&self) -> bool {
        self.given_up.get()
    }
}
