//! Line charts as SVG text. Colours come from the page's style sheet, so that they follow its light or dark scheme.

use std::fmt::Write;

/// The drawing in its own units, and the plot within it.
const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 404.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 204.0;
/// A line has at most about this many points; of longer ones every n-th is drawn, and the last.
const MOST_POINTS: usize = 1000;
/// Lines of at most this many points show each as a dot that says its value.
const MOST_DOTS: usize = 60;
/// Positive values whose largest is this many times the smallest are drawn on a logarithmic scale, where one is allowed.
const LOGARITHMIC: f64 = 8.0;

/// Values over training steps.
pub struct Line {
    pub name: String,
    /// (step, value), the steps ascending, all finite.
    pub points: Vec<(f64, f64)>,
}

/// How values become heights.
struct Scale {
    low: f64,
    high: f64,
    logarithmic: bool,
}

impl Scale {
    fn of(lines: &[Line], logarithmic: bool) -> Self {
        let values = || lines.iter().flat_map(|line| &line.points).map(|(_, value)| *value);
        let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
        let logarithmic = logarithmic && low > 0.0 && high / low >= LOGARITHMIC;
        let margin = if logarithmic { (high / low).ln() } else { high - low } * 0.05;
        let margin = if margin > 0.0 { margin } else { (high.abs() * 0.05).max(1e-6) };
        match logarithmic {
            true => Scale { low: low / margin.exp(), high: high * margin.exp(), logarithmic },
            // No negative ground below values that cannot be negative.
            false => Scale {
                low: if low >= 0.0 { (low - margin).max(0.0) } else { low - margin },
                high: high + margin,
                logarithmic,
            },
        }
    }

    fn y(&self, value: f64) -> f64 {
        let part = match self.logarithmic {
            true => (value / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        };
        BOTTOM - part * (BOTTOM - TOP)
    }

    fn ticks(&self) -> Vec<f64> {
        if !self.logarithmic {
            return round_numbers(self.low, self.high, 5);
        }
        let decades = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
        let many = (self.high / self.low).log10() > 2.5;
        let digits: &[f64] = if many { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let all = decades.flat_map(|decade| digits.iter().map(move |digit| digit * 10f64.powi(decade)));
        all.filter(|tick| (self.low..=self.high).contains(tick)).collect()
    }
}

/// About `count` multiples of 1, 2 or 5 times a power of ten in low..=high.
fn round_numbers(low: f64, high: f64, count: usize) -> Vec<f64> {
    let raw = (high - low) / count as f64;
    let power = 10f64.powf(raw.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= raw).unwrap_or(10.0);
    let distance = factor * power;
    let numbers = (0..=2 * count as i32).map(|i| ((low / distance).ceil() + f64::from(i)) * distance);
    numbers.filter(|number| *number <= high * (1.0 + 1e-12)).collect()
}

/// A number in few characters: 12000 is "12k", 0.00025 "2.5e-4".
pub fn short(value: f64) -> String {
    let digits = |value: f64| {
        let decimals = (3 - value.abs().log10().floor() as i32).clamp(0, 6) as usize;
        let text = format!("{value:.decimals$}");
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
    };
    match value.abs() {
        0.0 => "0".into(),
        size if size >= 1e6 => digits(value / 1e6) + "M",
        size if size >= 1e4 => digits(value / 1e3) + "k",
        size if size < 1e-3 => {
            let power = size.log10().floor() as i32;
            format!("{}e{power}", digits(value / 10f64.powi(power)))
        }
        _ => digits(value),
    }
}

/// The lines over steps; below the steps stand the images seen, `batch` a step. `None` where no line has a point.
/// `title` is what a screen reader says, escaped already; `logarithmic` allows such a scale.
pub fn chart(title: &str, lines: &[Line], batch: Option<u64>, logarithmic: bool) -> Option<String> {
    let last = lines.iter().filter_map(|line| line.points.last()).map(|(step, _)| *step).fold(0.0, f64::max);
    if last <= 0.0 {
        return None;
    }
    let scale = Scale::of(lines, logarithmic);
    let x = |step: f64| LEFT + step / last * (RIGHT - LEFT);
    let kind = if scale.logarithmic { "log" } else { "linear" };
    let mut out = format!(
        "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\" data-scale=\"{kind}\">\n"
    );
    for tick in scale.ticks() {
        let y = scale.y(tick);
        let _ = writeln!(
            out,
            "<line class=\"rule\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.2}\" y2=\"{y:.2}\"/>\
             <text class=\"y\" x=\"{:.0}\" y=\"{y:.2}\" dy=\"4\" data-value=\"{tick}\">{}</text>",
            LEFT - 8.0,
            short(tick)
        );
    }
    for tick in round_numbers(0.0, last, 5) {
        let x = x(tick);
        let _ = writeln!(
            out,
            "<line class=\"tick\" x1=\"{x:.2}\" x2=\"{x:.2}\" y1=\"{BOTTOM}\" y2=\"{:.0}\"/>\
             <text class=\"x\" x=\"{x:.2}\" y=\"{:.0}\" data-value=\"{tick}\">{}</text>",
            BOTTOM + 5.0,
            BOTTOM + 20.0,
            short(tick)
        );
        if let Some(batch) = batch {
            let images = short(tick * batch as f64);
            let _ = writeln!(out, "<text class=\"x\" x=\"{x:.2}\" y=\"{:.0}\">{images}</text>", BOTTOM + 37.0);
        }
    }
    for (row, name) in [Some("step"), batch.map(|_| "images")].into_iter().flatten().enumerate() {
        let y = BOTTOM + 20.0 + 17.0 * row as f64;
        let _ = writeln!(out, "<text class=\"y\" x=\"{:.0}\" y=\"{y:.0}\">{name}</text>", LEFT - 14.0);
    }
    let _ = writeln!(out, "<path class=\"axis\" d=\"M{LEFT} {TOP}V{BOTTOM}H{RIGHT}\"/>");
    for (number, line) in lines.iter().enumerate() {
        draw(&mut out, line, number, &x, &scale);
    }
    Some(out + "</svg>")
}

fn draw(out: &mut String, line: &Line, number: usize, x: &dyn Fn(f64) -> f64, scale: &Scale) {
    let every = line.points.len().div_ceil(MOST_POINTS).max(1);
    let last = line.points.len().saturating_sub(1);
    let shown = line.points.iter().enumerate().filter(|(i, _)| i % every == 0 || *i == last);
    let places: Vec<String> =
        shown.map(|(_, (step, value))| format!("{:.2},{:.2}", x(*step), scale.y(*value))).collect();
    let _ = writeln!(out, "<polyline class=\"line s{number}\" points=\"{}\"/>", places.join(" "));
    if line.points.len() <= MOST_DOTS {
        for (step, value) in &line.points {
            let (x, y, value) = (x(*step), scale.y(*value), short(*value));
            let _ = writeln!(
                out,
                "<circle class=\"dot s{number}\" cx=\"{x:.2}\" cy=\"{y:.2}\" r=\"3\"><title>step {step}: {value}</title></circle>"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 0.00025, 0.002, 0.34895, 27.316, 236.0, 9999.0, 12000.0, 444_000.0, 1.5e6].map(short);
        assert_eq!(shown, ["0", "2.5e-4", "0.002", "0.3489", "27.32", "236", "9999", "12k", "444k", "1.5M"]);
    }

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(round_numbers(0.0, 236.0, 5), [0.0, 50.0, 100.0, 150.0, 200.0]);
        let line = Line { name: String::new(), points: vec![(1.0, 0.05), (2.0, 1.2)] };
        assert_eq!(Scale::of(&[line], true).ticks(), [0.05, 0.1, 0.2, 0.5, 1.0]);
    }

    #[test]
    fn equal_values_and_one_point_have_a_chart() {
        for points in [vec![(5.0, 0.0)], vec![(1.0, 2.0), (2.0, 2.0)], vec![(1.0, -1.0)]] {
            let svg = chart("x", &[Line { name: String::new(), points }], Some(64), true).unwrap();
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
        assert!(chart("x", &[], None, true).is_none());
    }
}
