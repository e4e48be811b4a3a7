//! The command line.
use crate::{Result, place::{Place, Turn}, setup};
use std::process::ExitCode;
pub fn run() -> Result<ExitCode> { let place = Place::find()?; let turn = Turn::take(&place)?; setup::all(&place, &turn)?; Ok(ExitCode::SUCCESS) }
