//! Warnings for valid but probably unintended configurations, as log messages.

use std::collections::BTreeSet;
use std::path::Path;

use chrono::{DateTime, Utc};

use crate::config::accounts::CREDENTIALS;
use crate::config::problem::shown_name;
use crate::config::{Account, Details, ENV_PREFIX, Effective, Origin, Poll, Sources};
use crate::domain::inventory::Entry;
use crate::domain::policy::Limits;
use crate::domain::shard::Shard;
use crate::domain::text;
use crate::domain::text::join_truncated;
use crate::provider::Provider;
use crate::provider::profile::EnvironmentAccount;
use crate::secret::TokenSource;

/// The common environment variables for a proxy URL.
const PROXY_VARIABLES: [&str; 6] = [
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// All configuration warnings.
pub(super) fn of(
    poll: &Poll,
    accounts: &[Account],
    details: &Details,
    policy: &Limits,
) -> Vec<String> {
    let mut warnings = Vec::new();
    let has_last_use = |account: &Account| account.provider.lists_last_use();
    if policy.max_unused.is_some() && !details.enabled && !accounts.iter().any(has_last_use) {
        warnings.push(
            "policy.max_unused does nothing without details.enabled: only details contain the last use"
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
    warnings.extend(accounts.iter().filter_map(listing_in_base_url));
    warnings
}

/// Shards that are probably unintended. `accounts` are those of this shard.
pub(super) fn of_shard(shard: Shard, accounts: &[Account], effective: &[Effective]) -> Vec<String> {
    if !shard.is_one_of_several() {
        return Vec::new();
    }
    let is_default = effective.iter().any(|option| {
        (option.section.as_str(), option.name.as_str()) == ("[shard]", "index")
            && option.origin == Origin::Default
    });
    let unset = is_default.then(|| {
        format!(
            "shard.total is {}, but shard.index is not set: this exporter is shard 0",
            shard.total()
        )
    });
    let empty = accounts
        .is_empty()
        .then(|| format!("shard {shard} polls nothing: it has none of the configured accounts"));
    unset.into_iter().chain(empty).collect()
}

/// The exporter appends the path of the listing itself.
fn listing_in_base_url(account: &Account) -> Option<String> {
    let path = account.base_url.path().trim_end_matches('/');
    let listing_path = account.provider.profile().listing_path.as_deref()?;
    path.ends_with(listing_path).then(|| {
        format!(
            "base_url of account {:?} ends with {listing_path}, the path of the listing, which the \
             exporter appends itself: remove it",
            account.name
        )
    })
}

/// Inventory settings that no longer have an effect at `now`.
pub(super) fn of_inventory(entries: &[Entry], now: DateTime<Utc>) -> Vec<String> {
    let name = |entry: &Entry| format!("{:?}", text::label(entry.pattern.as_str()));
    let ended = entries.iter().filter_map(|entry| {
        let until = entry.muted_until.filter(|_| !entry.is_muted(now))?;
        Some(format!("{} ({})", name(entry), until.format("%Y-%m-%d")))
    });
    let ended: Vec<String> = ended.collect();
    let ended = join_truncated(ended.iter().map(String::as_str)).map(|entries| {
        format!("a mute in the inventory has ended and does nothing; remove it: {entries}")
    });
    let mut shadowed = Vec::new();
    // The accounts whose keys all match an earlier entry; `None` means every account.
    let mut covered: BTreeSet<Option<&str>> = BTreeSet::new();
    for entry in entries {
        let account = entry.account.as_deref();
        if covered.contains(&None) || covered.contains(&account) {
            shadowed.push(name(entry));
        } else if entry.pattern.as_str().chars().all(|c| c == '*') {
            covered.insert(account);
        }
    }
    let shadowed = join_truncated(shadowed.iter().map(String::as_str)).map(|entries| {
        format!(
            "an earlier entry of the inventory with match = \"*\" takes all keys, so these never \
             match; put it last: {entries}"
        )
    });
    ended.into_iter().chain(shadowed).collect()
}

/// The common proxy variables, which the exporter ignores: a profile script must not decide where a
/// token is sent.
fn unused_proxy(sources: &Sources, accounts: &[Account]) -> Option<String> {
    let is_set = |variable: &&str| {
        let value = sources.variable(variable);
        value.is_some_and(|value| !value.is_empty())
    };
    let set: Vec<&str> = PROXY_VARIABLES.into_iter().filter(is_set).collect();
    let direct = accounts.iter().filter(|account| {
        // http:// is allowed for the loopback address only.
        account.proxy_url.is_none() && account.base_url.scheme() == "https"
    });
    let direct = join_truncated(direct.map(|account| account.name.as_str()))?;
    let variables = join_truncated(set)?;
    Some(format!(
        "{variables} in the environment: proxies of the environment are not used; set proxy_url if \
         these accounts need one: {direct}"
    ))
}

/// Environment variables that look effective but are ignored.
pub(super) fn of_environment(
    sources: &Sources,
    accounts: &[Account],
    effective: &[Effective],
) -> Vec<String> {
    let variables = Provider::NATIVE
        .into_iter()
        .filter_map(|provider| provider.profile().environment);
    variables
        .flat_map(|variables| unused_tokens(variables, sources, accounts, effective))
        .chain(misspelled(sources, effective))
        .chain(unused_proxy(sources, accounts))
        .collect()
}

/// The variables of the set-up without a file, if others take precedence.
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
    // The systemd unit sets this to a file that an account in the configuration may also use.
    let holds_a_token = |wanted: &str| {
        let named = sources.variable(wanted).map(Path::new);
        accounts.iter().any(|account| match &account.token {
            TokenSource::Env { variable, .. } => variable == wanted,
            TokenSource::File(path) => wanted == token_file && named == Some(path),
        })
    };
    let why = if made_an_account(token_file) {
        format!("{token_file} takes precedence")
    } else if made_an_account(CREDENTIALS) {
        "the service's credential takes precedence".to_owned()
    } else {
        "the accounts are those of the file".to_owned()
    };
    let unused = [token_file, token].into_iter().filter(|variable| {
        // Some tools set an empty value to unset a variable.
        sources.variable(variable).is_some_and(|it| !it.is_empty())
            && !made_an_account(variable)
            && !holds_a_token(variable)
    });
    unused
        .map(|variable| format!("{variable} in the environment is ignored: {why}"))
        .collect()
}

/// Variables that would set an option if a single underscore were doubled. Other variables with our
/// prefix are ignored: they belong to build or deployment tools.
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
        let shown = shown_name(variable);
        // A redacted name may be a secret, which must not appear in upper case either.
        Some(if shown == *variable {
            format!("{variable} (write {right})")
        } else {
            shown
        })
    });
    let misspelled: Vec<String> = misspelled.collect();
    join_truncated(misspelled.iter().map(String::as_str)).map(|variables| {
        format!(
            "ignored in the environment, where two underscores replace each dot of an option: \
             {variables}"
        )
    })
}

/// Whether Kubernetes sets variables with this suffix after a service name, which may be
/// `api-key-exporter-metrics`.
fn is_of_kubernetes(end: &str) -> bool {
    end == "SERVICE_HOST"
        || end.starts_with("SERVICE_PORT")
        || end == "PORT"
        || end.starts_with("PORT_")
}

/// Warnings about an account's token and its location.
pub(super) fn of_token(account: &Account) -> Vec<String> {
    let name = &account.name;
    let mut warnings = Vec::new();
    let profile = account.provider.profile();
    match (account.token.read(), profile.described_prefixes()) {
        (Ok(token), usual) => {
            if let Some(mistake) = token.paste_mistake() {
                warnings.push(format!("the token of account {name:?} {mistake}"));
            } else if let Some(usual) = usual
                && !token.starts_with_any(profile.prefixes())
            {
                warnings.push(format!(
                    "the token of account {name:?} does not start with {usual}, as API keys do"
                ));
            }
        }
        (Err(error), _) => {
            let error = text::chain(&error);
            warnings.push(format!(
                "polls of account {name:?} will fail until this is fixed: {error}"
            ));
            return warnings;
        }
    }
    match &account.token {
        TokenSource::File(path) => {
            if account.token.is_public() {
                warnings.push(format!(
                    "every user of this machine can read the token of account {name:?}: chmod o= {}",
                    path.display()
                ));
            }
        }
        // Plain HTTP is allowed to this machine only: a test, whose key needs no warning.
        TokenSource::Env { variable, .. } if account.base_url.scheme() == "https" => {
            warnings.push(format!(
                "the token of account {name:?} is in the environment ({variable}), where crash \
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
        // An account names it, or it is empty.
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
        let warned = warnings("", &[of_path, both[1]]);
        let by_account = format!("{LOOPBACK}token_file = {:?}", of_path.1);
        let same = warnings(&by_account, &[of_path]);
        std::fs::remove_file(&path).unwrap();
        let first = ignored("BITGPT_API_KEY", "BITGPT_API_KEY_FILE takes precedence");
        assert_eq!(warned.last(), Some(&first), "{warned:?}");
        assert!(!same.iter().any(|it| it.contains("ignored")), "{same:?}");
        let alone = warnings("", &[both[1]]);
        assert!(!alone.iter().any(|it| it.contains("ignored")), "{alone:?}");
    }

    #[test]
    fn mistakes_of_pasting_and_a_listing_in_the_url_are_warned_of() {
        let text = r#"
            [[accounts]]
            name = "shop"
            base_url = "http://localhost/developers/api_keys/"
            token_env = "MASKED"
            [[accounts]]
            name = "office"
            base_url = "http://localhost/developers"
            token_env = "QUOTED"
        "#;
        let variables = [
            ("MASKED", "sk_live_c2VjcmV0...ZXN0cw"),
            ("QUOTED", "'sk_live_c2VjcmV0IGluIHRoZSB0ZXN0cw'"),
        ];
        let warned = warnings(text, &variables);
        let [listing, masked, quoted] = warned.as_slice() else {
            panic!("{warned:?}")
        };
        let start = "base_url of account \"shop\" ends with /developers/api_keys, ";
        assert!(listing.starts_with(start), "{listing}");
        let start = "the token of account \"shop\" is masked";
        assert!(masked.starts_with(start), "{masked}");
        let start = "the token of account \"office\" is in quotes";
        assert!(quoted.starts_with(start), "{quoted}");
        assert!(!warned.join("").contains("c2Vjc"), "{warned:?}");
    }

    #[test]
    fn a_key_that_is_pasted_into_the_inventory_is_not_repeated() {
        let text = format!(
            "{LOOPBACK}token_env = \"TOKEN\"\n[[keys]]\nmatch = \"*\"\n[[keys]]\n\
             match = \"sk_live_hunter2hunter2\u{202e}\"\n[[keys]]\nmatch = \"my sk_test_HUNTER2*\"\n"
        );
        let warned = warnings(&text, &[("TOKEN", "sk_live_a")]).join("");
        assert!(warned.contains("put it last: \"[redacted]"), "{warned}");
        assert!(!warned.to_lowercase().contains("hunter2"), "{warned}");
    }

    #[test]
    fn an_ended_mute_and_a_shadowed_entry_are_warned_of() {
        let entry = |words: &str| format!("[[keys]]\n{words}\n");
        let text = [
            format!("{LOOPBACK}name = \"shop\"\ntoken_env = \"TOKEN\"\n"),
            entry("match = \"old\"\nmuted_until = 2020-02-03\nreason = \"moves\""),
            entry("match = \"new\"\nmuted_until = 9999-02-03\nreason = \"moves\""),
            entry("match = \"*\"\naccount = \"shop\""),
            entry("match = \"behind\"\naccount = \"shop\""),
            entry("match = \"any\""),
            entry("match = \"**\""),
            entry("match = \"last\""),
        ];
        let expected = [
            "a mute in the inventory has ended and does nothing; remove it: \"old\" (2020-02-03)",
            "an earlier entry of the inventory with match = \"*\" takes all keys, so these never \
             match; put it last: \"behind\", \"last\"",
        ];
        assert_eq!(warnings(&text.concat(), &[]), expected);
    }

    #[test]
    fn proxies_of_the_environment_are_warned_of_without_their_passwords() {
        let account = |name: &str, url: &str, more: &str| {
            format!(
                "[[accounts]]\nname = {name:?}\nbase_url = {url:?}\ntoken_file = {:?}\n{more}",
                "/proc/self/comm"
            )
        };
        let text = [
            account("direct", "https://api.example.com", ""),
            account("local", "http://localhost", ""),
            account(
                "through",
                "https://api.example.com",
                "proxy_url = \"http://p:1\"\n",
            ),
        ];
        let variables = [
            ("https_proxy", "http://user:hunter2@proxy:3128"),
            ("ALL_PROXY", "socks5://user:hunter2@proxy"),
            ("HTTP_PROXY", ""),
        ];
        let warned = warnings(&text.concat(), &variables);
        let expected = "https_proxy, ALL_PROXY in the environment: proxies of the environment are \
            not used; set proxy_url if these accounts need one: direct";
        assert!(warned.iter().any(|it| it == expected), "{warned:#?}");
        assert!(!warned.join("").contains("hunter2"), "{warned:#?}");
        let only_through = account(
            "a",
            "https://api.example.com",
            "proxy_url = \"http://p:1\"\n",
        );
        let warned = warnings(&only_through, &variables);
        assert!(!warned.join("").contains("proxies"), "{warned:#?}");
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
            // Variables that Kubernetes and build tools set are ignored.
            ("API_KEY_EXPORTER_SERVICE_HOST", "10.0.0.1"),
            ("API_KEY_EXPORTER_PORT_10120_TCP", "tcp://10.0.0.1:10120"),
            ("API_KEY_EXPORTER_METRICS_SERVICE_PORT_HTTP", "10120"),
            ("API_KEY_EXPORTER_METRICS_PORT", "tcp://10.0.0.1:10120"),
            ("API_KEY_EXPORTER_REVISION", "abc"),
            ("API_KEY_EXPORTER_POLLER", "1"),
            ("API_KEY_EXPORTER", "1"),
        ];
        let expected = "ignored in the environment, where two underscores replace each dot of an \
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
