//! What a configuration may say and hardly means, in words for the log.

use std::path::Path;

use crate::config::{Account, Details, ENV_PREFIX, Effective, Origin, Poll, Sources};
use crate::domain::policy::Limits;
use crate::domain::text;
use crate::domain::text::join_truncated;
use crate::provider::Provider;
use crate::provider::profile::EnvironmentAccount;
use crate::secret::TokenSource;

/// All that is questionable.
pub(super) fn of(
    poll: &Poll,
    accounts: &[Account],
    details: &Details,
    policy: &Limits,
) -> Vec<String> {
    let mut warnings = Vec::new();
    if policy.max_unused.is_some() && !details.enabled {
        warnings.push(
            "policy.max_unused does nothing without details.enabled: only details tell the last use"
                .to_owned(),
        );
    }
    let shortest = accounts
        .iter()
        .map(|account| account.interval)
        .min()
        .unwrap_or(poll.interval);
    if poll.timeout >= shortest {
        warnings.push(format!(
            "poll.timeout ({}) is not shorter than the poll interval ({}); polls are cut at nine \
             tenths of the interval",
            humantime::format_duration(poll.timeout),
            humantime::format_duration(shortest)
        ));
    }
    for account in accounts {
        warnings.extend(of_token(account));
    }
    warnings
}

/// What in the environment looks as if it were in force, and is not.
pub(super) fn of_environment(
    sources: &Sources,
    accounts: &[Account],
    effective: &[Effective],
) -> Vec<String> {
    let variables = Provider::ALL
        .iter()
        .filter_map(|provider| provider.profile().environment);
    variables
        .flat_map(|variables| unused_tokens(variables, sources, accounts, effective))
        .chain(misspelled(sources, effective))
        .collect()
}

/// The variables of the set-up without a file, where others are in force.
fn unused_tokens(
    EnvironmentAccount { token_file, token }: EnvironmentAccount,
    sources: &Sources,
    accounts: &[Account],
    effective: &[Effective],
) -> Vec<String> {
    let made_an_account = |variable: &str| {
        effective.iter().any(|option| {
            option.section == "[[accounts]]"
                && matches!(&option.origin, Origin::Environment(origin) if origin == variable)
        })
    };
    // The systemd unit names a file that an account in the configuration may name as well.
    let holds_a_token = |wanted: &str| {
        let named = sources.variable(wanted).map(Path::new);
        accounts.iter().any(|account| match &account.token {
            TokenSource::Env { variable, .. } => variable == wanted,
            TokenSource::File(path) => wanted == token_file && named == Some(path),
        })
    };
    let why = if made_an_account(token_file) {
        format!("{token_file} goes before it")
    } else {
        "the accounts are those of the file".to_owned()
    };
    let unused = [token_file, token].into_iter().filter(|variable| {
        // An empty one is how some tools leave it away.
        sources.variable(variable).is_some_and(|it| !it.is_empty())
            && !made_an_account(variable)
            && !holds_a_token(variable)
    });
    unused
        .map(|variable| format!("{variable} in the environment is ignored: {why}"))
        .collect()
}

/// Variables that would set an option if they had two underscores where they have one. Others that
/// begin like ours are left alone: they belong to those who build or deploy the exporter.
fn misspelled(sources: &Sources, effective: &[Effective]) -> Option<String> {
    let misspelled = sources.environment.keys().filter_map(|variable| {
        let upper = variable.to_ascii_uppercase();
        let rest = upper.strip_prefix(ENV_PREFIX)?.strip_prefix('_')?;
        let right = effective.iter().find_map(|option| {
            let section = option.section.to_ascii_uppercase();
            let words = match section.as_str() {
                "" => (rest == option.name.to_ascii_uppercase()).then(|| rest.to_owned()),
                section => {
                    let section = section.strip_prefix('[')?.strip_suffix(']')?;
                    let option = rest.strip_prefix(section)?.strip_prefix('_')?;
                    let option = option.trim_start_matches('_');
                    (!is_of_kubernetes(option)).then(|| format!("{section}__{option}"))
                }
            };
            Some(format!("{ENV_PREFIX}__{}", words?))
        })?;
        let shown = text::label(variable);
        // What had to be cleaned may be a secret, which must not stand there in capitals.
        Some(if shown == *variable {
            format!("{variable} (write {right})")
        } else {
            shown
        })
    });
    let misspelled: Vec<String> = misspelled.collect();
    join_truncated(misspelled.iter().map(String::as_str)).map(|variables| {
        format!(
            "ignored in the environment, where two underscores stand for each dot of an option: \
             {variables}"
        )
    })
}

/// Whether Kubernetes makes variables that end so, after the name of a service: that may well be
/// `api-key-exporter-metrics`.
fn is_of_kubernetes(end: &str) -> bool {
    end == "SERVICE_HOST"
        || end.starts_with("SERVICE_PORT")
        || end == "PORT"
        || end.starts_with("PORT_")
}

/// What is questionable about an account's token and the place where it lies.
fn of_token(account: &Account) -> Vec<String> {
    let name = &account.name;
    let mut warnings = Vec::new();
    let profile = account.provider.profile();
    match (account.token.read(), profile.described_prefixes()) {
        (Ok(token), Some(usual)) if !token.starts_with_any(profile.prefixes()) => {
            warnings.push(format!(
                "the token of account {name:?} does not start with {usual}, as API keys do"
            ));
        }
        (Ok(_), _) => {}
        (Err(error), _) => {
            let error = text::chain(&error);
            warnings.push(format!("polls of account {name:?} fail for now: {error}"));
            return warnings;
        }
    }
    match &account.token {
        TokenSource::File(path) => {
            if account.token.is_public() {
                warnings.push(format!(
                    "everybody on this machine may read the token of account {name:?}: chmod o= {}",
                    path.display()
                ));
            }
        }
        // Plain HTTP goes to this machine only: a test, and no key that is worth a warning.
        TokenSource::Env { variable, .. } if account.base_url.scheme() == "https" => {
            warnings.push(format!(
                "the token of account {name:?} stands in the environment ({variable}), where crash \
                 reports and child processes find it, and changes only with a restart; put it into \
                 a file"
            ));
        }
        TokenSource::Env { .. } => {}
    }
    warnings
}

#[cfg(test)]
mod tests {
    use crate::config::tests::load;

    const LOOPBACK: &str = "[[accounts]]\nbase_url = \"http://localhost\"\n";

    fn warnings(text: &str, environment: &[(&str, &str)]) -> Vec<String> {
        load(text, environment).unwrap().warnings
    }

    #[test]
    fn a_token_in_the_environment_that_nobody_uses_is_told() {
        let ignored =
            |variable: &str, why: &str| format!("{variable} in the environment is ignored: {why}");
        let token = "sk_live_c2VjcmV0IGluIHRoZSB0ZXN0cw";
        let both = [
            ("BITGPT_API_KEY_FILE", "/run/secrets/bitgpt"),
            ("BITGPT_API_KEY", token),
        ];
        let file = "the accounts are those of the file";
        assert_eq!(
            warnings(&format!("{LOOPBACK}token_env = \"TOKEN\""), &both),
            [
                ignored("BITGPT_API_KEY_FILE", file),
                ignored("BITGPT_API_KEY", file)
            ]
        );
        // It is named by an account, or empty.
        let named = format!("{LOOPBACK}token_env = \"BITGPT_API_KEY\"");
        let empty = ("BITGPT_API_KEY_FILE", "");
        assert_eq!(warnings(&named, &[both[1], empty]), [""; 0]);
        assert_eq!(
            warnings(&named, &both),
            [ignored("BITGPT_API_KEY_FILE", file)]
        );
        // Without a file, one of them is in force.
        let path = std::env::temp_dir().join(format!("exporter-token-{}", std::process::id()));
        std::fs::write(&path, token).unwrap();
        let of_path = ("BITGPT_API_KEY_FILE", path.to_str().unwrap());
        let told = warnings("", &[of_path, both[1]]);
        let by_account = format!("{LOOPBACK}token_file = {:?}", of_path.1);
        let same = warnings(&by_account, &[of_path]);
        std::fs::remove_file(&path).unwrap();
        let first = ignored("BITGPT_API_KEY", "BITGPT_API_KEY_FILE goes before it");
        assert_eq!(told.last(), Some(&first), "{told:?}");
        assert!(!same.iter().any(|it| it.contains("ignored")), "{same:?}");
        let alone = warnings("", &[both[1]]);
        assert!(!alone.iter().any(|it| it.contains("ignored")), "{alone:?}");
    }

    #[test]
    fn a_variable_with_too_few_underscores_is_told_with_the_right_spelling() {
        let given = [
            ("API_KEY_EXPORTER_POLL_INTERVAL", "hunter2"),
            ("API_KEY_EXPORTER_POLL__TIMEOUT", "hunter2"),
            ("API_KEY_EXPORTER_WEB_PROT", "hunter2"),
            ("API_KEY_EXPORTER_INVENTORY_FILE", "hunter2"),
            ("api_key_exporter_log_level", "hunter2"),
            ("API_KEY_EXPORTER_WEB_sk_live_abcdefgh", "1"),
            // What Kubernetes and builds put there is none of ours.
            ("API_KEY_EXPORTER_SERVICE_HOST", "10.0.0.1"),
            ("API_KEY_EXPORTER_PORT_10120_TCP", "tcp://10.0.0.1:10120"),
            ("API_KEY_EXPORTER_METRICS_SERVICE_PORT_HTTP", "10120"),
            ("API_KEY_EXPORTER_METRICS_PORT", "tcp://10.0.0.1:10120"),
            ("API_KEY_EXPORTER_REVISION", "abc"),
            ("API_KEY_EXPORTER_POLLER", "1"),
            ("API_KEY_EXPORTER", "1"),
        ];
        let expected = "ignored in the environment, where two underscores stand for each dot of an \
            option: API_KEY_EXPORTER_INVENTORY_FILE (write API_KEY_EXPORTER__INVENTORY_FILE), \
            API_KEY_EXPORTER_POLL_INTERVAL (write API_KEY_EXPORTER__POLL__INTERVAL), \
            API_KEY_EXPORTER_POLL__TIMEOUT (write API_KEY_EXPORTER__POLL__TIMEOUT), \
            API_KEY_EXPORTER_WEB_PROT (write API_KEY_EXPORTER__WEB__PROT), \
            API_KEY_EXPORTER_WEB_[redacted], \
            api_key_exporter_log_level (write API_KEY_EXPORTER__LOG__LEVEL)";
        let account = format!("{LOOPBACK}token_env = \"TOKEN\"");
        assert_eq!(warnings(&account, &given), [expected]);
    }
}
