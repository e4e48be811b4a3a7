//! What decoded columns hold: bytes of images, and labels.

use crate::{Result, bail};
use polars_arrow::array::{
    Array, BinaryViewArray, BooleanArray, PrimitiveArray, StructArray, Utf8ViewArray,
};
use polars_arrow::types::NativeType;

/// The label of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Label<'a> {
    /// Null, or the Hub's mark for "no label", -1.
    Missing,
    Number(u32),
    Text(&'a str),
}

/// The bytes in a column of images, one entry per row.
pub(super) fn images(arrays: &[Box<dyn Array>]) -> Result<Vec<Option<&[u8]>>> {
    let mut all = Vec::new();
    for array in arrays {
        let any = array.as_any();
        let fields = any.downcast_ref::<StructArray>().and_then(|fields| fields.values().first());
        let any = fields.map_or(any, |bytes| bytes.as_any());
        match any.downcast_ref::<BinaryViewArray>() {
            Some(bytes) => all.extend(bytes.iter()),
            None => bail!("a column of images that was decoded as {:?}", array.dtype()),
        }
    }
    Ok(all)
}

/// A label as it is stored.
#[derive(Clone, Copy)]
pub(super) enum Found<'a> {
    Null,
    Number(i128),
    Text(&'a str),
}

impl<'a> Found<'a> {
    /// The label that it is.
    ///
    /// # Errors
    /// A number that is not a class.
    pub fn label(self) -> Result<Label<'a>> {
        match self {
            Self::Null | Self::Number(-1) => Ok(Label::Missing),
            Self::Text(text) => Ok(Label::Text(text)),
            Self::Number(number) => match u32::try_from(number) {
                Ok(number) => Ok(Label::Number(number)),
                Err(_) => {
                    bail!("the label {number} is not a class: it must be 0 or more, in 32 bits")
                }
            },
        }
    }
}

/// What is in a column of labels, one entry per row.
pub(super) fn labels(arrays: &[Box<dyn Array>]) -> Vec<Found<'_>> {
    fn numbers<T: NativeType + Into<i128>>(array: &dyn Array) -> Option<Vec<Found<'_>>> {
        let values = array.as_any().downcast_ref::<PrimitiveArray<T>>()?;
        Some(values.iter().map(|v| v.map_or(Found::Null, |v| Found::Number((*v).into()))).collect())
    }
    let mut all = Vec::new();
    for array in arrays {
        let array = array.as_ref();
        let any = array.as_any();
        if let Some(texts) = any.downcast_ref::<Utf8ViewArray>() {
            all.extend(texts.iter().map(|text| text.map_or(Found::Null, Found::Text)));
        } else if let Some(truths) = any.downcast_ref::<BooleanArray>() {
            let number = |truth| Found::Number(i128::from(truth));
            all.extend(truths.iter().map(|truth| truth.map_or(Found::Null, number)));
        } else {
            let found = numbers::<i8>(array)
                .or_else(|| numbers::<i16>(array))
                .or_else(|| numbers::<i32>(array))
                .or_else(|| numbers::<i64>(array))
                .or_else(|| numbers::<u8>(array))
                .or_else(|| numbers::<u16>(array))
                .or_else(|| numbers::<u32>(array))
                .or_else(|| numbers::<u64>(array));
            all.extend(found.unwrap_or_default());
        }
    }
    all
}
