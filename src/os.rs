//! The process and the machine: clock, memory, limits, threads, and the service manager.

pub mod allocator;
pub mod clock;
pub mod files;
pub mod output_file;
pub(crate) mod process_metrics;
pub mod rlimits;
pub mod signals;
pub mod socket_activation;
pub mod systemd;
pub mod terminal;
pub mod threads;
