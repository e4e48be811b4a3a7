//! The numbers that a notebook reproduces, for the table of `cargo lab`.

use super::macros::println;
use crate::record::commit;
use std::fmt::Display;
use std::io::Write;
use std::sync::OnceLock;

/// Report a reproduced number beside its reference: printed here, and a row of the table
/// that `cargo lab` prints at the end.
///
/// # Panics
/// Where `cargo lab` asked for the row and its file cannot be written: the cell fails.
pub fn reproduced(what: &str, value: f64, reference: impl Display) {
    let shown = short(value);
    println!("{what}: {shown} (reference: {reference})");
    let Some(path) = std::env::var_os("LAB_RESULTS").filter(|path| !path.is_empty()) else {
        return;
    };
    // Every result of a notebook comes from the one library that its kernel has.
    static COMMIT: OnceLock<String> = OnceLock::new();
    let row = serde_json::json!({
        "what": what,
        "value": shown,
        "reference": reference.to_string(),
        "number": value,
        "commit": COMMIT.get_or_init(commit),
    });
    let written = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .and_then(|mut file| file.write_all(format!("{row}\n").as_bytes()));
    if let Err(error) = written {
        panic!("the result '{what}' could not be written to {}: {error}", path.display());
    }
}

// Four digits, or an exponent where they would not show.
fn short(value: f64) -> String {
    if value != 0.0 && value.is_finite() && !(1e-3..1e5).contains(&value.abs()) {
        return format!("{value:.3e}");
    }
    let digits = 3 - value.abs().max(1.0).log10().floor() as i32;
    format!("{value:.*}", digits.max(0) as usize)
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn numbers_are_short() {
        assert_eq!(short(0.541_234), "0.541");
        assert_eq!(short(80.0), "80.00");
        assert_eq!(short(1347.0), "1347");
        assert_eq!(short(3.3e-7), "3.300e-7");
        assert_eq!(short(0.0), "0.000");
    }
}
