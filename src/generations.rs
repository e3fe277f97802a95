//! A map that forgets: at most so many entries, the lately used ones kept, at the price of two hash maps and no list.
//!
//! New entries go into the young generation. When it is full, or somebody calls [`Generations::turn`], it becomes the old
//! one and the old one is dropped; an entry that is asked for in the old generation moves into the young one. So what is
//! used between two turns stays, what is not goes, and memory comes back when nobody asks any more. Nothing here expires
//! by itself: whoever keeps something knows until when it holds.
//!
//! Split into shards by the hash of the key, so that requests on many cores do not wait for one lock.

use std::{
    borrow::Borrow,
    collections::HashMap,
    fmt,
    hash::{BuildHasher, Hash, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
};

const SHARDS: usize = 16;

/// A bounded map of what was used lately.
pub struct Generations<K, V, S = RandomState> {
    shards: Box<[Mutex<Shard<K, V, S>>]>,
    hasher: S,
    /// Entries of one generation of one shard.
    most: usize,
}

struct Shard<K, V, S> {
    young: HashMap<K, V, S>,
    old: HashMap<K, V, S>,
}

impl<K, V, S> fmt::Debug for Generations<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generations").field("most", &self.most).finish_non_exhaustive()
    }
}

impl<K: Eq + Hash, V: Clone, S: BuildHasher + Clone + Default> Generations<K, V, S> {
    /// An empty map of at most `most` entries, two generations and all shards taken together.
    #[must_use]
    pub fn new(most: usize) -> Self {
        let hasher = S::default();
        let shard = || {
            Mutex::new(Shard { young: HashMap::with_hasher(hasher.clone()), old: HashMap::with_hasher(hasher.clone()) })
        };
        Self { shards: (0..SHARDS).map(|_| shard()).collect(), most: (most / SHARDS / 2).max(1), hasher }
    }

    /// What is kept under this key.
    pub fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let mut shard = self.shard(key);
        if let Some(value) = shard.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = shard.old.remove_entry(key)?;
        self.put(&mut shard, key, value.clone());
        Some(value)
    }

    /// Keeps `value` under this key, whatever was there.
    pub fn insert(&self, key: K, value: V) {
        let mut shard = self.shard(&key);
        shard.old.remove(&key);
        self.put(&mut shard, key, value);
    }

    /// What is kept under this key, if it is `good`; else what `make` makes, which is kept from now on. Of several who ask
    /// at once one makes it.
    pub fn get_or_insert(&self, key: K, good: impl Fn(&V) -> bool, make: impl FnOnce() -> V) -> V {
        let mut shard = self.shard(&key);
        let kept = match shard.young.get(&key) {
            Some(value) if good(value) => return value.clone(),
            Some(_) => None,
            None => shard.old.remove(&key).filter(good),
        };
        let value = kept.unwrap_or_else(make);
        self.put(&mut shard, key, value.clone());
        value
    }

    /// Forgets what is kept under this key, if `which` says so.
    pub fn remove_if(&self, key: &K, which: impl Fn(&V) -> bool) {
        let mut shard = self.shard(key);
        for generation in [0, 1] {
            let map = if generation == 0 { &mut shard.young } else { &mut shard.old };
            if map.get(key).is_some_and(&which) {
                map.remove(key);
            }
        }
    }

    /// Makes the young generation the old one, and drops what was not used since the last turn.
    pub fn turn(&self) {
        for shard in &self.shards {
            turn(&mut lock(shard));
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(lock).map(|shard| shard.young.len() + shard.old.len()).sum()
    }

    fn put(&self, shard: &mut Shard<K, V, S>, key: K, value: V) {
        if shard.young.len() >= self.most && !shard.young.contains_key(&key) {
            turn(shard);
        }
        shard.young.insert(key, value);
    }

    fn shard<Q: Hash + ?Sized>(&self, key: &Q) -> MutexGuard<'_, Shard<K, V, S>> {
        let hash = usize::try_from(self.hasher.hash_one(key) >> 48).unwrap_or(0);
        lock(&self.shards[hash % SHARDS])
    }
}

fn turn<K, V, S: Default>(shard: &mut Shard<K, V, S>) {
    shard.old = std::mem::replace(&mut shard.young, HashMap::with_hasher(S::default()));
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_never_more_than_the_most() {
        let map: Generations<u32, u32> = Generations::new(320);
        for number in 0..10_000 {
            map.insert(number, number);
            assert!(map.len() <= 320);
        }
        assert!(map.len() > 160, "and not many fewer");
        assert_eq!(map.get(&9_999), Some(9_999), "the last one is there");
        assert_eq!(map.get(&0), None);
    }

    #[test]
    fn what_is_used_stays_and_what_is_not_goes() {
        let map: Generations<&str, u32> = Generations::new(1000);
        map.insert("used", 1);
        map.insert("idle", 2);
        for _ in 0..3 {
            map.turn();
            assert_eq!(map.get("used"), Some(1));
        }
        assert_eq!(map.get("idle"), None);
        map.turn();
        map.turn();
        assert_eq!(map.len(), 0);
    }

    #[test]
    fn what_is_replaced_or_removed_does_not_come_back_from_the_old_generation() {
        let map: Generations<&str, u32> = Generations::new(1000);
        map.insert("a", 1);
        map.turn();
        map.insert("a", 2);
        assert_eq!((map.get("a"), map.len()), (Some(2), 1));
        map.turn();
        map.remove_if(&"a", |value| *value == 1);
        assert_eq!(map.get("a"), Some(2));
        map.turn();
        map.remove_if(&"a", |value| *value == 2);
        assert_eq!(map.get("a"), None);
        map.insert("b", 1);
        assert_eq!(map.get_or_insert("b", |value| *value == 1, || 7), 1);
        assert_eq!(map.get_or_insert("b", |value| *value == 9, || 7), 7);
        map.turn();
        assert_eq!(map.get_or_insert("b", |_| true, || 8), 7, "it is found in the old generation too");
        map.turn();
        assert_eq!(map.get("b"), Some(7));
    }
}
