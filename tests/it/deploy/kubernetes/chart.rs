//! The chart's values: what each changes, golden renders of the sets in `ci/`, and bad values.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use super::{VALUES, documents, one, rendered, template};
use crate::support::in_repository;

fn deployment(values: Option<&str>, more: &[&str]) -> Value {
    one(&documents(&rendered(values, more)), "Deployment")
}

/// Objects that other tests compare with their source.
const COPIES: [&str; 2] = ["prometheusrule.yaml", "dashboard.yaml"];

#[test]
fn the_chart_renders_the_golden_files() {
    for set in [None].into_iter().chain(VALUES.map(Some)) {
        let objects: Vec<String> = rendered(set, &[])
            .split("---\n# Source: api-key-exporter/templates/")
            .filter(|object| !COPIES.iter().any(|copy| object.starts_with(copy)))
            .map(ToOwned::to_owned)
            .collect();
        let text = objects.join("---\n# ");
        let name = set.unwrap_or("default");
        let file = in_repository("tests/golden/chart").join(format!("{name}.yaml"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, &text).unwrap();
        }
        let golden = fs::read_to_string(&file).unwrap_or_default();
        assert!(
            golden == text,
            "{} differs; rerun with UPDATE_GOLDEN=1 and review the diff\n{text}",
            file.display()
        );
    }
}

#[test]
fn null_removes_entries_and_whole_security_contexts() {
    let spec = |more: &[&str]| deployment(None, more)["spec"]["template"]["spec"].clone();
    let pod = spec(&[
        "--set=podSecurityContext.runAsUser=null",
        "--set=securityContext.privileged=null",
    ]);
    let mut expected = spec(&[]);
    let removed = |context: &mut Value, name| context.as_object_mut().unwrap().remove(name);
    assert!(removed(&mut expected["securityContext"], "runAsUser").is_some());
    let container = &mut expected["containers"][0]["securityContext"];
    assert!(removed(container, "privileged").is_some());
    assert_eq!(pod, expected);
    let pod = spec(&[
        "--set=podSecurityContext=null",
        "--set=securityContext=null",
    ]);
    assert_eq!(pod["securityContext"], Value::Null);
    assert_eq!(pod["containers"][0]["securityContext"], Value::Null);
}

/// The ports that a `NetworkPolicy` lets out to any address.
fn open_ports(more: &[&str]) -> BTreeSet<u64> {
    let mut arguments = vec!["--set=networkPolicy.enabled=true"];
    arguments.extend(more);
    let policy = one(&documents(&rendered(None, &arguments)), "NetworkPolicy");
    let rules = policy["spec"]["egress"].as_array().unwrap().iter();
    rules
        .filter(|rule| rule["to"].is_null())
        .flat_map(|rule| rule["ports"].as_array().unwrap())
        .map(|port| port["port"].as_u64().unwrap())
        .collect()
}

#[test]
fn the_network_policy_follows_the_configured_hosts() {
    for (accounts, ports) in [
        ("[{}]", vec![53, 443]),
        (
            r#"[{"baseUrl": "https://a.example.com/b:8/"}]"#,
            vec![53, 443],
        ),
        (
            r#"[{"baseUrl": "https://a.example.com:8443/b"}, {}]"#,
            vec![53, 443, 8443],
        ),
        (r#"[{"baseUrl": "https://[2001:db8::10]"}]"#, vec![53, 443]),
        (
            r#"[{"baseUrl": "https://[2001:db8::10]:444"}]"#,
            vec![53, 444],
        ),
        (r#"[{"baseUrl": "http://127.0.0.1"}]"#, vec![53, 80]),
        // The exporter connects to the proxy alone.
        (
            r#"[{"baseUrl": "https://a:8443", "proxyUrl": "http://proxy:3128"}]"#,
            vec![53, 3128],
        ),
        (r#"[{"proxyUrl": "http://proxy"}]"#, vec![53, 80]),
        (r#"[{"proxyUrl": "https://proxy"}]"#, vec![53, 443]),
    ] {
        let mut list: Value = serde_json::from_str(accounts).unwrap();
        for (index, account) in list.as_array_mut().unwrap().iter_mut().enumerate() {
            account["name"] = format!("account-{index}").into();
            account["existingSecret"] = "secret".into();
        }
        let set = format!("--set-json=accounts={list}");
        assert_eq!(
            open_ports(&[&set]),
            ports.into_iter().collect(),
            "{accounts}"
        );
    }
    assert_eq!(
        open_ports(&["--set-json=networkPolicy.dnsPorts=[5353, 1053]"]),
        [443, 1053, 5353].into()
    );
    // The DNS pods are allowed on every port.
    let policy = one(&documents(&rendered(Some("rules"), &[])), "NetworkPolicy");
    let dns = &policy["spec"]["egress"][0];
    assert_eq!(dns["to"].as_array().unwrap().len(), 2);
    assert_eq!(dns["ports"], Value::Null);
}

#[test]
fn a_changed_inventory_replaces_the_pods_unless_a_reloader_runs() {
    let annotations = |more: &[&str]| {
        deployment(None, more)["spec"]["template"]["metadata"]["annotations"].clone()
    };
    let with =
        |team: &str| format!("--set=inventory.content=[[keys]]\nmatch = \"*\"\nteam = \"{team}\"");
    assert_ne!(annotations(&[&with("a")]), annotations(&[&with("b")]));
    assert_ne!(annotations(&[&with("a")]), annotations(&[]));
    let reloader = "--set=configReloader.enabled=true";
    assert_eq!(annotations(&[&with("a"), reloader]), Value::Null);
    let pod = deployment(None, &[&with("a"), reloader])["spec"]["template"]["spec"].clone();
    let sidecar = &pod["containers"][1];
    assert_eq!(
        sidecar["args"],
        json!([
            "--watched-dir=/etc/api-key-exporter",
            "--watched-dir=/etc/api-key-exporter-inventory",
            format!("--reload-url=http://127.0.0.1:{}/-/reload", super::port()),
        ])
    );
    for (address, host) in [("[::]:9", "[::1]:9"), ("192.0.2.1:9", "192.0.2.1:9")] {
        let listen = format!("--set=listenAddress={address}");
        let pod = deployment(None, &[&listen, reloader])["spec"]["template"]["spec"].clone();
        let arguments = pod["containers"][1]["args"].as_array().unwrap().clone();
        let url = format!("--reload-url=http://{host}/-/reload");
        assert!(arguments.contains(&url.into()), "{arguments:?}");
    }
}

#[test]
fn one_way_of_scraping_at_a_time() {
    let ways = ["serviceMonitor", "podMonitor", "vmServiceScrape"];
    for way in ways {
        for other in ways.iter().filter(|other| **other != way) {
            let set = format!("--set={way}.enabled=true,{other}.enabled=true");
            let said = template(None, &[&set]);
            let words = "enable only one of serviceMonitor, podMonitor and vmServiceScrape";
            assert!(
                !said.is_content && said.words.contains(words),
                "{}",
                said.words
            );
        }
    }
}

#[test]
fn bad_values_of_accounts_and_listeners_are_refused() {
    for (set, words) in [
        ("accounts[0].baseUrl=api.example.com", "baseUrl"),
        ("accounts[0].baseUrl=ftp://api.example.com", "baseUrl"),
        ("accounts[0].proxyUrl=socks5://proxy", "proxyUrl"),
        ("accounts[0].caFile=ca.pem", "caFile"),
        ("accounts[0].interval=often", "interval"),
        ("accounts[0].base_url=https://a", "'base_url' not allowed"),
        ("accounts[0].params=a", "want null or object"),
        ("listenAddress=10120", "listenAddress"),
        ("listenAddress=localhost:10120", "listenAddress"),
        ("telemetryPath=metrics", "telemetryPath"),
        ("webConfig.scheme=tls", "value must be one of"),
        ("webConfig.probeListenAddress=10121", "probeListenAddress"),
        ("webConfig.secret=a", "'secret' not allowed"),
        ("inventory.key=a/b", "does not match pattern"),
        ("extraEnv[0].value=a", "missing property 'name'"),
        (
            "extraVolumes[0].emptyDir.medium=Memory",
            "missing property 'name'",
        ),
        (
            "extraVolumeMounts[0].name=a",
            "missing property 'mountPath'",
        ),
        (
            "hostAliases[0].ip=192.0.2.1",
            "missing property 'hostnames'",
        ),
        ("dnsPolicy=None2", "value must be one of"),
        ("podMonitor.honorLabel=true", "'honorLabel' not allowed"),
        ("vmServiceScrape.scheme=tls", "value must be one of"),
        ("networkPolicy.dnsPorts[0]=dns", "want integer"),
        ("livenessProbe.periodSeconds=1s", "want integer"),
        ("podSecurityContext=restricted", "want object"),
        (
            "inventory.existingConfigMap=a,inventory.content=b",
            "set only one of inventory.content and inventory.existingConfigMap",
        ),
    ] {
        let valid = "--set=accounts[0].name=a,accounts[0].existingSecret=s";
        let said = template(None, &[valid, &format!("--set={set}")]);
        assert!(!said.is_content, "{set} renders");
        assert!(said.words.contains(words), "{set}: {}", said.words);
    }
}

#[test]
fn an_account_has_every_option_of_the_program() {
    let schema: Value = serde_json::from_str(&super::read(&format!(
        "{}/values.schema.json",
        super::CHART
    )))
    .unwrap();
    let known = &schema["properties"]["accounts"]["items"]["properties"];
    let known: BTreeSet<&str> = known
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let example = super::read("config.example.toml");
    let (_, section) = example.split_once("\n#[[accounts]]\n").unwrap();
    let (section, _) = section.split_once("\n\n").unwrap();
    let options = section
        .lines()
        .filter_map(|line| line.strip_prefix('#')?.split_once(" = "))
        .map(|(name, _)| name)
        .filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_'));
    let mut count = 0;
    for option in options {
        let camel: String = option
            .split('_')
            .enumerate()
            .map(|(index, word)| {
                let first = word.chars().next().unwrap().to_ascii_uppercase();
                if index == 0 {
                    word.to_owned()
                } else {
                    format!("{first}{}", &word[1..])
                }
            })
            .collect();
        // Tokens come from Secrets only.
        if !option.starts_with("token_") {
            assert!(known.contains(camel.as_str()), "the chart lacks {camel}");
        }
        count += 1;
    }
    assert!(count >= 9, "{count}");
}

#[test]
fn params_are_texts_as_written() {
    let account = |value: &str| {
        format!(
            "--set-json=accounts=[{{\"name\": \"a\", \"existingSecret\": \"s\", \
             \"params\": {{\"project\": {value}}}}}]"
        )
    };
    for (value, expected) in [
        ("42", "\"42\""),
        ("12345678", "\"12345678\""),
        ("9007199254740991", "\"9007199254740991\""),
        (r#""007""#, r#""007""#),
        (r#""a \"b\" {c}""#, r#""a \"b\" {c}""#),
    ] {
        let config = one(&documents(&rendered(None, &[&account(value)])), "ConfigMap");
        let config = config["data"]["config.toml"].as_str().unwrap();
        let line = format!("params.\"project\" = {expected}");
        assert!(config.lines().any(|it| it == line), "{value}: {config}");
    }
    // Helm reads numbers as floats, which are exact up to here.
    for (value, words) in [("1.5", "got number"), ("9007199254740994", "maximum")] {
        let said = template(None, &[&account(value)]);
        assert!(
            !said.is_content && said.words.contains(words),
            "{value}: {}",
            said.words
        );
    }
}

#[test]
fn shards_are_a_pod_each_and_replicas_a_stateful_set_each() {
    let objects = documents(&rendered(Some("shards"), &[]));
    let kinds = |kind: &str| {
        objects
            .iter()
            .filter(|object| object["kind"] == kind)
            .count()
    };
    assert_eq!((kinds("Deployment"), kinds("StatefulSet")), (0, 2));
    let sets = super::workloads(&objects);
    let service = one(&objects, "Service");
    assert_eq!(service["spec"]["clusterIP"], "None");
    let mut selectors = BTreeSet::new();
    for set in &sets {
        let spec = &set["spec"];
        assert_eq!(spec["replicas"], 3);
        assert_eq!(spec["serviceName"], service["metadata"]["name"]);
        let container = &spec["template"]["spec"]["containers"][0];
        let arguments = container["args"].as_array().unwrap();
        assert!(
            arguments.contains(&"--total-shards=3".into()),
            "{arguments:?}"
        );
        // Each selects its own pods; Service, PodMonitor, NetworkPolicy and budget select all.
        let labels = spec["template"]["metadata"]["labels"].as_object().unwrap();
        let selects = |selector: &Value| {
            let mut selector = selector.as_object().unwrap().iter();
            selector.all(|(name, value)| labels.get(name) == Some(value))
        };
        for other in &sets {
            let is_itself = other["metadata"]["name"] == set["metadata"]["name"];
            assert_eq!(
                selects(&other["spec"]["selector"]["matchLabels"]),
                is_itself
            );
        }
        assert!(selects(&service["spec"]["selector"]));
        for kind in ["PodMonitor", "PodDisruptionBudget"] {
            assert!(
                selects(&one(&objects, kind)["spec"]["selector"]["matchLabels"]),
                "{kind}"
            );
        }
        let policy = one(&objects, "NetworkPolicy");
        assert!(selects(&policy["spec"]["podSelector"]["matchLabels"]));
        selectors.insert(set["metadata"]["name"].to_string());
    }
    assert_eq!(selectors.len(), 2);
    // A name of any length leaves room for what Kubernetes appends to it.
    let name = format!("--set=fullnameOverride={}", "n".repeat(70));
    let objects = documents(&rendered(Some("shards"), &[&name]));
    let length = |object: &Value| object["metadata"]["name"].as_str().unwrap().len();
    assert!(length(&one(&objects, "Service")) <= 63);
    assert!(
        super::workloads(&objects)
            .iter()
            .all(|set| length(set) <= 52)
    );
}

#[test]
fn shards_need_pod_indices_and_a_headless_service() {
    for (arguments, words) in [
        (
            ["--set=shards=2", "--kube-version=1.27.16"],
            "requires Kubernetes 1.28",
        ),
        (
            ["--set=shards=2", "--set=service.type=NodePort"],
            "requires service.type ClusterIP",
        ),
    ] {
        let said = template(None, &arguments);
        assert!(
            !said.is_content && said.words.contains(words),
            "{}",
            said.words
        );
    }
    let one_replica = ["--set=shards=2", "--set=podDisruptionBudget.enabled=true"];
    one(
        &documents(&rendered(None, &one_replica)),
        "PodDisruptionBudget",
    );
    let old = ["--kube-version=1.27.16"];
    assert_eq!(deployment(None, &old)["kind"], "Deployment");
}
