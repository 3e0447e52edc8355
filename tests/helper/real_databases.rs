//! Databases that real OpenCode programs wrote, against what the original
//! listing query answers for them.

use serde_json::Value;

use crate::support::{self, fixtures, listing, real_database};

/// The ids, their order, the titles, the times and the marks.
#[test]
fn every_version_lists_as_its_reference() {
    let _limit = support::limit(60);
    for version in ["1.2.1", "1.14.34", "1.18.33", "1.18.33-v2api"] {
        let (_directory, db) = real_database(version);
        let (sessions, end) = listing(&db, &[]);
        let reference = std::fs::read(fixtures().join(format!("expected-{version}.json"))).unwrap();
        let reference: Value = serde_json::from_slice(&reference).unwrap();
        let reference = reference["rows"].as_array().unwrap();
        assert_eq!(sessions.len(), reference.len(), "{version}");
        assert_eq!(end["database"], "ready");
        assert_eq!(end["flat"], false);
        for (session, expected) in sessions.iter().zip(reference) {
            for (ours, theirs) in [
                ("id", "sessionId"),
                ("directory", "cwd"),
                ("title", "title"),
                ("timeCreated", "createdAt"),
                ("timeUpdated", "lastActivityAt"),
            ] {
                assert_eq!(session[ours], expected[theirs], "{version}: {expected}");
            }
            let marked = expected["hasThreeViewsMarker"] == 1;
            assert_eq!(session["marked"], marked, "{version}: {expected}");
        }
    }
}
