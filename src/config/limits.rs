//! `[limits]` and `[timeouts]`, and what of them a route may set for itself.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::keys;
use super::table::Table;
use super::values::{self, Wrong, show_size};
use super::{Limits, Memory, Mistake, Rate, Timeouts};

/// Bytes of a request's head. Node's own limit is 16 KiB.
const HEAD: RangeInclusive<u64> = 8 << 10..=1 << 20;

/// Bytes of a request's target. RFC 9110 section 4.1 asks for 8000; hyper takes 65534.
const TARGET: RangeInclusive<u64> = 1 << 10..=60 << 10;

/// Connections at most: more than a machine has ports and descriptors for.
const CONNECTIONS: u64 = 10_000_000;

/// Requests at a time over one HTTP/2 connection. RFC 9113 section 6.5.2 asks for 100 at least.
const STREAMS: RangeInclusive<u64> = 1..=10_000;

/// Bytes of memory at least: lowport itself has more.
const MEMORY: u64 = 4 << 20;

/// Requests at once.
const BURST: RangeInclusive<u64> = 1..=1_000_000;
/// Longer than the pauses in what a page loads, which would pay for each: a request after 400 ms takes a twentieth more CPU
/// time where its connection hibernated meanwhile.
const HIBERNATE: Duration = Duration::from_millis(250);

/// `[limits]`
pub(super) fn limits(top: &Table<'_>) -> Limits {
    let table = top.table("limits", &keys::LIMITS);
    let count = |key, default| match table.number(key, 0..=CONNECTIONS) {
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
        connections: count("connections", Some(10_000)),
        connections_per_ip: count("connections_per_ip", None),
        requests_per_connection: match table.number("requests_per_connection", 0..=u32::MAX.into())
        {
            Some(number) => Some(number.value as u32).filter(|number| *number != 0),
            None => None,
        },
        streams: match table.number("streams", STREAMS) {
            Some(number) => number.value as u32,
            None => 128,
        },
        requests_in_flight: count("requests_in_flight", None),
        memory: memory(&table),
        request_rate: rate(&table, None, false),
        request_body_rate: body_rate(&table, Some(500)),
    }
}

/// `[route.limits]` over `[limits]`
pub(super) fn route_limits(route: &Table<'_>, limits: &Limits) -> Limits {
    let table = route.table("limits", &keys::ROUTE_LIMITS);
    Limits {
        request_body: body(&table, limits.request_body),
        request_body_rate: body_rate(&table, limits.request_body_rate),
        request_rate: rate(&table, limits.request_rate.as_ref(), true),
        ..limits.clone()
    }
}

/// `request_rate` and `request_burst`. A route that writes either counts by itself; `general` is what holds otherwise.
fn rate(table: &Table<'_>, general: Option<&Rate>, own: bool) -> Option<Rate> {
    let wanted = "a rate such as \"100/s\", or 0 for no limit";
    let rate = table.scalar("request_rate", wanted, values::rate);
    let burst = table.number("request_burst", BURST);
    let burst = burst.map(|burst| burst.value as u32);
    let base = match rate {
        Some(rate) => rate.value.map(|(requests, per)| Rate {
            requests,
            per,
            burst: requests,
            own,
        }),
        None => general.cloned(),
    };
    if base.is_none() && table.has("request_burst") && !table.has("request_rate") {
        let message = "`request_burst` has no use without `request_rate`";
        let mistake = Mistake::new(table.key("request_burst"), message);
        table
            .reader
            .push(mistake.help("write request_rate = \"100/s\" too"));
    }
    base.map(|base| match burst {
        Some(burst) => Rate { burst, own, ..base },
        None => base,
    })
}

fn body_rate(table: &Table<'_>, default: Option<u64>) -> Option<u64> {
    let wanted = "a size a second such as \"500B/s\", or 0 for no limit";
    match table.scalar("request_body_rate", wanted, values::speed) {
        Some(speed) => speed.value,
        None => default,
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

fn memory(table: &Table<'_>) -> Memory {
    let wanted = "a size such as \"512MiB\", a share such as \"50%\", or 0 for no limit";
    let share = |percent: &str| {
        let percent = percent.parse().ok();
        let percent = percent.filter(|percent| (1..=100).contains(percent));
        percent
            .map(Memory::Share)
            .ok_or_else(|| Wrong::new("must be 1% to 100%", ""))
    };
    let size = |text: &str| match values::size(text)? {
        0 => Ok(Memory::Any),
        size if size < MEMORY => Err(Wrong::new(
            format!("must be {} at least", show_size(MEMORY)),
            "write 0 for no limit",
        )),
        size => Ok(Memory::Bytes(size)),
    };
    let memory = table.scalar("memory", wanted, |text| match text.strip_suffix('%') {
        Some(percent) => share(percent),
        None => size(text),
    });
    memory.map_or(Memory::Share(50), |memory| memory.value)
}

/// `[timeouts]`
pub(super) fn timeouts(top: &Table<'_>) -> Timeouts {
    let table = top.table("timeouts", &keys::TIMEOUTS);
    let time = |key, seconds| time(&table, key, Duration::from_secs(seconds));
    Timeouts {
        tls_handshake: time("tls_handshake", 10),
        request_head: time("request_head", 10),
        request_body_idle: time("request_body_idle", 30),
        response_write_idle: time("response_write_idle", 60),
        keepalive_idle: time("keepalive_idle", 75),
        hibernate: hibernate(&table),
        upstream_connect: time("upstream_connect", 5),
        upstream_response: time("upstream_response", 60),
        upstream_idle: time("upstream_idle", 60),
        tunnel_idle: time("tunnel_idle", 60 * 60),
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
        tunnel_idle: time("tunnel_idle", timeouts.tunnel_idle),
        ..timeouts.clone()
    }
}

fn hibernate(table: &Table<'_>) -> Option<Duration> {
    let wanted = "a time such as \"5s\", or 0 for never";
    let time = table.scalar("hibernate", wanted, |text| match text {
        "0" => Ok(None),
        _ => values::time(text).map(Some),
    });
    time.map_or(Some(HIBERNATE), |time| time.value)
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
            requests_per_connection: None,
            streams: 128,
            requests_in_flight: None,
            memory: Memory::Share(50),
            request_rate: None,
            request_body_rate: Some(500),
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
            t.response_write_idle,
            t.keepalive_idle,
        ];
        assert_eq!(client.map(seconds), [10, 10, 30, 60, 75]);
        assert_eq!(t.hibernate, Some(Duration::from_millis(250)));
        let rest = [
            t.upstream_connect,
            t.upstream_response,
            t.upstream_idle,
            t.tunnel_idle,
            t.drain,
        ];
        assert_eq!(rest.map(seconds), [5, 60, 60, 3600, 30]);
    }

    #[test]
    fn zero_is_no_limit_and_routes_have_their_own() {
        let config = parsed(&format!(
            "[limits]\nrequest_body = 0\nconnections = 0\nconnections_per_ip = 5\nmemory = 0\n\
             [timeouts]\nhibernate = 0\ndrain = \"1h\"\nupstream_idle = \"250ms\"\n\
             {ROUTE}[route.limits]\nrequest_body = \"1GiB\"\n\
             [route.timeouts]\nupstream_idle = \"5m\"\n[[route]]\npath = \"/b\"\nto = \"a:1\"\n"
        ));
        assert_eq!(config.limits.request_body, None);
        assert_eq!(config.limits.connections, None);
        assert_eq!(config.limits.memory, Memory::Any);
        assert_eq!(config.timeouts.hibernate, None);
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
    fn a_rate_has_a_burst_and_a_route_that_writes_one_counts_by_itself() {
        let rates = |general: &str, own: &str| {
            let config = parsed(&format!(
                "[limits]\nrequest_body = 0\n{general}\n{ROUTE}[route.limits]\nrequest_body = 1\n{own}\n"
            ));
            let shown = |rate: &Option<Rate>| {
                let rate = rate.as_ref()?;
                Some(format!("{rate}{}", if rate.own { ", own" } else { "" }))
            };
            let [all, route] = [&config.limits, &config.routes[0].limits];
            [&all.request_rate, &route.request_rate].map(|rate| shown(rate).unwrap_or_default())
        };
        for (general, own, expected) in [
            ("", "", ["", ""]),
            ("request_rate = \"10/s\"", "", ["10/s, 10 at once"; 2]),
            (
                "request_rate = \"600/m\"\nrequest_burst = 5",
                "",
                ["600/m, 5 at once"; 2],
            ),
            (
                "request_rate = \"10/s\"",
                "request_rate = \"7/h\"",
                ["10/s, 10 at once", "7/h, 7 at once, own"],
            ),
            (
                "request_rate = \"10/s\"",
                "request_burst = 2",
                ["10/s, 10 at once", "10/s, 2 at once, own"],
            ),
            (
                "request_rate = \"10/s\"",
                "request_rate = 0",
                ["10/s, 10 at once", ""],
            ),
            ("request_rate = 0\nrequest_burst = 50", "", ["", ""]),
        ] {
            assert_eq!(rates(general, own), expected, "{general} {own}");
        }
    }

    #[test]
    fn what_a_client_must_send_and_what_one_connection_may_ask() {
        let config = parsed(&format!(
            "[limits]\nrequest_body_rate = \"1KiB/s\"\nrequests_per_connection = 1000\n\
             requests_in_flight = 200\nstreams = 10\nmemory = \"512MiB\"\n\
             {ROUTE}[route.limits]\nrequest_body_rate = 0\n[route.timeouts]\ntunnel_idle = \"1m\"\n"
        ));
        let limits = &config.limits;
        assert_eq!(limits.request_body_rate, Some(1024));
        assert_eq!(limits.requests_per_connection, Some(1000));
        assert_eq!(limits.requests_in_flight, Some(200));
        assert_eq!(limits.memory, Memory::Bytes(512 << 20));
        assert_eq!(limits.streams, 10);
        let route = &config.routes[0];
        assert_eq!(route.limits.request_body_rate, None);
        assert_eq!(route.timeouts.tunnel_idle, Duration::from_secs(60));
        assert_eq!(config.timeouts.tunnel_idle, Duration::from_secs(3600));
    }

    #[test]
    fn mistakes_of_limits() {
        for (text, said) in [
            ("[limits]\nrequest_rate = 100", "write \"100/s\""),
            ("[limits]\nrequest_rate = \"0/s\"", "write 0 for no limit"),
            (
                "[limits]\nrequest_rate = \"100/d\"",
                "there is no such unit",
            ),
            ("[limits]\nrequest_rate = true", "must be a rate such as"),
            (
                "[limits]\nrequest_rate = \"1/s\"\nrequest_burst = 0",
                "must be 1 to 1000000",
            ),
            (
                "[limits]\nrequest_burst = 5",
                "no use without `request_rate`",
            ),
            ("[limits]\nrequest_body_rate = 500", "the time is missing"),
            (
                "[limits]\nrequest_body_rate = \"1KiB/m\"",
                "this is not a second",
            ),
            (
                "[limits]\nrequest_body_rate = []",
                "must be a size a second such as",
            ),
            ("[limits]\nstreams = 0", "must be 1 to 10000"),
            (
                "[limits]\nrequests_per_connection = -1",
                "must be 0 to 4294967295",
            ),
            (
                "[limits]\nrequests_in_flight = \"all\"",
                "must be a whole number",
            ),
            (
                "[timeouts]\nresponse_write_idle = \"25h\"",
                "must be 1ms to 24h",
            ),
            ("[timeouts]\ntunnel_idle = 0", "write \"0s\""),
            ("[limits]\nrequest_head = \"4KiB\"", "must be 8KiB to 1MiB"),
            ("[limits]\nrequest_head = 2000000", "must be 8KiB to 1MiB"),
            (
                "[limits]\nrequest_target = \"64KiB\"",
                "must be 1KiB to 60KiB",
            ),
            ("[limits]\nmemory = \"1MiB\"", "must be 4MiB at least"),
            ("[limits]\nmemory = \"0%\"", "must be 1% to 100%"),
            ("[limits]\nmemory = \"x%\"", "must be 1% to 100%"),
            ("[limits]\nmemory = true", "must be a size such as"),
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
                "[route.limits]\nstreams = 1",
                "`streams` belongs to [limits]",
            ),
            (
                "[route.limits]\nrequests_per_connection = 1",
                "`requests_per_connection` belongs to [limits]",
            ),
            (
                "[route.limits]\nrequests_in_flight = 1",
                "`requests_in_flight` belongs to [limits]",
            ),
            (
                "[route.limits]\nrequest_burst = 5",
                "no use without `request_rate`",
            ),
            (
                "[route.timeouts]\ndrain = \"1s\"",
                "`drain` belongs to [timeouts]",
            ),
            (
                "[route.timeouts]\nresponse_write_idle = \"1s\"",
                "`response_write_idle` belongs to [timeouts]",
            ),
        ] {
            let told = mistakes(&format!("{ROUTE}{text}\n"));
            assert!(told.contains(said), "{text}: {told}");
        }
    }
}
