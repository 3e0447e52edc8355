//! Rounds of single processes: helpers, the original query, and what is measured beside them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Databases, place_for_programs};
use crate::generate::Database;
use crate::measure::{self, Original, Times, Way};
use crate::peers::{self, Node, OpenCode, Peer};
use crate::scan::{self, Cache, FRAMES, Writer, scan};

/// In each round, what takes milliseconds runs so often in turn.
const SHORT_ONES: u64 = 5;

/// The times of all rounds.
pub(super) struct Listings {
    /// By the size of the database in MiB.
    pub(super) nothing_new: Vec<(u64, Times)>,
    pub(super) tail: Times,
    /// What each tail scan read.
    pub(super) frames: Vec<u64>,
    /// Listings after writes that were not tail scans, since the log had restarted twice.
    pub(super) not_tail: u64,
    pub(super) full: Times,
    pub(super) read: Times,
    pub(super) cat: Times,
    pub(super) original: Times,
    pub(super) node: Peer<NodeTimes>,
    pub(super) smallest: Vec<(&'static str, Peer<Times>)>,
}

/// The original query in Node.
pub(super) struct NodeTimes {
    pub(super) version: String,
    pub(super) times: Times,
    pub(super) processor: Times,
}

pub(super) fn rounds(databases: &Databases, directory: &Path, runs: u64) -> Result<Listings> {
    let Databases {
        usual,
        grown,
        hollow,
    } = databases;
    let all = [usual, grown, hollow];
    let _open = all.map(measure::hold);
    measure::compare(usual)?;
    let mut written = Written::to(usual)?;
    let mut unchanged = Vec::new();
    for database in all {
        unchanged.push(Unchanged::of(database)?);
    }
    let mut original = Original::start(usual)?;
    let mut node = Node::start(usual)?;
    let smallest = peers::smallest(place_for_programs(directory)?)?;
    let mut smallest = smallest.map(|(name, peer)| (name, peer, Times::default()));
    let [mut full, mut read, mut cat, mut originals] = [(); 4].map(|()| Times::default());
    let (mut nodes, mut nodes_processor) = (Times::default(), Times::default());
    for round in 0..=runs {
        let counts = round > 0;
        for _ in 0..SHORT_ONES {
            for (_, peer, times) in &mut smallest {
                if let Some(program) = peer.present() {
                    add(counts, times, start_to_end(program)?);
                }
            }
            for one in &mut unchanged {
                one.listing(counts)?;
            }
            written.listing(counts)?;
        }
        add(counts, &mut read, scan::read_raw(&usual.path)?);
        let took = measure::start_to_end(Command::new("cat").arg(&usual.path))?;
        add(counts, &mut cat, took);
        add(
            counts,
            &mut full,
            scan(&usual.path, &["--threads", "2"])?.took,
        );
        let took = measure::once(Way::Original, usual, &mut original)?;
        add(counts, &mut originals, took);
        if let Some(node) = node.present() {
            let query = node.query()?;
            add(counts, &mut nodes, query.took);
            add(counts, &mut nodes_processor, query.processor);
        }
    }
    Ok(Listings {
        nothing_new: unchanged
            .into_iter()
            .map(|one| (one.mib, one.times))
            .collect(),
        tail: written.times,
        frames: written.frames,
        not_tail: written.not_tail,
        full,
        read,
        cat,
        original: originals,
        node: match node {
            Peer::Present(node) => Peer::Present(NodeTimes {
                version: node.version,
                times: nodes,
                processor: nodes_processor,
            }),
            Peer::Skipped(why) => Peer::Skipped(why),
        },
        smallest: smallest
            .into_iter()
            .map(|(name, peer, times)| match peer {
                Peer::Present(_) => (name, Peer::Present(times)),
                Peer::Skipped(why) => (name, Peer::Skipped(why)),
            })
            .collect(),
    })
}

fn add(counts: bool, times: &mut Times, took: Duration) {
    if counts {
        times.add(took);
    }
}

fn start_to_end(program: &mut PathBuf) -> Result<Duration> {
    measure::start_to_end(&mut Command::new(program))
}

/// A database that nobody writes to, and a cache in which all of it is known.
struct Unchanged {
    mib: u64,
    path: PathBuf,
    cache: Cache,
    times: Times,
}

impl Unchanged {
    fn of(database: &Database) -> Result<Self> {
        let cache = Cache::new()?;
        while scan(&database.path, &cache.arguments()?)?.progress < 1.0 {}
        Ok(Self {
            mib: database.shape.mib,
            path: database.path.clone(),
            cache,
            times: Times::default(),
        })
    }

    fn listing(&mut self, counts: bool) -> Result<()> {
        let scanned = scan(&self.path, &self.cache.arguments()?)?;
        ensure!(
            scanned.mode == "unchanged",
            "nothing was written, and the scan was {scanned:?}"
        );
        add(counts, &mut self.times, scanned.took);
        Ok(())
    }
}

/// A copy that is written to before each listing.
struct Written {
    writer: Writer,
    cache: Cache,
    times: Times,
    frames: Vec<u64>,
    not_tail: u64,
}

impl Written {
    fn to(database: &Database) -> Result<Self> {
        let writer = Writer::to(database)?;
        let cache = Cache::new()?;
        while scan(&writer.copied.path, &cache.arguments()?)?.progress < 1.0 {}
        Ok(Self {
            writer,
            cache,
            times: Times::default(),
            frames: Vec::new(),
            not_tail: 0,
        })
    }

    fn listing(&mut self, counts: bool) -> Result<()> {
        self.writer.write(FRAMES)?;
        let scanned = scan(&self.writer.copied.path, &self.cache.arguments()?)?;
        if !counts {
            return Ok(());
        }
        if scanned.mode == "tail" {
            self.times.add(scanned.took);
            self.frames.push(scanned.frames);
        } else {
            self.not_tail += 1;
        }
        Ok(())
    }
}

/// Both programs on a small database that OpenCode wrote.
pub(super) struct OpenCodeLists {
    pub(super) theirs: Times,
    pub(super) ours: Times,
}

pub(super) fn opencode(runs: u64) -> Result<Peer<OpenCodeLists>> {
    let opencode = match OpenCode::start()? {
        Peer::Present(opencode) => opencode,
        Peer::Skipped(why) => return Ok(Peer::Skipped(why)),
    };
    let (mut theirs, mut ours) = (Times::default(), Times::default());
    for round in 0..=runs {
        add(round > 0, &mut theirs, opencode.list()?);
        add(round > 0, &mut ours, opencode.ours()?);
    }
    Ok(Peer::Present(OpenCodeLists { theirs, ours }))
}
