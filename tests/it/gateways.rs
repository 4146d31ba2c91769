//! Gateways: each provider's example sends what its documentation asks for, and understands what that says it answers.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use majordomo::notifier::{
    BoxedTransport, CapturedMessage, CapturedOutbox, EmailApi, GatewayDescription, HttpSettings, HttpSmsGateway,
    SendError, Sms, SmsSettings,
};
use majordomo::{Accounts, Builder, Channel, ConfirmEmail, Proof, Register, ServiceSecret};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tracing_subscriber::filter::LevelFilter;

use crate::person::{EMAIL, PASSWORD, PHONE, cheap, soon};

/// A request as it came in.
#[derive(Debug)]
pub struct Received {
    pub method: String,
    pub target: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Received {
    fn json(&self) -> Value {
        assert_eq!(self.headers["content-type"], "application/json");
        serde_json::from_str(&self.body).unwrap()
    }

    fn form(&self) -> BTreeMap<String, String> {
        assert_eq!(self.headers["content-type"], "application/x-www-form-urlencoded");
        let pairs = self.body.split('&').map(|pair| pair.split_once('=').unwrap());
        pairs.map(|(name, value)| (decoded(name), decoded(value))).collect()
    }
}

fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.bytes());
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            b'+' => b' ',
            byte => byte,
        });
    }
    String::from_utf8(bytes).unwrap()
}

/// What a server does with a request.
#[derive(Clone)]
pub enum Reply {
    Bytes(Vec<u8>),
    /// A body that does not end, as far as the other side takes it.
    Endless(u16),
    /// Nothing, until the other side has gone.
    Silence,
}

pub fn answer(status: u16, headers: &str, body: &str) -> Reply {
    let length = body.len();
    let head = format!("HTTP/1.1 {status} Sample\r\n{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n");
    Reply::Bytes((head + body).into_bytes())
}

/// A provider on loopback: it answers each request with the next reply, and with the last one for good.
pub struct Server {
    pub port: u16,
    received: UnboundedReceiver<Received>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        let mut replies: Vec<Reply> = replies.into_iter().collect();
        replies.reverse();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, received) = unbounded_channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(mut stream) = stream else { return };
                stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                let Some(request) = read(&mut stream) else { continue };
                let _ = sender.send(request);
                let reply = if replies.len() > 1 { replies.pop() } else { replies.last().cloned() };
                serve(&mut stream, reply.unwrap());
            }
        });
        Self { port, received, stop, thread: Some(thread) }
    }

    /// What has come in by now.
    pub fn taken(&mut self) -> Vec<Received> {
        std::iter::from_fn(|| self.received.try_recv().ok()).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn read(stream: &mut TcpStream) -> Option<Received> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4_096]);
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let mut lines = head.lines();
            let mut first = lines.next()?.split(' ').map(str::to_owned);
            let (method, target) = (first.next()?, first.next()?);
            let headers = lines.filter_map(|line| line.split_once(": "));
            let headers: BTreeMap<_, _> =
                headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
            let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
            if body.len() >= length {
                return Some(Received { method, target, headers, body: body.to_owned() });
            }
        }
        match stream.read(&mut buffer) {
            Ok(count @ 1..) => bytes.extend(&buffer[..count]),
            _ => return None,
        }
    }
}

fn serve(stream: &mut TcpStream, reply: Reply) {
    match reply {
        Reply::Bytes(bytes) => drop(stream.write_all(&bytes)),
        Reply::Silence => while stream.read(&mut [0; 64]).is_ok_and(|count| count > 0) {},
        Reply::Endless(status) => {
            let head = format!("HTTP/1.1 {status} Sample\r\nTransfer-Encoding: chunked\r\n\r\n");
            let chunk = ["1000\r\n", &"x".repeat(0x1000), "\r\n"].concat();
            let mut sent = stream.write_all(head.as_bytes());
            for _ in 0..10_000 {
                sent = sent.and_then(|()| stream.write_all(chunk.as_bytes()));
            }
            assert!(sent.is_err(), "somebody read 40 MB of it");
        }
    }
}

/// A description among the examples, its host replaced by the loopback address.
fn example(name: &str, host: &str, port: u16) -> GatewayDescription {
    let path = format!("{}/examples/gateways/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let mut description: GatewayDescription = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(description.name, name);
    assert!(description.documentation.is_some());
    let rest = description.url.strip_prefix(&format!("https://{host}/")).expect("the host of the documentation");
    description.url = format!("http://127.0.0.1:{port}/{rest}");
    description
}

pub fn loopback() -> HttpSettings {
    let allowed_networks = vec!["127.0.0.1/32".parse().unwrap()];
    HttpSettings { allow_plain_http: true, allowed_networks, ..HttpSettings::default() }
}

type Secret = (&'static str, &'static str);

fn transport(
    channel: Channel,
    description: &GatewayDescription,
    http: HttpSettings,
    secrets: &[Secret],
) -> BoxedTransport {
    let secrets = secrets.iter().map(|(name, secret)| (*name, ServiceSecret::new(*secret)));
    match channel {
        Channel::Email => Arc::new(EmailApi::new(description, http, secrets).unwrap()),
        Channel::Phone => {
            let gateway = HttpSmsGateway::new(description, http, secrets).unwrap();
            Arc::new(Sms::new(gateway, SmsSettings::new(["+44"])).unwrap())
        }
    }
}

/// Messages as a notifier hands them over: for an e-mail address, and for a phone number.
async fn messages() -> [CapturedMessage; 2] {
    let outbox = CapturedOutbox::new();
    let channels = [Channel::Email, Channel::Phone];
    let builder = Accounts::builder().in_memory().config(cheap());
    let builder = channels.iter().fold(builder, |builder, channel| builder.transport(outbox.transport(*channel)));
    let accounts = spawn(builder).await;
    register(&accounts).await;
    soon(outbox.wait_for(2)).await;
    accounts.shutdown().await;
    [EMAIL, PHONE].map(|address| outbox.last_to(address).unwrap())
}

async fn spawn(builder: Builder) -> Accounts {
    soon(builder.spawn()).await.unwrap()
}

async fn register(accounts: &Accounts) {
    let (email, phone) = (Some(EMAIL.to_owned()), Some(PHONE.to_owned()));
    soon(accounts.register(Register { email, phone, ..Register::new(PASSWORD) })).await.unwrap();
}

/// An answer of the documentation, the class that it comes to, and what the reason ends with.
type Case = (u16, Value, &'static str, &'static str);

struct Provider {
    name: &'static str,
    host: &'static str,
    channel: Channel,
    secrets: &'static [Secret],
    cases: Vec<Case>,
}

impl Provider {
    /// Sends the message once a case; gives back the last request.
    async fn run(self, messages: &[CapturedMessage; 2]) -> (Received, CapturedMessage) {
        let replies = self.cases.iter().map(|(status, body, ..)| match body {
            Value::Null => answer(*status, "", ""),
            body => answer(*status, "Content-Type: application/json\r\n", &body.to_string()),
        });
        let mut server = Server::start(replies);
        let description = example(self.name, self.host, server.port);
        let transport = transport(self.channel, &description, loopback(), self.secrets);
        let message = messages.iter().find(|message| message.channel == self.channel).unwrap().clone();
        for (status, body, class, end) in &self.cases {
            let sent = soon(transport.send(&message)).await;
            let found = sent.as_ref().map_or_else(SendError::as_str, |()| "sent");
            assert_eq!(found, *class, "{}: {status} {body} {sent:?}", self.name);
            let Err(error) = sent else { continue };
            let told = format!("{error} {error:?}");
            assert!(error.to_string().ends_with(end), "{}: {told}", self.name);
            let code = message.code().unwrap();
            for hidden in ["canary", EMAIL, &PHONE[1..], code, "127.0.0.1", self.host] {
                assert!(!told.contains(hidden), "{}: {told}", self.name);
            }
        }
        let mut received = server.taken();
        assert_eq!(received.len(), self.cases.len(), "no answer makes it call again by itself");
        let last = received.pop().unwrap();
        assert_eq!(last.method, "POST");
        assert!(received.iter().all(|request| request.body == last.body && request.headers == last.headers));
        (last, message)
    }
}

fn fields(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn twilio_is_sent_a_form() {
    let messages = messages().await;
    let error = |code: u32, status: u16| {
        let more_info = format!("https://www.twilio.com/docs/errors/{code}");
        json!({"code": code, "message": format!("It concerns {PHONE}."), "more_info": more_info, "status": status})
    };
    let accepted = json!({
        "account_sid": "AC5canary", "api_version": "2010-04-01", "body": "Hi", "direction": "outbound-api",
        "error_code": null, "error_message": null, "from": "+15005550006", "num_segments": "1", "price": null,
        "sid": "SM87105da94bff44b999e4e6eb90d8eb6a", "status": "queued", "to": PHONE
    });
    let twilio = Provider {
        name: "twilio",
        host: "api.twilio.com",
        channel: Channel::Phone,
        secrets: &[("account_sid", "AC5canary"), ("auth_token", "twilio-canary")],
        cases: vec![
            (201, accepted, "sent", ""),
            (400, error(21_211, 400), "permanent", "twilio answered with status 400, code 21211"),
            (400, error(21_610, 400), "permanent", "code 21610"),
            (400, error(21_606, 400), "unavailable", "code 21606"),
            (401, error(20_003, 401), "unavailable", "status 401, code 20003"),
            (429, error(20_429, 429), "unavailable", "status 429, code 20429"),
            (500, error(20_500, 500), "transient", "status 500, code 20500"),
        ],
    };
    let (request, message) = twilio.run(&messages).await;
    assert_eq!(request.target, "/2010-04-01/Accounts/AC5canary/Messages.json");
    assert_eq!(request.headers["authorization"], "Basic QUM1Y2FuYXJ5OnR3aWxpby1jYW5hcnk=");
    assert_eq!(request.form(), fields(&[("To", PHONE), ("From", "+15005550006"), ("Body", &message.text)]));
}

#[tokio::test]
async fn vonage_is_sent_a_form() {
    let messages = messages().await;
    let accepted = json!({"message-count": "1", "messages": [{
        "to": "447911123456", "message-id": "0C000000217B7F02", "status": "0", "remaining-balance": "15.53590000",
        "message-price": "0.03330000", "network": "23410"
    }]});
    let error = |status: &str| json!({"message-count": "1", "messages": [{"status": status, "error-text": "to 447911123456, canary"}]});
    let vonage = Provider {
        name: "vonage",
        host: "rest.nexmo.com",
        channel: Channel::Phone,
        secrets: &[("api_key", "vonage-canary"), ("api_secret", "a&b=canary%")],
        cases: vec![
            (200, accepted, "sent", ""),
            (200, error("1"), "unavailable", "vonage answered with status 200, code 1"),
            (200, error("4"), "unavailable", "code 4"),
            (200, error("5"), "transient", "code 5"),
            (200, error("9"), "unavailable", "code 9"),
            (200, error("7"), "permanent", "code 7"),
            (200, error("99"), "transient", "code 99"),
            (200, json!({"message-count": "0", "messages": []}), "transient", "status 200"),
        ],
    };
    let (request, message) = vonage.run(&messages).await;
    assert_eq!((request.target.as_str(), request.headers.get("authorization")), ("/sms/json", None));
    let expected = fields(&[
        ("api_key", "vonage-canary"),
        ("api_secret", "a&b=canary%"),
        ("to", "447911123456"),
        ("from", "Example"),
        ("text", &message.text),
        ("client-ref", &message.id.to_string()),
    ]);
    assert_eq!(request.form(), expected);
}

#[tokio::test]
async fn infobip_is_sent_json() {
    let messages = messages().await;
    let answered = |group: u8, group_name: &str, name: &str| {
        let status = json!({"groupId": group, "groupName": group_name, "id": 26, "name": name, "description": "to 447911123456"});
        json!({"bulkId": "2034072219640523072", "messages": [{
            "messageId": "250be2d4-194e-4779-86b5-e5d22c8d0d3a", "status": status, "destination": "447911123456",
            "details": {"messageCount": 1}
        }]})
    };
    let refused = |code: &str| json!({"errorCode": code, "description": "canary", "violations": [], "resources": []});
    let infobip = Provider {
        name: "infobip",
        host: "xxxxx.api.infobip.com",
        channel: Channel::Phone,
        secrets: &[("api_key", "infobip-canary")],
        cases: vec![
            (200, answered(1, "PENDING", "PENDING_ACCEPTED"), "sent", ""),
            (200, answered(5, "REJECTED", "REJECTED_DESTINATION"), "permanent", "code REJECTED_DESTINATION"),
            (
                200,
                answered(5, "REJECTED", "REJECTED_NOT_ENOUGH_CREDITS"),
                "unavailable",
                "code REJECTED_NOT_ENOUGH_CREDITS",
            ),
            (200, answered(2, "UNDELIVERABLE", "UNDELIVERABLE_REJECTED_OPERATOR"), "permanent", "OPERATOR"),
            (200, answered(4, "EXPIRED", "EXPIRED_UNKNOWN"), "transient", "EXPIRED_UNKNOWN"),
            (400, refused("E400"), "permanent", "status 400, code E400"),
            (401, refused("E401"), "unavailable", "status 401, code E401"),
            (429, refused("E429"), "unavailable", "code E429"),
            (500, refused("E500"), "transient", "code E500"),
        ],
    };
    let (request, message) = infobip.run(&messages).await;
    assert_eq!(request.target, "/sms/3/messages");
    assert_eq!(request.headers["authorization"], "App infobip-canary");
    let destination = json!({"to": "447911123456", "messageId": message.id.to_string()});
    let content = json!({"text": message.text});
    let expected = json!({"messages": [{"sender": "Example", "destinations": [destination], "content": content}]});
    assert_eq!(request.json(), expected);
}

#[tokio::test]
async fn plivo_is_sent_json() {
    let messages = messages().await;
    let accepted = json!({
        "api_id": "db342550-7f1d-11e1-8ea7-1231380bc196", "message": "message(s) queued",
        "message_uuid": ["db3ce55a-7f1d-11e1-8ea7-1231380bc196"]
    });
    let refused = json!({"api_id": "97ceeb52-58b6-11e1-86da-77300b68f8bb", "error": "447911123456 is canary"});
    let plivo = Provider {
        name: "plivo",
        host: "api.plivo.com",
        channel: Channel::Phone,
        secrets: &[("auth_id", "MA5canary"), ("auth_token", "plivo-canary")],
        cases: vec![
            (202, accepted, "sent", ""),
            (400, refused.clone(), "permanent", "plivo answered with status 400"),
            (401, refused.clone(), "unavailable", "status 401"),
            (429, refused.clone(), "unavailable", "status 429"),
            (202, refused, "transient", "status 202"),
        ],
    };
    let (request, message) = plivo.run(&messages).await;
    assert_eq!(request.target, "/v1/Account/MA5canary/Message/");
    assert_eq!(request.headers["authorization"], "Basic TUE1Y2FuYXJ5OnBsaXZvLWNhbmFyeQ==");
    let expected =
        json!({"src": "14152828726", "dst": "447911123456", "text": message.text, "type": "sms", "log": false});
    assert_eq!(request.json(), expected);
}

#[tokio::test]
async fn postmark_is_sent_json() {
    let messages = messages().await;
    let answered = |code: u16, message: &str| json!({"ErrorCode": code, "Message": message});
    let accepted = json!({
        "To": EMAIL, "SubmittedAt": "2014-02-17T07:25:01.4178645-05:00",
        "MessageID": "0a129aee-e1cd-480d-b08d-4f48548ff48d", "ErrorCode": 0, "Message": "OK"
    });
    let inactive = format!("You tried to send to a recipient that has been marked as inactive: {EMAIL}, canary");
    let postmark = Provider {
        name: "postmark",
        host: "api.postmarkapp.com",
        channel: Channel::Email,
        secrets: &[("server_token", "postmark-canary")],
        cases: vec![
            (200, accepted, "sent", ""),
            (422, answered(406, &inactive), "permanent", "postmark answered with status 422, code 406"),
            (422, answered(300, "Invalid 'To' address"), "permanent", "code 300"),
            (422, answered(400, "Sender Signature not found"), "unavailable", "code 400"),
            (422, answered(405, "Not allowed to send"), "unavailable", "code 405"),
            (401, answered(10, "Bad or missing API token"), "unavailable", "code 10"),
            (200, answered(406, &inactive), "transient", "status 200, code 406"),
            (500, Value::Null, "transient", "status 500"),
        ],
    };
    let (request, message) = postmark.run(&messages).await;
    assert_eq!(request.target, "/email");
    assert_eq!(request.headers["x-postmark-server-token"], "postmark-canary");
    assert_eq!(request.headers["accept"], "application/json");
    let from = message.from.clone().unwrap();
    let expected = json!({
        "From": format!("\"Example\" <{}>", from.address), "To": EMAIL, "Subject": message.subject,
        "TextBody": message.text, "HtmlBody": message.html, "MessageStream": "outbound", "TrackOpens": false,
        "TrackLinks": "None", "Metadata": {"signal": message.id.to_string()}
    });
    assert_eq!(request.json(), expected);
}

#[tokio::test]
async fn sendgrid_is_sent_json() {
    let messages = messages().await;
    let refused =
        |field: &str| json!({"errors": [{"message": format!("{EMAIL} canary"), "field": field, "help": null}]});
    let sendgrid = Provider {
        name: "sendgrid",
        host: "api.sendgrid.com",
        channel: Channel::Email,
        secrets: &[("api_key", "SG.canary")],
        cases: vec![
            (202, Value::Null, "sent", ""),
            (400, refused("personalizations.0.to"), "permanent", "status 400, code personalizations.0.to"),
            (401, json!({"errors": [{"message": "canary", "field": null}]}), "unavailable", "status 401"),
            (403, refused("from"), "unavailable", "status 403, code from"),
            (413, refused("content"), "permanent", "status 413, code content"),
            (429, refused(""), "unavailable", "status 429"),
            (200, Value::Null, "transient", "status 200"),
        ],
    };
    let (request, message) = sendgrid.run(&messages).await;
    assert_eq!(
        (request.target.as_str(), request.headers["authorization"].as_str()),
        ("/v3/mail/send", "Bearer SG.canary")
    );
    let expected = json!({
        "personalizations": [{"to": [{"email": EMAIL}], "custom_args": {"signal": message.id.to_string()}}],
        "from": {"email": message.from.as_ref().unwrap().address, "name": "Example"}, "subject": message.subject,
        "content": [{"type": "text/plain", "value": message.text}, {"type": "text/html", "value": message.html}],
        "tracking_settings": {
            "click_tracking": {"enable": false, "enable_text": false}, "open_tracking": {"enable": false}
        }
    });
    assert_eq!(request.json(), expected);
}

#[tokio::test]
async fn mailgun_is_sent_a_form() {
    let messages = messages().await;
    let mailgun = Provider {
        name: "mailgun",
        host: "api.mailgun.net",
        channel: Channel::Email,
        secrets: &[("api_key", "mailgun-canary")],
        cases: vec![
            (
                200,
                json!({"id": "<20111114174239.25659.5817@example.com>", "message": "Queued. Thank you."}),
                "sent",
                "",
            ),
            (
                400,
                json!({"message": format!("to parameter is not a valid address: {EMAIL}")}),
                "permanent",
                "status 400",
            ),
            (401, Value::Null, "unavailable", "mailgun answered with status 401"),
            (429, json!({"message": "canary"}), "unavailable", "status 429"),
            (500, json!({"message": "canary"}), "transient", "status 500"),
        ],
    };
    let (request, message) = mailgun.run(&messages).await;
    assert_eq!(request.target, "/v3/example.com/messages");
    assert_eq!(request.headers["authorization"], "Basic YXBpOm1haWxndW4tY2FuYXJ5");
    let from = format!("\"Example\" <{}>", message.from.as_ref().unwrap().address);
    let expected = fields(&[
        ("from", &from),
        ("to", EMAIL),
        ("subject", message.subject.as_deref().unwrap()),
        ("text", &message.text),
        ("html", message.html.as_deref().unwrap()),
        ("o:tracking", "no"),
        ("v:signal", &message.id.to_string()),
    ]);
    assert_eq!(request.form(), expected);
}

#[tokio::test]
async fn resend_is_sent_json_with_an_idempotency_key() {
    let messages = messages().await;
    let refused = |status: u16, name: &str| json!({"statusCode": status, "message": "canary", "name": name});
    let resend = Provider {
        name: "resend",
        host: "api.resend.com",
        channel: Channel::Email,
        secrets: &[("api_key", "re_canary")],
        cases: vec![
            (200, json!({"id": "49a3999c-0ce1-4ea6-ab68-afcd6dc2e794"}), "sent", ""),
            (
                422,
                refused(422, "validation_error"),
                "permanent",
                "resend answered with status 422, code validation_error",
            ),
            (422, refused(422, "invalid_from_address"), "unavailable", "code invalid_from_address"),
            (409, refused(409, "invalid_idempotent_request"), "permanent", "code invalid_idempotent_request"),
            (409, refused(409, "concurrent_idempotent_requests"), "transient", "code concurrent_idempotent_requests"),
            (401, refused(401, "missing_api_key"), "unavailable", "status 401, code missing_api_key"),
            (429, refused(429, "daily_quota_exceeded"), "unavailable", "code daily_quota_exceeded"),
            (500, refused(500, "application_error"), "transient", "code application_error"),
        ],
    };
    let (request, message) = resend.run(&messages).await;
    assert_eq!((request.target.as_str(), request.headers["authorization"].as_str()), ("/emails", "Bearer re_canary"));
    assert_eq!(request.headers["idempotency-key"], message.id.to_string());
    let expected = json!({
        "from": format!("\"Example\" <{}>", message.from.as_ref().unwrap().address), "to": [EMAIL], "subject": message.subject, "text": message.text, "html": message.html
    });
    assert_eq!(request.json(), expected);
}

const TWILIO: &[Secret] = &[("account_sid", "AC5canary"), ("auth_token", "twilio-canary")];

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_misbehaves_is_classified() {
    let [_, message] = messages().await;
    let mut elsewhere = Server::start([answer(201, "", r#"{"sid": "SM1"}"#)]);
    let location = format!("Location: http://127.0.0.1:{}/\r\n", elsewhere.port);
    let cases = [
        ("silence", Reply::Silence, "transient", "no answer came in time"),
        ("no HTTP", Reply::Bytes(b"220 mail.example.com ESMTP\r\n".to_vec()), "transient", "the answer was lost"),
        ("closed", Reply::Bytes(Vec::new()), "transient", "the answer was lost"),
        (
            "broken off",
            Reply::Bytes(b"HTTP/1.1 201 Created\r\nContent-Le".to_vec()),
            "transient",
            "the answer was lost",
        ),
        (
            "half a body",
            Reply::Bytes(b"HTTP/1.1 201 A\r\nContent-Length: 90\r\n\r\n{\"sid\": 1}".to_vec()),
            "transient",
            "201",
        ),
        ("endless", Reply::Endless(201), "transient", "status 201"),
        ("endless error", Reply::Endless(400), "permanent", "status 400"),
        ("no JSON", answer(201, "", "<html>Created</html>"), "transient", "status 201"),
        ("deep JSON", answer(201, "", &"[".repeat(10_000)), "transient", "status 201"),
        ("redirect", answer(302, &location, ""), "unavailable", "status 302"),
        ("moved", answer(308, &location, ""), "unavailable", "status 308"),
        ("a pause", answer(503, "Retry-After: 120\r\n", ""), "unavailable", "status 503"),
        ("another pause", answer(500, "Retry-After: 120\r\n", ""), "unavailable", "status 500"),
        ("gone", answer(410, "", "AC5canary twilio-canary"), "permanent", "status 410"),
    ];
    for (name, reply, class, end) in cases {
        let server = Server::start([reply]);
        let description = example("twilio", "api.twilio.com", server.port);
        let http =
            HttpSettings { timeout: Duration::from_millis(if name == "silence" { 300 } else { 20_000 }), ..loopback() };
        let sent = soon(transport(Channel::Phone, &description, http, TWILIO).send(&message)).await;
        let error = sent.expect_err(name);
        assert_eq!(error.as_str(), class, "{name}: {error}");
        assert!(error.to_string().ends_with(end), "{name}: {error}");
        let pause = match error {
            SendError::Unavailable { retry_after, .. } => retry_after,
            _ => None,
        };
        assert_eq!(pause, name.contains("pause").then_some(Duration::from_secs(120)), "{name}");
    }
    assert!(elsewhere.taken().is_empty(), "a redirect is not followed");
    let port = Server::start([Reply::Silence]).port;
    let description = example("twilio", "api.twilio.com", port);
    let sent = soon(transport(Channel::Phone, &description, loopback(), TWILIO).send(&message)).await;
    assert_eq!(sent.unwrap_err(), SendError::unavailable("twilio: no connection came about"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_success_that_is_told_by_its_status_stands_whatever_follows() {
    let [message, _] = messages().await;
    let server = Server::start([Reply::Endless(202)]);
    let description = example("sendgrid", "api.sendgrid.com", server.port);
    let transport = transport(Channel::Email, &description, loopback(), &[("api_key", "SG.canary")]);
    assert_eq!(soon(transport.send(&message)).await, Ok(()));
}

#[tokio::test]
async fn what_a_gateway_may_not_be_called_for_never_reaches_it() {
    let [_, message] = messages().await;
    let mut server = Server::start([answer(201, "", r#"{"sid": "SM1"}"#)]);
    let description = example("twilio", "api.twilio.com", server.port);
    let secrets = || TWILIO.iter().map(|(name, secret)| (*name, ServiceSecret::new(*secret)));
    let sms = |settings| {
        let gateway = HttpSmsGateway::new(&description, loopback(), secrets()).unwrap();
        Arc::new(Sms::new(gateway, settings).unwrap()) as BoxedTransport
    };
    let refused = soon(sms(SmsSettings::new(["US", "+49"])).send(&message)).await.unwrap_err();
    assert!(matches!(&refused, SendError::Permanent(reason) if reason.contains("country")), "{refused}");
    assert!(server.taken().is_empty());
    assert_eq!(soon(sms(SmsSettings::new(["+44"])).send(&message)).await, Ok(()));
    assert_eq!(server.taken().len(), 1);
    let strict = HttpSmsGateway::new(&description, HttpSettings::default(), secrets()).unwrap_err();
    assert_eq!(strict.as_str(), "url", "loopback is not for everybody");
}

/// What one thread logs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_secret_is_in_the_log_whatever_a_gateway_does() {
    let messages = messages().await;
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_ansi(false);
    let listening = tracing::subscriber::set_default(subscriber.with_writer(move || writer.clone()).finish());
    let vonage: &[Secret] = &[("api_key", "vonage-canary"), ("api_secret", "second-canary")];
    let resend: &[Secret] = &[("api_key", "re_canary")];
    let providers = [
        ("twilio", "api.twilio.com", TWILIO, Channel::Phone),
        ("vonage", "rest.nexmo.com", vonage, Channel::Phone),
        ("resend", "api.resend.com", resend, Channel::Email),
    ];
    for (name, host, secrets, channel) in providers {
        let echo = "X-Echo: twilio-canary\r\n";
        let replies = [answer(200, echo, "canary"), answer(400, echo, "canary"), Reply::Bytes(b"canary".to_vec())];
        let server = Server::start(replies);
        let description = example(name, host, server.port);
        let transport = transport(channel, &description, loopback(), secrets);
        for message in messages.iter().filter(|message| message.channel == channel).cycle().take(3) {
            let error = soon(transport.send(message)).await.unwrap_err();
            tracing::error!(%error, ?error, ?description, "sample");
        }
    }
    drop(listening);
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert_eq!(log.matches("sample").count(), 9);
    let code = |message: &CapturedMessage| message.code().unwrap().to_owned();
    let [mail, text] = [code(&messages[0]), code(&messages[1])];
    for hidden in ["canary", "Y2FuYXJ5", EMAIL, &PHONE[1..], mail.as_str(), text.as_str()] {
        let line = log.lines().find(|line| line.contains(hidden));
        assert_eq!(line, None, "{hidden}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_system_over_gateways_sends_a_link_that_works() {
    let mut mail = Server::start([answer(200, "", r#"{"ErrorCode": 0, "MessageID": "1", "Message": "OK"}"#)]);
    let mut text = Server::start([answer(201, "", r#"{"sid": "SM1", "status": "queued"}"#)]);
    let postmark = example("postmark", "api.postmarkapp.com", mail.port);
    let twilio = example("twilio", "api.twilio.com", text.port);
    let secrets = |secrets: &[Secret]| {
        secrets.iter().map(|(name, secret)| (*name, ServiceSecret::new(*secret))).collect::<Vec<_>>()
    };
    let sms = HttpSmsGateway::new(&twilio, loopback(), secrets(TWILIO)).unwrap();
    let builder = Accounts::builder()
        .in_memory()
        .config(cheap())
        .transport(EmailApi::new(&postmark, loopback(), secrets(&[("server_token", "canary")])).unwrap())
        .transport(Sms::new(sms, SmsSettings::new(["+44"])).unwrap());
    let accounts = spawn(builder).await;
    register(&accounts).await;
    let sent = soon(mail.received.recv()).await.unwrap().json();
    assert_eq!(sent["To"], EMAIL);
    let link = sent["TextBody"].as_str().unwrap().lines().find(|line| line.starts_with("http")).unwrap().to_owned();
    let proof = Proof::from_link(&link).unwrap();
    soon(accounts.confirm_email(ConfirmEmail { proof })).await.unwrap();
    assert_eq!(soon(text.received.recv()).await.unwrap().form()["To"], PHONE);
    assert!(soon(accounts.shutdown()).await);
}
