//! The manifests and the chart: rendered by kubectl and helm, judged by the schemas of Kubernetes
//! and of the Prometheus operator, and held against the program.

mod chart;
mod config_check;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use api_key_exporter::config::Config;
use serde::Deserialize;
use serde_json::Value;

use super::{defaults, port, read};
use crate::support::{Folder, in_repository};
use crate::tools::{Said, ask, debian, demand, kubernetes, npm, python};

const CHART: &str = "deploy/helm/api-key-exporter";
const RULES: &str = "deploy/prometheus/rules.yml";

/// Every overlay that people start from.
const KUSTOMIZATIONS: [&str; 7] = [
    "base",
    "overlays/openshift",
    "overlays/prometheus-operator",
    "overlays/several-accounts",
    "overlays/shards",
    "overlays/victoria-metrics",
    "overlays/web-config",
];

/// The chart's sets of values, besides its defaults.
const VALUES: [&str; 7] = [
    "everything",
    "rules",
    "openshift",
    "connections",
    "web",
    "reload",
    "shards",
];

pub(super) fn documents(yaml: &str) -> Vec<Value> {
    serde_yaml_ng::Deserializer::from_str(yaml)
        .map(|document| Value::deserialize(document).unwrap())
        .filter(|document| !document.is_null())
        .collect()
}

pub(super) fn kustomize(path: &str) -> String {
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

pub(super) fn rendered(values: Option<&str>, more: &[&str]) -> String {
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

/// The Deployment, or the `StatefulSet`s of shards.
fn workloads(documents: &[Value]) -> Vec<Value> {
    let is_workload =
        |object: &&Value| ["Deployment", "StatefulSet"].contains(&object["kind"].as_str().unwrap());
    let workloads: Vec<Value> = documents.iter().filter(is_workload).cloned().collect();
    assert!(!workloads.is_empty());
    workloads
}

/// The specification of the pods, which is the same in every workload.
fn pod(documents: &[Value]) -> Value {
    let pod = |workload: &Value| workload["spec"]["template"]["spec"].clone();
    let mut pods: Vec<Value> = workloads(documents).iter().map(pod).collect();
    pods.dedup();
    assert_eq!(pods.len(), 1);
    pods.remove(0)
}

fn is_operators(object: &Value) -> bool {
    object["apiVersion"]
        .as_str()
        .unwrap()
        .starts_with("monitoring.coreos.com/")
}

/// A `VMServiceScrape` as a `ServiceMonitor`, which it equals but for two names. There is no
/// package with the types of the `VictoriaMetrics` operator.
fn as_service_monitor(mut object: Value) -> Value {
    if object["kind"] == "VMServiceScrape" {
        assert_eq!(object["apiVersion"], "operator.victoriametrics.com/v1beta1");
        object["apiVersion"] = "monitoring.coreos.com/v1".into();
        object["kind"] = "ServiceMonitor".into();
        for endpoint in object["spec"]["endpoints"].as_array_mut().unwrap() {
            let endpoint = endpoint.as_object_mut().unwrap();
            for (name, new) in [
                ("relabelConfigs", "relabelings"),
                ("metricRelabelConfigs", "metricRelabelings"),
            ] {
                let moved = endpoint.remove(name);
                endpoint.extend(moved.map(|value| (new.to_owned(), value)));
            }
        }
    }
    object
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
    // Each object once, because the validators are slow.
    let objects: BTreeSet<String> = all()
        .iter()
        .flat_map(|(_, yaml)| documents(yaml))
        .map(|object| as_service_monitor(object).to_string())
        .collect();
    let objects: Vec<Value> = objects
        .iter()
        .map(|text| serde_json::from_str(text).unwrap())
        .collect();
    let (operators, core): (Vec<&Value>, Vec<&Value>) =
        objects.iter().partition(|object| is_operators(object));
    let counts = (core.len(), operators.len());
    assert!(counts.0 > 20 && counts.1 > 5, "{counts:?}");
    let folder = Folder::new("manifests");
    let core: Vec<String> = core.iter().map(ToString::to_string).collect();
    let said = validate(&folder.file("core.yaml", &core.join("\n---\n")));
    // It only warns of a kind that it does not know.
    let is_known = !said.words.contains("WARN");
    assert!(said.is_content && is_known, "{}", said.words);
    assert_eq!(said.words.matches(" passed for ").count(), core.len());
    let said = operator(&operators);
    assert!(said.is_content, "{}", said.words);
    assert_eq!(said.stdout.lines().count(), operators.len());
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
        ("shards=0", "minimum"),
        ("shards=1001", "maximum"),
        ("shards=two", "want integer"),
        ("listenAddress=:70000", "from 1 to 65535"),
        ("listenAddress=:0", "from 1 to 65535"),
        ("listenAddress=127.0.0.1:10120", "loopback"),
        ("telemetryPath=/-/healthy", "which are taken"),
        ("extraArgs={--web.route-prefix=/x}", "set externalUrl"),
        (
            "extraEnv[0].name=API_KEY_EXPORTER__WEB__ROUTE_PREFIX",
            "set externalUrl",
        ),
        ("config=web.route_prefix = \"/x\"", "set externalUrl"),
        (
            "accounts[0].baseUrl=http://api.example.com",
            "must use https",
        ),
        (
            "accounts[0].baseUrl=https://a:b@api.example.com",
            "credentials",
        ),
        (
            "accounts[1].name=a,accounts[1].existingSecret=t",
            "two are named a",
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

/// What one account with the largest listing takes: the process itself, a response, the old and the
/// new listing at twice the size of a response, and the old and the new text, each with its
/// compressed form, which is a tenth of it.
fn memory_needed(config: &Config) -> u64 {
    let response = config.poll.max_body_bytes as u64;
    let text = config.metrics.max_bytes_per_account as u64;
    (16 << 20) + response + 2 * 2 * response + 2 * (text + text / 10)
}

#[test]
fn ports_probes_paths_and_limits_are_the_programs() {
    let config = defaults();
    for (what, yaml) in all() {
        let objects = documents(&yaml);
        let pod = pod(&objects);
        let container = &pod["containers"][0];
        let ports = container["ports"].as_array().unwrap();
        let port_named = |name| ports.iter().find(|port| port["name"] == name);
        let name = &Value::from("metrics");
        assert_eq!(
            port_named("metrics").unwrap()["containerPort"],
            port(),
            "{what}"
        );
        let value = |flag: &str| arguments_start(container, flag);
        // With authentication, the probes have a listener of their own.
        let probes = value("--web.probe-listen-address=:").map(|port| {
            let probes = port_named("probes").unwrap();
            assert_eq!(probes["containerPort"].to_string(), port, "{what}");
            &probes["name"]
        });
        assert_eq!(
            probes.is_some(),
            value("--web.config.file=").is_some(),
            "{what}"
        );
        for (probe, path) in [
            ("livenessProbe", "/-/healthy"),
            ("readinessProbe", "/-/ready"),
        ] {
            let request = &container[probe]["httpGet"];
            assert_eq!(request["path"], path, "{what}");
            assert_eq!(&request["port"], probes.unwrap_or(name), "{what}");
        }
        let listen = value("--web.listen-address=").unwrap();
        let host = listen.strip_suffix(&format!(":{}", port()));
        assert!(
            host.is_some_and(|host| ["", "[::]"].contains(&host)),
            "{what}"
        );
        let service = one(&objects, "Service");
        assert_eq!(&service["spec"]["ports"][0]["targetPort"], name, "{what}");
        let path = value("--web.telemetry-path=").unwrap_or(&config.web.paths.telemetry);
        for object in &objects {
            let (endpoint, scraped) = match object["kind"].as_str().unwrap() {
                "ServiceMonitor" | "VMServiceScrape" => (
                    &object["spec"]["endpoints"][0],
                    &service["spec"]["ports"][0]["name"],
                ),
                "PodMonitor" => (&object["spec"]["podMetricsEndpoints"][0], name),
                _ => continue,
            };
            assert_eq!(endpoint["path"], path, "{what}");
            assert_eq!(&endpoint["port"], scraped, "{what}");
            assert_eq!(endpoint["honorLabels"], true, "{what}");
        }
        let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
        assert!(grace > config.web.shutdown_grace.as_secs(), "{what}");
        let limit = container["resources"]["limits"]["memory"].as_str().unwrap();
        let limit: u64 = limit.strip_suffix("Mi").unwrap().parse().unwrap();
        assert!(limit << 20 >= memory_needed(&config), "{what}: {limit}");
    }
    let unit = read("deploy/systemd/api-key-exporter.service");
    let (_, limit) = unit.split_once("\nMemoryMax=").unwrap();
    let (limit, _) = limit.split_once("M\n").unwrap();
    let limit: u64 = limit.parse().unwrap();
    assert!(limit << 20 >= memory_needed(&config), "unit: {limit}");
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

/// What stands behind `start` in the arguments of a container.
fn arguments_start<'a>(container: &'a Value, start: &str) -> Option<&'a str> {
    let arguments = container["args"].as_array().unwrap().iter();
    let mut texts = arguments.filter_map(Value::as_str);
    texts.find_map(|text| text.strip_prefix(start))
}

#[test]
fn a_web_configuration_file_is_mounted_and_probed_at_its_own_port() {
    let mut found = 0;
    for (what, yaml) in all() {
        let objects = documents(&yaml);
        let pod = pod(&objects);
        let container = &pod["containers"][0];
        let Some(file) = arguments_start(container, "--web.config.file=") else {
            continue;
        };
        found += 1;
        let (folder, _) = file.rsplit_once('/').unwrap();
        let mounts = container["volumeMounts"].as_array().unwrap();
        let mount = mounts
            .iter()
            .find(|mount| mount["mountPath"] == folder)
            .unwrap();
        let volumes = pod["volumes"].as_array().unwrap();
        let volume = volumes
            .iter()
            .find(|volume| volume["name"] == mount["name"])
            .unwrap();
        assert!(
            volume["secret"]["secretName"].is_string(),
            "{what}: {volume}"
        );
        let probes = &container["ports"][1];
        assert_eq!(probes["name"], "probes", "{what}");
        let listen = arguments_start(container, "--web.probe-listen-address=:");
        assert_eq!(
            listen.unwrap(),
            probes["containerPort"].to_string(),
            "{what}"
        );
        // Prometheus comes over TLS, and nobody reaches the probes through the service.
        let endpoint = &one(&objects, "ServiceMonitor")["spec"]["endpoints"][0];
        assert_eq!(endpoint["scheme"], "https", "{what}");
        assert!(endpoint["tlsConfig"]["ca"].is_object(), "{what}");
        let ports = one(&objects, "Service")["spec"]["ports"].clone();
        assert_eq!(ports.as_array().unwrap().len(), 1, "{what}");
    }
    assert_eq!(found, 2);
}

#[test]
fn pods_are_restricted() {
    for (what, yaml) in all() {
        let pod = pod(&documents(&yaml));
        let context = &pod["securityContext"];
        assert_eq!(context["runAsNonRoot"], true, "{what}");
        // OpenShift assigns the user and the groups.
        let is_assigned = what.contains("openshift");
        for id in ["runAsUser", "runAsGroup", "fsGroup"] {
            let expected = if is_assigned {
                Value::Null
            } else {
                65532.into()
            };
            assert_eq!(context[id], expected, "{what}");
        }
        assert_eq!(
            context["seccompProfile"]["type"], "RuntimeDefault",
            "{what}"
        );
        assert_eq!(pod["automountServiceAccountToken"], false, "{what}");
        for container in pod["containers"].as_array().unwrap() {
            let context = &container["securityContext"];
            assert_eq!(context["allowPrivilegeEscalation"], false, "{what}");
            assert_eq!(context["privileged"], false, "{what}");
            assert_eq!(context["readOnlyRootFilesystem"], true, "{what}");
            assert_eq!(context["capabilities"]["drop"][0], "ALL", "{what}");
        }
        for mount in pod["containers"][0]["volumeMounts"].as_array().unwrap() {
            assert!(
                mount["subPath"].is_null(),
                "{what}: a rotated key would not arrive"
            );
        }
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

#[test]
fn a_null_is_unset_or_refused_by_name() {
    let schema: Value =
        serde_json::from_str(&read(&format!("{CHART}/values.schema.json"))).unwrap();
    let required = |object: &Value| -> Vec<String> {
        let names = object["required"].as_array().into_iter().flatten();
        names
            .map(|name| name.as_str().unwrap().to_owned())
            .collect()
    };
    let mut values = required(&schema);
    for section in [
        "image",
        "inventory",
        "service",
        "podDisruptionBudget",
        "webConfig",
    ] {
        let names = required(&schema["properties"][section]);
        values.extend(names.iter().map(|name| format!("{section}.{name}")));
    }
    let names = required(&schema["definitions"]["scrape"]);
    values.extend(names.iter().map(|name| format!("serviceMonitor.{name}")));
    for value in [
        "shards",
        "serviceAccount",
        "inventory.key",
        "serviceMonitor.interval",
    ] {
        assert!(
            values.iter().any(|it| it == value),
            "{value} is not required"
        );
    }
    for value in values {
        let said = template(None, &["--set", &format!("{value}=null")]);
        let name = value.rsplit('.').next().unwrap();
        let words = format!("missing property '{name}'");
        assert!(
            !said.is_content && said.words.contains(&words),
            "{value}: {}",
            said.words
        );
    }
    for value in [
        "accounts[0].name=a,accounts[0].existingSecret=s,accounts[0].interval=null",
        "prometheusRule.alerts=null",
        "prometheusRule.alertLabels=null",
        "prometheusRule.alerts.ApiKeyExpired=null",
    ] {
        rendered(
            None,
            &["--set", value, "--set", "prometheusRule.enabled=true"],
        );
    }
}

#[test]
fn probes_and_scrapes_follow_the_route_prefix() {
    for (value, prefix) in [
        ("routePrefix=/x", "/x"),
        ("externalUrl=https://example.com/y/", "/y"),
        ("externalUrl=https://example.com/y,routePrefix=/", ""),
    ] {
        let more = ["--set", value, "--set", "configReloader.enabled=true"];
        let objects = documents(&rendered(None, &more));
        let container = &pod(&objects)["containers"][0];
        let path = &container["livenessProbe"]["httpGet"]["path"];
        assert_eq!(path, &format!("{prefix}/-/healthy"), "{value}");
        let path = &container["readinessProbe"]["httpGet"]["path"];
        assert_eq!(path, &format!("{prefix}/-/ready"), "{value}");
        let scrapes = [
            ("serviceMonitor", "ServiceMonitor", "endpoints"),
            ("podMonitor", "PodMonitor", "podMetricsEndpoints"),
            ("vmServiceScrape", "VMServiceScrape", "endpoints"),
        ];
        for (section, kind, endpoints) in scrapes {
            let enabled = format!("{section}.enabled=true");
            let objects = documents(&rendered(None, &["--set", value, "--set", &enabled]));
            let endpoint = &one(&objects, kind)["spec"][endpoints][0];
            assert_eq!(
                endpoint["path"],
                format!("{prefix}/metrics"),
                "{value} {kind}"
            );
        }
        let reload = format!("--reload-url=http://127.0.0.1:{}{prefix}/-/reload", port());
        let sidecar = pod(&objects)["containers"][1]["args"].clone();
        let arguments = sidecar.as_array().unwrap();
        assert!(arguments.contains(&reload.into()), "{value}: {arguments:?}");
    }
}

/// Bad values, words of the refusal, and good values next to them.
const NEIGHBOURS: &[(&str, &str, &str)] = &[
    (
        "accounts[0].interval=1s",
        "5s to 24h",
        "accounts[0].interval=5s",
    ),
    (
        "accounts[0].interval=25h",
        "5s to 24h",
        "accounts[0].interval=23h 60m",
    ),
    (
        "accounts[0].interval=4 secs",
        "5s to 24h",
        "accounts[0].interval=1 hr 5 mins",
    ),
    (
        "accounts[0].baseUrl=http://LOCALHOST.example.com",
        "must use https",
        "accounts[0].baseUrl=http://LOCALHOST:8080",
    ),
    (
        "telemetryPath=/api/v1/keys",
        "which are taken",
        "telemetryPath=/apikeys/metrics",
    ),
    (
        "telemetryPath=/calendar.ics",
        "which are taken",
        "telemetryPath=/calendar.ics.txt",
    ),
    (
        "telemetryPath=/a?b",
        "does not match pattern",
        "telemetryPath=/-x/~b",
    ),
    (
        "config=[web]\n  'route_prefix' = \"/x\"",
        "set externalUrl",
        "config=[web]\n# route_prefix = \"/x\"",
    ),
    (
        "config=web = { a = \"#\"\\, external_url = \"/x\" }",
        "set externalUrl",
        "config=web = { enable_lifecycle = true }",
    ),
    (
        "config=\"web\" . route_prefix=\"/x\"",
        "set externalUrl",
        "config=[[keys]]\nmatch = \"a\"\nteam = \"see route_prefix = /x\"",
    ),
    (
        "accounts[0].baseUrl=http://10.0.0.1",
        "must use https",
        "accounts[0].baseUrl=http://127.0.0.1:8080",
    ),
    (
        "webConfig.existingSecret=w,webConfig.probeListenAddress=:10120",
        "another port",
        "webConfig.existingSecret=w,webConfig.probeListenAddress=:10122",
    ),
    (
        "podLabels.app\\.kubernetes\\.io/name=x",
        "which selects the pods",
        "podLabels.app\\.kubernetes\\.io/part-of=x",
    ),
    (
        "extraVolumes[0].name=config",
        "already has a volume config",
        "extraVolumes[0].name=configs",
    ),
    (
        "fullnameOverride=My_App",
        "does not match pattern",
        "fullnameOverride=my-app",
    ),
    (
        "resources.limit.cpu=1",
        "'limit' not allowed",
        "resources.limits.cpu=1",
    ),
    (
        "podSecurityContext.runAsUser=root",
        "integer",
        "podSecurityContext.runAsUser=1000",
    ),
    (
        "accounts[0].existingSecret=S_x",
        "does not match pattern",
        "accounts[0].existingSecret=s.x",
    ),
    (
        "serviceMonitor.enabled=true,serviceMonitor.interval=5s",
        "must not exceed interval",
        "serviceMonitor.enabled=true,serviceMonitor.interval=10s",
    ),
];

#[test]
fn values_that_fail_in_the_cluster_are_refused_and_their_neighbours_render() {
    for (bad, words, good) in NEIGHBOURS {
        let account = "accounts[0].name=a,accounts[0].existingSecret=s";
        let said = template(None, &["--set", account, "--set", bad]);
        assert!(!said.is_content, "{bad} renders");
        assert!(said.words.contains(words), "{bad}: {}", said.words);
        rendered(None, &["--set", account, "--set", good]);
    }
}
