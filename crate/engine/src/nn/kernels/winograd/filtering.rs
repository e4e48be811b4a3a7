//! The minimal filterings and their transforms.

use super::super::Real;
use super::super::simd::Vector;

/// A minimal filtering: its transforms along one direction. They are functions that are always
/// inlined, and not closures, because a closure does not take its caller's instruction set.
/// Arrays have room for the largest; what lies beyond `SIDE` or `OUT` is not used.
pub(crate) trait Filtering: Copy + Send + Sync + 'static {
    /// The output's tile is OUT x OUT.
    const OUT: usize;
    /// The input's tile is SIDE x SIDE.
    const SIDE: usize;

    /// B'
    unsafe fn input<T: Real, V: Vector<T>>(d: [V; 6]) -> [V; 6];
    /// G
    unsafe fn filter<T: Real, V: Vector<T>>(g: [V; 3]) -> [V; 6];
    /// A'
    unsafe fn output<T: Real, V: Vector<T>>(m: [V; 6]) -> [V; 4];
    /// A
    unsafe fn gradient<T: Real, V: Vector<T>>(d: [V; 4]) -> [V; 6];
    /// G'
    unsafe fn weight<T: Real, V: Vector<T>>(s: [V; 6]) -> [V; 3];
}

/// F(2x2, 3x3), at the points 0, 1, -1.
#[derive(Clone, Copy)]
pub(crate) struct Two;

impl Filtering for Two {
    const OUT: usize = 2;
    const SIDE: usize = 4;

    #[inline(always)]
    unsafe fn input<T: Real, V: Vector<T>>(d: [V; 6]) -> [V; 6] {
        unsafe { [d[0].sub(d[2]), d[1].add(d[2]), d[2].sub(d[1]), d[1].sub(d[3]), d[0], d[0]] }
    }

    #[inline(always)]
    unsafe fn filter<T: Real, V: Vector<T>>(g: [V; 3]) -> [V; 6] {
        unsafe {
            let half = V::splat(T::from_f64(0.5));
            let ends = g[0].add(g[2]);
            [g[0], ends.add(g[1]).mul(half), ends.sub(g[1]).mul(half), g[2], g[0], g[0]]
        }
    }

    #[inline(always)]
    unsafe fn output<T: Real, V: Vector<T>>(m: [V; 6]) -> [V; 4] {
        unsafe { [m[0].add(m[1]).add(m[2]), m[1].sub(m[2]).sub(m[3]), m[0], m[0]] }
    }

    #[inline(always)]
    unsafe fn gradient<T: Real, V: Vector<T>>(d: [V; 4]) -> [V; 6] {
        unsafe {
            let minus = V::splat(T::zero()).sub(d[1]);
            [d[0], d[0].add(d[1]), d[0].sub(d[1]), minus, d[0], d[0]]
        }
    }

    #[inline(always)]
    unsafe fn weight<T: Real, V: Vector<T>>(s: [V; 6]) -> [V; 3] {
        unsafe {
            let half = V::splat(T::from_f64(0.5));
            let sum = s[1].add(s[2]).mul(half);
            [s[0].add(sum), s[1].sub(s[2]).mul(half), sum.add(s[3])]
        }
    }
}

/// F(4x4, 3x3), at the points 0, 1, -1, 2, -2.
#[derive(Clone, Copy)]
pub(crate) struct Four;

impl Filtering for Four {
    const OUT: usize = 4;
    const SIDE: usize = 6;

    #[inline(always)]
    unsafe fn input<T: Real, V: Vector<T>>(d: [V; 6]) -> [V; 6] {
        unsafe {
            let (two, four) = (V::splat(T::from_f64(2.0)), V::splat(T::from_f64(-4.0)));
            let five = V::splat(T::from_f64(-5.0));
            let (even, odd) = (d[2].mul_add(four, d[4]), d[1].mul_add(four, d[3]));
            let (near, far) = (d[4].sub(d[2]), d[3].sub(d[1]).mul(two));
            [
                V::splat(T::from_f64(4.0)).mul_add(d[0], d[2].mul_add(five, d[4])),
                even.add(odd),
                even.sub(odd),
                near.add(far),
                near.sub(far),
                V::splat(T::from_f64(4.0)).mul_add(d[1], d[3].mul_add(five, d[5])),
            ]
        }
    }

    #[inline(always)]
    unsafe fn filter<T: Real, V: Vector<T>>(g: [V; 3]) -> [V; 6] {
        unsafe {
            let sixth = V::splat(T::from_f64(-1.0 / 6.0));
            let quarter = V::splat(T::from_f64(0.25));
            let ends = g[0].add(g[2]).mul(sixth);
            let middle = g[1].mul(sixth);
            // g0 / 24 + g2 / 6 and g1 / 12
            let far = g[0].mul(quarter).add(g[2]).mul(V::splat(T::from_f64(1.0 / 6.0)));
            let half = g[1].mul(V::splat(T::from_f64(1.0 / 12.0)));
            [
                g[0].mul(quarter),
                ends.add(middle),
                ends.sub(middle),
                far.add(half),
                far.sub(half),
                g[2],
            ]
        }
    }

    #[inline(always)]
    unsafe fn output<T: Real, V: Vector<T>>(m: [V; 6]) -> [V; 4] {
        unsafe {
            let (near, far) = (m[1].add(m[2]), m[3].add(m[4]));
            let (turn, twist) = (m[1].sub(m[2]), m[3].sub(m[4]));
            let (two, four) = (V::splat(T::from_f64(2.0)), V::splat(T::from_f64(4.0)));
            let eight = V::splat(T::from_f64(8.0));
            [
                m[0].add(near).add(far),
                two.mul_add(twist, turn),
                four.mul_add(far, near),
                eight.mul_add(twist, turn).add(m[5]),
            ]
        }
    }

    #[inline(always)]
    unsafe fn gradient<T: Real, V: Vector<T>>(d: [V; 4]) -> [V; 6] {
        unsafe {
            let (even, odd) = (d[0].add(d[2]), d[1].add(d[3]));
            let (two, four) = (V::splat(T::from_f64(2.0)), V::splat(T::from_f64(4.0)));
            let (far, twist) = (d[2].mul_add(four, d[0]), d[3].mul_add(four, d[1]).mul(two));
            [d[0], even.add(odd), even.sub(odd), far.add(twist), far.sub(twist), d[3]]
        }
    }

    #[inline(always)]
    unsafe fn weight<T: Real, V: Vector<T>>(s: [V; 6]) -> [V; 3] {
        unsafe {
            let quarter = V::splat(T::from_f64(0.25));
            let sixth = V::splat(T::from_f64(1.0 / 6.0));
            let twelfth = V::splat(T::from_f64(1.0 / 12.0));
            let near = s[1].add(s[2]).mul(sixth);
            let far = s[3].add(s[4]).mul(sixth);
            let turn = s[2].sub(s[1]).mul(sixth);
            [
                s[0].mul(quarter).sub(near).add(far.mul(quarter)),
                s[3].sub(s[4]).mul_add(twelfth, turn),
                far.sub(near).add(s[5]),
            ]
        }
    }
}
