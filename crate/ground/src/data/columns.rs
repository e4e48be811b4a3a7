//! Which columns of a Parquet file are used.

use crate::{Result, bail, ensure};
use polars_arrow::datatypes::{ArrowDataType, Field};
use polars_parquet::parquet::schema::Repetition;
use polars_parquet::read::schema::parquet_to_arrow_schema;
use polars_parquet::read::{ParquetType, PrimitiveLogicalType};

/// A column with one of these names is taken for the images if other columns hold images too.
const IMAGES: [&str; 2] = ["image", "img"];
/// And a column with one of these names for the labels.
const LABELS: [&str; 2] = ["label", "labels"];
/// A column whose name is one of these, or ends in one, could hold labels.
const LIKE_LABELS: [&str; 4] = ["label", "labels", "class", "target"];

/// What a column holds, as far as a dataset can use it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// Bytes, or a struct with the field `bytes`: its field to decode, with `bytes` alone.
    Images(Field),
    /// A struct whose field `bytes` has no type, because it is null in every row.
    NoImages,
    /// Integers.
    Numbers(Field),
    /// True or false.
    Truth(Field),
    /// Text, also in a dictionary.
    Text(Field),
    /// No type, because it is null in every row.
    Null,
    /// Something else, by its name.
    Other(String),
}

/// A column of a file.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub name: String,
    pub kind: Kind,
}

/// The columns that are taken.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Columns {
    pub image: String,
    pub label: Option<String>,
}

impl Column {
    /// A column from the file's own schema. Arrow's schema is not read, since it has types that
    /// only Arrow knows.
    pub fn new(field: &ParquetType) -> Self {
        let name = field.name().to_string();
        let info = field.get_field_info();
        let nullable = info.repetition == Repetition::Optional;
        let kind = match field {
            _ if info.repetition == Repetition::Repeated => Kind::Other("lists".to_string()),
            ParquetType::PrimitiveType(_) => primitive(field, nullable),
            ParquetType::GroupType { fields, logical_type: None, converted_type: None, .. } => {
                structure(&name, fields, nullable)
            }
            ParquetType::GroupType { .. } => Kind::Other("lists".to_string()),
        };
        Self { name, kind }
    }

    fn holds_images(&self) -> bool {
        matches!(self.kind, Kind::Images(_) | Kind::NoImages)
    }

    /// Whether it can be taken for the labels.
    fn holds_labels(&self) -> bool {
        matches!(self.kind, Kind::Numbers(_) | Kind::Truth(_) | Kind::Text(_))
    }

    fn is_like_labels(&self) -> bool {
        let name = self.name.to_lowercase();
        let ends = |like: &&str| {
            name.strip_suffix(*like)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with(['_', '-', ' ', '.']))
        };
        LIKE_LABELS.iter().any(ends)
    }

    /// What it holds, for a message.
    fn says(&self) -> &str {
        match &self.kind {
            Kind::Images(_) | Kind::NoImages => "bytes",
            Kind::Numbers(_) => "integers",
            Kind::Truth(_) => "true and false",
            Kind::Text(_) => "text",
            Kind::Null => "nothing but nulls",
            Kind::Other(name) => name,
        }
    }
}

fn primitive(field: &ParquetType, nullable: bool) -> Kind {
    let ParquetType::PrimitiveType(primitive) = field else {
        return Kind::Other("a group".to_string());
    };
    if primitive.logical_type == Some(PrimitiveLogicalType::Unknown) {
        return Kind::Null;
    }
    let schema = parquet_to_arrow_schema(std::slice::from_ref(field));
    let Some(found) = schema.iter_values().next() else {
        return Kind::Other("nothing".to_string());
    };
    let plain = primitive.logical_type.is_none() && primitive.converted_type.is_none();
    let of = Field::new(found.name.clone(), found.dtype.clone(), nullable);
    match &found.dtype {
        ArrowDataType::BinaryView if plain => Kind::Images(of),
        ArrowDataType::Utf8View => Kind::Text(of),
        ArrowDataType::Boolean => Kind::Truth(of),
        ArrowDataType::Int8
        | ArrowDataType::Int16
        | ArrowDataType::Int32
        | ArrowDataType::Int64
        | ArrowDataType::UInt8
        | ArrowDataType::UInt16
        | ArrowDataType::UInt32
        | ArrowDataType::UInt64 => Kind::Numbers(of),
        other => Kind::Other(format!("{other:?}")),
    }
}

fn structure(name: &str, fields: &[ParquetType], nullable: bool) -> Kind {
    let bytes = fields.iter().find(|field| field.name() == "bytes").map(Column::new);
    match bytes.map(|column| column.kind) {
        // Each field of a struct is stored by itself: `bytes` is read without the others.
        Some(Kind::Images(bytes)) if matches!(bytes.dtype, ArrowDataType::BinaryView) => {
            Kind::Images(Field::new(name.into(), ArrowDataType::Struct(vec![bytes]), nullable))
        }
        Some(Kind::Null) => Kind::NoImages,
        _ => Kind::Other("a struct".to_string()),
    }
}

/// The columns that are used from a file that has `all`, and notes on that choice, one line each.
/// `image` and `label` name columns to use in place of the rules:
///
/// - images: the only column that holds bytes, or a struct with the field `bytes`; of several,
///   the one called `image` or `img`;
/// - labels: `label`, or else `labels`, or else the only column whose name ends in that word (or
///   in `class` or `target`), if it holds integers, text, or true and false.
///
/// # Errors
/// No column of images; several, and no rule to choose one; or a column that cannot be used.
pub(super) fn choose(
    all: &[Column],
    image: Option<&str>,
    label: Option<&str>,
) -> Result<(Columns, Vec<String>)> {
    let mut notes = Vec::new();
    let image = choose_image(all, image, &mut notes)?;
    let label = choose_label(all, label, &mut notes)?;
    let taken = |name: &String| *name == image || Some(name) == label.as_ref();
    let others: Vec<&str> =
        all.iter().map(|c| &c.name).filter(|name| !taken(name)).map(String::as_str).collect();
    if !others.is_empty() {
        notes.push(format!("columns that are not read: {}", others.join(", ")));
    }
    Ok((Columns { image, label }, notes))
}

/// The column `name`.
///
/// # Errors
/// No such column, or two.
pub(super) fn find<'a>(all: &'a [Column], name: &str) -> Result<&'a Column> {
    let mut found = all.iter().filter(|column| column.name == name);
    let Some(column) = found.next() else {
        bail!("there is no column {name}; there are {}", names(all));
    };
    ensure!(found.next().is_none(), "two columns are called {name}");
    Ok(column)
}

fn names<'a>(columns: impl IntoIterator<Item = &'a Column>) -> String {
    let names: Vec<&str> = columns.into_iter().map(|column| column.name.as_str()).collect();
    names.join(", ")
}

fn choose_image(all: &[Column], named: Option<&str>, notes: &mut Vec<String>) -> Result<String> {
    if let Some(name) = named {
        let column = find(all, name)?;
        ensure!(
            column.holds_images(),
            "the column {name} holds {}, not images (bytes, or a struct with the field bytes)",
            column.says()
        );
        notes.push(format!("images: the column {name}, as asked"));
        return Ok(column.name.clone());
    }
    let candidates: Vec<&Column> = all.iter().filter(|column| column.holds_images()).collect();
    let meant: Vec<&&Column> =
        candidates.iter().filter(|column| IMAGES.contains(&column.name.as_str())).collect();
    let (column, of) = match (candidates.as_slice(), meant.as_slice()) {
        ([], _) => bail!(
            "it has the columns {}: none holds images (bytes, or a struct with the field bytes)",
            names(all)
        ),
        ([only], _) => (*only, String::new()),
        (several, [one]) => {
            let others = several.iter().filter(|column| column.name != one.name).copied();
            let others = names(others);
            let how = "another by --image COLUMN, or image = \"COLUMN\" in an experiment";
            (**one, format!(", and not {others}, which could hold images too ({how})"))
        }
        (several, _) => bail!(
            "several columns could hold images: {}; name the one to take: --image COLUMN, or \
             image = \"COLUMN\" in an experiment",
            names(several.iter().copied())
        ),
    };
    notes.push(format!("images: the column {}{of}", column.name));
    Ok(column.name.clone())
}

fn choose_label(
    all: &[Column],
    named: Option<&str>,
    notes: &mut Vec<String>,
) -> Result<Option<String>> {
    const HOW: &str = "--label COLUMN, or label = \"COLUMN\" in an experiment";
    if let Some(name) = named {
        let column = find(all, name)?;
        ensure!(
            column.holds_labels(),
            "the column {name} holds {}: labels are integers, text, or true and false",
            column.says()
        );
        notes.push(format!("classes: the column {name} ({}), as asked", column.says()));
        return Ok(Some(column.name.clone()));
    }
    let like: Vec<&Column> = all.iter().filter(|column| column.is_like_labels()).collect();
    let fit: Vec<&Column> = like.iter().filter(|column| column.holds_labels()).copied().collect();
    let by_name = LABELS.iter().find_map(|name| fit.iter().find(|column| column.name == *name));
    let (column, of) = match (by_name, fit.as_slice()) {
        (Some(column), several) => {
            let others: Vec<&Column> =
                several.iter().filter(|other| other.name != column.name).copied().collect();
            let of = match others.is_empty() {
                true => String::new(),
                false => format!(", and not {} (another by {HOW})", names(others)),
            };
            (*column, of)
        }
        (None, [only]) => (*only, String::new()),
        (None, []) => {
            let unfit: Vec<String> =
                like.iter().map(|c| format!("{} holds {}", c.name, c.says())).collect();
            let why = match unfit.is_empty() {
                true => "no column is called label".to_string(),
                false => unfit.join(", "),
            };
            notes.push(format!("no classes: {why} (a column is taken by {HOW})"));
            return Ok(None);
        }
        (None, several) => {
            let several = names(several.iter().copied());
            notes.push(format!("no classes: {several} could be labels (one is taken by {HOW})"));
            return Ok(None);
        }
    };
    notes.push(format!("classes: the column {} ({}){of}", column.name, column.says()));
    Ok(Some(column.name.clone()))
}
