//! The phases, driven without a database: links between pages stand for the file and
//! the log, and time is up at any step.

use super::*;
use fastrand::Rng;

fn key() -> CacheKey {
    CacheKey {
        device: 1,
        inode: 2,
        page_size: 512,
        reserved: 0,
        marker: "a marker for a test".to_owned(),
        schema_version: 3,
        tables: Vec::new(),
    }
}

fn end(frames: u32) -> WalPosition {
    WalPosition {
        salts: [5, 6],
        frames,
        checksum: [frames, 0],
        big_endian: false,
    }
}

fn read(frames: u32) -> LogRead {
    LogRead {
        to: end(frames),
        frames: 0,
        past_a_hole: false,
    }
}

/// What leads to a page: another page, or a row.
#[derive(Clone, Copy)]
enum Link {
    Page(u32, u32),
    Row(u32, i64),
}

/// Follows links back from `unowned` until nothing more is found.
fn trace(links: &[Link], unowned: &mut BTreeSet<u32>, owners: &mut BTreeSet<i64>) {
    loop {
        let before = unowned.len();
        for link in links {
            match *link {
                Link::Page(to, from) if unowned.contains(&to) => {
                    unowned.insert(from);
                }
                Link::Row(to, row) if unowned.contains(&to) => {
                    owners.insert(row);
                }
                _ => {}
            }
        }
        if unowned.len() == before {
            return;
        }
    }
}

/// A file whose pages hold one link each, and a log whose frames do; and the pages that no
/// row has at the log's end.
struct World {
    file: Vec<Link>,
    log: Vec<Link>,
    free: BTreeSet<u32>,
}

impl World {
    fn of(random: &mut Rng) -> Self {
        let mut link = || match random.u32(0..3) {
            0 => Link::Row(random.u32(0..6), random.i64(0..40)),
            _ => Link::Page(random.u32(0..6), random.u32(0..6)),
        };
        let (file, log) = (
            (0..6).map(|_| link()).collect(),
            (0..4).map(|_| link()).collect(),
        );
        let free = match random.bool() {
            true => (0..6).filter(|_| random.u32(0..3) == 0).collect(),
            false => BTreeSet::new(),
        };
        Self { file, log, free }
    }

    fn file_pages(&self) -> u32 {
        u32::try_from(self.file.len()).unwrap()
    }
}

/// One scan of it, as `pages::run` does one, which has time for so many slices.
fn scan(
    world: &World,
    state: &mut ScanState,
    owners: &mut BTreeSet<i64>,
    random: &mut Rng,
    mut time: u32,
) {
    let pages = world.file_pages();
    let log_end = u32::try_from(world.log.len()).unwrap();
    loop {
        let from = state.position().frames;
        let most = if time == 0 { 1 } else { log_end };
        let to = log_end.min(from + most);
        let mut unowned = state.unowned_pages().clone();
        trace(&world.log[from as usize..to as usize], &mut unowned, owners);
        if to == log_end {
            // Of some it is only known where they were looked for when the reading began.
            let is_known =
                |page: &&u32| page.is_multiple_of(2) || state.unowned_pages().contains(*page);
            let free = unowned.intersection(&world.free).filter(is_known);
            let free = free.copied().collect();
            unowned = state.without_free(unowned, &free);
        }
        state.log_was_read(read(to), end(log_end), unowned, pages);
        state.advance(pages);
        if state.is_complete() || time == 0 {
            return;
        }
        if let Phase::Owners { pages, done, .. } = state.phase() {
            let reached = (done + random.u32(1..=pages)).min(pages);
            let mut unowned = state.unowned_pages().clone();
            // From the end of the file.
            let (first, last) = ((pages - reached) as usize, (pages - done) as usize);
            trace(&world.file[first..last], &mut unowned, owners);
            state.owners_were_looked_for(reached, true, unowned);
        }
        time -= 1;
    }
}

#[test]
fn owners_end_with_every_link_held_against_the_final_set() {
    let mut ended = 0;
    for seed in 0..100_000 {
        let mut random = Rng::with_seed(seed);
        let world = World::of(&mut random);
        let mut state = ScanState::new(key(), end(0), 0);
        state.pages_were_searched(world.file_pages(), BTreeSet::from([random.u32(0..6)]));
        let start = state.unowned_pages().clone();
        let mut owners = BTreeSet::new();
        for _ in 0..100 {
            let time = random.u32(0..8);
            scan(&world, &mut state, &mut owners, &mut random, time);
            if state.is_complete() {
                break;
            }
        }
        ended += u32::from(state.is_complete());
        // With enough time for it, each one ends.
        scan(&world, &mut state, &mut owners, &mut random, 1000);
        assert!(state.is_complete(), "seed {seed}");
        assert!(state.unowned_pages().is_empty());
        let owners_of = |mut pages: BTreeSet<u32>, links: &[Link]| {
            let mut owners = BTreeSet::new();
            trace(links, &mut pages, &mut owners);
            owners
        };
        let mut links = [&world.file[..], &world.log[..]].concat();
        let all = owners_of(start.clone(), &links);
        // No row has its pages by way of a free one.
        links.retain(|link| !matches!(link, Link::Page(_, from) if world.free.contains(from)));
        let needed = owners_of(&start - &world.free, &links);
        assert!(owners.is_subset(&all), "seed {seed}");
        assert!(owners.is_superset(&needed), "seed {seed}");
    }
    assert!(ended > 95_000, "{ended} of 100000 ended");
}

#[test]
fn pages_seen_after_the_log_need_another_round() {
    let mut state = ScanState::new(key(), end(0), 0);
    state.pages_were_searched(10, BTreeSet::from([3]));
    state.log_was_read(read(0), end(0), BTreeSet::from([3]), 10);
    state.advance(10);
    assert!(matches!(state.phase(), Phase::Owners { done: 0, .. }));
    // Time was up; somebody wrote, and the next scan begins with the log.
    state.log_was_read(read(2), end(2), BTreeSet::from([3]), 10);
    state.owners_were_looked_for(10, true, BTreeSet::from([3, 4]));
    state.log_was_read(read(2), end(2), BTreeSet::from([3, 4]), 10);
    state.advance(10);
    assert!(!state.is_complete());
    // The round after reads the pages first, and the log with the final set.
    assert_eq!(state.position().frames, 0);
    state.owners_were_looked_for(10, true, BTreeSet::from([3, 4]));
    state.log_was_read(read(2), end(2), BTreeSet::from([3, 4]), 10);
    state.advance(10);
    assert!(state.is_complete());
}

#[test]
fn search_ends_only_with_all_pages_and_the_whole_log() {
    let mut state = ScanState::new(key(), end(4), 0);
    state.pages_were_searched(10, BTreeSet::new());
    state.log_was_read(read(2), end(4), BTreeSet::new(), 10);
    state.advance(10);
    assert!(!state.is_complete());
    assert!(!state.is_between_transactions());
    // The file has grown.
    state.log_was_read(read(4), end(4), BTreeSet::new(), 11);
    state.advance(11);
    assert!(!state.is_complete());
    state.pages_were_searched(11, BTreeSet::new());
    state.log_was_read(read(4), end(4), BTreeSet::new(), 11);
    state.advance(11);
    assert!(state.is_complete());
}

#[test]
fn new_unowned_pages_undo_what_was_complete() {
    let mut state = ScanState::new(key(), end(0), 0);
    state.log_was_read(read(0), end(0), BTreeSet::new(), 0);
    state.advance(0);
    assert!(state.is_complete());
    assert!(state.log_was_read(read(3), end(3), BTreeSet::from([7]), 5));
    assert!(!state.is_complete());
    assert_eq!(state.position().frames, 0);
}

#[test]
fn position_past_a_hole_is_lost_by_a_restart() {
    let restarted = |frames| WalPosition {
        salts: [6, 7],
        ..end(frames)
    };
    let past = |to| LogRead {
        to,
        frames: 1,
        past_a_hole: true,
    };
    let mut state = ScanState::new(key(), end(0), 0);
    state.log_was_read(past(end(3)), end(3), BTreeSet::new(), 0);
    assert!(state.is_lost_by_a_restart(restarted(1)));
    assert!(!state.is_lost_by_a_restart(end(9)));
    // What is read behind it does not mend it.
    state.log_was_read(read(5), end(5), BTreeSet::new(), 0);
    assert!(state.is_lost_by_a_restart(restarted(1)));
    // Another generation does.
    let next = LogRead {
        to: restarted(2),
        frames: 2,
        past_a_hole: false,
    };
    state.log_was_read(next, restarted(2), BTreeSet::new(), 0);
    assert!(!state.is_lost_by_a_restart(end(1)));
}

#[test]
fn renewal_reads_all_again_and_forgets_nothing() {
    let mut state = ScanState::new(key(), end(0), 1_000);
    state.log_was_read(read(0), end(0), BTreeSet::new(), 0);
    state.advance(0);
    let day = RENEW_AFTER_MS;
    assert!(!state.is_due_for_renewal(1_000 + day));
    assert!(state.is_due_for_renewal(1_001 + day));
    // The clock was set back.
    assert!(state.is_due_for_renewal(999));
    state.begin_renewal(5_000);
    assert!(state.is_complete() && state.is_renewing());
    assert_eq!(state.position().frames, 0);
    assert!(!state.is_due_for_renewal(1_001 + day));
    state.pages_were_searched(4, BTreeSet::new());
    state.log_was_read(read(9), end(9), BTreeSet::new(), 4);
    state.advance(4);
    assert!(state.is_complete() && !state.is_renewing());
}

#[test]
fn only_the_same_database_in_the_same_state_goes_on() {
    let stamp = FileStamp {
        device: 1,
        inode: 2,
        size: 3,
        modified: (4, 5),
        changed: (6, 7),
        change_counter: 8,
    };
    let mut state = ScanState::new(key(), WalPosition::NO_LOG, 0);
    state.keep_stamp(Some(stamp));
    assert!(state.is_about(&key(), WalPosition::NO_LOG, stamp));
    let others = [
        FileStamp { device: 9, ..stamp },
        FileStamp { inode: 9, ..stamp },
        FileStamp { size: 9, ..stamp },
        FileStamp {
            modified: (4, 9),
            ..stamp
        },
        FileStamp {
            changed: (6, 9),
            ..stamp
        },
        FileStamp {
            change_counter: 9,
            ..stamp
        },
    ];
    for other in others {
        assert!(
            !state.is_about(&key(), WalPosition::NO_LOG, other),
            "{other:?}"
        );
    }
    state.keep_stamp(None);
    assert!(!state.is_about(&key(), WalPosition::NO_LOG, stamp));
    let other_keys = [
        CacheKey {
            page_size: 1024,
            ..key()
        },
        CacheKey {
            reserved: 12,
            ..key()
        },
        CacheKey {
            schema_version: 4,
            ..key()
        },
        CacheKey {
            marker: "another marker".to_owned(),
            ..key()
        },
        CacheKey {
            tables: vec![("table".to_owned(), "part".to_owned(), 2, None)],
            ..key()
        },
    ];
    let in_log = ScanState::new(key(), end(3), 0);
    assert!(in_log.is_about(&key(), end(7), stamp));
    for other in other_keys {
        assert!(!in_log.is_about(&other, end(7), stamp), "{other:?}");
        // Nor are its rows.
        let mut earlier = ScanState::new(other, end(3), 0);
        earlier.watched.insert((0, 1));
        let state = ScanState::new(key(), end(3), 0).with_rows_of(Some(earlier));
        assert!(state.watched.is_empty());
    }
    let mut earlier = ScanState::new(key(), end(3), 0);
    earlier.watched.insert((0, 1));
    assert_eq!(
        ScanState::new(key(), end(3), 0)
            .with_rows_of(Some(earlier))
            .watched,
        BTreeSet::from([(0, 1)])
    );
}

// ---- The format on disk.

/// Every field has another value, so that none can change places with another.
fn samples() -> [(&'static str, ScanCache); 2] {
    let stamp = FileStamp {
        device: 11,
        inode: 12,
        size: 5_000_000_000,
        modified: (1_795_338_894, 119),
        changed: (-14, 15),
        change_counter: 16,
    };
    let key = CacheKey {
        device: 21,
        inode: 22,
        page_size: 65_536,
        reserved: 23,
        marker: "a marker for a test".to_owned(),
        schema_version: -24,
        tables: vec![
            (
                "table".to_owned(),
                "part".to_owned(),
                25,
                Some("CREATE TABLE part (…)".to_owned()),
            ),
            ("view".to_owned(), "message".to_owned(), 0, None),
        ],
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
        pass: 51,
        after: Some(-52),
        marked: BTreeSet::from(["ses_b".to_owned()]),
        complete: true,
    };
    let state = ScanState {
        key,
        position,
        stamp: Some(stamp),
        caught_up: true,
        past_a_hole: true,
        phase: Phase::Owners {
            pages: 41,
            done: 42,
            grew: true,
        },
        watched: BTreeSet::from([(0, i64::MIN), (5, i64::MAX)]),
        unowned_pages: BTreeSet::from([43, 44]),
        marked: BTreeSet::from(["ses_a".to_owned(), "ses_日本".to_owned()]),
        by_sql: Some(sql.clone()),
        renewing: true,
        begun_ms: -45,
    };
    [
        ("cache-2.bin", ScanCache::Pages(state)),
        ("cache-sql-2.bin", ScanCache::Sql(sql)),
    ]
}

/// See `tests/golden.rs`, which holds the samples of the other formats.
#[test]
fn format_of_the_cache_is_pinned() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/golden");
    for (name, value) in samples() {
        let encoded = codec::encode(KIND, &value).unwrap();
        let path = directory.join(name);
        if std::env::var_os("GOLDEN_WRITE").is_some() {
            std::fs::write(&path, &encoded).unwrap();
        }
        let sample = std::fs::read(&path).unwrap();
        assert_eq!(
            encoded, sample,
            "{name}: a changed type needs a new version"
        );
        assert_eq!(ScanCache::load(&path), Some(value), "{name}");
    }
    // One of the version before is a cache that is not there.
    assert_eq!(ScanCache::load(&directory.join("cache-1.bin")), None);
}
