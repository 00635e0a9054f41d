//! The cost of the journal without the disk: encoding a batch of 64 frames of 1 KiB, and reading
//! 256 adjacent frames.

use std::convert::Infallible;
use std::hint::black_box;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use relay_disk::{Directory, Disk, DiskFile};
use relay_journal::{Journal, Location, Options};

const BODY_BYTES: usize = 1024;

/// A disk that discards all data.
#[derive(Debug)]
struct NullDisk;

impl Disk for NullDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn create(&self, _: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(Self))
    }

    fn open(&self, _: &str) -> io::Result<Arc<dyn DiskFile>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for NullDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn read_exact_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    fn write_all_at(&self, parts: &[&[u8]], _: u64) -> io::Result<()> {
        black_box(parts);
        Ok(())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

fn open(disk: Arc<dyn Disk>) -> Journal {
    let opened = Journal::open(disk, Options::default(), None, |_| Ok::<_, Infallible>(()));
    opened.expect("an empty disk without faults can be opened").0
}

fn commit(journal: &mut Journal, frames: usize, body: &Bytes) -> Vec<Location> {
    let mut batch = journal.begin().expect("the disk has no faults");
    let locations = (0..frames).map(|_| batch.append(1, b"sixteen bytes :)", body.clone())).collect();
    journal.commit(batch).expect("the disk has no faults");
    locations
}

fn append(c: &mut Criterion) {
    let body = Bytes::from(vec![7; BODY_BYTES]);
    let mut journal = open(Arc::new(NullDisk));
    let mut group = c.benchmark_group("append");
    group.throughput(Throughput::Elements(64));
    group.bench_function("64 frames of 1 KiB, no disk", |b| {
        b.iter(|| {
            let locations = commit(&mut journal, 64, &body);
            // Removes full segments, so that the table of segments does not grow.
            for segment in journal.reader().segments().iter().rev().skip(1) {
                journal.reader().remove(segment.id, &|| ()).expect("the disk has no faults");
            }
            locations
        });
    });
    group.finish();
}

fn read(c: &mut Criterion) {
    let path = tempfile::tempdir().expect("a temporary directory can be created");
    let disk = Directory::open(path.path()).expect("the directory is new");
    let mut journal = open(Arc::new(disk));
    let locations = commit(&mut journal, 256, &Bytes::from(vec![7; BODY_BYTES]));
    let reader = journal.reader();
    let mut group = c.benchmark_group("read");
    group.throughput(Throughput::Elements(256));
    group.bench_function("256 adjacent frames of 1 KiB, cached", |b| {
        b.iter(|| reader.read(black_box(&locations)));
    });
    group.finish();
}

criterion_group!(benches, append, read);
criterion_main!(benches);
