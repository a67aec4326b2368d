//! Who takes part in a row, round after round, and what comes of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use crate::median::median;
use crate::proxies::{Setup, Which, start};
use crate::proxy::Proxy;
use crate::rows::{Bout, Figure, Goal, Row, Sample};

/// Proxies that run, and those that have yet to.
pub(crate) struct Contest {
    /// Who is installed
    pub(crate) who: Vec<Which>,
    /// The upstream's port
    pub(crate) upstream: u16,
    /// How often each is measured
    pub(crate) rounds: usize,
    /// How long each time
    pub(crate) seconds: Duration,
    running: Vec<(Which, Setup, Rc<Proxy>)>,
}

/// What a figure came to.
pub(crate) struct Line {
    /// The row's name
    pub(crate) name: &'static str,
    /// The figure
    pub(crate) figure: Figure,
    /// For each that took part
    pub(crate) results: Vec<(Which, Result<Values, String>)>,
}

/// What one proxy's figure came to.
#[derive(Debug, Clone)]
pub(crate) struct Values {
    /// For each round
    pub(crate) each: Vec<f64>,
    /// Share of its processor that it used, where it was to work
    pub(crate) busy: Option<f64>,
}

/// A ratio to tuned nginx, over the rounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ratio {
    /// The middle one
    pub(crate) median: f64,
    /// The least
    pub(crate) least: f64,
    /// The greatest
    pub(crate) greatest: f64,
}

impl Contest {
    /// Between these, none of which runs yet.
    pub(crate) fn new(who: Vec<Which>, upstream: u16, rounds: usize, seconds: Duration) -> Self {
        Self {
            who,
            upstream,
            rounds,
            seconds,
            running: Vec::new(),
        }
    }

    /// Runs a row.
    pub(crate) fn run(&mut self, row: &Row) -> Vec<Line> {
        if row.setups.is_empty() {
            // Of what the row starts itself, no page is to be shared with one of these, and so count for less.
            self.running.clear();
        }
        let who = row.who.iter().copied();
        let mut samples: Vec<(Which, Result<Vec<Sample>, String>)> = who
            .filter(|which| self.who.contains(which))
            .map(|which| (which, Ok(Vec::new())))
            .collect();
        for round in 0..self.rounds {
            // Another one begins each time, so that what one leaves behind is not always the same one's burden.
            let all = samples.len();
            for at in (0..all).map(|number| (number + round) % all) {
                let (which, so_far) = &mut samples[at];
                let Ok(so_far) = so_far else { continue };
                match self.bout(*which, row) {
                    Ok(sample) => so_far.push(sample),
                    Err(why) => {
                        eprintln!(
                            "\n*** NOT MEASURED: {}: {}: {why} ***\n",
                            row.name,
                            which.name()
                        );
                        // Who knows in which state it is.
                        self.running.retain(|(running, ..)| running != which);
                        samples[at].1 = Err(why);
                    }
                }
            }
        }
        self.running
            .retain(|(_, setup, _)| *setup == Setup::default());
        let lines = row.figures.iter().enumerate();
        lines
            .map(|(at, figure)| Line {
                name: row.name,
                figure: *figure,
                results: samples
                    .iter()
                    .map(|(which, samples)| (*which, values(samples, at)))
                    .collect(),
            })
            .collect()
    }

    fn bout(&mut self, which: Which, row: &Row) -> Result<Sample, String> {
        let measured = catch_unwind(AssertUnwindSafe(|| {
            let running = row.setups.iter().map(|setup| self.running(which, *setup));
            let bout = Bout {
                which,
                running: running.collect(),
                upstream: self.upstream,
                seconds: self.seconds,
            };
            (row.measure)(&bout)
        }));
        measured.unwrap_or_else(|_| Err("panicked, see above".to_owned()))
    }

    fn running(&mut self, which: Which, setup: Setup) -> Rc<Proxy> {
        let found = self.running.iter();
        let mut found = found.filter(|(whose, how, _)| *whose == which && *how == setup);
        if let Some((_, _, proxy)) = found.next() {
            return Rc::clone(proxy);
        }
        let proxy = Rc::new(start(which, self.upstream, setup));
        self.running.push((which, setup, Rc::clone(&proxy)));
        proxy
    }
}

fn values(samples: &Result<Vec<Sample>, String>, at: usize) -> Result<Values, String> {
    let samples = samples.as_ref().map_err(String::clone)?;
    let busy: Option<Vec<f64>> = samples.iter().map(|sample| sample.busy).collect();
    Ok(Values {
        each: samples.iter().map(|sample| sample.values[at]).collect(),
        busy: busy.map(median),
    })
}

impl Values {
    /// The middle one of the rounds.
    pub(crate) fn median(&self) -> f64 {
        median(self.each.clone())
    }
}

impl Line {
    /// This proxy's; `None` where it took no part or failed.
    pub(crate) fn values(&self, which: Which) -> Option<&Values> {
        let mut results = self.results.iter();
        let (_, result) = results.find(|(whose, _)| *whose == which)?;
        result.as_ref().ok()
    }

    /// This proxy's to tuned nginx's, each round's to the same round's.
    pub(crate) fn ratio(&self, which: Which) -> Option<Ratio> {
        let (own, nginx) = (self.values(which)?, self.values(Which::Tuned)?);
        let ratios = own.each.iter().zip(&nginx.each);
        let mut ratios: Vec<f64> = ratios.map(|(own, nginx)| own / nginx).collect();
        ratios.sort_by(f64::total_cmp);
        Some(Ratio {
            least: *ratios.first()?,
            greatest: *ratios.last()?,
            median: median(ratios),
        })
    }

    /// Whether lowport reached its goal; `None` where there is none, or nothing to tell it by.
    pub(crate) fn met(&self) -> Option<bool> {
        match self.figure.goal {
            Goal::Ratio(most) => Some(self.ratio(Which::Lowport)?.median <= most),
            Goal::Absolute(most) => Some(self.values(Which::Lowport)?.median() <= most),
            Goal::Nothing => None,
        }
    }

    /// The goal as a ratio to tuned nginx.
    pub(crate) fn goal_as_ratio(&self) -> Option<f64> {
        match self.figure.goal {
            Goal::Ratio(most) => Some(most),
            Goal::Absolute(most) => Some(most / self.values(Which::Tuned)?.median()),
            Goal::Nothing => None,
        }
    }
}
