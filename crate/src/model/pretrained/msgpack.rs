//! The arrays of a flax msgpack file. A tree is nested maps; an array is the extension 1 over
//! (shape, dtype's name, bytes), a number the extension 3 over the same; an array of more than
//! 1 GiB is a map of its shape and its chunks. Nothing here is executed or trusted: every length
//! is checked against the bytes that are there, and the depth and the number of values are bounded.

use crate::model::json::short;
use crate::{Context, Error, Result, bail, ensure};
use candle_core::{DType, Device, Tensor};
use rmpv::ValueRef;
use rmpv::decode::value_ref::BorrowRead;
use std::collections::BTreeMap;
use std::io::{self, Read};

/// How deep values may be nested, which rmpv counts twice: a training state is ten deep.
const DEPTH: usize = 2 * 32;
/// The most values in a file, each of which takes some ten bytes of memory for one of the file. A
/// training state of the paper's network has four thousand.
const VALUES: usize = 1_000_000;

const ARRAY: i8 = 1;
const SCALAR: i8 = 3;
const CHUNKED: &str = "__msgpack_chunked_array__";

/// An array whose bytes lie in the file's.
#[derive(Clone, Debug)]
pub struct Array<'a> {
    shape: Vec<usize>,
    dtype: String,
    parts: Vec<&'a [u8]>,
}

/// The value of a whole file.
pub fn decode(bytes: &[u8]) -> Result<ValueRef<'_>> {
    let mut bytes = Counted { bytes, reads: 0 };
    let value = rmpv::decode::read_value_ref_with_max_depth(&mut bytes, DEPTH)
        .map_err(|e| Error::new(format!("not a whole msgpack file: {e}")))?;
    let rest = bytes.bytes.len();
    ensure!(rest == 0, "{rest} bytes after the end of the msgpack value");
    Ok(value)
}

/// Bytes that can be read only so many times: once or twice for each value, for its kind and its
/// length.
struct Counted<'a> {
    bytes: &'a [u8],
    reads: usize,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reads += 1;
        if self.reads > 2 * VALUES {
            return Err(io::Error::other(format!("more than {VALUES} values")));
        }
        self.bytes.read(buffer)
    }
}

impl<'a> BorrowRead<'a> for Counted<'a> {
    fn fill_buf(&self) -> &'a [u8] {
        self.bytes
    }

    fn consume(&mut self, count: usize) {
        self.bytes = &self.bytes[count..];
    }
}

/// The value of `key` in a map.
pub fn entry<'v, 'a>(value: &'v ValueRef<'a>, key: &str) -> Option<&'v ValueRef<'a>> {
    let ValueRef::Map(entries) = value else { return None };
    entries.iter().find(|(name, _)| name_of(name) == Some(key)).map(|(_, value)| value)
}

/// The arrays of a tree, by the keys to them joined with `/`.
pub fn arrays<'a>(tree: &ValueRef<'a>) -> Result<BTreeMap<String, Array<'a>>> {
    let mut found = BTreeMap::new();
    collect(tree, "", &mut found)?;
    Ok(found)
}

fn collect<'a>(
    value: &ValueRef<'a>,
    at: &str,
    found: &mut BTreeMap<String, Array<'a>>,
) -> Result<()> {
    if let Some(array) = array(value).with_context(|| format!("the array {at}"))? {
        ensure!(found.insert(at.to_string(), array).is_none(), "two arrays are called {at}");
        return Ok(());
    }
    let ValueRef::Map(entries) = value else {
        bail!("{at}: neither a map nor an array");
    };
    for (key, value) in entries {
        let Some(key) = name_of(key) else { bail!("a key below '{at}' is not text") };
        let below = if at.is_empty() { key.to_string() } else { format!("{at}/{key}") };
        collect(value, &below, found)?;
    }
    Ok(())
}

fn array<'a>(value: &ValueRef<'a>) -> Result<Option<Array<'a>>> {
    match value {
        ValueRef::Ext(ARRAY | SCALAR, bytes) => packed(bytes).map(Some),
        ValueRef::Ext(other, _) => bail!("msgpack extension {other}: known are arrays (1 and 3)"),
        ValueRef::Map(_) if entry(value, CHUNKED).is_some() => chunked(value).map(Some),
        _ => Ok(None),
    }
}

// (shape, dtype, bytes), itself msgpack.
fn packed(bytes: &[u8]) -> Result<Array<'_>> {
    let ValueRef::Array(parts) = decode(bytes)? else { bail!("not (shape, dtype, bytes)") };
    let [ValueRef::Array(shape), dtype, data] = parts.as_slice() else {
        bail!("not (shape, dtype, bytes)");
    };
    let shape = shape.iter().map(size_of).collect::<Result<Vec<usize>>>()?;
    let Some(dtype) = name_of(dtype) else { bail!("its dtype is not text") };
    let data = match data {
        ValueRef::Binary(data) => *data,
        _ => bail!("its data is not binary"),
    };
    let array = Array { shape, dtype: dtype.to_string(), parts: vec![data] };
    array.check()?;
    Ok(array)
}

// {"shape": {"0": .., "1": ..}, "chunks": {"0": array, "1": array, ..}}
fn chunked<'a>(value: &ValueRef<'a>) -> Result<Array<'a>> {
    let numbered = |key: &str| {
        let Some(ValueRef::Map(entries)) = entry(value, key) else {
            bail!("a chunked array without {key}");
        };
        let named: BTreeMap<&str, &ValueRef> =
            entries.iter().filter_map(|(name, value)| Some((name_of(name)?, value))).collect();
        // "10" comes after "9".
        let in_order = (0..entries.len()).map(|i| {
            let found = named.get(i.to_string().as_str()).copied();
            found.ok_or_else(|| Error::new(format!("{key} has no {i}")))
        });
        in_order.collect::<Result<Vec<_>>>()
    };
    let shape = numbered("shape")?.into_iter().map(size_of).collect::<Result<Vec<usize>>>()?;
    let mut whole = Array { shape, dtype: String::new(), parts: Vec::new() };
    for chunk in numbered("chunks")? {
        let ValueRef::Ext(ARRAY, bytes) = chunk else { bail!("a chunk is not an array") };
        let chunk = packed(bytes)?;
        ensure!(
            whole.parts.is_empty() || whole.dtype == chunk.dtype,
            "chunks of {} and {}",
            whole.dtype,
            chunk.dtype
        );
        whole.dtype = chunk.dtype;
        whole.parts.extend(chunk.parts);
    }
    whole.check()?;
    Ok(whole)
}

impl Array<'_> {
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn dtype(&self) -> Result<DType> {
        Ok(match self.dtype.as_str() {
            "float32" => DType::F32,
            "float16" => DType::F16,
            "bfloat16" => DType::BF16,
            other => bail!("dtype {}: float32, float16 and bfloat16 are read", short(other)),
        })
    }

    // The bytes that are there are as many as the shape and the dtype need. Dtypes other than
    // floats are only skipped, in what is not read.
    fn check(&self) -> Result<()> {
        let Ok(dtype) = self.dtype() else { return Ok(()) };
        let count = self.shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        let needed = count.and_then(|n| n.checked_mul(dtype.size_in_bytes()));
        let there: usize = self.parts.iter().map(|part| part.len()).sum();
        ensure!(
            needed == Some(there),
            "{there} bytes for the shape {:?} of {}",
            self.shape,
            self.dtype
        );
        Ok(())
    }

    /// Its numbers in f32.
    pub fn tensor(&self) -> Result<Tensor> {
        let dtype = self.dtype()?;
        let joined;
        let bytes = match self.parts.as_slice() {
            [one] => *one,
            parts => {
                joined = parts.concat();
                joined.as_slice()
            }
        };
        let tensor = Tensor::from_raw_buffer(bytes, dtype, &self.shape, &Device::Cpu)?;
        Ok(tensor.to_dtype(DType::F32)?)
    }
}

fn name_of<'v>(value: &'v ValueRef<'_>) -> Option<&'v str> {
    match value {
        ValueRef::String(text) => text.as_str(),
        _ => None,
    }
}

fn size_of(value: &ValueRef) -> Result<usize> {
    let size = value.as_u64().and_then(|size| usize::try_from(size).ok());
    size.ok_or_else(|| Error::new(format!("{} in a shape", short(&value.to_string()))))
}
