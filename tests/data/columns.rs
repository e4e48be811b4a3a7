//! Columns of Parquet files: whatever lies beside them, only those that are needed are
//! decoded; which are taken is said, and others are taken when they are asked for.

use crate::given::{Folder, message, pixel, png_of, values, write_parquet};
use crate::table::{self, Columns, bytes, images_of, large_bytes, text};
use consistency::Result;
use consistency::data::{Classes, Dataset};
use consistency::experiment::{Experiment, Monitor, train};
use polars::polars_utils::float16::pf16;
use polars_arrow::array::{
    Array, BooleanArray, DictionaryArray, FixedSizeBinaryArray, NullArray, PrimitiveArray,
};
use polars_arrow::datatypes::{ArrowDataType, TimeUnit};
use polars_arrow::types::NativeType;

const ROWS: usize = 6;
const SHAPE: [usize; 3] = [3, 4, 6];

fn images() -> Result<Vec<Vec<u8>>> {
    (0..ROWS).map(|row| png_of(row, SHAPE)).collect()
}

fn hub_images() -> Result<Box<dyn Array>> {
    Ok(images_of(bytes(&images()?), &["x.png"; ROWS]))
}

fn numbers<T: NativeType>(of: impl Fn(u8) -> T) -> Box<dyn Array> {
    PrimitiveArray::from_vec([2u8, 0, 1, 0, 2, 1].map(of).to_vec()).boxed()
}

fn as_type<T: NativeType>(of: impl Fn(u8) -> T, dtype: ArrowDataType) -> Box<dyn Array> {
    PrimitiveArray::from_vec([2u8, 0, 1, 0, 2, 1].map(of).to_vec()).to(dtype).boxed()
}

/// All pixels are where they belong, and the labels are those of [`numbers`].
fn holds_all(dataset: &Dataset, name: &str) -> Result<()> {
    let images = dataset.split("train")?;
    let [c, h, w] = SHAPE;
    let expected: Vec<u8> = (0..ROWS * c * h * w)
        .map(|i| pixel(i / (c * h * w), i / (h * w) % c, i / w % h, i % w))
        .collect();
    assert_eq!(values(images.pixels())?, expected, "{name}");
    assert_eq!(images.labels(), Some(&[2, 0, 1, 0, 2, 1][..]), "{name}");
    Ok(())
}

#[test]
fn labels_are_integers_of_any_width() -> Result<()> {
    let folder = Folder::new("widths")?;
    let all: [Box<dyn Array>; 8] = [
        numbers(|n| n as i8),
        numbers(i16::from),
        numbers(i32::from),
        numbers(i64::from),
        numbers(|n| n),
        numbers(u16::from),
        numbers(u32::from),
        numbers(u64::from),
    ];
    for labels in all {
        let name = format!("{:?}.parquet", labels.dtype());
        table::write(&folder.at(&name), &vec![("image", hub_images()?), ("label", labels)])?;
        holds_all(&folder.find(&name)?, &name)?;
    }
    Ok(())
}

#[test]
fn a_column_that_nobody_needs_may_be_of_any_type() -> Result<()> {
    let folder = Folder::new("extra")?;
    let dictionary = DictionaryArray::<i8>::try_from_keys(
        PrimitiveArray::from_vec(vec![0i8, 0, 1, 0, 1, 1]),
        text(&["p", "q"]),
        false,
    )?;
    let all: [(&str, Box<dyn Array>); 10] = [
        ("time", as_type(i64::from, ArrowDataType::Timestamp(TimeUnit::Nanosecond, None))),
        (
            "zone",
            as_type(
                i64::from,
                ArrowDataType::Timestamp(TimeUnit::Millisecond, Some("Europe/Rome".into())),
            ),
        ),
        ("date", as_type(i32::from, ArrowDataType::Date32)),
        ("clock", as_type(i64::from, ArrowDataType::Time64(TimeUnit::Microsecond))),
        ("duration", as_type(i64::from, ArrowDataType::Duration(TimeUnit::Second))),
        ("half", numbers(|n| pf16::from(f32::from(n)))),
        ("decimal", as_type(i128::from, ArrowDataType::Decimal(10, 2))),
        (
            "fixed",
            FixedSizeBinaryArray::new(
                ArrowDataType::FixedSizeBinary(2),
                vec![7u8; 2 * ROWS].into(),
                None,
            )
            .boxed(),
        ),
        ("null", NullArray::new(ArrowDataType::Null, ROWS).boxed()),
        ("dictionary", dictionary.boxed()),
    ];
    for (name, extra) in all {
        let columns: Columns<'_> =
            vec![(name, extra), ("image", hub_images()?), ("label", numbers(i64::from))];
        let file = format!("{name}.parquet");
        table::write(&folder.at(&file), &columns)?;
        let dataset = folder.find(&file)?;
        holds_all(&dataset, name)?;
        let notes = dataset.notes().join("\n");
        assert!(notes.contains(&format!("columns that are not read: {name}")), "{notes}");
    }
    Ok(())
}

#[test]
fn images_are_bytes_of_any_kind() -> Result<()> {
    let folder = Folder::new("bytes")?;
    let paths = ["x.png"; ROWS];
    let all = [
        bytes(&images()?),
        large_bytes(&images()?),
        images_of(bytes(&images()?), &paths),
        images_of(large_bytes(&images()?), &paths),
    ];
    for (i, images) in all.into_iter().enumerate() {
        let name = format!("{i}.parquet");
        let columns: Columns<'_> = vec![("label", numbers(i64::from)), ("picture", images)];
        // In one group, and in several, of which one has no row that is asked for first.
        for groups in [&[ROWS][..], &[1, 2, 3]] {
            table::write_groups(&folder.at(&name), &columns, groups)?;
            holds_all(&folder.find(&name)?, &name)?;
        }
    }
    Ok(())
}

#[test]
fn a_mask_in_front_of_the_images_is_not_taken_for_them() -> Result<()> {
    let folder = Folder::new("mask")?;
    let masks: Vec<Vec<u8>> = (0..ROWS).map(|_| png_of(40, [1, 4, 6])).collect::<Result<_>>()?;
    let (masks, labels) = (bytes(&masks), numbers(i64::from));
    let columns: Columns<'_> =
        vec![("mask", masks.clone()), ("image", hub_images()?), ("label", labels)];
    table::write(&folder.at("mask.parquet"), &columns)?;
    let dataset = folder.find("mask.parquet")?;
    holds_all(&dataset, "mask")?;
    let notes = dataset.notes().join("\n");
    assert!(notes.contains("images: the column image, and not mask"), "{notes}");
    assert!(notes.contains("--image COLUMN"), "{notes}");
    // The other one, when it is asked for.
    let path = folder.at("mask.parquet").display().to_string();
    let other = Dataset::find_with_columns(&path, Some("mask"), None)?;
    let other = other.with_cache(folder.at("cache")).split("train")?;
    assert_eq!(other.shape(), [1, 4, 6]);
    assert_eq!(values(other.pixels())?[..3], [0, 1, 2].map(|x| pixel(40, 0, 0, x)));
    // Neither is called image: there is no guess.
    let columns: Columns<'_> = vec![("a", masks), ("b", hub_images()?)];
    table::write(&folder.at("two.parquet"), &columns)?;
    let error = message(folder.find("two.parquet"));
    assert!(error.contains("two.parquet") && error.contains("several columns"), "{error}");
    assert!(error.contains("a, b") && error.contains("--image COLUMN"), "{error}");
    let two = folder.at("two.parquet").display().to_string();
    assert!(Dataset::find_with_columns(&two, Some("b"), None).is_ok());
    let error = message(Dataset::find_with_columns(&two, Some("c"), None));
    assert!(error.contains("no column c; there are a, b"), "{error}");
    let error = message(Dataset::find_with_columns(&path, Some("label"), None));
    assert!(error.contains("label holds integers, not images"), "{error}");
    let error = message(Dataset::find_with_columns("digits", Some("image"), None));
    assert!(error.contains("digits has no columns"), "{error}");
    Ok(())
}

#[test]
fn of_two_columns_of_labels_none_is_taken_unasked() -> Result<()> {
    let folder = Folder::new("two-labels")?;
    let columns: Columns<'_> = vec![
        ("img", hub_images()?),
        ("fine_label", numbers(i64::from)),
        ("coarse_label", numbers(|n| i64::from(n / 2))),
    ];
    table::write(&folder.at("two.parquet"), &columns)?;
    let dataset = folder.find("two.parquet")?;
    assert_eq!(dataset.split("train")?.labels(), None);
    let notes = dataset.notes().join("\n");
    assert!(notes.contains("no classes: fine_label, coarse_label could be labels"), "{notes}");
    let path = folder.at("two.parquet").display().to_string();
    let take = |label: &str| -> Result<Option<Vec<u32>>> {
        let dataset = Dataset::find_with_columns(&path, None, Some(label))?;
        let images = dataset.with_cache(folder.at("cache")).split("train")?;
        Ok(images.labels().map(<[u32]>::to_vec))
    };
    assert_eq!(take("fine_label")?, Some(vec![2, 0, 1, 0, 2, 1]));
    assert_eq!(take("coarse_label")?, Some(vec![1, 0, 0, 0, 1, 0]));
    let error = message(take("img"));
    assert!(error.contains("img holds bytes: labels are integers, text"), "{error}");
    // One alone is taken by its name; one called label is meant, whatever else there is.
    let one: Columns<'_> = vec![("img", hub_images()?), ("fine_label", numbers(i64::from))];
    table::write(&folder.at("one.parquet"), &one)?;
    holds_all(&folder.find("one.parquet")?, "one")?;
    let meant: Columns<'_> = vec![
        ("img", hub_images()?),
        ("fine_label", numbers(|_| 9i64)),
        ("label", numbers(i64::from)),
    ];
    table::write(&folder.at("meant.parquet"), &meant)?;
    let dataset = folder.find("meant.parquet")?;
    holds_all(&dataset, "meant")?;
    let notes = dataset.notes().join("\n");
    assert!(notes.contains("classes: the column label (integers), and not fine_label"), "{notes}");
    Ok(())
}

#[test]
fn text_and_truth_become_classes_with_names() -> Result<()> {
    let folder = Folder::new("names")?;
    let named = ["emu", "ant", "cat", "ant", "emu", "cat"];
    let keys = PrimitiveArray::from_vec(vec![0i8, 1, 2, 1, 0, 2]);
    let dictionary =
        DictionaryArray::<i8>::try_from_keys(keys, text(&["emu", "ant", "cat"]), false)?;
    for (name, labels) in [("text", text(&named)), ("dictionary", dictionary.boxed())] {
        let file = format!("{name}.parquet");
        table::write(&folder.at(&file), &vec![("image", hub_images()?), ("label", labels)])?;
        let dataset = folder.find(&file)?;
        holds_all(&dataset, name)?;
        // Kept with the images: the second time it comes from the cache.
        for _ in 0..2 {
            let images = dataset.split("train")?;
            let names = ["ant", "cat", "emu"].map(str::to_string).to_vec();
            assert_eq!(images.classes(), &Classes::Named(names), "{name}");
        }
        // A part has the numbers of the whole, whichever classes are in it.
        for count in 1..ROWS {
            let part = dataset.clone().limited(count).split("train")?;
            assert_eq!(part.classes().count(), 3, "{name} {count}");
        }
    }
    let truth = BooleanArray::from_slice([true, false, true, true, false, false]).boxed();
    table::write(&folder.at("truth.parquet"), &vec![("image", hub_images()?), ("label", truth)])?;
    let images = folder.find("truth.parquet")?.split("train")?;
    assert_eq!(images.labels(), Some(&[1, 0, 1, 1, 0, 0][..]));
    let names = ["false", "true"].map(str::to_string).to_vec();
    assert_eq!(images.classes(), &Classes::Named(names));
    Ok(())
}

#[test]
fn rows_without_a_label_are_named_and_a_split_without_any_has_no_classes() -> Result<()> {
    let folder = Folder::new("missing")?;
    let images: Vec<Vec<u8>> = images()?;
    write_parquet(&folder.at("none.parquet"), "image", &images, &[-1; ROWS])?;
    let none = folder.find("none.parquet")?.split("train")?;
    assert_eq!((none.labels(), none.classes().count()), (None, 0));
    write_parquet(&folder.at("some.parquet"), "image", &images, &[0, 1, -1, 0, -1, 1])?;
    let error = message(folder.find("some.parquet")?.split("train"));
    assert!(error.contains("some.parquet, row 2: no label") && error.contains("label"), "{error}");
    write_parquet(&folder.at("minus.parquet"), "image", &images, &[0, 1, 0, -7, 0, 1])?;
    let error = message(folder.find("minus.parquet")?.split("train"));
    assert!(error.contains("minus.parquet, row 3: the label -7"), "{error}");
    let floats = PrimitiveArray::from_vec(vec![0.5f64; ROWS]).boxed();
    table::write(&folder.at("real.parquet"), &vec![("image", hub_images()?), ("label", floats)])?;
    let dataset = folder.find("real.parquet")?;
    let notes = dataset.notes().join("\n");
    assert!(notes.contains("no classes: label holds Float64"), "{notes}");
    assert_eq!(dataset.split("train")?.labels(), None);
    Ok(())
}

#[test]
fn an_experiment_names_its_columns() -> Result<()> {
    let folder = Folder::new("experiment")?;
    let small: Vec<Vec<u8>> = (0..ROWS).map(|row| png_of(row, [1, 4, 4])).collect::<Result<_>>()?;
    let columns: Columns<'_> = vec![
        ("a", bytes(&small)),
        ("b", bytes(&images()?)),
        ("fine_label", numbers(i64::from)),
        ("coarse_label", numbers(|n| i64::from(n / 2))),
    ];
    table::write(&folder.at("own.parquet"), &columns)?;
    let text = |more: &str| {
        format!(
            "name = \"own\"\n[data]\nname = \"images\"\nof = '{}'\n{more}\n[network]\nkind = \"mlp\"\n\
             width = 16\nblocks = 1\n[method]\nkind = \"score-matching\"\n[training]\niterations = 2\n\
             batch = 4\n",
            folder.at("own.parquet").display()
        )
    };
    let experiment = Experiment::parse(&text("image = \"a\"\nlabel = \"coarse_label\""))?;
    let images = experiment.data.images()?;
    assert_eq!(images.shape(), [1, 4, 4]);
    assert_eq!(images.labels(), Some(&[1, 0, 0, 0, 1, 0][..]));
    train(&experiment, &folder.at("runs"), &Monitor::default(), 1)?;
    let error = message(Experiment::parse(&text("")).and_then(|e| e.data.images()));
    assert!(error.contains("several columns could hold images: a, b"), "{error}");
    Ok(())
}
