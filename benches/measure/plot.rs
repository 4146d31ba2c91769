//! Plots: curves as SVG, for the documents.

use std::path::Path;

use plotters::prelude::*;

use crate::Failure;

/// A curve: its name and its points.
pub type Curve<'a> = (&'a str, Vec<(f64, f64)>);

/// What a plot shows.
#[derive(Clone, Copy, Debug)]
pub struct Axes<'a> {
    /// What it is of.
    pub title: &'a str,
    /// What goes to the right, with its unit.
    pub across: &'a str,
    /// What goes up, with its unit.
    pub up: &'a str,
    /// Whether what goes to the right is in powers of ten.
    pub logarithmic: bool,
}

const COLOURS: [RGBColor; 4] =
    [RGBColor(31, 119, 180), RGBColor(214, 39, 40), RGBColor(44, 160, 44), RGBColor(140, 86, 75)];

/// Draws curves into an SVG file.
///
/// # Errors
/// There is no point, or the file cannot be written.
pub fn draw(path: &Path, axes: Axes<'_>, curves: &[Curve<'_>]) -> Result<(), Failure> {
    let points = || curves.iter().flat_map(|(_, points)| points);
    let most = points().map(|(_, up)| *up).fold(0.0, f64::max) * 1.1;
    let left = points().map(|(across, _)| *across).fold(f64::INFINITY, f64::min);
    let right = points().map(|(across, _)| *across).fold(0.0, f64::max);
    if !left.is_finite() || most <= 0.0 {
        return Err("a plot without points".into());
    }
    let area = SVGBackend::new(path, (720, 400)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area);
    chart.caption(axes.title, ("sans-serif", 18)).margin(12).x_label_area_size(40).y_label_area_size(64);
    macro_rules! curves {
        ($chart:expr) => {{
            let mut chart = $chart;
            chart.configure_mesh().x_desc(axes.across).y_desc(axes.up).light_line_style(WHITE).draw()?;
            for ((name, points), colour) in curves.iter().zip(COLOURS.iter().cycle()) {
                let style = ShapeStyle::from(colour).stroke_width(2);
                chart
                    .draw_series(LineSeries::new(points.iter().copied(), style))?
                    .label(*name)
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
                chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
            }
            chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.2)).draw()?;
        }};
    }
    if axes.logarithmic {
        curves!(chart.build_cartesian_2d((left..right).log_scale(), 0.0..most)?);
    } else {
        curves!(chart.build_cartesian_2d(0.0..right, 0.0..most)?);
    }
    Ok(area.present()?)
}
