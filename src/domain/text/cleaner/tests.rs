//! Secrets in every form that text may contain them in, and harmless names that look like secrets.

#![allow(
    clippy::string_slice,
    clippy::format_collect,
    reason = "the secrets are ASCII, and few"
)]

use std::fmt::Write as _;

use super::*;

const TOKEN: &str = "sk_live_MDE5N2MwZWMtYTE5Ny03MTlmLTg0YTktOTkyNzBhNzliNDJh.GdwdA";
const OTHER: &str = "whoeverKnowsThis-1s_Adm1n.ofEverything";
const MASKED: &str = "sk_test_TUFTS0VEc2Vj...mAsKd";

fn cleaner(secrets: &[&str]) -> Cleaner {
    let mut known = Secrets::new(1000);
    for secret in secrets {
        known.add(secret);
    }
    Cleaner::new(known)
}

fn base64(bytes: &[u8], is_for_urls: bool, is_padded: bool) -> String {
    let alphabet = if is_for_urls {
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    } else {
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    };
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().enumerate();
        let bits = bits.fold(0_u32, |bits, (at, byte)| {
            bits | u32::from(*byte) << (16 - 8 * at)
        });
        for digit in 0..=group.len() {
            out.push(char::from(
                alphabet[(bits >> (18 - 6 * digit) & 63) as usize],
            ));
        }
        if is_padded {
            out.push_str(&"=".repeat(3 - group.len()));
        }
    }
    out
}

fn hex(text: &str, is_upper: bool) -> String {
    let digits = text.bytes().fold(String::new(), |mut digits, byte| {
        write!(digits, "{byte:02x}").unwrap();
        digits
    });
    if is_upper {
        digits.to_uppercase()
    } else {
        digits
    }
}

/// Percent-encodes each character for which `random` returns true.
fn percent(text: &str, random: &mut fastrand::Rng, share: u8) -> String {
    let escapes = text.chars().map(|c| {
        if random.u8(..100) < share && c.is_ascii() {
            format!("%{:02X}", c as u8)
        } else {
            c.to_string()
        }
    });
    escapes.collect()
}

fn between(text: &str, separator: &str, every: usize) -> String {
    let mut out = String::new();
    for (at, c) in text.chars().enumerate() {
        if at > 0 && at % every == 0 {
            out.push_str(separator);
        }
        out.push(c);
    }
    out
}

/// The name of a form and the text in that form.
fn forms(part: &str, random: &mut fastrand::Rng) -> Vec<(String, String)> {
    let mut forms = vec![
        ("plain".to_owned(), part.to_owned()),
        ("upper case".to_owned(), part.to_uppercase()),
        ("lower case".to_owned(), part.to_lowercase()),
        ("hex".to_owned(), hex(part, false)),
        ("upper hex".to_owned(), hex(part, true)),
        ("percent".to_owned(), percent(part, random, 100)),
        ("some percent".to_owned(), percent(part, random, 30)),
        (
            "hex of base64".to_owned(),
            hex(&base64(part.as_bytes(), false, true), false),
        ),
        (
            "base64 of hex".to_owned(),
            base64(hex(part, true).as_bytes(), false, true),
        ),
        (
            "base64 of base64".to_owned(),
            base64(base64(part.as_bytes(), false, true).as_bytes(), false, true),
        ),
    ];
    let twice = percent(part, random, 100);
    forms.push(("percent twice".to_owned(), percent(&twice, random, 100)));
    let entities: String = part.bytes().map(|byte| format!("&#{byte};")).collect();
    forms.push(("entities".to_owned(), entities));
    let escapes: String = part.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
    forms.push(("escapes".to_owned(), escapes));
    for separator in [
        ":", "-", ", 0x", "=", " ", ":0x", " 0x", "::", "+", "~", ")(", " x", "h,", "\",\"",
    ] {
        let dump = between(&hex(part, separator == "-"), separator, 2);
        let start = if separator.ends_with("0x") { "0x" } else { "" };
        forms.push((format!("hex with {separator:?}"), format!("{start}{dump}")));
    }
    let pairs = between(&hex(part, false), ":", 4);
    forms.push(("hex in groups of two bytes".to_owned(), pairs));
    let points: String = part.bytes().map(|byte| format!("U+{byte:04X} ")).collect();
    forms.push(("code points".to_owned(), points));
    let octal: String = part.bytes().map(|byte| format!("\\{byte:03o}")).collect();
    forms.push(("octal escapes".to_owned(), octal));
    let braces: String = part
        .bytes()
        .map(|byte| format!("\\u{{{byte:x}}}"))
        .collect();
    forms.push(("escapes in braces".to_owned(), braces));
    let wide = part
        .chars()
        .map(|c| char::from_u32(c as u32 + 0xfee0).unwrap());
    forms.push(("fullwidth".to_owned(), wide.collect()));
    for separator in [
        "\u{200b}",
        "\u{ad}",
        "\u{34f}",
        "\u{fe0f}",
        "\u{3164}",
        "\u{e0041}",
        "\0",
        " ",
        "\n",
        "\u{1b}",
        "\u{1b}[31m",
        "\u{9b}0m",
        "\u{1b}]0;title\u{7}",
        "\u{202e}",
        "\u{301}",
        "\\",
    ] {
        let every = random.usize(1..5);
        let split = between(part, separator, every);
        forms.push((format!("split by {separator:?}"), split));
    }
    for before in ["", "x", "xy"] {
        for (is_for_urls, is_padded) in [(false, true), (false, false), (true, true), (true, false)]
        {
            let text = format!("{before}{part}");
            let encoded = base64(text.as_bytes(), is_for_urls, is_padded);
            forms.push((format!("base64 behind {before:?}"), encoded.clone()));
            let in_percent = percent(&encoded, random, 100);
            forms.push(("percent of base64".to_owned(), in_percent));
            forms.push(("base64 in lines".to_owned(), between(&encoded, "\r\n", 19)));
        }
    }
    forms
}

/// Whether a reader could still recover a secret from `shown`: whether it contains 12 consecutive
/// characters of `secret`, as text or decoded. Independent of the code that it checks.
fn leaks(shown: &str, secret: &str) -> bool {
    let secret = secret.to_lowercase();
    let parts: Vec<&str> = (0..=secret.len() - PART)
        .map(|at| &secret[at..at + PART])
        .collect();
    let is_in = |text: &str| {
        let text: String = text.chars().filter(char::is_ascii_graphic).collect();
        let text = text.to_lowercase();
        parts.iter().any(|part| text.contains(part))
    };
    let hexes = parts
        .iter()
        .any(|part| shown.to_lowercase().contains(&hex(part, false)));
    let encoded = ["", "x", "xy"].iter().any(|before| {
        parts.iter().any(|part| {
            let encoded = base64(format!("{before}{part}").as_bytes(), false, false);
            let skip = [0, 2, 3][before.len()];
            shown.contains(&encoded[skip..encoded.len() - 1])
        })
    });
    is_in(shown) || hexes || encoded
}

#[test]
fn no_part_of_a_secret_comes_through_in_any_form() {
    let mut random = fastrand::Rng::with_seed(7);
    let cleaner = cleaner(&[TOKEN, OTHER, MASKED]);
    let whole = [TOKEN, &TOKEN[8..], OTHER, &MASKED[8..20]];
    let mut tried = 0;
    for round in 0..24 {
        let secret = whole[round % whole.len()];
        let from = random.usize(..=secret.len() - PART);
        let to = random.usize(from + PART..=secret.len());
        let part = if round < whole.len() {
            secret
        } else {
            &secret[from..to]
        };
        for (name, form) in forms(part, &mut random) {
            for text in [
                form.clone(),
                format!("bad token {form}, try again"),
                format!("{{\"token\":\"{form}\"}}"),
                format!("ein Schlüssel „{form}“ – ungültig"),
                format!("https://host/{form}?a=b"),
            ] {
                for shown in [
                    cleaner.line(&text).as_str().to_owned(),
                    cleaner.name(&text).as_str().to_owned(),
                    cleaner.support_id(&text).unwrap().as_str().to_owned(),
                ] {
                    tried += 1;
                    assert!(
                        shown.contains(REDACTED),
                        "{part} as {name}: {text:?} → {shown:?}"
                    );
                    assert!(
                        !leaks(&shown, part),
                        "{part} as {name}: {text:?} → {shown:?}"
                    );
                }
                assert!(!cleaner.is_free_of_secrets(&text), "{name}: {text:?}");
            }
        }
    }
    assert!(tried > 5_000);
}

#[test]
fn random_secrets_do_not_come_through_and_other_text_does() {
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..40 {
        let len = random.usize(20..80);
        let secret: String = (0..len).map(|_| random.alphanumeric()).collect();
        let cleaner = cleaner(&[&secret]);
        for (name, form) in forms(&secret, &mut random) {
            let shown = cleaner.line(&format!("a {form} b"));
            assert!(
                !leaks(shown.as_str(), &secret),
                "{secret} as {name}: {shown:?}"
            );
        }
        for _ in 0..200 {
            let id = format!(
                "api_key_{:08x}-{:04x}-7{:03x}-8{:03x}-{:012x}",
                random.u32(..),
                random.u16(..),
                random.u16(..0x1000),
                random.u16(..0x1000),
                random.u64(..1 << 48)
            );
            assert!(cleaner.is_free_of_secrets(&id), "{id}");
            let random_id: String = (0..40).map(|_| random.alphanumeric()).collect();
            assert!(cleaner.is_free_of_secrets(&random_id), "{random_id}");
        }
    }
}

#[test]
fn ordinary_names_stay_as_they_are() {
    // The secret of a key is derived from its id, as base64.
    let cleaner = cleaner(&[TOKEN, MASKED]);
    for name in [
        "api_key_0197c0ec-a197-719f-84a9-99270a79b42a",
        "0197c0eca197719f84a999270a79b42a",
        "org_0197c0ec-a197-719f-84a9-99270a79b42a",
        "9007199254740993",
        "users.sessions.deactivate",
        "payments.create",
        "webhooks_queue.update",
        "repo:read",
        "https://www.googleapis.com/auth/cloud-platform.read-only",
        "arn:aws:iam::123456789012:role/deploy",
        "task_live_monitoring_shop_berlin",
        "Nightly build of the shop",
        "Kündigungen & Rückgaben 50%",
        "100% of \\\\server\\share",
        "日本語のラベル",
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "SHA1 4A:7B:0C:91:de:ad:be:ef:00:11:22:33:44:55:66:77:88:99:AA:BB",
        "a",
        "",
    ] {
        let shown = cleaner.name(name);
        assert_eq!((shown.as_str(), shown.is_exact), (name, true));
        assert!(cleaner.is_free_of_secrets(name), "{name}");
    }
    assert_eq!(cleaner.label(""), None);
    assert!(!cleaner.label("a\u{200b}b").unwrap().is_exact());
}

#[test]
fn a_short_secret_is_redacted_as_a_whole() {
    let cleaner = cleaner(&["hunter2!", "sk_live_abcDEF1234", "no"]);
    for (text, expected) in [
        ("bad HUNTER2!, sorry", "bad [redacted], sorry"),
        ("hunter2", "hunter2"),
        ("id abcdef1234 x", "id [redacted] x"),
        ("aHVudGVyMiE=", "[redacted]"),
        ("x hunter%32! no", "x [redacted] no"),
    ] {
        assert_eq!(cleaner.line(text).as_str(), expected);
    }
}

#[test]
fn what_is_around_a_secret_stays_readable() {
    let cleaner = cleaner(&[TOKEN]);
    let body = &TOKEN[8..];
    for (text, expected) in [
        (format!("my {TOKEN}!"), "my [redacted]!"),
        (
            format!("token '{}' unknown", &TOKEN[..17]),
            "token '[redacted]' unknown",
        ),
        (format!("tail {}, é", &body[4..20]), "tail [redacted], é"),
        (
            format!("{{\"a\":\"{body}\",\"b\":1}}"),
            "{\"a\":\"[redacted]\",\"b\":1}",
        ),
        (
            format!("header {} rejected", base64(TOKEN.as_bytes(), false, true)),
            "header [redacted] rejected",
        ),
    ] {
        assert_eq!(cleaner.line(&text).as_str(), expected, "{text}");
    }
}

#[test]
fn more_secrets_than_can_be_compared_are_redacted_all_the_same() {
    let mut random = fastrand::Rng::with_seed(3);
    let mut secrets = Secrets::new(4 << 20);
    let mut last = String::new();
    for _ in 0..60_000 {
        last = (0..40).map(|_| random.alphanumeric()).collect();
        secrets.add(&last);
    }
    let cleaner = Cleaner::new(secrets);
    assert_eq!(
        cleaner.line(&format!("a {last} b")).as_str(),
        "a [redacted] b"
    );
    assert!(cleaner.is_free_of_secrets("api_key_0197c0ec-a197-719f-84a9-99270a79b42a"));
}

#[test]
fn json_is_decoded_before_it_is_cleaned() {
    let cleaner = cleaner(&[TOKEN]);
    let escaped: String = TOKEN
        .chars()
        .map(|c| format!("\\u{:04x}", c as u32))
        .collect();
    for (json, expected) in [
        (format!("{{\"a\":\"{escaped}\"}}"), "{\"a\":\"[redacted]\"}"),
        (
            "{\"a\":\"\\u00fc\\/\\ud83d\\ude00\\ud83d\"}".to_owned(),
            "{\"a\":\"ü/😀\u{fffd}\"}",
        ),
        ("[\"a\\n\\\"b\\\\\"]".to_owned(), "[\"a \\\"b\\\\\"]"),
    ] {
        assert_eq!(cleaner.line(&json_words(&json)).as_str(), expected);
    }
}

#[test]
fn long_text_is_cut() {
    let cleaner = cleaner(&[TOKEN]);
    let long = format!("{}{TOKEN}", "%41".repeat(1_000_000));
    assert_eq!(cleaner.line(&long).as_str().chars().count(), LINE_CHARS_MAX);
    assert_eq!(
        cleaner.name(&"x".repeat(300)).as_str().chars().count(),
        LABEL_CHARS_MAX
    );
}
