//! Writes a file that other programs read at any time: they find the old content or the new one,
//! never a part of it.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Everybody may read the file: the programs that do run as other users.
const MODE: u32 = 0o644;

/// Why an output file cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// Something else is there.
    #[error("{0} is {1}, not a regular file")]
    NotAFile(PathBuf, &'static str),
    /// The path names no file.
    #[error("{0} does not name a file")]
    NoName(PathBuf),
    /// The system refuses.
    #[error("cannot write {0}")]
    Unwritable(PathBuf, #[source] io::Error),
}

/// A path that [`write`](Self::write) can replace.
#[derive(Debug)]
pub struct OutputFile {
    path: PathBuf,
    unfinished: PathBuf,
}

impl OutputFile {
    /// Checks what can be checked before there is anything to write.
    pub fn new(path: &Path) -> Result<Self, OutputError> {
        let name = path.file_name();
        let name = name.ok_or_else(|| OutputError::NoName(path.to_owned()))?;
        let refuse = |what| Err(OutputError::NotAFile(path.to_owned(), what));
        // Follows a symbolic link, because one to a device or a pipe is a mistake too.
        match fs::metadata(path).map(|metadata| metadata.file_type()) {
            Ok(kind) if kind.is_dir() => return refuse("a directory"),
            Ok(kind) if kind.is_fifo() => return refuse("a named pipe"),
            Ok(kind) if kind.is_socket() => return refuse("a socket"),
            Ok(kind) if kind.is_char_device() || kind.is_block_device() => {
                return refuse("a device");
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(OutputError::Unwritable(path.to_owned(), error));
            }
            Ok(_) | Err(_) => {}
        }
        // Hidden, and with another ending, so that no collector reads it.
        let mut unfinished = std::ffi::OsString::from(".");
        unfinished.push(name);
        unfinished.push(format!(".{:016x}.tmp", fastrand::u64(..)));
        let file = Self {
            unfinished: path.with_file_name(unfinished),
            path: path.to_owned(),
        };
        // A missing directory, or one without permission, is found now rather than after a minute.
        file.create().map_err(|error| file.failed(error))?;
        file.remove_unfinished();
        Ok(file)
    }

    /// Replaces the content of the file by `content`.
    pub fn write(&self, content: &[u8]) -> Result<(), OutputError> {
        let written = self.create().and_then(|mut file| {
            file.write_all(content)?;
            // Regardless of the umask.
            file.set_permissions(Permissions::from_mode(MODE))?;
            file.sync_all()?;
            fs::rename(&self.unfinished, &self.path)
        });
        written.map_err(|error| {
            self.remove_unfinished();
            self.failed(error)
        })
    }

    /// `create_new` does not follow a symbolic link that another user may have placed.
    fn create(&self) -> io::Result<fs::File> {
        let mut options = OpenOptions::new();
        let options = options.write(true).create_new(true).mode(MODE);
        options.open(&self.unfinished)
    }

    /// If it cannot be removed, the error that led here says more.
    fn remove_unfinished(&self) {
        drop(fs::remove_file(&self.unfinished));
    }

    fn failed(&self, error: io::Error) -> OutputError {
        OutputError::Unwritable(self.path.clone(), error)
    }
}
