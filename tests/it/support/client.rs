//! Clients as personas, over the router in this process or over a socket.

use std::net::{IpAddr, SocketAddr};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Method, Request, StatusCode, header::AUTHORIZATION},
};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use latchkey::http::Peer;
use serde_json::{Value, json};
use tower::ServiceExt;
use uuid::Uuid;

use super::PASSWORD;

#[derive(Clone)]
enum Way {
    InProcess(Router),
    Socket(SocketAddr),
}

/// Somebody who sends requests.
#[derive(Clone)]
pub struct Client {
    way: Way,
    headers: HeaderMap,
    peer: SocketAddr,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Asserts the status and gives the reply back, so that a test reads as a sentence.
    #[track_caller]
    pub fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self
    }

    /// Asserts that it is the problem of this code.
    #[track_caller]
    #[expect(clippy::wrong_self_convention, reason = "it reads as a sentence, and gives the reply on")]
    pub fn is_problem(self, status: u16, code: &str) -> Self {
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", String::from_utf8_lossy(&self.body));
        let problem = self.json();
        assert_eq!((self.status, problem["code"].as_str().unwrap_or_default()), (status, code), "{problem}");
        self
    }

    /// The codes in `errors[]`.
    pub fn reasons(&self) -> Vec<String> {
        let problem = self.json();
        let reasons = problem["errors"].as_array().cloned().unwrap_or_default();
        reasons
            .iter()
            .map(|reason| format!("{}:{}", reason["field"].as_str().unwrap(), reason["code"].as_str().unwrap()))
            .collect()
    }

    pub fn text(&self, pointer: &str) -> String {
        self.json().pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer}")).to_owned()
    }
}

/// A JSON body with its content type.
pub fn json_body(value: &Value) -> Body {
    Body::from(value.to_string())
}

impl Client {
    /// A client of routes in this process.
    pub fn of(router: Router) -> Self {
        Self { way: Way::InProcess(router), headers: HeaderMap::new(), peer: ([127, 0, 0, 1], 4711).into() }
    }

    /// A client that comes over a socket.
    pub fn at(address: SocketAddr) -> Self {
        Self { way: Way::Socket(address), headers: HeaderMap::new(), peer: address }
    }

    /// The same client at another address; in this process only, a socket has the one it has.
    pub fn coming_from(&self, address: impl Into<IpAddr>) -> Self {
        let mut client = self.clone();
        client.peer.set_ip(address.into());
        client
    }

    /// The same client with one more header in every request.
    pub fn with(&self, name: &'static str, value: &str) -> Self {
        let mut client = self.clone();
        client.headers.append(name, value.parse().unwrap());
        client
    }

    /// The same client with one more header, whose value need be no text.
    pub fn with_bytes(&self, name: &'static str, value: &[u8]) -> Self {
        let mut client = self.clone();
        client.headers.append(name, axum::http::HeaderValue::from_bytes(value).unwrap());
        client
    }

    /// The same client with an access token.
    pub fn bearer(&self, token: &str) -> Self {
        let mut client = self.clone();
        client.headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        client
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, Body::empty()).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.with("content-type", "application/json").send(Method::POST, path, json_body(&body)).await
    }

    /// A body as it is, JSON or not.
    pub async fn post_raw(&self, path: &str, content_type: &str, body: impl Into<Body>) -> Reply {
        self.with("content-type", content_type).send(Method::POST, path, body.into()).await
    }

    pub async fn send(&self, method: Method, path: &str, body: Body) -> Reply {
        self.try_send(method, path, body).await.expect("the server answers")
    }

    /// As [`Client::send`], for a server that may be gone.
    pub async fn try_send(
        &self,
        method: Method,
        path: &str,
        body: Body,
    ) -> Result<Reply, Box<dyn std::error::Error + Send + Sync>> {
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost").body(body)?;
        request.headers_mut().extend(self.headers.clone());
        let (parts, body) = match &self.way {
            Way::InProcess(router) => {
                request.extensions_mut().insert(Peer(self.peer));
                let (parts, body) = router.clone().oneshot(request).await?.into_parts();
                (parts, body.collect().await?.to_bytes())
            }
            Way::Socket(address) => {
                let stream = tokio::net::TcpStream::connect(address).await?;
                let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
                tokio::spawn(connection);
                let (parts, body) = request.into_parts();
                let body = Full::<Bytes>::new(body.collect().await?.to_bytes());
                let (parts, body) = sender.send_request(Request::from_parts(parts, body)).await?.into_parts();
                (parts, body.collect().await?.to_bytes())
            }
        };
        Ok(Reply { status: parts.status.as_u16(), headers: parts.headers, body: body.to_vec() })
    }

    /// Registers `name` with an address and a username of that name, and signs in.
    pub async fn register(&self, name: &str) -> Person {
        let email = format!("{name}@example.com");
        let body = json!({"email": email, "username": name, "password": PASSWORD});
        let id = self.post("/register", body).await.is(201).text("/user/id");
        let mut person = Person {
            client: self.clone(),
            id: id.parse().unwrap(),
            email,
            access: String::new(),
            refresh: String::new(),
            session: Uuid::nil(),
        };
        person.sign_in().await;
        person
    }

    pub async fn login(&self, email: &str, password: &str) -> Reply {
        self.post("/login", json!({"email": email, "password": password})).await
    }

    pub async fn refresh(&self, token: &str) -> Reply {
        self.post("/refresh", json!({"refresh_token": token})).await
    }
}

/// A registered person with the tokens of one session.
#[derive(Clone)]
pub struct Person {
    pub client: Client,
    pub id: Uuid,
    pub email: String,
    pub access: String,
    pub refresh: String,
    pub session: Uuid,
}

impl Person {
    /// Opens a new session and keeps its tokens.
    pub async fn sign_in(&mut self) {
        let reply = self.client.login(&self.email, PASSWORD).await.is(200);
        self.take(&reply);
    }

    /// The same person in another, new session.
    pub async fn elsewhere(&self) -> Self {
        let mut other = self.clone();
        other.sign_in().await;
        other
    }

    /// Keeps the tokens of an answer.
    pub fn take(&mut self, reply: &Reply) {
        self.access = reply.text("/access_token");
        self.refresh = reply.text("/refresh_token");
        self.session = reply.text("/session_id").parse().unwrap();
    }

    pub async fn me(&self) -> Reply {
        self.client.bearer(&self.access).get("/me").await
    }

    /// Whether the session lives, asked both ways without moving it.
    pub async fn is_signed_in(&self) -> bool {
        match StatusCode::from_u16(self.me().await.status).unwrap() {
            StatusCode::OK => true,
            StatusCode::UNAUTHORIZED => false,
            other => panic!("/me answers {other}"),
        }
    }
}
