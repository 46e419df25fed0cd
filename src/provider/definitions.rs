//! The built-in definitions, in the format that a user writes under `[providers.NAME]`. Each file
//! names the source of its facts.

/// Turns a list of names into pairs of a name and the text of its definition.
macro_rules! built_in {
    ($($name:literal,)*) => {
        [$(($name, include_str!(concat!("definitions/", $name, ".toml")))),*]
    };
}

/// The name and the text of each built-in definition, sorted by name.
pub const BUILT_IN: [(&str, &str); 25] = built_in![
    "cloudflare",
    "cloudflare-user",
    "databricks",
    "elasticsearch",
    "entra-id",
    "entra-id-certificates",
    "fastly",
    "fastly-automation",
    "fastly-customer",
    "github-org",
    "gitlab",
    "gitlab-group",
    "gitlab-project",
    "grafana",
    "harbor",
    "harbor-project",
    "hcp-terraform",
    "jfrog",
    "linode",
    "nomad",
    "okta",
    "pulumi",
    "scaleway",
    "tailscale",
    "upcloud",
];
