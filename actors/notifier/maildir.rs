//! A folder of message files, in the manner of a maildir: for development, and for another program to pick up.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use majordomo_model::Channel;

use super::internet_message;
use super::transport::{OutgoingMessage, SendError, Transport};

/// Writes every message into a file of its own, in the folder `new/` below its path.
///
/// A file is complete as soon as it is there: it is written in `tmp/`, synced, and renamed. Its name is the signal's
/// id, so a message that is sent again takes the place of its first copy. E-mails are `.eml` files (RFC 5322), text
/// messages `.txt` files that open with a `To:` line.
///
/// The files hold links and codes that work. They are readable by their owner alone (mode 0600, in folders that are
/// created with 0700); keep the folder out of reach and out of backups.
#[derive(Clone, Debug)]
pub struct Maildir {
    channel: Channel,
    folder: PathBuf,
    /// Two attempts at one message would write into each other's file.
    writing: Arc<Mutex<()>>,
}

impl Maildir {
    /// Takes e-mails. The folder is created when the first one comes.
    #[must_use]
    pub fn email(folder: impl Into<PathBuf>) -> Self {
        Self { channel: Channel::Email, folder: folder.into(), writing: Arc::default() }
    }

    /// Takes text messages. The folder is created when the first one comes.
    #[must_use]
    pub fn phone(folder: impl Into<PathBuf>) -> Self {
        Self { channel: Channel::Phone, folder: folder.into(), writing: Arc::default() }
    }
}

impl Transport for Maildir {
    fn channel(&self) -> Channel {
        self.channel
    }

    async fn send(&self, message: &OutgoingMessage) -> Result<(), SendError> {
        let (name, text) = match self.channel {
            Channel::Email => (format!("{}.eml", message.id), internet_message::mail(message)?),
            Channel::Phone => (format!("{}.txt", message.id), text_message(message)?),
        };
        let (folder, writing) = (self.folder.clone(), Arc::clone(&self.writing));
        let written = tokio::task::spawn_blocking(move || {
            let _alone = writing.lock().unwrap_or_else(PoisonError::into_inner);
            write(&folder, &name, text.as_bytes())
        });
        match written.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(SendError::Transient(format!("the folder of messages: {error}"))),
            Err(_) => Err(SendError::Transient("the writing was interrupted".to_owned())),
        }
    }
}

fn text_message(message: &OutgoingMessage) -> Result<String, SendError> {
    internet_message::check_address(&message.to)?;
    Ok(format!("To: {}\n\n{}\n", message.to, message.text))
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let (unfinished, finished) = (folder.join("tmp"), folder.join("new"));
    for folder in [&unfinished, &finished] {
        create_folder(folder)?;
    }
    let unnamed = unfinished.join(name);
    let mut file = create(&unnamed)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unnamed, finished.join(name))?;
    sync_folder(&finished)
}

fn create_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notifier::sample_message;

    fn files(folder: &Path) -> Vec<(String, String)> {
        let mut files: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap()))
            .collect();
        files.sort();
        files
    }

    #[tokio::test]
    async fn a_mail_becomes_one_file_however_often_it_is_sent() {
        let folder = tempfile::tempdir().unwrap();
        let maildir = Maildir::email(folder.path().join("mail"));
        let message = sample_message(Channel::Email);
        // What a crash left half-written is written anew.
        fs::create_dir_all(folder.path().join("mail/tmp")).unwrap();
        fs::write(folder.path().join("mail/tmp").join(format!("{}.eml", message.id)), "half").unwrap();
        for _ in 0..3 {
            Transport::send(&maildir, &message).await.unwrap();
        }
        Transport::send(&maildir, &sample_message(Channel::Email)).await.unwrap();
        let written = files(&folder.path().join("mail/new"));
        assert_eq!(written.len(), 2);
        assert_eq!(written[0], (format!("{}.eml", message.id), internet_message::mail(&message).unwrap()));
        assert_eq!(files(&folder.path().join("mail/tmp")), []);
    }

    #[tokio::test]
    async fn a_text_message_names_its_recipient() {
        let folder = tempfile::tempdir().unwrap();
        let message = sample_message(Channel::Phone);
        Transport::send(&Maildir::phone(folder.path()), &message).await.unwrap();
        let expected = format!("To: {}\n\n{}\n", message.to, message.text);
        assert_eq!(files(&folder.path().join("new")), [(format!("{}.txt", message.id), expected)]);
    }

    #[tokio::test]
    async fn a_forged_address_is_refused_for_good_and_a_broken_folder_is_not() {
        let folder = tempfile::tempdir().unwrap();
        for maildir in [Maildir::email(folder.path()), Maildir::phone(folder.path())] {
            let mut message = sample_message(Transport::channel(&maildir));
            message.to = "a@b.c\nBcc: d@e.f".into();
            assert!(!Transport::send(&maildir, &message).await.unwrap_err().is_transient());
        }
        assert!(!folder.path().join("new").exists());
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Transport::send(&Maildir::email(&file), &sample_message(Channel::Email)).await.unwrap_err();
        assert!(error.is_transient());
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn the_files_are_their_owner_s_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let maildir = folder.path().join("mail");
        let message = sample_message(Channel::Email);
        Transport::send(&Maildir::email(&maildir), &message).await.unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&maildir.join("new")), 0o700);
        assert_eq!(mode(&maildir.join("new").join(format!("{}.eml", message.id))), 0o600);
    }
}
