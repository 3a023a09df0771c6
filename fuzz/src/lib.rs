//! The fuzz targets' only code: what they try is the tests' own file, see `docs/fuzzing.md`.

#[path = "../../tests/src/hostile.rs"]
pub mod hostile;

#[global_allocator]
static ALLOCATOR: hostile::memory::Counting = hostile::memory::Counting;

/// Tries one input of the target called `name`.
pub fn run(name: &str, data: &[u8]) {
    let target = hostile::TARGETS.iter().find(|target| target.name == name);
    hostile::check(target.expect("a target of this name"), data);
}
