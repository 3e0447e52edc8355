//! One scan: what was remembered, what the log has since then, and as much of the
//! file as is not known yet; then the rows are judged, in the snapshot in which
//! the listing is read.
//!
//! Three kinds of knowledge come together, and each is exact:
//!
//! * Every frame of the log from a remembered place to the snapshot ([`super::wal`]).
//!   A page that was written since then is among them.
//! * Every page of the file ([`super::ground`]), read once, outside of any
//!   transaction; where there is no log, in the snapshot.
//! * The rows that held a half of the marker when they were last looked at. A row
//!   that is marked and of which no page was written is among them.
//!
//! A page with a half leads to rows: a leaf by its cells, an overflow page by the
//! pages that lead to it. More rows than necessary do no harm: SQL has the last
//! word about each ([`super::judge`]). Where SQL alone is exact, it reads
//! everything in one transaction ([`super::pass`]).

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::ground::{Ground, Hits};
use super::halves::Halves;
use super::judge::{Judge, plain};
use super::links::Links;
use super::memory::{Memory, Phase, Subject};
use super::page::{Layout, TELLABLE};
use super::record::{Records, Watched};
use super::wal::{Log, Lost, ReadAt};
use super::{CONTENT, Marks, Needle, content_tables, pass};
use crate::store::{Database, FileLooks, Position, Schema, Snapshot, StoreError, Table};
use crate::wire::{MarkerText, Scan, ScanMode};

/// How to look for the marker.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The marker, if any.
    pub marker: Option<MarkerText>,
    /// Where to remember what is known, for the next scan.
    pub cache: Option<PathBuf>,
    /// How long to read at most; then the answer is what is known.
    pub budget: Option<Duration>,
    /// Threads that read the file; 0 and 1 mean one.
    pub threads: usize,
}

/// What a scan found, and the snapshot in which it is so.
#[derive(Debug)]
pub struct Found<'a> {
    /// The snapshot.
    pub snapshot: Snapshot<'a>,
    /// Its schema.
    pub schema: Schema,
    /// The marks.
    pub marks: Marks,
    /// How they were found.
    pub scan: Scan,
    /// Why not only what is new was read, where that was so.
    pub why: Option<&'static str>,
    /// What to remember when they were delivered.
    pub remember: Option<Remember>,
}

/// What to remember.
#[derive(Debug)]
pub struct Remember {
    memory: Memory,
    path: PathBuf,
}

impl Remember {
    /// Writes it, for the next scan.
    ///
    /// # Errors
    ///
    /// Where it cannot be written. The next scan then begins anew.
    pub fn save(&self) -> std::io::Result<()> {
        self.memory.save(&self.path)
    }
}

/// So long is read between two looks at the log, which could restart twice.
const SLICE: Duration = Duration::from_millis(250);

/// So long is read in each listing of what is known, once a day.
const RENEWAL: Duration = Duration::from_millis(100);

/// When all is read once more: a file that was written over by a copy beside its
/// old log is not seen in the log.
const RENEW_AFTER: i64 = 24 * 60 * 60 * 1000;

/// A log with more frames is not read once more for that.
const RENEWABLE: u32 = 16 << 10;

/// A file that changed so recently could change again and look the same.
const RACY: Duration = Duration::from_secs(2);

/// How often a scan begins anew because the log was lost meanwhile.
const ATTEMPTS: usize = 4;

/// With more rows or pages to follow than these, SQL reads everything.
const MANY: usize = 200_000;

/// Finds the marked sessions.
///
/// # Errors
///
/// Where SQLite fails, or the file cannot be read.
pub fn scan<'a>(database: &'a Database, options: &Options) -> Result<Found<'a>, StoreError> {
    let Some(marker) = &options.marker else {
        let snapshot = database.begin()?;
        return Ok(Found {
            schema: Schema::read(&snapshot)?,
            snapshot,
            marks: Marks::NotAsked,
            scan: Scan::NONE,
            why: None,
            remember: None,
        });
    };
    let scanner = Scanner {
        database,
        options,
        marker,
        needle: Needle::new(marker),
        halves: Halves::of(marker),
        until: options.budget.map(|budget| Instant::now() + budget),
        pages: 0,
        frames: 0,
        bytes: 0,
        has_read_pages: false,
        why: None,
    };
    scanner.run()
}

struct Scanner<'a, 'o> {
    database: &'a Database,
    options: &'o Options,
    marker: &'o MarkerText,
    needle: Needle,
    halves: Halves,
    until: Option<Instant>,
    /// Pages of the last snapshot.
    pages: u32,
    frames: u64,
    bytes: u64,
    has_read_pages: bool,
    why: Option<&'static str>,
}

/// What of a database can be read past SQLite.
#[derive(Clone, Copy)]
struct Ways {
    layout: Layout,
    /// How many the snapshot has.
    pages: u32,
    auto_vacuum: bool,
}

impl<'a> Scanner<'a, '_> {
    fn run(mut self) -> Result<Found<'a>, StoreError> {
        let mut memory = self.options.cache.as_deref().and_then(Memory::load);
        // What this very scan learned needs no proof that the file is the same.
        let mut ours = false;
        let mut rows = BTreeSet::new();
        let mut held = None;
        let mut attempts = 0;
        loop {
            let looks = self.database.looks()?;
            let snapshot = match held.take() {
                Some(snapshot) => snapshot,
                None => self.database.begin()?,
            };
            let schema = Schema::read(&snapshot)?;
            if content_tables(&schema).next().is_none() {
                return Ok(self.no_content(snapshot, schema));
            }
            let (Some(end), Some(looks), Some(ways)) =
                (snapshot.end(), looks, self.ways(&snapshot, &schema)?)
            else {
                return self.whole(snapshot, schema);
            };
            // SQL says what is wrong with a file that was cut off.
            let cut_off = end.frames == 0 && ways.pages > self.ground(ways.layout).pages()?;
            if attempts == ATTEMPTS || rows.len() > MANY || cut_off {
                return self.whole(snapshot, schema);
            }
            let page_size = u32::try_from(ways.layout.page_size).unwrap_or(0);
            let subject = Subject::look(&snapshot, &looks, page_size, self.marker)?;
            let known = memory.take().filter(|memory: &Memory| {
                // Without a log nothing but the file tells what was written.
                memory.subject == subject
                    && (ours || !end.is_nowhere() || memory.looks == Some(looks))
            });
            let mut known = known.unwrap_or_else(|| {
                rows.clear();
                ours = true;
                self.why
                    .get_or_insert("nothing is remembered of this database, schema and marker");
                Memory::new(subject, end, now())
            });
            let frames = self.frames;
            self.pages = ways.pages;
            if let Err(lost) = self.catch_up(&mut known, end, ways, &mut rows)? {
                attempts += 1;
                self.why = Some(lost.why);
                // The place may still be good, only this snapshot was not.
                memory = Some(known).filter(|_| lost.meanwhile && attempts == 1);
                continue;
            }
            if known.members.len() > MANY || known.watched.len() > MANY {
                return self.whole(snapshot, schema);
            }
            if self.frames > frames || !rows.is_empty() || ours {
                self.judge(&snapshot, &schema, &mut known, &rows)?;
                rows.clear();
            }
            let slice = self.next_slice(&mut known, end);
            let Some(slice) = slice else {
                return Ok(self.found(snapshot, schema, known, looks));
            };
            if end.is_nowhere() {
                // Nobody can write to the file while this is held.
                held = Some(snapshot);
            } else {
                drop(snapshot);
            }
            self.read_pages(&mut known, ways.layout, slice, &mut rows)?;
            memory = Some(known);
            ours = true;
        }
    }

    /// How the database can be read past SQLite; `None` where only SQL is exact.
    fn ways(&self, snapshot: &Snapshot<'_>, schema: &Schema) -> Result<Option<Ways>, StoreError> {
        let number = |name| snapshot.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let page_size = usize::try_from(number("page_size")?).unwrap_or(0);
        let pages = u32::try_from(number("page_count")?).unwrap_or(u32::MAX);
        let mut reserved = [0];
        let got = ReadAt::read_at(self.database.file(), &mut reserved, 20)?;
        let layout = Layout {
            page_size,
            usable: page_size.saturating_sub(reserved[0].into()),
        };
        let possible = got == 1
            // The least that SQLite allows.
            && layout.usable >= 480
            // A BLOB in a database of UTF-16 reads as UTF-16.
            && schema.utf8
            && pages < TELLABLE
            && !could_be_a_number(self.marker);
        Ok(possible.then_some(Ways {
            layout,
            pages,
            auto_vacuum: number("auto_vacuum")? != 0,
        }))
    }

    /// Reads what the log has since the remembered place.
    fn catch_up(
        &mut self,
        known: &mut Memory,
        end: Position,
        ways: Ways,
        rows: &mut BTreeSet<i64>,
    ) -> Result<Result<(), Lost>, StoreError> {
        let layout = ways.layout;
        let from = known.position;
        // With auto-vacuum pages move behind their rows' backs; and a place where time
        // was up can be within a transaction.
        let may_resolve = !ways.auto_vacuum && (known.caught_up || from.frames == 0);
        let mut parts: [(Hits, Links); 3] = Default::default();
        let (mut owners, mut members) = (BTreeSet::new(), known.members.clone());
        let (mut frames, mut bytes) = (0, 0);
        if from != end {
            let Ok(Some(file)) = self.database.log() else {
                return Ok(Err(Lost::for_good("there is no log any more")));
            };
            let each = |part, number, image: &[u8]| {
                bytes += image.len() as u64;
                let (hits, links) = &mut parts[part as usize];
                if self.halves.are_in(image) {
                    hits.take(layout, number, image);
                }
                links.take(layout, number, image);
                if links.are_many() {
                    links.lead_to(&mut members, &mut owners);
                    links.forget();
                }
            };
            match Log::new(&file, layout.page_size).read(from, end, each, || self.is_over()) {
                Ok(Ok(read)) => {
                    known.position = read.to;
                    frames = read.frames;
                }
                Ok(Err(lost)) => return Ok(Err(lost)),
                Err(_) => return Ok(Err(Lost::for_good("the log cannot be read"))),
            }
        }
        self.frames += frames;
        self.bytes += bytes;
        known.caught_up = known.position == end;

        // The way to what is looked for may go through several parts.
        loop {
            let before = members.len();
            for (_, links) in &mut parts {
                links.lead_to(&mut members, &mut owners);
            }
            if members.len() == before {
                break;
            }
        }
        for (mut hits, mut links) in parts {
            // A row whose leaf is not in the part has owned its pages all the while,
            // and no other row's leads to them there, where all is committed. (The
            // last transaction of a generation may not be; then its hits mean
            // nothing.) A part that was not read to its end can be cut within a
            // transaction.
            if may_resolve && known.caught_up {
                links.resolve(&mut hits.overflow, &mut owners);
            }
            rows.append(&mut hits.rowids);
            members.append(&mut hits.overflow);
        }
        rows.append(&mut owners);
        let grew = members.len() > known.members.len();
        known.members = members;
        if grew && known.phase == Phase::Complete {
            self.why =
                Some("an overflow page with a half of the marker is of a row that was not written");
            known.phase = self.owners_from_here(known, layout)?;
        } else if let Phase::Owners {
            grew: has_grown, ..
        } = &mut known.phase
        {
            *has_grown |= grew;
        }
        known.renewing &= !grew;
        if known.caught_up {
            self.end_of_phase(known, layout)?;
        }
        Ok(Ok(()))
    }

    /// Goes on to the next phase where this one is done.
    fn end_of_phase(&self, known: &mut Memory, layout: Layout) -> Result<(), StoreError> {
        match known.phase {
            Phase::Search { done } if done >= self.ground(layout).pages()? => {
                known.phase = if known.members.is_empty() {
                    Phase::Complete
                } else {
                    self.owners_from_here(known, layout)?
                };
            }
            Phase::Owners { pages, done, grew } if done >= pages => {
                known.phase = if grew {
                    self.owners_from_here(known, layout)?
                } else {
                    known.members.clear();
                    Phase::Complete
                };
            }
            _ => {}
        }
        if known.phase == Phase::Complete {
            known.renewing = false;
        }
        Ok(())
    }

    /// From here on the file is read for what leads to the members, and so is the
    /// log, from its start.
    fn owners_from_here(&self, known: &mut Memory, layout: Layout) -> Result<Phase, StoreError> {
        known.position = known.position.start();
        known.caught_up = false;
        Ok(Phase::Owners {
            pages: self.ground(layout).pages()?,
            done: 0,
            grew: false,
        })
    }

    /// Judges the watched rows and these, of whatever table they are.
    fn judge(
        &self,
        snapshot: &Snapshot<'_>,
        schema: &Schema,
        known: &mut Memory,
        rows: &BTreeSet<i64>,
    ) -> Result<(), StoreError> {
        let mut watched = BTreeSet::new();
        let mut marked = BTreeSet::new();
        let mut found = |id| {
            marked.insert(id);
        };
        for (table, column) in content_tables(schema) {
            let Some((index, rowid)) = in_pages(table, column) else {
                plain(snapshot, schema, table, column, self.marker, &mut found)?;
                continue;
            };
            let of_table = known.watched.range((index, i64::MIN)..=(index, i64::MAX));
            let rows: BTreeSet<i64> = of_table
                .map(|(_, row)| *row)
                .chain(rows.iter().copied())
                .collect();
            if rows.is_empty() {
                continue;
            }
            let table = (table, column, rowid);
            let mut judge = Judge::new(snapshot, schema, table, self.marker, &self.needle)?;
            let mut records = Records::new(snapshot, table, &self.needle, &self.halves)?;
            for row in rows {
                let Some(holds) = records.with_a_half(row)? else {
                    continue;
                };
                watched.insert((index, row));
                if holds != Watched::Unmarked {
                    judge.judge(row, holds == Watched::MaybeLarge, &mut found)?;
                }
            }
        }
        known.watched = watched;
        known.marked = marked;
        Ok(())
    }

    /// How long to read the file's pages now; `None` where the answer is there, or
    /// has to be.
    fn next_slice(&mut self, known: &mut Memory, end: Position) -> Option<Duration> {
        if !known.is_complete() {
            let left = self
                .until
                .map(|until| until.saturating_duration_since(Instant::now()));
            let left = left.unwrap_or(SLICE);
            return Some(left.min(SLICE)).filter(|left| !left.is_zero());
        }
        // Or the clock was set back.
        let due = !(0..=RENEW_AFTER).contains(&now().saturating_sub(known.begun));
        // Only while somebody writes, and in a listing that has time.
        if due
            && self.frames > 0
            && end.frames < RENEWABLE
            && !known.renewing
            && known.phase == Phase::Complete
        {
            known.phase = Phase::Search { done: 0 };
            known.renewing = true;
            known.begun = now();
            known.position = known.position.start();
            return Some(RENEWAL);
        }
        (known.renewing && !self.has_read_pages && self.frames > 0).then_some(RENEWAL)
    }

    /// Reads the file's pages for so long.
    fn read_pages(
        &mut self,
        known: &mut Memory,
        layout: Layout,
        slice: Duration,
        rows: &mut BTreeSet<i64>,
    ) -> Result<(), StoreError> {
        let until = Instant::now() + slice;
        let stop = || Instant::now() >= until;
        let ground = self.ground(layout);
        let page_size = layout.page_size as u64;
        match &mut known.phase {
            Phase::Search { done } => {
                let before = *done;
                let mut hits;
                (*done, hits) = ground.search(before, &self.halves, stop)?;
                self.bytes += u64::from(done.saturating_sub(before)) * page_size;
                rows.append(&mut hits.rowids);
                known.members.append(&mut hits.overflow);
            }
            Phase::Owners { pages, done, grew } => {
                let (before, members) = (*done, known.members.len());
                let together;
                (*done, together) =
                    ground.lead_to(&mut known.members, rows, *pages, before, stop)?;
                // What all pages say was seen together, or what was seen before may
                // lead to what came after.
                let at_once = together && before == 0 && *done == *pages;
                *grew |= !at_once && known.members.len() > members;
                self.bytes += u64::from(done.saturating_sub(before)) * page_size;
            }
            // The log is not read to its end yet.
            Phase::Complete => {}
        }
        self.has_read_pages = true;
        Ok(())
    }

    fn ground(&self, layout: Layout) -> Ground<'_> {
        Ground::new(self.database.file(), layout, self.options.threads)
    }

    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }

    fn found(
        self,
        snapshot: Snapshot<'a>,
        schema: Schema,
        mut known: Memory,
        looks: FileLooks,
    ) -> Found<'a> {
        let complete = known.is_complete();
        let progress = match known.phase {
            _ if complete => 1.0,
            Phase::Search { done } => (f64::from(done) / f64::from(self.pages.max(1))).min(0.99),
            Phase::Owners { .. } | Phase::Complete => 0.99,
        };
        let mode = if self.has_read_pages && !known.renewing || !complete {
            ScanMode::Full
        } else if self.frames > 0 {
            ScanMode::Tail
        } else {
            ScanMode::Unchanged
        };
        let settled = || {
            let changed = u64::try_from(looks.modified.0.max(looks.changed.0)).unwrap_or(0);
            let age = SystemTime::now().duration_since(UNIX_EPOCH + Duration::from_secs(changed));
            // Not of the future, either: then it says nothing.
            age.is_ok_and(|age| age > RACY)
        };
        known.looks = Some(looks).filter(|looks| {
            known.position.is_nowhere()
                && settled()
                && self.database.looks().ok().flatten() == Some(*looks)
        });
        Found {
            marks: Marks::Of {
                marked: known.marked.iter().cloned().collect(),
                complete,
            },
            scan: Scan {
                mode,
                progress,
                frames: self.frames,
                bytes: self.bytes,
            },
            why: self.why,
            remember: self.options.cache.clone().map(|path| Remember {
                memory: known,
                path,
            }),
            snapshot,
            schema,
        }
    }

    /// No row could be marked.
    fn no_content(&self, snapshot: Snapshot<'a>, schema: Schema) -> Found<'a> {
        Found {
            snapshot,
            schema,
            marks: Marks::Of {
                marked: HashSet::new(),
                complete: true,
            },
            scan: Scan {
                mode: ScanMode::Full,
                ..Scan::NONE
            },
            why: None,
            remember: None,
        }
    }

    /// Everything by SQL, in this one snapshot.
    fn whole(&self, snapshot: Snapshot<'a>, schema: Schema) -> Result<Found<'a>, StoreError> {
        let mut marked = HashSet::new();
        let bytes = pass::run(&snapshot, &schema, self.marker, |id| {
            marked.insert(id);
        })?;
        Ok(Found {
            snapshot,
            schema,
            marks: Marks::Of {
                marked,
                complete: true,
            },
            scan: Scan {
                mode: ScanMode::Full,
                progress: 1.0,
                frames: self.frames,
                bytes: self.bytes + bytes,
            },
            why: self.why.or(Some("only SQL can read this database exactly")),
            remember: None,
        })
    }
}

/// The number and the rowid's name of a table whose rows are what is on its pages.
fn in_pages<'t>(table: &'t Table, column: &str) -> Option<(u8, &'t str)> {
    let index = CONTENT
        .iter()
        .position(|(name, _)| table.name.eq_ignore_ascii_case(name))?;
    let has_default = table
        .columns
        .iter()
        .any(|known| known.name == column && known.has_default);
    let rowid = table
        .rowid()
        .filter(|_| !table.computes() && !has_default)?;
    Some((u8::try_from(index).ok()?, rowid))
}

/// True where `LIKE` could find it in the text of a number.
fn could_be_a_number(marker: &MarkerText) -> bool {
    marker
        .as_str()
        .bytes()
        .all(|byte| b"0123456789+-.eEinfINF".contains(&byte))
}

/// Milliseconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
