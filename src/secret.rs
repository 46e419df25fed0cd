//! The token: a secret that cannot be printed, its source, and the few properties that it reveals.
//!
//! Only this file sees the token's text. It returns the text in one place only: as a header value
//! marked sensitive.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use http::HeaderValue;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};

use crate::domain::text::Secrets;
use crate::domain::token_mark::{self, MarkKey, TokenMark};
use crate::os::files::{self, FileError};

/// Largest token file. Tokens have some hundred bytes; 4 KiB leaves room and rejects a file
/// configured by mistake.
const FILE_BYTES_MAX: u64 = 4 * 1024;

/// The mode bits that make a file world-readable.
const EVERYBODY_READS: u32 = 0o004;

/// An API token: printable ASCII without blanks, never empty. Wiped from memory when dropped.
#[derive(Clone, Debug)]
pub struct Token(SecretString);

/// How an API masks a secret: its first characters, a separator and its last characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    /// The replacement for the hidden part.
    pub separator: Cow<'static, str>,
    /// Fewest characters before the separator that identify a secret: more than the common prefix.
    pub first_chars_min: usize,
}

/// How a header carries a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenForm {
    /// Unchanged.
    Plain,
    /// As base64; the token is a user and a password, separated by a colon (RFC 7617).
    Base64,
}

/// Why a token cannot be used. The text names the source, never its content.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be opened or read.
    #[error("cannot read token file {}", .0.display())]
    Unreadable(PathBuf, #[source] std::io::Error),
    /// It is not a small regular file, or its file system hangs.
    #[error("token file {} {}", .0.display(), .1)]
    Unusable(PathBuf, FileError),
    /// It contains nothing.
    #[error("the token in {0} is empty")]
    Empty(String),
    /// It is not valid in a header; and why, without its content.
    #[error("the token in {0} {1}")]
    BadCharacter(String, &'static str),
}

/// The source of a token, which is read again at each poll.
#[derive(Clone, Debug)]
pub enum TokenSource {
    /// A file, by path, so that a rotated token is found.
    File(PathBuf),
    /// An environment variable, which cannot change while the process runs.
    Env {
        /// The variable's name.
        variable: String,
        /// Its value at start.
        token: Token,
    },
}

impl TokenError {
    /// Whether the cause may be transient and unrelated to the token: a file system that hangs.
    pub fn is_no_answer(&self) -> bool {
        matches!(self, Self::Unusable(_, FileError::NoAnswer))
    }
}

impl TokenSource {
    /// Reads the current token. Blocks for 5 s at most.
    pub fn read(&self) -> Result<Token, TokenError> {
        match self {
            Self::File(path) => of_file(path, files::read(path, FILE_BYTES_MAX)),
            Self::Env { token, .. } => Ok(token.clone()),
        }
    }

    /// As [`TokenSource::read`], but the caller limits the wait.
    pub async fn read_async(&self) -> Result<Token, TokenError> {
        match self {
            Self::File(path) => of_file(path, files::read_async(path, FILE_BYTES_MAX).await),
            Self::Env { token, .. } => Ok(token.clone()),
        }
    }

    /// Whether the token's file is world-readable.
    pub fn is_public(&self) -> bool {
        match self {
            Self::File(path) => files::read(path, FILE_BYTES_MAX)
                .is_ok_and(|content| content.mode() & EVERYBODY_READS != 0),
            Self::Env { .. } => false,
        }
    }

    /// The source, for messages: `file /run/token` or `environment API_TOKEN`.
    pub fn describe(&self) -> String {
        match self {
            Self::File(path) => format!("file {}", path.display()),
            Self::Env { variable, .. } => format!("environment {variable}"),
        }
    }
}

/// A new key for the marks of an account's tokens; `None` if the system provides no random numbers.
pub fn random_mark_key() -> Option<MarkKey> {
    let mut key = MarkKey::default();
    SystemRandom::new().fill(&mut key).ok()?;
    Some(key)
}

impl Token {
    /// A mark of this token under `key`.
    pub fn mark(&self, key: MarkKey) -> TokenMark {
        let hmac_key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let tag = hmac::sign(&hmac_key, self.0.expose_secret().as_bytes());
        let mut digest = [0; token_mark::BYTES];
        digest.copy_from_slice(tag.as_ref());
        TokenMark { key, digest }
    }

    /// Parses `text` without surrounding white space. `source` is for the error.
    pub fn parse(text: &[u8], source: &str) -> Result<Self, TokenError> {
        let text = text.trim_ascii();
        if text.is_empty() {
            return Err(TokenError::Empty(source.to_owned()));
        }
        let is_valid = text.iter().all(u8::is_ascii_graphic);
        let text = std::str::from_utf8(text).unwrap_or_default();
        if !is_valid {
            let why = paste_mistake(text).unwrap_or(
                "contains a space, a line break or a character outside printable ASCII; it must \
                 be one word",
            );
            return Err(TokenError::BadCharacter(source.to_owned(), why));
        }
        Ok(Self(SecretString::from(text)))
    }

    /// The header value with the token after `prefix`, marked sensitive. Its copy of the token is
    /// wiped with the last clone of the value.
    pub fn header(&self, prefix: &str, form: TokenForm) -> HeaderValue {
        let token = self.0.expose_secret();
        let text = Zeroizing::new(match form {
            TokenForm::Plain => [prefix, token].concat(),
            TokenForm::Base64 => {
                let encoded = Zeroizing::new(BASE64_STANDARD.encode(token));
                [prefix, &encoded].concat()
            }
        });
        let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(text))
            .expect("printable ASCII is a valid header value");
        value.set_sensitive(true);
        value
    }

    /// Whether it is a user and a password, separated by a colon.
    pub fn is_user_and_password(&self) -> bool {
        let parts = self.0.expose_secret().split_once(':');
        parts.is_some_and(|(user, password)| !user.is_empty() && !password.is_empty())
    }

    /// Whether `secret` is this token, whole or masked.
    pub fn is_shown_as(&self, secret: &str, mask: Option<&Mask>) -> bool {
        let token = self.0.expose_secret();
        let parts = mask.and_then(|mask| Some((mask, secret.split_once(&*mask.separator)?)));
        let Some((mask, (first, last))) = parts else {
            return secret == token;
        };
        first.len() >= mask.first_chars_min
            && first.len() + last.len() <= token.len()
            && !last.is_empty()
            && token.starts_with(first)
            && token.ends_with(last)
    }

    /// Whether it starts with one of these prefixes.
    pub fn starts_with_any<'a>(&self, mut prefixes: impl Iterator<Item = &'a str>) -> bool {
        prefixes.any(|prefix| self.0.expose_secret().starts_with(prefix))
    }

    /// The secrets to remove from an answer of this many bytes, this token first.
    pub fn secrets(&self, answer_bytes: usize) -> Secrets {
        let mut secrets = Secrets::new(answer_bytes);
        secrets.add(self.0.expose_secret());
        secrets
    }

    /// A common paste mistake, as text that continues "the token of …"; the API would reject such a
    /// token.
    pub fn paste_mistake(&self) -> Option<&'static str> {
        paste_mistake(self.0.expose_secret())
    }
}

/// The first words of an `Authorization` header, in lower case.
const SCHEMES: [&str; 5] = ["apikey", "basic", "bearer", "ssws", "token"];

fn paste_mistake(text: &str) -> Option<&'static str> {
    let is_quote = |c: char| matches!(c, '"' | '\'' | '`');
    let is_variable = |name: &str| {
        let mut chars = name.chars();
        chars
            .next()
            .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    // Base64 ends in at most two equals signs, and nothing follows them.
    let is_assignment = text.split_once('=').is_some_and(|(name, value)| {
        let name = name.strip_prefix("export ").unwrap_or(name).trim();
        is_variable(name) && !value.trim_matches('=').is_empty()
    });
    let is_header = text
        .split_once(char::is_whitespace)
        .is_some_and(|(first, _)| {
            first.ends_with(':') || SCHEMES.contains(&first.to_ascii_lowercase().as_str())
        });
    let masks = ["...", "**", "\u{2026}", "\u{2022}"];
    if is_header {
        Some("starts like a header, such as \"Bearer \"; leave only the token that follows")
    } else if is_assignment {
        Some("starts with VARIABLE=; leave only what follows the equals sign, without quotes")
    } else if text.starts_with(is_quote) || text.ends_with(is_quote) {
        Some("is in quotes; remove them, they would be sent with it")
    } else if masks.iter().any(|mark| text.contains(mark)) {
        Some("is masked, as a listing shows it; paste the whole key, shown when it was created")
    } else {
        None
    }
}

fn of_file(
    path: &Path,
    content: Result<Arc<files::Content>, FileError>,
) -> Result<Token, TokenError> {
    match content {
        Ok(content) => Token::parse(&content, &format!("file {}", path.display())),
        Err(FileError::Unreadable(error)) => Err(TokenError::Unreadable(path.to_owned(), error)),
        Err(error) => Err(TokenError::Unusable(path.to_owned(), error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token::parse(b"sk_live_MDE5N2MwZWMtYTE5Ny03MTlmLTg0YTk.GdwdA", "test").unwrap()
    }

    #[test]
    fn a_mark_tells_tokens_apart_and_nothing_else_of_them() {
        let token = |text: &str| Token::parse(text.as_bytes(), "test").unwrap();
        let (key, other_key) = (random_mark_key().unwrap(), random_mark_key().unwrap());
        let (one, two) = (token("sk_live_one"), token("sk_live_two"));
        assert_eq!(one.mark(key), token("sk_live_one\n").mark(key));
        assert!(one.mark(key).differs(&two.mark(key)));
        assert!(!one.mark(key).differs(&one.mark(key)));
        // Marks with different keys are not comparable.
        assert!(!one.mark(key).differs(&two.mark(other_key)));
        assert_ne!(one.mark(key).digest, one.mark(other_key).digest);
        assert_eq!(format!("{:?}", one.mark(key)), "TokenMark(…)");
    }

    #[test]
    fn white_space_around_a_token_is_dropped_and_anything_inside_refused() {
        assert!(
            Token::parse(b" sk_live_abc\r\n", "x")
                .unwrap()
                .is_shown_as("sk_live_abc", None)
        );
        for (text, expected) in [
            (&b""[..], "the token in x is empty"),
            (b" \n", "the token in x is empty"),
            (b"a b", "the token in x contains a space"),
            (b"a\nb", "the token in x contains a space"),
            (b"\xef\xbb\xbfabc", "the token in x contains a space"),
            (b"\xff", "the token in x contains a space"),
        ] {
            let error = Token::parse(text, "x").unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text:?}: {error}");
        }
    }

    #[test]
    fn mistakes_of_pasting_that_no_header_can_carry_are_named() {
        for (text, expected) in [
            ("Bearer sk_live_MDE5", "starts like a header"),
            ("bearer\tsk_live_MDE5", "starts like a header"),
            ("Authorization: Bearer sk_live_MDE5", "starts like a header"),
            ("X-Api-Key: sk_live_MDE5", "starts like a header"),
            ("export T='sk_live_MDE5'", "starts with VARIABLE="),
            ("T = sk_live_MDE5", "starts with VARIABLE="),
            ("\"sk_live MDE5\"", "is in quotes"),
            ("sk_live_MDE5\u{2026}dwdA", "is masked"),
            ("sk_live_\u{2022}\u{2022}\u{2022}", "is masked"),
            ("sk_live_MDE5 dwdA", "contains a space"),
        ] {
            let error = Token::parse(text.as_bytes(), "x").unwrap_err().to_string();
            let start = format!("the token in x {expected}");
            assert!(error.starts_with(&start), "{text}: {error}");
            assert!(!error.contains("MDE5"), "{text}: {error}");
        }
    }

    #[test]
    fn mistakes_of_pasting_are_recognized() {
        for (text, expected) in [
            ("sk_live_MDE5N2MwZWMt...GdwdA", Some("is masked")),
            ("sk_live_********dwdA", Some("is masked")),
            ("\"sk_live_MDE5N2MwZWMt\"", Some("is in quotes")),
            ("'sk_live_MDE5N2MwZWMt'", Some("is in quotes")),
            ("sk_live_MDE5N2MwZWMt\"", Some("is in quotes")),
            ("BITGPT_API_KEY=sk_live_MDE5", Some("starts with VARIABLE=")),
            ("key='sk_live_MDE5'", Some("starts with VARIABLE=")),
            ("sk_live_MDE5N2MwZWMt.GdwdA", None),
            ("c2VjcmV0IHNlY3JldA==", None),
            ("c2VjcmV0=", None),
            ("a+b/c=d", None),
        ] {
            let token = Token::parse(text.as_bytes(), "test").unwrap();
            let mistake = token.paste_mistake();
            let start = expected.unwrap_or_default();
            assert_eq!(mistake.is_some(), expected.is_some(), "{text}: {mistake:?}");
            assert!(
                mistake.unwrap_or_default().starts_with(start),
                "{text}: {mistake:?}"
            );
        }
    }

    #[test]
    fn nothing_prints_a_token() {
        let source = TokenSource::Env {
            variable: "V".into(),
            token: token(),
        };
        for shown in [
            format!("{:?}", token()),
            format!("{source:?}"),
            format!("{:?}", token().header("Bearer ", TokenForm::Plain)),
            format!("{:?}", token().header("Basic ", TokenForm::Base64)),
        ] {
            assert!(!shown.contains("MDE5"), "{shown}");
        }
    }

    #[test]
    fn a_masked_secret_is_recognized_by_both_ends() {
        let cases = [
            ("sk_live_MDE5N2MwZWMt...GdwdA", true),
            ("sk_live_MDE5N2MwZWMtYTE5Ny03MTlmLTg0YTk.GdwdA", true),
            ("sk_live_MDE5N2MwZWMt...GdwdB", false),
            ("sk_live_XDE5N2MwZWMt...GdwdA", false),
            ("sk_live_MDE5N2MwZWMt...", false),
            ("...GdwdA", false),
            ("sk_live_...", false),
            ("...", false),
            ("sk_live_...GdwdA", false),
            ("", false),
            (
                "sk_live_MDE5N2MwZWMtYTE5Ny03MTlmLTg0YTk.GdwdA...GdwdA",
                false,
            ),
        ];
        let mask = Mask {
            separator: "...".into(),
            first_chars_min: 12,
        };
        for (secret, expected) in cases {
            let is_shown = token().is_shown_as(secret, Some(&mask));
            assert_eq!(is_shown, expected, "{secret}");
        }
        assert!(!token().is_shown_as("sk_live_MDE5N2MwZWMt...GdwdA", None));
    }
}
