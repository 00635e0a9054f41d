//! How the writer answers callers: a batch of answers wakes each thread that waits for some of them
//! once.
//!
//! To wake a task of another thread's runtime costs a system call, which was a good part of what
//! the writer did. Here the first task of each thread is woken, and wakes the others of its thread
//! when it is polled, from within, where that is a push to a list. It passes the word on as well
//! when it is dropped instead.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::{self, ThreadId};

/// An answer to come, and who gives it. `None` comes when that one is dropped.
pub(crate) fn reply<T>() -> (Responder<T>, Reply<T>) {
    let shared = Arc::new(ReplyCell(Mutex::new(ReplyState::default())));
    (Responder(Some(Arc::clone(&shared))), Reply(shared))
}

/// Gives the answer.
#[derive(Debug)]
pub(crate) struct Responder<T>(Option<Arc<ReplyCell<T>>>);

/// Resolves to the answer.
#[derive(Debug)]
pub(crate) struct Reply<T>(Arc<ReplyCell<T>>);

/// Tasks that have their answers and are to be woken, by the thread that they waited on.
#[derive(Default)]
pub(crate) struct WakeBatch(Vec<(ThreadId, Vec<Waiting>)>);

/// A task that has its answer and does not know.
pub(crate) struct Waiting {
    thread: ThreadId,
    waker: Waker,
    reply: Arc<dyn Lead>,
}

#[derive(Debug)]
struct ReplyCell<T>(Mutex<ReplyState<T>>);

#[derive(Debug)]
struct ReplyState<T> {
    answer: Option<T>,
    /// Nobody will answer any more, or has.
    is_decided: bool,
    /// Nobody asks any more.
    is_over: bool,
    waiting: Option<(ThreadId, Waker)>,
    /// Whom to wake when this one goes on.
    behind: Vec<Waker>,
}

/// What can be told to wake others.
trait Lead: Send + Sync {
    /// Gives them back when it is over.
    fn follow(&self, behind: Vec<Waker>) -> Result<(), Vec<Waker>>;
}

impl<T> Default for ReplyState<T> {
    fn default() -> Self {
        Self { answer: None, is_decided: false, is_over: false, waiting: None, behind: Vec::new() }
    }
}

impl<T> ReplyCell<T> {
    /// A panic elsewhere leaves it whole: nothing is called under the lock.
    fn state(&self) -> MutexGuard<'_, ReplyState<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Send> Lead for ReplyCell<T> {
    fn follow(&self, behind: Vec<Waker>) -> Result<(), Vec<Waker>> {
        let mut state = self.state();
        if state.is_over {
            return Err(behind);
        }
        state.behind = behind;
        Ok(())
    }
}

impl<T: Send + 'static> Responder<T> {
    /// Gives the answer. The task that waits for it, if there is one, is to be woken by
    /// [`WakeBatch::wake`].
    pub(crate) fn answer(mut self, answer: T) -> Option<Waiting> {
        let shared = self.0.take()?;
        let mut state = shared.state();
        state.answer = Some(answer);
        state.is_decided = true;
        let waiting = state.waiting.take();
        drop(state);
        waiting.map(|(thread, waker)| Waiting { thread, waker, reply: shared })
    }
}

impl<T> Drop for Responder<T> {
    fn drop(&mut self) {
        let Some(shared) = self.0.take() else { return };
        let mut state = shared.state();
        state.is_decided = true;
        let waiting = state.waiting.take();
        drop(state);
        if let Some((_, waker)) = waiting {
            waker.wake();
        }
    }
}

impl WakeBatch {
    pub(crate) fn add(&mut self, waiting: Option<Waiting>) {
        let Some(waiting) = waiting else { return };
        match self.0.iter_mut().find(|(thread, _)| *thread == waiting.thread) {
            Some((_, convoy)) => convoy.push(waiting),
            None => self.0.push((waiting.thread, vec![waiting])),
        }
    }

    /// Wakes everybody.
    pub(crate) fn wake(self) {
        for (_, convoy) in self.0 {
            let mut convoy = convoy.into_iter();
            let Some(first) = convoy.next() else { continue };
            let behind = convoy.map(|waiting| waiting.waker).collect();
            match first.reply.follow(behind) {
                Ok(()) => first.waker.wake(),
                Err(behind) => behind.into_iter().for_each(Waker::wake),
            }
        }
    }
}

impl<T> Future for Reply<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.0.state();
        if !state.is_decided {
            state.waiting = Some((thread::current().id(), cx.waker().clone()));
            return Poll::Pending;
        }
        let answer = state.answer.take();
        end(state);
        Poll::Ready(answer)
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        end(self.0.state());
    }
}

fn end<T>(mut state: MutexGuard<'_, ReplyState<T>>) {
    state.is_over = true;
    let (_waiting, behind) = (state.waiting.take(), std::mem::take(&mut state.behind));
    drop(state);
    behind.into_iter().for_each(Waker::wake);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A task: its reply, and how often it was woken.
    struct Task {
        reply: Reply<u32>,
        woken: Arc<Woken>,
    }

    impl Task {
        fn start() -> (Responder<u32>, Self) {
            let (caller, reply) = reply();
            let mut task = Self { reply, woken: Arc::default() };
            assert_eq!(task.poll(), Poll::Pending);
            (caller, task)
        }

        fn poll(&mut self) -> Poll<Option<u32>> {
            let waker = Arc::clone(&self.woken).into();
            Pin::new(&mut self.reply).poll(&mut Context::from_waker(&waker))
        }

        fn woken(&self) -> usize {
            self.woken.0.load(Ordering::SeqCst)
        }
    }

    fn answer_all(callers: Vec<Responder<u32>>) {
        let mut wake_batch = WakeBatch::default();
        for (number, caller) in (0..).zip(callers) {
            wake_batch.add(caller.answer(number));
        }
        wake_batch.wake();
    }

    fn three() -> (Vec<Responder<u32>>, [Task; 3]) {
        let (callers, tasks): (Vec<_>, Vec<_>) = (0..3).map(|_| Task::start()).unzip();
        (callers, tasks.try_into().unwrap_or_else(|_| panic!("there are three")))
    }

    #[test]
    fn the_first_is_woken_and_wakes_the_others() {
        let (callers, mut tasks) = three();
        answer_all(callers);
        assert_eq!(tasks.each_ref().map(Task::woken), [1, 0, 0]);
        assert_eq!(tasks[0].poll(), Poll::Ready(Some(0)));
        assert_eq!(tasks.each_ref().map(Task::woken), [1, 1, 1]);
        assert_eq!(tasks[2].poll(), Poll::Ready(Some(2)));
    }

    #[test]
    fn one_that_goes_away_wakes_the_others() {
        let (callers, [first, second, third]) = three();
        answer_all(callers);
        drop(first);
        assert_eq!([second.woken(), third.woken()], [1, 1]);
    }

    #[test]
    fn one_that_went_on_by_itself_leads_nobody() {
        let (callers, [mut first, second, third]) = three();
        let mut wake_batch = WakeBatch::default();
        for caller in callers {
            wake_batch.add(caller.answer(7));
        }
        assert_eq!(first.poll(), Poll::Ready(Some(7)));
        wake_batch.wake();
        assert_eq!([second.woken(), third.woken()], [1, 1]);
    }

    #[test]
    fn each_thread_has_a_first() {
        let (mut callers, _here) = three();
        let (there, other) = thread::spawn(Task::start).join().unwrap();
        callers.push(there);
        answer_all(callers);
        assert_eq!(other.woken(), 1);
    }

    #[test]
    fn a_caller_that_is_dropped_is_no_answer() {
        let (caller, mut task) = Task::start();
        drop(caller);
        assert_eq!((task.woken(), task.poll()), (1, Poll::Ready(None)));
    }

    #[test]
    fn an_answer_before_the_question_wakes_nobody() {
        let (caller, mut reply) = reply();
        assert!(caller.answer(7).is_none());
        let polled = Pin::new(&mut reply).poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(polled, Poll::Ready(Some(7)));
    }
}
