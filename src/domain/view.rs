//! The operator's settings for the view of states: how keys are assessed, and which metric families
//! are exposed.

use std::sync::Arc;

use crate::domain::assessment::AssessmentRules;

/// Everything that a view depends on besides the states and the time.
#[derive(Clone, Debug, PartialEq)]
pub struct ViewSettings {
    /// How keys are assessed.
    pub rules: Arc<AssessmentRules>,
    /// What is exposed.
    pub metrics: Metrics,
}

/// `[metrics]` of the configuration: what is exposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Whether `api_key_expires_in_seconds` is exposed.
    pub relative: bool,
    /// Whether `api_key_scope_info` is exposed.
    pub scope_info: bool,
    /// Most scopes per key in `api_key_scope_info`.
    pub max_scopes_per_key: usize,
    /// Largest text of one account, in bytes, before families are left out.
    pub max_bytes_per_account: usize,
}
