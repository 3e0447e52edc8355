//! The picture of how time and memory grow: one panel for each axis and quantity, in SVG.
//!
//! It follows the reader's choice of light or dark colours, and has a background of its own, so
//! that it can be read on any page.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::element::{Circle, PathElement, Polygon};
use plotters::prelude::*;

/// One quantity over one axis.
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) axis: Axis,
    pub(super) unit: &'static str,
    pub(super) series: Vec<Series>,
}

/// What a quantity is shown over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Axis {
    Sessions,
    Mebibytes,
    Sources,
}

/// What is measured in one way.
pub(super) struct Series {
    name: &'static str,
    points: Vec<(f64, f64)>,
}

impl Series {
    pub(super) fn new(name: &'static str, points: Vec<(f64, f64)>) -> Self {
        Self { name, points }
    }
}

const WIDTH: u32 = 960;
const HEIGHT_OF_PANEL: u32 = 290;
const COLUMNS: usize = 2;

/// Of text and axes, and of the lines behind; each has its counterpart in [`STYLE`].
const INK: RGBColor = RGBColor(0x1f, 0x23, 0x28);
const GRID: RGBColor = RGBColor(0xd8, 0xde, 0xe4);

/// Blue, orange and green that stand apart for all eyes, on white and on black.
const COLOURS: [RGBColor; 3] = [
    RGBColor(0x2f, 0x81, 0xf7),
    RGBColor(0xdb, 0x6d, 0x28),
    RGBColor(0x2d, 0xa4, 0x4e),
];

const STYLE: &str = r##"<style>
.background { fill: #ffffff }
@media (prefers-color-scheme: dark) {
.background { fill: #0d1117 }
[fill="#1F2328"] { fill: #e6edf3 }
[stroke="#1F2328"] { stroke: #e6edf3 }
[stroke="#D8DEE4"] { stroke: #30363d }
}
</style>
<rect class="background" width="100%" height="100%" rx="8"/>"##;

/// The picture as text. `measured` says when and where.
pub(super) fn draw(panels: &[Panel], measured: &str) -> Result<String> {
    let rows = panels.len().div_ceil(COLUMNS);
    let height = HEIGHT_OF_PANEL * u32::try_from(rows)?;
    let mut svg = String::new();
    {
        let backend = SVGBackend::with_string(&mut svg, (WIDTH, height));
        let root = backend.into_drawing_area();
        let areas = root.split_evenly((rows, COLUMNS));
        for (panel, area) in panels.iter().zip(&areas) {
            draw_panel(panel, area).map_err(|error| anyhow!("{}: {error}", panel.title))?;
        }
        root.present()?;
    }
    let (start, rest) = svg
        .split_once('>')
        .ok_or_else(|| anyhow!("no SVG: {svg}"))?;
    let font = "font-family=\"system-ui, sans-serif\"";
    let rest = rest.replace("font-family=\"sans-serif\"", font);
    Ok(format!(
        "{start} role=\"img\">\n<title>Time and memory over sessions, size and sources</title>\n\
         <desc>{measured}</desc>\n{STYLE}{rest}"
    ))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

fn draw_panel(panel: &Panel, area: &Area<'_>) -> Drawn {
    let all = || panel.series.iter().flat_map(|series| &series.points);
    let largest = |of: fn(&(f64, f64)) -> f64| all().map(of).fold(1.0, f64::max);
    let smallest = |of: fn(&(f64, f64)) -> f64| all().map(of).fold(f64::MAX, f64::min);
    let power_below = |value: f64| 10_f64.powf(value.log10().floor());
    // Above the lines there is room for their names.
    let power_above = |value: f64| 10_f64.powf((value * 2.5).log10().ceil());
    let y = power_below(smallest(|point| point.1))..power_above(largest(|point| point.1));
    match panel.axis {
        Axis::Sources => draw_lines(panel, area, 0.0..largest(|point| point.0) * 1.04, y),
        _ => {
            let x = smallest(|point| point.0) / 1.3..largest(|point| point.0) * 1.3;
            draw_lines(panel, area, x.log_scale(), y)
        }
    }
}

fn draw_lines<X>(panel: &Panel, area: &Area<'_>, x: X, y: std::ops::Range<f64>) -> Drawn
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let text = |size: u32| ("sans-serif", size).into_font().color(&INK);
    let mut chart = ChartBuilder::on(area)
        .margin(14)
        .caption(&panel.title, text(20))
        .x_label_area_size(46)
        .y_label_area_size(64)
        .build_cartesian_2d(x, y.log_scale())?;
    let number = |value: &f64| with_commas(*value);
    chart
        .configure_mesh()
        .x_desc(match panel.axis {
            Axis::Sessions => "sessions",
            Axis::Mebibytes => "size of the file, MiB",
            Axis::Sources => "sources",
        })
        .y_desc(panel.unit)
        .x_label_formatter(&number)
        .y_label_formatter(&number)
        .x_labels(6)
        .y_labels(6)
        .label_style(text(15))
        .axis_desc_style(text(15))
        .axis_style(INK)
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .draw()?;
    for (at, (series, colour)) in panel.series.iter().zip(COLOURS).enumerate() {
        let points = || series.points.iter().copied();
        chart
            .draw_series(LineSeries::new(points(), colour.stroke_width(2)))?
            .label(series.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
        // Shapes tell the lines apart without colours.
        match at {
            0 => chart.draw_series(points().map(|at| Circle::new(at, 4, colour.filled())))?,
            1 => {
                chart.draw_series(points().map(|at| TriangleMarker::new(at, 5, colour.filled())))?
            }
            _ => chart.draw_series(points().map(|at| {
                EmptyElement::at(at)
                    + Polygon::new([(-4, -4), (4, -4), (4, 4), (-4, 4)], colour.filled())
            }))?,
        };
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .label_font(text(15))
        .draw()
}

/// A number as it is written: 200,000 or 0.5.
fn with_commas(value: f64) -> String {
    if value < 1.0 {
        return format!("{value}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
