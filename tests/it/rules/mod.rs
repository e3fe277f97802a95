//! Rules that no other test would miss: each of these was written for a check that could be taken out of the source
//! unnoticed.

mod contract;
mod faults;
mod hashing;
mod http;
mod keys;
mod login;
mod logout;
mod me;
mod process;
mod refresh;
mod register;
mod unit;

use crate::support::Test;

pub fn tests() -> Vec<Test> {
    [
        contract::tests(),
        faults::tests(),
        hashing::tests(),
        http::tests(),
        keys::tests(),
        login::tests(),
        logout::tests(),
        me::tests(),
        process::tests(),
        refresh::tests(),
        register::tests(),
        unit::tests(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
