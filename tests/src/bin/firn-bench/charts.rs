//! Charts of the figures, as SVG.

use std::error::Error;
use std::ops::Range;
use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::publish::{BASE, wanted};
use crate::report::{Row, cells, median, of, ratios as ratios_by_round};
use crate::results::{Point, number};

type Fallible<T = ()> = Result<T, Box<dyn Error>>;

/// Told apart by people with any eyesight (Okabe and Ito).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];
const WIDTH: u32 = 900;
const ROW: u32 = 44;
/// Pixels left of the axis, for names of cells.
const NAMES: u32 = 190;
const FONT: (&str, u32) = ("sans-serif", 13);

/// A bar or a mark: from and to on the axis, from and to within its line (0 at its top, 1 at its bottom).
struct Bar {
    line: usize,
    along: (f64, f64),
    across: (f64, f64),
}

/// One entry of the legend.
struct Series {
    name: String,
    colour: RGBColor,
    bars: Vec<Bar>,
}

/// Ratios to the base per cell, a bar for each server, longer than 1 to the right; what Firn is to reach is
/// a black tick.
pub fn ratios(path: &Path, rows: &[Row], servers: &[&str], data: &str) -> Fallible {
    let measured = |cell: &str| !cell.starts_with("fill") && !of(rows, cell, BASE).is_empty();
    let cells = cells_of(rows, measured);
    let others: Vec<&str> = servers
        .iter()
        .copied()
        .filter(|name| *name != BASE)
        .collect();
    let height = 0.9 / others.len().max(1) as f64;
    let mut all = Vec::new();
    for (at, server) in others.iter().enumerate() {
        let top = 0.05 + at as f64 * height;
        let bar = |(line, cell): (usize, &&str)| {
            let found = ratios_by_round(rows, cell, server, BASE);
            (!found.is_empty()).then(|| Bar {
                line,
                along: (1.0, median(found)),
                across: (top, top + height),
            })
        };
        all.push(Series {
            name: (*server).into(),
            colour: COLOURS[at % COLOURS.len()],
            bars: cells.iter().enumerate().filter_map(bar).collect(),
        });
    }
    let bar = |(line, cell): (usize, &&str)| {
        let wanted = wanted(cell, data);
        (wanted > 0.0).then_some(Bar {
            line,
            along: (wanted * 0.985, wanted * 1.015),
            across: (0.0, 0.1 + height),
        })
    };
    all.push(Series {
        name: "bar for Firn".into(),
        colour: BLACK,
        bars: cells.iter().enumerate().filter_map(bar).collect(),
    });
    let title = format!("Operations per second by those of {BASE}, data {data}");
    bars(path, &title, &cells, 0.02..50.0, &all)
}

/// From the median to p99.9 per cell, with p99 in between, for each server.
pub fn latencies(path: &Path, rows: &[Row], servers: &[&str], data: &str) -> Fallible {
    let cells = cells_of(rows, |cell| !cell.starts_with("fill"));
    let height = 0.8 / servers.len().max(1) as f64;
    let mut all = Vec::new();
    for (at, server) in servers.iter().enumerate() {
        let top = 0.1 + at as f64 * height;
        let mut bars = Vec::new();
        for (line, cell) in cells.iter().enumerate() {
            let these = of(rows, cell, server);
            if these.is_empty() {
                continue;
            }
            let mid = |get: fn(&Row) -> f64| median(these.iter().map(|row| get(row)).collect());
            let p99 = mid(|r| r.p99_us);
            let across = (top, top + height * 0.9);
            let middle = (across.0 + across.1) / 2.0;
            bars.push(Bar {
                line,
                // A range of one value is to be seen, too.
                along: (mid(|r| r.p50_us), p99.max(mid(|r| r.p50_us) * 1.05)),
                across,
            });
            let thin = (middle - 0.04, middle + 0.04);
            bars.push(Bar {
                line,
                along: (p99, mid(|r| r.p999_us)),
                across: thin,
            });
        }
        all.push(Series {
            name: format!("{server}: p50 to p99, thin to p99.9"),
            colour: COLOURS[at % COLOURS.len()],
            bars,
        });
    }
    let title = format!("Latency in microseconds, data {data}");
    bars(path, &title, &cells, 1.0..1e6, &all)
}

fn cells_of(rows: &[Row], wanted: impl Fn(&str) -> bool) -> Vec<&str> {
    let mut cells = cells(rows);
    cells.retain(|cell| wanted(cell));
    cells
}

/// Horizontal bars on a logarithmic axis, a line of them for each cell.
fn bars(path: &Path, title: &str, cells: &[&str], axis: Range<f64>, all: &[Series]) -> Fallible {
    // The legend stands below the last line.
    let legend = all.len() as f64 * 0.4 + 0.3;
    let height = ROW * cells.len() as u32 + (legend * f64::from(ROW)) as u32 + 110;
    let root = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let lines = cells.len() as f64;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 17))
        .margin(10)
        .margin_left(NAMES)
        .margin_right(30)
        .x_label_area_size(30)
        .build_cartesian_2d(axis.clone().log_scale(), (lines + legend)..0.0)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_label_style(FONT)
        .x_label_formatter(&|x| format!("{x}"))
        .draw()?;
    for Series { name, colour, bars } in all {
        let shape = |bar: &Bar| {
            let top = bar.line as f64;
            let inside = |x: f64| x.clamp(axis.start, axis.end);
            let corners = [
                (inside(bar.along.0), top + bar.across.0),
                (inside(bar.along.1), top + bar.across.1),
            ];
            Rectangle::new(corners, colour.filled())
        };
        let colour = *colour;
        chart
            .draw_series(bars.iter().map(shape))?
            .label(name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled()));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.9))
        .border_style(BLACK.mix(0.3))
        .label_font(FONT)
        .position(SeriesLabelPosition::LowerRight)
        .draw()?;
    let right = Pos::new(HPos::Right, VPos::Center);
    for (line, cell) in cells.iter().enumerate() {
        let (_, y) = chart.backend_coord(&(axis.start, line as f64 + 0.5));
        let style = TextStyle::from(FONT.into_font()).pos(right);
        root.draw(&Text::new(*cell, (NAMES as i32 + 2, y), style))?;
    }
    root.present()?;
    Ok(())
}

/// A table's first column over the numbers that its lines begin with. False, and no chart, when they don't.
pub fn line(path: &Path, title: &str, points: &[&Point]) -> Fallible<bool> {
    let place = |point: &&Point| -> Option<(f64, f64)> {
        let x = point.row.split_whitespace().next()?.parse().ok()?;
        Some((x, point.values.first()?.1))
    };
    let Some(places) = points.iter().map(place).collect::<Option<Vec<_>>>() else {
        return Ok(false);
    };
    let most = |of: fn(&(f64, f64)) -> f64| places.iter().map(of).fold(0.0, f64::max) * 1.05;
    let name = points
        .first()
        .and_then(|p| p.values.first())
        .map_or("", |(name, _)| name);
    if places.len() < 2 {
        return Ok(false);
    }
    let root = SVGBackend::new(path, (WIDTH, 300)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 17))
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(80)
        .build_cartesian_2d(0.0..most(|p| p.0), 0.0..most(|p| p.1))?;
    chart
        .configure_mesh()
        .label_style(FONT)
        .y_desc(name)
        .x_label_formatter(&|x| number(*x))
        .y_label_formatter(&|y| number(*y))
        .draw()?;
    let colour = COLOURS[0];
    chart.draw_series(LineSeries::new(
        places.iter().copied(),
        colour.stroke_width(2),
    ))?;
    chart.draw_series(places.iter().map(|at| Circle::new(*at, 4, colour.filled())))?;
    root.present()?;
    Ok(true)
}
