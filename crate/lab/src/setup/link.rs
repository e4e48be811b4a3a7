//! What a cell is compiled and linked with.
//!
//! The library has a great many names, and a linker that looks for a cell's few reads them all: it took
//! longer than all else that it does. So a cell is given a library of the same name with the metadata
//! that rustc reads and not a single name. The loader finds the names when the cell starts, in the
//! library itself, which the process has loaded long before.

use super::library::file;
use crate::Result;
use crate::{files, shell};
use std::fs;
use std::path::{Path, PathBuf};

/// The folder, in a library's.
const FOLDER: &str = "link";
/// The section of a shared library with rustc's metadata.
const SECTION: &str = ".rustc";

/// The compiler's flags for cells, of the library in `folder`.
pub fn flags(folder: &Path) -> Vec<String> {
    let (place, library) = (folder.join(FOLDER), folder.join(FOLDER).join(file()));
    let mut flags = vec![
        "-Cprefer-dynamic".to_string(),
        "--cfg".to_string(),
        "lab_real".to_string(),
        "--extern".to_string(),
        format!("real={}", library.display()),
        "-L".to_string(),
        format!("dependency={}", place.display()),
        "-L".to_string(),
        format!("dependency={}", folder.join("deps").display()),
    ];
    if !cfg!(target_os = "macos") {
        // The library is needed, although the linker sees no name of it used.
        flags.push("-Clink-arg=-Wl,--no-as-needed".to_string());
        flags.push(format!("-Clink-arg={}", library.display()));
    }
    flags
}

/// Make it in the folder `made`, for the library there, whose content is `bytes`.
///
/// # Errors
/// A library without metadata, or no C compiler.
pub fn make(made: &Path, bytes: &[u8]) -> Result<()> {
    let (folder, library) = (made.join(FOLDER), made.join(file()));
    let failed = |why: &str| format!("making {}: {why}", folder.join(file()).display());
    fs::create_dir_all(&folder).map_err(|e| failed(&e.to_string()))?;
    if cfg!(target_os = "macos") {
        // There the linker must know where each name is from.
        return fs::hard_link(&library, folder.join(file())).map_err(|e| failed(&e.to_string()));
    }
    let metadata = section(bytes, SECTION)
        .ok_or_else(|| failed(&format!("{} has no section {SECTION}", library.display())))?;
    let parts: [PathBuf; 2] = [folder.join("metadata"), folder.join("metadata.s")];
    files::write(&parts[0], metadata)?;
    files::write(
        &parts[1],
        format!(".section {SECTION},\"\",@progbits\n.incbin \"metadata\"\n").as_bytes(),
    )?;
    let mut linker = shell::command("cc");
    linker.current_dir(&folder).args(["-shared", "-nostdlib", "metadata.s", "-o", &file()]);
    linker.arg(format!("-Wl,-soname,{}", file()));
    let output = linker.output().map_err(|e| failed(&format!("starting cc: {e}")))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim()));
    }
    parts.iter().try_for_each(|part| files::remove(part))
}

// The content of a section of a 64-bit ELF file in this machine's byte order.
fn section<'a>(file: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let at = |from: usize, len: usize| file.get(from..from.checked_add(len)?);
    let short = |from| Some(usize::from(u16::from_ne_bytes(at(from, 2)?.try_into().ok()?)));
    let word = |from| usize::try_from(u32::from_ne_bytes(at(from, 4)?.try_into().ok()?)).ok();
    let long = |from| usize::try_from(u64::from_ne_bytes(at(from, 8)?.try_into().ok()?)).ok();
    let (table, size, count) = (long(0x28)?, short(0x3a)?, short(0x3c)?);
    let header = |i: usize| table + i * size;
    let names = long(header(short(0x3e)?) + 0x18)?;
    (0..count).map(header).find_map(|header| {
        let start = names + word(header)?;
        let here = at(start, name.len())? == name.as_bytes() && at(start + name.len(), 1)? == [0];
        if here { at(long(header + 0x18)?, long(header + 0x20)?) } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn sections_of_a_program_are_found() -> std::io::Result<()> {
        let own = fs::read(std::env::current_exe()?)?;
        assert!(section(&own, ".text").is_some_and(|text| text.len() > 1000));
        // The beginning of a name is not the name.
        assert!(section(&own, ".tex").is_none());
        assert!(section(&own[..100], ".text").is_none());
        assert!(section(b"no program", ".text").is_none());
        Ok(())
    }
}
