//! Requests by route, method and status.
//!
//! A route is one of the templates that our router was made of, found by comparing texts (there are some thirty); what
//! matched none of them is one series, whatever its path. Every pair of route and method has its cells from the start.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use axum::http::{Method, StatusCode};

use super::{
    cells::{Histogram, zeros},
    text::{Kind, Text},
};

const METHODS: [&str; 8] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", OTHER_METHOD];
const OTHER_METHOD: &str = "(other)";
const UNMATCHED: &str = "(unmatched)";
/// What is counted for a client that hung up before there was a status (nginx's word for it).
const CLIENT_GONE: u16 = 499;
/// Every status that is answered here, in order.
const STATUSES: [u16; 22] = [
    200,
    201,
    202,
    204,
    303,
    304,
    400,
    401,
    403,
    404,
    405,
    408,
    409,
    413,
    415,
    422,
    429,
    431,
    CLIENT_GONE,
    500,
    503,
    504,
];

/// The cells of every route and method.
#[derive(Debug)]
pub struct Requests {
    /// In order.
    routes: &'static [String],
    /// For each route and one more, each method, each status and one more.
    counts: Vec<AtomicU64>,
    /// For each route and one more, each method.
    durations: Vec<Histogram>,
    running: AtomicU64,
}

/// A request that is counted when this is dropped.
#[derive(Debug)]
pub struct Pending<'a> {
    requests: &'a Requests,
    pair: usize,
    started: Instant,
    status: u16,
}

impl Requests {
    /// Cells for these routes, which stand in order.
    #[must_use]
    pub fn of(routes: &'static [String]) -> Self {
        let pairs = (routes.len() + 1) * METHODS.len();
        Self {
            routes,
            counts: zeros(pairs * (STATUSES.len() + 1)),
            durations: (0..pairs).map(|_| Histogram::default()).collect(),
            running: AtomicU64::new(0),
        }
    }

    /// A request to this route of ours, if it is one.
    pub fn begin(&self, route: Option<&str>, method: &Method, started: Instant) -> Pending<'_> {
        let known = route.and_then(|route| self.routes.binary_search_by(|known| known.as_str().cmp(route)).ok());
        let row = known.unwrap_or(self.routes.len());
        let column = METHODS.iter().position(|known| method == known).unwrap_or(METHODS.len() - 1);
        self.running.fetch_add(1, Ordering::Relaxed);
        Pending { requests: self, pair: row * METHODS.len() + column, started, status: CLIENT_GONE }
    }

    /// Every pair that was asked for, as `(route, method, pair)`.
    fn pairs(&self) -> impl Iterator<Item = (&str, &'static str, usize)> {
        let routes = self.routes.iter().map(String::as_str).chain([UNMATCHED]);
        routes.enumerate().flat_map(|(row, route)| {
            METHODS.into_iter().enumerate().map(move |(column, method)| (route, method, row * METHODS.len() + column))
        })
    }

    /// Writes what was asked for; a pair that never was would be a thousand zeros more in every scrape.
    pub fn write(&self, text: &mut Text) {
        let mut total = text.family(
            "latchkey_http_requests_total",
            Kind::Counter,
            "Requests by route template, method and status; 499 is a client that hung up before its answer.",
        );
        for (route, method, pair) in self.pairs() {
            let cells = &self.counts[pair * (STATUSES.len() + 1)..][..=STATUSES.len()];
            for (place, count) in cells.iter().map(|cell| cell.load(Ordering::Relaxed)).enumerate() {
                if count > 0 {
                    let status = STATUSES.get(place).map_or_else(|| "(other)".to_owned(), u16::to_string);
                    total.sample(&[("route", route), ("method", method), ("status", &status)], count);
                }
            }
        }
        let mut took = text.family(
            "latchkey_http_request_duration_seconds",
            Kind::Histogram,
            "From the last byte of a request's head to its answer, by route template and method.",
        );
        for (route, method, pair) in self.pairs() {
            let histogram = &self.durations[pair];
            if histogram.read().0.iter().any(|count| *count > 0) {
                took.histogram(&[("route", route), ("method", method)], histogram);
            }
        }
        text.family("latchkey_http_requests_running", Kind::Gauge, "Requests that have no answer yet.")
            .sample(&[], self.running.load(Ordering::Relaxed));
    }
}

impl Pending<'_> {
    /// It has its answer.
    pub fn answered(&mut self, status: StatusCode) {
        self.status = status.as_u16();
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let place = STATUSES.binary_search(&self.status).unwrap_or(STATUSES.len());
        self.requests.counts[self.pair * (STATUSES.len() + 1) + place].fetch_add(1, Ordering::Relaxed);
        self.requests.durations[self.pair].note(self.started.elapsed());
        self.requests.running.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn every_status_of_a_problem_has_a_cell() {
        assert!(STATUSES.is_sorted());
        for code in Code::ALL {
            assert!(STATUSES.contains(&code.status()), "{code}: {}", code.status());
        }
    }
}
