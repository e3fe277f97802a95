//! Suites that every backend must pass.

mod sessions;
mod values;

use crate::support::Test;

pub fn tests() -> Vec<Test> {
    [sessions::tests(), values::tests()].into_iter().flatten().collect()
}
