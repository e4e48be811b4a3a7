//! What a cell with `.await` is compiled against.
//!
//! At the first `.await` evcxr adds the crate tokio from crates.io, unless there is a dependency of
//! that name. Without a network, a cell waits long for a message that does not mention it; with
//! one, a runtime is downloaded that no function of the lab needs. So kernels start with a crate of
//! that name which compiles into a clear error. A user's own `:dep tokio = ..` takes its place.

use crate::Result;
use crate::files;
use std::path::Path;

/// The package, and the folder that it lies in.
pub const PACKAGE: &str = "no-async";

/// What evcxr's code around the cell uses of tokio, and a condition that no cell fulfils.
pub const SOURCE: &str = r#"//! In place of tokio: a cell has no async runtime.

use std::convert::Infallible;
use std::future::Future;

pub mod runtime {
    use super::*;

    pub struct Runtime(Infallible);

    impl Runtime {
        pub fn new() -> Result<Self, Infallible> {
            unreachable!("no cell that asks for it compiles")
        }

        pub fn block_on<F: Future + AsyncRuntime>(&self, _: F) -> F::Output {
            match self.0 {}
        }
    }
}

#[diagnostic::on_unimplemented(
    message = "a cell has no async runtime, and the lab's functions block: call them without `.await`. For the futures of another crate add tokio first, with a network: `:dep tokio = {{ version = \"1\", features = [\"full\"] }}`",
    label = "`.await` in a cell"
)]
pub trait AsyncRuntime {}
"#;

/// Write it below `folder`.
pub fn write(folder: &Path) -> Result<()> {
    let manifest =
        format!("[package]\nname = {PACKAGE:?}\nversion = \"0.0.0\"\nedition = \"2024\"\n");
    files::write(&folder.join(PACKAGE).join("Cargo.toml"), manifest.as_bytes())?;
    files::write(&folder.join(PACKAGE).join("src").join("lib.rs"), SOURCE.as_bytes())
}
