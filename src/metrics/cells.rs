//! Counters and histograms: atomics that are there from the start.

use std::{
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::Words;

/// Upper bounds of a histogram's buckets. One set for all: from a `/me` out of memory to the end of every patience, and
/// what is compared side by side has the same steps.
pub const BOUNDS: [Duration; 17] = [
    Duration::from_micros(50),
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

/// A counter for each word. Clones count in the same cells.
#[derive(Debug)]
pub struct Counters<W> {
    cells: Arc<[AtomicU64]>,
    words: PhantomData<fn(W)>,
}

impl<W> Clone for Counters<W> {
    fn clone(&self) -> Self {
        Self { cells: Arc::clone(&self.cells), words: PhantomData }
    }
}

impl<W: Words> Default for Counters<W> {
    fn default() -> Self {
        Self { cells: zeros(W::ALL.len()).into(), words: PhantomData }
    }
}

impl<W: Words> Counters<W> {
    /// Counts one.
    pub fn add(&self, word: W) {
        self.cells[word.place()].fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were.
    #[must_use]
    pub fn of(&self, word: W) -> u64 {
        self.cells[word.place()].load(Ordering::Relaxed)
    }
}

/// A counter for each pair of words.
#[derive(Debug)]
pub struct Table<A, B> {
    cells: Box<[AtomicU64]>,
    words: PhantomData<fn(A, B)>,
}

impl<A: Words, B: Words> Default for Table<A, B> {
    fn default() -> Self {
        Self { cells: zeros(A::ALL.len() * B::ALL.len()).into(), words: PhantomData }
    }
}

impl<A: Words, B: Words> Table<A, B> {
    /// Counts one.
    pub fn add(&self, row: A, column: B) {
        self.cells[row.place() * B::ALL.len() + column.place()].fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were.
    #[must_use]
    pub fn of(&self, row: A, column: B) -> u64 {
        self.cells[row.place() * B::ALL.len() + column.place()].load(Ordering::Relaxed)
    }
}

pub(super) fn zeros(count: usize) -> Vec<AtomicU64> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

/// How long something took, as often as it was done.
#[derive(Debug, Default)]
pub struct Histogram {
    /// One for each bound, and one for what is beyond.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanos: AtomicU64,
}

impl Histogram {
    /// Counts one that took so long.
    pub fn note(&self, took: Duration) {
        let bucket = BOUNDS.partition_point(|bound| *bound < took);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// What is in each bucket, the lowest first, and the sum of seconds.
    #[must_use]
    pub fn read(&self) -> ([u64; BOUNDS.len() + 1], f64) {
        let nanos = Duration::from_nanos(self.nanos.load(Ordering::Relaxed));
        (std::array::from_fn(|at| self.buckets[at].load(Ordering::Relaxed)), nanos.as_secs_f64())
    }
}

/// A histogram for each word.
#[derive(Debug)]
pub struct Histograms<W> {
    cells: Box<[Histogram]>,
    words: PhantomData<fn(W)>,
}

impl<W: Words> Default for Histograms<W> {
    fn default() -> Self {
        Self { cells: W::ALL.iter().map(|_| Histogram::default()).collect(), words: PhantomData }
    }
}

impl<W: Words> Histograms<W> {
    /// The one of this word.
    #[must_use]
    pub fn of(&self, word: W) -> &Histogram {
        &self.cells[word.place()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket_and_the_rest_to_the_last() {
        assert!(BOUNDS.is_sorted());
        let histogram = Histogram::default();
        for took in
            [Duration::ZERO, BOUNDS[0], BOUNDS[0] + Duration::from_nanos(1), BOUNDS[16], Duration::from_secs(60)]
        {
            histogram.note(took);
        }
        let (buckets, sum) = histogram.read();
        assert_eq!((buckets[0], buckets[1], buckets[16], buckets[17]), (2, 1, 1, 1));
        assert!((sum - 70.000_100_001).abs() < 1e-9, "{sum}");
    }
}
