//! What deploy/ renders is a configuration that the program accepts: file, flags and variables,
//! with every volume in place.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{all, documents, one};
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

/// Fills `folder` as the kubelet fills the mount of `volume`.
fn fill(folder: &Path, volume: &Value, objects: &[Value]) {
    fs::create_dir_all(folder).unwrap();
    let write = |name: &str, content: &str| fs::write(folder.join(name), content).unwrap();
    if !volume["secret"].is_null() {
        write("token", TOKEN);
        // A valid web configuration file.
        write("web.yml", "");
    }
    let Some(name) = volume["configMap"]["name"].as_str() else {
        return;
    };
    let ours = objects
        .iter()
        .find(|object| object["kind"] == "ConfigMap" && object["metadata"]["name"] == name);
    // Of somebody else: the inventory and the certificates of the sets of values.
    let Some(ours) = ours else {
        write("keys.toml", "[[keys]]\nmatch = \"*\"\nteam = \"a\"\n");
        write("ca.pem", &authority());
        return;
    };
    for (key, content) in ours["data"].as_object().unwrap() {
        write(key, content.as_str().unwrap());
    }
}

#[test]
fn the_program_accepts_the_rendered_configuration() {
    for (what, yaml) in all() {
        let folder = Folder::new("rendered-config");
        let objects = documents(&yaml);
        let pod = &one(&objects, "Deployment")["spec"]["template"]["spec"];
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
            fill(&ours, volume, &objects);
            tokens += usize::from(path.starts_with("/run/secrets/bitgpt/"));
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

        let mut command = binary(&["config", "check"]);
        for flag in container["args"].as_array().unwrap() {
            let flag = flag.as_str().unwrap();
            command.arg(here(flag));
        }
        for variable in container["env"].as_array().unwrap() {
            let text = |name: &str| variable[name].as_str().unwrap();
            command.env(text("name"), here(text("value")));
        }
        let said = ask(&mut command);
        assert!(said.is_content, "{what}: {}\n{config}", said.words);
        let words = format!("configuration is good: {tokens} account(s)\n");
        assert!(said.words.ends_with(&words), "{what}: {}", said.words);
    }
}
