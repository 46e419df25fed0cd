//! The manifests and the chart: rendered by kubectl and helm, judged by the schemas of Kubernetes
//! and of the Prometheus operator, and held against the program.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use serde::Deserialize;
use serde_json::Value;

use super::{defaults, port, read};
use crate::process::binary;
use crate::support::{Folder, TOKEN, in_repository};
use crate::tools::{Said, ask, debian, demand, kubernetes, npm, python};

const CHART: &str = "deploy/helm/api-key-exporter";
const RULES: &str = "deploy/prometheus/rules.yml";

/// Every overlay that people start from.
const KUSTOMIZATIONS: [&str; 3] = [
    "base",
    "overlays/prometheus-operator",
    "overlays/several-accounts",
];

/// The chart's sets of values, besides its defaults.
const VALUES: [&str; 2] = ["everything", "rules"];

fn documents(yaml: &str) -> Vec<Value> {
    serde_yaml_ng::Deserializer::from_str(yaml)
        .map(|document| Value::deserialize(document).unwrap())
        .filter(|document| !document.is_null())
        .collect()
}

fn kustomize(path: &str) -> String {
    let mut command = kubernetes("kubectl");
    demand(
        command
            .arg("kustomize")
            .arg(in_repository("deploy/kubernetes").join(path)),
    )
}

fn helm(arguments: &[&str]) -> Said {
    ask(kubernetes("helm")
        .args(arguments)
        .current_dir(in_repository(CHART)))
}

/// The chart with a set of values, and with more on the command line.
fn template(values: Option<&str>, more: &[&str]) -> Said {
    let file = values.map(|name| format!("--values=ci/{name}-values.yaml"));
    let mut arguments = vec!["template", "release", "."];
    arguments.extend(file.as_deref());
    arguments.extend(more);
    helm(&arguments)
}

fn rendered(values: Option<&str>, more: &[&str]) -> String {
    let said = template(values, more);
    assert!(said.is_content, "{values:?} {more:?}: {}", said.words);
    said.stdout
}

/// Everything that deploy/ renders, with where it came from.
fn all() -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = KUSTOMIZATIONS
        .iter()
        .map(|path| ((*path).to_owned(), kustomize(path)))
        .collect();
    let sets = [None].into_iter().chain(VALUES.map(Some));
    all.extend(sets.map(|set| (format!("chart, values {set:?}"), rendered(set, &[]))));
    all
}

/// The object of a kind; panics where there is not exactly one.
fn one(documents: &[Value], kind: &str) -> Value {
    let mut found = documents.iter().filter(|object| object["kind"] == kind);
    let object = found.next().unwrap_or_else(|| panic!("no {kind}"));
    assert!(found.next().is_none(), "two of {kind}");
    object.clone()
}

fn is_operators(object: &Value) -> bool {
    object["apiVersion"]
        .as_str()
        .unwrap()
        .starts_with("monitoring.coreos.com/")
}

/// The operator's types judge `objects`.
fn operator(objects: &[&Value]) -> Said {
    let mut child = debian("node")
        .arg(in_repository("tests/it/deploy/operator.mjs"))
        .arg(npm().join("node_modules/@kubernetes-models/prometheus-operator"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("node is needed, and tests/run installs it: {error}"));
    let list = serde_json::to_vec(objects).unwrap();
    child.stdin.take().unwrap().write_all(&list).unwrap();
    let output = child.wait_with_output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    Said {
        is_content: output.status.success(),
        words: format!("{stdout}{}", String::from_utf8_lossy(&output.stderr)),
        stdout,
    }
}

/// Kubernetes' schemas judge the file, unknown fields included.
fn validate(file: &Path) -> Said {
    ask(python("kubernetes-validate").arg("--strict").arg(file))
}

#[test]
fn every_rendered_object_is_valid() {
    let folder = Folder::new("manifests");
    for (what, yaml) in all() {
        let objects = documents(&yaml);
        let (operators, core): (Vec<&Value>, Vec<&Value>) =
            objects.iter().partition(|object| is_operators(object));
        let core: Vec<String> = core.iter().map(ToString::to_string).collect();
        let said = validate(&folder.file("core.yaml", &core.join("\n---\n")));
        // It only warns of a kind that it does not know.
        let is_known = !said.words.contains("WARN");
        assert!(said.is_content && is_known, "{what}: {}", said.words);
        assert_eq!(
            said.words.matches(" passed for ").count(),
            core.len(),
            "{what}"
        );
        let said = operator(&operators);
        assert!(said.is_content, "{what}: {}", said.words);
        assert_eq!(said.stdout.lines().count(), operators.len(), "{what}");
    }
}

#[test]
fn the_judges_can_say_no() {
    let folder = Folder::new("bad-manifests");
    let base = kustomize("base").replace("containerPort:", "containerport:");
    assert!(!validate(&folder.file("bad.yaml", &base)).is_content);
    let mut monitor = one(
        &documents(&kustomize("overlays/prometheus-operator")),
        "ServiceMonitor",
    );
    assert!(operator(&[&monitor]).is_content);
    monitor["spec"]["endpoints"] = "metrics".into();
    assert!(!operator(&[&monitor]).is_content);
}

#[test]
fn helm_lints_the_chart_with_each_set_of_values() {
    assert!(helm(&["lint", "--strict", "."]).is_content);
    for set in VALUES {
        let said = helm(&[
            "lint",
            "--strict",
            ".",
            "-f",
            &format!("ci/{set}-values.yaml"),
        ]);
        assert!(said.is_content, "{set}: {}", said.words);
    }
}

#[test]
fn bad_values_fail_with_a_clear_message() {
    for (value, words) in [
        ("replica=2", "additional properties 'replica' not allowed"),
        ("accounts=null", "missing property 'accounts'"),
        ("accounts[0].existingSecret=", "minLength"),
        ("accounts[0].name=", "minLength"),
        (
            "accounts[0].token=sk_live_x",
            "additional properties 'token' not allowed",
        ),
        ("accounts[0].expectedEnv=prod", "value must be one of"),
        ("replicas=two", "want integer"),
        ("service.port=0", "minimum"),
        ("service.type=Ingress", "value must be one of"),
        ("image.digest=sha256:1", "does not match pattern"),
        ("serviceMonitor.interval=often", "does not match pattern"),
        (
            "prometheusRule.runbookBaseUrl=wiki",
            "does not match pattern",
        ),
        (
            "prometheusRule.alerts.ApiKeyExpire.enabled=false",
            "'ApiKeyExpire' not allowed",
        ),
        (
            "prometheusRule.alerts.ApiKeyExpired.severity=page",
            "value must be one of",
        ),
        (
            "podDisruptionBudget.enabled=true",
            "requires replicas of at least 2",
        ),
    ] {
        let set = [
            "--set",
            value,
            "--set",
            "accounts[0].name=a,accounts[0].existingSecret=s",
        ];
        // The account's own value comes last, so that it is whole but for what is wrong.
        let set = if value.starts_with("accounts") {
            [set[2], set[3], set[0], set[1]]
        } else {
            set
        };
        let said = template(None, &set);
        assert!(!said.is_content, "{value} renders");
        assert!(said.words.contains(words), "{value}: {}", said.words);
    }
}

#[test]
fn ports_probes_paths_and_limits_are_the_programs() {
    let config = defaults();
    for (what, yaml) in all() {
        let objects = documents(&yaml);
        let pod = &one(&objects, "Deployment")["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let metrics = &container["ports"][0];
        assert_eq!(metrics["containerPort"], port(), "{what}");
        let name = &metrics["name"];
        for (probe, path) in [
            ("livenessProbe", "/-/healthy"),
            ("readinessProbe", "/-/ready"),
        ] {
            assert_eq!(container[probe]["httpGet"]["path"], path, "{what}");
            assert_eq!(&container[probe]["httpGet"]["port"], name, "{what}");
        }
        let listen = format!("--web.listen-address=:{}", port());
        let arguments = container["args"].as_array().unwrap();
        assert!(arguments.contains(&listen.into()), "{what}");
        let service = one(&objects, "Service");
        assert_eq!(&service["spec"]["ports"][0]["targetPort"], name, "{what}");
        if objects
            .iter()
            .any(|object| object["kind"] == "ServiceMonitor")
        {
            let endpoint = one(&objects, "ServiceMonitor")["spec"]["endpoints"][0].clone();
            assert_eq!(endpoint["path"], config.web.telemetry_path, "{what}");
            assert_eq!(endpoint["honorLabels"], true, "{what}");
            assert_eq!(
                endpoint["port"], service["spec"]["ports"][0]["name"],
                "{what}"
            );
        }
        let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
        assert!(grace > config.web.shutdown_grace.as_secs(), "{what}");
        assert_eq!(
            container["resources"]["limits"]["memory"], "256Mi",
            "{what}"
        );
    }
    assert!(read("deploy/systemd/api-key-exporter.service").contains("\nMemoryMax=256M\n"));
    let values = &documents(&read(&format!("{CHART}/values.yaml")))[0];
    assert_eq!(values["service"]["port"], port());
    let chart = &documents(&read(&format!("{CHART}/Chart.yaml")))[0];
    for field in ["version", "appVersion"] {
        assert_eq!(chart[field], env!("CARGO_PKG_VERSION"), "{field}");
    }
    assert!(kustomize("base").contains(concat!(
        "image: api-key-exporter:",
        env!("CARGO_PKG_VERSION")
    )));
}

#[test]
fn pods_are_restricted() {
    for (what, yaml) in all() {
        let pod = &one(&documents(&yaml), "Deployment")["spec"]["template"]["spec"];
        let context = &pod["securityContext"];
        assert_eq!(context["runAsNonRoot"], true, "{what}");
        assert_eq!(context["runAsUser"], 65532, "{what}");
        assert_eq!(
            context["seccompProfile"]["type"], "RuntimeDefault",
            "{what}"
        );
        assert_eq!(pod["automountServiceAccountToken"], false, "{what}");
        let context = &pod["containers"][0]["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], false, "{what}");
        assert_eq!(context["privileged"], false, "{what}");
        assert_eq!(context["readOnlyRootFilesystem"], true, "{what}");
        assert_eq!(context["capabilities"]["drop"][0], "ALL", "{what}");
        for mount in pod["containers"][0]["volumeMounts"].as_array().unwrap() {
            assert!(
                mount["subPath"].is_null(),
                "{what}: a rotated key would not arrive"
            );
        }
    }
}

#[test]
fn the_program_accepts_the_rendered_configuration() {
    let folder = Folder::new("rendered-config");
    for (what, yaml) in all() {
        let objects = documents(&yaml);
        let is_config = |object: &&Value| object["data"]["config.toml"].is_string();
        let map = objects.iter().find(is_config).unwrap();
        let mut config = map["data"]["config.toml"].as_str().unwrap().to_owned();
        let pod = &one(&objects, "Deployment")["spec"]["template"]["spec"];
        let mut tokens = 0;
        for mount in pod["containers"][0]["volumeMounts"].as_array().unwrap() {
            let path = mount["mountPath"].as_str().unwrap();
            if path.starts_with("/run/secrets/") {
                let ours = folder.0.join(path.trim_start_matches('/'));
                fs::create_dir_all(&ours).unwrap();
                fs::write(ours.join("token"), TOKEN).unwrap();
                let ours = ours.display().to_string();
                assert!(config.contains(&format!("\"{path}/")), "{what}: {path}");
                config = config.replace(&format!("\"{path}/"), &format!("\"{ours}/"));
                tokens += 1;
            }
        }
        let file = folder.file("config.toml", &config).display().to_string();
        let said = ask(&mut binary(&["config", "check", "--config.file", &file]));
        assert!(said.is_content, "{what}: {}\n{config}", said.words);
        let words = format!("configuration is good: {tokens} account(s)\n");
        assert!(said.words.ends_with(&words), "{what}: {}", said.words);
    }
}

#[test]
fn the_charts_rules_and_the_operators_rules_are_the_plain_rules() {
    let plain = read(RULES);
    let groups = &documents(&plain)[0]["groups"];
    let (_, body) = plain.split_once("\ngroups:\n").unwrap();
    let indented: Vec<String> = body.lines().map(|line| format!("  {line}")).collect();
    let indented = indented.join("\n");
    let rule = format!(
        "# Written from {RULES} by UPDATE_GOLDEN=1 cargo test. Change that file.\n\
         apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n\
         \x20 name: api-key-exporter\n  labels:\n\
         \x20   app.kubernetes.io/name: api-key-exporter\nspec:\n  groups:\n{indented}\n"
    );
    let component = "deploy/kubernetes/components/prometheus-rule/prometheusrule.yaml";
    let copies = [
        (component, rule),
        (
            "deploy/helm/api-key-exporter/files/rules.yml",
            plain.clone(),
        ),
    ];
    for (path, expected) in copies {
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(in_repository(path), &expected).unwrap();
        }
        assert!(
            read(path) == expected,
            "{path} differs; rerun with UPDATE_GOLDEN=1"
        );
    }
    for yaml in [
        kustomize("overlays/prometheus-operator"),
        rendered(Some("rules"), &[]),
    ] {
        let rendered = &one(&documents(&yaml), "PrometheusRule")["spec"]["groups"];
        assert_eq!(rendered, groups);
    }
}

#[test]
fn each_alert_can_be_changed_on_its_own() {
    let objects = documents(&rendered(Some("everything"), &[]));
    let groups = one(&objects, "PrometheusRule")["spec"]["groups"].clone();
    let rules: Vec<Value> = groups
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap().clone())
        .collect();
    let find = |alert: &str| rules.iter().find(|rule| rule["alert"] == alert);
    assert_eq!(find("ApiKeyPolicyBroken"), None);
    let soon = find("ApiKeyExpiringSoon").unwrap();
    assert_eq!(
        (&soon["for"], &soon["keep_firing_for"]),
        (&"1h".into(), &"30m".into())
    );
    let labels = serde_json::json!({ "severity": "info", "stage": "live", "channel": "quiet" });
    assert_eq!(soon["labels"], labels);
    let expired = find("ApiKeyExpired").unwrap();
    assert_eq!(
        expired["labels"],
        serde_json::json!({ "severity": "critical", "stage": "live" })
    );
    let runbook = "https://wiki.example.com/runbooks/ApiKeyExpired.md";
    assert_eq!(expired["annotations"]["runbook_url"], runbook);
    // One fewer than there are, and Prometheus still accepts them.
    let alerts = rules
        .iter()
        .filter(|rule| rule["alert"].is_string())
        .count();
    assert_eq!(alerts + 1, crate::rules::alerts().len());
    let folder = Folder::new("overridden-rules");
    let file = folder.file(
        "rules.yml",
        &serde_json::json!({ "groups": groups }).to_string(),
    );
    demand(debian("promtool").args(["check", "rules"]).arg(file));
}

#[test]
fn every_value_is_in_the_schema_with_a_comment_nearby() {
    let schema: Value =
        serde_json::from_str(&read(&format!("{CHART}/values.schema.json"))).unwrap();
    let values = &documents(&read(&format!("{CHART}/values.yaml")))[0];
    let known = schema["properties"].as_object().unwrap();
    for name in known.keys().filter(|name| *name != "global") {
        assert!(!values[name].is_null(), "values.yaml does not show {name}");
    }
    let alerts = &schema["properties"]["prometheusRule"]["properties"]["alerts"]["properties"];
    let listed: Vec<&String> = alerts.as_object().unwrap().keys().collect();
    let mut expected: Vec<String> = crate::rules::alerts()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    expected.sort();
    // An alert of two severities has two rules.
    expected.dedup();
    assert_eq!(listed, expected.iter().collect::<Vec<_>>());
}
