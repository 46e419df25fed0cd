//! The differences between providers that need no code: addresses, headers, names. Pure.

use std::borrow::Cow;

use crate::domain::key::Mode;
use crate::secret::{Mask, TokenForm};

/// Text that is a constant for a built-in provider and comes from the configuration for a user's
/// definition.
pub type Text = Cow<'static, str>;

/// The properties of one provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its name in the configuration and in the label `provider`.
    pub name: Text,
    /// The default base URL; `None` if each account must set it.
    pub base_url: Option<Text>,
    /// The path below `base_url` that lists the keys, if it is the same for all accounts.
    pub listing_path: Option<Text>,
    /// The header that carries the token, in lower case.
    pub auth_header: Text,
    /// The text before the token in that header.
    pub auth_prefix: Text,
    /// The encoding of the token in that header.
    pub token_form: TokenForm,
    /// The variables that configure an account without a file.
    pub environment: Option<EnvironmentAccount>,
    /// The prefixes of its tokens; empty if they have none in common.
    pub token_prefixes: Cow<'static, [TokenPrefix]>,
    /// How a listing masks a secret, if it shows one.
    pub mask: Option<Mask>,
    /// The only scope that listing keys and reading their details needs.
    pub listing_scope: Option<Text>,
    /// Patterns of the scopes that count as privileged unless the configuration says otherwise.
    pub privileged_scopes: Cow<'static, [Text]>,
    /// Whether it has a page with details for each key.
    pub has_details: bool,
    /// Whether it reports its environment, so that an account can expect one.
    pub has_environments: bool,
}

/// The variables that configure an account without a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnvironmentAccount {
    /// The variable with the path of a token file; takes precedence.
    pub token_file: &'static str,
    /// The variable with the token.
    pub token: &'static str,
}

/// A prefix of tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenPrefix {
    /// The prefix.
    pub text: Text,
    /// The mode that it indicates.
    pub mode: Option<Mode>,
}

impl Profile {
    /// Whether a key with this secret, whole or masked, is for production or for tests, if its
    /// prefix indicates that.
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

    /// Its token prefixes as text for messages, `sk_live_… or sk_test_…`; `None` if it has none.
    pub fn described_prefixes(&self) -> Option<String> {
        let described: Vec<String> = self.prefixes().map(|it| format!("{it}…")).collect();
        (!described.is_empty()).then(|| described.join(" or "))
    }
}
