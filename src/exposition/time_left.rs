//! The family whose every value moves with the clock: written once a poll, plain and compressed,
//! with each value's digits in a known place; a second later only the digits are rewritten. Pure.

use bytes::BytesMut;

use crate::exposition::deflate::ValueLines;
use crate::exposition::piece::Piece;

/// The lines of one account's keys with a readable end, in order.
#[derive(Debug, Default)]
pub(super) struct TimeLeft {
    /// Each line up to its value, all in one string.
    heads: String,
    /// Where each of those stops, and the second of the key's end, rounded down.
    lines: Vec<(usize, i64)>,
}

/// The lines with their values as of some second.
#[derive(Debug)]
pub(super) struct Written {
    piece: Piece,
    values: Vec<Place>,
}

/// Where a value stands.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// How many compressed bytes there are between the end of the line before and the value.
    deflated_head_len: u32,
    /// How many digits it has, its sign included.
    width: u8,
}

impl TimeLeft {
    /// One more line: `head` is what stands before its value, `end` the second of the key's end.
    pub(super) fn push(&mut self, head: [&str; 3], end: i64) {
        self.heads.extend(head);
        self.lines.push((self.heads.len(), end));
    }

    /// Gives back memory that was reserved for more lines.
    pub(super) fn shrink_to_fit(&mut self) {
        self.heads.shrink_to_fit();
        self.lines.shrink_to_fit();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The lines as of `second`. Values are whole seconds, rounded down, so that what is below zero
    /// has expired. `previous`, of the same lines at another second, is rewritten where it can be:
    /// all values must have as many digits as they had, which changes a few times in a key's life.
    pub(super) fn at(&self, second: i64, previous: Option<Written>) -> Written {
        let rewritten = previous.and_then(|previous| self.rewrite(second, previous));
        rewritten.unwrap_or_else(|| self.write(second))
    }

    fn write(&self, second: i64) -> Written {
        // A value takes 13 digits and a line break for any end up to the year 9999.
        let mut text = Vec::with_capacity(self.heads.len() + 14 * self.lines.len());
        let mut deflated = ValueLines::default();
        let mut digits = itoa::Buffer::new();
        let values = self.lines().map(|(head, end)| {
            let value = digits.format(end - second).as_bytes();
            for part in [head.as_bytes(), value, b"\n"] {
                text.extend_from_slice(part);
            }
            Place {
                deflated_head_len: deflated.push(head.as_bytes(), value),
                // An i64 has at most 20.
                width: u8::try_from(value.len()).unwrap_or(u8::MAX),
            }
        });
        let values = values.collect();
        Written {
            piece: Piece::of_parts(text, deflated.finish()),
            values,
        }
    }

    /// `None` where a value has another number of digits than before.
    fn rewrite(&self, second: i64, previous: Written) -> Option<Written> {
        let Written { piece, values } = previous;
        let (mut text, mut deflated): (BytesMut, BytesMut) = piece.into_parts();
        let (mut text_at, mut deflated_at) = (0, 0);
        let mut digits = itoa::Buffer::new();
        for ((head, end), place) in self.lines().zip(&values) {
            let value = digits.format(end - second).as_bytes();
            if value.len() != usize::from(place.width) {
                return None;
            }
            text_at += head.len();
            deflated_at += place.deflated_head_len as usize;
            for (bytes, at) in [(&mut text, &mut text_at), (&mut deflated, &mut deflated_at)] {
                bytes
                    .get_mut(*at..*at + value.len())?
                    .copy_from_slice(value);
                // The value and its line break.
                *at += value.len() + 1;
            }
        }
        Some(Written {
            piece: Piece::of_parts(text, deflated),
            values,
        })
    }

    /// What stands before each value, and the second of the key's end.
    fn lines(&self) -> impl Iterator<Item = (&str, i64)> {
        let (mut rest, mut start) = (self.heads.as_str(), 0);
        self.lines.iter().map(move |(stop, end)| {
            let (head, tail) = rest.split_at(stop - start);
            (rest, start) = (tail, *stop);
            (head, *end)
        })
    }
}

impl Written {
    pub(super) fn piece(&self) -> &Piece {
        &self.piece
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::piece::{Chain, Encoding};

    fn lines(count: i64) -> TimeLeft {
        let mut lines = TimeLeft::default();
        for number in 0..count {
            // Ends on both sides of 0, so that digits and signs come and go.
            let id = format!("{:x}", number * 0x1234_5678_9abc);
            lines.push(["a{id=\"", &id, "\"} "], number * number - 500);
        }
        lines
    }

    fn expected(lines: &TimeLeft, second: i64) -> String {
        let mut text = String::new();
        for (head, end) in lines.lines() {
            text.extend([head, &(end - second).to_string(), "\n"]);
        }
        text
    }

    fn body(written: &Written, encoding: Encoding) -> Vec<u8> {
        let mut chain = Chain::default();
        chain.push(written.piece());
        chain.into_body(encoding).concat()
    }

    fn assert_is(written: &Written, text: &str) {
        assert!(
            body(written, Encoding::Identity) == text.as_bytes(),
            "{text}"
        );
        let gzip = body(written, Encoding::Gzip);
        let mut reader = flate2::bufread::GzDecoder::new(gzip.as_slice());
        let mut out = String::new();
        std::io::Read::read_to_string(&mut reader, &mut out).unwrap();
        assert!(out == text, "{text}");
    }

    #[test]
    fn whatever_was_written_before_the_text_is_that_of_the_second() {
        let lines = lines(60);
        let mut previous = None;
        // Steps of one, and jumps both ways.
        for second in (-1_200..1_200).chain([5_000_000_000, 7, -9_999_999, 8]) {
            let written = lines.at(second, previous);
            assert_is(&written, &expected(&lines, second));
            previous = Some(written);
        }
    }

    #[test]
    fn what_a_reader_holds_is_never_rewritten_and_what_nobody_holds_is_not_copied() {
        let lines = lines(2);
        let first = lines.at(0, None);
        let mut held = Chain::default();
        held.push(first.piece());
        let second = lines.at(1, Some(first));
        assert_eq!(
            held.into_body(Encoding::Identity).concat(),
            expected(&lines, 0).as_bytes()
        );
        assert_is(&second, &expected(&lines, 1));
        let before = second.piece().text().as_ptr();
        let third = lines.at(2, Some(second));
        assert_eq!(third.piece().text().as_ptr(), before, "it was copied");
        assert_is(&third, &expected(&lines, 2));
    }

    #[test]
    fn no_lines_are_no_text() {
        let lines = TimeLeft::default();
        let written = lines.at(0, None);
        assert!(written.piece().text().is_empty());
        assert!(lines.at(1, Some(written)).piece().text().is_empty());
    }
}
