//! What was measured, as a table for people and as JSON for programs.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::contest::{Line, Ratio};
use crate::facts::Facts;
use crate::proxies::Which;
use crate::rows::Goal;

/// What has to be known to read the figures.
const CAVEATS: &str = "\
- Proxies have one worker on one processor; clients and upstream share another, all on loopback. There is no network
  here, and no second worker.
- `s/GiB` and `us` per request or connection are CPU time of the proxy's processes, not how long anybody waited; p50 and
  p99 are what clients waited.
- Compare the ratios within one run, never figures of two runs or two machines. What is in brackets behind a ratio is
  the least and the greatest of the rounds: where the goal lies between, the row is too noisy to tell.
- Where `busy`, the share of its processor that a proxy used, is below 0.8, it slept and woke again for its
  work, and the row measures that rather than the work: the clients are what is slow then.
- \"nginx as pasted\" is a reference for what people run who take the first configuration they find: a connection to the
  upstream for each request, access log on. No goal refers to it.
";

/// A table in Markdown, with what has to be known to read it.
pub(crate) fn markdown(facts: &Facts, lines: &[Line]) -> String {
    let mut text = format!("# lowport beside nginx\n\n{}\n\n", facts.text());
    text.push_str("| row | what | unit |");
    for which in Which::ALL {
        let _ = write!(text, " {} |", which.name());
    }
    text.push_str(
        " haproxy / nginx tuned | lowport / nginx tuned | goal | | busy: nginx tuned, lowport |\n",
    );
    text.push_str("|---|---|---|---:|---:|---:|---:|---:|---:|---:|---|---|\n");
    for line in lines {
        let _ = write!(
            text,
            "| {} | {} | {} |",
            line.name, line.figure.what, line.figure.unit
        );
        for which in Which::ALL {
            let _ = write!(text, " {} |", cell(line, which));
        }
        let [haproxy, lowport] = [Which::Haproxy, Which::Lowport]
            .map(|which| line.ratio(which).map_or_else(String::new, told));
        let (goal, verdict) = (goal(line), verdict(line));
        let busy = [Which::Tuned, Which::Lowport].map(|which| {
            let busy = line.values(which).and_then(|values| values.busy);
            busy.map_or_else(|| "-".to_owned(), |busy| format!("{busy:.2}"))
        });
        let _ = writeln!(
            text,
            " {haproxy} | {lowport} | {goal} | {verdict} | {} |",
            busy.join(", ")
        );
    }
    let _ = write!(text, "\n{CAVEATS}");
    text
}

fn cell(line: &Line, which: Which) -> String {
    let result = line.results.iter().find(|(whose, _)| *whose == which);
    match result {
        None => String::new(),
        Some((_, Err(_))) => "**FAILED**".to_owned(),
        Some((_, Ok(values))) => number(values.median()),
    }
}

fn told(ratio: Ratio) -> String {
    format!(
        "{:.2} ({:.2} to {:.2})",
        ratio.median, ratio.least, ratio.greatest
    )
}

fn goal(line: &Line) -> String {
    match line.figure.goal {
        Goal::Ratio(most) => format!("{most:.2}"),
        Goal::Absolute(most) => format!("{most} {}", line.figure.unit),
        Goal::Nothing => String::new(),
    }
}

fn verdict(line: &Line) -> &'static str {
    match (line.met(), line.figure.goal) {
        (Some(true), _) => "met",
        (Some(false), _) => "**MISSED**",
        (None, Goal::Nothing) => "",
        (None, _) => "**NOT MEASURED**",
    }
}

/// With as many digits as mean something.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0..100.0 => format!("{value:.1}"),
        1.0..10.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// The same for programs.
pub(crate) fn json(facts: &Facts, lines: &[Line]) -> Value {
    json!({
        "machine": facts.json(),
        "figures": lines.iter().map(line_json).collect::<Vec<_>>(),
    })
}

fn line_json(line: &Line) -> Value {
    let goal = match line.figure.goal {
        Goal::Ratio(most) => json!({"ratio": most}),
        Goal::Absolute(most) => json!({"absolute": most}),
        Goal::Nothing => Value::Null,
    };
    let proxies: serde_json::Map<String, Value> = line
        .results
        .iter()
        .map(|(which, result)| {
            let told = match result {
                Err(why) => json!({"failed": why}),
                Ok(values) => json!({
                    "median": values.median(),
                    "rounds": values.each,
                    "busy": values.busy,
                    "ratio": line.ratio(*which).map(|ratio| json!({
                        "median": ratio.median,
                        "least": ratio.least,
                        "greatest": ratio.greatest,
                    })),
                }),
            };
            (which.name().to_owned(), told)
        })
        .collect();
    json!({
        "row": line.name,
        "what": line.figure.what,
        "unit": line.figure.unit,
        "goal": goal,
        "met": line.met(),
        "proxies": proxies,
    })
}
