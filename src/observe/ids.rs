//! Request ids and WebSocket keys: no system call, no lock.

use std::cell::Cell;
use std::fmt;
use std::hash::{BuildHasher, RandomState};

use http::HeaderValue;

/// Crockford's base32 in lower case: no letter looks like a digit.
const BASE32: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// RFC 4648 section 4.
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// Odd, so that adding it walks through all 64-bit numbers before one comes again.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Names one request in error pages and both logs: 16 characters, lower-case letters and digits. Not a secret: who has
/// seen some can work out others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId([u8; 16]);

impl RequestId {
    /// Its 16 characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Makes one worker's ids. Its own never repeat: they are a counter, scrambled by a function that can be undone. Those of
/// different workers and runs differ by 80 random bits: among a thousand million ids, two alike are expected once in
/// two million times.
#[derive(Debug)]
pub struct IdSource {
    secret: RandomState,
    worker: u64,
    counter: Cell<u64>,
}

impl IdSource {
    /// A source with a seed of its own, which comes from the system's random numbers.
    #[expect(clippy::new_without_default, reason = "each is different")]
    pub fn new() -> Self {
        let secret = RandomState::new();
        Self {
            worker: secret.hash_one("worker") & 0xffff,
            counter: Cell::new(secret.hash_one("counter")),
            secret,
        }
    }

    /// The next id.
    pub fn next(&self) -> RequestId {
        let mut rest = (u128::from(self.worker) << 64) | u128::from(scramble(self.step()));
        let mut id = [0; 16];
        for character in &mut id {
            *character = BASE32[(rest & 31) as usize];
            rest >>= 5;
        }
        RequestId(id)
    }

    /// A fresh `Sec-WebSocket-Key`: 16 bytes in base64 (RFC 6455 section 4.1), which nobody without the seed can foretell.
    pub fn websocket_key(&self) -> HeaderValue {
        let step = self.step();
        let bits = u128::from(self.secret.hash_one(("key", step, 0))) << 64
            | u128::from(self.secret.hash_one(("key", step, 1)));
        // 22 characters are 132 bits, of which the last four are zero.
        let mut key = *b"========================";
        for (at, character) in key[..22].iter_mut().enumerate() {
            let shift = 122_i32 - 6 * i32::try_from(at).unwrap_or_default();
            let six = if shift >= 0 {
                bits >> shift
            } else {
                bits << -shift
            };
            *character = BASE64[(six & 63) as usize];
        }
        HeaderValue::from_bytes(&key)
            .unwrap_or(HeaderValue::from_static("AAAAAAAAAAAAAAAAAAAAAA=="))
    }

    fn step(&self) -> u64 {
        let step = self.counter.get();
        self.counter.set(step.wrapping_add(STEP));
        step
    }
}

/// The output function of SplitMix64: a bijection, so that different numbers stay different.
fn scramble(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_are_short_words_that_do_not_repeat_in_or_between_workers() {
        let mut seen = HashSet::new();
        let workers: Vec<_> = (0..4)
            .map(|_| {
                std::thread::spawn(|| {
                    let source = IdSource::new();
                    (0..50_000).map(|_| source.next()).collect::<Vec<_>>()
                })
            })
            .collect();
        for id in workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap())
        {
            assert_eq!(id.as_str().len(), 16);
            assert!(
                id.as_str().bytes().all(|byte| BASE32.contains(&byte)),
                "{id}"
            );
            assert!(seen.insert(id), "{id} came twice");
        }
    }

    #[test]
    fn ids_one_after_the_other_do_not_look_alike() {
        let source = IdSource::new();
        let (first, second) = (source.next(), source.next());
        let same = first
            .0
            .iter()
            .zip(&second.0)
            .filter(|(a, b)| a == b)
            .count();
        // The worker's 16 bits are three characters and a bit; of the others some may agree by chance.
        assert!(same < 10, "{first} {second}");
    }

    #[test]
    fn a_websocket_key_is_sixteen_fresh_bytes_in_base64() {
        let source = IdSource::new();
        let mut seen = HashSet::new();
        for _ in 0..1000 {
            let key = source.websocket_key();
            let key = key.to_str().unwrap().to_owned();
            assert_eq!(key.len(), 24);
            assert!(key.ends_with("=="));
            assert!(key[..22].bytes().all(|byte| BASE64.contains(&byte)));
            // Strict decoders refuse bits beyond the sixteenth byte.
            assert!(
                matches!(key.as_bytes()[21], b'A' | b'Q' | b'g' | b'w'),
                "{key}"
            );
            assert!(seen.insert(key));
        }
    }
}
