//! PyTorch's pickles, whole, damaged and hostile.

use crate::files::{BIN, WEIGHTS, apart, read, tiny};
use crate::{beside, message};
use consistency::{Error, Result};
use std::io::Write;
use std::time::{Duration, Instant};

#[test]
fn pickles() -> Result<()> {
    let (folder, _, _) = tiny("pickle")?;
    std::fs::remove_file(folder.0.join(WEIGHTS))?;
    let bytes = std::fs::read(beside("pickle/tiny.bin"))?;
    folder.write(BIN, &bytes)?;
    let got = message(read(&folder, false));
    assert!(got.contains(&format!("has only a PyTorch pickle, {BIN}")), "{got}");
    assert!(got.contains("--pickle (LoadOptions { pickle: true })"), "{got}");
    // With old attention names, and vectors that share a storage.
    assert!(apart(&read(&folder, true)?)? < 1e-5);
    // PyTorch before 1.6: the magic number, pickled.
    folder.write(BIN, b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M")?;
    let got = message(read(&folder, true));
    assert!(got.contains(BIN) && got.contains("a pickle of PyTorch before 1.6"), "{got}");
    folder.write(BIN, b"<!DOCTYPE html>")?;
    let got = message(read(&folder, true));
    assert!(got.contains(BIN) && got.contains("not a zip file"), "{got}");
    folder.write(BIN, &std::fs::read(beside("pickle/short.bin"))?)?;
    let got = message(read(&folder, true));
    assert!(got.contains(BIN) && got.contains("not a table of tensors as PyTorch"), "{got}");
    for length in (4..bytes.len()).step_by(97) {
        folder.write(BIN, &bytes[..length])?;
        let got = message(read(&folder, true));
        assert!(got.contains(BIN), "{length}: {got}");
    }
    // Safetensors come first where both are there.
    let (folder, _, _) = tiny("both")?;
    folder.write(BIN, b"no pickle")?;
    assert!(apart(&read(&folder, true)?)? < 1e-5);
    Ok(())
}

/// A zip file of PyTorch's with this program.
fn zipped(program: &[u8]) -> Result<Vec<u8>> {
    let odd = |e: zip::result::ZipError| Error::new(e.to_string());
    let mut file = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    file.start_file("tiny/data.pkl", options).map_err(odd)?;
    file.write_all(program)?;
    Ok(file.finish().map_err(odd)?.into_inner())
}

/// What a program says of lengths, copies and depth is looked at before it is believed.
#[test]
fn hostile_programs() -> Result<()> {
    let (folder, _, _) = tiny("hostile")?;
    std::fs::remove_file(folder.0.join(WEIGHTS))?;
    let begun = Instant::now();
    // Each step doubles what was made: 2^40 objects.
    let mut doubling = b"\x80\x02Nq\x00".to_vec();
    for _ in 0..40 {
        doubling.extend(b"h\x00h\x00\x86q\x00");
    }
    doubling.push(b'.');
    let deep = [&b"N"[..], &b"\x85".repeat(1_000_000), b"."].concat();
    let marks = [&b"("[..], &b"(t".repeat(100_000), b"t."].concat();
    for (program, want) in [
        (&b"X\xff\xff\xff\xffabc."[..], "4294967295 bytes where 4 are left"),
        (b"\x8a\xff.", "255 bytes where 1 are left"),
        (b"ctorch", "a line without end"),
        (&doubling, "objects of more than 268435456 bytes"),
        (&deep, "objects more than 64 deep"),
        (b"Nj\x05\x00\x00\x00.", "nothing at 5"),
        (b"N", "1 bytes where 0 are left"),
        (b"\x86.", "an empty stack"),
        (b"Nt.", "no mark on the stack"),
        (b"\x95.", "the opcode 0x95"),
        (&marks, "no table of tensors"),
        (b"}.", "no table of tensors (a state dict)"),
    ] {
        folder.write(BIN, &zipped(program)?)?;
        let got = message(read(&folder, true));
        assert!(got.contains(BIN) && got.contains(want), "{want}: {got}");
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    Ok(())
}

/// A program may name any shape: no memory is taken for one that the file does not hold.
#[test]
fn a_shape_larger_than_its_file() -> Result<()> {
    let (folder, _, _) = tiny("shape")?;
    std::fs::remove_file(folder.0.join(WEIGHTS))?;
    // {"conv_in.weight": _rebuild_tensor_v2(storage, 0, (side, side), (side, 1), False, None)}
    let program = |side: &[u8; 4]| {
        [
            b"}X\x0e\0\0\0conv_in.weightctorch._utils\n_rebuild_tensor_v2\n((X\x01\0\0\0sctorch\n"
                .as_slice(),
            b"FloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQK\x00(J",
            side,
            b"J",
            side,
            b"t(J",
            side,
            b"K\x01t\x89NtRs.",
        ]
        .concat()
    };
    for (side, want) in [
        (b"\x00\x01\x00\x00", "its tensors would have 262144 bytes, and the file has"),
        (b"\xff\xff\xff\x7f", "its tensors would have 18446744056529682436 bytes"),
        (b"\x01\x00\x00\x00", "these parameters do not belong to this network: missing"),
        (b"\xff\xff\xff\xff", "no table of tensors (a state dict)"),
    ] {
        folder.write(BIN, &zipped(&program(side))?)?;
        let got = message(read(&folder, true));
        assert!(got.contains(BIN) && got.contains(want), "{want}: {got}");
    }
    Ok(())
}
