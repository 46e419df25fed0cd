//! The definitions that come with the program, in the form that a user writes under
//! `[providers.NAME]`.

/// Each built-in definition's name and its text, sorted by name.
pub const BUILT_IN: [(&str, &str); 0] = [];
