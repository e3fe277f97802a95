//! Suites that every backend must pass.

mod sessions;

use crate::support::Test;

pub fn tests() -> Vec<Test> {
    sessions::tests()
}
