//! The ratios to tuned nginx as a picture.

use std::fmt::Write;

use crate::contest::Line;
use crate::facts::Facts;
use crate::proxies::Which;

/// Pixels: of the picture, of the names on the left, and of what a ratio of 1 is long.
const WIDTH: f64 = 900.0;
const NAMES: f64 = 290.0;
const ONE: f64 = 270.0;
/// Pixels above the first line, of each line, and of a bar.
const TOP: f64 = 74.0;
const LINE: f64 = 34.0;
const BAR: f64 = 12.0;
/// Pixels that a number takes.
const NUMBER: f64 = 34.0;
/// Longer bars are cut; their numbers say how long they are.
const MOST: f64 = 2.0;

/// Colours are the picture's own, with a background, since whoever shows it may show it on anything.
const STYLE: &str = "\
text{font:13px system-ui,sans-serif;fill:#1f2328}.small{font-size:11px;fill:#59636e;stroke:#fff;stroke-width:3px;paint-order:stroke}
.title{font-size:16px;font-weight:600}
.ground{fill:#fff}.lowport{fill:#0969da}.haproxy{fill:#a8b1bb}.line{stroke:#59636e}.goal{stroke:#cf222e;stroke-width:2.5}
@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.small{fill:#9198a1;stroke:#0d1117}.ground{fill:#0d1117}
.lowport{fill:#4493f8}.haproxy{fill:#656c76}.line{stroke:#9198a1}.goal{stroke:#ff7b72}}";

/// A picture of all that has a ratio.
pub(crate) fn svg(facts: &Facts, lines: &[Line]) -> String {
    let lines: Vec<&Line> = lines
        .iter()
        .filter(|line| line.ratio(Which::Lowport).is_some())
        .collect();
    let bottom = TOP + LINE * lines.len() as f64;
    let height = bottom + 42.0;
    let one = NAMES + ONE;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n\
         <title>lowport beside nginx</title>\n<style>{STYLE}</style>\n\
         <rect class=\"ground\" width=\"{WIDTH}\" height=\"{height}\" rx=\"8\"/>\n\
         <text class=\"title\" x=\"16\" y=\"28\">Ratio to tuned nginx in the same run; shorter is better</text>\n\
         <rect class=\"lowport\" x=\"16\" y=\"42\" width=\"{BAR}\" height=\"{BAR}\"/><text x=\"34\" y=\"53\">lowport</text>\n\
         <rect class=\"haproxy\" x=\"100\" y=\"42\" width=\"{BAR}\" height=\"{BAR}\"/><text x=\"118\" y=\"53\">haproxy</text>\n\
         <path class=\"goal\" d=\"M190 40v16\"/><text x=\"198\" y=\"53\">lowport's goal</text>\n\
         <text class=\"small\" x=\"{one}\" y=\"{}\" text-anchor=\"middle\">nginx</text>\n",
        TOP - 6.0
    );
    // On top of all lines, or those would cross them out.
    let mut numbers = String::new();
    for (at, line) in lines.iter().enumerate() {
        draw(&mut svg, &mut numbers, line, TOP + LINE * at as f64);
    }
    let _ = write!(
        svg,
        "<path class=\"line\" stroke-dasharray=\"4 3\" d=\"M{one} {TOP}V{bottom}\"/>\n{numbers}\
         <text class=\"small\" x=\"16\" y=\"{}\">{}</text>\n</svg>\n",
        bottom + 26.0,
        escaped(&facts.short())
    );
    svg
}

fn draw(svg: &mut String, numbers: &mut String, line: &Line, y: f64) {
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
        NAMES - 10.0,
        y + 20.0,
        escaped(line.figure.what)
    );
    let goal = line.goal_as_ratio().filter(|goal| *goal <= MOST);
    let goal = goal.map(|goal| goal * ONE);
    let bars = [(Which::Lowport, 3.0), (Which::Haproxy, 4.0 + BAR)];
    for (which, below) in bars {
        let Some(ratio) = line.ratio(which) else {
            continue;
        };
        let (y, length) = (y + below, ratio.median.min(MOST) * ONE);
        let cut = if ratio.median > MOST { " \u{203a}" } else { "" };
        let _ = writeln!(
            svg,
            "<rect class=\"{}\" x=\"{NAMES}\" y=\"{y}\" width=\"{length:.1}\" height=\"{BAR}\"/>",
            which.name()
        );
        // Behind the goal where it would hide it.
        let hidden = goal.filter(|goal| (length..length + NUMBER).contains(goal));
        let end = hidden.filter(|_| which == Which::Lowport).unwrap_or(length);
        let _ = writeln!(
            numbers,
            "<text class=\"small\" x=\"{:.1}\" y=\"{}\">{:.2}{cut}</text>",
            NAMES + end + 6.0,
            y + 10.0,
            ratio.median
        );
    }
    if let Some(goal) = goal {
        let _ = writeln!(
            svg,
            "<path class=\"goal\" d=\"M{:.1} {y}v{}\"/>",
            NAMES + goal,
            BAR + 6.0
        );
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
