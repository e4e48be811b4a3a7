//! Whole trajectories of the PF ODE, from (x_t, t) to x_eps, as consistency functions: by the steps
//! of a solver along a grid, and by an integrator that is exact to a tolerance.

use super::grid::TimeGrid;
use super::solver::Solver;
use crate::seam::{ConsistencyFunction, Denoiser, TwoTimeMap, one_a_sample};
use crate::{Result, bail, ensure};
use candle_core::{DType, Device, Tensor};

/// The consistency function that a solver defines: its steps along a grid, from the
/// grid point t down to eps. It has zero consistency loss on that grid (Theorem 1).
///
/// ```
/// use candle_core::{Device, Tensor};
/// use consistency::process::{FlowMap, GaussianMixture, NoiseRange, Solver};
/// use consistency::seam::ConsistencyFunction;
/// let normal = GaussianMixture::new(vec![1.0], vec![vec![0.0]], vec![1.0])?; // N(0, 1)
/// let grid = NoiseRange::default().karras(18)?;
/// let (t, next) = (grid.times()[17], grid.times()[16]);
/// let x = Tensor::new(&[[80.0f64]], &Device::Cpu)?; // (1, 1), at T
/// let x_next = Solver::Heun.step(&normal, &x, &[t], &[next])?;
/// // Two points of one trajectory have one origin.
/// let f = FlowMap::new(normal, Solver::Heun, grid);
/// let (a, b) = (f.origin(&x, &[t])?, f.origin(&x_next, &[next])?);
/// assert_eq!(a.to_vec2::<f64>()?, b.to_vec2::<f64>()?);
/// # Ok::<(), consistency::Error>(())
/// ```
pub struct FlowMap<D> {
    denoiser: D,
    solver: Solver,
    grid: TimeGrid,
}

impl<D: Denoiser> FlowMap<D> {
    /// The flow map of `denoiser` by `solver` along `grid`.
    pub fn new(denoiser: D, solver: Solver, grid: TimeGrid) -> Self {
        Self { denoiser, solver, grid }
    }
}

impl<D: Denoiser> ConsistencyFunction for FlowMap<D> {
    /// Every `t` must be a point of the grid. Samples at different points start together
    /// where the steps reach them: each costs the steps below it and no more.
    fn origin(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        let times = self.grid.times();
        if let Some(t) = t.iter().find(|t| !times.contains(t)) {
            bail!("noise level t = {t} is not a point of the flow map's grid");
        }
        let start = one_a_sample(t, x.dims().first().copied().unwrap_or(0))?;
        let mut order: Vec<u32> = (0..start.len() as u32).collect();
        order.sort_by(|a, b| start[*b as usize].total_cmp(&start[*a as usize]));
        let (mut state, mut moving) = (None, 0);
        let mut join = |state: Option<Tensor>, level: f64| -> Result<Option<Tensor>> {
            let until = order.partition_point(|i| start[*i as usize] >= level);
            let from = std::mem::replace(&mut moving, until);
            if from == until {
                return Ok(state);
            }
            let rows = x.index_select(&Tensor::new(&order[from..until], x.device())?, 0)?;
            Ok(Some(match state {
                Some(state) => Tensor::cat(&[&state, &rows], 0)?,
                None => rows,
            }))
        };
        for (from, to) in self.grid.descending() {
            state = match join(state, from)? {
                Some(state) => Some(self.solver.step(&self.denoiser, &state, &[from], &[to])?),
                None => None,
            };
        }
        let Some(state) = join(state, self.grid.first())? else { return Ok(x.clone()) };
        let mut place = vec![0u32; order.len()];
        for (at, i) in order.iter().enumerate() {
            place[*i as usize] = at as u32;
        }
        Ok(state.index_select(&Tensor::new(place, x.device())?, 0)?)
    }
}

/// The consistency function of a denoiser's PF ODE itself, by an integrator whose error in
/// each step is below `tolerance` of the size of x, or of t where that is larger.
///
/// In s = ln t the ODE is dx/ds = x - D(x, t), which is smooth over all noise levels. It is solved
/// by extrapolation of Gragg's midpoint rule (Bulirsch and Stoer; Hairer, Norsett and Wanner,
/// *Solving Ordinary Differential Equations I*, II.9), of order 14, with a separate step size for
/// each sample. Everything is in f64.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use consistency::process::{ExactFlow, GaussianMixture};
/// use consistency::seam::ConsistencyFunction;
/// let normal = GaussianMixture::new(vec![1.0], vec![vec![0.0]], vec![1.0])?; // N(0, 1)
/// let f = ExactFlow::new(normal, 0.002)?;
/// let x = Tensor::new(&[[80.0f64]], &Device::Cpu)?; // (1, 1), at T = 80
/// // x_t / sqrt(1 + t^2) stays the same on a trajectory of N(0, 1).
/// let origin = f.origin(&x, &[80.0])?.to_vec2::<f64>()?[0][0];
/// let exact = 80.0 * ((1.0f64 + 0.002 * 0.002) / (1.0 + 6400.0)).sqrt();
/// assert!((origin - exact).abs() < 1e-9);
/// # Ok::<(), consistency::Error>(())
/// ```
pub struct ExactFlow<D> {
    denoiser: D,
    eps: f64,
    tolerance: f64,
}

/// Substeps of the extrapolated columns.
const COLUMNS: [usize; 7] = [2, 4, 6, 8, 10, 12, 14];
/// Steps before it gives up; for a mixture it needs a few dozen.
const STEPS: usize = 20_000;

/// One sample on its way.
struct Path {
    row: usize,
    s: f64,
    step: f64,
    end: f64,
    x: Vec<f64>,
}

impl<D: Denoiser> ExactFlow<D> {
    /// The flow of `denoiser` down to `eps`, to a tolerance of 1e-13 per step.
    ///
    /// # Errors
    /// An eps that is not positive.
    pub fn new(denoiser: D, eps: f64) -> Result<Self> {
        ensure!(eps > 0.0 && eps.is_finite(), "eps = {eps}: needs eps > 0");
        Ok(Self { denoiser, eps, tolerance: 1e-13 })
    }

    /// The same with another tolerance per step; below 1e-14 rounding is larger.
    ///
    /// # Errors
    /// A tolerance that is not between 1e-14 and 1.
    pub fn tolerance(self, tolerance: f64) -> Result<Self> {
        ensure!(
            (1e-14..1.0).contains(&tolerance),
            "tolerance = {tolerance}: needs 1e-14 <= tolerance < 1"
        );
        Ok(Self { tolerance, ..self })
    }

    // dx/ds at the points x, row after row, and at s + share * step of each path.
    fn slopes(&self, paths: &[Path], x: &[f64], share: f64, shape: &[usize]) -> Result<Vec<f64>> {
        let t: Vec<f64> = paths.iter().map(|p| (p.s + share * p.step).exp()).collect();
        let at = Tensor::from_slice(x, shape, &Device::Cpu)?;
        let mut slopes = self
            .denoiser
            .denoise(&at, &t)?
            .to_dtype(DType::F64)?
            .flatten_all()?
            .to_vec1::<f64>()?;
        slopes.iter_mut().zip(x).for_each(|(d, x)| *d = x - *d);
        Ok(slopes)
    }

    // One step of every path: the extrapolated ends, row after row, and how far each is from the
    // one with one column fewer, in units of what is allowed.
    fn step(&self, paths: &[Path], dims: &[usize]) -> Result<(Vec<f64>, Vec<f64>)> {
        let width = paths[0].x.len();
        let shape = [&[paths.len()], &dims[1..]].concat();
        let start: Vec<f64> = paths.iter().flat_map(|p| &p.x).copied().collect();
        let first = self.slopes(paths, &start, 0.0, &shape)?;
        // The previous row of Neville's scheme in the squared substep.
        let mut tableau: Vec<Vec<f64>> = Vec::new();
        let mut gap = vec![0.0f64; paths.len()];
        for (j, &n) in COLUMNS.iter().enumerate() {
            let substep = 1.0 / n as f64;
            let (mut before, mut now) = (start.clone(), start.clone());
            advance(&mut now, None, &first, paths, substep);
            for m in 1..n {
                let slope = self.slopes(paths, &now, m as f64 * substep, &shape)?;
                advance(&mut now, Some(&mut before), &slope, paths, 2.0 * substep);
            }
            for (k, earlier) in tableau.iter_mut().enumerate() {
                let ratio = (n as f64 / COLUMNS[j - 1 - k] as f64).powi(2);
                for (p, gap) in gap.iter_mut().enumerate() {
                    *gap = 0.0;
                    let row = p * width..(p + 1) * width;
                    for (now, earlier) in now[row.clone()].iter_mut().zip(&mut earlier[row]) {
                        let change = (*now - *earlier) / (ratio - 1.0);
                        *earlier = *now;
                        *now += change;
                        // `max` ignores a NaN, which must not look small.
                        *gap = if change.is_nan() { f64::INFINITY } else { gap.max(change.abs()) };
                    }
                }
            }
            tableau.push(now);
        }
        for (gap, path) in gap.iter_mut().zip(paths) {
            let size = path.x.iter().fold(path.s.exp(), |size, x| size.max(x.abs()));
            *gap /= self.tolerance * size;
        }
        Ok((tableau.pop().unwrap_or_default(), gap))
    }
}

// x + share of each path's step * slope, from `before` where it is given (the midpoint
// rule), which then holds what x was.
fn advance(x: &mut [f64], before: Option<&mut [f64]>, slope: &[f64], paths: &[Path], share: f64) {
    let width = paths[0].x.len();
    let steps = paths.iter().flat_map(|p| std::iter::repeat_n(share * p.step, width));
    match before {
        None => x.iter_mut().zip(slope).zip(steps).for_each(|((x, d), h)| *x += h * d),
        Some(before) => {
            for (((x, before), d), h) in x.iter_mut().zip(before).zip(slope).zip(steps) {
                let next = *before + h * d;
                *before = std::mem::replace(x, next);
            }
        }
    }
}

impl<D: Denoiser> ConsistencyFunction for ExactFlow<D> {
    /// # Errors
    /// A noise level below eps, or a path that does not reach its end: its denoiser is not smooth,
    /// or not finite.
    fn origin(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        if let Some(t) = t.iter().find(|t| !(**t >= self.eps && t.is_finite())) {
            bail!("noise level t = {t} lies below eps = {}, where the flow ends", self.eps);
        }
        self.map(x, t, &[self.eps])
    }
}

impl<D: Denoiser> TwoTimeMap for ExactFlow<D> {
    /// The flow from t down to any s, regardless of its eps.
    ///
    /// # Errors
    /// An s that is not positive or lies above t, or a path that does not reach its end: its
    /// denoiser is not smooth, or not finite.
    fn map(&self, x: &Tensor, t: &[f64], s: &[f64]) -> Result<Tensor> {
        let dims = x.dims().to_vec();
        let batch = dims.first().copied().unwrap_or(0);
        let (starts, ends) = (one_a_sample(t, batch)?, one_a_sample(s, batch)?);
        for (t, s) in starts.iter().zip(&ends) {
            ensure!(
                *s > 0.0 && t >= s && t.is_finite(),
                "from noise level t = {t} to s = {s}: needs t >= s > 0"
            );
        }
        let mut rows =
            x.flatten_from(1)?.to_dtype(DType::F64)?.to_device(&Device::Cpu)?.to_vec2::<f64>()?;
        let mut paths: Vec<Path> = Vec::new();
        for (row, (t, end)) in starts.iter().zip(&ends).enumerate().filter(|(_, (t, s))| t > s) {
            let (s, end) = (t.ln(), end.ln());
            paths.push(Path { row, s, step: (end - s).max(-0.25), end, x: rows[row].clone() });
        }
        for _ in 0..STEPS {
            if paths.is_empty() {
                let flat = Tensor::from_vec(rows.concat(), dims, &Device::Cpu)?;
                return Ok(flat.to_dtype(x.dtype())?.to_device(x.device())?);
            }
            let (ends, errors) = self.step(&paths, &dims)?;
            let width = ends.len() / paths.len();
            for ((path, x), error) in paths.iter_mut().zip(ends.chunks(width)).zip(errors) {
                let end = path.end;
                let last = path.s + path.step <= end + 1e-15 * end.abs();
                if error <= 1.0 {
                    path.x.copy_from_slice(x);
                    path.s = if last { end } else { path.s + path.step };
                }
                ensure!(
                    error <= 1.0 || path.step.abs() > 1e-9,
                    "the PF ODE from sample {} stops at t = {}: the denoiser is not smooth there, \
                     or not finite",
                    path.row,
                    path.s.exp()
                );
                // The estimate is of order 12: its error in a step grows as step^13.
                let factor = 0.9 * error.max(1e-9).powf(-1.0 / 13.0);
                let wanted = path.step * factor.clamp(0.1, 4.0);
                path.step = wanted.max(-2.0).max(end - path.s);
            }
            paths.retain_mut(|path| {
                let there = path.s <= path.end;
                if there {
                    rows[path.row] = std::mem::take(&mut path.x);
                }
                !there
            });
        }
        bail!("{} samples have not arrived after {STEPS} steps", paths.len())
    }
}
