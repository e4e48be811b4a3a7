//! Checks for claims and for exercises: they say what they found, and fail loudly.

use super::macros::println;
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
