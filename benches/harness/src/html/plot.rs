//! Plots, drawn as SVG. Colours are classes of the page, so that one drawing serves light and dark; what a shape stands for is told when one
//! points at it, by the browser itself.

use std::fmt::Write;

use super::plain;
use crate::figures::{count, digits, short, time};
use crate::row::{Against, Row};

/// The name of the language of drawings, without which a file of its own is none.
pub(super) const SVG: &str = "http://www.w3.org/2000/svg";
/// Height of one line of a legend.
const LEGEND: f64 = 18.0;
/// Width of every drawing, in its own units.
const WIDTH: f64 = 720.0;

/// A scale from figures to places; logarithmic ones take figures above 0 only.
#[derive(Clone, Copy)]
struct Scale {
    from: f64,
    to: f64,
    at: f64,
    length: f64,
    logarithmic: bool,
}

impl Scale {
    fn place(&self, figure: f64) -> f64 {
        let shape = |figure: f64| if self.logarithmic { figure.max(1e-9).log10() } else { figure };
        let (from, to) = (shape(self.from), shape(self.to));
        let share = if to > from { (shape(figure) - from) / (to - from) } else { 0.5 };
        self.at + share.clamp(0.0, 1.0) * self.length
    }

    /// From the power of ten below `least` to the one above `most`.
    fn decades(least: f64, most: f64, at: f64, length: f64) -> Self {
        let from = 10_f64.powf(least.max(1.0).log10().floor());
        let to = 10_f64.powf(most.max(1.0).log10().ceil()).max(from * 10.0);
        Self { from, to, at, length, logarithmic: true }
    }

    /// Powers of ten on it.
    fn ticks(&self) -> Vec<f64> {
        let (from, to) = (self.from.log10().round() as i32, self.to.log10().round() as i32);
        (from..=to).map(|power| 10_f64.powi(power)).collect()
    }
}

fn open(drawing: &mut String, caption: &str, height: f64) {
    let _ = writeln!(
        drawing,
        "<svg xmlns=\"{SVG}\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{0}\">",
        plain(caption)
    );
}

fn text(drawing: &mut String, x: f64, y: f64, anchor: &str, class: &str, said: &str) {
    let said = plain(said);
    let _ = writeln!(
        drawing,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{said}</text>"
    );
}

fn line(drawing: &mut String, from: (f64, f64), to: (f64, f64), class: &str) {
    let _ = writeln!(
        drawing,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" class=\"{class}\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn path(drawing: &mut String, points: &[(f64, f64)], colour: usize, told: &str) {
    let mut course = String::new();
    for (nth, (x, y)) in points.iter().enumerate() {
        let _ = write!(course, "{}{x:.1} {y:.1}", if nth == 0 { "M" } else { "L" });
    }
    let _ = writeln!(
        drawing,
        "<path d=\"{course}\" class=\"line\" style=\"stroke:var(--s{colour})\"><title>{}</title></path>",
        plain(told)
    );
}

/// Commands per second, one bar a row from 0; the thin line is the span of the rounds, the upright mark the floor.
pub(super) fn bars(caption: &str, rows: &[&Row]) -> String {
    const STEP: f64 = 42.0;
    let mut drawing = String::new();
    let height = STEP * rows.len() as f64 + 8.0;
    open(&mut drawing, caption, height);
    let floor_of = |row: &Row| {
        let floor = row.floor.as_ref().filter(|floor| floor.of == Against::Throughput);
        floor.map(|floor| floor.rounds.median())
    };
    let throughput = |row: &Row| row.throughput.clone().unwrap_or_default();
    let most = rows
        .iter()
        .flat_map(|row| [throughput(row).span().1, floor_of(row).unwrap_or(0.0)])
        .fold(1e-9, f64::max);
    let scale = Scale { from: 0.0, to: most, at: 2.0, length: WIDTH - 190.0, logarithmic: false };
    for (nth, row) in rows.iter().enumerate() {
        let top = STEP * nth as f64;
        let (rate, (from, to)) = (throughput(row).median(), throughput(row).span());
        let (end, middle) = (scale.place(rate), top + 26.0);
        text(&mut drawing, 2.0, top + 14.0, "start", "name", &row.name);
        let _ = writeln!(
            drawing,
            "<rect x=\"2\" y=\"{:.1}\" width=\"{:.1}\" height=\"14\" rx=\"3\" style=\"fill:var(--s0)\"><title>{}: {} per second, rounds from {} to {}</title></rect>",
            top + 19.0,
            (end - 2.0).max(1.0),
            plain(&row.name),
            short(rate),
            short(from),
            short(to)
        );
        line(&mut drawing, (scale.place(from), middle), (scale.place(to), middle), "span");
        let mut last = end.max(scale.place(to));
        let mut said = short(rate);
        if let (Some(floor), Some(ratio)) = (floor_of(row), row.ratio()) {
            let place = scale.place(floor);
            line(&mut drawing, (place, top + 16.0), (place, top + 36.0), "floor");
            last = last.max(place);
            let _ = write!(said, ", {} of the floor", digits(ratio.median()));
        }
        text(&mut drawing, last + 8.0, middle + 4.0, "start", "", &said);
    }
    drawing.push_str("</svg>\n");
    drawing
}

/// Latency over the share of commands that stayed within it, the tail drawn out; dashed: the floor of the same colour.
pub(super) fn percentiles(caption: &str, rows: &[&Row]) -> String {
    const HEIGHT: f64 = 320.0;
    const MARKS: [(&str, f64); 6] =
        [("p0", 0.0), ("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];
    let nines = |quantile: f64| -(1.0 - quantile).max(1e-5).log10();
    // The slowest of so many stands where its share of all of them is.
    let place = |quantile: f64, of: u64| nines(quantile.min(1.0 - 1.0 / of.max(2) as f64));
    let curves: Vec<_> = rows.iter().filter_map(|row| Some((*row, row.latency.as_ref()?.curve()))).collect();
    let floor_of = |row: &Row| {
        let floor = row.floor.as_ref().filter(|floor| floor.of == Against::Latency);
        floor.map(|floor| floor.rounds.median())
    };
    let figures = || {
        let points = curves.iter().flat_map(|(_, curve)| curve.iter().map(|(_, ns)| *ns as f64));
        points.chain(rows.iter().filter_map(|row| floor_of(row))).filter(|ns| *ns > 0.0)
    };
    let (least, most) = (figures().fold(f64::INFINITY, f64::min), figures().fold(1.0, f64::max));
    let up = Scale::decades(least.min(most), most, HEIGHT - 30.0, -(HEIGHT - 45.0));
    let along = Scale { from: 0.0, to: 5.0, at: 64.0, length: WIDTH - 80.0, logarithmic: false };
    let mut drawing = String::new();
    open(&mut drawing, caption, HEIGHT + LEGEND * curves.len() as f64);
    for tick in up.ticks() {
        let y = up.place(tick);
        line(&mut drawing, (along.at, y), (WIDTH - 16.0, y), "rule");
        text(&mut drawing, along.at - 8.0, y + 4.0, "end", "", &time(tick));
    }
    for (name, quantile) in MARKS {
        let x = along.place(nines(quantile));
        line(&mut drawing, (x, HEIGHT - 30.0), (x, HEIGHT - 25.0), "rule");
        text(&mut drawing, x, HEIGHT - 10.0, "middle", "", name);
    }
    for (nth, (row, curve)) in curves.iter().enumerate() {
        let of = row.latency.as_ref().map_or(0, crate::Latencies::count);
        let points: Vec<_> = curve
            .iter()
            .map(|(quantile, ns)| (along.place(place(*quantile, of)), up.place(*ns as f64)))
            .collect();
        if let Some(floor) = floor_of(row) {
            let y = up.place(floor);
            let _ = writeln!(
                drawing,
                "<line x1=\"{:.1}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\" class=\"dash\" style=\"stroke:var(--s{nth})\"/>",
                along.at,
                WIDTH - 16.0
            );
        }
        let latency = row.latency.clone().unwrap_or_default();
        let told = format!(
            "{}: p50 {}, p99 {}, max {}",
            row.name,
            time(latency.at(0.5) as f64),
            time(latency.at(0.99) as f64),
            time(latency.max() as f64)
        );
        path(&mut drawing, &points, nth, &told);
    }
    legend(&mut drawing, HEIGHT, curves.iter().map(|(row, _)| row.name.as_str()));
    drawing.push_str("</svg>\n");
    drawing
}

fn legend<'a>(drawing: &mut String, below: f64, names: impl Iterator<Item = &'a str>) {
    for (nth, name) in names.enumerate() {
        let y = below + LEGEND * nth as f64;
        let _ = writeln!(
            drawing,
            "<rect x=\"64\" y=\"{y:.1}\" width=\"18\" height=\"3\" style=\"fill:var(--s{nth})\"/>"
        );
        text(drawing, 90.0, y + 6.0, "start", "name", name);
    }
}

/// How throughput (left) and p99 (right) change while one number grows.
pub(super) fn growth(caption: &str, axis: &str, rows: &[Row]) -> String {
    const HEIGHT: f64 = 240.0;
    let mut points: Vec<(f64, &Row)> = rows
        .iter()
        .filter_map(|row| {
            let point = row.point.as_ref().filter(|point| point.axis == axis)?;
            Some((point.at, row))
        })
        .collect();
    points.sort_by(|one, other| one.0.total_cmp(&other.0));
    let rates: Vec<_> =
        points.iter().filter_map(|(at, row)| Some((*at, row.throughput.as_ref()?.median()))).collect();
    let tails: Vec<_> =
        points.iter().filter_map(|(at, row)| Some((*at, row.latency.as_ref()?.at(0.99) as f64))).collect();
    let (least, most) = (points.first().map_or(1.0, |p| p.0), points.last().map_or(1.0, |p| p.0));
    let mut drawing = String::new();
    open(&mut drawing, caption, HEIGHT);
    let (bottom, tall) = (HEIGHT - 30.0, HEIGHT - 50.0);
    for (left, curve, is_rate) in [(60.0, &rates, true), (420.0, &tails, false)] {
        if curve.is_empty() {
            continue;
        }
        let along = Scale { from: least.max(1e-9), to: most, at: left, length: 270.0, logarithmic: true };
        let top = curve.iter().map(|(_, figure)| *figure).fold(1.0, f64::max);
        let floor = curve.iter().map(|(_, figure)| *figure).fold(top, f64::min);
        let (up, ticks) = if is_rate {
            let up = Scale { from: 0.0, to: top, at: bottom, length: -tall, logarithmic: false };
            (up, vec![0.0, top / 2.0, top])
        } else {
            let up = Scale::decades(floor, top, bottom, -tall);
            (up, up.ticks())
        };
        for tick in ticks {
            let y = up.place(tick);
            line(&mut drawing, (left, y), (left + 270.0, y), "rule");
            let said = if is_rate { short(tick) } else { time(tick) };
            text(&mut drawing, left - 8.0, y + 4.0, "end", "", &said);
        }
        let course: Vec<_> = curve.iter().map(|(at, figure)| (along.place(*at), up.place(*figure))).collect();
        let said = if is_rate { "per second" } else { "p99" };
        path(&mut drawing, &course, if is_rate { 0 } else { 7 }, &format!("{said} over {axis}"));
        for ((at, figure), (x, y)) in curve.iter().zip(&course) {
            let figure = if is_rate { short(*figure) } else { time(*figure) };
            let colour = if is_rate { 0 } else { 7 };
            let _ = writeln!(
                drawing,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" style=\"fill:var(--s{colour})\"><title>{} {}: {figure}</title></circle>",
                count(*at),
                plain(axis)
            );
            text(&mut drawing, *x, HEIGHT - 10.0, "middle", "", &count(*at));
        }
    }
    drawing.push_str("</svg>\n");
    drawing
}
