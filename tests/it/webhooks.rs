//! Webhooks: what an endpoint is sent, what becomes of its answers, and that nobody else waits for it.

mod endpoint;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use majordomo::notifier::{HttpSettings, WebhookAttempt, WebhookFault, WebhookSecret, WebhookSettings};
use majordomo::testing::TestAccounts;
use majordomo::{
    ChangePassword, Filter, HealthFault, Password, Register, Signal, SignalKind, Start, Subscription,
    SubscriptionStatus,
};

use self::endpoint::{Answer, Down, Endpoint, loopback, status, with_headers};
use crate::listening::{PASSWORD, Recorder, login, register, soon, until};
use crate::subscribing::{admin, attempts, state};

fn hook(name: &str, settings: WebhookSettings) -> Subscription {
    let kinds = [SignalKind::UserRegistered, SignalKind::UserAuthenticated, SignalKind::UserPasswordSet];
    majordomo::webhook(name, settings).unwrap().filter(Filter::kinds(kinds)).start(Start::Beginning)
}

/// Only registrations: one signal a user.
fn registrations(name: &str, settings: WebhookSettings) -> Subscription {
    hook(name, settings).filter(Filter::kinds([SignalKind::UserRegistered]))
}

async fn listed(test: &TestAccounts) -> Vec<WebhookAttempt> {
    soon(test.drain()).await;
    soon(test.webhook_attempts("crm", 5_000)).await.unwrap()
}

/// Waits until so many attempts are stored.
async fn until_listed(test: &TestAccounts, count: usize) -> Vec<WebhookAttempt> {
    soon(async {
        loop {
            let attempts = test.webhook_attempts("crm", 5_000).await.unwrap();
            if attempts.len() >= count {
                return attempts;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_user_s_signals_come_in_order_and_an_endpoint_that_is_down_holds_up_no_other() {
    let test = TestAccounts::start().await;
    let (good, down) = (Endpoint::start(|_, _| status(204)), Down::new());
    let recorder = Recorder::default();
    soon(test.add(hook("down", down.settings()))).await.unwrap();
    soon(test.add(hook("crm", good.settings()))).await.unwrap();
    let kinds = [SignalKind::UserRegistered, SignalKind::UserAuthenticated, SignalKind::UserPasswordSet];
    soon(test.subscribe("recorder", Filter::kinds(kinds), Start::Beginning, recorder.clone())).await.unwrap();
    for name in ["ada", "bob", "eve"] {
        register(&test, name).await;
        for _ in 0..3 {
            soon(test.authenticate(login(name))).await.unwrap();
        }
    }
    soon(test.drain()).await;
    let expected: BTreeMap<String, majordomo::Envelope> =
        recorder.seen().into_iter().map(|envelope| (envelope.id.to_string(), envelope)).collect();
    let requests = good.requests();
    assert_eq!((expected.len(), requests.len()), (15, 15));
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    for request in &requests {
        let (envelope, body) = (&expected[request.id()], request.json());
        assert_eq!(request.head, "POST /hook HTTP/1.1");
        assert_eq!(request.headers["content-type"], "application/json");
        assert!(request.headers["user-agent"].starts_with("majordomo/"));
        assert_eq!(request.headers["webhook-timestamp"], "1800000000");
        assert!(request.headers["webhook-signature"].starts_with("v1,"));
        assert_eq!(body["type"], envelope.signal.kind().as_str());
        assert_eq!(body["timestamp"], envelope.at.to_string());
        assert_eq!((&body["data"]["id"], &body["data"]["seq"]), (&request.id().into(), &envelope.seq.into()));
        let user = body["data"]["user"].as_str().unwrap().to_owned();
        let place = envelope.seq.unwrap();
        assert!(last.insert(user, place).is_none_or(|before| before < place), "in the order of the log");
    }
    let down = state(&test, "down").await;
    assert_eq!((down.handled, down.given_up, down.failures), (0, 0, 0), "put off, and no attempt is lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_says_when_to_come_back_and_is_left_alone_until_then() {
    let test = TestAccounts::start().await;
    let endpoint = Endpoint::start(|before, _| match before {
        0 => with_headers(429, "Retry-After: 120\r\n"),
        // The clock of the test stands at 2027-01-15T08:02:00Z then.
        1 => with_headers(503, "Retry-After: Fri, 15 Jan 2027 08:04:00 GMT\r\n"),
        _ => status(200),
    });
    soon(test.add(registrations("crm", endpoint.settings()).concurrency(1))).await.unwrap();
    register(&test, "ada").await;
    register(&test, "bob").await;
    soon(test.drain()).await;
    for (requests, answer) in [(1, 429), (2, 503)] {
        assert_eq!(endpoint.requests().len(), requests, "{answer}");
        test.advance(Duration::from_secs(119));
        soon(test.drain()).await;
        assert_eq!(endpoint.requests().len(), requests, "{answer}");
        test.advance(Duration::from_secs(1));
        soon(test.drain()).await;
    }
    let requests = endpoint.requests();
    let ids: Vec<_> = requests.iter().map(endpoint::Request::id).collect();
    assert!(ids.len() == 4 && ids[0] == ids[1] && ids[1] == ids[2] && ids[2] != ids[3], "{ids:?}");
    let times: Vec<_> = requests.iter().map(|request| request.headers["webhook-timestamp"].as_str()).collect();
    assert_eq!(times, ["1800000000", "1800000120", "1800000240", "1800000240"]);
    let told: Vec<_> = listed(&test).await.iter().rev().map(|a| (a.number, a.status.unwrap(), a.attempt)).collect();
    assert_eq!(told, [(0, 429, 1), (1, 503, 1), (2, 200, 1), (3, 200, 1)], "being put off costs no attempt");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_down_for_three_days_loses_nothing_and_one_that_is_down_for_longer_is_given_up_on() {
    let test = TestAccounts::start().await;
    let down = Down::new();
    soon(test.add(registrations("crm", down.settings()))).await.unwrap();
    register(&test, "ada").await;
    let hours = async |count: u64| {
        for _ in 0..count {
            test.advance(Duration::from_secs(3_600));
            soon(test.drain()).await;
        }
    };
    soon(test.drain()).await;
    hours(72).await;
    let out = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&out);
    let endpoint = down.up(move |_, _| if asked.load(Ordering::SeqCst) { status(503) } else { status(200) });
    hours(1).await;
    assert_eq!(endpoint.requests().len(), 1);
    assert_eq!(test.dead_letter_count("crm"), Ok(0));
    out.store(true, Ordering::SeqCst);
    register(&test, "bob").await;
    soon(test.drain()).await;
    hours(76).await;
    let letters = test.dead_letters("crm", None, 10).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].reason, "the endpoint could not be reached for 75 hours");
    let attempts = listed(&test).await;
    assert!(attempts.iter().filter(|attempt| attempt.status == Some(200)).count() == 1);
    assert!(attempts.iter().all(|attempt| attempt.attempt == 1));
    let refused = attempts.iter().filter(|attempt| attempt.failure.as_deref() == Some("not_connected"));
    assert!(refused.count() > 72);
    // It is tried again at the operator's word.
    out.store(false, Ordering::SeqCst);
    soon(test.retry_dead_letter("crm", letters[0].place, admin())).await.unwrap();
    test.advance(Duration::from_secs(3_600));
    soon(test.drain()).await;
    assert_eq!(endpoint.ids().last(), Some(&letters[0].envelope.id.to_string()));
    assert_eq!((test.dead_letter_count("crm"), listed(&test).await[0].status), (Ok(0), Some(200)));
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_an_endpoint_answers_is_an_attempt_and_nothing_else() {
    let inner = Endpoint::start(|_, _| status(200));
    let location = format!("Location: http://127.0.0.1:{}/\r\n", inner.port);
    let long = "x".repeat(5_000);
    let cases: Vec<(&str, Answer, Option<u16>, Option<&str>)> = vec![
        ("redirect", with_headers(307, &location), Some(307), None),
        ("refusal", status(404), Some(404), None),
        ("failure", status(500), Some(500), None),
        ("garbage", Answer::Bytes(b"220 mail.example.com\r\n".to_vec()), None, Some("answer_lost")),
        ("broken off", Answer::Bytes(b"HTTP/1.1 20".to_vec()), None, Some("answer_lost")),
        (
            "long",
            Answer::Bytes(format!("HTTP/1.1 500 No\r\nContent-Length: 5002\r\n\r\n\u{1b}\n{long}").into()),
            Some(500),
            None,
        ),
    ];
    for (name, answer, expected, failure) in cases {
        let test = TestAccounts::start().await;
        let endpoint = Endpoint::start(move |before, _| if before == 0 { answer.clone() } else { status(200) });
        soon(test.add(registrations("crm", endpoint.settings()).retry(attempts(3)))).await.unwrap();
        register(&test, "ada").await;
        let attempts = listed(&test).await;
        assert_eq!(attempts.len(), 2, "{name}: {attempts:?}");
        let (again, first) = (&attempts[0], &attempts[1]);
        assert_eq!((first.status, first.failure.as_deref(), first.attempt), (expected, failure, 1), "{name}");
        assert_eq!((again.status, again.attempt, again.signal), (Some(200), 2, first.signal), "{name}");
        if name == "long" {
            assert_eq!(
                first.answer.as_deref(),
                Some(format!("{}…", &long[..197]).as_str()),
                "cut, without control characters"
            );
        }
    }
    assert_eq!(inner.requests().len(), 0, "a redirect is not followed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_endpoint_keeps_sending_or_not_sending_ends() {
    let impatient = HttpSettings { timeout: Duration::from_millis(300), ..loopback() };
    let body = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let cases: Vec<(&str, Answer, Option<u16>, Option<&str>)> = vec![
        ("silent", Answer::Stuck(Vec::new()), None, Some("timed_out")),
        ("slow headers", Answer::Stuck(b"HTTP/1.1 200 OK\r\nX-One: 1\r\n".to_vec()), None, Some("timed_out")),
        ("slow body", Answer::Stuck(body), Some(200), None),
        ("endless head", Answer::Endless(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()), None, Some("timed_out")),
    ];
    for (name, answer, expected, failure) in cases {
        let test = TestAccounts::start().await;
        let endpoint = Endpoint::start(move |_, _| answer.clone());
        let settings = WebhookSettings { http: impatient.clone(), ..endpoint.settings() };
        soon(test.add(registrations("crm", settings).retry(attempts(1)))).await.unwrap();
        register(&test, "ada").await;
        let attempts = until_listed(&test, 1).await;
        let [attempt] = attempts.as_slice() else { panic!("{name}: {attempts:?}") };
        assert_eq!((attempt.status, attempt.failure.as_deref()), (expected, failure), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_gone_is_disabled_across_restarts_until_it_is_released() {
    let test = TestAccounts::start().await;
    let wanted = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&wanted);
    let endpoint = Endpoint::start(move |_, _| if asked.load(Ordering::SeqCst) { status(200) } else { status(410) });
    let settings = endpoint.settings();
    soon(test.add(registrations("crm", settings.clone()).concurrency(1))).await.unwrap();
    register(&test, "ada").await;
    soon(test.drain()).await;
    register(&test, "bob").await;
    soon(test.drain()).await;
    assert_eq!(state(&test, "crm").await.status, SubscriptionStatus::Quarantined);
    let told = test.recorded().into_iter().find_map(|envelope| match envelope.signal {
        Signal::SubscriberQuarantined { subscriber, failure } => Some((subscriber, failure)),
        _ => None,
    });
    assert_eq!(told, Some(("crm".to_owned(), "the endpoint answered 410: it wants no more".to_owned())));

    let again = registrations("crm", settings).concurrency(1);
    let test = soon(test.restart_with(|builder| builder.subscription(again))).await.unwrap();
    register(&test, "eve").await;
    soon(test.drain()).await;
    assert_eq!(endpoint.requests().len(), 1, "it is not called again");
    let faults = test.health().await.faults;
    assert!(faults.contains(&HealthFault::SubscriptionQuarantined { name: "crm".to_owned() }), "{faults:?}");
    wanted.store(true, Ordering::SeqCst);
    soon(test.release("crm")).await.unwrap();
    soon(test.drain()).await;
    let ids = endpoint.ids();
    assert!(ids.len() == 4 && ids[0] == ids[1], "from the one that was refused on: {ids:?}");
    let statuses: Vec<_> = listed(&test).await.iter().map(|attempt| attempt.status.unwrap()).collect();
    assert_eq!(statuses, [200, 200, 200, 410]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_the_id_the_attempts_and_the_time_to_come_back() {
    let test = TestAccounts::start().await;
    let endpoint = Endpoint::start(|before, _| match before {
        0 => with_headers(503, "Retry-After: 600\r\n"),
        _ => status(200),
    });
    let settings = endpoint.settings();
    soon(test.add(registrations("crm", settings.clone()))).await.unwrap();
    register(&test, "ada").await;
    assert_eq!(listed(&test).await.len(), 1);
    let again = registrations("crm", settings);
    let test = soon(test.restart_with(|builder| builder.subscription(again))).await.unwrap();
    soon(test.drain()).await;
    assert_eq!(endpoint.requests().len(), 1, "it is not time yet");
    test.advance(Duration::from_secs(600));
    let attempts = listed(&test).await;
    let ids = endpoint.ids();
    assert!(ids.len() == 2 && ids[0] == ids[1], "{ids:?}");
    assert_eq!(attempts.iter().map(|attempt| attempt.number).collect::<Vec<_>>(), [1, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_secret_signs_and_a_target_that_is_not_public_is_given_up_at_once() {
    let test = TestAccounts::start().await;
    let endpoint = Endpoint::start(|_, _| status(200));
    let secrets = (0..3).map(|_| WebhookSecret::generate().unwrap()).collect();
    let settings = WebhookSettings { secrets, ..endpoint.settings() };
    soon(test.add(registrations("crm", settings))).await.unwrap();
    // A name that leads to loopback: it is found out by looking it up only.
    let open = HttpSettings { allow_plain_http: true, ..HttpSettings::default() };
    let url = format!("http://localhost:{}/hook", endpoint.port);
    let inner = WebhookSettings { url, http: open.clone(), ..endpoint.settings() };
    soon(test.add(registrations("inner", inner))).await.unwrap();
    register(&test, "ada").await;
    soon(test.drain()).await;
    let requests = endpoint.requests();
    assert_eq!(requests.len(), 1);
    let signatures: Vec<_> = requests[0].headers["webhook-signature"].split(' ').collect();
    assert!(signatures.len() == 3 && signatures.iter().all(|signature| signature.starts_with("v1,")), "{signatures:?}");
    let letters = test.dead_letters("inner", None, 10).await.unwrap();
    assert_eq!(
        (letters.len(), letters[0].reason.as_str(), letters[0].attempts),
        (1, "the target may not be called", 1)
    );
    for host in ["169.254.169.254", "127.0.0.1", "2130706433", "0177.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"] {
        let secret = WebhookSecret::generate().unwrap();
        let settings =
            WebhookSettings { http: open.clone(), ..WebhookSettings::new(format!("http://{host}/"), secret) };
        assert_eq!(majordomo::webhook("crm", settings).unwrap_err(), WebhookFault::TargetRefused, "{host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn personal_data_is_redacted_unless_it_is_exposed_on_purpose_and_no_secret_is_sent() {
    let test = TestAccounts::start().await;
    let plain = Endpoint::start(|_, request| {
        // An endpoint that sends back what it was sent.
        Answer::Bytes(
            format!("HTTP/1.1 500 No\r\nContent-Length: {}\r\n\r\n{}", request.body.len(), request.body).into(),
        )
    });
    let exposed = Endpoint::start(|_, request| {
        Answer::Bytes(
            format!("HTTP/1.1 500 No\r\nContent-Length: {}\r\n\r\n{}", request.body.len(), request.body).into(),
        )
    });
    let everything =
        |name: &str, settings| hook(name, settings).filter(Filter::all()).retry(attempts(1)).quarantine_after(0);
    soon(test.add(everything("crm", plain.settings()))).await.unwrap();
    let settings = WebhookSettings { expose_personal_data: true, ..exposed.settings() };
    soon(test.add(everything("exposed", settings))).await.unwrap();
    let email = "ada.canary@example.com";
    let request = Register { email: Some(email.to_owned()), ..Register::new(PASSWORD) };
    let user = soon(test.register(request)).await.unwrap().user;
    until(|| !test.messages().messages().is_empty()).await;
    let new = "seventeen purple elephants";
    let change = ChangePassword { user, current: Password::new(PASSWORD), new: Password::new(new), keep: None };
    soon(test.change_password(change)).await.unwrap();
    soon(test.drain()).await;
    let bodies = |endpoint: &Endpoint| endpoint.requests().iter().fold(String::new(), |all, r| all + &r.body);
    let (plain_bodies, exposed_bodies) = (bodies(&plain), bodies(&exposed));
    assert!(plain_bodies.contains("a***@e***.com") && !plain_bodies.contains(email));
    assert!(exposed_bodies.contains(email));
    let message = test.messages().messages().remove(0);
    let token = message.link().unwrap().trim_end_matches('/').rsplit('/').next().unwrap().to_owned();
    let attempts = soon(test.webhook_attempts("exposed", 1_000)).await.unwrap();
    assert!(
        attempts.len() > 3 && attempts.iter().all(|attempt| attempt.answer.is_none()),
        "it would hold what was sent"
    );
    let attempts = listed(&test).await;
    let mut answered = attempts.iter().filter(|attempt| attempt.status.is_some()).peekable();
    assert!(answered.peek().is_some());
    assert!(answered.all(|attempt| attempt.answer.as_ref().is_some_and(|text| text.len() <= 200)), "{attempts:?}");
    for secret in [PASSWORD, new, &token, "sealed", "$argon2", "whsec_"] {
        assert!(!plain_bodies.contains(secret) && !exposed_bodies.contains(secret), "{secret}");
    }
}
