//! Names with a star, which stands for anything within one folder.

/// Whether `name` matches `pattern`.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    // Part by part: what is before the first star, what lies between, what comes after the last.
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        if rest[..at].contains('/') {
            return false;
        }
        rest = &rest[at + part.len()..];
    }
    rest.strip_suffix(last).is_some_and(|star| !star.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_stays_in_its_folder() {
        assert!(matches("data/train-*.parquet", "data/train-00000-of-00009-5bee.parquet"));
        assert!(matches("a*b*c", "a1b2c") && matches("plain", "plain") && matches("*", "file"));
        assert!(!matches("data/train-*.parquet", "data/train-1/x.parquet"));
        assert!(
            !matches("data/train-*.parquet", "data/test-1.parquet") && !matches("plain", "plainer")
        );
        assert!(!matches("a*bc", "abcd") && !matches("*.png", "x/y.png"));
    }
}
