//! Tests of calls: against servers on loopback that answer well, badly, late and not at all.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;

const NOW: Timestamp = Timestamp::from_micros(784_111_777_000_000);
const AUTHORITY: &str = include_str!("tests/authority.pem");

/// Answers each connection's first request with the same bytes, then keeps it open or closes it.
struct Server {
    port: u16,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start(answer: &[u8], keeps_open: bool) -> Self {
        Self::start_on(Ipv4Addr::LOCALHOST, 0, answer, keeps_open).await
    }

    async fn start_on(address: Ipv4Addr, port: u16, answer: &[u8], keeps_open: bool) -> Self {
        let listener = TcpListener::bind((address, port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (answer, connections) = (answer.to_vec(), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let answer = answer.clone();
                tokio::spawn(async move {
                    let mut buffer = [0; 4_096];
                    while let Ok(1..) = stream.read(&mut buffer).await {
                        if stream.write_all(&answer).await.is_err() || !keeps_open {
                            return;
                        }
                    }
                });
            }
        });
        Self { port, connections, task }
    }

    fn url(&self, host: &str) -> String {
        format!("http://{host}:{}/hook", self.port)
    }
}

fn loopback() -> HttpSettings {
    let allowed_networks = vec!["127.0.0.1/32".parse().unwrap()];
    HttpSettings { allow_plain_http: true, allowed_networks, ..HttpSettings::default() }
}

fn impatient() -> HttpSettings {
    HttpSettings { timeout: Duration::from_millis(300), ..loopback() }
}

async fn post(client: &HttpClient, url: &str) -> Result<HttpAnswer, Unreached> {
    let headers = [("x-sample", "one")];
    client.call(HttpRequest { method: HttpMethod::Post, url, headers: &headers, body: b"{}".to_vec() }, NOW).await
}

/// What a name server answers: of each look-up the next list, the last one for good.
fn name_server(answers: &[&[&str]]) -> Arc<LookUp> {
    let parsed = answers.iter().map(|list| list.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<IpAddr>>());
    let answers = Mutex::new(parsed.collect::<VecDeque<_>>());
    Arc::new(move |_| {
        let mut answers = answers.lock().unwrap();
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        Box::pin(async move { answer.ok_or_else(|| io::Error::other("no such name")) })
    })
}

#[tokio::test]
async fn an_answer_is_status_pause_and_body() {
    let server = Server::start(b"HTTP/1.1 503 Busy\r\nRetry-After: 120\r\nContent-Length: 4\r\n\r\nbusy", false).await;
    let client = HttpClient::new(loopback()).unwrap();
    let answer = post(&client, &server.url("127.0.0.1")).await.unwrap();
    assert_eq!((answer.status, answer.retry_after), (503, Some(Duration::from_secs(120))));
    assert_eq!((answer.body.as_slice(), answer.is_complete), (&b"busy"[..], true));
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let inner = Server::start(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false).await;
    let location = inner.url("127.0.0.1");
    let answer = format!("HTTP/1.1 307 Elsewhere\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
    let server = Server::start(answer.as_bytes(), false).await;
    let client = HttpClient::new(loopback()).unwrap();
    assert_eq!(post(&client, &server.url("127.0.0.1")).await.unwrap().status, 307);
    assert_eq!(inner.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn what_misbehaves_is_bounded_and_told_apart() {
    let client = HttpClient::new(impatient()).unwrap();
    let silent = Server::start(b"", true).await;
    assert_eq!(post(&client, &silent.url("127.0.0.1")).await.unwrap_err(), Unreached::TimedOut);
    let slow_headers = Server::start(b"HTTP/1.1 200 OK\r\nX-One: 1\r\n", true).await;
    assert_eq!(post(&client, &slow_headers.url("127.0.0.1")).await.unwrap_err(), Unreached::TimedOut);
    let garbage = Server::start(b"220 mail.example.com ESMTP\r\n", false).await;
    assert_eq!(post(&client, &garbage.url("127.0.0.1")).await.unwrap_err(), Unreached::AnswerLost);
    let broken = Server::start(b"", false).await;
    assert_eq!(post(&client, &broken.url("127.0.0.1")).await.unwrap_err(), Unreached::AnswerLost);
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X-One: 1\r\n".repeat(HEADER_LIMIT + 1));
    let many = Server::start(many.as_bytes(), false).await;
    assert_eq!(post(&client, &many.url("127.0.0.1")).await.unwrap_err(), Unreached::AnswerLost);
    let long = format!("HTTP/1.1 200 OK\r\nX-One: {}\r\n\r\n", "1".repeat(1 << 20));
    let long = Server::start(long.as_bytes(), false).await;
    assert_eq!(post(&client, &long.url("127.0.0.1")).await.unwrap_err(), Unreached::AnswerLost);
    let closed = Server::start(b"", false).await.url("127.0.0.1");
    let refused = post(&client, &closed).await.unwrap_err();
    assert!(refused == Unreached::NotConnected && refused.is_transient() && !refused.may_have_arrived());
    let plain = garbage.url("127.0.0.1").replace("http:", "https:");
    assert!(matches!(post(&client, &plain).await.unwrap_err(), Unreached::TlsFailed | Unreached::NotConnected));
}

#[tokio::test]
async fn an_endless_body_is_cut_and_a_slow_one_does_not_undo_the_answer() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let endless = [head, "1000\r\n", &"x".repeat(0x1000), "\r\n1000\r\n"].concat();
    let endless = endless + &["x".repeat(0x1000), "\r\n1000\r\n".to_owned()].concat().repeat(8);
    let endless = Server::start(endless.as_bytes(), true).await;
    let client = HttpClient::new(impatient()).unwrap();
    let answer = post(&client, &endless.url("127.0.0.1")).await.unwrap();
    assert_eq!((answer.status, answer.body.len(), answer.is_complete), (200, BODY_LIMIT, false));
    let slow = Server::start(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nxx", true).await;
    let answer = post(&client, &slow.url("127.0.0.1")).await.unwrap();
    assert_eq!((answer.status, answer.body.len(), answer.is_complete), (200, 2, false));
}

#[tokio::test]
async fn every_spelling_of_an_inner_target_is_refused_before_a_connection() {
    let server = Server::start(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false).await;
    let settings = HttpSettings { allow_plain_http: true, ..HttpSettings::default() };
    let client = HttpClient::new(settings).unwrap();
    let hosts = [
        "127.0.0.1",
        "localhost",
        "localhost.",
        "LOCALHOST",
        "127.1",
        "2130706433",
        "0177.0.0.1",
        "0x7f.1",
        "0x7f000001",
        "127.0.0.1.",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "0.0.0.0",
        "0",
        "[::]",
        "169.254.169.254",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "10.0.0.1",
        "[fd00:ec2::254]",
        "①②⑦.0.0.1",
        "%31%32%37.0.0.1",
    ];
    for host in hosts {
        let refused = post(&client, &server.url(host)).await.unwrap_err();
        // Whether that is a name at all is the affair of the machine's resolver.
        let unknown = host == "localhost." && refused == Unreached::NameNotResolved;
        assert!(unknown || refused == Unreached::TargetRefused, "{host}: {refused}");
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 0);
    let strict = HttpClient::new(HttpSettings::default()).unwrap();
    for url in ["http://example.com/", "ftp://example.com/", "file:///etc/passwd", "https://ada@example.com/"] {
        assert_eq!(strict.check(url), Err(Unreached::TargetRefused), "{url}");
    }
    assert_eq!(strict.check("https://:pass@example.com/"), Err(Unreached::TargetRefused));
    assert_eq!(strict.check("no url"), Err(Unreached::InvalidRequest));
    assert_eq!(strict.check("https://example.com:8443/hook?key=1"), Ok(()));
}

#[tokio::test]
async fn a_name_that_is_bound_to_another_address_reaches_none_that_was_not_looked_at() {
    let outer = Server::start(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", false).await;
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret";
    let inner = Server::start_on(Ipv4Addr::new(127, 0, 0, 2), outer.port, answer, false).await;
    let names = name_server(&[&["127.0.0.1"], &["127.0.0.2"], &["127.0.0.2", "127.0.0.1"]]);
    let client = HttpClient::with_look_up(loopback(), names).unwrap();
    let url = outer.url("rebinding.example.com");
    assert_eq!(post(&client, &url).await.unwrap().status, 200);
    assert_eq!(post(&client, &url).await.unwrap_err(), Unreached::TargetRefused);
    assert_eq!(post(&client, &url).await.unwrap().status, 200);
    assert_eq!(inner.connections.load(Ordering::SeqCst), 0);
    assert_eq!(outer.connections.load(Ordering::SeqCst), 2);
    for (answers, class) in [(&[][..], Unreached::NameNotResolved), (&[&[][..]][..], Unreached::NameNotResolved)] {
        let client = HttpClient::with_look_up(loopback(), name_server(answers)).unwrap();
        assert_eq!(post(&client, &url).await.unwrap_err(), class);
    }
}

#[test]
fn connections_are_kept_on_a_runtime_and_not_missed_on_the_next() {
    let serving = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = serving.block_on(Server::start(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true));
    let client = HttpClient::new(loopback()).unwrap();
    for expected in [1, 2] {
        let calling = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for _ in 0..3 {
            let answer = calling.block_on(post(&client, &server.url("127.0.0.1"))).unwrap();
            assert_eq!(answer.status, 200);
        }
        assert_eq!(server.connections.load(Ordering::SeqCst), expected);
    }
}

/// A server that speaks TLS to one client.
fn tls_server() -> (u16, std::thread::JoinHandle<()>) {
    let certificates = CertificateDer::pem_slice_iter(include_bytes!("tests/server.pem")).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("tests/server.key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(versions.with_no_client_auth().with_single_cert(certificates, key).unwrap());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut connection = ServerConnection::new(config).unwrap();
        let mut stream = rustls::Stream::new(&mut connection, &mut socket);
        let mut buffer = [0; 4_096];
        if io::Read::read(&mut stream, &mut buffer).is_ok() {
            let _ = io::Write::write_all(&mut stream, b"HTTP/1.1 204 Done\r\n\r\n");
        }
    });
    (port, thread)
}

#[tokio::test]
async fn tls_proves_the_name_by_an_authority_that_is_trusted() {
    let trusting = HttpSettings { root_certificates: Some(AUTHORITY.to_owned()), ..loopback() };
    let cases = [
        ("hooks.example.com", trusting.clone(), Ok(204)),
        ("other.example.com", trusting, Err(Unreached::TlsFailed)),
        ("hooks.example.com", loopback(), Err(Unreached::TlsFailed)),
    ];
    for (host, settings, expected) in cases {
        let (port, thread) = tls_server();
        let client = HttpClient::with_look_up(settings, name_server(&[&["127.0.0.1"]])).unwrap();
        let answer = post(&client, &format!("https://{host}:{port}/hook")).await;
        assert_eq!(answer.map(|answer| answer.status), expected, "{host}");
        thread.join().unwrap();
    }
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let zero = HttpSettings { timeout: Duration::ZERO, ..HttpSettings::default() };
    let long = HttpSettings { connect_timeout: Duration::from_secs(51), ..HttpSettings::default() };
    for settings in [zero, long] {
        assert_eq!(HttpClient::new(settings).unwrap_err(), HttpFault::InvalidTimeout);
    }
    for text in ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let settings = HttpSettings { root_certificates: Some(text.to_owned()), ..HttpSettings::default() };
        assert_eq!(HttpClient::new(settings).unwrap_err(), HttpFault::InvalidCertificate, "{text}");
    }
}

#[tokio::test]
async fn a_header_cannot_be_broken_out_of() {
    let client = HttpClient::new(loopback()).unwrap();
    for (name, value) in [("x-one", "1\r\nx-two: 2"), ("x one", "1"), ("", "1")] {
        let request = HttpRequest {
            method: HttpMethod::Get,
            url: "http://127.0.0.1:1/",
            headers: &[(name, value)],
            body: Vec::new(),
        };
        assert_eq!(client.call(request, NOW).await.unwrap_err(), Unreached::InvalidRequest);
    }
}
