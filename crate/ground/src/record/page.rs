//! What a report and a model card are made of, before they are Markdown or HTML. In texts, what
//! is in backticks is code.

pub use super::markdown::markdown;

/// One part of a page.
#[derive(Clone, Debug)]
pub enum Block {
    /// A heading of level 2 or 3.
    Heading(u8, String),
    /// A paragraph.
    Text(String),
    /// Code, in this language.
    Code(&'static str, String),
    /// A table.
    Table(Table),
    /// Pictures side by side.
    Pictures(Vec<Picture>),
}

/// A PNG.
#[derive(Clone, Debug)]
pub struct Picture {
    /// What it shows.
    pub caption: String,
    /// Its file, from the report's folder.
    pub file: String,
    /// The file's bytes.
    pub png: Vec<u8>,
    /// Whether its pixels are shown sharp: for samples, not for drawings.
    pub pixels: bool,
}

/// A table.
#[derive(Clone, Debug)]
pub struct Table {
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its rows, one cell per column.
    pub rows: Vec<Vec<Cell>>,
}

/// A column.
#[derive(Clone, Debug)]
pub struct Column {
    /// The source of its numbers, where a table has several.
    pub source: &'static str,
    /// Its heading.
    pub name: String,
}

/// A cell.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Words.
    Text(String),
    /// A number with its interval.
    Number(String),
    /// A number that was published.
    Published(String),
    /// Where a number comes from.
    Origin(String),
    /// Commands, each on a line of its own.
    Commands(Vec<String>),
    /// What was not measured, or is not measured here.
    Missing(String),
}

impl Cell {
    /// Nothing.
    pub fn empty() -> Self {
        Self::Text(String::new())
    }
}

/// Columns of one source.
pub fn columns<S: AsRef<str>>(source: &'static str, names: &[S]) -> Vec<Column> {
    names.iter().map(|name| Column { source, name: name.as_ref().to_string() }).collect()
}
