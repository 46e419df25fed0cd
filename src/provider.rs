//! The APIs that keys are listed from.

pub mod bitgpt;
pub mod time_format;
