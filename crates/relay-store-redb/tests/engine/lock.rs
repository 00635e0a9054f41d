//! The store writes nothing after it releases the lock of its directory, because another process
//! may use the directory from then on.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use relay_core::{Pull, Relay};
use relay_disk::{Call, Disk, DiskFile, HookedDisk, SimDisk};
use relay_store_redb::CopyError;

use crate::world::{World, envelope, recipient, with_timeout};

#[derive(Debug, Default)]
struct LockState {
    is_released: AtomicBool,
    /// Writes after the release of the lock.
    late_writes: AtomicUsize,
}

/// A disk that, when dropped, releases its lock, as a directory does.
#[derive(Debug)]
struct LockedDisk {
    disk: HookedDisk,
    lock: Arc<LockState>,
    released: Sender<()>,
}

impl Drop for LockedDisk {
    fn drop(&mut self) {
        self.lock.is_released.store(true, Ordering::SeqCst);
        // The test may be over.
        let _ = self.released.send(());
    }
}

impl Disk for LockedDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.create(name)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(name)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.sync()
    }
}

/// The disk of a world, with a lock. `hook` runs before each call. The receiver reports the release
/// of the lock.
fn locked(
    world: &World,
    hook: impl Fn(&Call<'_>) + Send + Sync + 'static,
) -> (Arc<LockedDisk>, Arc<LockState>, Receiver<()>) {
    let lock = Arc::new(LockState::default());
    let state = Arc::clone(&lock);
    let disk = HookedDisk::new(world.disk.clone(), move |call| {
        hook(&call);
        let is_write = !matches!(call, Call::Read(..) | Call::Open(_));
        state
            .late_writes
            .fetch_add(usize::from(is_write && state.is_released.load(Ordering::SeqCst)), Ordering::SeqCst);
        Ok(())
    });
    let (released, release) = channel();
    (Arc::new(LockedDisk { disk, lock: Arc::clone(&lock), released }), lock, release)
}

/// The store is closed while the thread of a cancelled pull still waits for the disk.
#[test]
fn a_cancelled_pull_writes_nothing_after_the_lock_is_released() {
    with_timeout(|| {
        let world = World::new();
        let is_armed = Arc::new(AtomicBool::new(false));
        let armed = Arc::clone(&is_armed);
        let ((report_start, read_started), (resume, resumed)) = (channel(), channel::<()>());
        // The hook is dropped with the last handle of the disk and its files.
        let (hook_alive, hook_dropped) = channel::<()>();
        let resumed = Mutex::new((resumed, hook_alive));
        let (disk, lock, released) = locked(&world, move |call| {
            if matches!(call, Call::Read(name, _) if name.starts_with("journal"))
                && armed.swap(false, Ordering::SeqCst)
            {
                report_start.send(()).unwrap();
                let _ = resumed.lock().unwrap().0.recv();
            }
        });
        let relay = world.open_on(disk).unwrap();
        for number in 0..10 {
            world.block_on(relay.push(envelope(0, number, 10))).unwrap();
        }
        is_armed.store(true, Ordering::SeqCst);
        let mut pull = Box::pin(relay.pull(Pull { recipient: recipient(0), after: None, items_max: None }));
        world.block_on(async {
            assert!(pull.as_mut().now_or_never().is_none());
        });
        read_started.recv().unwrap();
        drop(pull);
        drop(relay);
        assert!(!lock.is_released.load(Ordering::SeqCst), "a read in progress must keep the lock");
        resume.send(()).unwrap();
        released.recv().unwrap();
        assert!(hook_dropped.recv().is_err());
        assert_eq!(lock.late_writes.load(Ordering::SeqCst), 0, "writes after the release of the lock");
    });
}

/// The store is closed, and only a snapshot still uses its directory.
#[test]
fn a_failed_backup_writes_nothing_after_the_lock_is_released() {
    with_timeout(|| {
        let world = World::new();
        let (disk, lock, released) = locked(&world, |_| {});
        let relay = world.open_on(disk).unwrap();
        for number in 0..10 {
            world.block_on(relay.push(envelope(0, number, 10))).unwrap();
        }
        let snapshot = world.block_on(relay.snapshots().take()).unwrap();
        drop(relay);
        let target = SimDisk::new();
        target.space_limit(Some(4096));
        let failed = snapshot
            .write_on(Arc::new(target), Path::new("/backup"), None, &mut |_| ControlFlow::Continue(()));
        assert!(matches!(failed, Err(CopyError::Index { .. })), "{failed:?}");
        released.recv().unwrap();
        assert_eq!(lock.late_writes.load(Ordering::SeqCst), 0, "writes after the release of the lock");
    });
}
