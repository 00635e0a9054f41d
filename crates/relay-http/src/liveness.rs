//! Whether the threads of a server still work. A thread that waits for a client answers at once;
//! one that is blocked or caught in a loop does not answer. It says nothing about the store.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot};

/// Asks the threads of a server whether they still work. Clones share the threads.
#[derive(Clone, Default)]
pub struct Liveness(Arc<Mutex<Vec<mpsc::Sender<Question>>>>);

/// Answered when it is dropped.
type Question = oneshot::Sender<()>;

impl Liveness {
    /// Resolves when each thread has answered: to true, or to false if one has ended. While a
    /// thread is stuck, this does not resolve. Without a server, it resolves to true at once.
    pub async fn answered(&self) -> bool {
        let threads = self.threads().clone();
        for thread in threads {
            let (question, answer) = oneshot::channel();
            if thread.send(question).await.is_err() {
                return false;
            }
            // An error is the answer: nothing is ever sent.
            let _: Result<(), _> = answer.await;
        }
        true
    }

    /// Adds the thread that runs the returned future.
    pub(crate) fn add_thread(&self) -> impl Future<Output = ()> + Send + use<> {
        let (thread, mut questions) = mpsc::channel::<Question>(1);
        self.threads().push(thread);
        async move { while questions.recv().await.is_some() {} }
    }

    fn threads(&self) -> MutexGuard<'_, Vec<mpsc::Sender<Question>>> {
        // A panic under this lock leaves no partial change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Liveness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Liveness").field("threads", &self.threads().len()).finish()
    }
}
