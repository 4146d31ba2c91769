//! Webhooks: every delivery is verified by the official libraries, and every event parsed by the official SDKs.

#[path = "../it/webhooks/endpoint.rs"]
#[allow(dead_code, reason = "the other tests of webhooks use the rest of it")]
mod endpoint;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use majordomo::notifier::{WebhookFormat, WebhookSecret, WebhookSettings};
use majordomo::{Accounts, Authenticate, Config, Filter, HashParameters, Password, Register, SignalKind, Start};
use serde_json::{Value, json};

use self::endpoint::{Answer, Endpoint, Request, loopback, status};
use crate::counterpart::{Running, installed, python, script};

const PASSWORD: &str = "nine lanterns over a quiet harbour";
const SOURCE: &str = "https://accounts.example.com";
/// The folder of a child of the test that is to be killed, in its environment.
const CHILD_FOLDER: &str = "MAJORDOMO_WEBHOOK_CHILD";

/// Bounds what could otherwise wait for ever.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), what).await.expect("it takes too long")
}

fn builder() -> majordomo::Builder {
    // By the system's clock, since receivers refuse what is older than five minutes.
    Accounts::builder().configure(|config: &mut Config| config.hashing.parameters = HashParameters::cheap_for_tests())
}

async fn register(accounts: &Accounts, name: &str) {
    let request = Register { username: Some(name.to_owned()), ..Register::new(PASSWORD) };
    soon(accounts.register(request)).await.unwrap();
}

/// What an endpoint is sent of a few flows.
async fn deliveries(change: impl FnOnce(&mut WebhookSettings)) -> Vec<Request> {
    let endpoint = Endpoint::start(|_, _| status(204));
    let mut settings = endpoint.settings();
    change(&mut settings);
    let hook = majordomo::webhook("crm", settings).unwrap().filter(Filter::all()).start(Start::Beginning);
    let accounts = soon(builder().in_memory().subscription(hook).spawn()).await.unwrap();
    // Beyond ASCII, and with what JSON has to escape.
    for name in ["ada", "grüße"] {
        register(&accounts, name).await;
    }
    for password in [PASSWORD, "a wrong one, surely"] {
        let login = Authenticate { identifier: "ada".to_owned(), password: Password::new(password) };
        let _ = soon(accounts.authenticate(login)).await;
    }
    soon(accounts.drain()).await;
    assert!(soon(accounts.shutdown()).await);
    let requests = endpoint.requests();
    assert!(requests.len() > 10, "{requests:?}");
    requests
}

/// A question to a verifier.
fn question(request: &Request, secret: &str, event: bool) -> Value {
    json!({ "headers": request.headers, "body": request.body, "secret": secret, "event": event })
}

/// What a verifier answers to each question.
fn ask(mut verifier: Command, questions: &[Value]) -> Vec<Value> {
    let mut child = verifier.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = questions.iter().fold(String::new(), |lines, question| lines + &question.to_string() + "\n");
    let mut input = child.stdin.take().unwrap();
    let writing = std::thread::spawn(move || input.write_all(lines.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap();
    assert!(output.status.success());
    let answers: Vec<_> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), questions.len());
    answers
}

fn verifiers() -> [(&'static str, Command); 2] {
    let mut in_python = python();
    in_python.arg(script("verify_webhooks.py"));
    let mut in_node = Command::new("node");
    in_node.arg(script("verify_webhooks.js")).arg(installed("node"));
    [("Python", in_python), ("JavaScript", in_node)]
}

/// As the official crate says.
fn is_verified_in_rust(request: &Request, secret: &str) -> bool {
    let headers = request.headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
    let headers: http::HeaderMap =
        headers.collect::<Vec<(http::HeaderName, http::HeaderValue)>>().into_iter().collect();
    standardwebhooks::Webhook::new(secret).unwrap().verify(request.body.as_bytes(), &headers).is_ok()
}

/// The same request, falsified in each way that a receiver has to notice.
fn falsified(request: &Request) -> Vec<Request> {
    let with = |name: &str, value: String| {
        let mut changed = request.clone();
        changed.headers.insert(name.to_owned(), value);
        changed
    };
    let time: i64 = request.headers["webhook-timestamp"].parse().unwrap();
    let signature = request.headers["webhook-signature"].replace("v1,", "v1,A");
    let mut body = request.clone();
    body.body = body.body.replacen("\"type\"", "\"Type\"", 1);
    assert_ne!(body.body, request.body);
    vec![
        body,
        with("webhook-timestamp", (time + 1).to_string()),
        with("webhook-timestamp", (time - 3_600).to_string()),
        with("webhook-id", "another".to_owned()),
        with("webhook-signature", signature),
        with("webhook-signature", request.headers["webhook-signature"].replace("v1,", "v2,")),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_delivery_is_verified_by_each_official_library_during_a_rotation_too() {
    let secrets: Vec<_> = (0..2).map(|_| WebhookSecret::generate().unwrap()).collect();
    let (old, new) = (secrets[0].expose(), secrets[1].expose());
    let stranger = WebhookSecret::generate().unwrap().expose();
    let before = deliveries(|settings| settings.secrets = vec![secrets[0].clone()]).await;
    let during = deliveries(|settings| settings.secrets = vec![secrets[1].clone(), secrets[0].clone()]).await;
    let after = deliveries(|settings| settings.secrets = vec![secrets[1].clone()]).await;
    let mut questions = Vec::new();
    let mut expected = Vec::new();
    for (requests, with_old, with_new) in [(&before, true, false), (&during, true, true), (&after, false, true)] {
        for request in requests {
            for (secret, is_good) in [(&old, with_old), (&new, with_new), (&stranger, false)] {
                questions.push((request.clone(), secret.clone()));
                expected.push(is_good);
            }
        }
        for request in falsified(&requests[0]) {
            questions.extend([(request.clone(), old.clone()), (request, new.clone())]);
            expected.extend([false, false]);
        }
    }
    for ((request, secret), is_good) in questions.iter().zip(&expected) {
        assert_eq!(is_verified_in_rust(request, secret), *is_good, "{request:?}");
    }
    let asked: Vec<_> = questions.iter().map(|(request, secret)| question(request, secret, false)).collect();
    for (name, verifier) in verifiers() {
        let answers = ask(verifier, &asked);
        for (((request, _), is_good), answer) in questions.iter().zip(&expected).zip(&answers) {
            assert_eq!(answer.get("error").is_none(), *is_good, "{name}: {answer} {request:?}");
            if *is_good {
                assert_eq!(answer["verified"], request.json(), "{name}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_verified_and_parsed_by_each_official_sdk() {
    let secret = WebhookSecret::generate().unwrap();
    let requests = deliveries(|settings| {
        settings.secrets = vec![secret.clone()];
        settings.format =
            WebhookFormat::CloudEvents { source: SOURCE.to_owned(), type_prefix: "com.example.accounts".to_owned() };
    })
    .await;
    let asked: Vec<_> = requests.iter().map(|request| question(request, &secret.expose(), true)).collect();
    for (name, verifier) in verifiers() {
        let answers = ask(verifier, &asked);
        let mut subjects = 0;
        for (request, answer) in requests.iter().zip(&answers) {
            let (event, sent) = (&answer["event"], request.json());
            assert!(answer.get("error").is_none(), "{name}: {answer} {request:?}");
            assert_eq!(request.headers["content-type"], "application/cloudevents+json");
            assert_eq!((&event["specversion"], &event["source"]), (&json!("1.0"), &json!(SOURCE)), "{name}");
            assert_eq!((&event["id"], event["id"].as_str()), (&sent["id"], Some(request.id())), "{name}");
            let kind = event["type"].as_str().unwrap().strip_prefix("com.example.accounts.").unwrap();
            assert!(SignalKind::ALL.iter().any(|known| known.as_str() == kind), "{name}: {kind}");
            assert_eq!((&event["subject"], &event["data"]), (&sent["subject"], &sent["data"]), "{name}");
            assert!(event["time"].as_str().unwrap().starts_with(&sent["time"].as_str().unwrap()[..19]), "{name}");
            subjects += usize::from(event["subject"].is_string());
        }
        assert!(subjects > 5, "{name}");
    }
    // The SDKs would notice: an event without what every event has, signed anew.
    let mut without = requests[0].clone();
    without.body = without.body.replacen("\"source\"", "\"sauce\"", 1);
    let time = without.headers["webhook-timestamp"].parse().unwrap();
    let signer = standardwebhooks::Webhook::new(&secret.expose()).unwrap();
    let signature = signer.sign(without.id(), time, without.body.as_bytes()).unwrap();
    without.headers.insert("webhook-signature".to_owned(), signature);
    let questions = [question(&without, &secret.expose(), false), question(&without, &secret.expose(), true)];
    for (name, verifier) in verifiers() {
        let answers = ask(verifier, &questions);
        assert!(answers[0].get("error").is_none() && answers[1].get("error").is_some(), "{name}: {answers:?}");
    }
}

/// The system over a file, as the child and whoever comes after it run it.
async fn over_a_file(folder: &Path) -> Accounts {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let secret = WebhookSecret::parse(&read("secret")).unwrap();
    let settings = WebhookSettings { http: loopback(), ..WebhookSettings::new(read("url"), secret) };
    let hook = majordomo::webhook("crm", settings).unwrap();
    let hook = hook.filter(Filter::kinds([SignalKind::UserRegistered])).start(Start::Beginning);
    soon(builder().file(folder.join("accounts.redb")).subscription(hook).spawn()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the child of the next test, which kills it"]
async fn child_that_is_killed_before_its_webhook_is_answered() {
    let Some(folder) = std::env::var_os(CHILD_FOLDER) else { return };
    let accounts = over_a_file(Path::new(&folder)).await;
    register(&accounts, "ada").await;
    soon(accounts.drain()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_acceptance_and_answer_leads_to_one_duplicate_with_the_same_webhook_id() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::start(|before, _| if before == 0 { Answer::Stuck(Vec::new()) } else { status(204) });
    std::fs::write(folder.path().join("url"), endpoint.settings().url).unwrap();
    std::fs::write(folder.path().join("secret"), WebhookSecret::generate().unwrap().expose()).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "webhooks::child_that_is_killed_before_its_webhook_is_answered"]);
    let mut child = Running::start(command.env(CHILD_FOLDER, folder.path()));
    soon(async {
        while endpoint.requests().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    child.kill();

    let accounts = over_a_file(folder.path()).await;
    soon(accounts.drain()).await;
    let ids = endpoint.ids();
    assert!(ids.len() == 2 && ids[0] == ids[1], "{ids:?}");
    assert_eq!(soon(accounts.webhook_attempts("crm", 10)).await.unwrap().len(), 1, "the one whose end was seen");
    assert!(soon(accounts.shutdown()).await);
}
