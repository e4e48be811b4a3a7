//! Axes: ranges, ticks and their labels.

#[derive(Clone, Debug, Default)]
pub(super) struct Axis {
    pub label: String,
    pub log: bool,
    pub range: Option<(f64, f64)>,
    /// The names of the places 0, 1, 2 and so on, in place of numbers.
    pub names: Vec<String>,
}

impl Axis {
    /// The range shown for these values: as given, or that of the values with a margin.
    pub fn span(&self, values: impl Iterator<Item = f64>) -> (f64, f64) {
        if let Some(range) = self.range {
            return range;
        }
        if !self.names.is_empty() {
            return (-0.5, self.names.len() as f64 - 0.5);
        }
        let (low, high) = values
            .map(|v| self.place(v))
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        let (low, high) = if low > high { (0.0, 1.0) } else { (low, high) };
        let margin = if high > low { 0.04 * (high - low) } else { 0.5 };
        (self.value(low - margin), self.value(high + margin))
    }

    /// Where a value lies: itself, or its decimal logarithm.
    pub fn place(&self, value: f64) -> f64 {
        if self.log { value.log10() } else { value }
    }

    fn value(&self, place: f64) -> f64 {
        if self.log { 10f64.powf(place) } else { place }
    }

    /// Tick places (in [`Axis::place`]'s scale) and labels within `range`.
    pub fn ticks(&self, range: (f64, f64)) -> Vec<(f64, String)> {
        let (low, high) = (self.place(range.0), self.place(range.1));
        if !self.names.is_empty() {
            let places = self.names.iter().enumerate().map(|(i, name)| (i as f64, name.clone()));
            return places.filter(|(place, _)| (low..=high).contains(place)).collect();
        }
        if self.log {
            let step = ((high - low) / 8.0).ceil().max(1.0);
            let powers: Vec<f64> = ladder(low, high, step).collect();
            if high - low >= 1.5 && powers.len() >= 2 {
                return powers.into_iter().map(|p| (p, power_of_ten(p as i32))).collect();
            }
            // Too few powers of ten: 1, 2 and 5 of each decade; and where that is too few, the
            // ticks of a linear axis.
            let of_decades: Vec<(f64, String)> = ladder(low.floor(), high, 1.0)
                .flat_map(|p| [1.0, 2.0, 5.0].map(|m| m * 10f64.powf(p)))
                .filter(|v| (low..=high).contains(&v.log10()))
                .map(|v| (v.log10(), plain(v, v)))
                .collect();
            if of_decades.len() >= 3 {
                return of_decades;
            }
            let linear = Axis { log: false, ..self.clone() };
            let ticks = linear.ticks(range).into_iter().filter(|t| t.0 > 0.0);
            return ticks.map(|(v, label)| (v.log10(), label)).collect();
        }
        let rough = (high - low) / 6.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .map(|m| m * power)
            .find(|s| *s >= rough)
            .unwrap_or(power);
        ladder(low, high, step).map(|p| (p, plain(p, step))).collect()
    }
}

// The multiples of `step` from `low` to `high`.
fn ladder(low: f64, high: f64, step: f64) -> impl Iterator<Item = f64> {
    let first = (low / step - 1e-9).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    (first..=last).map(move |i| i as f64 * step)
}

// A number with the digits that a step of this size needs.
fn plain(value: f64, step: f64) -> String {
    let decimals = (-step.abs().log10() - 1e-9).ceil().clamp(0.0, 6.0) as usize;
    let text = format!("{value:.decimals$}").replace('-', "\u{2212}");
    if text.trim_start_matches('\u{2212}').chars().all(|c| c == '0' || c == '.') {
        "0".to_string()
    } else {
        text
    }
}

fn power_of_ten(exponent: i32) -> String {
    match exponent {
        0 => "1".to_string(),
        1 => "10".to_string(),
        2 => "100".to_string(),
        _ => {
            let digits = exponent.to_string();
            let raised = digits.chars().map(|c| match c {
                '-' => '\u{207b}',
                '1' => '\u{b9}',
                '2' => '\u{b2}',
                '3' => '\u{b3}',
                digit => char::from_u32(0x2070 + digit as u32 - '0' as u32).unwrap_or(digit),
            });
            format!("10{}", raised.collect::<String>())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis, range: (f64, f64)) -> Vec<String> {
        axis.ticks(range).into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn ticks_are_round_numbers() {
        let axis = Axis::default();
        assert_eq!(labels(&axis, (0.0, 1.0)), ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(&axis, (-7.0, 8000.0)), ["0", "2000", "4000", "6000", "8000"]);
        let log = Axis { log: true, ..Axis::default() };
        assert_eq!(labels(&log, (0.002, 80.0)), ["10⁻²", "10⁻¹", "1", "10"]);
        assert_eq!(labels(&log, (0.9, 6.0)), ["1", "2", "5"]);
        assert_eq!(labels(&log, (0.12, 7.0)), ["0.2", "0.5", "1", "2", "5"]);
    }

    #[test]
    fn named_places_are_all_there() {
        let names = ["l1", "l2"].map(String::from).to_vec();
        let axis = Axis { names, ..Axis::default() };
        let range = axis.span([].into_iter());
        assert_eq!(axis.ticks(range), [(0.0, "l1".to_string()), (1.0, "l2".to_string())]);
    }
}
