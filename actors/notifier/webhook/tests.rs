//! What an endpoint's answer means.

use majordomo_model::{Actor, Context, FlowId, Lane, SCHEMA_VERSION, Sender, Signal, SignalId, UserId};

use super::*;

const SENT: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

fn webhook() -> Webhook {
    let secret = WebhookSecret::generate().unwrap();
    Webhook::new(WebhookSettings::new("https://hooks.example.com/majordomo", secret)).unwrap()
}

fn sample() -> Envelope {
    let user = UserId::new();
    Envelope {
        seq: Some(1),
        id: SignalId::new(),
        flow: FlowId::new(),
        cause: None,
        lane: Lane::User(user),
        at: SENT,
        sender: Sender::USER_MANAGER,
        actor: Actor::System,
        path: Vec::new(),
        context: Context::new(),
        schema: SCHEMA_VERSION,
        signal: Signal::UserDeletionStarted { user },
    }
}

fn answered(status: u16, retry_after: Option<u64>) -> Result<HttpAnswer, Unreached> {
    let retry_after = retry_after.map(Duration::from_secs);
    Ok(HttpAnswer { status, retry_after, body: Vec::new(), is_complete: true })
}

#[test]
fn each_answer_has_its_outcome() {
    let (webhook, envelope) = (webhook(), sample());
    let weigh = |answer| webhook.weigh(answer, &envelope, SENT);
    for status in [200, 201, 202, 204, 299] {
        assert!(matches!(weigh(answered(status, None)), Outcome::Done(effects) if effects.is_empty()), "{status}");
    }
    for status in [301, 302, 307, 308, 400, 401, 403, 404, 408, 409, 422, 425, 500, 501, 502, 504, 599] {
        assert!(matches!(weigh(answered(status, Some(9))), Outcome::Retry { .. }), "{status}");
    }
    assert!(matches!(weigh(answered(410, None)), Outcome::Halt { .. }));
    for status in [429, 503] {
        assert!(matches!(weigh(answered(status, None)), Outcome::Defer { until } if until > SENT), "{status}");
        let after = SENT.plus(Duration::from_secs(120));
        assert!(matches!(weigh(answered(status, Some(120))), Outcome::Defer { until } if until == after), "{status}");
        // Not at once, even if it says so.
        assert!(matches!(weigh(answered(status, Some(0))), Outcome::Defer { until } if until == SENT.plus(PAUSE_MIN)));
    }
    for out in [Unreached::NameNotResolved, Unreached::NotConnected, Unreached::TlsFailed, Unreached::TimedOut] {
        assert!(matches!(weigh(Err(out)), Outcome::Defer { .. }), "{out}");
    }
    assert!(matches!(weigh(Err(Unreached::AnswerLost)), Outcome::Retry { .. }));
    for refused in [Unreached::TargetRefused, Unreached::InvalidRequest] {
        assert!(matches!(weigh(Err(refused)), Outcome::Reject { .. }), "{refused}");
    }
}

#[test]
fn an_endpoint_that_is_out_is_left_alone_for_longer_and_longer_and_given_up_in_the_end() {
    let (webhook, envelope) = (webhook(), sample());
    let (mut now, mut pauses) = (SENT, Vec::new());
    let rejected = loop {
        match webhook.weigh(Err(Unreached::NotConnected), &envelope, now) {
            Outcome::Defer { until } => {
                pauses.push(until.since(now));
                now = until;
            }
            outcome => break outcome,
        }
    };
    assert!(matches!(rejected, Outcome::Reject { .. }), "{rejected:?}");
    assert!(now.since(SENT) >= GIVE_UP_AFTER && now.since(SENT) <= GIVE_UP_AFTER + Duration::from_secs(3_600));
    let (first, last) = (pauses[0], pauses[pauses.len() - 1]);
    assert!(first >= Duration::from_millis(4_500) && first <= Duration::from_secs(5), "{first:?}");
    assert!(last >= Duration::from_secs(3_240) && last <= Duration::from_secs(3_600), "{last:?}");
    // What is new is put off as before, and one answer makes it good.
    let fresh = Envelope { at: now, ..sample() };
    assert!(matches!(webhook.weigh(Err(Unreached::NotConnected), &fresh, now), Outcome::Defer { .. }));
    webhook.weigh(answered(500, None), &fresh, now);
    let Outcome::Defer { until } = webhook.weigh(Err(Unreached::NotConnected), &fresh, now) else { panic!() };
    assert!(until.since(now) <= Duration::from_secs(5), "it has been out for less than an hour");
    let old = webhook.weigh(Err(Unreached::TimedOut), &envelope, now);
    assert!(matches!(old, Outcome::Retry { .. }), "others get through: from now on this one costs attempts: {old:?}");
}

#[test]
fn what_several_find_out_at_once_is_one_failure_and_a_wish_to_be_left_alone_outlives_an_answer() {
    let (webhook, envelope) = (webhook(), sample());
    let weigh = |answer, now| webhook.weigh(answer, &envelope, now);
    let Outcome::Defer { until } = weigh(Err(Unreached::NotConnected), SENT) else { panic!() };
    for _ in 0..7 {
        let Outcome::Defer { until: same } = weigh(Err(Unreached::NotConnected), SENT) else { panic!() };
        assert_eq!(same, until);
    }
    let Outcome::Defer { until: second } = weigh(Err(Unreached::NotConnected), until) else { panic!() };
    assert!(second.since(until) <= Duration::from_secs(10), "the second failure, not the ninth");

    let asked = second.plus(Duration::from_secs(600));
    assert!(matches!(weigh(answered(429, Some(600)), second), Outcome::Defer { until } if until == asked));
    assert!(matches!(weigh(answered(200, None), second), Outcome::Done(_)));
    assert_eq!(webhook.standing().rests_until, Some(asked));
    assert!(matches!(weigh(answered(200, None), asked), Outcome::Done(_)));
    assert_eq!(webhook.standing().rests_until, None);
}

#[test]
fn the_retries_take_about_75_hours() {
    let policy = Webhook::retry_policy();
    let last = policy.attempts.unwrap();
    assert!(!policy.is_exhausted(last - 1, Duration::MAX) && policy.is_exhausted(last, Duration::ZERO));
    for (share, least, most) in [(0, 75, 80), (u32::MAX, 68, 75)] {
        let total: Duration = (1..last).map(|failures| policy.pause(failures, share)).sum();
        let hours = total.as_secs() / 3_600;
        assert!((least..=most).contains(&hours), "{hours}");
    }
}

#[test]
fn what_cannot_be_called_is_refused_at_once() {
    let refused = |url: &str| Webhook::new(WebhookSettings::new(url, WebhookSecret::generate().unwrap())).unwrap_err();
    for url in ["http://hooks.example.com/", "https://127.0.0.1/", "https://[::1]/", "https://a:b@hooks.example.com/"] {
        assert_eq!(refused(url), WebhookFault::TargetRefused, "{url}");
    }
    assert_eq!(refused("hooks.example.com"), WebhookFault::InvalidUrl);
}
