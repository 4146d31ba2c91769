//! Files that appear whole or not at all, and a page cache that is not believed.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::error::EngineError;

/// Makes the file at `path` under another name with `make`, syncs it, and only then gives it its name.
///
/// Created in place, a crash can leave a file that the engine refuses for ever. Answers `false`, and makes nothing,
/// where the file exists. What an earlier attempt left behind is removed. Makers in one folder take turns.
pub(super) fn publish(path: &Path, make: impl FnOnce(File) -> Result<(), EngineError>) -> Result<bool, EngineError> {
    let folder = Folder::lock(path)?;
    if path.try_exists()? {
        return Ok(false);
    }
    let draft = draft_of(path);
    remove_if_there(&draft)?;
    let published = create_private(&draft)
        .map_err(EngineError::from)
        .and_then(make)
        .and_then(|()| Ok(File::open(&draft)?.sync_all()?))
        .and_then(|()| Ok(fs::rename(&draft, path)?))
        .and_then(|()| Ok(folder.sync()?));
    if published.is_err() {
        // The first error is the one worth telling; a draft that stays is removed by the next attempt.
        let _ = remove_if_there(&draft);
    }
    published.map(|()| true)
}

/// Forgets what the system keeps in memory of the file, so that reading it again reads the device.
///
/// After a failed sync the system may hold pages marked clean that never reached the device. What is still marked
/// dirty is written first: it could not be forgotten.
pub(super) fn drop_page_cache(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    file.sync_all()?;
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    Ok(())
}

/// How many bytes the file system of a file has left for whoever is no superuser; `None` where it does not say.
pub(super) fn free_bytes(path: &Path) -> Option<u64> {
    #[cfg(unix)]
    let free = rustix::fs::statvfs(path).ok().map(|found| found.f_bavail.saturating_mul(found.f_frsize));
    #[cfg(not(unix))]
    let free = None;
    free
}

fn draft_of(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".tmp");
    name.into()
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Creates a file that only its owner may read and write.
fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// The folder of a file, locked against other makers until dropped.
struct Folder {
    #[cfg(unix)]
    handle: File,
}

#[cfg(unix)]
impl Folder {
    fn lock(path: &Path) -> io::Result<Self> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let handle = File::open(parent.unwrap_or(Path::new(".")))?;
        match handle.lock() {
            // A file system without locks has no second maker that could be held off.
            Err(error) if error.kind() != io::ErrorKind::Unsupported => Err(error),
            _ => Ok(Self { handle }),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

#[cfg(not(unix))]
impl Folder {
    fn lock(_path: &Path) -> io::Result<Self> {
        Ok(Self {})
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        fs::write(draft_of(&path), "left behind").unwrap();

        let failed = publish(&path, |mut file| {
            file.write_all(b"half")?;
            assert!(!path.exists());
            Err(EngineError::corrupt("half done"))
        });
        assert!(failed.unwrap_err().is_corruption());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);

        assert!(publish(&path, |mut file| Ok(file.write_all(b"whole")?)).unwrap());
        assert!(!publish(&path, |_| panic!("the file exists")).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_new_file_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        publish(&path, |_| Ok(())).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn one_of_many_makers_wins() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let made: usize = std::thread::scope(|scope| {
            let makers: Vec<_> =
                (0..8).map(|_| scope.spawn(|| publish(&path, |mut file| Ok(file.write_all(b"whole")?)))).collect();
            makers.into_iter().map(|maker| usize::from(maker.join().unwrap().unwrap())).sum()
        });
        assert_eq!(made, 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_file_system_says_what_it_has_left() {
        let folder = tempfile::tempdir().unwrap();
        assert!(free_bytes(folder.path()).is_some_and(|free| free > 0));
        assert_eq!(free_bytes(&folder.path().join("nowhere")), None);
    }

    #[test]
    fn dropping_the_cache_keeps_the_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        fs::write(&path, "content").unwrap();
        drop_page_cache(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"content");
    }
}
