//! Lists one account's keys, in one attempt. Reads the current token each time, and renews
//! certificate authorities in time.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::{Instant, timeout_at};

use crate::domain::failure::{Failure, Reason};
use crate::domain::key::{Details, KeyId};
use crate::domain::listing::Listing;
use crate::domain::text::{Line, chain};
use crate::domain::token_mark::{MarkKey, TokenMark};
use crate::os::rlimits::is_lack_of_files;
use crate::provider::connection::no_files;
use crate::provider::findings::{Findings, SharedFindings};
use crate::provider::http::{Session, Target};
use crate::provider::resolver::Resolver;
use crate::provider::tls::{TlsConfigs, Trust};
use crate::provider::{Answer, Listed, Provider, Rules};
use crate::secret::{Token, TokenError, TokenSource};

/// What a lister needs from its account.
#[derive(Clone, Debug)]
pub struct ListerSettings {
    /// The provider of the API.
    pub provider: Provider,
    /// The target of requests, and their limits.
    pub target: Arc<Target>,
    /// Certificate authorities to trust instead of the system's, as PEM.
    pub ca_file: Option<PathBuf>,
    /// Most keys of a listing.
    pub keys_max: usize,
    /// Most pages of a listing.
    pub pages_max: usize,
    /// The environment that the API must report.
    pub expected_env: Option<String>,
}

/// Lists the keys of one account.
#[derive(Debug)]
pub struct Lister {
    token: TokenSource,
    settings: ListerSettings,
    trust: Trust,
    tls: Arc<TlsConfigs>,
    resolver: Resolver,
    mark_key: Option<MarkKey>,
    now: fn() -> DateTime<Utc>,
}

impl Lister {
    /// Reads nothing before the first attempt. All accounts share `tls`. Answers carry a mark of
    /// their token, made with `mark_key`.
    pub fn new(
        token: TokenSource,
        settings: ListerSettings,
        tls: Arc<TlsConfigs>,
        mark_key: Option<MarkKey>,
        now: fn() -> DateTime<Utc>,
    ) -> Self {
        let trust = match (&settings.ca_file, settings.target.base_url.scheme()) {
            (Some(path), _) => Trust::File(path.clone()),
            (None, "http") => Trust::Nobody,
            (None, _) => Trust::System,
        };
        Self {
            token,
            settings,
            trust,
            tls,
            resolver: Resolver::default(),
            mark_key,
            now,
        }
    }

    /// Makes one attempt to list all keys, within `deadline`, which includes reading files. `held`
    /// is the previous listing.
    pub async fn attempt(&self, deadline: Duration, held: Option<&Listing>) -> Answer<Listed> {
        // Boxed, because a poller is idle most of the time.
        Box::pin(self.list(deadline, held, None)).await
    }

    /// As [`Lister::attempt`], and reports what the attempt found in the answers.
    pub async fn inspect(&self, deadline: Duration) -> (Answer<Listed>, Findings) {
        let shared = SharedFindings::default();
        let answer = self.list(deadline, None, Some(shared.clone())).await;
        (answer, shared.take())
    }

    async fn list(
        &self,
        deadline: Duration,
        held: Option<&Listing>,
        findings: Option<SharedFindings>,
    ) -> Answer<Listed> {
        let (token, mut session) = match self.open(deadline).await {
            Ok(opened) => opened,
            Err(failure) => return Answer::failed(failure),
        };
        session.findings = findings;
        let rules = Rules {
            held,
            ..self.rules(&token)
        };
        let result = self.settings.provider.list(&mut session, &rules).await;
        let token = self.mark_key.map(|key| token.mark(key));
        self.close(session, token, result)
    }

    /// Reads the details of one key, once, within `deadline`, which includes reading files.
    pub async fn details(&self, id: &KeyId, deadline: Duration) -> Result<Details, Failure> {
        let asking = async {
            let (token, mut session) = self.open(deadline).await?;
            let rules = self.rules(&token);
            let provider = &self.settings.provider;
            provider.details(&mut session, id, &rules, self.now).await
        };
        Box::pin(asking).await
    }

    /// Reads files that may have changed and prepares the requests of one attempt.
    async fn open(&self, deadline: Duration) -> Result<(Token, Session), Failure> {
        let ends = Instant::now() + deadline;
        let prepared = timeout_at(ends, self.prepare()).await;
        let (token, tls) = prepared.map_err(|_elapsed| self.slow_files())??;
        let session = Session::new(
            self.settings.target.clone(),
            &tls,
            self.resolver.clone(),
            (&self.settings.provider, &token),
            ends,
            self.now,
        )?;
        Ok((token, session))
    }

    fn close<T>(
        &self,
        session: Session,
        token: Option<TokenMark>,
        result: Result<T, Failure>,
    ) -> Answer<T> {
        if matches!(&result, Err(failure) if failure.reason == Reason::Tls) {
            self.tls.distrust(&self.trust);
        }
        Answer {
            result,
            clock_skew: session.clock_skew,
            age: session.age,
            token,
            traffic: session.traffic,
            is_postponed: false,
        }
    }

    fn rules<'a>(&'a self, token: &'a Token) -> Rules<'a> {
        Rules {
            token,
            keys_max: self.settings.keys_max,
            pages_max: self.settings.pages_max,
            expected_env: self.settings.expected_env.as_deref(),
            held: None,
        }
    }

    fn slow_files(&self) -> Failure {
        let token = self.token.describe();
        let why = format!(
            "reading the token ({token}) or certificates took too long; does a network mount hang?"
        );
        Failure::because(Reason::Credential, Line::own(&why))
    }

    async fn prepare(&self) -> Result<(Token, Arc<rustls::ClientConfig>), Failure> {
        let token = self.token.read_async().await;
        let token = token.map_err(|error| unread(&error))?;
        Ok((token, self.tls.get(&self.trust).await?))
    }
}

/// If no file can be read at all, the failure says nothing about the token.
fn unread(error: &TokenError) -> Failure {
    if is_lack_of_files(error) {
        return no_files(&chain(error));
    }
    Failure::because(Reason::Credential, Line::own(&chain(error)))
}

#[cfg(test)]
mod tests;
