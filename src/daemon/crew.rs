//! Threads for work that comes now and then: they are started when there is some, and end when there has been none for a
//! while. A process with hundreds of mirrors, in few of which anything happens, has few threads then.

#[cfg(test)]
use super::simulation;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a thread waits for more to do.
const PATIENCE: Duration = Duration::from_secs(2);

/// A queue of jobs, and at most so many threads that work on it. With one thread, jobs are done in their order. Dropping it
/// forgets what nobody has begun, and waits for what somebody has.
pub struct Crew<J: Send + 'static>(Arc<Inner<J>>);

struct Inner<J> {
    name: &'static str,
    workers_max: usize,
    work: Box<dyn Fn(J) + Send + Sync>,
    state: Mutex<State<J>>,
    /// There is something to do, or nothing ever again.
    called: Condvar,
    /// A worker has gone.
    left: Condvar,
}

struct State<J> {
    jobs: VecDeque<J>,
    workers: usize,
    /// Workers that wait.
    idle: usize,
    is_closed: bool,
}

impl<J: Send + 'static> Crew<J> {
    /// Nobody, until there is something to do.
    pub fn new(name: &'static str, workers_max: usize, work: impl Fn(J) + Send + Sync + 'static) -> Crew<J> {
        let crew = Crew(Arc::new(Inner {
            name,
            workers_max,
            work: Box::new(work),
            state: Mutex::new(State {
                jobs: VecDeque::new(),
                workers: 0,
                idle: 0,
                is_closed: false,
            }),
            called: Condvar::new(),
            left: Condvar::new(),
        }));
        #[cfg(test)]
        simulation::lend(|| crew.simulated_work());
        crew
    }

    /// Does the next job, if there is one: what its threads would do.
    #[cfg(test)]
    fn simulated_work(&self) -> simulation::Work {
        let inner = Arc::downgrade(&self.0);
        Box::new(move || {
            let inner = inner.upgrade();
            let job = inner.as_ref().and_then(|inner| inner.state().jobs.pop_front());
            inner.zip(job).map(|(inner, job)| (inner.work)(job)).is_some()
        })
    }

    /// Has a job done. Never waits, unless no thread can be had at all: then the caller does it.
    pub fn submit(&self, job: J) {
        let inner = &self.0;
        let mut state = inner.state();
        state.jobs.push_back(job);
        #[cfg(test)]
        if simulation::is_here() {
            return;
        }
        if state.idle >= state.jobs.len() || state.workers == inner.workers_max {
            // Who works looks at the queue before he waits: only one who waits has to be called, which is a system call.
            let is_awaited = state.idle > 0;
            drop(state);
            if is_awaited {
                inner.called.notify_one();
            }
            return;
        }
        state.workers += 1;
        drop(state);
        let worker = Worker {
            inner: inner.clone(),
            is_counted: true,
        };
        let spawned = std::thread::Builder::new()
            .name(inner.name.to_owned())
            .spawn(move || worker.run());
        if let Err(error) = spawned {
            tracing::warn!("cannot start a thread for {}: {error}", inner.name);
            // The worker counted itself out when it was dropped.
            let mut state = inner.state();
            if state.workers == 0
                && let Some(job) = state.jobs.pop_front()
            {
                drop(state);
                (inner.work)(job);
            }
        }
    }
}

impl<J: Send + 'static> fmt::Debug for Crew<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Crew({})", self.0.name)
    }
}

impl<J: Send + 'static> Drop for Crew<J> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.is_closed = true;
        let forgotten = std::mem::take(&mut state.jobs);
        self.0.called.notify_all();
        drop(self.0.left.wait_while(state, |state| state.workers > 0));
        drop(forgotten);
    }
}

impl<J> Inner<J> {
    fn state(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One thread's part; counts itself out when it ends, however that comes.
struct Worker<J> {
    inner: Arc<Inner<J>>,
    is_counted: bool,
}

impl<J> Worker<J> {
    fn run(mut self) {
        let inner = self.inner.clone();
        let mut state = inner.state();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                (inner.work)(job);
                state = inner.state();
                continue;
            }
            if state.is_closed {
                break;
            }
            state.idle += 1;
            let waited = inner.called.wait_timeout(state, PATIENCE);
            let (woken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            if timeout.timed_out() && state.jobs.is_empty() {
                break;
            }
        }
        // Under the same lock as the last look at the jobs: whoever brings one later knows that nobody waits for it.
        state.workers -= 1;
        self.is_counted = false;
    }
}

impl<J> Drop for Worker<J> {
    fn drop(&mut self) {
        if self.is_counted {
            self.inner.state().workers -= 1;
        }
        self.inner.left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::{bounded, unbounded};

    fn workers<J: Send + 'static>(crew: &Crew<J>) -> usize {
        crew.0.state().workers
    }

    #[test]
    fn one_worker_keeps_the_order_across_its_absences() {
        let (done, results) = unbounded();
        let crew = Crew::new("test", 1, move |job: u32| done.send(job).unwrap());
        assert_eq!(workers(&crew), 0);
        (0..1_000).for_each(|job| crew.submit(job));
        assert!(results.iter().take(1_000).eq(0..1_000));
        // It goes when there is nothing to do, and another comes.
        let mut state = crew.0.state();
        while state.workers > 0 {
            state = crew.0.left.wait(state).unwrap();
        }
        drop(state);
        crew.submit(1_000);
        assert_eq!(results.recv(), Ok(1_000));
    }

    #[test]
    fn there_are_as_many_workers_as_have_work_and_no_more() {
        let (hold, held) = bounded::<()>(0);
        let (begun, beginnings) = unbounded();
        let crew = Crew::new("test", 2, move |()| {
            begun.send(()).unwrap();
            let _ = held.recv();
        });
        for expected in [1, 2, 2] {
            crew.submit(());
            assert_eq!(workers(&crew), expected);
        }
        assert!(beginnings.iter().take(2).count() == 2 && beginnings.is_empty());
        // Dropping waits for two, and forgets the third.
        drop(hold);
        drop(crew);
        assert!(beginnings.try_iter().count() <= 1);
    }

    #[test]
    fn a_job_that_panics_takes_nobody_along() {
        let (done, results) = unbounded();
        let crew = Crew::new("test", 1, move |job: u32| {
            assert!(job > 0, "as meant");
            done.send(job).unwrap();
        });
        crew.submit(0);
        let mut state = crew.0.state();
        while state.workers > 0 {
            state = crew.0.left.wait(state).unwrap();
        }
        drop(state);
        crew.submit(1);
        assert_eq!(results.recv(), Ok(1));
    }
}
