//! The definitions that come with the program, in the form that a user writes under
//! `[providers.NAME]`. Each file says where its facts come from.

/// A list of names as pairs of a name and the text of its definition.
macro_rules! built_in {
    ($($name:literal,)*) => {
        [$(($name, include_str!(concat!("definitions/", $name, ".toml")))),*]
    };
}

/// Each built-in definition's name and its text, sorted by name.
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
