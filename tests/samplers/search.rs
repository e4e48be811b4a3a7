//! The ternary search for time points.

use super::{karras, message};
use consistency::Result;
use consistency::process::TimeGrid;
use consistency::sample::ternary_search;

/// The place of the last level, counted from T.
fn place(grid: &TimeGrid, taus: &[f64]) -> usize {
    grid.times().iter().rev().position(|t| taus.last() == Some(t)).unwrap_or(0)
}

#[test]
fn the_search_finds_every_minimum_and_asks_each_time() -> Result<()> {
    for points in 3..60 {
        let grid = karras(points)?;
        for lowest in 1..points - 1 {
            // Falls and rises, unevenly.
            let value = |place: usize| {
                let off = place as f64 - lowest as f64;
                if off < 0.0 { -3.0 * off } else { off * off }
            };
            let mut asked = Vec::new();
            let found = ternary_search(&grid, 1, |taus| {
                let place = place(&grid, taus);
                asked.push(place);
                Ok(value(place))
            })?;
            assert_eq!(found.places, [lowest], "of {points}");
            assert_eq!((found.value, found.taus[0]), (0.0, grid.times()[points - 1 - lowest]));
            assert_eq!(found.evaluations, asked.len(), "a value that was not asked for");
            assert!(asked.iter().all(|p| (1..points - 1).contains(p)), "an end of the grid");
            let rounds = (points as f64).ln() / 1.5f64.ln();
            assert!(asked.len() as f64 <= 2.0 * rounds + 3.0, "{} of {points}", asked.len());
        }
    }
    Ok(())
}

#[test]
fn the_search_believes_the_newest_values() -> Result<()> {
    // The lowest point moves from place 5 to place 15 after the first round: only what is asked
    // anew can see it.
    let grid = karras(22)?;
    let mut calls = 0;
    let found = ternary_search(&grid, 1, |taus| {
        calls += 1;
        let place = place(&grid, taus) as f64;
        Ok((place - if calls <= 2 { 20.0 } else { 15.0 }).abs())
    })?;
    assert_eq!((found.places, found.value), (vec![15], 0.0));
    Ok(())
}

#[test]
fn the_search_finds_the_published_point() -> Result<()> {
    // FID over the place of the second step, CIFAR-10 by CD, N = 18, as the authors publish it;
    // straight lines between and beyond their points.
    let known = [
        (1, 4.9),
        (5, 3.649),
        (9, 3.319),
        (10, 3.051),
        (11, 2.928),
        (12, 3.049),
        (13, 3.277),
        (14, 3.460),
        (17, 4.2),
    ];
    let grid = karras(18)?;
    let found = ternary_search(&grid, 1, |taus| {
        let place = place(&grid, taus);
        let after = known.iter().position(|(p, _)| *p >= place).unwrap_or(0).max(1);
        let ((a, low), (b, high)) = (known[after - 1], known[after]);
        Ok(low + (high - low) * (place - a) as f64 / (b - a) as f64)
    })?;
    assert_eq!((found.places, found.value), (vec![11], 2.928));
    assert!((found.taus[0] - 0.5853).abs() < 1e-4, "{}", found.taus[0]);
    Ok(())
}

#[test]
fn the_search_is_greedy_and_its_points_decrease() -> Result<()> {
    let grid = karras(40)?;
    let wanted = [2.0f64, 1.9, 0.1];
    let mut held = Vec::new();
    let found = ternary_search(&grid, 3, |taus| {
        held.push(taus.to_vec());
        Ok(taus.iter().zip(wanted).map(|(tau, want)| (tau.ln() - want.ln()).abs()).sum())
    })?;
    assert!(found.taus.windows(2).all(|w| w[1] < w[0]), "{:?}", found.taus);
    for asked in &held {
        assert_eq!(asked[..asked.len() - 1], found.taus[..asked.len() - 1], "not greedy");
    }
    // The second would be nearer to 1.9 where the first is.
    assert_eq!(found.places[1], found.places[0] + 1);
    // As many as there are points between the ends, and no more.
    let all = ternary_search(&karras(5)?, 3, |taus| Ok(-taus[taus.len() - 1]))?;
    assert_eq!(all.places, [1, 2, 3]);
    for count in [0, 4] {
        let refused = ternary_search(&karras(5)?, count, |_| Ok(0.0));
        let message = message(refused);
        assert!(message.contains("needs 1 to 3"), "{message}");
    }
    let refused = ternary_search(&grid, 1, |_| Ok(f64::NAN));
    let message = message(refused);
    assert!(message.contains("the objective is NaN"), "{message}");
    Ok(())
}
