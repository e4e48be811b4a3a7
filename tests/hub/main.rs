//! Promise: a file of the Hub is whole and verified or is not there; nothing waits without
//! end; the token is seen by the Hub alone.

mod cache;
mod environment;
mod faults;
mod kinds;
mod listing;
mod proxy;
mod secrets;
mod server;
mod spoil;
mod store;
mod upload;
mod world;
