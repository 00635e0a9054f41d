//! One-shot replies from the writer that wake each waiting thread once per batch.
//!
//! Waking a task on another thread's runtime costs a system call, which took a good part of the
//! writer's time. So the writer wakes only the first task of each thread, the leader. When the
//! leader is polled, it wakes the other tasks of its thread; there that only pushes to a list. A
//! leader that is dropped instead wakes them too.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::{self, ThreadId};

/// Creates a responder and its reply. The reply resolves to `None` if the responder is dropped.
pub(crate) fn reply<T>() -> (Responder<T>, Reply<T>) {
    let state = ReplyState {
        answer: None,
        is_resolved: false,
        is_finished: false,
        waiting: None,
        followers: Vec::new(),
    };
    let cell = Arc::new(ReplyCell(Mutex::new(state)));
    (Responder(Some(Arc::clone(&cell))), Reply(cell))
}

/// The sending half; `None` once it has answered.
#[derive(Debug)]
pub(crate) struct Responder<T>(Option<Arc<ReplyCell<T>>>);

/// The receiving half: a future.
#[derive(Debug)]
pub(crate) struct Reply<T>(Arc<ReplyCell<T>>);

/// Answered tasks to wake, grouped by the thread that polled them.
#[derive(Default)]
pub(super) struct WakeBatch(Vec<(ThreadId, Vec<Waiting>)>);

/// An answered task that has not been woken yet.
pub(super) struct Waiting {
    thread: ThreadId,
    pub(super) waker: Waker,
    reply: Arc<dyn Leader>,
}

#[derive(Debug)]
struct ReplyCell<T>(Mutex<ReplyState<T>>);

#[derive(Debug)]
struct ReplyState<T> {
    answer: Option<T>,
    /// The responder has answered or was dropped.
    is_resolved: bool,
    /// The reply has returned the answer or was dropped.
    is_finished: bool,
    /// The task that waits, and the thread that polled it.
    waiting: Option<(ThreadId, Waker)>,
    /// The tasks to wake when this reply finishes.
    followers: Vec<Waker>,
}

/// A reply that can wake others, whatever the type of its answer.
trait Leader: Send + Sync {
    /// Returns the followers if the reply has already finished.
    fn lead(&self, followers: Vec<Waker>) -> Result<(), Vec<Waker>>;
}

impl<T> ReplyCell<T> {
    /// A poisoned state is still consistent: no foreign code runs under the lock.
    fn state(&self) -> MutexGuard<'_, ReplyState<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the answer, and returns the task that waits for it.
    fn resolve(&self, answer: Option<T>) -> Option<(ThreadId, Waker)> {
        let mut state = self.state();
        state.answer = answer;
        state.is_resolved = true;
        state.waiting.take()
    }
}

impl<T: Send> Leader for ReplyCell<T> {
    fn lead(&self, followers: Vec<Waker>) -> Result<(), Vec<Waker>> {
        let mut state = self.state();
        if state.is_finished {
            return Err(followers);
        }
        state.followers = followers;
        Ok(())
    }
}

impl<T: Send + 'static> Responder<T> {
    /// Sets the answer. Returns the task that waits for it; the caller must wake it.
    pub(super) fn answer(mut self, answer: T) -> Option<Waiting> {
        let cell = self.0.take()?;
        let (thread, waker) = cell.resolve(Some(answer))?;
        Some(Waiting { thread, waker, reply: cell })
    }
}

impl<T> Drop for Responder<T> {
    fn drop(&mut self) {
        let Some(cell) = self.0.take() else { return };
        if let Some((_, waker)) = cell.resolve(None) {
            waker.wake();
        }
    }
}

impl WakeBatch {
    pub(super) fn add(&mut self, waiting: Option<Waiting>) {
        let Some(waiting) = waiting else { return };
        match self.0.iter_mut().find(|(thread, _)| *thread == waiting.thread) {
            Some((_, tasks)) => tasks.push(waiting),
            None => self.0.push((waiting.thread, vec![waiting])),
        }
    }

    /// Wakes the first task of each thread, which wakes the others.
    pub(super) fn wake(self) {
        for (_, tasks) in self.0 {
            let mut tasks = tasks.into_iter();
            let Some(first) = tasks.next() else { continue };
            match first.reply.lead(tasks.map(|waiting| waiting.waker).collect()) {
                Ok(()) => first.waker.wake(),
                Err(followers) => followers.into_iter().for_each(Waker::wake),
            }
        }
    }
}

impl<T> Future for Reply<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.0.state();
        if !state.is_resolved {
            state.waiting = Some((thread::current().id(), cx.waker().clone()));
            return Poll::Pending;
        }
        let answer = state.answer.take();
        finish(state);
        Poll::Ready(answer)
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        finish(self.0.state());
    }
}

/// Marks the reply as finished, and wakes its followers after it has released the lock.
fn finish<T>(mut state: MutexGuard<'_, ReplyState<T>>) {
    state.is_finished = true;
    let (_waiting, followers) = (state.waiting.take(), std::mem::take(&mut state.followers));
    drop(state);
    followers.into_iter().for_each(Waker::wake);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct WakeCount(AtomicUsize);

    impl Wake for WakeCount {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A reply, and how often its task was woken.
    struct WaitingTask {
        reply: Reply<u32>,
        woken: Arc<WakeCount>,
    }

    impl WaitingTask {
        fn start() -> (Responder<u32>, Self) {
            let (responder, reply) = reply();
            let mut task = Self { reply, woken: Arc::default() };
            assert_eq!(task.poll(), Poll::Pending);
            (responder, task)
        }

        fn poll(&mut self) -> Poll<Option<u32>> {
            let waker = Arc::clone(&self.woken).into();
            Pin::new(&mut self.reply).poll(&mut Context::from_waker(&waker))
        }

        fn woken(&self) -> usize {
            self.woken.0.load(Ordering::SeqCst)
        }
    }

    fn answer_all(responders: Vec<Responder<u32>>) {
        let mut wake_batch = WakeBatch::default();
        for (number, responder) in (0..).zip(responders) {
            wake_batch.add(responder.answer(number));
        }
        wake_batch.wake();
    }

    fn three_tasks() -> (Vec<Responder<u32>>, [WaitingTask; 3]) {
        let (responders, tasks): (Vec<_>, Vec<_>) = (0..3).map(|_| WaitingTask::start()).unzip();
        (responders, tasks.try_into().unwrap_or_else(|_| panic!("expected three tasks")))
    }

    #[test]
    fn the_leader_wakes_its_followers() {
        let (responders, mut tasks) = three_tasks();
        answer_all(responders);
        assert_eq!(tasks.each_ref().map(WaitingTask::woken), [1, 0, 0]);
        assert_eq!(tasks[0].poll(), Poll::Ready(Some(0)));
        assert_eq!(tasks.each_ref().map(WaitingTask::woken), [1, 1, 1]);
        assert_eq!(tasks[2].poll(), Poll::Ready(Some(2)));
    }

    #[test]
    fn a_dropped_leader_wakes_its_followers() {
        let (responders, [first, second, third]) = three_tasks();
        answer_all(responders);
        drop(first);
        assert_eq!([second.woken(), third.woken()], [1, 1]);
    }

    #[test]
    fn followers_wake_if_the_leader_has_already_finished() {
        let (responders, [mut first, second, third]) = three_tasks();
        let mut wake_batch = WakeBatch::default();
        for responder in responders {
            wake_batch.add(responder.answer(7));
        }
        assert_eq!(first.poll(), Poll::Ready(Some(7)));
        wake_batch.wake();
        assert_eq!([second.woken(), third.woken()], [1, 1]);
    }

    #[test]
    fn each_thread_has_a_leader() {
        let (mut responders, _tasks) = three_tasks();
        let (remote_responder, remote_task) = thread::spawn(WaitingTask::start).join().unwrap();
        responders.push(remote_responder);
        answer_all(responders);
        assert_eq!(remote_task.woken(), 1);
    }

    #[test]
    fn a_dropped_responder_resolves_to_none() {
        let (responder, mut task) = WaitingTask::start();
        drop(responder);
        assert_eq!((task.woken(), task.poll()), (1, Poll::Ready(None)));
    }

    #[test]
    fn an_answer_before_the_first_poll_wakes_no_task() {
        let (responder, mut reply) = reply();
        assert!(responder.answer(7).is_none());
        let polled = Pin::new(&mut reply).poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(polled, Poll::Ready(Some(7)));
    }
}
