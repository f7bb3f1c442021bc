//! The report as a page for people: one file that needs nothing else, no script, no font, no picture from anywhere, so that it reads the same
//! in ten years. Plots are drawn into it; every figure in a plot also stands in the table below it.

mod plot;

use std::fmt::Write;

use crate::figures::{digits, short, time};
use crate::latencies::PERCENTILES;
use crate::report::{Measured, Report};
use crate::rounds::Rounds;
use crate::row::{Against, Row};

/// Lines of one plot: as many as there are colours that differ for everybody.
const LINES_MAX: usize = 8;

/// Text that means itself.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => plain.push_str("&amp;"),
            '<' => plain.push_str("&lt;"),
            '>' => plain.push_str("&gt;"),
            '"' => plain.push_str("&quot;"),
            letter => plain.push(letter),
        }
    }
    plain
}

/// Median, and from where to where.
fn spread(rounds: &Rounds, say: impl Fn(f64) -> String) -> String {
    let (from, to) = rounds.span();
    let median = say(rounds.median());
    if rounds.figures().len() < 2 {
        return median;
    }
    format!("{median}<small>{} to {}</small>", say(from), say(to))
}

impl Report {
    /// The whole report as one HTML page.
    #[must_use]
    pub fn html(&self) -> String {
        let mut page = String::new();
        // Writing into a string does not fail.
        let _ = self.write_html(&mut page);
        page
    }

    /// Every plot as a file of its own: its name, and its SVG, which follows the reader's choice of light or dark.
    #[must_use]
    pub fn plots(&self) -> Vec<(String, String)> {
        let alone = |Drawing { name, svg, .. }: Drawing| {
            let (tag, rest) = svg.split_once('>').unwrap_or((&svg, ""));
            (format!("{name}.svg"), format!("{tag}><style>{COLOURS}{SHAPES}</style>{rest}"))
        };
        self.scenarios.iter().flat_map(drawings).map(alone).collect()
    }

    fn write_html(&self, page: &mut String) -> std::fmt::Result {
        writeln!(page, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">")?;
        writeln!(page, "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">")?;
        writeln!(
            page,
            "<title>Grid, measured</title>\n<style>{COLOURS}{STYLE}{SHAPES}</style></head>\n<body><main>"
        )?;
        writeln!(page, "<h1>Grid, measured</h1>")?;
        writeln!(
            page,
            "<p>Every figure is the median of {} rounds, with the smallest and the largest below it. A floor is the cheapest thing that does what \
             the path cannot do without, measured in the same rounds; read the ratio to it first, since it does not move with the machine.</p>",
            self.settings.rounds
        )?;
        writeln!(page, "<dl>")?;
        writeln!(page, "<dt>when</dt><dd>{}</dd>", date(self.began_at()))?;
        for (name, fact) in self.machine.facts() {
            writeln!(page, "<dt>{name}</dt><dd>{}</dd>", plain(&fact))?;
        }
        for (name, fact) in &self.facts {
            writeln!(page, "<dt>{}</dt><dd>{}</dd>", plain(name), plain(fact))?;
        }
        writeln!(page, "</dl>\n<nav>")?;
        for Measured { name, .. } in &self.scenarios {
            writeln!(page, "<a href=\"#{0}\">{0}</a>", plain(name))?;
        }
        writeln!(page, "</nav>")?;
        self.scenarios.iter().try_for_each(|measured| section(page, measured))?;
        writeln!(page, "</main></body></html>")
    }
}

fn section(page: &mut String, measured: &Measured) -> std::fmt::Result {
    let Measured { name, shows, rows } = measured;
    writeln!(page, "<section id=\"{0}\"><h2>{0}</h2><p>{1}</p>", plain(name), plain(shows))?;
    for Drawing { caption, svg, .. } in drawings(measured) {
        writeln!(page, "<figure><figcaption>{}</figcaption>{svg}</figure>", plain(&caption))?;
    }
    table(page, rows)?;
    figures(page, rows)?;
    let notes: Vec<_> =
        rows.iter().flat_map(|row| row.notes.iter().map(move |note| (&row.name, note))).collect();
    if !notes.is_empty() {
        writeln!(page, "<ul>")?;
        for (row, note) in notes {
            writeln!(page, "<li><b>{}</b>: {}</li>", plain(row), plain(note))?;
        }
        writeln!(page, "</ul>")?;
    }
    writeln!(page, "</section>")
}

/// One plot.
struct Drawing {
    name: String,
    caption: String,
    svg: String,
}

/// All plots of a scenario, with what each is.
fn drawings(measured: &Measured) -> Vec<Drawing> {
    let Measured { name, rows, .. } = measured;
    let mut drawings = Vec::new();
    let mut draw = |of: String, caption: String, svg: String| {
        drawings.push(Drawing { name: format!("{name}-{of}"), caption, svg });
    };
    let with_throughput: Vec<&Row> =
        rows.iter().filter(|row| row.throughput.is_some() && row.point.is_none()).collect();
    if !with_throughput.is_empty() {
        let caption = "per second; bar: median, thin line: the rounds, upright mark: the floor";
        draw("throughput".into(), caption.into(), plot::bars(caption, &with_throughput));
    }
    let with_latency: Vec<&Row> = rows
        .iter()
        .filter(|row| row.point.is_none() && row.latency.as_ref().is_some_and(|latency| latency.count() > 0))
        .collect();
    for (nth, lines) in with_latency.chunks(LINES_MAX).enumerate() {
        let caption =
            "latency by percentile, both axes logarithmic; the end is the slowest; dashed: the floor";
        let of = if nth == 0 { "latency".to_owned() } else { format!("latency-{}", nth + 1) };
        draw(of, caption.into(), plot::percentiles(caption, lines));
    }
    let mut axes: Vec<&str> = Vec::new();
    for point in rows.iter().filter_map(|row| row.point.as_ref()) {
        if !axes.contains(&point.axis.as_str()) {
            axes.push(&point.axis);
        }
    }
    for axis in axes {
        let caption = format!("per second (left) and p99 (right) over {axis}");
        let svg = plot::growth(&caption, axis, rows);
        draw(axis.replace(' ', "-"), caption, svg);
    }
    drawings
}

fn table(page: &mut String, rows: &[Row]) -> std::fmt::Result {
    if rows.iter().all(|row| row.throughput.is_none() && row.latency.is_none()) {
        return Ok(());
    }
    writeln!(page, "<div class=\"wide\"><table><thead><tr><th></th><th>per second</th>")?;
    for (name, _) in PERCENTILES {
        writeln!(page, "<th>{name}</th>")?;
    }
    writeln!(page, "<th>max</th><th>floor</th><th>result / floor</th></tr></thead><tbody>")?;
    for row in rows {
        writeln!(page, "<tr><th>{}</th>", plain(&row.name))?;
        let cell = |figure: Option<String>| format!("<td>{}</td>", figure.unwrap_or_default());
        page.push_str(&cell(row.throughput.as_ref().map(|rounds| spread(rounds, short))));
        for (name, quantile) in PERCENTILES {
            let figure = row.latency.as_ref().map(|latency| match name {
                "p50" => spread(latency.p50(), time),
                "p99" => spread(latency.p99(), time),
                _ => time(latency.at(quantile) as f64),
            });
            page.push_str(&cell(figure));
        }
        page.push_str(&cell(row.latency.as_ref().map(|latency| time(latency.max() as f64))));
        let floor = row.floor.as_ref().map(|floor| {
            let say = if floor.of == Against::Throughput { short } else { time };
            format!("{}<small>{}</small>", spread(&floor.rounds, say), plain(&floor.name))
        });
        page.push_str(&cell(floor));
        page.push_str(&cell(row.ratio().map(|ratio| spread(&ratio, digits))));
        writeln!(page, "</tr>")?;
    }
    writeln!(page, "</tbody></table></div>")
}

fn figures(page: &mut String, rows: &[Row]) -> std::fmt::Result {
    if rows.iter().all(|row| row.figures.is_empty()) {
        return Ok(());
    }
    // A time brings its unit along.
    let units = rows.iter().flat_map(|row| &row.figures).any(|(_, unit, _)| *unit != "ns");
    let head = if units { "<th>unit</th>" } else { "" };
    writeln!(
        page,
        "<div class=\"wide\"><table><thead><tr><th></th><th></th><th>median</th>{head}</tr></thead><tbody>"
    )?;
    for row in rows {
        for (name, unit, rounds) in &row.figures {
            let (figure, unit) =
                if *unit == "ns" { (spread(rounds, time), "") } else { (spread(rounds, short), *unit) };
            let (row, name) = (plain(&row.name), plain(name));
            let unit = if units { format!("<td>{}</td>", plain(unit)) } else { String::new() };
            writeln!(page, "<tr><th>{row}</th><th>{name}</th><td>{figure}</td>{unit}</tr>")?;
        }
    }
    writeln!(page, "</tbody></table></div>")
}

/// A day and its time, in UTC, of seconds since 1970. Years of 400 make the calendar come round.
fn date(seconds: u64) -> String {
    let (days, in_day) = (seconds / 86_400, seconds % 86_400);
    // Days since the first of March of year 0, after which a leap day is the last of its year.
    let from_march = days + 719_468;
    let (era, in_era) = (from_march / 146_097, from_march % 146_097);
    let year_of_era = (in_era - in_era / 1_460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * in_year + 2) / 153;
    let day = in_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", in_day / 3_600, in_day / 60 % 60)
}

/// By the names that drawings use.
const COLOURS: &str = "
:root{color-scheme:light dark;--page:#fcfcfb;--ink:#0b0b0b;--muted:#52514e;--rule:#d9d8d4;--floor:#52514e;
--s0:#2a78d6;--s1:#1baf7a;--s2:#eda100;--s3:#008300;--s4:#4a3aa7;--s5:#e34948;--s6:#e87ba4;--s7:#eb6834}
@media (prefers-color-scheme:dark){:root{--page:#1a1a19;--ink:#fff;--muted:#c3c2b7;--rule:#3c3c3a;--floor:#c3c2b7;
--s0:#3987e5;--s1:#199e70;--s2:#c98500;--s3:#008300;--s4:#9085e9;--s5:#e66767;--s6:#d55181;--s7:#d95926}}
";

const STYLE: &str = "
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:60rem;margin:0 auto;padding:2rem 1rem 4rem}
h1{margin:0 0 .5rem}h2{margin:3rem 0 .25rem;font-size:1.25rem;font-family:ui-monospace,monospace}
p{max-width:44rem}dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem;color:var(--muted)}dd{margin:0;overflow-wrap:anywhere}
nav{display:flex;flex-wrap:wrap;gap:.25rem 1rem}a{color:inherit}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.85rem;margin:.75rem 0;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .7rem .3rem 0;text-align:right;vertical-align:top;border-bottom:1px solid var(--rule);white-space:nowrap}
th{font-weight:600}tbody th{text-align:left;white-space:normal;min-width:9rem;font-weight:400}
small{display:block;color:var(--muted);font-size:.75rem;white-space:normal}
ul{font-size:.85rem;color:var(--muted);padding-left:1.2rem;max-width:50rem}
figure{margin:1rem 0}figcaption{font-size:.85rem;color:var(--muted);margin-bottom:.25rem}
svg{display:block;width:100%;max-width:46rem;height:auto}
";

/// What drawings are made of.
const SHAPES: &str = "
svg text{font:12px system-ui,sans-serif;fill:var(--muted)}
svg text.name{fill:var(--ink)}.rule{stroke:var(--rule);stroke-width:1}.line{fill:none;stroke-width:2;stroke-linejoin:round}
.floor{stroke:var(--floor);stroke-width:2}.dash{stroke-dasharray:4 4;stroke-width:1.5;opacity:.8}.span{stroke:var(--ink);stroke-width:1.5}
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::how_many;
    use crate::latencies::{Latencies, histogram};
    use crate::scenario::Settings;

    fn rounds(figures: &[f64]) -> Rounds {
        figures.iter().copied().collect()
    }

    fn report() -> Report {
        let mut record = histogram();
        (1..=100_000).for_each(|ns| record.saturating_record(ns));
        let mut latency = Latencies::default();
        latency.push(&record);
        let mut rows = vec![
            Row::new("ours <fast>")
                .throughput(rounds(&[1e6, 2e6]))
                .latency(latency.clone())
                .floor("two hops", Against::Latency, rounds(&[100.0, 100.0]))
                .figure("trades", "trades", rounds(&[5.0]))
                .note("mind & see"),
        ];
        rows.extend([1.0, 10.0, 100.0].map(|at| {
            Row::new(how_many(at as usize, "books"))
                .throughput(rounds(&[3e6]))
                .latency(latency.clone())
                .point("books", at)
        }));
        let mut report = Report::begin(&Settings::small(1));
        report.scenarios.push(Measured { name: "named".into(), shows: "it shows".into(), rows });
        report
    }

    #[test]
    fn the_page_stands_alone() {
        let page = report().html();
        for foreign in ["<script", "src=", "https://", "<link", "<img", "url(", "@import"] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        for part in
            ["<svg", "prefers-color-scheme", "ours &lt;fast&gt;", "mind &amp; see", "two hops", "books"]
        {
            assert!(page.contains(part), "{part}");
        }
        let links = page.matches("http://").count();
        assert_eq!(links, page.matches(plot::SVG).count(), "the name of a language is none");
        assert!(!page.contains("NaN") && !page.contains("inf\""), "every place is a number");
    }

    #[test]
    fn units_have_a_column_where_a_figure_needs_one() {
        let mut report = report();
        assert!(report.html().contains("<th>unit</th>") && report.html().contains("<td>trades</td>"));
        for figure in &mut report.scenarios[0].rows[0].figures {
            figure.1 = "ns";
        }
        let page = report.html();
        assert!(!page.contains("<th>unit</th>") && page.contains("5 ns</td></tr>"), "{page}");
    }

    #[test]
    fn what_is_opened_is_closed() {
        let page = report().html();
        for tag in ["svg", "table", "section", "figure", "g", "tr", "td", "ul", "li", "text", "title"] {
            let opened =
                page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }

    #[test]
    fn a_plot_stands_alone_too() {
        let plots = report().plots();
        let names: Vec<_> = plots.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["named-throughput.svg", "named-latency.svg", "named-books.svg"]);
        for (name, svg) in &plots {
            assert!(svg.starts_with("<svg xmlns") && svg.trim_end().ends_with("</svg>"), "{name}: {svg}");
            assert!(svg.contains("--s0:") && svg.contains(".rule{"), "{name} brings its colours");
        }
    }

    #[test]
    fn a_day_is_the_day_that_it_was() {
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(date(1_767_225_599), "2025-12-31 23:59 UTC");
    }
}
