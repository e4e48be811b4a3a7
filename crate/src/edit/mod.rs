//! Zero-shot editing by multistep sampling (the paper, appendix D; the talk, slides 23 to 25):
//! inpainting, colorization, super-resolution, stroke-guided generation, denoising and
//! interpolation, over any consistency function.
//!
//! All but the last two are one loop, [`Edit`] (algorithm 4), each with its own [`Operator`] and
//! mask.

mod algorithm;
mod latent;
mod operator;
mod tasks;

pub use algorithm::{Edit, Steps};
pub use latent::{interpolate, slerp};
pub use operator::{LUMA, Operator, grey};
pub use tasks::{colorize, denoise, inpaint, stroke_guided, super_resolve};
