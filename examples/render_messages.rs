//! Every message as it would be sent, in each language and shape, to be looked at: `cargo run --example render_messages`.
//!
//! Give it a folder to write to, and a folder with templates of your own after it if there are any.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it shows things")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use majordomo::notifier::{NotifierSettings, Sample, Templates};

type Failure = Box<dyn std::error::Error>;

const PAGE: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Messages</title><style>\
    :root { color-scheme: light dark } body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; \
    padding: 0 1rem } section { margin: 0 0 3rem } h2 { margin: 0 } .parts { display: grid; gap: 1rem; \
    grid-template-columns: 1fr 1fr } iframe { width: 100%; height: 40rem; border: 1px solid #8886 } pre { margin: 0; \
    padding: 1rem; border: 1px solid #8886; white-space: pre-wrap; overflow-wrap: anywhere }</style><h1>Messages</h1>\n";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let fallback = || std::env::temp_dir().join(format!("majordomo-messages-{}", std::process::id()));
    let folder = arguments.next().unwrap_or_else(fallback);
    match render(&folder, arguments.next().as_deref()) {
        Ok(count) => {
            println!("{count} messages are in {}", folder.display());
            println!("look at {}", folder.join("index.html").display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("the messages could not be rendered: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Renders all messages into a folder, and answers how many there are.
fn render(folder: &Path, own: Option<&Path>) -> Result<usize, Failure> {
    let templates = own.into_iter().fold(Templates::embedded(), Templates::with_folder);
    let samples = templates.render_samples(&NotifierSettings::new("Example", "https://accounts.example.com"))?;
    fs::create_dir_all(folder)?;
    let mut page = PAGE.to_owned();
    for sample in &samples {
        let stem = format!("{}.{}", sample.name, sample.message.locale);
        write_files(folder, &stem, sample)?;
        let subject = sample.message.subject.as_deref().unwrap_or("text message");
        write!(page, "<section><h2>{}</h2><p>{}</p><div class=\"parts\">", escaped(&stem), escaped(subject))?;
        write!(page, "<pre>{}</pre>", escaped(&sample.message.text))?;
        if sample.message.html.is_some() {
            write!(page, "<iframe src=\"{stem}.html\" title=\"{stem}\" loading=\"lazy\"></iframe>")?;
        }
        page.push_str("</div></section>\n");
    }
    fs::write(folder.join("index.html"), page)?;
    Ok(samples.len())
}

fn write_files(folder: &Path, stem: &str, sample: &Sample) -> Result<(), Failure> {
    fs::write(folder.join(format!("{stem}.txt")), &sample.message.text)?;
    if let Some(html) = &sample.message.html {
        fs::write(folder.join(format!("{stem}.html")), html)?;
    }
    if let Some(mail) = sample.internet_message() {
        fs::write(folder.join(format!("{stem}.eml")), mail)?;
    }
    Ok(())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
