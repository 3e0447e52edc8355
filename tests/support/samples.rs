//! Samples of the formats that outlive the program that wrote them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::support;

/// Set to anything, it makes the tests write the samples of this version.
pub(crate) const WRITE: &str = "GOLDEN_WRITE";

pub(crate) fn directory() -> PathBuf {
    support::fixtures().join("golden")
}

pub(crate) fn sample(name: &str) -> Vec<u8> {
    let path = directory().join(name);
    fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; {WRITE}=1 writes it", path.display()))
}

/// The samples `KIND-VERSION.bin`, by their versions.
pub(crate) fn samples(kind: &str) -> BTreeMap<u32, Vec<u8>> {
    let version = |name: &str| {
        let rest = name.strip_prefix(kind)?.strip_prefix('-')?;
        rest.strip_suffix(".bin")?.parse().ok()
    };
    let names = fs::read_dir(directory()).unwrap().map(|entry| {
        let name = entry.unwrap().file_name();
        name.into_string().unwrap()
    });
    names
        .filter_map(|name| Some((version(&name)?, sample(&name))))
        .collect()
}

/// The format version in the header of a file.
pub(crate) fn version(file: &[u8]) -> u32 {
    u32::from_le_bytes(file[8..12].try_into().unwrap())
}
