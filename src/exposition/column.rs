//! The samples of one family over all accounts, in chunks: a change of one account affects only the
//! chunks that contain its text. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use crate::exposition::chunk::Chunk;
use crate::exposition::compression::Compressor;

/// A chunk is full at this many bytes. Smaller chunks compress worse, because each starts without
/// earlier text to refer to; larger ones make the change of one account cost more.
const FULL_BYTES: usize = 32 * 1024;

/// Most bytes of a chunk after merging with the next one.
const MERGED_BYTES_MAX: usize = 2 * FULL_BYTES;

/// A chunk is also full with this many segments, which bounds the work of a change in a family with
/// little text or none.
const FULL_SEGMENTS: usize = 256;

/// A chunk smaller than this is merged with the next one.
const SPARSE_BYTES: usize = FULL_BYTES / 4;

/// The text of one family. Every account has at least one segment, which may be empty; segments
/// are in the order of the accounts.
#[derive(Clone, Debug, Default)]
pub(super) struct Column {
    chunks: Vec<Arc<ColumnChunk>>,
}

/// A chunk that knows the accounts that its text belongs to.
#[derive(Debug)]
struct ColumnChunk {
    chunk: Chunk,
    segments: Box<[Segment]>,
}

/// Some lines of one account.
#[derive(Clone, Copy, Debug)]
struct Segment {
    /// The account's position in the order of accounts.
    account: u32,
    len: u32,
}

/// Collects segments into chunks.
pub(super) struct ColumnWriter<'a> {
    compressor: &'a mut Compressor,
    /// Text of the segments that are not in a chunk yet.
    text: String,
    segments: Vec<Segment>,
    chunks: Vec<Arc<ColumnChunk>>,
    /// Previous chunks, by checksum and length: unchanged text is neither compressed nor stored
    /// again.
    reusable: HashMap<(u32, usize), Chunk>,
}

impl Column {
    /// The chunks in order.
    pub(super) fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        self.chunks.iter().map(|chunk| &chunk.chunk)
    }

    /// Whether there is any text.
    pub(super) fn is_empty(&self) -> bool {
        self.chunks().all(|chunk| chunk.text().is_empty())
    }

    /// The column of the same accounts with new text for those in `changed`, which is sorted.
    /// `write` writes the segments of the account with that index in `changed`.
    pub(super) fn updated(
        &self,
        changed: &[usize],
        compressor: &mut Compressor,
        mut write: impl FnMut(usize, &mut ColumnWriter<'_>),
    ) -> Self {
        let is_touched = |chunk: &&Arc<ColumnChunk>| {
            let (first, last) = chunk.accounts();
            let from = changed.partition_point(|account| *account < first);
            changed.get(from).is_some_and(|account| *account <= last)
        };
        let touched = self.chunks.iter().filter(is_touched);
        let mut writer = ColumnWriter::new(compressor, touched);
        let mut written = None;
        for chunk in &self.chunks {
            if !is_touched(&chunk) {
                writer.keep(chunk);
                continue;
            }
            for (account, text) in chunk.segments() {
                match changed.binary_search(&account) {
                    // An account may have segments in several chunks.
                    Ok(_) if written == Some(account) => {}
                    Ok(index) => {
                        written = Some(account);
                        write(index, &mut writer);
                    }
                    Err(_) => writer.segment(account, |out| out.push_str(text)),
                }
            }
        }
        writer.finish()
    }

    /// The column of other accounts, or of the same in another order. For each of them `kept` is
    /// its previous position; if that is `None`, `write` writes its segments.
    pub(super) fn rearranged(
        &self,
        kept: &[Option<usize>],
        compressor: &mut Compressor,
        mut write: impl FnMut(usize, &mut ColumnWriter<'_>),
    ) -> Self {
        let mut before: HashMap<usize, Vec<&str>> = HashMap::new();
        for (account, text) in self.chunks.iter().flat_map(|chunk| chunk.segments()) {
            before.entry(account).or_default().push(text);
        }
        let mut writer = ColumnWriter::new(compressor, self.chunks.iter());
        for (account, kept) in kept.iter().enumerate() {
            match kept.and_then(|kept| before.get(&kept)) {
                Some(segments) => {
                    for text in segments {
                        writer.segment(account, |out| out.push_str(text));
                    }
                }
                None => write(account, &mut writer),
            }
        }
        writer.finish()
    }
}

impl ColumnChunk {
    /// The first and the last account with segments in it.
    fn accounts(&self) -> (usize, usize) {
        let account = |segment: Option<&Segment>| segment.map_or(0, |it| it.account as usize);
        (
            account(self.segments.first()),
            account(self.segments.last()),
        )
    }

    fn segments(&self) -> impl Iterator<Item = (usize, &str)> {
        // It was created from a string, and is split between two lines.
        let mut rest = std::str::from_utf8(self.chunk.text()).unwrap_or_default();
        self.segments.iter().map(move |segment| {
            let (text, tail) = rest.split_at(segment.len as usize);
            rest = tail;
            (segment.account as usize, text)
        })
    }
}

impl<'a> ColumnWriter<'a> {
    fn new<'b>(
        compressor: &'a mut Compressor,
        reusable: impl Iterator<Item = &'b Arc<ColumnChunk>>,
    ) -> Self {
        let reusable = reusable.map(|known| {
            let chunk = &known.chunk;
            ((chunk.checksum(), chunk.text().len()), chunk.clone())
        });
        Self {
            compressor,
            text: String::new(),
            segments: Vec::new(),
            chunks: Vec::new(),
            reusable: reusable.collect(),
        }
    }

    /// Adds a segment of `account`, with the lines that `write` appends.
    pub(super) fn segment(&mut self, account: usize, write: impl FnOnce(&mut String)) {
        let start = self.text.len();
        write(&mut self.text);
        let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        self.segments.push(Segment {
            account: number(account),
            len: number(self.text.len() - start),
        });
        if self.text.len() >= FULL_BYTES || self.segments.len() >= FULL_SEGMENTS {
            self.close();
        }
    }

    /// Adds an existing chunk, merged with the open text if that is short.
    fn keep(&mut self, chunk: &Arc<ColumnChunk>) {
        let is_sparse = !self.segments.is_empty()
            && self.text.len() < SPARSE_BYTES
            && self.text.len() + chunk.chunk.text().len() <= MERGED_BYTES_MAX
            && self.segments.len() + chunk.segments.len() <= 2 * FULL_SEGMENTS;
        if is_sparse {
            for (_, text) in chunk.segments() {
                self.text.push_str(text);
            }
            self.segments.extend_from_slice(&chunk.segments);
        }
        self.close();
        if !is_sparse {
            self.chunks.push(chunk.clone());
        }
    }

    fn close(&mut self) {
        if self.segments.is_empty() {
            return;
        }
        let text = self.text.as_bytes();
        let known = self.reusable.get(&(crc32fast::hash(text), text.len()));
        let chunk = match known.filter(|known| *known.text() == text) {
            Some(known) => known.clone(),
            None => Chunk::new(text, self.compressor),
        };
        let segments = std::mem::take(&mut self.segments).into();
        self.chunks.push(Arc::new(ColumnChunk { chunk, segments }));
        self.text.clear();
    }

    fn finish(mut self) -> Column {
        self.close();
        Column {
            chunks: self.chunks,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(column: &Column) -> Vec<bytes::Bytes> {
        column.chunks().map(|chunk| chunk.text().clone()).collect()
    }

    /// The segments of each account in the column.
    type Model = Vec<Vec<String>>;

    fn any_account(random: &mut fastrand::Rng) -> Vec<String> {
        // None, a few, many, or more than a chunk.
        let line = |random: &mut fastrand::Rng| format!("a{{id=\"{:x}\"}} 1\n", random.u64(..));
        let (segments, lines) = match random.u8(..10) {
            0..3 => (1, 0),
            3..8 => (1, random.usize(..200)),
            8 => (1, 2_000),
            _ => (random.usize(1..6), random.usize(..2_000)),
        };
        let segment = |random: &mut fastrand::Rng| (0..lines).map(|_| line(random)).collect();
        (0..segments).map(|_| segment(random)).collect()
    }

    fn write(model: &Model, account: usize, writer: &mut ColumnWriter<'_>) {
        for text in &model[account] {
            writer.segment(account, |out| out.push_str(text));
        }
    }

    fn assert_is(column: &Column, model: &Model) {
        assert!(text(column).concat() == model.concat().concat().as_bytes());
        let accounts = column.chunks.iter().flat_map(|chunk| chunk.segments());
        let mut accounts: Vec<usize> = accounts.map(|(account, _)| account).collect();
        assert!(accounts.is_sorted());
        accounts.dedup();
        assert_eq!(accounts, (0..model.len()).collect::<Vec<_>>());
    }

    #[test]
    fn whatever_changes_the_column_is_the_text_of_all_accounts_in_order() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut compressor = Compressor::new();
        let mut model: Model = Vec::new();
        let mut column = Column::default();
        for turn in 0..60 {
            if turn % 10 == 0 {
                // Other accounts, some of them kept at other positions.
                let mut kept: Vec<Option<usize>> = (0..model.len()).map(Some).collect();
                random.shuffle(&mut kept);
                kept.truncate(random.usize(..150));
                kept.resize_with(random.usize(1..150).max(kept.len()), || None);
                random.shuffle(&mut kept);
                let of = |kept: &Option<usize>| match kept {
                    Some(kept) => model[*kept].clone(),
                    None => any_account(&mut random),
                };
                model = kept.iter().map(of).collect();
                column = column.rearranged(&kept, &mut compressor, |account, writer| {
                    write(&model, account, writer);
                });
            } else {
                let count = random.usize(..=model.len().min(5));
                let mut changed: Vec<usize> =
                    (0..count).map(|_| random.usize(..model.len())).collect();
                changed.sort_unstable();
                changed.dedup();
                for account in &changed {
                    model[*account] = any_account(&mut random);
                }
                column = column.updated(&changed, &mut compressor, |index, writer| {
                    write(&model, changed[index], writer);
                });
            }
            assert_is(&column, &model);
        }
    }

    #[test]
    fn a_change_touches_the_chunks_of_its_account_only_and_the_same_text_is_shared() {
        let mut compressor = Compressor::new();
        let line = |account: usize| format!("a{{id=\"{account}\"}} {}\n", "x".repeat(1_000));
        let model: Model = (0..1_000).map(|account| vec![line(account)]).collect();
        let kept = vec![None; model.len()];
        let column = Column::default();
        let first = column.rearranged(&kept, &mut compressor, |it, out| write(&model, it, out));
        let differing = |column: &Column| {
            let chunks = text(column).into_iter();
            let known = text(&first);
            let is_new =
                |chunk: &bytes::Bytes| known.iter().all(|it| it.as_ptr() != chunk.as_ptr());
            chunks.filter(is_new).count()
        };
        assert!(first.chunks.len() > 20);
        let mut other = model.clone();
        other[500] = vec![line(0)];
        let changed = [500];
        let second = first.updated(&changed, &mut compressor, |_, out| write(&other, 500, out));
        assert_eq!(differing(&second), 1);
        let same = first.updated(&changed, &mut compressor, |_, out| write(&model, 500, out));
        assert_eq!(differing(&same), 0);
        let kept: Vec<Option<usize>> = (0..model.len()).map(Some).collect();
        let all = first.rearranged(&kept, &mut compressor, |_, _| unreachable!());
        assert_eq!(differing(&all), 0);
    }

    #[test]
    fn chunks_stay_few_when_accounts_grow_one_by_one() {
        let mut compressor = Compressor::new();
        let mut model: Model = vec![vec![String::new()]; 1_000];
        let kept = vec![None; model.len()];
        let mut column = Column::default();
        column = column.rearranged(&kept, &mut compressor, |it, out| write(&model, it, out));
        let mut order: Vec<usize> = (0..model.len()).collect();
        fastrand::Rng::with_seed(3).shuffle(&mut order);
        for account in order {
            model[account] = vec!["y".repeat(2_000)];
            let changed = [account];
            column = column.updated(&changed, &mut compressor, |_, out| {
                write(&model, account, out);
            });
        }
        // With full chunks it would be 63.
        assert!(column.chunks.len() < 130, "{}", column.chunks.len());
    }
}
