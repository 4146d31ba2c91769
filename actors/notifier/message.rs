//! Messages: which templates there are, whether they are sound, and how they become text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use majordomo_model::{Channel, MessageKind, Timestamp};
use minijinja::value::Value;
use minijinja::{Environment, UndefinedBehavior};

use super::settings::is_language_tag;

/// Embeds templates under the names of their files.
macro_rules! embedded {
    ($($name:literal)+) => { &[$(($name, include_str!(concat!("templates/", $name)))),+] };
}

const DEFAULTS: &[(&str, &str)] = embedded! {
    "verify_email.subject.txt" "verify_email.txt" "verify_email.html"
    "verify_phone.txt"
    "reset_password_email.subject.txt" "reset_password_email.txt" "reset_password_email.html"
    "reset_password_phone.txt"
    "address_taken.subject.txt" "address_taken.txt" "address_taken.html"
    "address_taken_phone.txt"
    "contact_changed.subject.txt" "contact_changed.txt" "contact_changed.html"
    "contact_changed_phone.txt"
    "password_changed.subject.txt" "password_changed.txt" "password_changed.html"
    "password_changed_phone.txt"
    "contact_added.subject.txt" "contact_added.txt" "contact_added.html"
    "contact_added_phone.txt"
    "contact_removed.subject.txt" "contact_removed.txt" "contact_removed.html"
    "contact_removed_phone.txt"
};

/// One message on one channel, and the stem of its templates' names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Form {
    kind: MessageKind,
    channel: Channel,
    stem: &'static str,
}

const fn form(kind: MessageKind, channel: Channel, stem: &'static str) -> Form {
    Form { kind, channel, stem }
}

const FORMS: [Form; 14] = [
    form(MessageKind::VerifyEmail, Channel::Email, "verify_email"),
    form(MessageKind::VerifyPhone, Channel::Phone, "verify_phone"),
    form(MessageKind::ResetPasswordEmail, Channel::Email, "reset_password_email"),
    form(MessageKind::ResetPasswordPhone, Channel::Phone, "reset_password_phone"),
    form(MessageKind::AddressTaken, Channel::Email, "address_taken"),
    form(MessageKind::AddressTaken, Channel::Phone, "address_taken_phone"),
    form(MessageKind::ContactChanged, Channel::Email, "contact_changed"),
    form(MessageKind::ContactChanged, Channel::Phone, "contact_changed_phone"),
    form(MessageKind::PasswordChanged, Channel::Email, "password_changed"),
    form(MessageKind::PasswordChanged, Channel::Phone, "password_changed_phone"),
    form(MessageKind::ContactAdded, Channel::Email, "contact_added"),
    form(MessageKind::ContactAdded, Channel::Phone, "contact_added_phone"),
    form(MessageKind::ContactRemoved, Channel::Email, "contact_removed"),
    form(MessageKind::ContactRemoved, Channel::Phone, "contact_removed_phone"),
];

impl Form {
    /// What follows the stem in the names of its templates.
    const fn parts(self) -> &'static [(&'static str, &'static str)] {
        match self.channel {
            Channel::Email => &[(".subject", ".txt"), ("", ".txt"), ("", ".html")],
            Channel::Phone => &[("", ".txt")],
        }
    }

    const fn bears_token(self) -> bool {
        use MessageKind::{ResetPasswordEmail, ResetPasswordPhone, VerifyEmail, VerifyPhone};
        matches!(self.kind, VerifyEmail | VerifyPhone | ResetPasswordEmail | ResetPasswordPhone)
    }

    /// Whether it tells of a change that can be undone, as a rule.
    const fn may_undo(self) -> bool {
        use MessageKind::{ContactAdded, ContactChanged, ContactRemoved, PasswordChanged};
        matches!(self.kind, ContactAdded | ContactChanged | ContactRemoved | PasswordChanged)
    }

    fn template(self, (part, ending): (&str, &str), locale: Option<&str>) -> String {
        let locale = locale.map(|tag| format!(".{tag}")).unwrap_or_default();
        [self.stem, part, &locale, ending].concat()
    }

    /// The form, and the locale in lower case, that a template of this name is for.
    fn of(name: &str) -> Option<(Self, Option<String>)> {
        let parts = || FORMS.into_iter().flat_map(|form| form.parts().iter().map(move |part| (form, *part)));
        if let Some((form, _)) = parts().find(|(form, part)| form.template(*part, None) == name) {
            return Some((form, None));
        }
        parts().find_map(|(form, (part, ending))| {
            let rest = name.strip_prefix(form.stem)?.strip_prefix(part)?.strip_prefix('.')?;
            let locale = rest.strip_suffix(ending)?;
            is_language_tag(locale).then(|| (form, Some(locale.to_ascii_lowercase())))
        })
    }
}

/// The templates of every message, in minijinja's language: those that come with the notifier, and what replaces them.
///
/// An e-mail is made of `NAME.subject.txt`, `NAME.txt` and `NAME.html`, a text message of `NAME.txt`. The names are
/// `verify_email`, `verify_phone`, `reset_password_email`, `reset_password_phone`, and `address_taken`,
/// `contact_added`, `contact_changed`, `contact_removed`, `password_changed`, which have a twin with `_phone` at its end. A locale (BCP 47) before the
/// ending, as in `verify_email.subject.de.txt`, serves the users whose profile asks for that language; a message is
/// in one locale as a whole, so all of its templates must be there.
///
/// Every template knows `app_name`, `base_url`, `host`, `locale`; those of the first four messages also `link` with
/// `expires_at`, and `code` with `code_expires_at`; those of `contact_added`, `contact_changed`, `contact_removed` and
/// `password_changed` know `undo_link` with `undo_expires_at`, which are `none` where the change cannot be undone (any
/// more), and have to show the link where there is one. Anything else is a fault. What a user typed, such as a name, is
/// never among them. `.html` is escaped. All of it is checked when the notifier is built.
#[derive(Clone)]
pub struct Templates {
    sources: BTreeMap<String, String>,
    faults: Vec<TemplateFault>,
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
        match Form::of(name) {
            Some((form, locale)) => {
                let place = form.parts().iter().map(|part| form.template(*part, locale.as_deref()));
                let place = place.into_iter().find(|place| place.eq_ignore_ascii_case(name));
                self.sources.insert(place.unwrap_or_else(|| name.to_owned()), source.into());
            }
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
    fn new(template: &str, problem: &str) -> Self {
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

/// What the templates may say.
pub(super) struct Facts<'a> {
    pub app_name: &'a str,
    pub base_url: &'a str,
    pub host: &'a str,
    pub default_locale: &'a str,
    pub token: Option<TokenFacts<'a>>,
    pub undo: Option<UndoFacts<'a>>,
}

/// What the templates of a notice may say too, if what it tells of can be undone.
#[derive(Clone, Copy)]
pub(super) struct UndoFacts<'a> {
    pub link: &'a str,
    pub expires_at: Timestamp,
}

/// What the templates of a message that bears a token may say too.
pub(super) struct TokenFacts<'a> {
    pub link: &'a str,
    pub code: &'a str,
    pub expires_at: Timestamp,
    pub code_expires_at: Timestamp,
}

impl Facts<'_> {
    /// The link and the base URL hold nothing that HTML gives a meaning to, so they are not escaped.
    fn values(&self, form: Form, locale: &str) -> Value {
        let url = |text: &str| Value::from_safe_string(text.to_owned());
        let mut values = vec![
            ("app_name", Value::from(self.app_name)),
            ("base_url", url(self.base_url)),
            ("host", Value::from(self.host)),
            ("locale", Value::from(locale)),
        ];
        if let Some(token) = &self.token {
            values.push(("link", url(token.link)));
            values.push(("code", Value::from(token.code)));
            values.push(("expires_at", Value::from(utc_minute(token.expires_at))));
            values.push(("code_expires_at", Value::from(utc_minute(token.code_expires_at))));
        }
        if form.may_undo() {
            values.push(("undo_link", self.undo.map_or(Value::from(()), |undo| url(undo.link))));
            let ends = self.undo.map_or(Value::from(()), |undo| Value::from(utc_minute(undo.expires_at)));
            values.push(("undo_expires_at", ends));
        }
        Value::from_pairs(values)
    }
}

/// An instant as in `2026-01-31 14:05 UTC`.
fn utc_minute(instant: Timestamp) -> String {
    let text = instant.to_string();
    match text.split_once('T').and_then(|(day, time)| Some((day, time.get(..5)?))) {
        Some((day, minute)) => format!("{day} {minute} UTC"),
        None => text,
    }
}

/// A rendered message.
pub(super) struct Rendered {
    pub subject: Option<String>,
    pub text: String,
    pub html: Option<String>,
    pub locale: String,
}

/// Templates that were compiled and found sound.
pub(super) struct Composer {
    environment: Environment<'static>,
    locales: BTreeSet<(Form, String)>,
}

impl Composer {
    /// Compiles the templates and renders each once with sample data.
    pub(super) fn new(templates: Templates) -> Result<Self, TemplateFaults> {
        let Templates { sources, mut faults } = templates;
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        let mut locales = BTreeSet::new();
        for (name, source) in sources {
            if let Some((form, Some(locale))) = Form::of(&name) {
                locales.insert((form, locale));
            }
            if let Err(error) = environment.add_template_owned(name.clone(), source) {
                faults.push(TemplateFault::new(&name, &error.to_string()));
            }
        }
        // Those that do not compile have been named; naming them again as missing would mislead.
        let named: BTreeSet<_> = faults.iter().map(|fault| fault.template.clone()).collect();
        let composer = Self { environment, locales };
        let every_locale = composer.locales.iter().map(|(form, locale)| (*form, Some(locale.as_str())));
        for (form, locale) in FORMS.into_iter().map(|form| (form, None)).chain(every_locale) {
            faults.extend(
                composer.sample_faults(form, locale).into_iter().filter(|fault| !named.contains(&fault.template)),
            );
        }
        if faults.is_empty() { Ok(composer) } else { Err(TemplateFaults(faults)) }
    }

    /// What is wrong with the templates of a form, with the link that undoes a change and without.
    fn sample_faults(&self, form: Form, locale: Option<&str>) -> Vec<TemplateFault> {
        let faults = self.sample_faults_of(form, locale, false);
        if faults.is_empty() && form.may_undo() { self.sample_faults_of(form, locale, true) } else { faults }
    }

    fn sample_faults_of(&self, form: Form, locale: Option<&str>, undo: bool) -> Vec<TemplateFault> {
        const LINK: &str = "https://example.com/accounts/sample/";
        const CODE: &str = "12345678";
        let instant = Timestamp::from_micros(0);
        let token = TokenFacts { link: LINK, code: CODE, expires_at: instant, code_expires_at: instant };
        let facts = Facts {
            app_name: "Example",
            base_url: "https://example.com",
            host: "example.com",
            default_locale: "en",
            token: form.bears_token().then_some(token),
            undo: undo.then_some(UndoFacts { link: LINK, expires_at: instant }),
        };
        let values = facts.values(form, locale.unwrap_or(facts.default_locale));
        let mut faults = Vec::new();
        for (part, ending) in form.parts() {
            let name = form.template((part, ending), locale);
            match self.part(&name, &values) {
                Err(fault) => faults.push(fault),
                Ok(text) if *part == ".subject" => faults.extend(subject_fault(&name, &text)),
                Ok(text) if form.bears_token() && !text.contains(LINK) && !text.contains(CODE) => {
                    faults.push(TemplateFault::new(&name, "it shows neither the link nor the code"));
                }
                Ok(text) if undo && !text.contains(LINK) => {
                    faults.push(TemplateFault::new(&name, "it does not show the link that takes the change back"));
                }
                Ok(_) => {}
            }
        }
        faults
    }

    /// Renders a message in the wanted language, or in the default one.
    pub(super) fn render(
        &self,
        kind: MessageKind,
        channel: Channel,
        wanted: Option<&str>,
        facts: &Facts<'_>,
    ) -> Result<Rendered, TemplateFault> {
        let form = FORMS.into_iter().find(|form| form.kind == kind && form.channel == channel);
        let missing = || TemplateFault::new(channel.as_str(), "this kind of message does not travel on this channel");
        let form = form.ok_or_else(missing)?;
        let locale = wanted.and_then(|wanted| self.locale_for(form, wanted));
        let shown = locale.as_deref().unwrap_or(facts.default_locale);
        let values = facts.values(form, shown);
        let mut parts = BTreeMap::new();
        for part in form.parts() {
            let name = form.template(*part, locale.as_deref());
            let text = self.part(&name, &values)?;
            if let Some(fault) = (part.0 == ".subject").then(|| subject_fault(&name, &text)).flatten() {
                return Err(fault);
            }
            parts.insert(*part, text);
        }
        Ok(Rendered {
            subject: parts.remove(&(".subject", ".txt")),
            text: parts.remove(&("", ".txt")).unwrap_or_default(),
            html: parts.remove(&("", ".html")),
            locale: shown.to_owned(),
        })
    }

    fn part(&self, name: &str, values: &Value) -> Result<String, TemplateFault> {
        let rendered = self.environment.get_template(name).and_then(|template| template.render(values));
        match rendered {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(error) => Err(TemplateFault::new(name, &error.to_string())),
        }
    }

    /// `de-AT` is served by `de-at`, else by `de`.
    fn locale_for(&self, form: Form, wanted: &str) -> Option<String> {
        let wanted = wanted.to_ascii_lowercase();
        let language = wanted.split('-').next().unwrap_or_default().to_owned();
        [wanted, language].into_iter().find(|locale| self.locales.contains(&(form, locale.clone())))
    }
}

fn subject_fault(name: &str, text: &str) -> Option<TemplateFault> {
    let unfit = text.is_empty() || text.chars().any(char::is_control);
    unfit.then(|| TemplateFault::new(name, "a subject is one line without control characters"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GSM_SEVEN_BIT: &str = "@ !\"#%&'()*+,-./:;<=>?";

    fn facts(token: bool) -> Facts<'static> {
        Facts {
            app_name: "Marks & Daughters <Ltd>",
            base_url: "https://example.com/app",
            host: "example.com",
            default_locale: "en",
            token: token.then_some(TokenFacts {
                link: "https://example.com/app/accounts/x/mdt_y/",
                code: "01234567",
                expires_at: Timestamp::from_micros(1_767_225_600_000_000),
                code_expires_at: Timestamp::from_micros(1_767_222_600_000_000),
            }),
            undo: None,
        }
    }

    #[test]
    fn every_default_renders_and_html_is_escaped() {
        let composer = Composer::new(Templates::embedded()).unwrap();
        for form in FORMS {
            let rendered = composer.render(form.kind, form.channel, Some("xx"), &facts(form.bears_token())).unwrap();
            let is_mail = form.channel == Channel::Email;
            assert_eq!((rendered.subject.is_some(), rendered.html.is_some()), (is_mail, is_mail), "{form:?}");
            assert_eq!(rendered.locale, "en");
            assert!(rendered.text.contains("Marks & Daughters <Ltd>"), "{}", rendered.text);
            if form.bears_token() {
                assert!(rendered.text.lines().any(|line| line == "01234567"), "{}", rendered.text);
            }
            if let Some(html) = rendered.html {
                assert!(html.contains("Marks &amp; Daughters &lt;Ltd&gt;") && !html.contains("<Ltd>"), "{html}");
                assert_eq!(html.contains("href=\"https://example.com/app/accounts/x/mdt_y/\""), form.bears_token());
                let ends = "until 2025-12-31 23:10 UTC, the link until 2026-01-01 00:00 UTC";
                assert_eq!([html.contains(ends), rendered.text.contains(ends)], [form.bears_token(); 2]);
                assert!(html.starts_with("<!doctype html>") && html.contains("lang=\"en\""), "{html}");
            }
        }
    }

    #[test]
    fn no_default_is_left_out_and_every_kind_has_a_form() {
        let names: BTreeSet<String> = FORMS
            .into_iter()
            .flat_map(|form| form.parts().iter().map(move |part| form.template(*part, None)))
            .collect();
        assert_eq!(names, Templates::embedded().sources.into_keys().collect());
        let files: BTreeSet<String> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/notifier/templates"))
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(names, files);
        let kinds: BTreeSet<MessageKind> = FORMS.iter().map(|form| form.kind).collect();
        assert_eq!(kinds.len(), 9);
    }

    #[test]
    fn a_notice_shows_the_link_that_takes_its_change_back_where_there_is_one() {
        let composer = Composer::new(Templates::embedded()).unwrap();
        let link = "https://example.com/app/accounts/change_undo_confirm/x/mdt_y/";
        let undo = UndoFacts { link, expires_at: Timestamp::from_micros(1_767_225_600_000_000) };
        for form in FORMS.into_iter().filter(|form| form.may_undo()) {
            for undo in [Some(undo), None] {
                let facts = Facts { undo, ..facts(false) };
                let rendered = composer.render(form.kind, form.channel, None, &facts).unwrap();
                let shows = [rendered.text.contains(link), rendered.text.contains("2026-01-01 00:00 UTC")];
                assert_eq!(shows, [undo.is_some(), undo.is_some() && form.channel == Channel::Email], "{form:?}");
                if let Some(html) = rendered.html {
                    assert_eq!(html.contains(&format!("href=\"{link}\"")), undo.is_some(), "{html}");
                }
            }
        }
        let silent = Templates::embedded().with_template("password_changed.txt", "Your password was changed.");
        let faults = Composer::new(silent).err().unwrap().to_string();
        assert!(faults.contains("password_changed.txt: it does not show the link"), "{faults}");
    }

    #[test]
    fn a_text_message_is_one_segment() {
        let composer = Composer::new(Templates::embedded()).unwrap();
        for form in FORMS.into_iter().filter(|form| form.channel == Channel::Phone) {
            let facts = Facts { app_name: "A name of thirty-two characters.", ..facts(form.bears_token()) };
            let text = composer.render(form.kind, form.channel, None, &facts).unwrap().text;
            let fits = |character: char| {
                character.is_ascii_alphanumeric() || character == '\n' || GSM_SEVEN_BIT.contains(character)
            };
            assert!(text.chars().all(fits), "{text}");
            assert!(text.len() <= 160, "{} characters: {text}", text.len());
        }
    }

    #[test]
    fn every_fault_of_every_override_is_named() {
        let faults = Composer::new(
            Templates::embedded()
                .with_template("verify_email.txt", "{{ link ")
                .with_template("verify_phone.txt", "Hello {{ display_name }}, {{ code }}")
                .with_template("password_changed.txt", "{{ code }}")
                .with_template("reset_password_email.html", "<p>Please wait.</p>")
                .with_template("contact_changed.subject.txt", "one\ntwo")
                .with_template("verify_mail.txt", "{{ code }}")
                .with_template("address_taken.subject.de.txt", "Hallo"),
        )
        .err()
        .unwrap();
        let named: Vec<&str> = faults.0.iter().map(|fault| fault.template.as_str()).collect();
        for name in [
            "verify_email.txt",
            "verify_phone.txt",
            "password_changed.txt",
            "reset_password_email.html",
            "contact_changed.subject.txt",
            "verify_mail.txt",
            "address_taken.de.txt",
            "address_taken.de.html",
        ] {
            assert_eq!(named.iter().filter(|found| **found == name).count(), 1, "{name} in {named:?}");
            assert!(faults.to_string().contains(name));
        }
        assert_eq!(named.len(), 8, "{named:?}");
    }

    #[test]
    fn a_folder_replaces_and_adds_templates() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("verify_phone.txt", "Code\n{{ code }}\n");
        write("verify_phone.de.txt", "Ihr Code ({{ locale }})\n{{ code }}");
        write("verify_phone.pt-BR.txt", "Seu código\n{{ code }}");
        write("README.md", "{{ no template");
        let composer = Composer::new(Templates::embedded().with_folder(folder.path())).unwrap();
        let text = |wanted| {
            let facts = facts(true);
            let rendered = composer.render(MessageKind::VerifyPhone, Channel::Phone, wanted, &facts).unwrap();
            (rendered.locale, rendered.text)
        };
        let english = ("en".to_owned(), "Code\n01234567".to_owned());
        let german = ("de".to_owned(), "Ihr Code (de)\n01234567".to_owned());
        assert_eq!(text(None), english);
        assert_eq!(text(Some("../../etc")), english);
        assert_eq!(text(Some("pt")), english);
        assert_eq!(text(Some("de")), german);
        assert_eq!(text(Some("de-AT")), german);
        assert_eq!(text(Some("PT-br")).1, "Seu código\n01234567");

        let absent = Templates::embedded().with_folder(folder.path().join("absent"));
        assert!(Composer::new(absent).err().unwrap().to_string().contains("absent"));
    }
}
