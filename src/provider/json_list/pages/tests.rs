//! The pages of listings, in sequence, without an API.

use http::HeaderValue;

use super::*;
use crate::provider::json_list::pointer::Pointer;

fn at(pointer: &str) -> Pointer {
    Pointer::parse(pointer).unwrap()
}

/// A page of `items` items with this hash of ids, and the values that the pagination points at.
fn page(items: usize, ids: u64, said: &[&str]) -> Page {
    let said = said.iter().map(|json| match *json {
        "" => Said::Nothing,
        "true" => Said::Bool(true),
        "false" => Said::Bool(false),
        "{}" => Said::Other,
        text => Said::Text(text.to_owned()),
    });
    Page {
        items,
        entries: items,
        ids_hash: (items > 0).then_some(ids),
        paging: said.collect(),
        ..Page::default()
    }
}

fn by_page(end: PageEnd) -> Pagination {
    Pagination::Page {
        page_param: "page".to_owned(),
        first: 1,
        size: Some(("per_page".to_owned(), 2)),
        end,
    }
}

fn by_offset(total: Option<Pointer>) -> Pagination {
    Pagination::Offset {
        offset_param: "offset".to_owned(),
        size: None,
        total,
    }
}

fn by_cursor(has_more: Option<Pointer>) -> Pagination {
    Pagination::Cursor {
        at: at("/next"),
        param: "after".to_owned(),
        has_more,
    }
}

/// The step after each of these pages, as text.
fn steps(pagination: &Pagination, pages_max: usize, pages: &[Page]) -> Vec<String> {
    let mut state = Pages::new(pagination, pages_max);
    let mut steps = vec![state.first()];
    for page in pages {
        steps.push(match state.after(page, &HeaderMap::new()) {
            Ok(Step::Done) => "done".to_owned(),
            Ok(Step::Get(query)) => query,
            Ok(Step::Follow(link)) => format!("follow {link}"),
            Err(Stop::Incomplete(why)) => format!("incomplete: {why}"),
            Err(Stop::Changed) => "changed".to_owned(),
        });
    }
    steps
}

#[test]
fn numbered_pages_end_where_the_answer_says_so_and_else_with_an_empty_one() {
    let one = "page=1&per_page=2";
    let (two, three) = ("page=2&per_page=2", "page=3&per_page=2");
    for (end, pages, expected) in [
        (
            PageEnd::EmptyPage,
            // A short page proves nothing.
            vec![page(2, 1, &[]), page(1, 2, &[]), page(0, 0, &[])],
            vec![one, two, three, "done"],
        ),
        (
            PageEnd::Total(at("/total")),
            vec![page(2, 1, &["3"]), page(1, 2, &["3"])],
            vec![one, two, "done"],
        ),
        (
            // A key was created in the meantime.
            PageEnd::Total(at("/total")),
            vec![page(2, 1, &["3"]), page(1, 2, &["4"]), page(1, 3, &["4"])],
            vec![one, two, three, "done"],
        ),
        (
            PageEnd::Total(at("/total")),
            vec![page(2, 1, &["4"]), page(2, 2, &["3"])],
            vec![one, two, "changed"],
        ),
        (
            PageEnd::Total(at("/total")),
            vec![page(2, 1, &["3"]), page(0, 2, &["3"])],
            vec![
                one,
                two,
                "incomplete: the answer says that there are 1 more, and the page is empty",
            ],
        ),
        (
            // Less than what was received cannot be the total.
            PageEnd::Total(at("/total")),
            vec![page(2, 1, &["1"]), page(2, 2, &["1"]), page(0, 0, &["1"])],
            vec![one, two, three, "done"],
        ),
        (
            PageEnd::Pages(at("/pages")),
            vec![page(2, 1, &["0"]), page(2, 2, &["0"]), page(0, 0, &["0"])],
            vec![one, two, three, "done"],
        ),
        (
            PageEnd::Pages(at("/pages")),
            vec![page(2, 1, &["3"]), page(2, 2, &["2"])],
            vec![one, two, "changed"],
        ),
        (
            // Some APIs omit the total if counting is expensive.
            PageEnd::Total(at("/total")),
            vec![page(2, 1, &[""]), page(2, 2, &["{}"]), page(0, 0, &[""])],
            vec![one, two, three, "done"],
        ),
        (
            PageEnd::Pages(at("/pages")),
            vec![page(2, 1, &["2"]), page(1, 2, &["2"])],
            vec![one, two, "done"],
        ),
        (
            PageEnd::Pages(at("/pages")),
            vec![page(0, 0, &["0"])],
            vec![one, "done"],
        ),
    ] {
        assert_eq!(steps(&by_page(end.clone()), 9, &pages), expected, "{end:?}");
    }
}

#[test]
fn only_a_total_of_entries_would_show_a_deleted_key() {
    let total = || PageEnd::Total(at("/total"));
    let pages = || PageEnd::Pages(at("/pages"));
    let next = Pagination::NextUrl { at: at("/next") };
    for (pagination, said, expected) in [
        (by_page(PageEnd::EmptyPage), &["", ""][..], true),
        (by_page(total()), &["4", "4"], false),
        (by_page(total()), &["4", ""], true),
        (by_page(total()), &["1", "1"], true),
        (by_page(pages()), &["2", "2"], true),
        (by_page(total()), &["2"], false),
        (by_page(pages()), &["1"], false),
        (by_offset(None), &["", ""], true),
        (by_offset(Some(at("/total"))), &["4", "4"], false),
        (by_cursor(None), &["c", ""], false),
        (next, &["/2", ""], false),
    ] {
        let mut state = Pages::new(&pagination, 9);
        for (ids, said) in (1..).zip(said) {
            let step = state.after(&page(2, ids, &[*said]), &HeaderMap::new());
            assert!(step.is_ok(), "{pagination:?}: {step:?}");
        }
        assert_eq!(state.may_have_lost_keys(), expected, "{pagination:?}");
    }
}

#[test]
fn a_total_may_come_in_a_header() {
    let pagination = by_page(PageEnd::TotalHeader(http::HeaderName::from_static(
        "x-total",
    )));
    let mut state = Pages::new(&pagination, 9);
    let headers = |total| {
        let name = http::HeaderName::from_static("x-total");
        HeaderMap::from_iter([(name, HeaderValue::from_static(total))])
    };
    let next = state.after(&page(2, 1, &[]), &headers("3"));
    assert_eq!(next, Ok(Step::Get("page=2&per_page=2".to_owned())));
    assert_eq!(state.after(&page(1, 2, &[]), &headers("3")), Ok(Step::Done));
}

#[test]
fn an_offset_advances_by_what_was_received() {
    let pages = [page(3, 1, &[]), page(2, 2, &[]), page(0, 0, &[])];
    let expected = ["offset=0", "offset=3", "offset=5", "done"];
    assert_eq!(steps(&by_offset(None), 9, &pages), expected);
    let pages = [page(3, 1, &["5"]), page(2, 2, &["5"])];
    let expected = ["offset=0", "offset=3", "done"];
    assert_eq!(steps(&by_offset(Some(at("/total"))), 9, &pages), expected);
}

#[test]
fn cursors_go_on_until_there_is_none_or_no_more() {
    let last = |json: &str| page(1, 2, &[json]);
    for end in ["", "false"] {
        let pages = [page(2, 1, &["a b"]), last(end)];
        let expected = ["", "after=a%20b", "done"];
        assert_eq!(steps(&by_cursor(None), 9, &pages), expected, "{end}");
    }
    let with_more = by_cursor(Some(at("/more")));
    let pages = [page(2, 1, &["c", "true"]), page(1, 2, &["d", "false"])];
    assert_eq!(steps(&with_more, 9, &pages), ["", "after=c", "done"]);
    // Without a statement, the cursor decides.
    let pages = [page(2, 1, &["c", ""]), page(1, 2, &["", ""])];
    assert_eq!(steps(&with_more, 9, &pages), ["", "after=c", "done"]);
    for (said, expected) in [
        (
            &["", "true"][..],
            "incomplete: the answer says that there is more",
        ),
        (
            &["{}", "true"],
            "incomplete: the value at the cursor's pointer is not text",
        ),
        (&["c", "maybe"], "incomplete: the value at has_more"),
    ] {
        let found = steps(&with_more, 9, &[page(1, 1, said)]);
        assert!(found[1].starts_with(expected), "{said:?}: {found:?}");
    }
    let pages = [page(1, 1, &["c"]), page(1, 2, &["c"])];
    let found = steps(&by_cursor(None), 9, &pages);
    assert_eq!(
        found[2],
        "incomplete: the API returned the same cursor twice"
    );
}

#[test]
fn links_are_followed_as_they_are() {
    let pagination = Pagination::NextUrl { at: at("/next") };
    let pages = [page(1, 1, &["/keys?page=2"]), page(1, 2, &[""])];
    assert_eq!(
        steps(&pagination, 9, &pages),
        ["", "follow /keys?page=2", "done"]
    );
    let long = "x".repeat(LINK_BYTES_MAX + 1);
    for said in ["{}", "true", &long] {
        let found = steps(&pagination, 9, &[page(1, 1, &[said])]);
        assert!(found[1].starts_with("incomplete: "), "{found:?}");
    }
}

#[test]
fn pages_that_repeat_or_never_end_are_refused() {
    let pages = [page(2, 1, &[]), page(2, 1, &[])];
    let found = steps(&by_page(PageEnd::EmptyPage), 9, &pages);
    assert_eq!(found[2], "incomplete: the API returned the same page twice");
    let endless: Vec<Page> = (1..5).map(|ids| page(2, ids, &["/next"])).collect();
    let too_many = "incomplete: there are more pages than poll.max_pages (2)";
    let link = Pagination::NextUrl { at: at("/next") };
    // The second page indicates that there is a third.
    assert_eq!(steps(&link, 2, &endless)[2], too_many);
    // Nothing indicates that here, and the third page may be empty.
    let by_number = by_page(PageEnd::EmptyPage);
    let found = steps(&by_number, 2, &endless[..3]);
    assert_eq!(found[2..], ["page=3&per_page=2", too_many]);
    let whole = [page(2, 1, &[]), page(2, 2, &[]), page(0, 0, &[])];
    assert_eq!(steps(&by_number, 2, &whole)[3], "done");
    // Empty pages that promise more come to an end too.
    let empty: Vec<Page> = (0..3).map(|_| page(0, 0, &["/next"])).collect();
    assert_eq!(steps(&link, 2, &empty)[2], too_many);
}

#[test]
fn a_malformed_link_to_the_next_page_is_no_end() {
    for (header, expected) in [
        ("/keys?page=2; rel=next", None),
        ("<>; rel=\"next\"", Some(Step::Follow(String::new()))),
        (
            "</b?\u{e9}>; rel=next",
            Some(Step::Follow("/b?%C3%A9".to_owned())),
        ),
        ("</a>; rel=prev", Some(Step::Done)),
    ] {
        let value = HeaderValue::from_bytes(header.as_bytes()).unwrap();
        let headers = HeaderMap::from_iter([(http::header::LINK, value)]);
        let step = Pages::new(&Pagination::Link, 9).after(&page(1, 1, &[]), &headers);
        assert_eq!(step.ok(), expected, "{header}");
    }
}

#[test]
fn a_link_header_that_was_dropped_is_noticed() {
    let name = http::HeaderName::from_static("x-total");
    let headers = HeaderMap::from_iter([(name, HeaderValue::from_static("3"))]);
    let mut state = Pages::new(&Pagination::Link, 9);
    let stop = state.after(&page(2, 1, &[]), &headers);
    assert!(matches!(stop, Err(Stop::Incomplete(_))), "{stop:?}");
    let mut state = Pages::new(&Pagination::Link, 9);
    assert_eq!(state.after(&page(3, 1, &[]), &headers), Ok(Step::Done));
}
