//! An endpoint on loopback that keeps what it is sent, and answers as it is told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use majordomo::notifier::{HttpSettings, WebhookSecret, WebhookSettings};

/// What the endpoint was sent.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) head: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// What the endpoint does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// Sends this and closes.
    Bytes(Vec<u8>),
    /// Sends this, and then nothing, with the connection open.
    Stuck(Vec<u8>),
    /// Sends this again and again.
    Endless(Vec<u8>),
}

pub(crate) fn status(status: u16) -> Answer {
    with_headers(status, "")
}

pub(crate) fn with_headers(status: u16, headers: &str) -> Answer {
    Answer::Bytes(format!("HTTP/1.1 {status} Said\r\nConnection: close\r\nContent-Length: 0\r\n{headers}\r\n").into())
}

type Play = dyn Fn(usize, &Request) -> Answer + Send + Sync;

/// It is stopped when it is dropped.
pub(crate) struct Endpoint {
    pub(crate) port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
    task: JoinHandle<()>,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The port of an endpoint that is down: nobody else gets it, and who calls it is refused.
pub(crate) struct Down {
    socket: TcpSocket,
    port: u16,
}

impl Down {
    pub(crate) fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = socket.local_addr().unwrap().port();
        Self { socket, port }
    }

    pub(crate) fn settings(&self) -> WebhookSettings {
        settings(self.port)
    }

    /// Answers each request, given how many there were before it.
    pub(crate) fn up(self, play: impl Fn(usize, &Request) -> Answer + Send + Sync + 'static) -> Endpoint {
        let listener = self.socket.listen(256).unwrap();
        let (requests, play): (Arc<Mutex<Vec<Request>>>, Arc<Play>) = (Arc::default(), Arc::new(play));
        let kept = Arc::clone(&requests);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&kept), Arc::clone(&play)));
            }
        });
        Endpoint { port: self.port, requests, task }
    }
}

fn settings(port: u16) -> WebhookSettings {
    let secret = WebhookSecret::generate().unwrap();
    WebhookSettings { http: loopback(), ..WebhookSettings::new(format!("http://127.0.0.1:{port}/hook"), secret) }
}

impl Endpoint {
    /// Answers each request, given how many there were before it.
    pub(crate) fn start(play: impl Fn(usize, &Request) -> Answer + Send + Sync + 'static) -> Self {
        Down::new().up(play)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        self.requests().iter().map(|request| request.id().to_owned()).collect()
    }

    pub(crate) fn settings(&self) -> WebhookSettings {
        settings(self.port)
    }
}

/// Loopback may be called.
pub(crate) fn loopback() -> HttpSettings {
    HttpSettings {
        allow_plain_http: true,
        allowed_networks: vec!["127.0.0.1/32".parse().unwrap()],
        timeout: Duration::from_secs(20),
        ..HttpSettings::default()
    }
}

async fn serve(mut stream: TcpStream, kept: Arc<Mutex<Vec<Request>>>, play: Arc<Play>) {
    let mut read = Vec::new();
    let request = loop {
        let mut buffer = [0; 4_096];
        match stream.read(&mut buffer).await {
            Ok(count @ 1..) => read.extend(&buffer[..count]),
            _ => return,
        }
        if let Some(request) = parse(&read) {
            break request;
        }
    };
    let answer = {
        let mut kept = kept.lock().unwrap();
        let answer = play(kept.len(), &request);
        kept.push(request);
        answer
    };
    match answer {
        Answer::Bytes(bytes) => drop(stream.write_all(&bytes).await),
        Answer::Stuck(bytes) => {
            let _ = stream.write_all(&bytes).await;
            // Until the other side has had enough.
            let _ = stream.read(&mut [0]).await;
        }
        Answer::Endless(bytes) => while stream.write_all(&bytes).await.is_ok() {},
    }
}

fn parse(read: &[u8]) -> Option<Request> {
    let text = String::from_utf8(read.to_vec()).ok()?;
    let (top, body) = text.split_once("\r\n\r\n")?;
    let (head, headers) = top.split_once("\r\n")?;
    let headers: BTreeMap<String, String> = headers
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length: usize = headers["content-length"].parse().unwrap();
    (body.len() >= length).then(|| Request { head: head.to_owned(), headers, body: body.to_owned() })
}
