//! Basic authentication: compares passwords with bcrypt hashes, one at a time and off the server's
//! worker threads, and caches correct ones.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use ring::hmac;
use ring::rand::SystemRandom;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;

/// Maximum correct passwords in the cache, as in the reference. Wrong ones are not cached, so that
/// they cannot evict correct ones.
const REMEMBERED_MAX: usize = 100;

/// Verifies passwords.
pub(super) struct Passwords {
    /// Random key, made at start: the cached values are useless elsewhere.
    key: hmac::Key,
    right: Mutex<VecDeque<[u8; 32]>>,
    /// bcrypt is slow by design; more than one at a time would take all processors.
    turn: Arc<Semaphore>,
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords").finish_non_exhaustive()
    }
}

/// A name and a password as the client sent them.
struct Credentials {
    user: Vec<u8>,
    password: Zeroizing<Vec<u8>>,
}

impl Passwords {
    /// An empty cache. `None` without a source of random numbers.
    pub(super) fn new() -> Option<Self> {
        Some(Self {
            key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok()?,
            right: Mutex::default(),
            turn: Arc::new(Semaphore::new(1)),
        })
    }

    /// Whether the value of an `Authorization` header names one of `users` with its password. An
    /// unknown user takes as long as the first one with a wrong password.
    pub(super) async fn are_right(
        &self,
        users: &BTreeMap<String, SecretString>,
        authorization: Option<&HeaderValue>,
    ) -> bool {
        let Some(Credentials { user, password }) = authorization.and_then(parse) else {
            return false;
        };
        let known = std::str::from_utf8(&user)
            .ok()
            .and_then(|user| users.get(user));
        let Some(hash) = known.or_else(|| users.values().next()) else {
            return false;
        };
        let tag = self.tag(&user, hash, &password);
        if known.is_some() && self.remembers(&tag) {
            return true;
        }
        let Ok(turn) = self.turn.clone().acquire_owned().await else {
            return false;
        };
        let hash = hash.clone();
        let comparing = tokio::task::spawn_blocking(move || {
            // Held to the end, even if the client has disconnected.
            let _turn = turn;
            bcrypt::verify(&*password, hash.expose_secret()).unwrap_or(false)
        });
        let is_right = comparing.await.unwrap_or(false) && known.is_some();
        if is_right {
            self.remember(tag);
        }
        is_right
    }

    /// Identifies the three values together. The hash is included, so that a changed password takes
    /// effect immediately.
    fn tag(&self, user: &[u8], hash: &SecretString, password: &[u8]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [user, hash.expose_secret().as_bytes(), password] {
            context.update(&part.len().to_le_bytes());
            context.update(part);
        }
        let mut tag = [0; 32];
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }

    fn remembers(&self, tag: &[u8; 32]) -> bool {
        let right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        right.contains(tag)
    }

    fn remember(&self, tag: [u8; 32]) {
        let mut right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        if right.contains(&tag) {
            return;
        }
        if right.len() >= REMEMBERED_MAX {
            right.pop_front();
        }
        right.push_back(tag);
    }
}

/// Splits `Basic` and base64 of `user:password` (RFC 7617).
fn parse(authorization: &HeaderValue) -> Option<Credentials> {
    let (scheme, encoded) = authorization.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("Basic") {
        return None;
    }
    let both = Zeroizing::new(STANDARD.decode(encoded).ok()?);
    let colon = both.iter().position(|byte| *byte == b':')?;
    let (user, password) = both.split_at(colon);
    Some(Credentials {
        user: user.to_vec(),
        password: Zeroizing::new(password.get(1..)?.to_vec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(text: &str) -> HeaderValue {
        HeaderValue::try_from(format!("Basic {}", STANDARD.encode(text))).unwrap()
    }

    fn users(all: &[(&str, &str)]) -> BTreeMap<String, SecretString> {
        let hash = |password: &str| bcrypt::hash(password, 4).unwrap().into();
        all.iter()
            .map(|(user, password)| ((*user).to_owned(), hash(password)))
            .collect()
    }

    #[tokio::test]
    async fn only_a_known_user_with_its_own_password_is_let_in() {
        let users = users(&[
            ("alice", "in wonderland"),
            ("bob", "b:u:i:l:d"),
            ("empty", ""),
        ]);
        let passwords = Passwords::new().unwrap();
        for (header, expected) in [
            (Some(basic("alice:in wonderland")), true),
            (Some(basic("bob:b:u:i:l:d")), true),
            (Some(basic("empty:")), true),
            (Some(basic("alice:b:u:i:l:d")), false),
            (Some(basic("alice:")), false),
            (
                Some(basic(&format!("alice:in wonderland{}", "x".repeat(5000)))),
                false,
            ),
            (
                Some(basic(&format!("{}:in wonderland", "alice".repeat(1000)))),
                false,
            ),
            // The password of the dummy user that is compared for an unknown one.
            (Some(basic("nobody:in wonderland")), false),
            (Some(basic(":in wonderland")), false),
            (Some(basic("alice")), false),
            (Some(HeaderValue::from_static("Basic %%%")), false),
            (Some(HeaderValue::from_static("Basic")), false),
            (
                Some(HeaderValue::from_static(
                    "Bearer YWxpY2U6aW4gd29uZGVybGFuZA==",
                )),
                false,
            ),
            (
                Some(HeaderValue::from_static(
                    "bAsIc YWxpY2U6aW4gd29uZGVybGFuZA==",
                )),
                true,
            ),
            (None, false),
        ] {
            for round in ["first", "again"] {
                let is_right = passwords.are_right(&users, header.as_ref()).await;
                assert_eq!(is_right, expected, "{round}: {header:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_changed_password_counts_at_once_and_what_is_remembered_is_bounded() {
        let passwords = Passwords::new().unwrap();
        let before = users(&[("alice", "old")]);
        assert!(
            passwords
                .are_right(&before, Some(&basic("alice:old")))
                .await
        );
        let after = users(&[("alice", "new")]);
        assert!(!passwords.are_right(&after, Some(&basic("alice:old"))).await);
        for number in 0..=REMEMBERED_MAX {
            passwords.remember([u8::try_from(number).unwrap(); 32]);
        }
        let remembered = passwords.right.lock().unwrap().len();
        assert_eq!(remembered, REMEMBERED_MAX);
    }
}
