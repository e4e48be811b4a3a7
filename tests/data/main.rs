//! Promise: datasets as they are. Rows, channels, sides and labels stay where they were; what
//! is damaged is named; what is chosen or left out is said; what was decoded once is not
//! decoded again.

mod columns;
mod damaged;
mod embedded;
mod folders;
mod formats;
mod given;
mod kept;
mod parts;
mod reading;
mod table;
mod training;

#[allow(dead_code)] // written for the tests of the Hub, which use all of it
#[path = "../hub/server.rs"]
mod server;
