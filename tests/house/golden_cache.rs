//! Samples of the scan cache.

use std::fs;

use crate::support::{self, samples, version};

/// A helper that is given a cache of any version lists the marked sessions that there
/// are, and leaves a cache of its own in its place.
#[test]
fn helper_replaces_every_scan_cache_sample() {
    let _limit = support::limit(60);
    let samples = samples("cache");
    assert!(samples.contains_key(&1));
    let newest = samples.keys().copied().max();
    for (found, bytes) in samples {
        let (place, db) = support::real_database("1.18.33");
        let (expected, _) = support::listing(&db, &[]);
        let cache = place.path().join("cache");
        fs::write(&cache, &bytes).unwrap();
        let with_cache = ["--scan-cache", cache.to_str().unwrap()];
        let (sessions, end) = support::listing(&db, &with_cache);
        assert_eq!(sessions, expected, "cache-{found}.bin");
        assert_eq!(end["scan"]["mode"], "full", "cache-{found}.bin");
        let marked = |session: &&serde_json::Value| session["marked"] == true;
        assert_eq!(sessions.iter().filter(marked).count(), 1);
        let replaced = fs::read(&cache).unwrap();
        assert_ne!(replaced, bytes, "cache-{found}.bin");
        assert_eq!(replaced[..8], bytes[..8], "cache-{found}.bin");
        assert_eq!(
            newest,
            Some(version(&replaced)),
            "a new version needs a sample: let a helper write it with --scan-cache"
        );
        let (sessions, end) = support::listing(&db, &with_cache);
        assert_eq!(sessions, expected, "cache-{found}.bin");
        assert_eq!(end["scan"]["mode"], "unchanged", "cache-{found}.bin");
    }
}
