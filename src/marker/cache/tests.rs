//! Tests of the phases without a database: links between pages stand for the file and the
//! log, and the budget ends at any step.

mod format;

use super::*;
use crate::stamp::FileStamp;
use fastrand::Rng;

fn key() -> CacheKey {
    CacheKey {
        device: 1,
        inode: 2,
        page_size: 512,
        reserved_bytes: 0,
        marker: "a marker for a test".to_owned(),
        schema_version: None,
        root_pages: Vec::new(),
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
        is_past_hole: false,
    }
}

/// A link to a page, from another page or a row.
#[derive(Clone, Copy)]
enum Link {
    Page(u32, u32),
    Row(u32, i64),
}

/// Follows the links back from `unowned` until no more are found.
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

/// A file whose pages hold one link each, a log whose frames do, and the pages that no
/// row owns at the end of the log.
struct World {
    file: Vec<Link>,
    log: Vec<Link>,
    free: BTreeSet<u32>,
}

impl World {
    fn random(random: &mut Rng) -> Self {
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

/// Simulates one scan, as `pages::scan_pages` does it, with a budget of `slices` slices.
fn scan(
    world: &World,
    state: &mut ScanState,
    owners: &mut BTreeSet<i64>,
    random: &mut Rng,
    mut slices: u32,
) {
    let pages = world.file_pages();
    let log_end = u32::try_from(world.log.len()).unwrap();
    loop {
        let from = state.position().frames;
        let max_frames = if slices == 0 { 1 } else { log_end };
        let to = log_end.min(from + max_frames);
        let mut unowned = state.unowned_pages().clone();
        trace(&world.log[from as usize..to as usize], &mut unowned, owners);
        if to == log_end {
            // Some pages are known to be free only if they were unowned when the read
            // began.
            let is_known_free =
                |page: &&u32| page.is_multiple_of(2) || state.unowned_pages().contains(*page);
            let free = unowned.intersection(&world.free).filter(is_known_free);
            let free = free.copied().collect();
            unowned = state.remove_free_pages(unowned, &free);
        }
        state.record_log_read(read(to), end(log_end), unowned, pages);
        state.advance(pages);
        if state.is_complete() || slices == 0 {
            return;
        }
        if let Phase::Owners { pages, done, .. } = state.phase() {
            let reached = (done + random.u32(1..=pages)).min(pages);
            let mut unowned = state.unowned_pages().clone();
            // From the end of the file.
            let (first, last) = ((pages - reached) as usize, (pages - done) as usize);
            trace(&world.file[first..last], &mut unowned, owners);
            state.record_owner_search(reached, true, unowned);
        }
        slices -= 1;
    }
}

#[test]
fn owner_search_compares_every_link_with_the_final_set() {
    let mut completed = 0;
    for seed in 0..100_000 {
        let mut random = Rng::with_seed(seed);
        let world = World::random(&mut random);
        let mut state = ScanState::new(key(), end(0), 0);
        state.record_page_search(world.file_pages(), BTreeSet::from([random.u32(0..6)]));
        let start = state.unowned_pages().clone();
        let mut owners = BTreeSet::new();
        for _ in 0..100 {
            let slices = random.u32(0..8);
            scan(&world, &mut state, &mut owners, &mut random, slices);
            if state.is_complete() {
                break;
            }
        }
        completed += u32::from(state.is_complete());
        // With a sufficient budget, every scan completes.
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
        // No row owns pages through a free page.
        links.retain(|link| !matches!(link, Link::Page(_, from) if world.free.contains(from)));
        let needed = owners_of(&start - &world.free, &links);
        assert!(owners.is_subset(&all), "seed {seed}");
        assert!(owners.is_superset(&needed), "seed {seed}");
    }
    assert!(completed > 95_000, "{completed} of 100000 completed");
}

#[test]
fn pages_searched_after_the_log_need_another_round() {
    let mut state = ScanState::new(key(), end(0), 0);
    state.record_page_search(10, BTreeSet::from([3]));
    state.record_log_read(read(0), end(0), BTreeSet::from([3]), 10);
    state.advance(10);
    assert!(matches!(state.phase(), Phase::Owners { done: 0, .. }));
    // The budget ends, another program writes, and the next scan begins with the log.
    state.record_log_read(read(2), end(2), BTreeSet::from([3]), 10);
    state.record_owner_search(10, true, BTreeSet::from([3, 4]));
    state.record_log_read(read(2), end(2), BTreeSet::from([3, 4]), 10);
    state.advance(10);
    assert!(!state.is_complete());
    // The next round reads the pages first, and then the log with the final set.
    assert_eq!(state.position().frames, 0);
    state.record_owner_search(10, true, BTreeSet::from([3, 4]));
    state.record_log_read(read(2), end(2), BTreeSet::from([3, 4]), 10);
    state.advance(10);
    assert!(state.is_complete());
}

#[test]
fn search_completes_only_with_all_pages_and_the_whole_log() {
    let mut state = ScanState::new(key(), end(4), 0);
    state.record_page_search(10, BTreeSet::new());
    state.record_log_read(read(2), end(4), BTreeSet::new(), 10);
    state.advance(10);
    assert!(!state.is_complete());
    assert!(!state.is_between_transactions());
    // The file has grown.
    state.record_log_read(read(4), end(4), BTreeSet::new(), 11);
    state.advance(11);
    assert!(!state.is_complete());
    state.record_page_search(11, BTreeSet::new());
    state.record_log_read(read(4), end(4), BTreeSet::new(), 11);
    state.advance(11);
    assert!(state.is_complete());
}

#[test]
fn new_unowned_pages_reopen_a_complete_state() {
    let mut state = ScanState::new(key(), end(0), 0);
    state.record_log_read(read(0), end(0), BTreeSet::new(), 0);
    state.advance(0);
    assert!(state.is_complete());
    assert!(state.record_log_read(read(3), end(3), BTreeSet::from([7]), 5));
    assert!(!state.is_complete());
    assert_eq!(state.position().frames, 0);
}

#[test]
fn position_is_past_hole_is_lost_by_a_restart() {
    let restarted = |frames| WalPosition {
        salts: [6, 7],
        ..end(frames)
    };
    let past = |to| LogRead {
        to,
        frames: 1,
        is_past_hole: true,
    };
    let mut state = ScanState::new(key(), end(0), 0);
    state.record_log_read(past(end(3)), end(3), BTreeSet::new(), 0);
    assert!(state.is_broken_by_restart(restarted(1)));
    assert!(!state.is_broken_by_restart(end(9)));
    // Reading past the hole does not remove it.
    state.record_log_read(read(5), end(5), BTreeSet::new(), 0);
    assert!(state.is_broken_by_restart(restarted(1)));
    // Another generation does.
    let next = LogRead {
        to: restarted(2),
        frames: 2,
        is_past_hole: false,
    };
    state.record_log_read(next, restarted(2), BTreeSet::new(), 0);
    assert!(!state.is_broken_by_restart(end(1)));
}

#[test]
fn renewal_reads_everything_again_and_keeps_the_state() {
    let mut state = ScanState::new(key(), end(0), 1_000);
    state.record_log_read(read(0), end(0), BTreeSet::new(), 0);
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
    state.record_page_search(4, BTreeSet::new());
    state.record_log_read(read(9), end(9), BTreeSet::new(), 4);
    state.advance(4);
    assert!(state.is_complete() && !state.is_renewing());
}

fn stamp() -> DatabaseStamp {
    let file = FileStamp {
        device: 1,
        inode: 2,
        size: 3,
        modified: (4, 5),
    };
    DatabaseStamp {
        file,
        changed: (6, 7),
        change_counter: 8,
    }
}

#[test]
fn state_matches_only_the_same_key_and_stamp() {
    let stamp = stamp();
    let file = stamp.file;
    let mut state = ScanState::new(key(), WalPosition::NO_LOG, 0);
    state.set_stamp(Some(stamp));
    // A log that was begun since holds all that is new.
    for end in [WalPosition::NO_LOG, end(7)] {
        assert!(state.is_valid_for(&key(), end, stamp));
    }
    let with_file = |file| DatabaseStamp { file, ..stamp };
    let others = [
        with_file(FileStamp { device: 9, ..file }),
        with_file(FileStamp { inode: 9, ..file }),
        with_file(FileStamp { size: 9, ..file }),
        with_file(FileStamp {
            modified: (4, 9),
            ..file
        }),
        DatabaseStamp {
            changed: (6, 9),
            ..stamp
        },
        DatabaseStamp {
            change_counter: 9,
            ..stamp
        },
    ];
    for other in others {
        for end in [WalPosition::NO_LOG, end(7)] {
            assert!(!state.is_valid_for(&key(), end, other), "{other:?}");
        }
    }
    state.set_stamp(None);
    for end in [WalPosition::NO_LOG, end(7)] {
        assert!(!state.is_valid_for(&key(), end, stamp));
    }
    let other_keys = [
        CacheKey {
            page_size: 1024,
            ..key()
        },
        CacheKey {
            reserved_bytes: 12,
            ..key()
        },
        CacheKey {
            schema_version: Some(4),
            ..key()
        },
        CacheKey {
            marker: "another marker".to_owned(),
            ..key()
        },
        CacheKey {
            root_pages: vec![(0, 2)],
            ..key()
        },
    ];
    let in_log = ScanState::new(key(), end(3), 0);
    assert!(in_log.is_valid_for(&key(), end(7), stamp));
    // The log is gone, and what was in it is in the file.
    assert!(!in_log.is_valid_for(&key(), WalPosition::NO_LOG, stamp));
    for other in other_keys {
        assert!(!in_log.is_valid_for(&other, end(7), stamp), "{other:?}");
        // The rows of another key are not taken over, unless they are of more b-trees.
        let covers = other.covers(&key());
        let mut earlier = ScanState::new(other, end(3), 0);
        earlier.rows_with_half.insert((0, 1));
        let state = ScanState::new(key(), end(3), 0).with_rows_from(Some(earlier));
        assert_eq!(!state.rows_with_half.is_empty(), covers);
    }
    let mut earlier = ScanState::new(key(), end(3), 0);
    earlier.rows_with_half.insert((0, 1));
    assert_eq!(
        ScanState::new(key(), end(3), 0)
            .with_rows_from(Some(earlier))
            .rows_with_half,
        BTreeSet::from([(0, 1)])
    );
}

#[test]
fn key_covers_the_same_or_fewer_b_trees() {
    let with = |root_pages: &[(u8, u32)]| CacheKey {
        root_pages: root_pages.to_vec(),
        ..key()
    };
    for (earlier, later, expected) in [
        (&[(0, 4), (1, 7)][..], &[(0, 4), (1, 7)][..], true),
        (&[(0, 4), (1, 7)], &[(1, 7)], true),
        (&[(0, 4)], &[], true),
        // Another b-tree, another table, a table more.
        (&[(0, 4)], &[(0, 5)], false),
        (&[(0, 4)], &[(1, 4)], false),
        (&[(0, 4)], &[(0, 4), (1, 7)], false),
        // It is not known where its rows are.
        (&[(0, 0)], &[(0, 0)], false),
    ] {
        assert_eq!(with(earlier).covers(&with(later)), expected, "{earlier:?}");
    }
}

#[test]
fn resumed_state_reads_a_new_log_from_its_start() {
    let mut state = ScanState::new(key(), WalPosition::NO_LOG, 0);
    state.record_log_read(
        LogRead {
            to: WalPosition::NO_LOG,
            frames: 0,
            is_past_hole: false,
        },
        WalPosition::NO_LOG,
        BTreeSet::new(),
        4,
    );
    assert!(state.is_caught_up);
    let stamp = stamp();
    state.set_stamp(Some(stamp));
    let mut in_log = state.clone();
    in_log.resume(key(), end(7), stamp);
    assert_eq!(in_log.position(), end(7).start());
    assert!(!in_log.is_caught_up);
    state.resume(key(), WalPosition::NO_LOG, stamp);
    assert!(state.is_caught_up);
    // An emptied log, after which another one is begun.
    let mut emptied = ScanState::new(key(), end(3), 0);
    emptied.record_log_read(read(3), end(3), BTreeSet::new(), 4);
    emptied.set_stamp(Some(stamp));
    assert_eq!(emptied.stamp, None, "not all of it is in the file");
    let restarted = WalPosition {
        salts: [6, 1],
        ..end(0)
    };
    let to_restarted = LogRead {
        to: restarted,
        ..read(0)
    };
    emptied.record_log_read(to_restarted, restarted, BTreeSet::new(), 4);
    emptied.set_stamp(Some(stamp));
    let other = WalPosition {
        salts: [900, 2],
        ..end(7)
    };
    let other_stamp = DatabaseStamp {
        change_counter: 9,
        ..stamp
    };
    for (now, position) in [(stamp, other.start()), (other_stamp, restarted)] {
        let mut state = emptied.clone();
        state.resume(key(), other, now);
        assert_eq!(state.position(), position);
    }
    // A log that goes on is followed from where it was.
    let mut followed = ScanState::new(key(), end(3), 0);
    followed.record_log_read(read(3), end(3), BTreeSet::new(), 4);
    followed.resume(key(), end(7), stamp);
    assert_eq!(followed.position(), end(3));
}
