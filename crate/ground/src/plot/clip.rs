//! Cutting lines at the edges of what is shown.

type Point = (f64, f64);

/// The parts of a polyline within the rectangle from `low` to `high`.
pub(super) fn clip(line: &[Point], low: Point, high: Point) -> Vec<Vec<Point>> {
    let mut parts: Vec<Vec<Point>> = Vec::new();
    for pair in line.windows(2) {
        let Some((from, to)) = segment(pair[0], pair[1], low, high) else { continue };
        match parts.last_mut() {
            // A segment that begins where the last one ended continues it.
            Some(part) if part.last() == Some(&from) => part.push(to),
            _ => parts.push(vec![from, to]),
        }
    }
    parts
}

// The part of one segment inside (Liang and Barsky 1984).
fn segment(a: Point, b: Point, low: Point, high: Point) -> Option<(Point, Point)> {
    let (dx, dy) = (b.0 - a.0, b.1 - a.1);
    let (mut first, mut last) = (0.0f64, 1.0f64);
    for (step, room) in
        [(-dx, a.0 - low.0), (dx, high.0 - a.0), (-dy, a.1 - low.1), (dy, high.1 - a.1)]
    {
        if step == 0.0 {
            if room < 0.0 {
                return None;
            }
        } else if step < 0.0 {
            first = first.max(room / step);
        } else {
            last = last.min(room / step);
        }
    }
    let at = |u: f64| {
        // The ends themselves, to the bit, so that segments join.
        if u == 0.0 {
            a
        } else if u == 1.0 {
            b
        } else {
            (a.0 + u * dx, a.1 + u * dy)
        }
    };
    (first <= last).then(|| (at(first), at(last)))
}

/// Whether a point lies within the rectangle.
pub(super) fn inside(point: Point, low: Point, high: Point) -> bool {
    (low.0..=high.0).contains(&point.0) && (low.1..=high.1).contains(&point.1)
}

#[cfg(test)]
mod tests {
    use super::clip;

    #[test]
    fn lines_end_at_the_edge() {
        let line = [(-1.0, 0.5), (0.5, 0.5), (0.5, 3.0), (2.0, 3.0), (0.5, 0.0)];
        let parts = clip(&line, (0.0, 0.0), (1.0, 1.0));
        assert_eq!(parts[0], [(0.0, 0.5), (0.5, 0.5), (0.5, 1.0)]);
        assert_eq!(parts[1], [(1.0, 1.0), (0.5, 0.0)]);
    }
}
