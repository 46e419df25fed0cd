//! Lists one account's keys: the token as it is now, a client that is renewed in time, one attempt.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::domain::failure::{Failure, Reason};
use crate::domain::key::{Details, KeyId};
use crate::domain::text::chain;
use crate::os::rlimits::is_lack_of_files;
use crate::provider::bitgpt::client::{Answer, Client, ClientSettings, lack_of_files};
use crate::provider::bitgpt::tls;
use crate::secret::{Token, TokenError, TokenSource};

/// Certificate authorities are read again after this long: operating systems replace them a few
/// times a year.
const CLIENT_LIFE: Duration = Duration::from_hours(24);

/// One account's way to its keys.
#[derive(Debug)]
pub struct Lister {
    token: TokenSource,
    settings: Arc<ClientSettings>,
    client: Mutex<Option<(Client, Instant)>>,
    now: fn() -> DateTime<Utc>,
}

impl Lister {
    /// Nothing is read or built before the first attempt: a cold start must not wait for
    /// certificates.
    pub fn new(token: TokenSource, settings: ClientSettings, now: fn() -> DateTime<Utc>) -> Self {
        Self {
            token,
            settings: Arc::new(settings),
            client: Mutex::new(None),
            now,
        }
    }

    /// One attempt, `deadline` long at most, the reading of files included.
    pub async fn attempt(&self, deadline: Duration) -> Answer {
        let started = Instant::now();
        let prepared = tokio::time::timeout(deadline, self.prepare());
        let (token, client) = match prepared.await {
            Ok(Ok(ready)) => ready,
            Ok(Err(failure)) => {
                return Answer {
                    result: Err(failure),
                    clock_skew: None,
                };
            }
            Err(_elapsed) => {
                return Answer {
                    result: Err(self.slow_files()),
                    clock_skew: None,
                };
            }
        };
        let answer = client
            .list(&token, deadline.saturating_sub(started.elapsed()), self.now)
            .await;
        if matches!(&answer.result, Err(failure) if failure.reason == Reason::Tls) {
            // The certificate authorities may have changed on disk since they were read.
            *self.client.lock().await = None;
        }
        answer
    }

    /// Reads the details of one key, once, within `deadline` at most, the reading of files
    /// included.
    pub async fn details(&self, id: &KeyId, deadline: Duration) -> Result<Details, Failure> {
        let started = Instant::now();
        let prepared = tokio::time::timeout(deadline, self.prepare()).await;
        let (token, client) = prepared.map_err(|_elapsed| self.slow_files())??;
        let time_left = deadline.saturating_sub(started.elapsed());
        client.details(id, &token, time_left, self.now).await
    }

    fn slow_files(&self) -> Failure {
        let token = self.token.describe();
        let why = format!(
            "reading the token ({token}) or certificates took too long; does a network mount hang?"
        );
        Failure::new(Reason::Credential, &why)
    }

    async fn prepare(&self) -> Result<(Token, Client), Failure> {
        let token = self.token.read_async().await;
        let token = token.map_err(|error| unread(&error))?;
        let mut client = self.client.lock().await;
        if let Some((client, built_at)) = client.as_ref()
            && built_at.elapsed() < CLIENT_LIFE
        {
            return Ok((token, client.clone()));
        }
        let settings = self.settings.clone();
        let now = self.now;
        let authorities = match &settings.ca_file {
            Some(path) => Some(tls::read_ca_file(path).await?),
            None => None,
        };
        let new = blocking(move || Client::new(settings, authorities, now)).await?;
        *client = Some((new.clone(), Instant::now()));
        Ok((token, new))
    }
}

/// A token that cannot be read because nothing can be says nothing of the token.
fn unread(error: &TokenError) -> Failure {
    if is_lack_of_files(error) {
        return Failure::new(Reason::Internal, &lack_of_files(&chain(error)));
    }
    Failure::new(Reason::Credential, &chain(error))
}

/// Runs what may wait for a disk where waiting hurts nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_panicked| Err(Failure::new(Reason::Internal, "a helper task died")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn fault_a16_authorities_are_read_again_after_a_day() {
        let own = rcgen::generate_simple_self_signed(Vec::new()).unwrap();
        let name = format!("api-key-exporter-{}-day.pem", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, own.cert.pem()).unwrap();
        let settings = ClientSettings {
            base_url: "https://api.bitgpt.xyz".parse().unwrap(),
            ca_file: Some(path.clone()),
            proxy_url: None,
            timeout: Duration::from_secs(15),
            body_bytes_max: 1_000,
            keys_max: 10,
            expected_env: None,
        };
        let token = Token::parse(b"sk_live_abcdefghijklmnopqrstuvwxyz", "test").unwrap();
        let token = TokenSource::Env {
            variable: "TOKEN".into(),
            token,
        };
        let lister = Lister::new(token, settings, || DateTime::UNIX_EPOCH);
        let result = async || lister.prepare().await.map(drop);
        assert_eq!(result().await, Ok(()));
        std::fs::remove_file(&path).unwrap();
        tokio::time::advance(Duration::from_hours(23)).await;
        assert_eq!(result().await, Ok(()), "the file is not read yet");
        tokio::time::advance(Duration::from_hours(1)).await;
        assert_eq!(result().await.unwrap_err().reason, Reason::Tls);
    }
}
