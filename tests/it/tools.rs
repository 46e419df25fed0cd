//! Outside programs that judge what we ship: where they are, how they are asked, who installs them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::in_repository;

/// Where tests/run puts what no Debian package brings.
const FOLDER: &str = "target/tools";

/// A program of a Debian package, on the PATH.
pub(crate) fn debian(program: &str) -> Command {
    Command::new(program)
}

/// The Prometheus of a Debian release.
pub(crate) fn prometheus(suite: &str) -> Command {
    let folder = in_repository(FOLDER).join("prometheus");
    Command::new(folder.join(suite).join("prometheus"))
}

/// A program of a Python package, in a virtual environment of our own.
pub(crate) fn python(program: &str) -> Command {
    Command::new(in_repository(FOLDER).join("python/bin").join(program))
}

/// helm or kubectl, unpacked from an npm package.
pub(crate) fn kubernetes(program: &str) -> Command {
    let folder = in_repository(FOLDER).join("kubernetes");
    Command::new(folder.join(program).join(program))
}

/// Where npm packages live.
pub(crate) fn npm() -> PathBuf {
    in_repository(FOLDER).join("npm")
}

/// What a program said, and whether it was content.
pub(crate) struct Said {
    pub(crate) is_content: bool,
    pub(crate) stdout: String,
    /// Both outputs, standard output first.
    pub(crate) words: String,
}

/// Runs a program to its end. A missing program fails the test and says what brings it.
pub(crate) fn ask(command: &mut Command) -> Said {
    let program = command.get_program().to_owned();
    let output = command.output().unwrap_or_else(|error| {
        panic!(
            "{} is needed, and tests/run installs it: {error}",
            Path::new(&program).display()
        )
    });
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let stdout = text(&output.stdout);
    Said {
        is_content: output.status.success(),
        words: format!("{stdout}{}", text(&output.stderr)),
        stdout,
    }
}

/// Runs a program, demands that it is content, and returns its standard output.
pub(crate) fn demand(command: &mut Command) -> String {
    let said = ask(command);
    assert!(said.is_content, "{command:?}:\n{}", said.words);
    said.stdout
}
