//! Which files are read, and how callers share a read that hangs.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use super::*;

/// A temporary directory, removed on drop.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("api-key-exporter-{}-files-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn words(outcome: Result<impl fmt::Debug, FileError>) -> String {
    crate::domain::text::chain(&outcome.unwrap_err())
}

#[test]
fn only_regular_files_of_limited_size_are_read() {
    let folder = Folder::new("kinds");
    let small = folder.file("small", b"12345678");
    let pipe = folder.0.join("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let sparse = folder.0.join("sparse");
    File::create(&sparse).unwrap().set_len(1 << 40).unwrap();
    let link = folder.0.join("link");
    symlink(&small, &link).unwrap();
    let device_link = folder.0.join("device-link");
    symlink("/dev/zero", &device_link).unwrap();
    let around = folder.0.join("around");
    symlink(&around, &around).unwrap();
    assert_eq!(**read(&small, 8).unwrap(), *b"12345678");
    assert_eq!(**read(&link, 8).unwrap(), *b"12345678");
    assert_eq!(**read(&folder.file("empty", b""), 8).unwrap(), *b"");
    let large = "is larger than 7 bytes; is this the right file?";
    for (path, expected) in [
        (&small, large),
        (&sparse, large),
        // The file has no size until it is read.
        (&PathBuf::from("/proc/self/maps"), large),
        (&pipe, "is not a regular file but a pipe"),
        (&folder.0, "is not a regular file but a directory"),
        (
            &PathBuf::from("/dev/zero"),
            "is not a regular file but a device",
        ),
        (&device_link, "is not a regular file but a device"),
        (
            &around,
            "cannot read it: Too many levels of symbolic links (os error 40)",
        ),
        (
            &folder.0.join("none"),
            "cannot read it: No such file or directory (os error 2)",
        ),
    ] {
        assert_eq!(words(read(path, 7)), expected, "{}", path.display());
        let here = read_here(path, 7, Links::Follow);
        assert_eq!(words(here), expected, "{}", path.display());
    }
    let refused = words(read_here(&link, 8, Links::Refuse));
    assert!(
        refused.starts_with("cannot read it: Too many levels"),
        "{refused}"
    );
}

#[test]
fn the_permissions_are_those_of_the_file_and_nothing_shows_the_content() {
    let folder = Folder::new("mode");
    let path = folder.file("secret", b"precious");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let content = read(&path, 100).unwrap();
    assert_eq!(content.mode() & 0o777, 0o640);
    assert_eq!(format!("{content:?}"), "Content(8 bytes)");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_who_want_a_file_share_one_pending_read_of_it() {
    let folder = Folder::new("shared");
    let path = folder.file("file", b"1");
    let (pending, job) = find_or_add(&path, 10);
    let job = job.expect("the first one reads");
    assert!(find_or_add(&path, 10).1.is_none());
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let path = path.clone();
            tokio::spawn(async move { read_async(&path, 10).await })
        })
        .collect();
    let blocked = {
        let path = path.clone();
        thread::spawn(move || read(&path, 10))
    };
    // A caller that stops waiting does not disturb the others.
    let short = timeout(Duration::from_millis(20), read_async(&path, 10)).await;
    assert!(short.is_err());
    assert!(pending.wait(Duration::from_millis(20)).is_none());
    // The read returns the content at the time when it runs.
    folder.file("file", b"2");
    job.run();
    for one in waiting {
        assert_eq!(**one.await.unwrap().unwrap(), *b"2");
    }
    assert_eq!(**blocked.join().unwrap().unwrap(), *b"2");
    folder.file("file", b"3");
    assert_eq!(**read_async(&path, 10).await.unwrap(), *b"3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_reads_that_hang_keep_no_other_one_waiting() {
    let folder = Folder::new("others");
    let healthy = folder.file("healthy", b"1");
    // Reads that hang use up all permits.
    let hanging = POOLED
        .acquire_many(u32::try_from(POOLED_MAX).unwrap())
        .await;
    let paths: Vec<PathBuf> = (0..100).map(|at| folder.0.join(at.to_string())).collect();
    let jobs: Vec<Job> = paths
        .iter()
        .filter_map(|path| find_or_add(path, 1).1)
        .collect();
    assert_eq!(jobs.len(), 100);
    let read = timeout(Duration::from_secs(2), read_async(&healthy, 10)).await;
    assert_eq!(**read.unwrap().unwrap(), *b"1");
    drop(hanging);
    // A caller gets an error if the read is abandoned.
    let waiting = tokio::spawn({
        let path = paths[0].clone();
        async move { read_async(&path, 1).await }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    drop(jobs);
    let expected = "cannot be read: its file system does not respond; check the mount";
    assert_eq!(words(waiting.await.unwrap()), expected);
}

#[test]
fn the_more_files_hang_the_less_is_waited_for_the_next() {
    let folder = Folder::new("patience");
    let jobs: Vec<Job> = (0..40)
        .filter_map(|at| {
            let (pending, job) = find_or_add(&folder.0.join(at.to_string()), 1);
            assert!(pending.wait(Duration::ZERO).is_none());
            job
        })
        .collect();
    assert_eq!(patience(), READ_TIMEOUT_MIN);
    let start = tokio::time::Instant::now();
    let expected = "cannot be read: its file system does not respond; check the mount";
    assert_eq!(words(read(&folder.0.join("0"), 1)), expected);
    assert!(start.elapsed() < Duration::from_secs(2));
    drop(jobs);
}
