//! Suites that every backend must pass.

mod attempts;
pub mod sessions;
mod values;

use crate::support::Test;

pub fn tests() -> Vec<Test> {
    [attempts::tests(), sessions::tests(), values::tests()].into_iter().flatten().collect()
}
