//! Makes cargo see a change in the tests. They lie outside this package, where cargo keeps their
//! paths as they were: where clones share a target folder it would run the tests of another one.

fn main() {
    println!("cargo::rerun-if-changed=../../tests/lab");
}
