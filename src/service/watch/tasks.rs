//! Tasks that run repeatedly, at times of their own choice, and that may block.
//!
//! All tasks of a service share a few threads. A thread that takes a task makes sure that
//! another thread waits for the next one, so a task that blocks delays no other. If no more
//! threads can be spawned, the existing ones continue, and due tasks wait for a free thread.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// The most threads that wait for work. A thread that would be one more ends.
const MAX_IDLE_THREADS: usize = 2;

/// How long the threads wait if no task is due.
const IDLE_WAIT: Duration = Duration::from_secs(3600);

/// Runs the task once. Returns when it is to run again.
type TaskFn = dyn FnMut() -> Instant + Send;

/// A set of tasks. Dropping it ends all of them.
#[derive(Debug)]
pub(super) struct Tasks(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    tasks: HashMap<u64, TaskState>,
    next_id: u64,
    /// How many threads wait.
    idle: usize,
    /// How many threads were spawned and do not run yet.
    starting: usize,
    has_ended: bool,
}

struct TaskState {
    /// When the task is due; `None` while it runs and was not woken since it began.
    due: Option<Instant>,
    /// `None` while the task runs.
    run: Option<Box<TaskFn>>,
}

impl std::fmt::Debug for TaskState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskState")
            .field("due", &self.due)
            .finish_non_exhaustive()
    }
}

/// A task. Dropping it ends the task, after the current run if there is one.
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

    /// Adds a task. It runs now, then at the times that it returns and when it is woken. `make`
    /// receives the task's waker.
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
        let task = TaskState {
            due: Some(Instant::now()),
            run: Some(Box::new(make(waker.clone()))),
        };
        state.tasks.insert(id, task);
        self.0.changed.notify_one();
        Task(waker)
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.has_ended = true;
        let tasks = std::mem::take(&mut state.tasks);
        drop(state);
        self.0.changed.notify_all();
        drop(tasks);
    }
}

impl Waker {
    /// Runs the task now. If it is running, it runs once more afterwards.
    pub(super) fn wake(&self) {
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        if let Some(task) = shared.lock().tasks.get_mut(&self.id) {
            task.due = Some(Instant::now());
            shared.changed.notify_one();
        }
    }
}

impl Task {
    /// See [`Waker::wake`].
    pub(super) fn wake(&self) {
        self.0.wake();
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(shared) = self.0.shared.upgrade() {
            // Dropped without the lock: the task may own anything.
            let task = shared.lock().tasks.remove(&self.0.id);
            drop(task);
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
            .spawn(move || shared.run_tasks())?;
        state.starting += 1;
        Ok(())
    }

    fn run_tasks(self: &Arc<Self>) {
        let mut state = self.lock();
        state.starting -= 1;
        while !state.has_ended {
            let now = Instant::now();
            let due = state
                .tasks
                .iter()
                .filter_map(|(id, task)| Some((task.due.filter(|_| task.run.is_some())?, *id)))
                .min();
            match due {
                Some((due, id)) if due <= now => {
                    let Some(mut run) = state.take(id) else {
                        continue;
                    };
                    match state.idle + state.starting {
                        // If it cannot be spawned, the next task waits for this thread.
                        0 => drop(self.spawn(&mut state)),
                        // An idle thread may be waiting for this task. It must now wait for the
                        // next one, since this task may block.
                        _ => self.changed.notify_one(),
                    }
                    drop(state);
                    let next = run();
                    state = self.lock();
                    if let Some(run) = state.put_back(id, run, next) {
                        drop(state);
                        drop(run);
                        state = self.lock();
                    }
                    if state.idle >= MAX_IDLE_THREADS {
                        // The idle threads must learn when this task is due again.
                        self.changed.notify_one();
                        return;
                    }
                }
                due => {
                    if state.idle >= MAX_IDLE_THREADS {
                        // This thread was notified, and meanwhile others have begun to wait. They
                        // must learn when the next task is due.
                        self.changed.notify_one();
                        return;
                    }
                    let pause = due.map_or(IDLE_WAIT, |(due, _)| due - now);
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
    /// Takes a task in order to run it.
    fn take(&mut self, id: u64) -> Option<Box<TaskFn>> {
        let task = self.tasks.get_mut(&id)?;
        task.due = None;
        task.run.take()
    }

    /// Puts a task back that has run. Returns it if it was ended meanwhile.
    fn put_back(&mut self, id: u64, run: Box<TaskFn>, next: Instant) -> Option<Box<TaskFn>> {
        let Some(task) = self.tasks.get_mut(&id) else {
            return Some(run);
        };
        // The task may have been woken while it ran.
        task.due = Some(task.due.map_or(next, |due| due.min(next)));
        task.run = Some(run);
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Sender};

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn reports(to: Sender<&'static str>, what: &'static str) -> impl FnMut() -> Instant + Send {
        move || {
            let _ = to.send(what);
            Instant::now() + IDLE_WAIT
        }
    }

    #[test]
    fn blocked_task_delays_no_other() {
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
        let task = tasks.add(|_| reports(to, "run"));
        assert_eq!(reported.recv_timeout(SOON), Ok("run"));
        task.wake();
        assert_eq!(reported.recv_timeout(SOON), Ok("run"));
    }

    /// Adds a task that waits in each run for the time until the next one.
    fn gated(tasks: &Tasks, begun: &Sender<&'static str>) -> (Task, Sender<Duration>) {
        let (go, goes) = mpsc::channel();
        let begun = begun.clone();
        let task = tasks.add(|_| {
            move || {
                let _ = begun.send("begun");
                Instant::now() + goes.recv().unwrap_or(IDLE_WAIT)
            }
        });
        (task, go)
    }

    /// The thread of the last run ends. The idle threads began to wait before that run.
    #[test]
    fn task_is_rescheduled_after_its_thread_ends() {
        let tasks = Tasks::start().unwrap();
        let (begun, begins) = mpsc::channel();
        let (_timed, timed) = gated(&tasks, &begun);
        let others: Vec<_> = (0..=MAX_IDLE_THREADS)
            .map(|_| gated(&tasks, &begun))
            .collect();
        for _ in 0..others.len() + 1 {
            begins.recv_timeout(SOON).unwrap();
        }
        for (_, go) in &others {
            go.send(IDLE_WAIT).unwrap();
        }
        let until = Instant::now() + SOON;
        while tasks.0.lock().idle < MAX_IDLE_THREADS {
            assert!(Instant::now() < until);
            thread::sleep(Duration::from_millis(5));
        }
        timed.send(Duration::from_millis(20)).unwrap();
        assert_eq!(begins.recv_timeout(SOON), Ok("begun"));
    }

    /// A thread that takes the next task must tell the idle threads when its last task is due
    /// again.
    #[test]
    fn blocked_task_does_not_delay_a_rescheduled_one() {
        let tasks = Tasks::start().unwrap();
        let (begun, begins) = mpsc::channel();
        let (blocks, never) = gated(&tasks, &begun);
        begins.recv_timeout(SOON).unwrap();
        let (_timed, timed) = gated(&tasks, &begun);
        begins.recv_timeout(SOON).unwrap();
        never.send(IDLE_WAIT).unwrap();
        let until = Instant::now() + SOON;
        while tasks.0.lock().idle < MAX_IDLE_THREADS {
            assert!(Instant::now() < until);
            thread::sleep(Duration::from_millis(5));
        }
        // Makes the task due without waking a thread.
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
                Instant::now() + IDLE_WAIT
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
    fn surplus_threads_end() {
        let tasks = Tasks::start().unwrap();
        let (to, reported) = mpsc::channel();
        let many: Vec<_> = (0..50)
            .map(|_| {
                let to = to.clone();
                tasks.add(|_| {
                    move || {
                        thread::sleep(Duration::from_millis(20));
                        let _ = to.send(());
                        Instant::now() + IDLE_WAIT
                    }
                })
            })
            .collect();
        for _ in &many {
            reported.recv_timeout(SOON).unwrap();
        }
        let until = Instant::now() + SOON;
        // `tasks` has one reference and each thread another.
        while Arc::strong_count(&tasks.0) > 1 + MAX_IDLE_THREADS {
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
