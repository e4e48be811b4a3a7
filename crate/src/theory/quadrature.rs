//! Many integrals at once, each to a relative tolerance: Gauss-Kronrod panels that are
//! halved until each is accurate, all panels of one round evaluated together. (A round is
//! one call of a tensor function; panel by panel the calls would cost more than the work.)

use crate::interrupt::check_interrupt;
use crate::{Result, ensure};

/// The positive nodes of the Kronrod rule of 21 points, the middle last; those with odd
/// index are the Gauss rule's of 10 points (QUADPACK's qk21).
const NODES: [f64; 11] = [
    0.995_657_163_025_808_1,
    0.973_906_528_517_171_7,
    0.930_157_491_355_708_2,
    0.865_063_366_688_984_5,
    0.780_817_726_586_416_9,
    0.679_409_568_299_024_4,
    0.562_757_134_668_604_7,
    0.433_395_394_129_247_2,
    0.294_392_862_701_460_2,
    0.148_874_338_981_631_22,
    0.0,
];
/// Kronrod's weights.
const KRONROD: [f64; 11] = [
    0.011_694_638_867_371_874,
    0.032_558_162_307_964_725,
    0.054_755_896_574_351_995,
    0.075_039_674_810_919_96,
    0.093_125_454_583_697_6,
    0.109_387_158_802_297_64,
    0.123_491_976_262_065_84,
    0.134_709_217_311_473_34,
    0.142_775_938_577_060_09,
    0.147_739_104_901_338_49,
    0.149_445_554_002_916_9,
];
/// Gauss's weights, of the nodes with odd index.
const GAUSS: [f64; 5] = [
    0.066_671_344_308_688_14,
    0.149_451_349_150_580_6,
    0.219_086_362_515_982_04,
    0.269_266_719_309_996_35,
    0.295_524_224_714_752_87,
];
const POINTS: usize = 2 * NODES.len() - 1;
/// Halvings of a panel: then it is too small to matter, unless the integrand is singular.
const DEPTH: u32 = 44;

/// A part of the integral number `tag`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Panel {
    pub tag: usize,
    pub from: f64,
    pub to: f64,
    depth: u32,
}

/// A place where integrand number `tag` is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub tag: usize,
    pub at: f64,
}

/// The panels of integral `tag` between these points, in increasing order.
pub(super) fn panels(tag: usize, breaks: &[f64]) -> impl Iterator<Item = Panel> + '_ {
    let pairs = breaks.windows(2).filter(|w| w[1] > w[0]);
    pairs.map(move |w| Panel { tag, from: w[0], to: w[1], depth: 0 })
}

/// Points at equal distances, both ends included.
pub(super) fn breaks(from: f64, to: f64, count: usize) -> Vec<f64> {
    (0..=count).map(|i| from + (to - from) * i as f64 / count as f64).collect()
}

/// The integrals of an M-valued function over `panels`, for each tag below `tags`: every
/// component to `tolerance` times the integral of its magnitude.
///
/// # Errors
/// What `f` returns, or a value that is not finite.
pub(super) fn integrate<const M: usize>(
    mut panels: Vec<Panel>,
    tags: usize,
    tolerance: f64,
    mut f: impl FnMut(&[Node]) -> Result<Vec<[f64; M]>>,
) -> Result<Vec<[f64; M]>> {
    let mut done = vec![[0.0; M]; tags];
    let mut done_size = vec![[0.0; M]; tags];
    let mut first = vec![0usize; tags];
    panels.iter().for_each(|p| first[p.tag] += 1);
    while !panels.is_empty() {
        check_interrupt()?;
        let values = f(&nodes(&panels))?;
        ensure!(
            values.iter().flatten().all(|v| v.is_finite()),
            "an integrand of the theory is not finite"
        );
        let results: Vec<Estimate<M>> =
            panels.iter().zip(values.chunks(POINTS)).map(|(p, v)| Estimate::new(p, v)).collect();
        // The size of each integral, as far as it is known.
        let mut size = done_size.clone();
        for (panel, result) in panels.iter().zip(&results) {
            (0..M).for_each(|m| size[panel.tag][m] += result.size[m]);
        }
        let mut next = Vec::new();
        for (panel, result) in panels.iter().zip(&results) {
            // Accurate in itself, or too small a part of the whole to matter.
            let share = 1.0 / first[panel.tag] as f64;
            let good = (0..M).all(|m| {
                let matters = result.size[m].max(share * size[panel.tag][m]);
                result.error[m] <= tolerance * matters
            });
            if good || panel.depth == DEPTH {
                for m in 0..M {
                    done[panel.tag][m] += result.value[m];
                    done_size[panel.tag][m] += result.size[m];
                }
            } else {
                let (middle, depth) = (0.5 * (panel.from + panel.to), panel.depth + 1);
                next.push(Panel { to: middle, depth, ..*panel });
                next.push(Panel { from: middle, depth, ..*panel });
            }
        }
        ensure!(
            next.len() <= first.iter().sum::<usize>() * 64 + 4096,
            "an integral of the theory does not converge to {tolerance:e}: {} panels left",
            next.len()
        );
        panels = next;
    }
    Ok(done)
}

fn nodes(panels: &[Panel]) -> Vec<Node> {
    let mut nodes = Vec::with_capacity(panels.len() * POINTS);
    for panel in panels {
        let (middle, half) = (0.5 * (panel.from + panel.to), 0.5 * (panel.to - panel.from));
        for (i, x) in NODES.iter().enumerate() {
            nodes.push(Node { tag: panel.tag, at: middle - half * x });
            if i + 1 < NODES.len() {
                nodes.push(Node { tag: panel.tag, at: middle + half * x });
            }
        }
    }
    nodes
}

/// The integral over one panel.
struct Estimate<const M: usize> {
    value: [f64; M],
    /// The integral of the magnitude.
    size: [f64; M],
    error: [f64; M],
}

impl<const M: usize> Estimate<M> {
    // `values` in the order of `nodes`.
    fn new(panel: &Panel, values: &[[f64; M]]) -> Self {
        let half = 0.5 * (panel.to - panel.from);
        let (mut value, mut size, mut error) = ([0.0; M], [0.0; M], [0.0; M]);
        for m in 0..M {
            let (mut kronrod, mut gauss, mut magnitude) = (0.0, 0.0, 0.0);
            for (at, v) in values.iter().enumerate() {
                let i = at / 2;
                kronrod += KRONROD[i] * v[m];
                magnitude += KRONROD[i] * v[m].abs();
                if i % 2 == 1 {
                    gauss += GAUSS[i / 2] * v[m];
                }
            }
            let mean = 0.5 * kronrod;
            let spread: f64 = values
                .iter()
                .enumerate()
                .map(|(at, v)| KRONROD[at / 2] * (v[m] - mean).abs())
                .sum();
            // QUADPACK's estimate: Kronrod's rule gains half as many digits again.
            let difference = (kronrod - gauss).abs();
            let estimate = if spread > 0.0 {
                spread * (200.0 * difference / spread).powf(1.5).min(1.0)
            } else {
                difference
            };
            // What rounding leaves cannot be halved away.
            let rounding = 50.0 * f64::EPSILON * magnitude;
            value[m] = half * kronrod;
            size[m] = half * magnitude;
            error[m] = half * if estimate <= rounding { 0.0 } else { estimate };
        }
        Self { value, size, error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(breaks: &[f64], tolerance: f64, f: impl Fn(f64) -> f64) -> Result<f64> {
        let parts = panels(0, breaks).collect();
        Ok(integrate(parts, 1, tolerance, |n| Ok(n.iter().map(|n| [f(n.at)]).collect()))?[0][0])
    }

    #[test]
    fn a_panel_is_exact_for_polynomials_up_to_degree_31() -> Result<()> {
        for degree in 0..=31 {
            // One round: a loose tolerance accepts the first estimate.
            let found = one(&[0.0, 1.0], 1e9, |x| x.powi(degree))?;
            let want = 1.0 / f64::from(degree + 1);
            assert!((found / want - 1.0).abs() < 1e-14, "degree {degree}: {found}");
        }
        Ok(())
    }

    #[test]
    fn kinks_and_peaks_are_found() -> Result<()> {
        let kink = one(&[-1.0, 2.0], 1e-12, |x| (x - 0.3).abs())?;
        assert!((kink - 0.5 * (1.69 + 2.89)).abs() < 1e-11, "{kink}");
        let peak = one(&breaks(-1.0, 1.0, 4), 1e-12, |x| 1.0 / (1e-6 + x * x))?;
        assert!((peak / (2e3 * 1e3f64.atan()) - 1.0).abs() < 1e-11, "{peak}");
        let root = one(&[0.0, 1.0], 1e-10, f64::sqrt)?;
        assert!((root - 2.0 / 3.0).abs() < 1e-9, "{root}");
        Ok(())
    }

    #[test]
    fn each_tag_is_its_own_integral() -> Result<()> {
        let parts = (0..3).flat_map(|tag| panels(tag, &[0.0, 1.0]).collect::<Vec<_>>()).collect();
        let found = integrate(parts, 3, 1e-12, |nodes| {
            Ok(nodes.iter().map(|n| [n.at.powi(n.tag as i32), n.tag as f64]).collect())
        })?;
        for (tag, [power, constant]) in found.into_iter().enumerate() {
            assert!((power - 1.0 / (tag as f64 + 1.0)).abs() < 1e-13);
            assert!((constant - tag as f64).abs() < 1e-13);
        }
        Ok(())
    }

    #[test]
    fn what_is_not_finite_is_refused() {
        assert!(one(&[0.0, 1.0], 1e-9, |x| (x - 0.5).ln()).is_err());
    }
}
