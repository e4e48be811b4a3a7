//! Eq. 3 of the talk: what its jump at eps adds to the limits of Theorems 3 to 6.

use super::{column, last, masses, message, toy};
use consistency::Result;
use consistency::loss::Metric;
use consistency::process::NoiseRange;
use consistency::theory::{Limit, TanhModel, jump, limit_table, local_slopes, loss_table};

fn piecewise() -> TanhModel {
    toy().piecewise(&NoiseRange::default())
}

#[test]
fn its_cost_is_that_of_the_network_at_eps() -> Result<()> {
    let noise = NoiseRange::default();
    // A network of 0: E[x^2] and E|x| over masses of a width of eps, none nearer to 0 than 50 eps.
    let zero = TanhModel::new([0.0; 3], &noise).piecewise(&noise);
    let square = jump(&masses()?, &zero, Metric::L2Squared, &noise)?;
    let want = (0.36 + 0.01 + 0.49) / 3.0 + noise.eps * noise.eps;
    assert!((square - want).abs() < 1e-12, "{square} and {want}");
    let size = jump(&masses()?, &zero, Metric::L1, &noise)?;
    assert!((size - 1.4 / 3.0).abs() < 1e-9, "{size}");
    // Eq. 4 has none.
    for metric in [Metric::L2Squared, Metric::L1, Metric::PseudoHuber { c: 0.03 }] {
        assert_eq!(jump(&masses()?, &toy(), metric, &noise)?, 0.0);
    }
    Ok(())
}

#[test]
fn the_loss_falls_as_one_power_of_the_grid_in_place_of_two() -> Result<()> {
    let noise = NoiseRange::default();
    let cost = jump(&masses()?, &piecewise(), Metric::L2Squared, &noise)?;
    let points = [65, 257, 1025];
    let intervals: Vec<f64> = points.iter().map(|n| (n - 1) as f64).collect();
    let scaled = |f: &TanhModel| -> Result<Vec<f64>> {
        let grids = points.iter().map(|n| noise.karras(*n)).collect::<Result<Vec<_>>>()?;
        let table = loss_table(&masses()?, f, f, Metric::L2Squared, &grids)?;
        Ok(column(&table, "l_cd")?.iter().zip(&intervals).map(|(l, n)| l * n).collect())
    };
    // (N - 1) L_CD less the jump falls as 1 / (N - 1).
    let jumps = scaled(&piecewise())?;
    let left: Vec<f64> = jumps.iter().map(|l| (l - cost).abs()).collect();
    let slopes = local_slopes(&intervals, &left);
    assert!(slopes[2].is_some_and(|s| (s + 1.0).abs() < 0.1), "{jumps:?}, {cost}, {slopes:?}");
    assert!((last(&jumps)? / cost - 1.0).abs() < 0.05, "{jumps:?} and {cost}");
    // With eq. 4 nothing is left of (N - 1) L_CD.
    assert!(last(&scaled(&toy())?)? < 0.01 * cost);
    Ok(())
}

#[test]
fn the_other_limits_have_it_on_top() -> Result<()> {
    let (noise, data) = (NoiseRange::default(), masses()?);
    let rows = [
        (Limit::Theorem4, Metric::L1),
        (Limit::Theorem5 { i: 1 }, Metric::L2Squared),
        (Limit::Theorem6 { i: 1 }, Metric::L2Squared),
    ];
    for (limit, metric) in rows {
        let table = limit_table(limit, &data, &piecewise(), metric, &noise, &[257, 513, 1025])?;
        let (values, goal) = (column(&table, "value")?, column(&table, "limit")?[0]);
        let slope = last(&column(&table, "local_slope")?)?;
        assert!((slope + 1.0).abs() < 0.1, "{limit:?}: {values:?} to {goal}, slope {slope}");
    }
    // Without it, the limit of Theorem 4 would be missed by nearly the whole jump.
    let table = limit_table(Limit::Theorem4, &data, &piecewise(), Metric::L1, &noise, &[513])?;
    let (value, goal) = (column(&table, "value")?[0], column(&table, "limit")?[0]);
    let cost = jump(&data, &piecewise(), Metric::L1, &noise)?;
    assert!((value - goal).abs() < 0.1 * (value - (goal - cost)).abs(), "{value}, {goal}, {cost}");
    Ok(())
}

#[test]
fn theorem_3_says_that_it_has_no_limit() -> Result<()> {
    let (noise, data) = (NoiseRange::default(), masses()?);
    let refused =
        limit_table(Limit::Theorem3, &data, &piecewise(), Metric::L2Squared, &noise, &[9]);
    let said = message(refused);
    assert!(said.contains("f jumps at eps = 0.002") && said.contains("N - 1 times"), "{said}");
    Ok(())
}
