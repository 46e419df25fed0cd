//! Long lists of names in few words, for the log. Pure.

/// Most names that one line has room for.
const NAMED_MAX: usize = 10;

/// The first few of `names`, and how many more there are; `None` of none.
pub(crate) fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let names: Vec<&str> = names.into_iter().collect();
    let first: Vec<&str> = names.iter().take(NAMED_MAX).copied().collect();
    let first = first.join(", ");
    match names.len().saturating_sub(NAMED_MAX) {
        _ if names.is_empty() => None,
        0 => Some(first),
        more => Some(format!("{first} and {more} more")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_ten_and_counts_the_rest() {
        let names: Vec<String> = (0..12).map(|number| number.to_string()).collect();
        let words = |count: usize| named(names.iter().take(count).map(String::as_str));
        assert_eq!(words(0), None);
        assert_eq!(words(1).as_deref(), Some("0"));
        assert_eq!(words(10).as_deref(), Some("0, 1, 2, 3, 4, 5, 6, 7, 8, 9"));
        let twelve = words(12);
        assert_eq!(
            twelve.as_deref(),
            Some("0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more")
        );
    }
}
