//! Curves as SVG, one panel under another.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

/// Colours of the first, second, … curve of a panel.
const COLOURS: [RGBColor; 4] = [
    RGBColor(0x2f, 0x6f, 0xb3),
    RGBColor(0xd1, 0x5b, 0x2c),
    RGBColor(0x3a, 0x8f, 0x5c),
    RGBColor(0x7a, 0x55, 0xa8),
];
/// Pixels of a panel.
const SIZE: (u32, u32) = (860, 320);
/// Points that a curve of many is thinned to; more could not be told apart.
const MOST_POINTS: usize = 800;

/// One panel.
pub struct Panel {
    /// What the numbers are.
    pub title: String,
    /// (update, value) by name.
    pub curves: Vec<(String, Vec<(f64, f64)>)>,
}

/// Draws panels over the same updates.
pub fn svg(panels: &[Panel]) -> Result<String> {
    let mut text = String::new();
    draw(panels, &mut text).map_err(|error| anyhow!("cannot draw curves: {error}"))?;
    Ok(text)
}

fn draw(panels: &[Panel], text: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let size = (SIZE.0, SIZE.1 * panels.len() as u32);
    let area = SVGBackend::with_string(text, size).into_drawing_area();
    area.fill(&WHITE)?;
    let points = panels.iter().flat_map(|panel| &panel.curves).flat_map(|curve| &curve.1);
    let last = points.map(|point| point.0).fold(1.0, f64::max);
    for (panel, area) in panels.iter().zip(area.split_evenly((panels.len(), 1))) {
        draw_panel(panel, last, &area)?;
    }
    area.present()?;
    Ok(())
}

fn draw_panel(
    panel: &Panel,
    last: f64,
    area: &DrawingArea<SVGBackend<'_>, Shift>,
) -> Result<(), Box<dyn std::error::Error>> {
    let curves: Vec<_> = panel.curves.iter().map(|(name, points)| (name, thin(points))).collect();
    let values = || curves.iter().flat_map(|curve| &curve.1).map(|point| point.1);
    // The first updates of a run often stand far above the rest.
    let mut sorted: Vec<f64> = values().collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let top = sorted.get(sorted.len().saturating_sub(1) * 98 / 100).copied().unwrap_or(1.0);
    let low = values().fold(0.0, f64::min);
    let mut chart =
        ChartBuilder::on(area)
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(72)
            .build_cartesian_2d(0.0..last, low..(low + 1.1 * (top - low)).max(low + 1e-12))?;
    let number = |y: &f64| match y.abs() {
        0.0 => "0".to_owned(),
        y if !(1e-3..1e5).contains(&y) => format!("{y:.1e}"),
        y if y < 10.0 => format!("{y:.3}"),
        y => format!("{y:.1}"),
    };
    chart
        .configure_mesh()
        .light_line_style(WHITE.mix(0.0))
        .x_desc("update")
        .y_desc(&panel.title)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&number)
        .draw()?;
    for ((name, points), colour) in curves.into_iter().zip(COLOURS.into_iter().cycle()) {
        let style = colour.stroke_width(2);
        // What lies above the panel would be drawn over its neighbour.
        let points = points.into_iter().map(|(x, y)| (x, y.min(low + 1.1 * (top - low))));
        chart
            .draw_series(LineSeries::new(points, style))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
    }
    if panel.curves.len() > 1 {
        chart
            .configure_series_labels()
            .background_style(WHITE)
            .border_style(BLACK.mix(0.2))
            .draw()?;
    }
    Ok(())
}

/// Means of neighbours, so that few enough points are left.
fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mean = |group: &[(f64, f64)]| {
        let count = group.len() as f64;
        let sum = group.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (sum.0 / count, sum.1 / count)
    };
    points.chunks(points.len().div_ceil(MOST_POINTS).max(1)).map(mean).collect()
}

/// A running mean that forgets over a fiftieth of the points.
pub fn smooth(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let keep = 1.0 - 1.0 / (points.len() as f64 / 50.0).max(1.0);
    let mut mean = points.first().map_or(0.0, |point| point.1);
    let step = |&(x, y): &(f64, f64)| {
        mean = keep * mean + (1.0 - keep) * y;
        (x, mean)
    };
    points.iter().map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_hold_their_names_and_empty_ones_are_drawn_too() {
        let curve = |name: &str, points| (name.to_owned(), points);
        let loss = Panel {
            title: "loss".into(),
            curves: vec![
                curve("training", (0..5000).map(|x| (f64::from(x), 1.0)).collect()),
                curve("held out", vec![(5000.0, 0.5)]),
            ],
        };
        let empty = Panel { title: "nothing".into(), curves: vec![curve("none", vec![])] };
        let text = svg(&[loss, empty]).unwrap();
        for word in ["training", "held out", "nothing", "height=\"640\""] {
            assert!(text.contains(word), "{word}");
        }
        assert!(text.len() < 60_000, "{}", text.len());
        assert_eq!(svg(&[]).unwrap().matches("<polyline").count(), 0);
    }

    #[test]
    fn thinning_and_smoothing_keep_a_level() {
        let level: Vec<_> = (0..10_000).map(|x| (f64::from(x), 2.0)).collect();
        assert!(thin(&level).len() <= MOST_POINTS);
        assert!(smooth(&thin(&level)).iter().all(|point| (point.1 - 2.0).abs() < 1e-12));
    }
}
