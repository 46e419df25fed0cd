//! `[shard]`: which of several exporters this one is.

use crate::config::reader::Section;
use crate::domain::shard::{Shard, TOTAL_MAX};

/// The shard; `None` if an option is invalid, which is recorded.
pub(super) fn read(section: &mut Section<'_>) -> Option<Shard> {
    let before = section.problem_count();
    let index: u16 = section.number("index", 0, 0..=u64::from(TOTAL_MAX) - 1);
    let total: u16 = section.number("total", 1, 1..=TOTAL_MAX.into());
    if section.problem_count() > before {
        return None;
    }
    let shard = Shard::new(index, total);
    if shard.is_none() {
        let words = format!(
            "must be less than shard.total, which is {total}: the shards have the indices 0 to {}",
            total - 1
        );
        section.problem("index", Some(&index.to_string()), &words);
    }
    shard
}

#[cfg(test)]
mod tests {
    use crate::config::tests::{load, problems};
    use crate::config::{Config, Flag, Flags, Sources};
    use crate::domain::shard::Shard;

    const ACCOUNTS: &str = r#"
        [[accounts]]
        name = "account-1"
        base_url = "http://localhost"
        token_env = "TOKEN"
        [[accounts]]
        name = "account-2"
        base_url = "http://localhost"
        token_env = "ELSEWHERE"
        ca_file = "/nonexistent/ca.pem"
        [[keys]]
        match = "*"
        account = "account-2"
    "#;

    fn names(config: &Config) -> Vec<&str> {
        let accounts = config.accounts.iter();
        accounts.map(|account| account.name.as_str()).collect()
    }

    #[test]
    fn a_shard_has_its_own_accounts_and_needs_no_secret_of_the_others() {
        let config = load(&format!("shard.total = 2\n{ACCOUNTS}"), &[]).unwrap();
        assert_eq!(names(&config), ["account-1"]);
        assert_eq!(config.shard, Shard::new(0, 2).unwrap());
        let shards = [("account-1", 0), ("account-2", 1)];
        assert_eq!(
            config.shards,
            shards.map(|(name, index)| (name.to_owned(), index))
        );
        let file = format!("shard.total = 2\nshard.index = 1\n{ACCOUNTS}");
        let found = problems(&file, &[]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("variable ELSEWHERE"), "{found:?}");
        assert!(found[1].contains("ca_file"), "{found:?}");
        let unsharded = problems(ACCOUNTS, &[]);
        assert_eq!(unsharded, found);
    }

    #[test]
    fn environment_and_flags_set_the_shard() {
        let variables = [
            ("API_KEY_EXPORTER__SHARD__INDEX", "3"),
            ("API_KEY_EXPORTER__SHARD__TOTAL", "5"),
        ];
        let text = "[[accounts]]\nbase_url = \"http://localhost\"\ntoken_env = \"TOKEN\"";
        let config = load(text, &variables).unwrap();
        assert_eq!(config.shard, Shard::new(3, 5).unwrap());
        let flag = |path, spelling, value: &str| Flag {
            path,
            spelling,
            values: vec![value.to_owned()],
            is_list: false,
        };
        let sources = Sources {
            flags: Flags(vec![
                flag("shard.index", "--shard", "6"),
                flag("shard.total", "--total-shards", "7"),
            ]),
            skip_tokens: true,
            ..Sources::default()
        };
        let config = Config::parse(&format!("shard.total = 2\n{text}"), &sources).unwrap();
        assert_eq!(config.shard, Shard::new(6, 7).unwrap());
    }

    #[test]
    fn an_index_outside_of_the_total_is_refused() {
        let first = "must be less than shard.total, which is 4: the shards have the indices 0 to 3";
        let total = "must be a whole number from 1 to 1000";
        let index = "must be a whole number from 0 to 999";
        for (set, expected) in [
            (
                "index = 4\ntotal = 4",
                vec![format!("shard.index = 4 (file a.toml): {first}")],
            ),
            (
                "total = 0",
                vec![format!("shard.total = 0 (file a.toml): {total}")],
            ),
            (
                "index = 3\ntotal = 1001",
                vec![format!("shard.total = 1001 (file a.toml): {total}")],
            ),
            (
                "index = -1",
                vec![format!("shard.index = -1 (file a.toml): {index}")],
            ),
        ] {
            let text = format!("[shard]\n{set}\n{ACCOUNTS}");
            // Not also that the secrets of other shards are missing.
            assert_eq!(problems(&text, &[]), expected, "{set}");
        }
        // Kubernetes before 1.28 has no label with the index, so the variable is empty.
        let text = "shard.total = 2\n[[accounts]]\nbase_url = \"http://localhost\"\n\
                    token_env = \"TOKEN\"";
        let empty = problems(text, &[("API_KEY_EXPORTER__SHARD__INDEX", "")]);
        let expected =
            format!("shard.index = \"\" (environment API_KEY_EXPORTER__SHARD__INDEX): {index}");
        assert_eq!(empty, [expected]);
    }

    #[test]
    fn a_shard_may_have_no_account_and_a_default_index_is_pointed_out() {
        let text = "shard.total = 9\n[[accounts]]\nname = \"account-2\"\n\
                    base_url = \"http://localhost\"\ntoken_env = \"TOKEN\"";
        let config = load(text, &[]).unwrap();
        assert_eq!(names(&config), [""; 0]);
        let expected = [
            "shard.total is 9, but shard.index is not set: this exporter is shard 0",
            "shard 0 of 9 polls nothing: it has none of the configured accounts",
        ];
        assert_eq!(config.warnings, expected);
        let config = load(&format!("shard.index = 0\n{text}"), &[]).unwrap();
        assert_eq!(config.warnings, expected[1..]);
    }
}
