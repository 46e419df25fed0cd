//! What deploy/ renders is a configuration that the program accepts: file, flags and variables,
//! with every volume in place, for each shard.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{all, documents, pod, workloads};
use crate::process::binary;
use crate::support::{Folder, TOKEN};
use crate::tools::ask;

/// A self-signed certificate authority.
fn authority() -> String {
    rcgen::generate_simple_self_signed(["ca".to_owned()])
        .unwrap()
        .cert
        .pem()
}

/// Fills `folder` as the kubelet fills the mount of `volume`; returns how many tokens it has.
fn fill(folder: &Path, volume: &Value, objects: &[Value]) -> usize {
    fs::create_dir_all(folder).unwrap();
    let write = |name: &str, content: &str| {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    if !volume["secret"].is_null() {
        // A token, or a valid web configuration file.
        write("token", TOKEN);
        write("web.yml", "");
        return usize::from(volume["name"].as_str().unwrap().starts_with("token-"));
    }
    if let Some(sources) = volume["projected"]["sources"].as_array() {
        for source in sources {
            write(
                source["secret"]["items"][0]["path"].as_str().unwrap(),
                TOKEN,
            );
        }
        return sources.len();
    }
    let Some(name) = volume["configMap"]["name"].as_str() else {
        return 0;
    };
    let ours = objects
        .iter()
        .find(|object| object["kind"] == "ConfigMap" && object["metadata"]["name"] == name);
    // Of somebody else: the inventory and the certificates of the sets of values.
    let Some(ours) = ours else {
        write("keys.toml", "[[keys]]\nmatch = \"*\"\nteam = \"a\"\n");
        write("ca.pem", &authority());
        return 0;
    };
    for (key, content) in ours["data"].as_object().unwrap() {
        write(key, content.as_str().unwrap());
    }
    0
}

/// What the program says of how many accounts are polled, as a number.
fn polled(words: &str) -> usize {
    let (_, count) = words.rsplit_once("configuration is good: ").unwrap();
    count.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn the_program_accepts_the_rendered_configuration() {
    for (what, yaml) in all() {
        let folder = Folder::new("rendered-config");
        let objects = documents(&yaml);
        let pod = pod(&objects);
        let container = &pod["containers"][0];
        let mut paths = Vec::new();
        let mut tokens = 0;
        for mount in container["volumeMounts"].as_array().unwrap() {
            let path = mount["mountPath"].as_str().unwrap();
            let ours = folder.0.join(path.trim_start_matches('/'));
            let volumes = pod["volumes"].as_array().unwrap();
            let volume = volumes
                .iter()
                .find(|volume| volume["name"] == mount["name"])
                .unwrap_or_else(|| panic!("{what}: no volume for {path}"));
            tokens += fill(&ours, volume, &objects);
            paths.push((format!("{path}/"), format!("{}/", ours.display())));
        }
        // Paths of the container as paths below the folder, longest first: one may start another.
        paths.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        let here = |text: &str| {
            let found = paths.iter().find(|(path, _)| text.contains(path.as_str()));
            found.map_or_else(
                || text.to_owned(),
                |(path, ours)| text.replacen(path.as_str(), ours, 1),
            )
        };
        let file = folder.0.join("etc/api-key-exporter/config.toml");
        let config = fs::read_to_string(&file).unwrap();
        let lines: Vec<String> = config.lines().map(here).collect();
        fs::write(&file, lines.join("\n")).unwrap();

        let workload = &workloads(&objects)[0];
        let is_sharded = workload["kind"] == "StatefulSet";
        let shards = if is_sharded {
            workload["spec"]["replicas"].as_u64().unwrap()
        } else {
            1
        };
        let mut accounts = 0;
        for index in 0..shards {
            let mut command = binary(&["config", "check"]);
            for flag in container["args"].as_array().unwrap() {
                command.arg(here(flag.as_str().unwrap()));
            }
            for variable in container["env"].as_array().unwrap() {
                let name = variable["name"].as_str().unwrap();
                let label = &variable["valueFrom"]["fieldRef"]["fieldPath"];
                if label == "metadata.labels['apps.kubernetes.io/pod-index']" {
                    command.env(name, index.to_string());
                } else {
                    command.env(name, here(variable["value"].as_str().unwrap()));
                }
            }
            let said = ask(&mut command);
            assert!(said.is_content, "{what}: {}\n{config}", said.words);
            if is_sharded {
                let words = format!(" of {tokens} accounts in shard {index} of {shards}");
                assert!(said.words.contains(&words), "{what}: {}", said.words);
            }
            accounts += polled(&said.words);
        }
        assert_eq!((accounts, tokens > 0), (tokens, true), "{what}");
    }
}
