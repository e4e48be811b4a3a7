//! Numbers that carry their derivative: forward-mode differentiation, exact to rounding.

use std::ops::{Add, Div, Mul, Neg, Sub};

/// The number type of the model functions here: f64, or a number with derivatives.
///
/// ```
/// use consistency::theory::{Dual, Number};
/// fn cube<T: Number>(x: T) -> T {
///     x * x * x
/// }
/// assert_eq!(cube(2.0), 8.0);
/// assert_eq!(cube(Dual { value: 2.0, tangent: 1.0 }).tangent, 12.0); // 3 x^2
/// ```
pub trait Number:
    Copy
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    /// The constant `value`.
    fn constant(value: f64) -> Self;
    /// e^x.
    fn exp(self) -> Self;
    /// The natural logarithm.
    fn ln(self) -> Self;
    /// The square root.
    fn sqrt(self) -> Self;
    /// The hyperbolic tangent.
    fn tanh(self) -> Self;
}

impl Number for f64 {
    fn constant(value: f64) -> Self {
        value
    }

    fn exp(self) -> Self {
        f64::exp(self)
    }

    fn ln(self) -> Self {
        f64::ln(self)
    }

    fn sqrt(self) -> Self {
        f64::sqrt(self)
    }

    fn tanh(self) -> Self {
        f64::tanh(self)
    }
}

/// A value and its derivative along one direction. A `Dual<Dual<f64>>` carries second
/// derivatives.
///
/// ```
/// use consistency::theory::{Dual, Number};
/// let x = Dual { value: 0.3, tangent: 1.0 };
/// let y = (x * x).tanh();                       // d/dx tanh(x^2) = 2x (1 - tanh(x^2)^2)
/// assert!((y.tangent - 0.6 * (1.0 - 0.09f64.tanh().powi(2))).abs() < 1e-15);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dual<T> {
    /// The value.
    pub value: T,
    /// The derivative.
    pub tangent: T,
}

impl<T: Number> Dual<T> {
    // f(self) with f'(self) = slope.
    fn chain(self, value: T, slope: T) -> Self {
        Self { value, tangent: self.tangent * slope }
    }
}

impl<T: Number> Add for Dual<T> {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { value: self.value + other.value, tangent: self.tangent + other.tangent }
    }
}

impl<T: Number> Sub for Dual<T> {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self { value: self.value - other.value, tangent: self.tangent - other.tangent }
    }
}

impl<T: Number> Mul for Dual<T> {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        let tangent = self.tangent * other.value + self.value * other.tangent;
        Self { value: self.value * other.value, tangent }
    }
}

impl<T: Number> Div for Dual<T> {
    type Output = Self;
    fn div(self, other: Self) -> Self {
        let value = self.value / other.value;
        Self { value, tangent: (self.tangent - value * other.tangent) / other.value }
    }
}

impl<T: Number> Neg for Dual<T> {
    type Output = Self;
    fn neg(self) -> Self {
        Self { value: -self.value, tangent: -self.tangent }
    }
}

impl<T: Number> Number for Dual<T> {
    fn constant(value: f64) -> Self {
        Self { value: T::constant(value), tangent: T::constant(0.0) }
    }

    fn exp(self) -> Self {
        let value = self.value.exp();
        self.chain(value, value)
    }

    fn ln(self) -> Self {
        self.chain(self.value.ln(), T::constant(1.0) / self.value)
    }

    fn sqrt(self) -> Self {
        let value = self.value.sqrt();
        self.chain(value, T::constant(0.5) / value)
    }

    fn tanh(self) -> Self {
        let value = self.value.tanh();
        self.chain(value, T::constant(1.0) - value * value)
    }
}
