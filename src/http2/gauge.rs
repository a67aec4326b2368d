//! The frames of a client as they pass: their headers are read, what is in them is not.

use std::time::Instant;

use super::Misuse;

const PREFACE: usize = 24;
const HEADER: usize = 9;

/// What frames may cost before anything came of them. An idle client may spend all of it at once.
const BUDGET: u32 = 1000;
/// What is added in a second: nobody needs to be told off for a slow trickle.
const INCOME: u64 = 20;
/// Requests that the library takes before those are begun, and other connections have their turn. Each may take a hundred
/// times the bytes that it came in: fields are decoded from a table.
const TURN: u32 = 8;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// What is to become of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// All may pass
    Pass,
    /// So many may pass, more than 0, and the others after the next [`turn`](Gauge::turn)
    Pause(usize),
    /// So many may pass, and the connection ends
    Cut(usize, Misuse),
}

/// Counts what a client's frames cost. Whatever is useful is paid for elsewhere: see [`earn`](Self::earn).
#[derive(Debug)]
pub struct Gauge {
    /// Of the preface
    preface: usize,
    /// The header of the next frame, as far as it is known
    header: [u8; HEADER],
    known: usize,
    /// What is still to come of the current frame
    rest: usize,
    /// The current frame's type and flags, while it is passing
    frame: Option<(u8, u8)>,
    /// Whether a block of fields has begun and not ended
    in_head: bool,
    /// Whether there was a frame
    begun: bool,
    /// The highest stream with HEADERS
    last: u32,
    budget: u32,
    paid: Instant,
    heads: u32,
    misuse: Option<Misuse>,
}

impl Gauge {
    /// A connection whose preface is still to come.
    pub fn new() -> Self {
        Self {
            preface: PREFACE,
            header: [0; HEADER],
            known: 0,
            rest: 0,
            frame: None,
            in_head: false,
            begun: false,
            last: 0,
            budget: BUDGET,
            paid: Instant::now(),
            heads: 0,
            misuse: None,
        }
    }

    /// Something came of the client's frames: that pays for others.
    pub fn earn(&mut self, credit: u32) {
        self.budget = self.budget.saturating_add(credit).min(BUDGET);
    }

    /// The connection is to end with the frame that is passing.
    pub fn cut(&mut self, misuse: Misuse) {
        self.misuse.get_or_insert(misuse);
    }

    /// The highest stream that was begun.
    pub fn last(&self) -> u32 {
        self.last
    }

    /// Whether part of a request's head has come, and the rest has not.
    pub fn in_head(&self) -> bool {
        self.in_head
    }

    /// The connection has its turn again: the requests that it had read before have been begun.
    pub fn turn(&mut self) {
        self.heads = 0;
    }

    /// Looks at the next bytes. After a pause, those that were held back are to be shown again.
    pub fn look(&mut self, bytes: &[u8]) -> Look {
        let mut at = self.preface.min(bytes.len());
        self.preface -= at;
        while self.preface == 0 {
            if self.known < HEADER {
                if let (Some(misuse), 0) = (self.misuse, self.known) {
                    return Look::Cut(at, misuse);
                }
                let count = (HEADER - self.known).min(bytes.len() - at);
                self.header[self.known..self.known + count].copy_from_slice(&bytes[at..at + count]);
                self.known += count;
                at += count;
                if self.known < HEADER {
                    break;
                }
                self.begin();
            }
            let count = self.rest.min(bytes.len() - at);
            self.rest -= count;
            at += count;
            if self.rest > 0 {
                break;
            }
            self.end();
            if self.misuse.is_none() && self.heads >= TURN && at > 0 {
                return Look::Pause(at);
            }
        }
        Look::Pass
    }

    /// The header of a frame is known.
    fn begin(&mut self) {
        let [high, middle, low, kind, flags, stream @ ..] = self.header;
        let length = u32::from_be_bytes([0, high, middle, low]);
        self.rest = length as usize;
        self.frame = Some((kind, flags));
        if !self.begun && kind != SETTINGS {
            self.cut(Misuse::Preface);
        }
        self.begun = true;
        if kind == HEADERS {
            self.in_head = true;
            self.last = self.last.max(u32::from_be_bytes(stream) & (u32::MAX >> 1));
        }
        self.spend(cost(kind, length));
        if kind == DATA {
            self.earn(length / 1024);
        }
    }

    /// The current frame has passed.
    fn end(&mut self) {
        self.known = 0;
        let Some((kind, flags)) = self.frame.take() else {
            return;
        };
        if matches!(kind, HEADERS | CONTINUATION) && flags & END_HEADERS != 0 {
            self.in_head = false;
            self.heads += 1;
        }
    }

    fn spend(&mut self, cost: u32) {
        if self.budget < cost {
            let now = Instant::now();
            let income = (now - self.paid).as_millis() as u64 * INCOME / 1000;
            if income > 0 {
                self.paid = now;
                self.earn(income.min(u64::from(BUDGET)) as u32);
            }
        }
        match self.budget.checked_sub(cost) {
            Some(left) => self.budget = left,
            None => self.cut(Misuse::Frames),
        }
    }
}

/// What a frame costs. SETTINGS may touch every stream and are acknowledged, pings are answered, a request is work: it
/// pays for itself when it is answered. Data costs nothing, since the library bounds what is too small.
fn cost(kind: u8, length: u32) -> u32 {
    match kind {
        DATA if length > 0 => 0,
        SETTINGS => 10,
        HEADERS | PING => 2,
        _ => 1,
    }
}

impl Default for Gauge {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW_UPDATE: u8 = 8;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend_from_slice(payload);
        frame
    }

    fn greeting() -> Vec<u8> {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(SETTINGS, 0, 0, &[]));
        bytes
    }

    fn greeted() -> Gauge {
        let mut gauge = Gauge::new();
        assert_eq!(gauge.look(&greeting()), Look::Pass);
        gauge
    }

    /// How many of the same frame pass before the connection is cut off.
    fn endured(gauge: &mut Gauge, kind: u8, payload: &[u8]) -> usize {
        let bytes = frame(kind, 0, 0, payload);
        (0..100_000)
            .find(|_| matches!(gauge.look(&bytes), Look::Cut(..)))
            .expect("an end")
    }

    #[test]
    fn however_the_bytes_are_cut_the_frames_are_the_same() {
        let mut bytes = greeting();
        bytes.extend(frame(HEADERS, END_HEADERS, 1, b"12345"));
        bytes.extend(frame(DATA, 0, 1, &[0; 5000]));
        bytes.extend(frame(HEADERS, 0, 7, b"12345"));
        bytes.extend(frame(CONTINUATION, 0, 7, b""));
        for step in [1, 2, 8, 9, 10, 11, 1000, bytes.len()] {
            let mut gauge = Gauge::new();
            for chunk in bytes.chunks(step) {
                assert_eq!(gauge.look(chunk), Look::Pass, "{step}");
            }
            assert_eq!((gauge.last(), gauge.in_head()), (7, true), "{step}");
            assert_eq!(gauge.budget, BUDGET - 10 - 2 + 4 - 2 - 1, "{step}");
            gauge.look(&frame(CONTINUATION, END_HEADERS, 7, b""));
            assert!(!gauge.in_head());
        }
    }

    #[test]
    fn frames_that_nothing_comes_of_end_the_connection() {
        for (kind, payload, most) in [
            (SETTINGS, &[][..], 100),
            (PING, &[0; 8], 500),
            (2, &[0; 5], 1000),
            (3, &[0; 4], 1000),
            (WINDOW_UPDATE, &[0, 0, 0, 1], 1000),
            (DATA, &[], 1000),
            (CONTINUATION, &[], 1000),
            (0x77, &[0; 3], 1000),
        ] {
            let endured = endured(&mut greeted(), kind, payload);
            assert!(
                (most / 2..=most + 20).contains(&endured),
                "{kind} {endured}"
            );
        }
    }

    #[test]
    fn what_came_of_frames_pays_for_others() {
        let mut gauge = greeted();
        for _ in 0..10_000 {
            assert_eq!(gauge.look(&frame(HEADERS, 5, 1, b"x")), Look::Pass);
            gauge.turn();
            assert_eq!(
                gauge.look(&frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1, 0])),
                Look::Pass
            );
            gauge.earn(3);
        }
        for _ in 0..10_000 {
            assert_eq!(gauge.look(&frame(DATA, 0, 1, &[0; 2048])), Look::Pass);
            assert_eq!(gauge.look(&frame(PING, 0, 0, &[0; 8])), Look::Pass);
        }
        // But it does not pile up.
        gauge.earn(u32::MAX);
        assert!(endured(&mut gauge, PING, &[0; 8]) < 600);
    }

    #[test]
    fn the_end_comes_between_two_frames() {
        let mut gauge = greeted();
        let data = frame(DATA, 0, 1, &[0; 100]);
        assert_eq!(gauge.look(&data[..50]), Look::Pass);
        gauge.cut(Misuse::Resets);
        assert_eq!(gauge.look(&data[50..60]), Look::Pass);
        let rest = [&data[60..], &data].concat();
        assert_eq!(gauge.look(&rest), Look::Cut(49, Misuse::Resets));
        assert_eq!(gauge.look(b""), Look::Cut(0, Misuse::Resets));
    }

    #[test]
    fn settings_come_first() {
        let mut bytes = greeting();
        bytes[24 + 3] = PING;
        bytes.push(0);
        let looked = Gauge::new().look(&bytes);
        assert_eq!(looked, Look::Cut(24 + 9, Misuse::Preface));
    }

    #[test]
    fn many_requests_at_once_come_in_turns() {
        let mut gauge = greeted();
        let head = frame(HEADERS, END_HEADERS, 1, b"x");
        let bytes = head.repeat(20);
        assert_eq!(gauge.look(&bytes), Look::Pause(80));
        gauge.turn();
        assert_eq!(gauge.look(&bytes[80..]), Look::Pause(80));
        gauge.turn();
        assert_eq!(gauge.look(&bytes[160..]), Look::Pass);
        // However many reads they come in.
        assert_eq!(gauge.look(&head.repeat(4)), Look::Pause(40));
        gauge.turn();
        assert_eq!(gauge.look(&head.repeat(4)), Look::Pass);
    }
}
