//! Tasks that run again and again at times of their own choice, and that may block.
//!
//! All tasks of a service share a few threads. A thread that takes a task makes sure that
//! another one waits for the next, so a task that blocks delays no other. Where the system
//! gives no more threads, those that exist go on, and the tasks wait their turn.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// So many threads wait for work; more end.
const SPARE: usize = 2;

/// How long the threads wait where no task is due.
const FAR: Duration = Duration::from_secs(3600);

/// Does its work, and returns when it wants to run again.
type Run = dyn FnMut() -> Instant + Send;

/// The tasks. Dropping this ends all of them.
#[derive(Debug)]
pub(super) struct Tasks(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    tasks: HashMap<u64, Entry>,
    next_id: u64,
    /// Threads that wait.
    idle: usize,
    /// Threads that were spawned and do not wait yet.
    starting: usize,
    ended: bool,
}

struct Entry {
    /// `None` while it runs, and nothing woke it since it began.
    due: Option<Instant>,
    /// `None` while it runs.
    run: Option<Box<Run>>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry")
            .field("due", &self.due)
            .finish_non_exhaustive()
    }
}

/// One of the tasks. Dropping this ends it, after its present run if it is in one.
#[derive(Debug)]
pub(super) struct Task(Waker);

/// Wakes one task.
#[derive(Debug, Clone, Default)]
pub(super) struct Waker {
    shared: Weak<Shared>,
    id: u64,
}

impl Tasks {
    /// # Errors
    ///
    /// Returns an error if no thread can be spawned.
    pub(super) fn start() -> io::Result<Self> {
        let tasks = Self(Arc::default());
        tasks.0.spawn(&mut tasks.0.lock())?;
        Ok(tasks)
    }

    /// Adds a task, which runs now and then when it says so or is woken. `make` is given
    /// what wakes it.
    pub(super) fn add<F>(&self, make: impl FnOnce(Waker) -> F) -> Task
    where
        F: FnMut() -> Instant + Send + 'static,
    {
        let mut state = self.0.lock();
        let id = state.next_id;
        state.next_id += 1;
        let waker = Waker {
            shared: Arc::downgrade(&self.0),
            id,
        };
        let entry = Entry {
            due: Some(Instant::now()),
            run: Some(Box::new(make(waker.clone()))),
        };
        state.tasks.insert(id, entry);
        self.0.changed.notify_one();
        Task(waker)
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.ended = true;
        let tasks = std::mem::take(&mut state.tasks);
        drop(state);
        self.0.changed.notify_all();
        drop(tasks);
    }
}

impl Waker {
    /// Runs the task now; where it runs already, once more after that.
    pub(super) fn wake(&self) {
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        if let Some(entry) = shared.lock().tasks.get_mut(&self.id) {
            entry.due = Some(Instant::now());
            shared.changed.notify_one();
        }
    }
}

impl Task {
    /// As [`Waker::wake`].
    pub(super) fn wake(&self) {
        self.0.wake();
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(shared) = self.0.shared.upgrade() {
            let entry = shared.lock().tasks.remove(&self.0.id);
            drop(entry);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        let shared = Arc::clone(self);
        thread::Builder::new()
            .name("watch".into())
            .stack_size(256 << 10)
            .spawn(move || shared.work())?;
        state.starting += 1;
        Ok(())
    }

    fn work(self: &Arc<Self>) {
        let mut state = self.lock();
        state.starting -= 1;
        while !state.ended {
            let now = Instant::now();
            let due = state
                .tasks
                .iter()
                .filter_map(|(id, entry)| Some((entry.due.filter(|_| entry.run.is_some())?, *id)))
                .min();
            match due {
                Some((due, id)) if due <= now => {
                    let Some(mut run) = state.begin(id) else {
                        continue;
                    };
                    match state.idle + state.starting {
                        // Without one, the next task waits for this thread.
                        0 => drop(self.spawn(&mut state)),
                        // It waits for what is due now to be due, and this may take long.
                        _ => self.changed.notify_one(),
                    }
                    drop(state);
                    let next = run();
                    state = self.lock();
                    if let Some(run) = state.end(id, run, next) {
                        drop(state);
                        drop(run);
                        state = self.lock();
                    }
                    if state.idle >= SPARE {
                        // Those that stay do not know when this task is due again.
                        self.changed.notify_one();
                        return;
                    }
                }
                due => {
                    let pause = due.map_or(FAR, |(due, _)| due - now);
                    state.idle += 1;
                    let waited = self.changed.wait_timeout(state, pause);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                    state.idle -= 1;
                }
            }
        }
    }
}

impl State {
    fn begin(&mut self, id: u64) -> Option<Box<Run>> {
        let entry = self.tasks.get_mut(&id)?;
        entry.due = None;
        entry.run.take()
    }

    /// Returns the task if it was ended while it ran.
    fn end(&mut self, id: u64, run: Box<Run>, next: Instant) -> Option<Box<Run>> {
        let Some(entry) = self.tasks.get_mut(&id) else {
            return Some(run);
        };
        // Something may have woken it while it ran.
        entry.due = Some(entry.due.map_or(next, |due| due.min(next)));
        entry.run = Some(run);
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Sender};

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn tells(to: Sender<&'static str>, what: &'static str) -> impl FnMut() -> Instant + Send {
        move || {
            let _ = to.send(what);
            Instant::now() + FAR
        }
    }

    #[test]
    fn task_that_blocks_delays_no_other() {
        let tasks = Tasks::start().unwrap();
        let (to, reported) = mpsc::channel();
        let (_never, blocks) = mpsc::channel::<()>();
        let blocks = Arc::new(Mutex::new(blocks));
        let _blocked: Vec<_> = (0..5)
            .map(|_| {
                let blocks = Arc::clone(&blocks);
                tasks.add(|_| {
                    move || {
                        let _ = blocks.lock().unwrap().recv();
                        Instant::now()
                    }
                })
            })
            .collect();
        let task = tasks.add(|_| tells(to, "run"));
        assert_eq!(reported.recv_timeout(SOON), Ok("run"));
        task.wake();
        assert_eq!(reported.recv_timeout(SOON), Ok("run"));
    }

    /// A task that waits each time it runs until it is told when to run next.
    fn gated(tasks: &Tasks, begun: &Sender<&'static str>) -> (Task, Sender<Duration>) {
        let (go, goes) = mpsc::channel();
        let begun = begun.clone();
        let task = tasks.add(|_| {
            move || {
                let _ = begun.send("begun");
                Instant::now() + goes.recv().unwrap_or(FAR)
            }
        });
        (task, go)
    }

    /// The thread that ran it ends, and those that stay have waited since before.
    #[test]
    fn task_runs_again_in_its_own_time_when_its_thread_has_ended() {
        let tasks = Tasks::start().unwrap();
        let (begun, begins) = mpsc::channel();
        let (_timed, timed) = gated(&tasks, &begun);
        let others: Vec<_> = (0..=SPARE).map(|_| gated(&tasks, &begun)).collect();
        for _ in 0..others.len() + 1 {
            begins.recv_timeout(SOON).unwrap();
        }
        for (_, go) in &others {
            go.send(FAR).unwrap();
        }
        let until = Instant::now() + SOON;
        while tasks.0.lock().idle < SPARE {
            assert!(Instant::now() < until);
            thread::sleep(Duration::from_millis(5));
        }
        timed.send(Duration::from_millis(20)).unwrap();
        assert_eq!(begins.recv_timeout(SOON), Ok("begun"));
    }

    /// A thread that goes from one task to the next tells those that wait when the first
    /// is due again.
    #[test]
    fn task_that_blocks_does_not_keep_another_from_its_own_time() {
        let tasks = Tasks::start().unwrap();
        let (begun, begins) = mpsc::channel();
        let (blocks, never) = gated(&tasks, &begun);
        begins.recv_timeout(SOON).unwrap();
        let (_timed, timed) = gated(&tasks, &begun);
        begins.recv_timeout(SOON).unwrap();
        never.send(FAR).unwrap();
        let until = Instant::now() + SOON;
        while tasks.0.lock().idle < SPARE {
            assert!(Instant::now() < until);
            thread::sleep(Duration::from_millis(5));
        }
        // As if its time had come just now: nobody is woken for it.
        let mut state = tasks.0.lock();
        state.tasks.get_mut(&blocks.0.id).unwrap().due = Some(Instant::now());
        drop(state);
        timed.send(Duration::from_millis(100)).unwrap();
        for _ in 0..2 {
            assert_eq!(begins.recv_timeout(SOON), Ok("begun"));
        }
    }

    #[test]
    fn task_woken_while_it_runs_runs_once_more() {
        let tasks = Tasks::start().unwrap();
        let (begun, begins) = mpsc::channel();
        let (go, goes) = mpsc::channel::<()>();
        let task = tasks.add(|_| {
            move || {
                let _ = begun.send(());
                let _ = goes.recv();
                Instant::now() + FAR
            }
        });
        begins.recv_timeout(SOON).unwrap();
        task.wake();
        task.wake();
        go.send(()).unwrap();
        begins.recv_timeout(SOON).unwrap();
        go.send(()).unwrap();
        let more = begins.recv_timeout(Duration::from_millis(100));
        assert_eq!(more, Err(mpsc::RecvTimeoutError::Timeout));
    }

    #[test]
    fn threads_end_when_there_is_no_work_for_them() {
        let tasks = Tasks::start().unwrap();
        let (to, reported) = mpsc::channel();
        let many: Vec<_> = (0..50)
            .map(|_| {
                let to = to.clone();
                tasks.add(|_| {
                    move || {
                        thread::sleep(Duration::from_millis(20));
                        let _ = to.send(());
                        Instant::now() + FAR
                    }
                })
            })
            .collect();
        for _ in &many {
            reported.recv_timeout(SOON).unwrap();
        }
        let until = Instant::now() + SOON;
        // One is here, the others have it from their threads.
        while Arc::strong_count(&tasks.0) > 1 + SPARE {
            assert!(Instant::now() < until, "{}", Arc::strong_count(&tasks.0));
            thread::sleep(Duration::from_millis(5));
        }
        let shared = Arc::downgrade(&tasks.0);
        drop(tasks);
        while shared.strong_count() > 0 {
            assert!(Instant::now() < until, "{} threads", shared.strong_count());
            thread::sleep(Duration::from_millis(5));
        }
    }
}
