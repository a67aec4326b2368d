//! Two proxies that differ in one thing.

use std::time::Duration;

use crate::rounds::{Round, round};
use crate::support::proxy::Proxy;
use crate::support::site::Via;

/// The round with this number of each: now one begins and now the other, so that what the first leaves behind is not always
/// the same one's burden.
pub(crate) fn in_turn(
    proxies: &[Proxy; 2],
    via: Via,
    seconds: Duration,
    number: u64,
) -> [Round; 2] {
    let [one, other] = proxies;
    if number.is_multiple_of(2) {
        let first = round(one, via, seconds);
        [first, round(other, via, seconds)]
    } else {
        let first = round(other, via, seconds);
        [round(one, via, seconds), first]
    }
}
