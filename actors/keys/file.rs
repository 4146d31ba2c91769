//! The key file: its text, and how it reaches the disk whole or not at all.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::{KeyError, Keyring, MAX_KEYS, MasterKey};

const HEADER: &str = "majordomo-keys 1";
const NOTE: &str = "# Newest first. Without this file the database cannot be opened: keep it, apart from its backups.";
const KEY_PREFIX: &str = "mdk_";
/// Longer than any line that is written here.
const LINE_BYTES: usize = 128;
const MAX_BYTES: usize = (MAX_KEYS + 2) * LINE_BYTES;

/// Reads the file. [`KeyError::Missing`] if it is not there.
pub(super) fn read(path: &Path) -> Result<Keyring, KeyError> {
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => KeyError::Missing { path: path.to_owned() },
        _ => io_error(path, error),
    })?;
    refuse_wide_permissions(path, &file)?;
    // The room for the longest file is taken at once: growing would leave copies behind that nobody wipes.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES + 1));
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(|error| io_error(path, error))?;
    parse(&bytes).map_err(|line| KeyError::Malformed { path: path.to_owned(), line })
}

/// Writes the file unless one is there by now, which then stays as it is.
pub(super) fn create(path: &Path, keyring: &Keyring) -> Result<(), KeyError> {
    // A rename would replace the keys of whoever came first; a link refuses to.
    write_beside(path, keyring, |unnamed| match fs::hard_link(unnamed, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => fs::remove_file(unnamed),
    })
}

/// Writes the file in place of the one that is there.
pub(super) fn replace(path: &Path, keyring: &Keyring) -> Result<(), KeyError> {
    write_beside(path, keyring, |unnamed| fs::rename(unnamed, path))
}

/// Removes the drafts of makers that were killed: they hold keys. Where makers cannot be held off, and where the
/// folder cannot be written, they stay.
pub(super) fn clear(path: &Path) {
    if let Ok(turn) = Turn::take(path) {
        turn.clear();
    }
}

fn write_beside(path: &Path, keyring: &Keyring, publish: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), KeyError> {
    let turn = Turn::take(path).map_err(|error| io_error(path, error))?;
    turn.clear();
    let unnamed = beside(path)?;
    write_synced(&unnamed, &render(keyring)).and_then(|()| publish(&unnamed)).map_err(|error| {
        // The first error is the one to tell; a file that cannot be removed is still readable by its owner only.
        let _ = fs::remove_file(&unnamed);
        io_error(path, error)
    })?;
    sync_folder(path).map_err(|error| io_error(path, error))
}

/// A turn at making key files in a folder. Makers take turns, so whatever draft is there in one's turn is abandoned.
struct Turn<'path> {
    path: &'path Path,
    /// Locked until dropped; none where folders cannot be locked, where makers are told apart by their drafts alone.
    folder: Option<File>,
}

impl<'path> Turn<'path> {
    #[cfg(unix)]
    fn take(path: &'path Path) -> io::Result<Self> {
        let folder = File::open(folder_of(path))?;
        match folder.lock() {
            Ok(()) => Ok(Self { path, folder: Some(folder) }),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(Self { path, folder: None }),
            Err(error) => Err(error),
        }
    }

    #[cfg(not(unix))]
    fn take(path: &'path Path) -> io::Result<Self> {
        Ok(Self { path, folder: None })
    }

    fn clear(&self) {
        let entries = self.folder.as_ref().and_then(|_| fs::read_dir(folder_of(self.path)).ok());
        for entry in entries.into_iter().flatten().flatten() {
            if is_draft(self.path, &entry.file_name()) {
                // It is nobody's: what cannot be removed now is removed another time.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn beside(path: &Path) -> Result<PathBuf, KeyError> {
    let suffix = getrandom::u64().map_err(KeyError::Random)?;
    let mut name = OsString::from(path);
    name.push(format!(".{suffix:016x}.new"));
    Ok(name.into())
}

/// Whether a name is one that [`beside`] gives.
fn is_draft(path: &Path, name: &OsStr) -> bool {
    let file = path.file_name().map(OsStr::as_encoded_bytes).unwrap_or_default();
    let suffix = name.as_encoded_bytes().strip_prefix(file).and_then(|rest| rest.strip_prefix(b"."));
    let suffix = suffix.and_then(|rest| rest.strip_suffix(b".new"));
    suffix.is_some_and(|suffix| suffix.len() == 16 && suffix.iter().all(u8::is_ascii_hexdigit))
}

fn write_synced(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_path: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn refuse_wide_permissions(path: &Path, file: &File) -> Result<(), KeyError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = file.metadata().map_err(|error| io_error(path, error))?.permissions().mode() & 0o7777;
    if mode & !0o600 == 0 { Ok(()) } else { Err(KeyError::TooOpen { path: path.to_owned(), mode }) }
}

#[cfg(not(unix))]
fn refuse_wide_permissions(_path: &Path, _file: &File) -> Result<(), KeyError> {
    Ok(())
}

fn io_error(path: &Path, source: io::Error) -> KeyError {
    KeyError::Io { path: path.to_owned(), source }
}

fn render(keyring: &Keyring) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(MAX_BYTES));
    text.push_str(HEADER);
    text.push('\n');
    text.push_str(NOTE);
    text.push('\n');
    for key in keyring.keys() {
        text.push_str(&key.id.to_string());
        text.push(' ');
        text.push_str(KEY_PREFIX);
        URL_SAFE_NO_PAD.encode_string(key.secret.as_slice(), &mut text);
        text.push('\n');
    }
    text
}

/// The keys of the text, or the first line that is wrong, counted from 1.
fn parse(bytes: &[u8]) -> Result<Keyring, usize> {
    if bytes.len() > MAX_BYTES {
        return Err(bytes.iter().filter(|byte| **byte == b'\n').count() + 1);
    }
    let mut keys: Vec<MasterKey> = Vec::new();
    let mut last = 1;
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        last = index + 1;
        let line = str::from_utf8(line).map_err(|_| last)?.trim_ascii_end();
        match index {
            0 if line == HEADER => {}
            0 => return Err(last),
            _ if line.is_empty() || line.starts_with('#') => {}
            _ => {
                let key = parse_key(line).ok_or(last)?;
                if keys.iter().any(|earlier| earlier.id == key.id) {
                    return Err(last);
                }
                keys.push(key);
            }
        }
    }
    Keyring::assemble(keys).map_err(|_| last)
}

fn parse_key(line: &str) -> Option<MasterKey> {
    let (id, secret) = line.split_once(' ')?;
    let decoded = Zeroizing::new(URL_SAFE_NO_PAD.decode(secret.strip_prefix(KEY_PREFIX)?).ok()?);
    let key = MasterKey::new(Zeroizing::new(decoded.as_slice().try_into().ok()?));
    // The name is a digest of the key, so a line with one character wrong is told at once.
    (key.id.to_string() == id).then_some(key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LINE: &str = "c3acae523d26cc89 mdk_AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE";

    fn place() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("accounts.keys");
        (folder, path)
    }

    fn files_in(folder: &tempfile::TempDir) -> usize {
        fs::read_dir(folder.path()).unwrap().count()
    }

    fn write(path: &Path, text: &[u8]) {
        let _ = fs::remove_file(path);
        write_synced(path, str::from_utf8(text).unwrap()).unwrap();
    }

    #[test]
    fn a_key_file_is_made_once_and_read_ever_after() {
        let (folder, path) = place();
        assert!(matches!(Keyring::open_or_create(&path, false), Err(KeyError::Missing { .. })));
        assert!(matches!(Keyring::rotate(&path), Err(KeyError::Missing { .. })));
        assert_eq!(files_in(&folder), 0);

        let first = Keyring::open_or_create(&path, true).unwrap();
        let text = fs::read(&path).unwrap();
        for create in [true, false] {
            let again = Keyring::open_or_create(&path, create).unwrap();
            assert_eq!(again.proof_for([9; 16]), first.proof_for([9; 16]));
        }
        assert_eq!(fs::read(&path).unwrap(), text);
        assert_eq!(files_in(&folder), 1);
    }

    #[test]
    fn processes_that_start_at_once_share_one_key() {
        let (folder, path) = place();
        let keyrings: Vec<_> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..8).map(|_| scope.spawn(|| Keyring::open_or_create(&path, true))).collect();
            starts.into_iter().map(|start| start.join().unwrap().unwrap()).collect()
        });
        let (first, others) = keyrings.split_first().unwrap();
        assert!(others.iter().all(|other| other.current() == first.current()));
        assert_eq!(files_in(&folder), 1);
    }

    #[cfg(unix)]
    #[test]
    fn what_a_killed_maker_left_behind_is_removed_by_the_next_one() {
        let (folder, path) = place();
        let strangers = ["accounts.keys.new", "accounts.keys.0123456789abcdef", "accounts.keys.old.new"];
        for name in strangers {
            fs::write(folder.path().join(name), "").unwrap();
        }
        fs::write(beside(&path).unwrap(), "half").unwrap();
        let first = Keyring::open_or_create(&path, true).unwrap();
        assert_eq!(files_in(&folder), 1 + strangers.len());
        // Killed between the two steps of its publication, the draft is another name of the file.
        for made_again in [true, false] {
            fs::hard_link(&path, beside(&path).unwrap()).unwrap();
            if made_again {
                assert_eq!(Keyring::open_or_create(&path, true).unwrap().current(), first.current());
            } else {
                Keyring::rotate(&path).unwrap();
            }
            assert_eq!(files_in(&folder), 1 + strangers.len());
        }
        fs::hard_link(&path, beside(&path).unwrap()).unwrap();
        Keyring::open_or_create(&path, false).unwrap();
        assert_eq!(files_in(&folder), 2 + strangers.len(), "who only reads changes nothing");
    }

    #[test]
    fn rotation_adds_a_current_key_and_keeps_the_others() {
        let (folder, path) = place();
        let first = Keyring::open_or_create(&path, true).unwrap();
        let second = Keyring::rotate(&path).unwrap();
        let third = Keyring::rotate(&path).unwrap();
        let read = Keyring::open_or_create(&path, false).unwrap();
        let ids: Vec<_> = read.keys().map(|key| key.id).collect();
        assert_eq!(ids, [third.current(), second.current(), first.current()]);
        assert_eq!(read.identifier_hash("email", "a"), first.identifier_hash("email", "a"));
        let (key, proof) = first.proof_for([9; 16]);
        assert!(read.recognises([9; 16], key, &proof));
        assert_eq!(files_in(&folder), 1);
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_may_reach_the_file() {
        use std::os::unix::fs::PermissionsExt;
        let (_folder, path) = place();
        Keyring::open_or_create(&path, true).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        Keyring::rotate(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        for wide in [0o640, 0o604, 0o620, 0o700, 0o666] {
            fs::set_permissions(&path, fs::Permissions::from_mode(wide)).unwrap();
            for create in [true, false] {
                let refused = Keyring::open_or_create(&path, create).unwrap_err();
                assert!(matches!(refused, KeyError::TooOpen { mode, .. } if mode == wide), "{refused}");
            }
            assert!(matches!(Keyring::rotate(&path), Err(KeyError::TooOpen { .. })));
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(Keyring::open_or_create(&path, false).is_ok());
    }

    #[test]
    fn the_format_is_pinned() {
        let keyring = Keyring::from_keys(vec![[1; 32]]).unwrap();
        assert_eq!(*render(&keyring), format!("{HEADER}\n{NOTE}\n{LINE}\n"));
        for text in [
            format!("{HEADER}\n{LINE}"),
            format!("{HEADER}\r\n{LINE}\r\n"),
            format!("{HEADER}\n\n# of May\n{LINE}\n\n"),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap().current(), keyring.current(), "{text}");
        }
    }

    #[test]
    fn a_malformed_file_names_its_line_and_is_left_alone() {
        let (_folder, path) = place();
        let cut = &LINE[..LINE.len() - 1];
        for (text, expected) in [
            (String::new(), 1),
            ("majordomo-keys 2\n".to_owned(), 1),
            (format!("{LINE}\n"), 1),
            (format!("{HEADER}\n"), 2),
            (format!("{HEADER}\n{NOTE}\n"), 3),
            (format!("{HEADER}\n{cut}\n"), 2),
            (format!("{HEADER}\n# of May\n{LINE}=\n"), 3),
            (format!("{HEADER}\n {LINE}\n"), 2),
            (format!("{HEADER}\n{LINE}\n{LINE}\n"), 3),
            (format!("{HEADER}\n{}\n", LINE.replace("c3", "c4")), 2),
            (format!("{HEADER}\n{}\n", LINE.replacen("AQEB", "AQEC", 1)), 2),
            (format!("{HEADER}\n{}\n", LINE.replace("mdk_", "")), 2),
            (format!("{HEADER}\n{}", "\n".repeat(MAX_BYTES)), MAX_BYTES + 1 - HEADER.len() + 1),
        ] {
            write(&path, text.as_bytes());
            for create in [true, false] {
                match Keyring::open_or_create(&path, create) {
                    Err(KeyError::Malformed { line, .. }) => assert_eq!(line, expected, "{text}"),
                    other => panic!("{other:?}: {text}"),
                }
            }
            assert!(matches!(Keyring::rotate(&path), Err(KeyError::Malformed { .. })));
            assert_eq!(fs::read(&path).unwrap(), text.as_bytes());
        }
        assert_eq!(parse(b"majordomo-keys 1\n\xff").unwrap_err(), 2);
    }

    #[test]
    fn the_fullest_keyring_fits_its_file() {
        let keys = (1..=1_024_u32).map(|number| {
            let mut key = [1; 32];
            key[..4].copy_from_slice(&number.to_be_bytes());
            key
        });
        let keyring = Keyring::from_keys(keys.collect()).unwrap();
        let (_folder, path) = place();
        create(&path, &keyring).unwrap();
        assert_eq!(read(&path).unwrap().keys().count(), 1_024);
        assert!(matches!(Keyring::rotate(&path), Err(KeyError::Unusable)));
        assert_eq!(read(&path).unwrap().current(), keyring.current());
    }

    #[test]
    fn errors_show_no_key() {
        let (_folder, path) = place();
        write(&path, format!("{HEADER}\n{LINE}x\n").as_bytes());
        let error = Keyring::open_or_create(&path, false).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("AQEB"));
        assert_eq!(error.as_str(), "key_file_malformed");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
            prop_assert!(parse(&[HEADER.as_bytes(), b"\n", &bytes].concat()).is_err());
        }
    }
}
