//! PyTorch's pickles. Nothing in one is executed: candle's reader knows the few opcodes that tables
//! of tensors are made of, and constructs no object. It trusts what a pickle says of lengths and
//! copies what a pickle names twice, so the program is checked here first.

use crate::{Context, Error, Result, bail, ensure, guard};
use candle_core::pickle::PthTensors;
use candle_core::{DType, Tensor};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use zip::ZipArchive;

/// The program of a table of tensors is some hundred kilobytes long.
const LARGEST: u64 = 64 << 20;
/// What all its objects may take, with every copy.
const MEMORY: usize = 256 << 20;
/// How deep they may be nested: a table's are six deep.
const DEPTH: usize = 64;

/// It assumes that a pickle's calls have as many arguments as PyTorch gives them, and else panics.
const READER: &str = "candle's reader";
const ODD: &str = "not a table of tensors as PyTorch writes it";

/// A file of `torch.save`.
pub struct Pickle(PthTensors);

impl Pickle {
    /// The table of tensors in the file; no number is read.
    ///
    /// # Errors
    /// A file that is damaged, older than PyTorch 1.6, or something other than a table; tensors
    /// that would have more bytes than the file.
    pub fn open(path: &Path) -> Result<Self> {
        zip_or_legacy(path)?;
        programs(path).context(ODD)?;
        let file = guard(READER, || PthTensors::new(path, None)).context(ODD)?;
        let infos = file.tensor_infos();
        ensure!(!infos.is_empty(), "no table of tensors (a state dict) in this pickle");
        // Shapes are only what the program says, and the reader allocates memory for them.
        let length = std::fs::metadata(path)?.len();
        let bytes = infos.values().try_fold(0u64, |sum, info| {
            let count = info.layout.dims().iter().try_fold(1u64, |n, d| n.checked_mul(*d as u64));
            sum.checked_add(count?.checked_mul(info.dtype.size_in_bytes() as u64)?)
        });
        ensure!(
            bytes.is_some_and(|bytes| bytes <= length),
            "its tensors would have {} bytes, and the file has {length}",
            bytes.map_or("more than 2^64".to_string(), |bytes| bytes.to_string())
        );
        Ok(Self(file))
    }

    /// Their names and shapes.
    pub fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        let all = self.0.tensor_infos().iter();
        all.map(|(name, info)| (name.clone(), info.layout.dims().to_vec())).collect()
    }

    /// The tensor `name`.
    ///
    /// # Errors
    /// One that is missing, of a dtype other than floats, or cut off.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let tensor = guard(READER, || self.0.get(name)).with_context(|| name.to_string())?;
        let Some(tensor) = tensor else { bail!("the tensor {name} is missing") };
        ensure!(
            matches!(tensor.dtype(), DType::F32 | DType::F16 | DType::BF16),
            "the tensor {name} has dtype {:?}: F32, F16 and BF16 are read",
            tensor.dtype()
        );
        Ok(tensor)
    }
}

fn zip_or_legacy(path: &Path) -> Result<()> {
    let mut start = Vec::new();
    File::open(path)?.take(4).read_to_end(&mut start)?;
    if start == b"PK\x03\x04" {
        return Ok(());
    }
    let legacy = start.first() == Some(&0x80);
    ensure!(
        !legacy,
        "a pickle of PyTorch before 1.6, which is not a zip file: load and save it with a newer \
         PyTorch"
    );
    bail!("not a zip file, as PyTorch writes them since 1.6");
}

// Checks each program of the file, found as the reader finds them.
fn programs(path: &Path) -> Result<()> {
    let odd = |error: zip::result::ZipError| Error::new(error.to_string());
    let mut zip = ZipArchive::new(BufReader::new(File::open(path)?)).map_err(odd)?;
    for i in 0..zip.len() {
        let mut file = zip.by_index(i).map_err(odd)?;
        if !file.name().map_err(odd)?.ends_with("data.pkl") {
            continue;
        }
        let mut program = Vec::new();
        file.by_ref().take(LARGEST + 1).read_to_end(&mut program)?;
        ensure!(program.len() as u64 <= LARGEST, "a program of more than {LARGEST} bytes");
        Machine::default().run(&program)?;
    }
    Ok(())
}

/// An object: what memory it takes, and how deep others are nested in it.
#[derive(Clone, Copy)]
struct Weight {
    bytes: usize,
    depth: usize,
    mark: bool,
}

/// The stack of a pickle with objects' weights in place of the objects.
#[derive(Default)]
struct Machine {
    stack: Vec<Weight>,
    memo: HashMap<u32, Weight>,
    spent: usize,
}

impl Machine {
    fn run(&mut self, mut program: &[u8]) -> Result<()> {
        loop {
            let rest = &mut program;
            match take(rest, 1)?[0] {
                b'.' => return Ok(()),
                0x80 => drop(take(rest, 1)?), // the protocol
                b'(' => self.push(Weight { bytes: 0, depth: 0, mark: true })?,
                b'N' | 0x88 | 0x89 | b')' | b']' | b'}' | b'd' => self.made(0)?,
                b'K' => self.made(take(rest, 1)?.len())?,
                b'M' => self.made(take(rest, 2)?.len())?,
                b'J' => self.made(take(rest, 4)?.len())?,
                b'G' => self.made(take(rest, 8)?.len())?,
                0x8a => {
                    let length = take(rest, 1)?[0];
                    self.made(take(rest, length.into())?.len())?;
                }
                b'X' => {
                    let length = number(take(rest, 4)?);
                    self.made(take(rest, length as usize)?.len())?;
                }
                b'c' => {
                    let module = line(rest)?;
                    self.made(module + line(rest)?)?;
                }
                b'Q' | 0x85 => self.around(1)?,
                0x86 | b'R' | 0x81 | b'b' => self.around(2)?,
                0x87 => self.around(3)?,
                b't' => {
                    let count = self.above_mark()?;
                    self.around(count)?;
                    self.pop_mark();
                }
                b'a' => self.add_to_last(1)?,
                b's' => self.add_to_last(2)?,
                b'e' | b'u' => {
                    let count = self.above_mark()?;
                    let all = self.stack.split_off(self.stack.len() - count);
                    self.stack.pop();
                    self.stack.extend(all);
                    self.add_to_last(count)?;
                }
                b'q' => self.put(take(rest, 1)?[0].into())?,
                b'r' => self.put(number(take(rest, 4)?))?,
                b'h' => self.get(take(rest, 1)?[0].into())?,
                b'j' => self.get(number(take(rest, 4)?))?,
                other => bail!("the opcode {other:#04x}"),
            }
        }
    }

    fn push(&mut self, object: Weight) -> Result<()> {
        self.spend(object)?;
        self.stack.push(object);
        Ok(())
    }

    fn spend(&mut self, object: Weight) -> Result<()> {
        // An object of the reader takes 56 bytes.
        self.spent += object.bytes + 64;
        ensure!(self.spent <= MEMORY, "objects of more than {MEMORY} bytes");
        ensure!(object.depth <= DEPTH, "objects more than {DEPTH} deep");
        Ok(())
    }

    fn made(&mut self, bytes: usize) -> Result<()> {
        self.push(Weight { bytes: bytes + 64, depth: 1, mark: false })
    }

    // The last `count` objects as one.
    fn joined(&mut self, count: usize) -> Result<Weight> {
        let Some(first) = self.stack.len().checked_sub(count) else { bail!("an empty stack") };
        let (mut bytes, mut depth) = (64, 0);
        for object in self.stack.drain(first..) {
            bytes += object.bytes;
            depth = depth.max(object.depth);
        }
        Ok(Weight { bytes, depth: depth + 1, mark: false })
    }

    fn around(&mut self, count: usize) -> Result<()> {
        let object = self.joined(count)?;
        ensure!(object.depth <= DEPTH, "objects more than {DEPTH} deep");
        // They move: nothing but the one around them is new.
        self.spent += 64;
        self.stack.push(object);
        Ok(())
    }

    fn add_to_last(&mut self, count: usize) -> Result<()> {
        let added = self.joined(count)?;
        let Some(last) = self.stack.last_mut() else { bail!("an empty stack") };
        last.bytes += added.bytes;
        last.depth = last.depth.max(added.depth);
        ensure!(last.depth <= DEPTH, "objects more than {DEPTH} deep");
        Ok(())
    }

    fn above_mark(&self) -> Result<usize> {
        match self.stack.iter().rev().position(|object| object.mark) {
            Some(count) => Ok(count),
            None => bail!("no mark on the stack"),
        }
    }

    // Removes the mark below the object that was made of what stood above the mark.
    fn pop_mark(&mut self) {
        if let Some(object) = self.stack.pop() {
            self.stack.pop();
            self.stack.push(object);
        }
    }

    fn put(&mut self, place: u32) -> Result<()> {
        let Some(last) = self.stack.last().copied() else { bail!("an empty stack") };
        self.spend(last)?;
        self.memo.insert(place, last);
        Ok(())
    }

    fn get(&mut self, place: u32) -> Result<()> {
        let Some(object) = self.memo.get(&place).copied() else { bail!("nothing at {place}") };
        self.push(object)
    }
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Result<&'a [u8]> {
    let Some((taken, left)) = rest.split_at_checked(count) else {
        bail!("{count} bytes where {} are left", rest.len());
    };
    *rest = left;
    Ok(taken)
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

// The length of a line, which is consumed with its end.
fn line(rest: &mut &[u8]) -> Result<usize> {
    match rest.iter().position(|byte| *byte == b'\n') {
        Some(length) => Ok(take(rest, length + 1)?.len()),
        None => bail!("a line without end"),
    }
}
