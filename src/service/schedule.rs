//! When a source is listed next: one listing at a time, no wake-up lost, and
//! less often the longer it fails. Pure: times are given, chance is given.

use std::time::Duration;

/// A moment on the monotonic clock.
pub type Time = Duration;

/// The shortest and the longest pause between listings of a source that changes
/// all the time.
const PACE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// So often the shortest pause is doubled to be the longest.
const QUIETEST: u32 = 4;

/// The next listing comes before about so many frames more are in the log: it
/// restarts at about a thousand, and what was not read of it by then costs a
/// listing that reads everything.
const FRAMES: f64 = 500.0;

/// A listing may take this part of the time: a source whose listings take long
/// is listed less often.
const SHARE: u32 = 4;

/// Failures back off from the first to the second, doubling; where a source is asked
/// less often than that, to as often as it is asked.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// When a listing that was not final is repeated.
const AGAIN: Duration = Duration::from_millis(1050);

/// The state of one source's listings.
#[derive(Debug, Clone, Default)]
pub struct Schedule {
    /// Why the one in flight was begun.
    in_flight: Option<Urgency>,
    /// A request came while a listing was in flight, which may have missed what
    /// it is about: one more must follow.
    follow: Option<Urgency>,
    /// When the next one is due, and why.
    due: Option<(Time, Urgency)>,
    /// No listing that nobody asked for begins before this.
    not_before: Time,
    failures: u32,
    /// How often the pause doubled, up to [`QUIETEST`]: more with each listing that
    /// found something written and no session changed, half with each other.
    quiet_level: u32,
    /// When the last complete one ended.
    last: Time,
    /// How often it is listed where nothing tells of changes.
    every: Option<Duration>,
}

/// How urgent a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Nothing was written, but what was written before can have been published since. Where
    /// that is not so, no other listing waits because of this one.
    Older,
    /// The files changed: at the pace, and not before a failure's time is over.
    Changed,
    /// A person or a program asks: now.
    Now,
}

/// How a listing went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    /// It was complete.
    Ok(Activity),
    /// It was complete, and is to be repeated soon.
    Retry,
    /// It failed.
    Failed,
}

/// What a listing found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Activity {
    /// A session changed.
    pub changed: bool,
    /// Frames that were new in the log.
    pub frames: u64,
    /// Something is not known yet that the next listing goes on with.
    pub unfinished: bool,
}

impl Schedule {
    /// Of a source that nothing tells of changes of.
    #[must_use]
    pub fn polled(every: Duration) -> Self {
        Self {
            every: Some(every),
            ..Self::default()
        }
    }

    /// Asks for a listing.
    pub fn ask(&mut self, ask: Urgency, now: Time) {
        if self.in_flight.is_some() {
            self.follow = self.follow.max(Some(ask));
            return;
        }
        let at = match ask {
            Urgency::Now => now,
            Urgency::Older | Urgency::Changed => now.max(self.not_before),
        };
        let (due, why) = self.due.unwrap_or((at, ask));
        self.due = Some((due.min(at), why.max(ask)));
    }

    /// Starts the listing that is due, if one is: the caller must begin it, and
    /// say when it is [`done`](Self::done).
    #[must_use]
    pub fn start(&mut self, now: Time) -> bool {
        let is_due = |(due, _): &mut (Time, Urgency)| *due <= now;
        if self.in_flight.is_none() {
            self.in_flight = self.due.take_if(is_due).map(|(_, why)| why);
            return self.in_flight.is_some();
        }
        false
    }

    /// The listing in flight has ended after `took`. `chance` is from 0 to 1.
    pub fn done(&mut self, finished: Finished, took: Duration, now: Time, chance: f64) {
        let why = self.in_flight.take();
        match finished {
            Finished::Ok(activity)
                if why == Some(Urgency::Older) && activity == Activity::default() =>
            {
                self.failures = 0;
            }
            Finished::Ok(activity) => {
                self.failures = 0;
                self.not_before = now + self.pace(activity, took, now).saturating_sub(took);
                let due = match self.every {
                    // Also where it is not finished: what is far away is not trusted to be,
                    // ever.
                    Some(every) => Some(self.not_before.max(now + every.saturating_sub(took))),
                    None => activity.unfinished.then_some(self.not_before),
                };
                self.due = due.map(|due| (due, Urgency::Changed));
            }
            Finished::Retry => {
                self.failures = 0;
                self.not_before = now + PACE.0;
                self.due = Some((now + AGAIN, Urgency::Changed));
            }
            Finished::Failed => {
                let most = BACKOFF.1.max(self.every.unwrap_or_default());
                let pause = backoff(self.failures, most, chance);
                self.failures = self.failures.saturating_add(1);
                self.not_before = now + pause;
                self.due = Some((self.not_before, Urgency::Changed));
            }
        }
        if let Some(ask) = self.follow.take() {
            self.ask(ask, now);
        }
    }

    /// From the start of a listing to the next: longer the longer no session
    /// changes, but not so long that too much is written until then.
    fn pace(&mut self, activity: Activity, took: Duration, now: Time) -> Duration {
        let since = now.saturating_sub(self.last);
        self.last = now;
        match (activity.changed, activity.frames) {
            // Not at once to the shortest: while a model writes, its session changes
            // every few seconds.
            (true, _) => self.quiet_level /= 2,
            // Nothing was written: it says nothing about what is.
            (false, 0) => {}
            (false, _) => self.quiet_level = (self.quiet_level + 1).min(QUIETEST),
        }
        let quiet_level = PACE.0 * (1 << self.quiet_level);
        #[expect(
            clippy::cast_precision_loss,
            reason = "a log has fewer than 2^32 frames"
        )]
        let full = since.as_secs_f64() * FRAMES / activity.frames.max(1) as f64;
        let full = Duration::from_secs_f64(full.clamp(0.0, PACE.1.as_secs_f64()));
        quiet_level
            .min(full)
            .max(took * SHARE)
            .clamp(PACE.0, PACE.1)
    }

    /// When [`start`](Self::start) has something to start.
    #[must_use]
    pub fn due(&self) -> Option<Time> {
        let due = self.due.filter(|_| self.in_flight.is_none());
        due.map(|(due, _)| due)
    }

    /// True while a listing runs.
    #[must_use]
    pub fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }
}

/// The pause after so many failures before this one, give or take a fifth, so
/// that sources that fail together do not retry together.
fn backoff(failures: u32, most: Duration, chance: f64) -> Duration {
    let pause = BACKOFF
        .0
        .saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX))
        .min(most);
    pause.mul_f64(0.8 + 0.4 * chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Time {
        Duration::from_millis(ms)
    }

    const NEWS: Finished = Finished::Ok(Activity {
        changed: true,
        frames: 1,
        unfinished: false,
    });

    /// The pauses between listings of which each finds this.
    fn pauses(activity: Activity, count: usize) -> Vec<u128> {
        let (mut schedule, mut now) = (Schedule::default(), ms(0));
        let mut pauses = Vec::new();
        schedule.ask(Urgency::Now, now);
        for _ in 0..count {
            assert!(schedule.start(now));
            schedule.done(Finished::Ok(activity), ms(0), now, 0.5);
            schedule.ask(Urgency::Changed, now);
            pauses.push((schedule.due().unwrap() - now).as_millis());
            now = schedule.due().unwrap();
        }
        pauses
    }

    #[test]
    fn where_no_session_changes_it_is_listed_less_often_but_before_the_log_is_full() {
        let activity = |changed, frames| Activity {
            changed,
            frames,
            unfinished: false,
        };
        assert_eq!(pauses(activity(true, 5), 5)[1..], [500; 4]);
        assert_eq!(
            pauses(activity(false, 5), 7)[1..],
            [2000, 4000, 5000, 5000, 5000, 5000]
        );
        // And sooner again where sessions change.
        let (mut schedule, mut now) = (Schedule::default(), ms(0));
        let mut pace = |changed| {
            now += ms(5000);
            schedule.pace(activity(changed, 5), ms(0), now).as_millis()
        };
        assert_eq!([(); 100].map(|()| pace(false))[99], 5000);
        assert_eq!([(); 4].map(|()| pace(true)), [2000, 1000, 500, 500]);
        // At every pace, so many frames a listing that the next must come sooner.
        let busy = pauses(activity(false, 2000), 12);
        assert_eq!(busy[4..], [500; 8], "{busy:?}");
    }

    #[test]
    fn what_is_not_finished_goes_on_at_the_pace() {
        let mut schedule = Schedule::default();
        schedule.ask(Urgency::Now, ms(0));
        assert!(schedule.start(ms(0)));
        let activity = Activity {
            unfinished: true,
            ..Activity::default()
        };
        schedule.done(Finished::Ok(activity), ms(1000), ms(1000), 0.5);
        assert_eq!(schedule.due(), Some(ms(4000)));
    }

    #[test]
    fn there_is_one_listing_at_a_time_and_no_request_is_lost() {
        let mut schedule = Schedule::default();
        assert!(!schedule.start(ms(0)));
        schedule.ask(Urgency::Changed, ms(0));
        assert!(schedule.start(ms(0)));
        for _ in 0..3 {
            schedule.ask(Urgency::Changed, ms(5));
            assert!(!schedule.start(ms(5)));
        }
        assert_eq!(schedule.due(), None);
        schedule.done(NEWS, ms(10), ms(10), 0.5);
        // Three requests make one more, at the pace.
        assert!(!schedule.start(ms(499)));
        assert!(schedule.start(ms(500)));
        schedule.done(NEWS, ms(10), ms(510), 0.5);
        assert_eq!(schedule.due(), None);
    }

    #[test]
    fn a_listing_that_looks_for_what_was_late_delays_no_other() {
        for (frames, ask, next) in [
            (0, Urgency::Older, 1100),
            // It was late.
            (7, Urgency::Older, 2000),
            (0, Urgency::Changed, 1500),
        ] {
            let mut schedule = Schedule::default();
            schedule.ask(Urgency::Now, ms(0));
            assert!(schedule.start(ms(0)));
            schedule.done(NEWS, ms(10), ms(10), 0.5);
            schedule.ask(ask, ms(1000));
            assert!(schedule.start(ms(1000)));
            let activity = Activity {
                frames,
                ..Activity::default()
            };
            schedule.done(Finished::Ok(activity), ms(10), ms(1010), 0.5);
            schedule.ask(Urgency::Changed, ms(1100));
            assert_eq!(schedule.due(), Some(ms(next)), "{ask:?} {frames}");
        }
        // Asked for while something has changed, it is no other than that.
        let mut schedule = Schedule::default();
        schedule.ask(Urgency::Older, ms(0));
        schedule.ask(Urgency::Changed, ms(0));
        schedule.ask(Urgency::Older, ms(0));
        assert!(schedule.start(ms(0)));
        schedule.done(Finished::Ok(Activity::default()), ms(1), ms(1), 0.5);
        schedule.ask(Urgency::Changed, ms(2));
        assert_eq!(schedule.due(), Some(ms(500)));
    }

    #[test]
    fn a_person_does_not_wait_for_the_pace_nor_for_a_failure() {
        let mut schedule = Schedule::default();
        schedule.ask(Urgency::Now, ms(0));
        assert!(schedule.start(ms(0)));
        schedule.ask(Urgency::Changed, ms(1));
        schedule.ask(Urgency::Now, ms(2));
        schedule.done(Finished::Failed, ms(5), ms(5), 0.5);
        assert!(schedule.start(ms(5)), "asked for while one was in flight");
        schedule.done(Finished::Failed, ms(5), ms(10), 0.5);
        assert_eq!(schedule.due(), Some(ms(2010)), "the second failure");
        schedule.ask(Urgency::Changed, ms(20));
        assert_eq!(schedule.due(), Some(ms(2010)), "a change waits for it");
        schedule.ask(Urgency::Now, ms(30));
        assert!(schedule.start(ms(30)));
    }

    #[test]
    fn failures_back_off_to_a_minute_and_success_resets() {
        let mut schedule = Schedule::default();
        let mut now = ms(0);
        let mut pauses = Vec::new();
        schedule.ask(Urgency::Now, now);
        for _ in 0..40 {
            assert!(schedule.start(now));
            schedule.done(Finished::Failed, ms(0), now, 0.5);
            let due = schedule.due().unwrap();
            pauses.push((due - now).as_secs());
            now = due;
        }
        assert_eq!(pauses[..8], [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pauses[39], 60);
        assert!(schedule.start(now));
        schedule.done(NEWS, ms(0), now, 0.5);
        schedule.ask(Urgency::Now, now);
        assert!(schedule.start(now));
        schedule.done(Finished::Failed, ms(0), now, 0.0);
        assert_eq!(schedule.due(), Some(now + ms(800)));
    }

    #[test]
    fn a_slow_source_is_listed_less_often() {
        let mut schedule = Schedule::default();
        schedule.ask(Urgency::Now, ms(0));
        assert!(schedule.start(ms(0)));
        schedule.done(NEWS, ms(1000), ms(1000), 0.5);
        schedule.ask(Urgency::Changed, ms(1000));
        assert_eq!(
            schedule.due(),
            Some(ms(4000)),
            "four times what it took, from its start"
        );
    }

    #[test]
    fn a_source_that_is_polled_is_asked_at_its_pace_whatever_it_says() {
        let hour = Duration::from_secs(3600);
        let mut schedule = Schedule::polled(hour);
        schedule.ask(Urgency::Changed, ms(0));
        assert!(schedule.start(ms(0)));
        let unfinished = Finished::Ok(Activity {
            unfinished: true,
            ..Activity::default()
        });
        schedule.done(unfinished, ms(300), ms(300), 0.5);
        assert_eq!(schedule.due(), Some(hour), "from start to start");
        let mut now = hour;
        let mut pauses = Vec::new();
        for _ in 0..14 {
            assert!(schedule.start(now));
            schedule.done(Finished::Failed, ms(1), now, 0.5);
            let due = schedule.due().unwrap();
            pauses.push((due - now).as_secs());
            now = due;
        }
        assert_eq!(pauses[..8], [1, 2, 4, 8, 16, 32, 64, 128]);
        assert_eq!(pauses[12..], [3600, 3600]);
    }

    #[test]
    fn what_is_not_final_is_repeated_after_a_second() {
        let mut schedule = Schedule::default();
        schedule.ask(Urgency::Now, ms(0));
        assert!(schedule.start(ms(0)));
        schedule.done(Finished::Retry, ms(1), ms(1), 0.5);
        assert!(schedule.due().unwrap() > ms(1001));
        assert!(schedule.due().unwrap() < ms(1500));
    }
}
