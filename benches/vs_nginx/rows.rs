//! What is measured, and what lowport is meant to reach in each.

use std::rc::Rc;
use std::time::Duration;

use crate::loads;
use crate::memory::{idle_connection, start_up};
use crate::proxies::{Setup, Which};
use crate::proxy::Proxy;
use crate::site::Via;

/// One measurement, which may tell several figures.
pub(crate) struct Row {
    /// What it is asked for by
    pub(crate) name: &'static str,
    /// What it tells
    pub(crate) figures: Vec<Figure>,
    /// Which proxies take part
    pub(crate) who: &'static [Which],
    /// Each that takes part has a process with each of these; none where the measurement starts its own
    pub(crate) setups: &'static [Setup],
    /// Measures one proxy once
    pub(crate) measure: fn(&Bout) -> Result<Sample, String>,
}

/// Something that a row tells.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figure {
    /// What was done
    pub(crate) what: &'static str,
    /// In which unit it is told
    pub(crate) unit: &'static str,
    /// What lowport is meant to reach
    pub(crate) goal: Goal,
}

/// The most that a figure of lowport's is meant to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Goal {
    /// Of tuned nginx's
    Ratio(f64),
    /// In the figure's unit
    Absolute(f64),
    /// Nothing is promised
    Nothing,
}

/// What one proxy has to do in one round.
pub(crate) struct Bout {
    /// Who it is
    pub(crate) which: Which,
    /// Its processes
    pub(crate) running: Vec<Rc<Proxy>>,
    /// The upstream's port
    pub(crate) upstream: u16,
    /// How long it is measured
    pub(crate) seconds: Duration,
}

impl Bout {
    /// The process that is measured, in rows with one.
    pub(crate) fn proxy(&self) -> &Rc<Proxy> {
        &self.running[0]
    }
}

/// What it did.
#[derive(Debug)]
pub(crate) struct Sample {
    /// For each of the row's figures
    pub(crate) values: Vec<f64>,
    /// Share of its processor that it used, where it was to work
    pub(crate) busy: Option<f64>,
}

/// As they are, but for what a row is about.
const PLAIN: Setup = Setup {
    log: false,
    routes: 0,
};
const LOGGED: Setup = Setup { log: true, ..PLAIN };
const FEW: Setup = Setup {
    routes: 10,
    ..PLAIN
};
const MANY: Setup = Setup {
    routes: 10_000,
    ..PLAIN
};

/// All there are, in the order of the tables.
pub(crate) fn rows() -> Vec<Row> {
    use Goal::{Absolute, Nothing, Ratio};
    let mut rows = keep_alive();
    rows.extend(connections());
    rows.extend(bulk());
    rows.extend([
        alone(
            "idle",
            [("an idle connection", "KiB", Absolute(4.0))],
            |bout| idle(bout, Via::Http1),
        ),
        alone(
            "idle-tls",
            [("an idle TLS connection", "KiB", Absolute(16.0))],
            |bout| idle(bout, Via::Tls),
        ),
        Row {
            who: &[Which::Tuned, Which::Lowport],
            setups: &[FEW, MANY],
            ..row(
                "routes",
                [("cost with 10,000 routes over 10", "times", Absolute(1.05))],
                loads::routes,
            )
        },
        Row {
            who: &[Which::Tuned, Which::Pasted, Which::Lowport],
            setups: &[LOGGED],
            ..row(
                "log",
                [("HTTP/1.1, access log on", REQUEST, Ratio(0.95))],
                |bout| loads::keep_alive(bout, Via::Http1),
            )
        },
        row(
            "latency",
            [
                ("p50 at 2,000 requests/s", "us", Ratio(1.0)),
                ("p99 at 2,000 requests/s", "us", Nothing),
            ],
            loads::fixed_rate,
        ),
        row(
            "saturation",
            [("p99 of 64 connections, no pause", "us", Ratio(1.0))],
            loads::saturation,
        ),
        row(
            "fairness",
            [("p99 of 63 beside 1 endless download", "us", Nothing)],
            loads::fairness,
        ),
        alone(
            "start",
            [
                ("start until a request is answered", "ms", Absolute(40.0)),
                ("memory when idle", "MiB", Ratio(1.0)),
            ],
            |bout| {
                let (millis, mebibytes) = start_up(bout.which, bout.upstream)?;
                let values = vec![millis, mebibytes];
                Ok(Sample { values, busy: None })
            },
        ),
    ]);
    rows
}

const REQUEST: &str = "us/request";
const CONNECTION: &str = "us/connection";
const GIB: &str = "s/GiB";

/// 1 KiB for each request, on 64 connections that are kept.
fn keep_alive() -> Vec<Row> {
    let what = |via| match via {
        Via::Http1 => ("HTTP/1.1 keep-alive, 64 connections", 0.95),
        Via::Tls => ("HTTP/1.1 over TLS 1.3, as many", 0.75),
        Via::Http2 => ("HTTP/2 over TLS, 64 x 10 streams", 0.85),
    };
    let measure = |via| -> fn(&Bout) -> Result<Sample, String> {
        match via {
            Via::Http1 => |bout| loads::keep_alive(bout, Via::Http1),
            Via::Tls => |bout| loads::keep_alive(bout, Via::Tls),
            Via::Http2 => loads::multiplexed,
        }
    };
    let rows = Via::ALL.map(|via| {
        let (what, goal) = what(via);
        row(
            via.name(),
            [(what, REQUEST, Goal::Ratio(goal))],
            measure(via),
        )
    });
    rows.into()
}

/// A request on each connection.
fn connections() -> [Row; 3] {
    use Goal::Ratio;
    [
        row(
            "handshake",
            [("full TLS handshake, 1 request", CONNECTION, Ratio(0.50))],
            |bout| loads::handshakes(bout, false),
        ),
        row(
            "resumed",
            [("resumed TLS handshake, 1 request", CONNECTION, Ratio(0.55))],
            |bout| loads::handshakes(bout, true),
        ),
        row(
            "churn",
            [("new connection, 1 request", CONNECTION, Ratio(1.0))],
            loads::churn,
        ),
    ]
}

fn bulk() -> [Row; 5] {
    use Goal::Ratio;
    [
        row(
            "download",
            [("1 MiB downloads", GIB, Ratio(0.75))],
            |bout| loads::downloads(bout, Via::Http1),
        ),
        row(
            "download-tls",
            [("1 MiB downloads over TLS", GIB, Ratio(0.85))],
            |bout| loads::downloads(bout, Via::Tls),
        ),
        row("upload", [("10 MiB uploads", GIB, Ratio(0.70))], |bout| {
            loads::uploads(bout, Via::Http1)
        }),
        row(
            "upload-tls",
            [("10 MiB uploads over TLS", GIB, Ratio(0.60))],
            |bout| loads::uploads(bout, Via::Tls),
        ),
        row(
            "tunnel",
            [("WebSocket tunnel", GIB, Ratio(0.55))],
            loads::tunnel,
        ),
    ]
}

/// A row for all.
fn row<const N: usize>(
    name: &'static str,
    figures: [(&'static str, &'static str, Goal); N],
    measure: fn(&Bout) -> Result<Sample, String>,
) -> Row {
    let figure = |(what, unit, goal)| Figure { what, unit, goal };
    Row {
        name,
        figures: figures.map(figure).into(),
        who: &Which::ALL,
        setups: &[PLAIN],
        measure,
    }
}

/// One that starts its own processes.
fn alone<const N: usize>(
    name: &'static str,
    figures: [(&'static str, &'static str, Goal); N],
    measure: fn(&Bout) -> Result<Sample, String>,
) -> Row {
    Row {
        setups: &[],
        ..row(name, figures, measure)
    }
}

fn idle(bout: &Bout, via: Via) -> Result<Sample, String> {
    let kibibytes = idle_connection(bout.which, bout.upstream, via)?;
    Ok(Sample {
        values: vec![kibibytes],
        busy: None,
    })
}
