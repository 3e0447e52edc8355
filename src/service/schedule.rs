//! Decides when a source is listed next. One listing runs at a time, no request is lost, and a
//! failing source is listed less and less often. Pure: the caller provides times and jitter.

use std::time::Duration;

use crate::index::CONFIRM_DELAY;

/// A moment on the monotonic clock.
pub(super) type Time = Duration;

/// The shortest interval between the starts of two listings of a source that keeps changing.
const MIN_INTERVAL: Duration = Duration::from_millis(500);

/// The longest such interval.
const MAX_INTERVAL: Duration = Duration::from_secs(5);

/// How often [`MIN_INTERVAL`] can be doubled.
const MAX_QUIET_LEVEL: u32 = 4;

const _: () = assert!(MIN_INTERVAL.as_millis() << MAX_QUIET_LEVEL >= MAX_INTERVAL.as_millis());

/// SQLite checkpoints the log and writes it from its start again after so many frames
/// (<https://sqlite.org/pragma.html#pragma_wal_autocheckpoint>).
const FRAMES_PER_CHECKPOINT: f64 = 1000.0;

/// The interval is so short that about this many frames are written in it. A listing must
/// read the log before it restarts; if frames are lost, a listing must read the whole
/// database.
const FRAMES_PER_LISTING: f64 = 500.0;

const _: () = assert!(FRAMES_PER_LISTING * 2.0 <= FRAMES_PER_CHECKPOINT);

/// The interval is at least this many times the duration of the listing, so listings run for
/// at most a quarter of the time.
const DURATION_FACTOR: u32 = 4;

/// The delay after the first failure. It doubles with each further failure.
const MIN_BACKOFF: Duration = Duration::from_secs(1);

/// The longest delay after a failure. For a source that is polled less often, it is the poll
/// interval.
const MAX_BACKOFF: Duration = Duration::from_secs(60);

/// The delay before a listing that was not final is repeated.
const RETRY_DELAY: Duration = Duration::from_millis(1050);

// The repeated listing is late enough to confirm the first.
const _: () = assert!(RETRY_DELAY.as_millis() > CONFIRM_DELAY.as_millis());

/// The schedule of one source's listings.
#[derive(Debug, Clone, Default)]
pub(super) struct Schedule {
    /// The urgency of the listing in flight.
    in_flight: Option<Urgency>,
    /// The urgency of a request that came while a listing was in flight. That listing may have
    /// missed the change, so another one must follow.
    follow_up: Option<Urgency>,
    /// When the next listing is due, and its urgency.
    due: Option<(Time, Urgency)>,
    /// No listing below [`Urgency::Now`] starts before this time.
    not_before: Time,
    failures: u32,
    /// How often the interval is doubled, up to [`MAX_QUIET_LEVEL`]. A listing that found new
    /// frames and no changed session adds one. A listing that found a changed session halves
    /// it.
    quiet_level: u32,
    /// When the last complete listing ended.
    last_ended: Time,
    /// The time between listings of a source that reports no changes.
    poll_interval: Option<Duration>,
}

/// How urgent a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    /// The files only aged. Nothing was written, but earlier writes may have been published
    /// since. If such a listing finds nothing, it delays no other.
    Aged,
    /// The files changed: list at the usual interval, and not before the backoff has passed.
    Changed,
    /// A person or a program asks: list now.
    Now,
}

/// How a listing ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finished {
    /// It was complete.
    Ok(Activity),
    /// It was complete, but not final: it is repeated soon.
    Retry,
    /// It failed.
    Failed,
}

/// What a listing found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Activity {
    /// A session changed.
    pub has_changed: bool,
    /// How many frames were new in the log.
    pub frames: u64,
    /// The marker scan is not finished; the next listing continues it.
    pub is_unfinished: bool,
}

impl Schedule {
    /// Returns the schedule of a source that reports no changes.
    #[must_use]
    pub(super) fn polled(interval: Duration) -> Self {
        Self {
            poll_interval: Some(interval),
            ..Self::default()
        }
    }

    /// Requests a listing.
    pub(super) fn request(&mut self, urgency: Urgency, now: Time) {
        if self.in_flight.is_some() {
            self.follow_up = self.follow_up.max(Some(urgency));
            return;
        }
        let at = match urgency {
            Urgency::Now => now,
            Urgency::Aged | Urgency::Changed => now.max(self.not_before),
        };
        let (due, highest) = self.due.unwrap_or((at, urgency));
        self.due = Some((due.min(at), highest.max(urgency)));
    }

    /// Starts the listing that is due. Returns true if there is one: the caller must run it
    /// and report its end to [`finish`](Self::finish).
    #[must_use]
    pub(super) fn start(&mut self, now: Time) -> bool {
        let is_due = |(due, _): &mut (Time, Urgency)| *due <= now;
        if self.in_flight.is_none() {
            self.in_flight = self.due.take_if(is_due).map(|(_, urgency)| urgency);
            return self.in_flight.is_some();
        }
        false
    }

    /// Ends the listing in flight, which took `took`. `jitter` is a random number from 0 to 1.
    pub(super) fn finish(&mut self, finished: Finished, took: Duration, now: Time, jitter: f64) {
        let urgency = self.in_flight.take();
        match finished {
            Finished::Ok(activity)
                if urgency == Some(Urgency::Aged) && activity == Activity::default() =>
            {
                self.failures = 0;
            }
            Finished::Ok(activity) => {
                self.failures = 0;
                self.not_before = now + self.interval(activity, took, now).saturating_sub(took);
                let due = match self.poll_interval {
                    // Also if the scan is not finished: a remote machine may never finish it.
                    Some(every) => Some(self.not_before.max(now + every.saturating_sub(took))),
                    None => activity.is_unfinished.then_some(self.not_before),
                };
                self.due = due.map(|due| (due, Urgency::Changed));
            }
            Finished::Retry => {
                self.failures = 0;
                self.not_before = now + MIN_INTERVAL;
                self.due = Some((now + RETRY_DELAY, Urgency::Changed));
            }
            Finished::Failed => {
                let max = MAX_BACKOFF.max(self.poll_interval.unwrap_or_default());
                let delay = backoff(self.failures, max, jitter);
                self.failures = self.failures.saturating_add(1);
                self.not_before = now + delay;
                self.due = Some((self.not_before, Urgency::Changed));
            }
        }
        if let Some(urgency) = self.follow_up.take() {
            self.request(urgency, now);
        }
    }

    /// Returns the time from the start of a listing to the start of the next. It grows while
    /// no session changes, as long as not too many frames are written in it.
    fn interval(&mut self, activity: Activity, took: Duration, now: Time) -> Duration {
        let since_last = now.saturating_sub(self.last_ended);
        self.last_ended = now;
        match (activity.has_changed, activity.frames) {
            // Not reset to zero: while a model writes, its session changes every few seconds.
            (true, _) => self.quiet_level /= 2,
            // Nothing was written, so nothing is learned about the writer.
            (false, 0) => {}
            (false, _) => self.quiet_level = (self.quiet_level + 1).min(MAX_QUIET_LEVEL),
        }
        let quiet = MIN_INTERVAL * (1 << self.quiet_level);
        #[expect(
            clippy::cast_precision_loss,
            reason = "a log has fewer than 2^32 frames"
        )]
        let frames = activity.frames.max(1) as f64;
        let until_full_secs = since_last.as_secs_f64() * FRAMES_PER_LISTING / frames;
        let until_full =
            Duration::from_secs_f64(until_full_secs.clamp(0.0, MAX_INTERVAL.as_secs_f64()));
        quiet
            .min(until_full)
            .max(took * DURATION_FACTOR)
            .clamp(MIN_INTERVAL, MAX_INTERVAL)
    }

    /// Returns when [`start`](Self::start) will start a listing.
    #[must_use]
    pub(super) fn due(&self) -> Option<Time> {
        let due = self.due.filter(|_| self.in_flight.is_none());
        due.map(|(due, _)| due)
    }

    /// Returns true while a listing runs.
    #[must_use]
    pub(super) fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }
}

/// Returns the delay after a failure that follows `failures` others. It varies by a fifth, so
/// that sources that failed together are not retried together.
fn backoff(failures: u32, max: Duration, jitter: f64) -> Duration {
    let delay = MIN_BACKOFF
        .saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX))
        .min(max);
    delay.mul_f64(0.8 + 0.4 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Time {
        Duration::from_millis(ms)
    }

    const CHANGED: Finished = Finished::Ok(Activity {
        has_changed: true,
        frames: 1,
        is_unfinished: false,
    });

    /// Returns the intervals between listings that find the same activity each time.
    fn intervals(activity: Activity, count: usize) -> Vec<u128> {
        let (mut schedule, mut now) = (Schedule::default(), ms(0));
        let mut intervals = Vec::new();
        schedule.request(Urgency::Now, now);
        for _ in 0..count {
            assert!(schedule.start(now));
            schedule.finish(Finished::Ok(activity), ms(0), now, 0.5);
            schedule.request(Urgency::Changed, now);
            intervals.push((schedule.due().unwrap() - now).as_millis());
            now = schedule.due().unwrap();
        }
        intervals
    }

    #[test]
    fn interval_grows_without_changes_unless_the_log_fills() {
        let activity = |has_changed, frames| Activity {
            has_changed,
            frames,
            is_unfinished: false,
        };
        assert_eq!(intervals(activity(true, 5), 5)[1..], [500; 4]);
        assert_eq!(
            intervals(activity(false, 5), 7)[1..],
            [2000, 4000, 5000, 5000, 5000, 5000]
        );
        // It shrinks again when sessions change.
        let (mut schedule, mut now) = (Schedule::default(), ms(0));
        let mut interval = |changed| {
            now += ms(5000);
            schedule
                .interval(activity(changed, 5), ms(0), now)
                .as_millis()
        };
        assert_eq!([(); 100].map(|()| interval(false))[99], 5000);
        assert_eq!([(); 4].map(|()| interval(true)), [2000, 1000, 500, 500]);
        // Many frames per listing keep it at the minimum.
        let busy = intervals(activity(false, 2000), 12);
        assert_eq!(busy[4..], [500; 8], "{busy:?}");
    }

    #[test]
    fn unfinished_scan_is_continued_at_the_usual_interval() {
        let mut schedule = Schedule::default();
        schedule.request(Urgency::Now, ms(0));
        assert!(schedule.start(ms(0)));
        let activity = Activity {
            is_unfinished: true,
            ..Activity::default()
        };
        schedule.finish(Finished::Ok(activity), ms(1000), ms(1000), 0.5);
        assert_eq!(schedule.due(), Some(ms(4000)));
    }

    #[test]
    fn one_listing_runs_at_a_time_and_no_request_is_lost() {
        let mut schedule = Schedule::default();
        assert!(!schedule.start(ms(0)));
        schedule.request(Urgency::Changed, ms(0));
        assert!(schedule.start(ms(0)));
        for _ in 0..3 {
            schedule.request(Urgency::Changed, ms(5));
            assert!(!schedule.start(ms(5)));
        }
        assert_eq!(schedule.due(), None);
        schedule.finish(CHANGED, ms(10), ms(10), 0.5);
        // Three requests cause one more listing, after the interval.
        assert!(!schedule.start(ms(499)));
        assert!(schedule.start(ms(500)));
        schedule.finish(CHANGED, ms(10), ms(510), 0.5);
        assert_eq!(schedule.due(), None);
    }

    #[test]
    fn listing_of_aged_files_delays_no_other() {
        for (frames, urgency, next) in [
            (0, Urgency::Aged, 1100),
            // The earlier writes were published late.
            (7, Urgency::Aged, 2000),
            (0, Urgency::Changed, 1500),
        ] {
            let mut schedule = Schedule::default();
            schedule.request(Urgency::Now, ms(0));
            assert!(schedule.start(ms(0)));
            schedule.finish(CHANGED, ms(10), ms(10), 0.5);
            schedule.request(urgency, ms(1000));
            assert!(schedule.start(ms(1000)));
            let activity = Activity {
                frames,
                ..Activity::default()
            };
            schedule.finish(Finished::Ok(activity), ms(10), ms(1010), 0.5);
            schedule.request(Urgency::Changed, ms(1100));
            assert_eq!(schedule.due(), Some(ms(next)), "{urgency:?} {frames}");
        }
        // Together with a change, it counts as a listing of changed files.
        let mut schedule = Schedule::default();
        schedule.request(Urgency::Aged, ms(0));
        schedule.request(Urgency::Changed, ms(0));
        schedule.request(Urgency::Aged, ms(0));
        assert!(schedule.start(ms(0)));
        schedule.finish(Finished::Ok(Activity::default()), ms(1), ms(1), 0.5);
        schedule.request(Urgency::Changed, ms(2));
        assert_eq!(schedule.due(), Some(ms(500)));
    }

    #[test]
    fn urgent_request_waits_for_neither_interval_nor_backoff() {
        let mut schedule = Schedule::default();
        schedule.request(Urgency::Now, ms(0));
        assert!(schedule.start(ms(0)));
        schedule.request(Urgency::Changed, ms(1));
        schedule.request(Urgency::Now, ms(2));
        schedule.finish(Finished::Failed, ms(5), ms(5), 0.5);
        assert!(schedule.start(ms(5)), "requested while one was in flight");
        schedule.finish(Finished::Failed, ms(5), ms(10), 0.5);
        assert_eq!(schedule.due(), Some(ms(2010)), "the second failure");
        schedule.request(Urgency::Changed, ms(20));
        assert_eq!(
            schedule.due(),
            Some(ms(2010)),
            "a change waits for the backoff"
        );
        schedule.request(Urgency::Now, ms(30));
        assert!(schedule.start(ms(30)));
    }

    #[test]
    fn backoff_grows_to_a_minute_and_success_resets_it() {
        let mut schedule = Schedule::default();
        let mut now = ms(0);
        let mut intervals = Vec::new();
        schedule.request(Urgency::Now, now);
        for _ in 0..40 {
            assert!(schedule.start(now));
            schedule.finish(Finished::Failed, ms(0), now, 0.5);
            let due = schedule.due().unwrap();
            intervals.push((due - now).as_secs());
            now = due;
        }
        assert_eq!(intervals[..8], [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(intervals[39], 60);
        assert!(schedule.start(now));
        schedule.finish(CHANGED, ms(0), now, 0.5);
        schedule.request(Urgency::Now, now);
        assert!(schedule.start(now));
        schedule.finish(Finished::Failed, ms(0), now, 0.0);
        assert_eq!(schedule.due(), Some(now + ms(800)));
    }

    #[test]
    fn slow_source_is_listed_less_often() {
        let mut schedule = Schedule::default();
        schedule.request(Urgency::Now, ms(0));
        assert!(schedule.start(ms(0)));
        schedule.finish(CHANGED, ms(1000), ms(1000), 0.5);
        schedule.request(Urgency::Changed, ms(1000));
        assert_eq!(
            schedule.due(),
            Some(ms(4000)),
            "four times what it took, from its start"
        );
    }

    #[test]
    fn polled_source_is_listed_at_its_interval() {
        let hour = Duration::from_secs(3600);
        let mut schedule = Schedule::polled(hour);
        schedule.request(Urgency::Changed, ms(0));
        assert!(schedule.start(ms(0)));
        let unfinished = Finished::Ok(Activity {
            is_unfinished: true,
            ..Activity::default()
        });
        schedule.finish(unfinished, ms(300), ms(300), 0.5);
        assert_eq!(schedule.due(), Some(hour), "from start to start");
        let mut now = hour;
        let mut intervals = Vec::new();
        for _ in 0..14 {
            assert!(schedule.start(now));
            schedule.finish(Finished::Failed, ms(1), now, 0.5);
            let due = schedule.due().unwrap();
            intervals.push((due - now).as_secs());
            now = due;
        }
        assert_eq!(intervals[..8], [1, 2, 4, 8, 16, 32, 64, 128]);
        assert_eq!(intervals[12..], [3600, 3600]);
    }

    #[test]
    fn listing_that_is_not_final_is_repeated_after_a_second() {
        let mut schedule = Schedule::default();
        schedule.request(Urgency::Now, ms(0));
        assert!(schedule.start(ms(0)));
        schedule.finish(Finished::Retry, ms(1), ms(1), 0.5);
        assert!(schedule.due().unwrap() > ms(1001));
        assert!(schedule.due().unwrap() < ms(1500));
    }
}
