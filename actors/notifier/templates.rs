//! Templates: those that come with the notifier, and what replaces them, one by one.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::forms::place_of;

/// Embeds templates under the names of their files.
macro_rules! embedded {
    ($($name:literal)+) => { &[$(($name, include_str!(concat!("templates/", $name)))),+] };
}

const DEFAULTS: &[(&str, &str)] = embedded! {
    "layout.html" "button.html" "code.html"
    "verify_email.subject.txt" "verify_email.txt" "verify_email.html"
    "verify_phone.txt"
    "reset_password_email.subject.txt" "reset_password_email.txt" "reset_password_email.html"
    "reset_password_phone.txt"
    "address_taken.subject.txt" "address_taken.txt" "address_taken.html"
    "address_taken_phone.txt"
    "contact_changed.subject.txt" "contact_changed.txt" "contact_changed.html"
    "contact_changed_phone.txt"
    "contact_added.subject.txt" "contact_added.txt" "contact_added.html"
    "contact_added_phone.txt"
    "contact_removed.subject.txt" "contact_removed.txt" "contact_removed.html"
    "contact_removed_phone.txt"
    "password_changed.subject.txt" "password_changed.txt" "password_changed.html"
    "password_changed_phone.txt"
    "username_changed.subject.txt" "username_changed.txt" "username_changed.html"
    "username_changed_phone.txt"
    "new_sign_in.subject.txt" "new_sign_in.txt" "new_sign_in.html"
    "new_sign_in_phone.txt"
    "account_locked.subject.txt" "account_locked.txt" "account_locked.html"
    "account_locked_phone.txt"
};

/// The templates of every message, in minijinja's language: those that come with the notifier, and what replaces them.
///
/// An e-mail is made of `NAME.subject.txt`, `NAME.txt` and `NAME.html`, a text message of `NAME.txt`. The names are
/// `verify_email`, `verify_phone`, `reset_password_email`, `reset_password_phone`, and `address_taken`,
/// `contact_added`, `contact_changed`, `contact_removed`, `password_changed`, `username_changed`, `new_sign_in`, `account_locked`,
/// which have a twin with `_phone` at its end.
/// A locale (BCP 47) before the ending, as in `verify_email.subject.de.txt`, serves the users whose profile asks for
/// that language or a narrower one (RFC 4647, section 3.4); a message is in one locale as a whole, so all of its
/// templates must be there.
///
/// `layout.html`, `button.html` and `code.html` are what the HTML of all of them is laid out with (`extends`,
/// `include`); they too can be replaced, and have variants with a locale, which a template names itself.
///
/// Every template knows `app_name`, `base_url`, `host`, `locale` and `happened_at`; those of the first four messages
/// also `link` with `expires_at` and, only while the code lives, `code` with `code_expires_at`, of which the first two
/// have no `link` where the policy accepts codes alone; `contact_added`,
/// `contact_changed`, `contact_removed` and `password_changed`, where the change can still be undone, `undo_link` with
/// `undo_expires_at`, and have to show that link; `new_sign_in` also
/// `device` and `network`, where they are known; `account_locked` also `locked_until` and, while it works,
/// `unlock_link`. Anything else is a fault, and so
/// is showing what may be absent without asking with `if`. What a user typed, such as a name, is never among them.
/// `.html` is escaped. All of it is checked when the notifier is built, by rendering every message in every shape.
#[derive(Clone)]
pub struct Templates {
    pub(super) sources: BTreeMap<String, String>,
    pub(super) faults: Vec<TemplateFault>,
}

impl Templates {
    /// The templates that come with the notifier, in English.
    #[must_use]
    pub fn embedded() -> Self {
        let sources = DEFAULTS.iter().map(|(name, source)| ((*name).to_owned(), (*source).to_owned())).collect();
        Self { sources, faults: Vec::new() }
    }

    /// Replaces one template, or adds one for a locale.
    #[must_use]
    pub fn with_template(mut self, name: &str, source: impl Into<String>) -> Self {
        match place_of(name) {
            Some(place) => drop(self.sources.insert(place, source.into())),
            None => self.faults.push(TemplateFault::new(name, "no message has a template of this name")),
        }
        self
    }

    /// Replaces or adds every `.txt` and `.html` file of a folder, read now; folders inside it are left out.
    #[must_use]
    pub fn with_folder(mut self, folder: impl AsRef<Path>) -> Self {
        let folder = folder.as_ref();
        match read_folder(folder) {
            Ok(files) => {
                for (name, source) in files {
                    self = match source {
                        Ok(source) => self.with_template(&name, source),
                        Err(error) => {
                            self.faults.push(TemplateFault::new(&name, &error.to_string()));
                            self
                        }
                    };
                }
            }
            Err(error) => self.faults.push(TemplateFault::new(&folder.display().to_string(), &error.to_string())),
        }
        self
    }
}

impl Default for Templates {
    fn default() -> Self {
        Self::embedded()
    }
}

/// Shows the names.
impl fmt::Debug for Templates {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.sources.keys()).finish()
    }
}

type Files = Vec<(String, std::io::Result<String>)>;

fn read_folder(folder: &Path) -> std::io::Result<Files> {
    let mut files = Files::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let is_template = path.extension().is_some_and(|ending| ending == "txt" || ending == "html");
        if is_template && path.is_file() {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            files.push((name, std::fs::read_to_string(&path)));
        }
    }
    files.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(files)
}

/// What is wrong with one template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{template}: {problem}")]
pub struct TemplateFault {
    /// The template's name.
    pub template: String,
    /// What is wrong, in a sentence.
    pub problem: String,
}

impl TemplateFault {
    pub(super) fn new(template: &str, problem: &str) -> Self {
        Self { template: template.to_owned(), problem: problem.to_owned() }
    }
}

/// Everything that is wrong with the templates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateFaults(pub Vec<TemplateFault>);

impl fmt::Display for TemplateFaults {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("unsound templates")?;
        self.0.iter().try_for_each(|fault| write!(formatter, "; {fault}"))
    }
}

impl std::error::Error for TemplateFaults {}
