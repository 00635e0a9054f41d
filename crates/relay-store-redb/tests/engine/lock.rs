//! Nothing is written once the directory is released: another process may have it from then on.

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

use crate::world::{World, envelope, recipient, within_bounds};

/// What becomes of the lock, and who writes behind it.
#[derive(Debug, Default)]
struct Lock {
    is_released: AtomicBool,
    late: AtomicUsize,
}

/// A disk whose end is the release of its lock, as that of a directory is.
#[derive(Debug)]
struct Locked {
    disk: HookedDisk,
    lock: Arc<Lock>,
    released: Sender<()>,
}

impl Drop for Locked {
    fn drop(&mut self) {
        self.lock.is_released.store(true, Ordering::SeqCst);
        // The test may be over.
        let _ = self.released.send(());
    }
}

impl Disk for Locked {
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

/// The disk of a world, locked. `hook` is asked about each call first. The receiver hears of the
/// release.
fn locked(
    world: &World,
    hook: impl Fn(&Call<'_>) + Send + Sync + 'static,
) -> (Arc<Locked>, Arc<Lock>, Receiver<()>) {
    let lock = Arc::new(Lock::default());
    let seen = Arc::clone(&lock);
    let disk = HookedDisk::new(world.disk.clone(), move |call| {
        hook(&call);
        let changes = !matches!(call, Call::Read(..) | Call::Open(_));
        seen.late
            .fetch_add(usize::from(changes && seen.is_released.load(Ordering::SeqCst)), Ordering::SeqCst);
        Ok(())
    });
    let (released, told) = channel();
    (Arc::new(Locked { disk, lock: Arc::clone(&lock), released }), lock, told)
}

/// The caller of a pull has gone, and its thread still waits for the disk, when the store is
/// closed.
#[test]
fn nothing_is_written_once_the_lock_is_released() {
    within_bounds(|| {
        let world = World::new();
        let is_armed = Arc::new(AtomicBool::new(false));
        let armed = Arc::clone(&is_armed);
        let ((beginning, begun), (go_on, told)) = (channel(), channel::<()>());
        // The hook goes when nobody has the disk or a file of it any more.
        let (ending, ended) = channel::<()>();
        let told = Mutex::new((told, ending));
        let (disk, lock, released) = locked(&world, move |call| {
            if matches!(call, Call::Read(name, _) if name.starts_with("journal"))
                && armed.swap(false, Ordering::SeqCst)
            {
                beginning.send(()).unwrap();
                let _ = told.lock().unwrap().0.recv();
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
        begun.recv().unwrap();
        drop(pull);
        drop(relay);
        assert!(!lock.is_released.load(Ordering::SeqCst), "who reads holds the store");
        go_on.send(()).unwrap();
        released.recv().unwrap();
        assert!(ended.recv().is_err());
        assert_eq!(lock.late.load(Ordering::SeqCst), 0, "writes behind the release of the lock");
    });
}

/// The store is closed, and a snapshot of it is the last to let go.
#[test]
fn a_backup_that_fails_writes_nothing_once_the_lock_is_released() {
    within_bounds(|| {
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
        let failed =
            snapshot.write_on(Arc::new(target), Path::new("/backup"), &mut |_| ControlFlow::Continue(()));
        assert!(matches!(failed, Err(CopyError::Index { .. })), "{failed:?}");
        released.recv().unwrap();
        assert_eq!(lock.late.load(Ordering::SeqCst), 0, "writes behind the release of the lock");
    });
}
