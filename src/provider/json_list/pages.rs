//! What to request after each page, and when the listing is complete. Pure.

use std::collections::HashSet;

use http::HeaderMap;

use crate::provider::json_list::answer::{Page, Said};
use crate::provider::json_list::definition::{PageEnd, Pagination};
use crate::provider::json_list::template::percent_encoded;
use crate::provider::link_header::{self, Malformed};
use crate::provider::paging_hints::PagingHints;

/// Longest link or cursor, in bytes: the usual limit of servers for a request line.
const LINK_BYTES_MAX: usize = 8 * 1024;

/// The step after a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// None: it was the last page.
    Done,
    /// The same request with these query parameters.
    Get(String),
    /// This link, absolute or relative to the request.
    Follow(String),
}

/// Why no further page can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The pages cannot all be read.
    Incomplete(String),
    /// There are fewer keys than at the previous page: keys behind a deleted one may have moved to
    /// a page that was read already.
    Changed,
}

/// The state of reading the pages of one listing.
#[derive(Debug)]
pub(super) struct Pages<'d> {
    pagination: &'d Pagination,
    /// Most pages.
    max: usize,
    /// Requests answered.
    read: usize,
    /// Items of all pages; items on two pages count twice.
    items: u64,
    /// The total number of items, or of pages, that the last page reported.
    total: Option<u64>,
    seen_ids: HashSet<u64>,
    seen_cursors: HashSet<String>,
}

impl<'d> Pages<'d> {
    pub(super) fn new(pagination: &'d Pagination, pages_max: usize) -> Self {
        Self {
            pagination,
            max: pages_max,
            read: 0,
            items: 0,
            total: None,
            seen_ids: HashSet::new(),
            seen_cursors: HashSet::new(),
        }
    }

    /// The query parameters of the first request.
    pub(super) fn first(&self) -> String {
        match self.pagination {
            Pagination::None
            | Pagination::Link
            | Pagination::NextUrl { .. }
            | Pagination::Cursor { .. } => String::new(),
            Pagination::Page { .. } | Pagination::Offset { .. } => self.numbered(),
        }
    }

    /// The step after `page`.
    pub(super) fn after(&mut self, page: &Page, headers: &HeaderMap) -> Result<Step, Stop> {
        self.read += 1;
        self.items += page.items as u64;
        // One more request may find the empty page that proves the end.
        if self.read > self.max && page.items > 0 {
            return Err(self.too_many());
        }
        let is_new = page.ids_hash.is_none_or(|ids| self.seen_ids.insert(ids));
        if !is_new {
            return Err(incomplete("the API returned the same page twice"));
        }
        let (step, is_certain) = self.step(page, headers)?;
        let may_read = self.max + usize::from(!is_certain);
        if step != Step::Done && self.read >= may_read {
            return Err(self.too_many());
        }
        Ok(step)
    }

    /// Whether a key may have moved to a page that was read already, because another one was
    /// deleted, without a sign of it: a decreasing total would be one.
    pub(super) fn may_have_lost_keys(&self) -> bool {
        let is_counted = match self.pagination {
            Pagination::None
            | Pagination::Link
            | Pagination::NextUrl { .. }
            | Pagination::Cursor { .. } => return false,
            Pagination::Page { end, .. } => !matches!(end, PageEnd::Pages(_)),
            Pagination::Offset { .. } => true,
        };
        let has_total = self.total.is_some_and(|total| total >= self.items);
        self.read > 1 && !(is_counted && has_total)
    }

    /// The next step, and whether the answer indicates that there is more.
    fn step(&mut self, page: &Page, headers: &HeaderMap) -> Result<(Step, bool), Stop> {
        let mut said = page.paging.iter();
        let mut said = || said.next().unwrap_or(&Said::Nothing);
        match self.pagination {
            Pagination::None => Ok((Step::Done, true)),
            Pagination::Link => {
                let next = link_header::next(headers).map_err(|Malformed| {
                    incomplete("the Link header, which may lead to a next page, is malformed")
                })?;
                let Some(next) = next else {
                    // A proxy may have dropped the header.
                    let mut hints = PagingHints::default();
                    hints.headers(headers);
                    let items = usize::try_from(self.items).unwrap_or(usize::MAX);
                    let missing = hints.missing_after_all(items);
                    return missing.map_or(Ok((Step::Done, true)), |why| Err(incomplete(&why)));
                };
                Ok((Step::Follow(short(next, "link")?), true))
            }
            Pagination::NextUrl { .. } => match said() {
                Said::Nothing | Said::Bool(false) => Ok((Step::Done, true)),
                Said::Text(link) => Ok((Step::Follow(short(link.clone(), "link")?), true)),
                Said::Bool(true) | Said::Other => Err(incomplete(
                    "the value at the next URL's pointer is not text",
                )),
            },
            Pagination::Cursor {
                param, has_more, ..
            } => {
                let cursor = said();
                let has_more = has_more.as_ref().map(|_| said());
                self.cursor(param, cursor, has_more, page.items == 0)
            }
            Pagination::Page { end, .. } => {
                let total = match end {
                    PageEnd::EmptyPage => None,
                    PageEnd::Total(_) | PageEnd::Pages(_) => number(said()),
                    PageEnd::TotalHeader(name) => {
                        let value = headers.get(name).and_then(|value| value.to_str().ok());
                        value.and_then(|value| value.trim().parse().ok())
                    }
                };
                let received = match end {
                    PageEnd::Pages(_) => self.read as u64,
                    PageEnd::EmptyPage | PageEnd::Total(_) | PageEnd::TotalHeader(_) => self.items,
                };
                self.counted(page, total, received)
            }
            Pagination::Offset { total, .. } => {
                let total = total.as_ref().and_then(|_| number(said()));
                self.counted(page, total, self.items)
            }
        }
    }

    fn cursor(
        &mut self,
        param: &str,
        cursor: &Said,
        has_more: Option<&Said>,
        is_empty: bool,
    ) -> Result<(Step, bool), Stop> {
        let has_more = match has_more {
            // Some APIs omit `false`, and repeat the cursor.
            Some(Said::Nothing) if is_empty => Some(false),
            // Without a statement, the cursor decides.
            None | Some(Said::Nothing) => None,
            Some(Said::Bool(has_more)) => Some(*has_more),
            Some(Said::Text(_) | Said::Other) => {
                return Err(incomplete("the value at has_more is not true or false"));
            }
        };
        match (cursor, has_more) {
            (_, Some(false)) | (Said::Nothing | Said::Bool(false), None) => Ok((Step::Done, true)),
            (Said::Text(cursor), _) => {
                let cursor = short(cursor.clone(), "cursor")?;
                if !self.seen_cursors.insert(cursor.clone()) {
                    return Err(incomplete("the API returned the same cursor twice"));
                }
                let query = format!("{param}={}", percent_encoded(&cursor));
                Ok((Step::Get(query), true))
            }
            (Said::Nothing | Said::Bool(false), Some(true)) => Err(incomplete(
                "the answer says that there is more, and has no cursor for it",
            )),
            (Said::Bool(true) | Said::Other, _) => {
                Err(incomplete("the value at the cursor's pointer is not text"))
            }
        }
    }

    /// The step after a page of an answer that may report a `total`, of which so many items, or
    /// pages, were received.
    fn counted(
        &mut self,
        page: &Page,
        total: Option<u64>,
        received: u64,
    ) -> Result<(Step, bool), Stop> {
        let before = std::mem::replace(&mut self.total, total);
        if let (Some(before), Some(total)) = (before, total)
            && total < before
        {
            return Err(Stop::Changed);
        }
        // Less than what was received cannot be the total: the first empty page is the end.
        let left = total.and_then(|total| total.checked_sub(received));
        match (left, page.items) {
            (Some(0), _) | (None, 0) => Ok((Step::Done, true)),
            (Some(left), 0) => Err(incomplete(&format!(
                "the answer says that there are {left} more, and the page is empty"
            ))),
            (left, _) => Ok((Step::Get(self.numbered()), left.is_some())),
        }
    }

    /// The query parameters of the next request.
    fn numbered(&self) -> String {
        let (param, number, size) = match self.pagination {
            Pagination::Page {
                page_param,
                first,
                size,
                ..
            } => (page_param, first + self.read as u64, size),
            Pagination::Offset {
                offset_param, size, ..
            } => (offset_param, self.items, size),
            Pagination::None
            | Pagination::Link
            | Pagination::NextUrl { .. }
            | Pagination::Cursor { .. } => return String::new(),
        };
        let size = size.as_ref();
        let size = size.map_or_else(String::new, |(param, size)| format!("&{param}={size}"));
        format!("{param}={number}{size}")
    }

    fn too_many(&self) -> Stop {
        let max = self.max;
        incomplete(&format!("there are more pages than poll.max_pages ({max})"))
    }
}

fn incomplete(why: &str) -> Stop {
    Stop::Incomplete(why.to_owned())
}

fn short(text: String, what: &str) -> Result<String, Stop> {
    if text.len() > LINK_BYTES_MAX {
        return Err(incomplete(&format!(
            "the {what} to the next page is too long"
        )));
    }
    Ok(text)
}

/// The number, if it is readable.
fn number(said: &Said) -> Option<u64> {
    match said {
        Said::Text(text) => text.parse().ok(),
        Said::Nothing | Said::Bool(_) | Said::Other => None,
    }
}

#[cfg(test)]
mod tests;
