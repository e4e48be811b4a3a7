//! Work on all threads, handed over without waking them.
//!
//! A training step is hundreds of short pieces of work with short gaps between them. A pool whose
//! threads sleep in the gaps pays for waking them each time, and in a small network the cost shows
//! (`reproductions/bench/README.md`). Here the caller works too, and helpers spin for [`WATCH`],
//! ready for the next piece, before they sleep.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// How long a helper without work keeps its core.
const WATCH: Duration = Duration::from_micros(200);

struct Job {
    /// Lives until every helper that has taken the job is done with it.
    work: *const (dyn Fn(usize) + Sync),
    /// The tasks, one part per thread: neighbours share what they read.
    parts: Vec<Part>,
    /// Helpers that took the job and will not touch it again.
    done: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// Alone on its cache line and on the line beside it.
#[repr(align(128))]
struct Part {
    next: AtomicUsize,
    end: usize,
}

impl Job {
    // The part of thread `own`, then what is left of the others'.
    fn run(&self, own: usize) {
        // SAFETY: see `work`.
        let work = unsafe { &*self.work };
        let (before, after) = self.parts.split_at(own);
        for part in after.iter().chain(before) {
            loop {
                let task = part.next.fetch_add(1, Ordering::Relaxed);
                if task >= part.end {
                    break;
                }
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(task))) {
                    *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
                }
            }
        }
    }
}

/// What a helper and its callers share.
struct Desk {
    /// From 1 on: the caller is thread 0.
    number: usize,
    /// A job for the helper, until either the helper or the caller takes it away.
    job: AtomicPtr<Job>,
    asleep: AtomicBool,
}

struct Helper {
    desk: Arc<Desk>,
    thread: Thread,
}

impl Helper {
    fn start(number: usize) -> Option<Self> {
        let (job, asleep) = (AtomicPtr::new(null_mut()), AtomicBool::new(false));
        let desk = Arc::new(Desk { number, job, asleep });
        let own = desk.clone();
        let name = format!("consistency-{number}");
        let handle = std::thread::Builder::new().name(name).spawn(move || own.serve()).ok()?;
        Some(Self { desk, thread: handle.thread().clone() })
    }

    fn give(&self, job: &Job) {
        self.desk.job.store(std::ptr::from_ref(job).cast_mut(), Ordering::SeqCst);
        if self.desk.asleep.swap(false, Ordering::SeqCst) {
            self.thread.unpark();
        }
    }

    // Whether the helper had taken the job.
    fn take_back(&self) -> bool {
        self.desk.job.swap(null_mut(), Ordering::AcqRel).is_null()
    }
}

impl Desk {
    fn serve(&self) {
        let mut since = Instant::now();
        loop {
            for _ in 0..64 {
                if !self.job.load(Ordering::Relaxed).is_null() {
                    let job = self.job.swap(null_mut(), Ordering::AcqRel);
                    if !job.is_null() {
                        // SAFETY: whoever gave the job waits for `done` once it is taken.
                        let job = unsafe { &*job };
                        job.run(self.number);
                        job.done.fetch_add(1, Ordering::Release);
                        since = Instant::now();
                    }
                }
                std::hint::spin_loop();
            }
            if since.elapsed() > WATCH {
                self.asleep.store(true, Ordering::SeqCst);
                while self.job.load(Ordering::SeqCst).is_null()
                    && self.asleep.load(Ordering::SeqCst)
                {
                    std::thread::park();
                }
                self.asleep.store(false, Ordering::SeqCst);
                since = Instant::now();
            }
        }
    }
}

static TEAM: Mutex<Vec<Helper>> = Mutex::new(Vec::new());

/// `work` on each of `0..count`, on as many threads as rayon's pool here has. A panic in it reaches
/// the caller.
pub(super) fn share(count: usize, work: &(dyn Fn(usize) + Sync)) {
    let helpers = rayon::current_num_threads().min(count).saturating_sub(1);
    let Some(mut team) = TEAM.try_lock().ok().filter(|_| helpers > 0) else {
        // There is one thread, or the helpers are busy with another caller's work.
        return (0..count).for_each(work);
    };
    while team.len() < helpers {
        match Helper::start(team.len() + 1) {
            Some(helper) => team.push(helper),
            None => break,
        }
    }
    // SAFETY: only the lifetime changes, and the job ends before this function does.
    let work = unsafe {
        std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const (dyn Fn(usize) + Sync)>(
            work,
        )
    };
    let helpers = &team[..helpers.min(team.len())];
    let bound = |part: usize| part * count / (helpers.len() + 1);
    let part = |i| Part { next: AtomicUsize::new(bound(i)), end: bound(i + 1) };
    let parts = (0..=helpers.len()).map(part).collect();
    let job = Job { work, parts, done: AtomicUsize::new(0), panic: Mutex::new(None) };
    helpers.iter().for_each(|helper| helper.give(&job));
    job.run(0);
    let taken = helpers.iter().filter(|helper| helper.take_back()).count();
    let mut rounds = 0u32;
    while job.done.load(Ordering::Acquire) < taken {
        rounds += 1;
        if rounds.is_multiple_of(1 << 12) {
            std::thread::yield_now();
        }
        std::hint::spin_loop();
    }
    drop(team);
    if let Some(panic) = job.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
        resume_unwind(panic);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn pool<R: Send>(threads: usize, f: impl FnOnce() -> R + Send) -> R {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
    }

    #[test]
    fn every_task_runs_once_whoever_else_asks() {
        let caller = || {
            pool(3, || {
                for round in 0..500 {
                    let count = round % 40;
                    let ran: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                    share(count, &|task| {
                        ran[task].fetch_add(1, Ordering::Relaxed);
                    });
                    assert!(ran.iter().all(|n| n.load(Ordering::Relaxed) == 1), "{count} tasks");
                    if round % 100 == 0 {
                        // The helpers fall asleep.
                        std::thread::sleep(5 * WATCH);
                    }
                }
            });
        };
        std::thread::scope(|scope| {
            (0..3).for_each(|_| drop(scope.spawn(caller)));
        });
    }

    #[test]
    fn a_panic_is_the_callers_and_work_goes_on() {
        pool(2, || {
            let panic = catch_unwind(|| share(8, &|task| assert!(task != 5, "task five")));
            assert_eq!(*panic.unwrap_err().downcast::<&str>().unwrap(), "task five");
            let ran = AtomicUsize::new(0);
            share(8, &|_| {
                ran.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(ran.into_inner(), 8);
        });
    }

    #[test]
    fn work_within_work_is_done() {
        let ran = AtomicUsize::new(0);
        pool(2, || {
            share(4, &|_| {
                share(4, &|_| {
                    ran.fetch_add(1, Ordering::Relaxed);
                });
            });
        });
        assert_eq!(ran.into_inner(), 16);
    }
}
