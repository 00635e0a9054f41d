//! Draws small graphs one below the other as SVG, to show whether a series is flat.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use super::figure::quantity;

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 70.0;
/// Space left of the graphs, for names.
const MARGIN: f64 = 150.0;
/// Between two graphs.
const GAP: f64 = 14.0;

/// Values over time, one per sample.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) values: Vec<f64>,
}

/// Draws all series into a file.
pub(super) fn write(svg: &Path, series: &[Series]) -> io::Result<()> {
    if let Some(directory) = svg.parent() {
        std::fs::create_dir_all(directory)?;
    }
    std::fs::write(svg, plot(series))
}

/// Draws all series over the same time, each with a scale of its own that begins at zero.
fn plot(series: &[Series]) -> String {
    let height = (HEIGHT + GAP).mul_add(series.len() as f64, GAP);
    let width = MARGIN + WIDTH + GAP;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (index, series_item) in series.iter().enumerate() {
        let top = (HEIGHT + GAP).mul_add(index as f64, GAP);
        // Writing to a string cannot fail.
        let _ = graph(&mut svg, series_item, top);
    }
    svg.push_str("</svg>\n");
    svg
}

fn graph(svg: &mut String, series: &Series, top: f64) -> std::fmt::Result {
    let max = series.values.iter().copied().fold(0.0, f64::max);
    let bottom = top + HEIGHT;
    writeln!(svg, "<text x=\"4\" y=\"{:.0}\">{}</text>", top + 12.0, series.name)?;
    writeln!(svg, "<text x=\"4\" y=\"{:.0}\" fill=\"gray\">max {}</text>", top + 28.0, quantity(max, ""))?;
    writeln!(
        svg,
        "<line x1=\"{MARGIN}\" y1=\"{bottom:.0}\" x2=\"{:.0}\" y2=\"{bottom:.0}\" stroke=\"lightgray\"/>",
        MARGIN + WIDTH
    )?;
    let step = WIDTH / (series.values.len().max(2) - 1) as f64;
    let point = |(index, value): (usize, &f64)| {
        let x = step.mul_add(index as f64, MARGIN);
        let y = bottom - value / max.max(f64::MIN_POSITIVE) * HEIGHT;
        format!("{x:.1},{y:.1}")
    };
    let points: Vec<_> = series.values.iter().enumerate().map(point).collect();
    writeln!(svg, "<polyline fill=\"none\" stroke=\"steelblue\" points=\"{}\"/>", points.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lie_between_axis_and_top() {
        let series = [("a", vec![0.0, 5.0, 10.0]), ("b", vec![0.0]), ("c", vec![])]
            .map(|(name, values)| Series { name: name.to_owned(), values });
        let svg = plot(&series);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("points=\"150.0,84.0 600.0,49.0 1050.0,14.0\""), "{svg}");
        assert_eq!(svg.matches("<polyline").count(), 3);
        assert!(!svg.contains("NaN"), "{svg}");
    }
}
