//! Promise: a lab that is set up is one file, which another clone on a machine of the same
//! kind uses without compiling; elsewhere, damaged or hostile, it is refused, and nothing is
//! written.

#[allow(dead_code)]
#[path = "../../../crate/lab/src/files.rs"]
mod files;
#[allow(dead_code)]
#[path = "../../../crate/lab/src/setup/sources.rs"]
mod sources;
mod stand_in;
#[path = "../support.rs"]
mod support;

use serde_json::{Value, json};
use sources::Sources;
use stand_in::{World, run};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use support::{Result as Tested, lab, project, told};

/// What the program's files ask for.
type Result<T, E = String> = std::result::Result<T, E>;

#[test]
fn a_pack_serves_another_clone_until_its_sources_change() -> Tested {
    let world = World::new("pack-round-trip")?;
    let (good, text) = world.unpack(&world.pack)?;
    assert!(good, "{text}");
    let state = world.to.join(".lab");
    assert!(!state.join(".unpacking").exists());
    assert!(!state.join("venv/share/jupyter/kernels/consistency").exists());
    assert!(state.join("venv/share/jupyter/kernels/python3/kernel.json").is_file());
    assert!(state.join("kernel/cargo/registry/src/a/lib.rs").is_file());
    let mode = fs::metadata(state.join("evcxr/bin/evcxr_jupyter"))?.permissions().mode();
    assert_eq!(mode & 0o777, 0o755);

    let library = state.join("lib").join(fs::read_to_string(state.join("lib/current"))?);
    assert_eq!(fs::read_to_string(library.join("deps/liba-0123.rmeta"))?, "metadata");
    let launch = fs::read_to_string(library.join("launch.json"))?;
    let launch: Value = serde_json::from_str(&launch)?;
    assert_eq!(launch["set"]["LAB_PROJECT"], json!(world.to));
    assert_eq!(launch["libraries"][0], json!(library));
    assert_eq!(launch["argv"][0], json!(state.join("evcxr/bin/evcxr_jupyter")));
    for (path, content) in world.state() {
        let old = format!("{}/", world.from.display());
        let holds = content.windows(old.len()).any(|part| part == old.as_bytes());
        assert!(!holds, "{} names the place where it was packed", path.display());
    }
    for name in ["stand-in", "stand-in-2"] {
        let output = Command::new(state.join("venv/bin").join(name)).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let venv = state.join("venv").display().to_string();
        assert_eq!(text.matches(&venv).count(), 2, "{name}: {output:?}");
    }

    // Nothing is compiled: neither the library nor the program of its commands could be.
    let (good, text) = run(&world.to, &["setup"])?;
    assert!(good, "{text}");
    assert!(text.contains("==> library: from a pack"), "{text}");
    let (good, text) = run(&world.to, &["data", "list"])?;
    assert!(good && text.contains("the program of the pack: data list"), "{text}");
    let (good, text) = world.unpack(&world.pack)?;
    assert!(good, "a second time: {text}");

    // A change is seen, said, and compiled (which fails here).
    fs::write(world.to.join("crate/src/lib.rs"), "pub fn changed() {}\n")?;
    let (good, text) = run(&world.to, &["setup"])?;
    assert!(!good, "{text}");
    assert!(
        text.contains("is no longer used (crate/src/lib.rs has other content): compiling"),
        "{text}"
    );
    let (good, text) = run(&world.to, &["data", "list"])?;
    assert!(!good && !text.contains("the program of the pack"), "{text}");
    Ok(())
}

#[test]
fn another_machine_compiler_or_clone_is_refused_with_both_values() -> Tested {
    let world = World::new("pack-refused")?;
    // Any command makes the state's folder.
    run(&world.to, &["run", "no-such-notebook"])?;
    let before = world.state();
    let refused = |change: &dyn Fn(&mut Value), texts: &[&str]| -> Tested {
        let (good, text) = world.unpack(&world.edited(change, &json!([]))?)?;
        assert!(!good && text.contains("edited.tar cannot be unpacked here:"), "{text}");
        for wanted in texts {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
        assert_eq!(world.state(), before, "a refused pack wrote something: {text}");
        Ok(())
    };
    let here = format!("{} {}", std::env::consts::OS, std::env::consts::ARCH);
    refused(&|m| m["machine"]["system"] = json!("plan9 mips"), &["made on plan9 mips", &here])?;
    refused(
        &|m| m["machine"]["libc"] = json!("glibc 99.1"),
        &["need glibc 99.1 or newer and this machine has ", "cargo lab"],
    )?;
    refused(
        &|m| m["machine"]["processor"]["needs"] = json!(["sse2", "avx1024"]),
        &["with avx1024, which the processor here (", "RUSTFLAGS"],
    )?;
    refused(
        &|m| {
            let rustc = m["machine"]["rustc"].as_str().unwrap_or_default();
            let old = rustc.replacen("rustc ", "rustc 0.", 1).replace("release: ", "release: 0.");
            m["machine"]["rustc"] = json!(old);
        },
        &["built by 'rustc 0.1", "the compiler here is 'rustc 1", "rustup toolchain install 0.1"],
    )?;
    refused(
        &|m| {
            let rustc = m["machine"]["rustc"].as_str().unwrap_or_default();
            m["machine"]["rustc"] = json!(rustc.replace("LLVM version: ", "LLVM version: 9"));
        },
        &["built by 'LLVM version: 9", "here is 'LLVM version: "],
    )?;
    refused(
        &|m| m["machine"]["python"] = json!({ "version": "3.9.1", "abi": "cpython-39-x" }),
        &["of Python 3.9.1 (cpython-39-x) and the Python here is 3.", "LAB_PYTHON"],
    )?;
    refused(
        &|m| m["machine"]["requirements"] = json!("0123456789abcdef"),
        &["another notebooks/requirements.txt (hash 0123456789abcdef, here "],
    )?;
    refused(
        &|m| {
            m["commit"] = json!("feedbeefcafe");
            m["sources"]["crate/src/lib.rs"] = json!("0123456789abcdef");
        },
        &["made from feedbeefcafe and this clone is at ", "crate/src/lib.rs has other content"],
    )?;
    refused(
        &|m| m["sources"]["crate/src/gone.rs"] = json!("0123456789abcdef"),
        &["crate/src/gone.rs is missing"],
    )?;
    refused(
        &|m| {
            m["machine"]["libc"] = json!("glibc 99.1");
            m["machine"]["system"] = json!("plan9 mips");
        },
        &["\n- it was made on plan9 mips", "\n- its programs need glibc 99.1"],
    )?;
    // A C library that is older than this machine's serves: newer ones keep what it had.
    if cfg!(all(target_os = "linux", target_env = "gnu")) {
        let older = |m: &mut Value| m["machine"]["libc"] = json!("glibc 2.1");
        let (good, text) = world.unpack(&world.edited(older, &json!([]))?)?;
        assert!(good, "{text}");
    }
    let old = world.folder.0.join("old-python");
    stand_in::program(&old, "#!/bin/sh\necho 3.9.18\necho cpython-39\n")?;
    let unpack = ["unpack", &world.pack.to_string_lossy()];
    let (good, text) = told(lab(&unpack).current_dir(&world.to).env("LAB_PYTHON", old))?;
    assert!(!good && text.contains("Python here is 3.9.18, and 3.10 or newer is needed"), "{text}");
    let (good, text) = world.unpack(&world.edited(|m| m["format"] = json!(9), &json!([]))?)?;
    assert!(!good && text.contains("has format 9, and this `cargo lab` reads format 1"), "{text}");
    Ok(())
}

#[test]
fn a_damaged_pack_is_refused() -> Tested {
    let world = World::new("pack-damaged")?;
    run(&world.to, &["run", "no-such-notebook"])?;
    let before = world.state();
    let bytes = fs::read(&world.pack)?;
    let manifest = bytes.iter().position(|b| *b == b'{').ok_or("the pack has no manifest")?;
    let payload = bytes.windows(3).position(|part| part == [0x1f, 0x8b, 8]);
    let payload = payload.ok_or("the pack has no payload")?;
    let sums = bytes.windows(13).rposition(|part| part == b"manifest.json");
    let sums = sums.ok_or("the pack has no sums")?;
    let file = world.folder.0.join("damaged.tar");
    let refused = |what: &str, bytes: &[u8]| -> Tested {
        fs::write(&file, bytes)?;
        let (good, text) = world.unpack(&file)?;
        let wanted = "damaged.tar is damaged, cut off or was not made by `cargo lab pack`: ";
        assert!(!good && text.contains(wanted), "{what}: {text}");
        assert!(text.contains("Copy it again"), "{what}: {text}");
        assert_eq!(world.state(), before, "{what}: it wrote something");
        Ok(())
    };
    for place in [manifest + 40, payload + 20, (payload + sums) / 2, sums - 30] {
        let mut other = bytes.clone();
        other[place] ^= 1;
        refused(&format!("bit at {place}"), &other)?;
    }
    for length in [0, 100, manifest + 40, (payload + sums) / 2, sums] {
        refused(&format!("{length} bytes"), &bytes[..length])?;
    }
    refused("text", b"This is no archive.\n".repeat(100).as_slice())?;
    let (good, text) = world.unpack(Path::new("no-such-file.tar"))?;
    assert!(!good && text.contains("no-such-file.tar: No such file"), "{text}");
    Ok(())
}

#[test]
fn a_hostile_pack_is_refused() -> Tested {
    let world = World::new("pack-hostile")?;
    run(&world.to, &["run", "no-such-notebook"])?;
    let parts = |world: &World| {
        let mut state = world.state();
        state.retain(|(path, _)| !path.ends_with(".lab/lock"));
        state
    };
    let before = parts(&world);
    let outside = world.folder.0.join("outside");
    let absolute = outside.to_string_lossy();
    let members = [
        (json!({ "name": absolute, "type": "0" }), "is not a path inside a folder"),
        (json!({ "name": "../../outside", "type": "0" }), "is not a path inside a folder"),
        (json!({ "name": "venv/../../../outside", "type": "0" }), "is not a path inside a folder"),
        (json!({ "name": "venv/a", "type": "2", "link": absolute }), "is a link or a device"),
        (json!({ "name": "venv/a", "type": "2", "link": "lib" }), "is a link or a device"),
        (
            json!({ "name": "venv/a", "type": "1", "link": "evcxr/version" }),
            "is a link or a device",
        ),
        (json!({ "name": "venv/a", "type": "6" }), "is a link or a device"),
        (json!({ "name": "evcxr/version", "type": "0" }), "evcxr/version comes twice"),
    ];
    for (member, wanted) in members {
        let more = |m: &mut Value| {
            m["contents"]["files"] = json!(m["contents"]["files"].as_u64().unwrap_or(0) + 1);
        };
        let (good, text) = world.unpack(&world.edited(more, &json!([member]))?)?;
        assert!(!good && text.contains(wanted) && text.contains("trust"), "{member}: {text}");
        assert!(!outside.exists(), "{member}: it wrote outside");
        assert_eq!(parts(&world), before, "{member}: it wrote something");
    }
    // More than it says it holds.
    let member = json!([{ "name": "venv/more", "type": "0" }]);
    let (good, text) = world.unpack(&world.edited(|_| {}, &member)?)?;
    assert!(!good && text.contains("its payload has others"), "{text}");
    assert_eq!(parts(&world), before);

    // And a lab with a link in it is not packed.
    std::os::unix::fs::symlink("/etc", world.from.join(".lab/venv/share/link"))?;
    let (good, text) = run(&world.from, &["pack", "other.tar"])?;
    assert!(!good && text.contains("share/link is a link or not a regular file"), "{text}");
    assert!(!world.from.join("other.tar").exists());
    Ok(())
}

#[test]
fn the_sources_are_all_that_the_library_includes() -> Tested {
    let sources = Sources::of(&project())?.json();
    let known = |path: &Path| -> Tested<bool> {
        let path = fs::canonicalize(path)?;
        let path = path.strip_prefix(project())?;
        Ok(sources[path.to_string_lossy().as_ref()].is_string())
    };
    let mut open = vec![project().join("crate")];
    let mut included = 0;
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder)?.flatten() {
            let path = entry.path();
            let ours = !path.ends_with("crate/benches") && !path.ends_with("crate/examples");
            if path.is_dir() && ours {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                assert!(known(&path)?, "{} is no source", path.display());
                let text = fs::read_to_string(&path)?;
                for part in text.split("include_").skip(1) {
                    let name = part.strip_prefix("str!(\"").or(part.strip_prefix("bytes!(\""));
                    let Some(name) = name.and_then(|rest| rest.split('"').next()) else { continue };
                    let file = path.parent().unwrap_or(&path).join(name);
                    assert!(known(&file)?, "{} includes {name}", path.display());
                    included += 1;
                }
            }
        }
    }
    assert!(included > 8, "{included} includes found");
    Ok(())
}
