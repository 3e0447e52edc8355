//! The format of the cache file, pinned.

use super::super::*;
use crate::stamp::FileStamp;

/// Every field has a different value, so that a swap of two fields is detected.
fn samples() -> [(&'static str, CacheFile); 2] {
    let stamp = DatabaseStamp {
        file: FileStamp {
            device: 11,
            inode: 12,
            size: 5_000_000_000,
            modified: (1_795_338_894, 119),
        },
        changed: (-14, 15),
        change_counter: 16,
    };
    let key = CacheKey {
        device: 21,
        inode: 22,
        page_size: 65_536,
        reserved_bytes: 23,
        marker: "a marker for a test".to_owned(),
        schema_version: Some(-24),
        root_pages: vec![(0, 25), (5, u32::MAX)],
    };
    let position = WalPosition {
        salts: [31, u32::MAX],
        frames: 32,
        checksum: [33, 34],
        big_endian: true,
    };
    let sql = SqlState {
        key: Some(key.clone()),
        position,
        stamp: None,
        pass_index: 51,
        last_rowid: Some(-52),
        marked: BTreeSet::from(["ses_b".to_owned()]),
        is_complete: true,
    };
    let state = ScanState {
        key,
        position,
        stamp: Some(stamp),
        is_caught_up: true,
        commits: Some(46),
        is_past_hole: true,
        phase: Phase::Owners {
            pages: 41,
            done: 42,
            has_grown: true,
        },
        rows_with_half: BTreeSet::from([(0, i64::MIN), (5, i64::MAX)]),
        unowned_pages: BTreeSet::from([43, 44]),
        marked: BTreeSet::from(["ses_a".to_owned(), "ses_日本".to_owned()]),
        sql_state: Some(sql.clone()),
        is_renewing: true,
        search_started_ms: -45,
    };
    let with_schema = CacheFile {
        scan: ScanCache::Pages(state),
        schema: Some(KnownSchema::sample()),
    };
    let by_sql = CacheFile {
        scan: ScanCache::Sql(sql),
        schema: None,
    };
    [("cache-3.bin", with_schema), ("cache-sql-3.bin", by_sql)]
}

/// See `tests/house/golden.rs`, which holds the samples of the other formats.
#[test]
fn cache_format_is_pinned() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/golden");
    for (name, value) in samples() {
        let encoded = codec::encode(FORMAT, &value).unwrap();
        let path = directory.join(name);
        if std::env::var_os("GOLDEN_WRITE").is_some() {
            std::fs::write(&path, &encoded).unwrap();
        }
        let sample = std::fs::read(&path).unwrap();
        assert_eq!(
            encoded, sample,
            "{name}: a changed type needs a new version"
        );
        assert_eq!(CacheFile::load(&path), Some((value, sample)), "{name}");
    }
    // A cache of an earlier version counts as missing.
    for name in ["cache-1.bin", "cache-2.bin", "cache-sql-2.bin"] {
        assert_eq!(CacheFile::load(&directory.join(name)), None);
    }
}
