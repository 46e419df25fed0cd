//! BitGPT's API: its envelope, its paths, its formats.

pub mod details;
mod observe;
pub mod parse;
mod wire;

use std::borrow::Cow;

use chrono::{DateTime, Utc};

use crate::domain::failure::{Failure, Reason};
use crate::domain::key::{Details, KeyId, Mode};
use crate::domain::text::Line;
use crate::provider::http::Session;
use crate::provider::paging_hints::PagingHints;
use crate::provider::profile::{EnvironmentAccount, Profile, TokenPrefix};
use crate::provider::response::Response;
use crate::provider::{Listed, Rules};
use crate::secret::{Mask, TokenForm};

/// Its name.
pub(super) const NAME: &str = "bitgpt";

/// The path of the listing; the page of a key is below it.
const KEYS_PATH: &str = "/developers/api_keys";

/// <https://docs.bitgpt.xyz>, developer resources.
pub(super) static PROFILE: Profile = Profile {
    name: Cow::Borrowed(NAME),
    base_url: Some(Cow::Borrowed("https://api.bitgpt.xyz")),
    listing_path: Some(Cow::Borrowed(KEYS_PATH)),
    auth_header: Cow::Borrowed("authorization"),
    auth_prefix: Cow::Borrowed("Bearer "),
    token_form: TokenForm::Plain,
    environment: Some(EnvironmentAccount {
        token_file: "BITGPT_API_KEY_FILE",
        token: "BITGPT_API_KEY",
    }),
    token_prefixes: Cow::Borrowed(&[
        TokenPrefix {
            text: Cow::Borrowed("sk_live_"),
            mode: Some(Mode::Live),
        },
        TokenPrefix {
            text: Cow::Borrowed("sk_test_"),
            mode: Some(Mode::Test),
        },
    ]),
    // `sk_live_` and at least one more character.
    mask: Some(Mask {
        separator: Cow::Borrowed("..."),
        first_chars_min: 12,
    }),
    listing_scope: Some(Cow::Borrowed("api_keys.read")),
    // The documented scopes that affect the account itself: create, update, delete or deactivate
    // keys, users, organizations and webhooks.
    privileged_scopes: Cow::Borrowed(&[
        Cow::Borrowed("api_keys.create"),
        Cow::Borrowed("api_keys.update"),
        Cow::Borrowed("api_keys.delete"),
        Cow::Borrowed("organizations.create"),
        Cow::Borrowed("organizations.update"),
        Cow::Borrowed("organizations.deactivate"),
        Cow::Borrowed("users.*update"),
        Cow::Borrowed("users.*deactivate"),
        Cow::Borrowed("webhooks.create"),
        Cow::Borrowed("webhooks.update"),
        Cow::Borrowed("webhooks.delete"),
    ]),
    has_details: true,
    has_environments: true,
};

/// `GET /developers/api_keys`: the API has no pagination, so one answer is the whole listing.
pub(super) async fn list(session: &mut Session, rules: &Rules<'_>) -> Result<Listed, Failure> {
    let findings = session.findings.clone();
    let read = |answer: &Response| {
        let (status, body) = (answer.status, &answer.body);
        let listed = parse::answer_observed(status, body, rules, findings.as_ref())?;
        let mut paging = PagingHints::default();
        paging.headers(&answer.headers);
        match paging.missing(listed.listing.entries()) {
            Some(why) => Err(Failure {
                http_status: Some(answer.status),
                support_id: listed.support_id,
                ..Failure::because(Reason::Incomplete, Line::own(&why))
            }),
            None => Ok(listed),
        }
    };
    session.get(KEYS_PATH, read).await
}

/// `GET /developers/api_keys/{id}`. The answer contains the key's full secret, which never leaves
/// this function.
pub(super) async fn details(
    session: &mut Session,
    id: &KeyId,
    rules: &Rules<'_>,
    now: fn() -> DateTime<Utc>,
) -> Result<Details, Failure> {
    // In a URL, these mean the current and the parent directory.
    if matches!(id.as_str(), "." | "..") {
        let why = "the key's id is not valid in a URL";
        return Err(Failure::new(Reason::Schema, why));
    }
    let path = format!("{KEYS_PATH}/{}", id.as_str());
    let read = |answer: &Response| details::answer(answer.status, &answer.body, id, rules, now());
    session.get(&path, read).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::glob::Glob;

    #[test]
    fn the_documented_scopes_are_told_apart() {
        let documented = "invoices.create invoices.update invoices.read payments.create \
            payments.update payments.read products.create products.read products.update \
            products.delete api_keys.create api_keys.update api_keys.delete api_keys.read \
            webhooks.create webhooks.read webhooks.update webhooks.delete webhooks_queue.read \
            webhooks_queue.update notifications.read notifications.update \
            notifications_settings.read notifications_settings.update organizations.create \
            organizations.read organizations.update organizations.deactivate users.update \
            users.deactivate users.sessions.read users.sessions.deactivate";
        let globs = PROFILE.privileged_scopes.iter();
        let globs: Vec<Glob> = globs.filter_map(|text| Glob::parse(text)).collect();
        let privileged: Vec<&str> = documented
            .split_whitespace()
            .filter(|scope| globs.iter().any(|glob| glob.matches(scope)))
            .collect();
        let expected = "api_keys.create api_keys.update api_keys.delete webhooks.create \
            webhooks.update webhooks.delete organizations.create organizations.update \
            organizations.deactivate users.update users.deactivate users.sessions.deactivate";
        assert_eq!(privileged, expected.split_whitespace().collect::<Vec<_>>());
    }
}
