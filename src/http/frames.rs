//! Where the frames of HTTP/2 begin and end (RFC 9113 §4), read beside the library that understands them.
//!
//! hyper knows no limit on the time of a head in HTTP/2, and none on heads that are taken back after they were served.
//! Both can be seen in the first nine bytes of each frame:
//!
//! 1. A connection whose first bytes are the preface speaks HTTP/2; any other byte, and it is HTTP/1.1.
//! 2. A frame, or a head with the frames that continue it, is one **unit**. Whoever began one has to finish it in time;
//!    pings and window updates between units are nobody's business.
//! 3. `RST_STREAM` is counted (CVE-2023-44487): the library bounds only the requests that were taken back before anybody
//!    looked at them.

/// What a client of HTTP/2 says first.
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD: usize = 9;

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// What is known of what a client sent.
#[derive(Debug)]
pub(super) enum Speech {
    /// So many bytes of the preface, and nothing else yet.
    Beginning(usize),
    /// HTTP/1.1, or nothing that we know.
    One,
    /// HTTP/2.
    Two(Frames),
}

impl Speech {
    /// Takes note of what came.
    pub(super) fn hear(&mut self, mut bytes: &[u8]) {
        if let Self::Beginning(known) = self {
            let expected = &PREFACE[*known..];
            let length = expected.len().min(bytes.len());
            if bytes[..length] != expected[..length] {
                *self = Self::One;
            } else if length == expected.len() {
                *self = Self::Two(Frames::default());
                bytes = &bytes[length..];
            } else {
                *known += length;
            }
        }
        if let Self::Two(frames) = self {
            frames.hear(bytes);
        }
    }
}

/// How far the frames of one connection have come.
#[derive(Debug, Default)]
pub(super) struct Frames {
    head: [u8; FRAME_HEAD],
    /// Bytes of `head` that are there.
    known: usize,
    /// Bytes of the payload that are still to come.
    left: usize,
    /// A head was begun whose last frame is still to come.
    in_head: bool,
    /// Units that began.
    begun: u64,
    /// The last stream that a request began.
    stream: u32,
    /// Requests, and those of them that were taken back.
    requests: u64,
    resets: u64,
}

impl Frames {
    fn hear(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let length = self.left.min(bytes.len());
                (self.left, bytes) = (self.left - length, &bytes[length..]);
                continue;
            }
            if self.known == 0 && !self.in_head {
                self.begun += 1;
            }
            let length = (FRAME_HEAD - self.known).min(bytes.len());
            self.head[self.known..self.known + length].copy_from_slice(&bytes[..length]);
            (self.known, bytes) = (self.known + length, &bytes[length..]);
            if self.known == FRAME_HEAD {
                self.known = 0;
                self.begin();
            }
        }
    }

    /// The head of a frame is whole.
    fn begin(&mut self) {
        let [high, middle, low, kind, flags, stream @ ..] = self.head;
        self.left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        match kind {
            HEADERS | CONTINUATION => self.in_head = flags & END_HEADERS == 0,
            RST_STREAM => self.resets += 1,
            _ => {}
        }
        let stream = u32::from_be_bytes(stream);
        // The others are trailers.
        if kind == HEADERS && stream > self.stream {
            (self.stream, self.requests) = (stream, self.requests + 1);
        }
    }

    /// The number of the unit that is not finished, if there is one.
    pub(super) fn unfinished(&self) -> Option<u64> {
        (self.known > 0 || self.left > 0 || self.in_head).then_some(self.begun)
    }

    /// How many more requests were taken back than not.
    pub(super) fn taken_back(&self) -> u64 {
        self.resets.saturating_sub(self.requests.saturating_sub(self.resets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let [.., high, middle, low] = length.to_be_bytes();
        [&[high, middle, low, kind, flags, 0, 0, 0, 1][..], &vec![b'x'; length]].concat()
    }

    /// The units that are unfinished after each byte.
    fn units(bytes: &[u8]) -> Vec<Option<u64>> {
        let mut frames = Frames::default();
        bytes
            .chunks(1)
            .map(|byte| {
                frames.hear(byte);
                frames.unfinished()
            })
            .collect()
    }

    #[test]
    fn only_the_whole_preface_is_http_2() {
        let mut speech = Speech::Beginning(0);
        for byte in &PREFACE[..23] {
            speech.hear(&[*byte]);
            assert!(matches!(speech, Speech::Beginning(_)));
        }
        speech.hear(b"\n\0\0");
        assert!(matches!(&speech, Speech::Two(frames) if frames.unfinished() == Some(1)));
        for other in [&b"GET / HTTP/1.1\r\n"[..], b"PRI * HTTP/1.1\r\n", b"PUT"] {
            let mut speech = Speech::Beginning(0);
            other.chunks(2).for_each(|bytes| speech.hear(bytes));
            assert!(matches!(speech, Speech::One), "{other:?}");
        }
    }

    #[test]
    fn a_frame_is_unfinished_until_its_last_byte() {
        let ping = frame(6, 0, 8);
        let one = units(&ping);
        assert!(one[..16].iter().all(|unit| *unit == Some(1)) && one[16].is_none());
        let two = units(&[ping.clone(), ping].concat());
        assert!(two[17..33].iter().all(|unit| *unit == Some(2)) && two[33].is_none());
        assert_eq!(units(&frame(4, 1, 0)).last(), Some(&None), "a frame without a payload");
        assert_eq!(units(&frame(0, 0, 70_000)).len(), 70_009);
        assert_eq!(units(&frame(0, 0, 70_000))[70_007], Some(1));
    }

    #[test]
    fn a_head_is_unfinished_until_the_last_frame_of_it() {
        let head = [frame(HEADERS, 0, 3), frame(CONTINUATION, 0, 3), frame(CONTINUATION, END_HEADERS, 3)].concat();
        let units = units(&head);
        assert!(units[..35].iter().all(|unit| *unit == Some(1)), "{units:?}");
        assert_eq!(units[35], None);
    }

    #[test]
    fn what_is_taken_back_is_counted_however_it_is_cut() {
        let on = |stream: u8, mut frame: Vec<u8>| {
            frame[8] = stream;
            frame
        };
        let asked = |streams: &[u8]| -> Vec<u8> {
            // With trailers, which are no request of their own.
            let frames = streams.iter().flat_map(|stream| on(*stream, frame(HEADERS, END_HEADERS, 3)).repeat(2));
            frames.collect()
        };
        let reset = frame(RST_STREAM, 0, 4);
        for (bytes, expected) in [
            (reset.repeat(5), 5),
            ([asked(&[1, 3, 5]), reset.repeat(3)].concat(), 3),
            ([asked(&[1, 3, 5, 7]), reset.repeat(2)].concat(), 0),
            ([asked(&[1, 3, 5]), reset].concat(), 0),
        ] {
            for size in [1, 2, 9, 13, 64] {
                let mut frames = Frames::default();
                bytes.chunks(size).for_each(|bytes| frames.hear(bytes));
                assert_eq!((frames.taken_back(), frames.unfinished()), (expected, None), "{bytes:?}");
            }
        }
    }
}
