//! How often each problem was answered, for operators: a limit that is too tight and an attack look alike in one request
//! and differ in the count. Counts are by code, so no client can add a series.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::{
    error::Code,
    metrics::text::{Kind, Text},
};

/// Counters by code, and one for connections that were not taken.
#[derive(Clone, Debug)]
pub struct Refusals(Arc<Counters>);

#[derive(Debug)]
struct Counters {
    codes: Vec<AtomicU64>,
    connections: AtomicU64,
}

impl Default for Refusals {
    fn default() -> Self {
        let codes = Code::ALL.iter().map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(Counters { codes, connections: AtomicU64::new(0) }))
    }
}

impl Refusals {
    /// Counts one answer of this code.
    pub fn count(&self, code: Code) {
        if let Some(counter) = Code::ALL.iter().position(|one| *one == code).and_then(|at| self.0.codes.get(at)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts one connection over the cap of its address.
    pub fn count_connection(&self) {
        self.0.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// How often this code was answered.
    #[must_use]
    pub fn of(&self, code: Code) -> u64 {
        let counters = Code::ALL.iter().zip(&self.0.codes);
        counters.filter(|(one, _)| **one == code).map(|(_, counter)| counter.load(Ordering::Relaxed)).sum()
    }

    /// Connections over the cap of their address.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.0.connections.load(Ordering::Relaxed)
    }

    /// Writes all counters.
    pub fn write(&self, text: &mut Text) {
        let mut family =
            text.family("latchkey_problems_total", Kind::Counter, "Requests answered with a problem, by its code.");
        let mut told: Vec<&str> = Vec::new();
        for code in Code::ALL {
            // Some words stand in the table twice, with two statuses; they are one series.
            if told.contains(&code.as_str()) {
                continue;
            }
            told.push(code.as_str());
            let total: u64 =
                Code::ALL.iter().filter(|one| one.as_str() == code.as_str()).map(|one| self.of(*one)).sum();
            family.sample(&[("code", code.as_str())], total);
        }
        text.family("latchkey_connections_refused_total", Kind::Counter, "Connections over the cap of their address.")
            .sample(&[], self.connections());
    }
}
