//! The build script: packs the script of the API page with gzip, as it is sent (RFC 9110 §8.4), and tells the program
//! what compiles it.
//!
//! It is a quarter of the whole program when it lies there as it is, and every browser takes it packed.

use std::{env, error::Error, fs::File, io::Write, path::Path, process::Command};

use flate2::{Compression, GzBuilder};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=src/http/docs/pack.rs");
    println!("cargo::rerun-if-changed=Cargo.lock");
    let script = scalar_api_reference::get_asset("scalar.js").ok_or("scalar_api_reference has no scalar.js")?;
    let folder = env::var_os("OUT_DIR").ok_or("Cargo sets OUT_DIR")?;
    let file = File::create(Path::new(&folder).join("scalar.js.gz"))?;
    // Without a time or a name in it: the same input is the same program.
    let mut packer = GzBuilder::new().write(file, Compression::best());
    packer.write_all(&script)?;
    packer.finish()?.sync_all()?;

    let rustc = env::var_os("RUSTC").ok_or("Cargo sets RUSTC")?;
    let version = String::from_utf8(Command::new(rustc).arg("--version").output()?.stdout)?;
    println!("cargo::rustc-env=BUILD_RUSTC={}", version.trim());
    Ok(())
}
