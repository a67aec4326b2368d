//! `[limits]` and `[timeouts]`, and what of them a route may set for itself.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::keys;
use super::table::Table;
use super::values::{self, Wrong, show_size};
use super::{Limits, Timeouts};

/// Bytes of a request's head. Node's own limit is 16 KiB.
const HEAD: RangeInclusive<u64> = 8 << 10..=1 << 20;

/// Bytes of a request's target. RFC 9110 section 4.1 asks for 8000; hyper takes 65534.
const TARGET: RangeInclusive<u64> = 1 << 10..=60 << 10;

/// Connections at most: more than a machine has ports and descriptors for.
const CONNECTIONS: u64 = 10_000_000;

/// `[limits]`
pub(super) fn limits(top: &Table<'_>) -> Limits {
    let table = top.table("limits", &keys::LIMITS);
    let connections = |key, default| match table.number(key, 0..=CONNECTIONS) {
        Some(number) => Some(number.value as usize).filter(|number| *number != 0),
        None => default,
    };
    Limits {
        request_head: bytes(&table, "request_head", "16KiB", &HEAD).unwrap_or(16 << 10),
        request_target: bytes(&table, "request_target", "8KiB", &TARGET).unwrap_or(8 << 10),
        request_headers: match table.number("request_headers", 1..=1000) {
            Some(number) => number.value as usize,
            None => 100,
        },
        request_body: body(&table, Some(64 << 20)),
        connections: connections("connections", Some(10_000)),
        connections_per_ip: connections("connections_per_ip", None),
    }
}

/// `[route.limits]` over `[limits]`
pub(super) fn route_limits(route: &Table<'_>, limits: &Limits) -> Limits {
    let table = route.table("limits", &keys::ROUTE_LIMITS);
    Limits {
        request_body: body(&table, limits.request_body),
        ..limits.clone()
    }
}

fn bytes(
    table: &Table<'_>,
    key: &str,
    example: &str,
    range: &RangeInclusive<u64>,
) -> Option<usize> {
    let within = |text: &str| {
        let size = values::size(text)?;
        let why = || {
            let (min, max) = (show_size(*range.start()), show_size(*range.end()));
            Wrong::new(format!("must be {min} to {max}"), "")
        };
        range.contains(&size).then_some(size).ok_or_else(why)
    };
    let size = table.scalar(key, &format!("a size such as \"{example}\""), within)?;
    Some(size.value as usize)
}

fn body(table: &Table<'_>, default: Option<u64>) -> Option<u64> {
    let wanted = "a size such as \"64MiB\", or 0 for no limit";
    match table.scalar("request_body", wanted, values::size) {
        Some(size) => Some(size.value).filter(|size| *size != 0),
        None => default,
    }
}

/// `[timeouts]`
pub(super) fn timeouts(top: &Table<'_>) -> Timeouts {
    let table = top.table("timeouts", &keys::TIMEOUTS);
    let time = |key, seconds| time(&table, key, Duration::from_secs(seconds));
    Timeouts {
        tls_handshake: time("tls_handshake", 10),
        request_head: time("request_head", 10),
        request_body_idle: time("request_body_idle", 30),
        keepalive_idle: time("keepalive_idle", 75),
        upstream_connect: time("upstream_connect", 5),
        upstream_response: time("upstream_response", 60),
        upstream_idle: time("upstream_idle", 60),
        drain: time("drain", 30),
    }
}

/// `[route.timeouts]` over `[timeouts]`
pub(super) fn route_timeouts(route: &Table<'_>, timeouts: &Timeouts) -> Timeouts {
    let table = route.table("timeouts", &keys::ROUTE_TIMEOUTS);
    let time = |key, default| time(&table, key, default);
    Timeouts {
        request_body_idle: time("request_body_idle", timeouts.request_body_idle),
        upstream_connect: time("upstream_connect", timeouts.upstream_connect),
        upstream_response: time("upstream_response", timeouts.upstream_response),
        upstream_idle: time("upstream_idle", timeouts.upstream_idle),
        ..timeouts.clone()
    }
}

fn time(table: &Table<'_>, key: &str, default: Duration) -> Duration {
    let time = table.scalar(key, "a time such as \"10s\"", values::time);
    time.map_or(default, |time| time.value)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{mistakes, parsed};
    use super::*;

    const ROUTE: &str = "[[route]]\nto = \"http://127.0.0.1:3000\"\n";

    #[test]
    fn defaults_are_those_of_the_contract() {
        let config = parsed(ROUTE);
        let limits = Limits {
            request_head: 16 << 10,
            request_target: 8 << 10,
            request_headers: 100,
            request_body: Some(64 << 20),
            connections: Some(10_000),
            connections_per_ip: None,
        };
        assert_eq!(config.limits, limits);
        assert_eq!(config.routes[0].limits, limits);
        let seconds = |time: Duration| time.as_secs();
        let t = &config.timeouts;
        assert_eq!(&config.routes[0].timeouts, t);
        let client = [
            t.tls_handshake,
            t.request_head,
            t.request_body_idle,
            t.keepalive_idle,
        ];
        assert_eq!(client.map(seconds), [10, 10, 30, 75]);
        let rest = [
            t.upstream_connect,
            t.upstream_response,
            t.upstream_idle,
            t.drain,
        ];
        assert_eq!(rest.map(seconds), [5, 60, 60, 30]);
    }

    #[test]
    fn zero_is_no_limit_and_routes_have_their_own() {
        let config = parsed(&format!(
            "[limits]\nrequest_body = 0\nconnections = 0\nconnections_per_ip = 5\n\
             [timeouts]\ndrain = \"1h\"\nupstream_idle = \"250ms\"\n\
             {ROUTE}[route.limits]\nrequest_body = \"1GiB\"\n\
             [route.timeouts]\nupstream_idle = \"5m\"\n[[route]]\npath = \"/b\"\nto = \"a:1\"\n"
        ));
        assert_eq!(config.limits.request_body, None);
        assert_eq!(config.limits.connections, None);
        assert_eq!(config.limits.connections_per_ip, Some(5));
        let [first, second] = &config.routes[..] else {
            panic!("two routes")
        };
        assert_eq!(first.limits.request_body, Some(1 << 30));
        assert_eq!(second.limits.request_body, None);
        assert_eq!(first.timeouts.upstream_idle, Duration::from_secs(300));
        assert_eq!(second.timeouts.upstream_idle, Duration::from_millis(250));
        assert_eq!(first.timeouts.drain, Duration::from_secs(3600));
    }

    #[test]
    fn mistakes_of_limits() {
        for (text, said) in [
            ("[limits]\nrequest_head = \"4KiB\"", "must be 8KiB to 1MiB"),
            ("[limits]\nrequest_head = 2000000", "must be 8KiB to 1MiB"),
            (
                "[limits]\nrequest_target = \"64KiB\"",
                "must be 1KiB to 60KiB",
            ),
            ("[limits]\nrequest_headers = 0", "must be 1 to 1000"),
            (
                "[limits]\nrequest_body = 1.5",
                "this is a number with a fraction",
            ),
            ("[limits]\nrequest_body = -1", "this is no size"),
            ("[limits]\nconnections = \"many\"", "must be a whole number"),
            ("[timeouts]\ndrain = 10", "write \"10s\""),
            ("[timeouts]\ndrain = true", "must be a time such as \"10s\""),
            ("[timeouts]\ndrain = \"0s\"", "must be 1ms to 24h"),
        ] {
            let told = mistakes(&format!("{text}\n{ROUTE}"));
            assert!(told.contains(said), "{text}: {told}");
            assert!(told.ends_with("1 mistake\n"), "{text}: {told}");
        }
        for (text, said) in [
            (
                "[route.limits]\nconnections = 1",
                "`connections` belongs to [limits]",
            ),
            (
                "[route.timeouts]\ndrain = \"1s\"",
                "`drain` belongs to [timeouts]",
            ),
        ] {
            let told = mistakes(&format!("{ROUTE}{text}\n"));
            assert!(told.contains(said), "{text}: {told}");
        }
    }
}
