//! A reproduction's file with some of its values replaced.

use toml::{Table, Value};

/// Put the values of `other` into `table`; tables are merged. A new table that has a `kind`, such
/// as a distance or a network, replaces the old one as a whole.
pub(super) fn overlay(table: &mut Table, other: &Table) {
    for (key, value) in other {
        match (table.get_mut(key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => match new.contains_key("kind") {
                true => *old = new.clone(),
                false => overlay(old, new),
            },
            _ => {
                table.insert(key.clone(), value.clone());
            }
        }
    }
}

/// The values of `other` that are not those of `table`, by their path: (path, the old value
/// where there is one, the new one).
pub(super) fn changes(table: &Table, other: &Table) -> Vec<(String, Option<Value>, Value)> {
    let mut all = Vec::new();
    for (key, value) in other {
        let old = table.get(key);
        match (old, value) {
            (Some(Value::Table(old)), Value::Table(new)) => {
                let below = changes(old, new).into_iter();
                all.extend(below.map(|(path, old, new)| (format!("{key}.{path}"), old, new)));
            }
            _ if old == Some(value) => {}
            _ => all.push((key.clone(), old.cloned(), value.clone())),
        }
    }
    all
}

/// A value as a number, where it is one.
pub(super) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(value) => Some(*value as f64),
        Value::Float(value) => Some(*value),
        _ => None,
    }
}
