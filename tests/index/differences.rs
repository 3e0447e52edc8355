//! Differences against whole listings: two indexes of the same databases, one of which is kept by
//! differences only, are equal after every listing, whatever happens in between.

use std::io::Cursor;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use opencode_sessions::internals::helper::Difference;
use opencode_sessions::internals::index::{
    Difference as Changes, Index, MergeResult, Moment, Recheck, View, snapshot,
};
use opencode_sessions::internals::line_hash::{LineHash, SetHash};
use opencode_sessions::internals::project::Projects;
use opencode_sessions::internals::query;
use opencode_sessions::internals::wire::{
    Checker, DatabaseState, End, HAVE_BYTES, Known, Listing, ListingContent,
    PROTOCOL_OF_DIFFERENCES, Verdict, Violation, Writer,
};
use opencode_sessions::session::{Millis, Session, SessionId, Store};
use opencode_sessions::source::{Place, Remote, Source, SourceName};

use crate::support::{self, Database, listing_of, write_difference};

/// One database and what is known of it.
struct World {
    random: fastrand::Rng,
    sources: [Source; 2],
    databases: [Database; 2],
    /// Kept by differences.
    lean: Index,
    /// Kept by whole listings.
    whole: Index,
    now: u64,
    /// Listings that were differences, and those that had to ask for everything.
    by_difference: u32,
    by_listing: u32,
}

/// Half a day before 2026 in milliseconds, so that times of a day ahead come within a run.
const START_MS: i64 = 1_767_182_400_000;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

impl World {
    fn new(seed: u64) -> Self {
        let source = |name: &str, place| Source::new(name, place);
        let remote = Remote {
            command: vec!["ssh".to_owned(), "there".to_owned()],
            db: None,
            every: Duration::from_secs(15),
        };
        let sources = [
            source("here", Place::Database(PathBuf::from("/here/opencode.db"))),
            source("there", Place::Remote(remote)),
        ];
        Self {
            random: fastrand::Rng::with_seed(seed),
            lean: Index::with_view(&sources, View::ALL),
            whole: Index::with_view(&sources, View::ALL),
            sources,
            databases: Default::default(),
            now: 0,
            by_difference: 0,
            by_listing: 0,
        }
    }

    fn moment(&self) -> Moment {
        Moment {
            wall: Millis(START_MS + i64::try_from(self.now).unwrap()),
            monotonic: Duration::from_millis(self.now),
        }
    }

    /// Changes some sessions of one database.
    fn write(&mut self, of: usize) {
        for _ in 0..self.random.usize(0..4) {
            let id = SessionId::new(format!("ses_{}", self.random.u8(0..12))).unwrap();
            if self.random.u8(0..5) == 0 {
                self.databases[of].remove(&id);
                continue;
            }
            let updated = START_MS + i64::try_from(self.now).unwrap();
            let ahead = [0, 0, 1, 3][self.random.usize(0..4)] * i64::try_from(DAY_MS).unwrap();
            let random = &mut self.random;
            let new = || Session::new(id.clone(), Store::V1);
            let session = self.databases[of].entry(id.clone()).or_insert_with(new);
            match random.u8(0..7) {
                0 => session.title = Some(["a", "b", "\"}\n"][random.usize(0..3)].to_owned()),
                1 => session.marked = [None, Some(true), Some(false)][random.usize(0..3)],
                2 => session.time_archived = [None, Some(Millis(1))][random.usize(0..2)],
                3 => session.time_updated = Some(Millis(updated + ahead)),
                4 => session.directory = Some(["/x", "/y"][random.usize(0..2)].to_owned()),
                5 => {
                    session.parent_id =
                        [None, Some("ses_0".to_owned())][random.usize(0..2)].clone();
                }
                _ => session.worktree = Some(["/x", "/z"][random.usize(0..2)].to_owned()),
            }
            session.untitled = session.title.is_none();
        }
    }

    /// Lists one database for both indexes.
    fn list(&mut self, of: usize) {
        let state = match self.random.u8(0..12) {
            0 => DatabaseState::Missing,
            1 => DatabaseState::Empty,
            2 => DatabaseState::Young,
            _ => DatabaseState::Ready,
        };
        let name = self.sources[of].name.clone();
        let known = self.lean.source(&name).unwrap().known();
        let answer = answer(&self.databases[of], state, &known);
        let listing = match self.random.u8(0..8) {
            // Something on the way changes a byte, or the helper dies.
            0 if known.set.is_some() => {
                let mut broken = answer.clone();
                let at = self.random.usize(0..broken.len());
                match self.random.bool() {
                    true => broken.truncate(at),
                    false => broken[at] ^= 1 << self.random.u8(0..8),
                }
                check(&broken, Some(&known)).ok()
            }
            _ => Some(check(&answer, Some(&known)).unwrap()),
        };
        let listing = listing.unwrap_or_else(|| {
            // As the service does: everything, in the same snapshot.
            let everything = answer_of_all(&self.databases[of], state);
            check_hashing(&everything, &known).unwrap()
        });
        match listing.end.difference {
            Some(_) => self.by_difference += 1,
            None => self.by_listing += 1,
        }
        let everything = check(&answer_of_all(&self.databases[of], state), None).unwrap();
        let moment = self.moment();
        let until = Instant::now();
        let projects = Projects::remote();
        let listed = query::listed(listing, Some(&known), &projects, until);
        drop(known);
        let lean = self.lean.merge(&name, listed, moment);
        let listed = query::listed(everything, None, &projects, until);
        let whole = self.whole.merge(&name, listed, moment);
        assert_eq!(sorted(lean), sorted(whole));
    }

    /// A difference that is late: others have been merged since it was made.
    fn list_late(&mut self, of: usize) {
        let name = self.sources[of].name.clone();
        let known = self.lean.source(&name).unwrap().known();
        let answer = answer(&self.databases[of], DatabaseState::Ready, &known);
        self.write(of);
        self.list(of);
        let now = self.lean.source(&name).unwrap().known();
        let listing = check(&answer, Some(&known)).unwrap();
        if listing.end.difference.is_none() || now.generation == known.generation {
            return;
        }
        let late = query::listed(listing, Some(&known), &Projects::remote(), Instant::now());
        let merged = self.lean.merge(&name, late, self.moment());
        assert_eq!(merged.recheck, Some(Recheck::Unconfirmed));
        assert!(merged.difference.is_empty() && merged.others.is_empty());
    }

    fn fail(&mut self, of: usize) {
        let (name, moment) = (self.sources[of].name.clone(), self.moment());
        let lean = self.lean.fail(&name, "busy", "it is locked", None, moment);
        let whole = self.whole.fail(&name, "busy", "it is locked", None, moment);
        assert_eq!(lean, whole);
    }

    fn restart(&mut self) {
        for index in [&mut self.lean, &mut self.whole] {
            let saved = snapshot::Snapshot::of(index, None).to_bytes().unwrap();
            *index = Index::with_view(&self.sources, View::ALL);
            let now = Millis(START_MS + i64::try_from(self.now).unwrap());
            snapshot::restore(index, &saved, None, now).unwrap();
        }
    }

    fn rename(&mut self) {
        let name = format!("here{}", self.random.u8(0..3));
        self.sources[0].name = SourceName::from(name);
        self.lean.set_sources(&self.sources);
        self.whole.set_sources(&self.sources);
    }

    fn round(&mut self) {
        let of = self.random.usize(0..2);
        match self.random.u8(0..40) {
            0 => self.restart(),
            1 => self.rename(),
            2 | 3 => self.fail(of),
            4 | 5 => self.list_late(of),
            6 => self.now += DAY_MS,
            _ => {
                self.write(of);
                self.list(of);
            }
        }
        self.now += self.random.u64(0..1500);
        for children in [false, true] {
            for archived in [false, true] {
                let view = View { children, archived };
                assert_eq!(self.lean.sessions(view), self.whole.sessions(view));
                let revisions = [&self.lean, &self.whole].map(|index| index.revision_of(view));
                assert_eq!(revisions[0], revisions[1]);
            }
        }
        for source in &self.sources {
            let known = self.lean.source(&source.name).unwrap().known();
            let bytes = known.set_bytes();
            let (sessions, _) = bytes.as_chunks::<HAVE_BYTES>();
            let line = |session: &[u8; HAVE_BYTES]| {
                LineHash::of(session[HAVE_BYTES / 2..].try_into().unwrap())
            };
            let set: SetHash = sessions.iter().map(line).collect();
            // The hash of a set is known as soon as all of its lines are.
            let is_known = sessions.len() == known.rows.len();
            assert!(known.rows.is_empty() || known.set == is_known.then_some(set));
        }
    }
}

/// What a listing says of a database in this state, as the helper writes it: the difference to
/// what is known.
fn answer(database: &Database, state: DatabaseState, known: &Known) -> Vec<u8> {
    let Some(have) = known.have() else {
        return answer_of_all(database, state);
    };
    let mut answer = Vec::new();
    let mut writer = Writer::new(&mut answer);
    writer.hello_of(PROTOCOL_OF_DIFFERENCES).unwrap();
    let mut stdin = Cursor::new(known.set_bytes());
    let mut difference = Difference::to(have, None, &mut stdin, &mut writer).unwrap();
    match state {
        DatabaseState::Ready => write_difference(database, &mut difference, writer),
        _ => writer.end(End::new(0, state)).unwrap(),
    }
    answer
}

fn answer_of_all(database: &Database, state: DatabaseState) -> Vec<u8> {
    if state == DatabaseState::Ready {
        return listing_of(database);
    }
    let mut answer = Vec::new();
    let mut writer = Writer::new(&mut answer);
    writer.hello().unwrap();
    writer.end(End::new(0, state)).unwrap();
    answer
}

fn check(answer: &[u8], known: Option<&Known>) -> Result<Listing, Violation> {
    let content = ListingContent::default()
        .sharing(known)
        .differing(known.cloned());
    whole(Checker::of(content), answer)
}

fn check_hashing(answer: &[u8], known: &Known) -> Result<Listing, Violation> {
    let content = ListingContent::default().sharing(Some(known));
    whole(Checker::of(content), answer)
}

fn whole(mut checker: Checker, answer: &[u8]) -> Result<Listing, Violation> {
    checker.push(answer)?;
    match checker.finish()? {
        Verdict::Whole(listing) => Ok(listing),
        // Only a changed byte could make one.
        Verdict::Refused { .. } => Err(Violation::NoOutput),
    }
}

/// A difference lists its sessions in another order.
fn sorted(mut merged: MergeResult) -> MergeResult {
    let sort = |changes: &mut Changes| {
        changes.inserted.sort();
        changes.updated.sort();
        changes.removed.sort();
    };
    sort(&mut merged.difference);
    for (_, changes) in &mut merged.others {
        sort(changes);
    }
    merged
}

#[test]
fn differences_and_whole_listings_lead_to_one_index() {
    let _limit = support::limit(300);
    let rounds =
        std::env::var("DIFFERENCE_ROUNDS").map_or(100_000, |rounds| rounds.parse().unwrap());
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let (mut by_difference, mut by_listing, mut done) = (0, 0, 0);
    while done < rounds {
        let mut world = World::new(seed.wrapping_add(done));
        for _ in 0..500 {
            world.round();
        }
        done += 500;
        by_difference += world.by_difference;
        by_listing += world.by_listing;
    }
    println!("{by_difference} differences, {by_listing} whole listings");
    // Both happen, often.
    assert!(by_difference > by_listing / 2 && by_listing > by_difference / 100);
}
