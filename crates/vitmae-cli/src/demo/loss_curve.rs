//! The loss curve as an SVG.

use anyhow::{Result, anyhow};
use plotters::prelude::*;

/// Colour of the training loss.
const TRAINING: RGBColor = RGBColor(0x2f, 0x6f, 0xb3);
/// Colour of the held-out loss.
const HELD_OUT: RGBColor = RGBColor(0xd1, 0x5b, 0x2c);

/// Losses by step.
pub struct Curve {
    /// (step, loss) of each update.
    pub training: Vec<(f64, f64)>,
    /// (step, loss) of each evaluation.
    pub held_out: Vec<(f64, f64)>,
}

impl Curve {
    /// Draws both curves; the training loss is smoothed over about 2 % of the run.
    pub fn svg(&self) -> Result<String> {
        let mut svg = String::new();
        self.draw(&mut svg).map_err(|error| anyhow!("cannot draw the loss curve: {error}"))?;
        Ok(svg)
    }

    fn draw(&self, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
        let smoothed = smooth(&self.training);
        let all = || smoothed.iter().skip(smoothed.len() / 50).chain(&self.held_out);
        let top = all().map(|point| point.1).fold(0.0, f64::max) * 1.05;
        let last = all().map(|point| point.0).fold(1.0, f64::max);
        let area = SVGBackend::with_string(svg, (860, 360)).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..last, 0.0..top.max(1e-9))?;
        chart
            .configure_mesh()
            .light_line_style(WHITE.mix(0.0))
            .x_desc("update")
            .y_desc("loss on removed patches")
            .x_label_formatter(&|x| format!("{x:.0}"))
            .draw()?;
        chart
            .draw_series(LineSeries::new(smoothed.iter().copied(), TRAINING.stroke_width(2)))?
            .label("training (smoothed)")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 20, y)], TRAINING.stroke_width(2)));
        chart
            .draw_series(LineSeries::new(self.held_out.iter().copied(), HELD_OUT.stroke_width(2)))?
            .label("held-out photographs")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 20, y)], HELD_OUT.stroke_width(2)));
        chart
            .configure_series_labels()
            .background_style(WHITE)
            .border_style(BLACK.mix(0.2))
            .draw()?;
        area.present()?;
        Ok(())
    }
}

/// A running mean that forgets over a fiftieth of the points.
fn smooth(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let keep = 1.0 - 1.0 / (points.len() as f64 / 50.0).max(1.0);
    let mut mean = points.first().map_or(0.0, |point| point.1);
    let step = |&(x, y): &(f64, f64)| {
        mean = keep * mean + (1.0 - keep) * y;
        (x, mean)
    };
    points.iter().map(step).collect()
}
