//! The composer: templates that were found sound, and how they become a message.

use std::collections::{BTreeMap, BTreeSet};

use majordomo_model::{Channel, MessageKind};
use minijinja::value::Value;
use minijinja::{Environment, UndefinedBehavior};

use super::facts::{Detail, Facts};
use super::forms::{FORMS, Form, SHARED, lookup};
use super::shapes::{PATH, SAMPLE_TIME, shapes};
use super::templates::{TemplateFault, TemplateFaults, Templates};

const SAMPLE_HOME: &str = "https://example.com";

/// A rendered message.
pub(super) struct Rendered {
    pub(super) subject: Option<String>,
    pub(super) text: String,
    pub(super) html: Option<String>,
    pub(super) locale: String,
}

/// Templates that were compiled and found sound.
pub(super) struct Composer {
    environment: Environment<'static>,
    locales: BTreeSet<(Form, String)>,
}

impl Composer {
    /// Compiles the templates and renders each with sample data, in every shape.
    pub(super) fn new(templates: Templates) -> Result<Self, TemplateFaults> {
        let Templates { sources, mut faults } = templates;
        let mut environment = Environment::new();
        // What is absent can be asked for, and not be shown.
        environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        let mut locales = BTreeSet::new();
        for (name, source) in sources {
            if let Some((form, Some(locale))) = Form::of(&name) {
                locales.insert((form, locale));
            }
            if let Err(error) = environment.add_template_owned(name.clone(), source) {
                faults.push(TemplateFault::new(&name, &error.to_string()));
            }
        }
        // Those that do not compile have been named; naming them again as missing would mislead. Without the layout
        // nothing can be rendered.
        let named: BTreeSet<_> = faults.iter().map(|fault| fault.template.clone()).collect();
        let composer = Self { environment, locales };
        if !SHARED.iter().any(|shared| named.contains(*shared)) {
            for (form, locale) in composer.variants() {
                let found = composer.sample_faults(form, locale.as_deref());
                faults.extend(found.into_iter().filter(|fault| !named.contains(&fault.template)));
            }
        }
        if faults.is_empty() { Ok(composer) } else { Err(TemplateFaults(faults)) }
    }

    /// Every message in every locale that it has templates for; `None` is the default one.
    pub(super) fn variants(&self) -> impl Iterator<Item = (Form, Option<String>)> {
        let every_locale = self.locales.iter().map(|(form, locale)| (*form, Some(locale.clone())));
        FORMS.into_iter().map(|form| (form, None)).chain(every_locale)
    }

    /// What is wrong with a message's templates, each named once.
    fn sample_faults(&self, form: Form, locale: Option<&str>) -> Vec<TemplateFault> {
        let link = [SAMPLE_HOME, PATH].concat();
        let mut faults: BTreeMap<String, TemplateFault> = BTreeMap::new();
        for shape in shapes(form.kind, &link) {
            let facts = Facts {
                app_name: "Example",
                base_url: SAMPLE_HOME,
                host: "example.com",
                default_locale: "en",
                happened_at: SAMPLE_TIME,
                detail: shape.detail,
            };
            let values = facts.values(locale.unwrap_or(facts.default_locale));
            for (part, ending) in form.parts() {
                let name = form.template((part, ending), locale);
                let fault = match self.part(&name, &values) {
                    Err(fault) => Some(fault),
                    Ok(text) if *part == ".subject" => subject_fault(&name, &text),
                    Ok(text) => bearing_fault(&name, &text, facts.detail),
                };
                if let Some(fault) = fault {
                    faults.entry(name).or_insert(fault);
                }
            }
        }
        faults.into_values().collect()
    }

    /// Renders a message in the wanted language, or in the default one.
    pub(super) fn render(
        &self,
        kind: MessageKind,
        channel: Channel,
        wanted: Option<&str>,
        facts: &Facts<'_>,
    ) -> Result<Rendered, TemplateFault> {
        let missing = || TemplateFault::new(channel.as_str(), "this kind of message does not travel on this channel");
        let form = Form::find(kind, channel).ok_or_else(missing)?;
        let locale = wanted.and_then(|wanted| self.locale_for(form, wanted));
        let shown = locale.as_deref().unwrap_or(facts.default_locale);
        let values = facts.values(shown);
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

    /// The narrowest locale with templates that serves the wanted one.
    fn locale_for(&self, form: Form, wanted: &str) -> Option<String> {
        lookup(wanted).into_iter().find(|locale| self.locales.contains(&(form, locale.clone())))
    }
}

fn subject_fault(name: &str, text: &str) -> Option<TemplateFault> {
    let unfit = text.is_empty() || text.chars().any(char::is_control);
    unfit.then(|| TemplateFault::new(name, "a subject is one line without control characters"))
}

/// A message that is to bring a link or a code, and brings neither.
fn bearing_fault(name: &str, text: &str, detail: Detail<'_>) -> Option<TemplateFault> {
    let (link, code, problem) = match detail {
        Detail::Token(token) if token.link.is_none() => {
            (None, token.code, "it does not show the code where there is no link")
        }
        Detail::Token(token) if token.code.is_some() => {
            (token.link, token.code, "it shows neither the link nor the code")
        }
        Detail::Token(token) => (token.link, None, "it does not show the link once the code has expired"),
        Detail::Undo(undo) => (Some(undo.link), None, "it does not show the link that takes the change back"),
        _ => return None,
    };
    let bears = link.is_some_and(|link| text.contains(link)) || code.is_some_and(|(code, _)| text.contains(code));
    (!bears).then(|| TemplateFault::new(name, problem))
}

#[cfg(test)]
mod tests {
    use majordomo_model::Timestamp;

    use super::*;
    use crate::notifier::facts::TokenFacts;
    use crate::notifier::shapes::{Shape, sample_code};

    const GSM_SEVEN_BIT: &str = "@ !\"#%&'()*+,-./:;<=>?";

    const LINK: &str = "https://example.com/app/accounts/x/mdt_y/";

    fn facts(detail: Detail<'_>) -> Facts<'_> {
        Facts {
            app_name: "Marks & Daughters <Ltd>",
            base_url: "https://example.com/app",
            host: "example.com",
            default_locale: "en",
            happened_at: SAMPLE_TIME,
            detail,
        }
    }

    /// Facts with a link and a code.
    fn token() -> Facts<'static> {
        let code = Some(("01234567", Timestamp::from_micros(1_767_222_600_000_000)));
        facts(Detail::Token(TokenFacts { link: Some(LINK), expires_at: SAMPLE_TIME, code }))
    }

    #[test]
    fn every_default_renders_in_every_shape_and_html_is_escaped() {
        let composer = Composer::new(Templates::embedded()).unwrap();
        for form in FORMS {
            for Shape { name, detail } in shapes(form.kind, LINK) {
                let rendered = composer.render(form.kind, form.channel, Some("xx"), &facts(detail)).unwrap();
                let is_mail = form.channel == Channel::Email;
                assert_eq!((rendered.subject.is_some(), rendered.html.is_some()), (is_mail, is_mail), "{form:?}");
                assert_eq!(rendered.locale, "en");
                assert!(rendered.text.contains("Marks & Daughters <Ltd>"), "{}", rendered.text);
                assert!(!rendered.text.contains("\n\n\n"), "{form:?} {name}: {}", rendered.text);
                let code = sample_code(form.kind);
                let (bears_link, bears_code) = match detail {
                    Detail::Token(token) => {
                        (token.link.is_some() && (is_mail || token.code.is_none()), token.code.is_some())
                    }
                    Detail::Undo(_) => (true, false),
                    Detail::Lock { link: Some(_), .. } => (is_mail, false),
                    _ => (false, false),
                };
                let lines: Vec<&str> = rendered.text.lines().collect();
                assert_eq!((lines.contains(&LINK), lines.contains(&code)), (bears_link, bears_code), "{form:?} {name}");
                if let Some(html) = rendered.html {
                    assert!(html.contains("Marks &amp; Daughters &lt;Ltd&gt;") && !html.contains("<Ltd>"), "{html}");
                    assert_eq!(html.contains(&format!("href=\"{LINK}\"")), bears_link);
                    assert_eq!(html.contains(&format!(">{code}<")), bears_code);
                    assert!(html.starts_with("<!doctype html>") && html.contains("lang=\"en\""), "{html}");
                    for foreign in ["<script", "<img", "@import", "url(", "src="] {
                        assert!(!html.contains(foreign), "{form:?}: {foreign}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_message_tells_when_its_link_and_code_end() {
        let composer = Composer::new(Templates::embedded()).unwrap();
        let rendered = composer.render(MessageKind::VerifyEmail, Channel::Email, None, &token()).unwrap();
        let ends = "until 2025-12-31 23:10 UTC, the link until 2026-01-01 00:00 UTC";
        assert!(rendered.text.contains(ends) && rendered.html.unwrap().contains(ends), "{}", rendered.text);
    }

    #[test]
    fn no_default_is_left_out_and_every_kind_has_a_form() {
        let names: BTreeSet<String> = FORMS
            .into_iter()
            .flat_map(|form| form.parts().iter().map(move |part| form.template(*part, None)))
            .chain(SHARED.map(str::to_owned))
            .collect();
        assert_eq!(names, Templates::embedded().sources.into_keys().collect());
        let files: BTreeSet<String> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/notifier/templates"))
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(names, files);
        let kinds: BTreeSet<MessageKind> = FORMS.iter().map(|form| form.kind).collect();
        assert_eq!(kinds.len(), 12);
    }

    /// One segment of the alphabet that every phone has (3GPP TS 23.038); a link needs a second one.
    #[test]
    fn a_text_message_is_one_segment_unless_it_brings_a_link() {
        let composer = Composer::new(Templates::embedded()).unwrap();
        let link = ["https://accounts.example.com", PATH].concat();
        for form in FORMS.into_iter().filter(|form| form.channel == Channel::Phone) {
            for Shape { name, detail } in shapes(form.kind, &link) {
                let facts = Facts { app_name: "A name of thirty-two characters.", ..facts(detail) };
                let text = composer.render(form.kind, form.channel, None, &facts).unwrap().text;
                let fits = |character: char| {
                    character.is_ascii_alphanumeric() || character == '\n' || GSM_SEVEN_BIT.contains(character)
                };
                assert!(text.replace(&link, "").chars().all(fits), "{text}");
                let limit = if text.contains(&link) { 2 * 153 } else { 160 };
                assert!(text.len() <= limit, "{form:?} {name}: {} characters: {text}", text.len());
            }
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
                .with_template("address_taken.subject.de.txt", "Hallo")
                .with_template("reset_password_phone.txt", "{% if code %}{{ code }}{% else %}Too late.{% endif %}")
                .with_template("reset_password_email.txt", "{{ code }} {{ link }}"),
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
            "reset_password_phone.txt",
            "reset_password_email.txt",
        ] {
            assert_eq!(named.iter().filter(|found| **found == name).count(), 1, "{name} in {named:?}");
            assert!(faults.to_string().contains(name));
        }
        assert_eq!(named.len(), 10, "{named:?}");
    }

    #[test]
    fn a_folder_replaces_and_adds_templates() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("verify_phone.txt", "Code\n{{ code or link }}\n");
        write("verify_phone.de.txt", "Ihr Code ({{ locale }})\n{{ code or link }}");
        write("verify_phone.pt-BR.txt", "Seu código\n{{ code or link }}");
        write("README.md", "{{ no template");
        let composer = Composer::new(Templates::embedded().with_folder(folder.path())).unwrap();
        let text = |wanted| {
            let rendered = composer.render(MessageKind::VerifyPhone, Channel::Phone, wanted, &token()).unwrap();
            (rendered.locale, rendered.text)
        };
        let english = ("en".to_owned(), "Code\n01234567".to_owned());
        let german = ("de".to_owned(), "Ihr Code (de)\n01234567".to_owned());
        assert_eq!(text(None), english);
        assert_eq!(text(Some("../../etc")), english);
        assert_eq!(text(Some("pt")), english);
        assert_eq!(text(Some("de")), german);
        assert_eq!(text(Some("de-AT")), german);
        assert_eq!(text(Some("de-Latn-DE-1996")), german);
        assert_eq!(text(Some("PT-br")).1, "Seu código\n01234567");

        let absent = Templates::embedded().with_folder(folder.path().join("absent"));
        assert!(Composer::new(absent).err().unwrap().to_string().contains("absent"));
    }

    #[test]
    fn the_layout_can_be_replaced_and_a_locale_can_have_its_own() {
        let layout =
            "<html lang=\"{{ locale }}\">{% block title %}{% endblock %}|{% block body %}{% endblock %}</html>";
        let german = [
            ("layout.de.html", "<html lang=\"{{ locale }}\">DE {% block body %}{% endblock %}</html>"),
            ("password_changed.subject.de.txt", "Neues Kennwort"),
            ("password_changed.de.txt", "Ihr Kennwort wurde am {{ happened_at }} geändert. {{ undo_link or '' }}"),
            (
                "password_changed.de.html",
                "{% extends \"layout.de.html\" %}{% block body %}<p>geändert</p>{{ undo_link or '' }}{% endblock %}",
            ),
        ];
        let templates =
            german.iter().fold(Templates::embedded(), |all, (name, source)| all.with_template(name, *source));
        let composer = Composer::new(templates.with_template("layout.html", layout)).unwrap();
        let html = |wanted| {
            let facts = facts(Detail::None);
            composer.render(MessageKind::PasswordChanged, Channel::Email, wanted, &facts).unwrap().html.unwrap()
        };
        assert!(html(None).starts_with("<html lang=\"en\">Your password was changed|\n<p"), "{}", html(None));
        assert_eq!(html(Some("de-CH")), "<html lang=\"de\">DE <p>geändert</p></html>");

        let broken = Templates::embedded().with_template("layout.html", "{% block %}");
        let faults = Composer::new(broken).err().unwrap();
        assert_eq!(faults.0.iter().map(|fault| fault.template.as_str()).collect::<Vec<_>>(), ["layout.html"]);
    }
}
