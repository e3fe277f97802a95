//! Passwords: which ones are taken. (How they are hashed is the kernel's `hashing`.)

pub mod policy;
