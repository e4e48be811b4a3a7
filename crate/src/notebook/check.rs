//! Checks for claims and for exercises: they say what they found, and fail loudly.

use super::macros::println;
use super::values::values;
use crate::Result;
use crate::nn::Params;
use candle_core::Tensor;
use std::collections::BTreeSet;
use std::fmt::Display;

/// Check that `got` is within `tolerance` of `want`.
///
/// # Panics
/// Where it is not: the cell fails.
#[track_caller]
pub fn close(what: &str, got: f64, want: f64, tolerance: f64) {
    let difference = (got - want).abs();
    assert!(
        difference <= tolerance,
        "check failed: {what} is {got}, the reference {want} (difference {difference:.3e}, \
         allowed {tolerance:.1e})"
    );
    println!("ok: {what} = {got:.6} (reference {want:.6}, difference {difference:.1e})");
}

/// Check that `low <= got <= high`.
///
/// # Panics
/// Where it does not: the cell fails.
#[track_caller]
pub fn between(what: &str, got: f64, low: f64, high: f64) {
    assert!(
        (low..=high).contains(&got),
        "check failed: {what} is {got}, expected between {low} and {high}"
    );
    println!("ok: {what} = {got:.4} (expected {low:.4} to {high:.4})");
}

/// Check that something holds.
///
/// # Panics
/// Where it does not: the cell fails.
#[track_caller]
pub fn holds(what: &str, condition: bool) {
    assert!(condition, "check failed: {what}");
    println!("ok: {what}");
}

/// Check that two networks have the same parameters to the last bit.
///
/// # Panics
/// A parameter that only one has or that differs, by name: the cell fails.
#[track_caller]
pub fn to_the_bit(what: &str, got: &Params, want: &Params) {
    if let Some(difference) = difference(got, want) {
        panic!("check failed: {what}: {difference}");
    }
    println!("ok: {what}: {} numbers, the same to the bit", got.count());
}

// The first parameter in which they differ.
fn difference(got: &Params, want: &Params) -> Option<String> {
    let (got, want) = (got.tensors(), want.tensors());
    let names: BTreeSet<&String> = got.keys().chain(want.keys()).collect();
    names.into_iter().find_map(|name| {
        let (Some(own), Some(other)) = (got.get(name), want.get(name)) else {
            return Some(format!("only one of them has {name}"));
        };
        if own.dims() != other.dims() {
            return Some(format!("{name} is {:?} and {:?}", own.dims(), other.dims()));
        }
        let (own, other) = match (bits(own), bits(other)) {
            (Ok(own), Ok(other)) => (own, other),
            (Err(error), _) | (_, Err(error)) => return Some(format!("{name}: {error}")),
        };
        let count = own.iter().zip(&other).filter(|(a, b)| a != b).count();
        (count > 0).then(|| format!("{count} of {} numbers of {name} differ", own.len()))
    })
}

fn bits(x: &Tensor) -> Result<Vec<u64>> {
    Ok(values(x)?.into_iter().map(f64::to_bits).collect())
}

/// Check the answer to an exercise, which is `None` until there is one.
///
/// # Panics
/// Where there is an answer further than `tolerance` from `want`: the cell fails, and
/// the message gives `hint`, not the solution.
#[track_caller]
pub fn exercise(what: &str, answer: Option<f64>, want: f64, tolerance: f64, hint: impl Display) {
    match answer {
        None => println!("open: {what}. Put your answer in place of None and run the cell."),
        Some(answer) => {
            assert!((answer - want).abs() <= tolerance, "not yet: {what} is not {answer}. {hint}");
            println!("correct: {what} = {answer}");
        }
    }
}
