//! What differs from provider to provider and is no code: addresses, headers, names. Pure.

use std::borrow::Cow;

use crate::domain::key::Mode;
use crate::secret::{Mask, TokenForm};

/// Text that a built-in provider has at compile time and a user's definition at run time.
pub type Text = Cow<'static, str>;

/// What is particular to one provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its name in the configuration and in the label `provider`.
    pub name: Text,
    /// Where its API is, unless an account says otherwise; `None` where each account must.
    pub base_url: Option<Text>,
    /// The path below `base_url` that lists the keys, where it is the same for all accounts.
    pub listing_path: Option<Text>,
    /// The header that carries the token, in lower case.
    pub auth_header: Text,
    /// What stands before the token there.
    pub auth_prefix: Text,
    /// How the token is written there.
    pub token_form: TokenForm,
    /// The variables that make an account without a configuration file.
    pub environment: Option<EnvironmentAccount>,
    /// What its tokens start with; empty where they have nothing in common.
    pub token_prefixes: Cow<'static, [TokenPrefix]>,
    /// How a listing shows a secret, where it shows any of it.
    pub mask: Option<Mask>,
    /// The one scope that listing keys, and reading one's details, needs.
    pub listing_scope: Option<Text>,
    /// Patterns of the scopes that count as privileged unless the configuration says otherwise.
    pub privileged_scopes: Cow<'static, [Text]>,
    /// Whether it has a page of details for each key.
    pub has_details: bool,
    /// Whether it says which environment it is, so that an account may expect one.
    pub has_environments: bool,
}

/// The variables that make an account without a configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnvironmentAccount {
    /// Names the path of a file with the token; wins over the other.
    pub token_file: &'static str,
    /// Holds the token.
    pub token: &'static str,
}

/// What a token may start with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenPrefix {
    /// The prefix.
    pub text: Text,
    /// What it says of the key.
    pub mode: Option<Mode>,
}

impl Profile {
    /// Whether a key with this secret, whole or masked, is for production or for tests, where its
    /// prefix shows it.
    pub fn mode_of(&self, secret: &str) -> Option<Mode> {
        let mut prefixes = self.token_prefixes.iter();
        prefixes
            .find(|prefix| secret.starts_with(&*prefix.text))?
            .mode
    }

    /// The prefixes of its tokens.
    pub fn prefixes(&self) -> impl Iterator<Item = &str> {
        self.token_prefixes.iter().map(|prefix| &*prefix.text)
    }

    /// Its token prefixes for people, `sk_live_… or sk_test_…`; `None` where it has none.
    pub fn described_prefixes(&self) -> Option<String> {
        let described: Vec<String> = self.prefixes().map(|it| format!("{it}…")).collect();
        (!described.is_empty()).then(|| described.join(" or "))
    }
}
