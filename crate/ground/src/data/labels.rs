//! The labels of Parquet files as class numbers.

use super::catalog::{Classes, Entry};
use super::columns::Kind;
use super::parquet::{Label, Table};
use crate::{Result, bail, ensure};
use std::collections::{BTreeSet, HashMap};

/// The labels of a split, row by row.
pub(super) struct Labels {
    column: String,
    /// The numbers of the classes that have names.
    names: HashMap<String, u32>,
    /// The classes that the column itself names.
    classes: Vec<String>,
    numbers: Vec<u32>,
    /// Where the first row without a label is.
    missing: Option<String>,
}

impl Labels {
    /// For the column of labels that `entry` names, in these files.
    ///
    /// # Errors
    /// Files that differ in it; text whose numbers would depend on the split.
    pub fn new(entry: &Entry, tables: &[Table]) -> Result<Self> {
        let column = entry.label.clone().unwrap_or_default();
        let mut labels = Self {
            column,
            names: HashMap::new(),
            classes: Vec::new(),
            numbers: Vec::new(),
            missing: None,
        };
        let Some(column) = &entry.label else { return Ok(labels) };
        let mut kinds = Vec::new();
        for table in tables {
            let kind = table.column(column)?.kind;
            let same =
                |other: &Kind| std::mem::discriminant(other) == std::mem::discriminant(&kind);
            ensure!(
                kinds.iter().all(same),
                "{}: the column {column} has another type than in the files before it",
                table.path().display()
            );
            kinds.push(kind);
        }
        labels.classes = match (kinds.first(), &entry.classes) {
            (Some(Kind::Text(_)), Classes::Count(_)) => {
                let mut names = BTreeSet::new();
                for table in tables {
                    names.append(&mut table.names(&table.column(column)?)?);
                }
                labels.refuse_several_splits(entry, &names)?;
                names.into_iter().collect()
            }
            (Some(Kind::Text(_)), Classes::Named(names)) => names.clone(),
            (Some(Kind::Truth(_)), Classes::Count(_)) => {
                ["false", "true"].map(str::to_string).to_vec()
            }
            // For numbers the entry knows the names, so they need not be kept.
            _ => Vec::new(),
        };
        let numbered = labels.classes.iter().cloned().zip(0..);
        labels.names = numbered.collect();
        Ok(labels)
    }

    // Names sorted in one split alone would get other numbers in another.
    fn refuse_several_splits(&self, entry: &Entry, names: &BTreeSet<String>) -> Result<()> {
        if entry.splits.len() < 2 {
            return Ok(());
        }
        let shown: Vec<String> = names.iter().take(20).map(|name| format!("{name:?}")).collect();
        let more = if names.len() > 20 { ", .." } else { "" };
        bail!(
            "{}: the column {} holds text, and a class must have one number in all {} splits: name \
             the classes in the entry, classes = [{}{more}] and what the other splits have",
            entry.name,
            self.column,
            entry.splits.len(),
            shown.join(", ")
        )
    }

    /// The label of the next row, which is `at`.
    ///
    /// # Errors
    /// A name that is not one of the classes.
    pub fn add(&mut self, label: Label<'_>, at: impl FnOnce() -> String) -> Result<()> {
        let number = match label {
            Label::Number(number) => number,
            Label::Missing => {
                self.missing.get_or_insert_with(at);
                return Ok(());
            }
            Label::Text(name) => match self.names.get(name) {
                Some(number) => *number,
                None => bail!(
                    "{}: the label {name:?} in the column {} is not among the {} classes",
                    at(),
                    self.column,
                    self.classes.len()
                ),
            },
        };
        self.numbers.push(number);
        Ok(())
    }

    /// The labels, one per row or none at all, and the names of the classes if the column gives
    /// them.
    ///
    /// # Errors
    /// Rows without a label next to others with one.
    pub fn end(self) -> Result<(Vec<u32>, Vec<String>)> {
        match self.missing {
            _ if self.numbers.is_empty() => Ok((Vec::new(), Vec::new())),
            None => Ok((self.numbers, self.classes)),
            Some(at) => bail!(
                "{at}: no label (null or -1) in the column {}, and other rows have one: leave \
                 out the rows without, or take another column",
                self.column
            ),
        }
    }
}
