//! A mail server that does on demand what mail servers do, good and bad, and mails as a person would read them.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufStream},
    net::{TcpListener, TcpSocket},
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{RootCertStore, ServerConfig, crypto::aws_lc_rs, pki_types::PrivatePkcs8KeyDer},
};

/// How the server is today. What is under way goes on in the new mood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Accept,
    /// 451 to every recipient.
    Temporary,
    /// 451 once it has the mail, which it does not keep.
    TemporaryAtData,
    /// 550 to every recipient.
    Permanent,
    /// 535 to every login.
    WrongPassword,
    /// Takes connections and says nothing, not even a greeting. A connection that met this hears nothing ever after.
    Silent,
    /// Each answer comes so late.
    TarPit(Duration),
    /// Reads the mail and hangs up without an answer, and without having kept it.
    DropAtData,
    /// Keeps the mail and hangs up without an answer.
    LoseAck,
    /// Keeps the mail and says so that much later.
    LateAck(Duration),
    /// Refuses connections, and has ended those it had. It comes back on the same port.
    Closed,
}

/// What the server does about encryption. It takes mails and passwords either way, so that a test sees what a client
/// would have given away.
#[expect(clippy::enum_variant_names, reason = "STARTTLS is one word")]
pub enum Tls {
    /// Never heard of it.
    None,
    StartTls(Certificate),
    /// From the first byte, as `smtps` wants it.
    Implicit(Certificate),
    /// Somebody in between took the offer of STARTTLS out, and refuses it.
    StrippedStartTls,
    /// Somebody in between puts answers to all that will be said behind the one to STARTTLS.
    InjectedStartTls(Certificate),
}

/// A mail server on a port of its own. It ends when dropped.
pub struct Sink {
    shared: Arc<Shared>,
    acceptor: JoinHandle<()>,
}

struct Shared {
    address: SocketAddr,
    tls: Tls,
    mood: watch::Sender<Mood>,
    door: Mutex<Door>,
    connections: AtomicUsize,
    commands: Mutex<Vec<String>>,
    mails: Mutex<Vec<Received>>,
}

/// Behind one lock, so that a door that was closed lets nobody in any more.
struct Door {
    listener: Option<TcpListener>,
    /// Bound and not listening: connections are refused, and nobody else is given the port.
    placeholder: Option<TcpSocket>,
    sessions: JoinSet<io::Result<()>>,
}

impl Sink {
    /// A server without TLS, in the mood to accept.
    pub async fn start() -> Self {
        Self::start_with(Tls::None).await
    }

    pub async fn start_with(tls: Tls) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let shared = Arc::new(Shared {
            address: listener.local_addr().unwrap(),
            tls,
            mood: watch::Sender::new(Mood::Accept),
            door: Mutex::new(Door { listener: Some(listener), placeholder: None, sessions: JoinSet::new() }),
            connections: AtomicUsize::new(0),
            commands: Mutex::default(),
            mails: Mutex::default(),
        });
        let acceptor = tokio::spawn(Arc::clone(&shared).accept());
        Self { shared, acceptor }
    }

    /// `smtp://127.0.0.1:port`, or `smtps://` if it speaks TLS from the first byte.
    pub fn url(&self) -> String {
        self.url_at("127.0.0.1")
    }

    /// The URL with another host, or with `user:password@host`.
    pub fn url_at(&self, host: &str) -> String {
        let scheme = if matches!(self.shared.tls, Tls::Implicit(_)) { "smtps" } else { "smtp" };
        format!("{scheme}://{host}:{}", self.port())
    }

    pub fn port(&self) -> u16 {
        self.shared.address.port()
    }

    /// From the next answer on. For [`Mood::Closed`] and back, connections are refused or taken once this returns.
    pub fn set(&self, mood: Mood) {
        let mut door = self.shared.door.lock().unwrap();
        if mood == Mood::Closed {
            door.sessions.abort_all();
            if door.listener.take().is_some() {
                door.placeholder = Some(bound(self.shared.address));
            }
        } else if let Some(socket) = door.placeholder.take() {
            door.listener = Some(socket.listen(1024).unwrap());
        }
        self.shared.mood.send_replace(mood);
    }

    /// The mails it has kept, the oldest first.
    pub fn mails(&self) -> Vec<Received> {
        self.shared.mails.lock().unwrap().clone()
    }

    /// Waits until it has kept so many.
    pub async fn wait_for(&self, count: usize) -> Vec<Received> {
        let started = Instant::now();
        loop {
            let mails = self.mails();
            if mails.len() >= count {
                return mails;
            }
            let commands = self.commands();
            assert!(started.elapsed().as_secs() < 20, "{} of {count} mails came; commands: {commands:?}", mails.len());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// How many connections it has seen so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Every command line of every connection so far.
    pub fn commands(&self) -> Vec<String> {
        self.shared.commands.lock().unwrap().clone()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.acceptor.abort();
        if let Ok(mut door) = self.shared.door.lock() {
            door.listener = None;
            door.sessions.abort_all();
        }
    }
}

fn bound(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    // There are connections on the port, or there were a moment ago.
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap_or_else(|error| panic!("{address} was taken in between: {error}"));
    socket
}

impl Shared {
    async fn accept(self: Arc<Self>) {
        let mut mood = self.mood.subscribe();
        loop {
            tokio::select! {
                () = poll_fn(|context| self.poll_accept(context)) => {}
                // There may be another listener, which has to be asked anew.
                changed = mood.changed() => if changed.is_err() { return },
            }
        }
    }

    fn poll_accept(self: &Arc<Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut door = self.door.lock().unwrap();
        while door.sessions.try_join_next().is_some() {}
        let Some(listener) = &door.listener else { return Poll::Pending };
        let (stream, _) = ready!(listener.poll_accept(context)).unwrap();
        self.connections.fetch_add(1, Ordering::SeqCst);
        door.sessions.spawn(Session::run(Arc::clone(self), Box::new(stream)));
        Poll::Ready(())
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// One connection.
struct Session {
    shared: Arc<Shared>,
    stream: BufStream<Box<dyn Stream>>,
    tls: bool,
    user: Option<(String, String)>,
    from: Option<String>,
    to: Vec<String>,
}

impl Session {
    async fn run(shared: Arc<Shared>, stream: Box<dyn Stream>) -> io::Result<()> {
        let mut session =
            Self { shared, stream: BufStream::new(stream), tls: false, user: None, from: None, to: Vec::new() };
        // Before TLS: a silent server says nothing in there either.
        session.fall_silent().await?;
        if matches!(session.shared.tls, Tls::Implicit(_)) {
            session = session.encrypted().await?;
        }
        session.answer("220 sink.test ESMTP").await?;
        loop {
            let line = session.line().await?;
            session.shared.commands.lock().unwrap().push(line.clone());
            let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
            match verb.to_ascii_uppercase().as_str() {
                "EHLO" => session.greet().await?,
                "STARTTLS" if matches!(session.shared.tls, Tls::StartTls(_)) && !session.tls => {
                    session.answer("220 2.0.0 go ahead").await?;
                    session = session.encrypted().await?;
                }
                "STARTTLS" if matches!(session.shared.tls, Tls::InjectedStartTls(_)) && !session.tls => {
                    let login = "250-sink.test\r\n250 AUTH PLAIN\r\n235 2.7.0 welcome";
                    let mail = "250 2.1.0 OK\r\n250 2.1.5 OK\r\n354 end with a dot\r\n250 2.0.0 kept";
                    session.answer(&format!("220 2.0.0 go ahead\r\n{login}\r\n{mail}")).await?;
                    session = session.encrypted().await?;
                }
                "STARTTLS" if matches!(session.shared.tls, Tls::StrippedStartTls) => {
                    session.answer("454 4.7.0 TLS not available").await?;
                }
                "AUTH" => session.log_in(rest).await?,
                "MAIL" => session.mail(rest).await?,
                "RCPT" => session.recipient(rest).await?,
                "DATA" => session.data().await?,
                "HELO" | "NOOP" => session.answer("250 2.0.0 OK").await?,
                "RSET" => {
                    session.forget();
                    session.answer("250 2.0.0 OK").await?;
                }
                "QUIT" => return session.answer("221 2.0.0 bye").await,
                _ => session.answer("502 5.5.1 not here").await?,
            }
        }
    }

    async fn encrypted(self) -> io::Result<Self> {
        let (Tls::StartTls(certificate) | Tls::InjectedStartTls(certificate) | Tls::Implicit(certificate)) =
            &self.shared.tls
        else {
            unreachable!("asked for without a certificate")
        };
        let stream = TlsAcceptor::from(Arc::clone(&certificate.0)).accept(self.stream.into_inner()).await?;
        let stream = BufStream::new(Box::new(stream) as Box<dyn Stream>);
        // What was said in the clear could have been said by anybody (RFC 3207, 4.2).
        Ok(Self { shared: Arc::clone(&self.shared), stream, tls: true, user: None, from: None, to: Vec::new() })
    }

    fn mood(&self) -> Mood {
        *self.shared.mood.borrow()
    }

    /// Ends when the client hangs up.
    async fn fall_silent(&mut self) -> io::Result<()> {
        if self.mood() != Mood::Silent {
            return Ok(());
        }
        tokio::io::copy(&mut self.stream, &mut tokio::io::sink()).await?;
        Err(hang_up())
    }

    async fn answer(&mut self, text: &str) -> io::Result<()> {
        self.fall_silent().await?;
        if let Mood::TarPit(delay) = self.mood() {
            tokio::time::sleep(delay).await;
        }
        self.stream.write_all(format!("{text}\r\n").as_bytes()).await?;
        self.stream.flush().await
    }

    async fn raw_line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line).await?;
        if line.ends_with(b"\n") { Ok(line) } else { Err(hang_up()) }
    }

    async fn line(&mut self) -> io::Result<String> {
        let line = self.raw_line().await?;
        Ok(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned())
    }

    fn forget(&mut self) {
        self.from = None;
        self.to.clear();
    }

    async fn greet(&mut self) -> io::Result<()> {
        self.forget();
        let offers = matches!(self.shared.tls, Tls::StartTls(_) | Tls::InjectedStartTls(_)) && !self.tls;
        let offer = if offers { "250-STARTTLS\r\n" } else { "" };
        self.answer(&format!("250-sink.test\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n{offer}250 AUTH PLAIN LOGIN")).await
    }

    async fn log_in(&mut self, arguments: &str) -> io::Result<()> {
        let (mechanism, first) = arguments.split_once(' ').unwrap_or((arguments, ""));
        let user: Vec<_> = match mechanism.to_ascii_uppercase().as_str() {
            "PLAIN" => {
                let text = self.credential(first, "").await?;
                // Whom to act for comes first, and is nobody else.
                text.splitn(3, '\0').skip(1).map(str::to_owned).collect()
            }
            "LOGIN" => vec![self.credential(first, "Username:").await?, self.credential("", "Password:").await?],
            _ => return self.answer("504 5.5.4 PLAIN or LOGIN").await,
        };
        let Ok([name, password]) = <[String; 2]>::try_from(user) else {
            return self.answer("501 5.5.2 this is no name with a password").await;
        };
        if self.mood() == Mood::WrongPassword {
            return self.answer("535 5.7.8 wrong name or password").await;
        }
        self.user = Some((name, password));
        self.answer("235 2.7.0 welcome").await
    }

    /// What came with the command, else what comes when asked for it.
    async fn credential(&mut self, given: &str, question: &str) -> io::Result<String> {
        let mut text = given.to_owned();
        if text.is_empty() {
            self.answer(&format!("334 {}", STANDARD.encode(question))).await?;
            text = self.line().await?;
        }
        Ok(STANDARD.decode(text).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default())
    }

    async fn mail(&mut self, arguments: &str) -> io::Result<()> {
        let Some(from) = path(arguments, "FROM:") else { return self.answer("501 5.5.4 from whom?").await };
        if self.from.is_some() {
            return self.answer("503 5.5.1 there is a mail already").await;
        }
        self.from = Some(from);
        self.answer("250 2.1.0 OK").await
    }

    async fn recipient(&mut self, arguments: &str) -> io::Result<()> {
        let Some(to) = path(arguments, "TO:") else { return self.answer("501 5.5.4 to whom?").await };
        if self.from.is_none() {
            return self.answer("503 5.5.1 MAIL comes first").await;
        }
        match self.mood() {
            Mood::Temporary => self.answer("451 4.3.0 try again later").await,
            Mood::Permanent => self.answer("550 5.1.1 nobody of that name").await,
            _ => {
                self.to.push(to);
                self.answer("250 2.1.5 OK").await
            }
        }
    }

    async fn data(&mut self) -> io::Result<()> {
        if self.to.is_empty() {
            return self.answer("503 5.5.1 RCPT comes first").await;
        }
        self.answer("354 end with a dot").await?;
        let mut data = Vec::new();
        loop {
            let line = self.raw_line().await?;
            // Not at a dot between bare line feeds: that is how one mail is smuggled in another.
            if line == b".\r\n" && (data.is_empty() || data.ends_with(b"\r\n")) {
                break;
            }
            data.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
        }
        let mood = self.mood();
        match mood {
            Mood::Silent => self.fall_silent().await?,
            Mood::DropAtData => return Err(hang_up()),
            Mood::TemporaryAtData => {
                self.forget();
                return self.answer("451 4.3.0 try again later").await;
            }
            _ => {}
        }
        let mail = Received {
            from: self.from.take().unwrap_or_default(),
            to: std::mem::take(&mut self.to),
            data: String::from_utf8_lossy(&data).into_owned(),
            tls: self.tls,
            user: self.user.clone(),
        };
        self.shared.mails.lock().unwrap().push(mail);
        match mood {
            Mood::LoseAck => return Err(hang_up()),
            Mood::LateAck(delay) => tokio::time::sleep(delay).await,
            _ => {}
        }
        self.answer("250 2.0.0 kept").await
    }
}

fn hang_up() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

/// The address of `FROM:<alice@example.com> BODY=8BITMIME`.
fn path(arguments: &str, word: &str) -> Option<String> {
    let (given, rest) = arguments.split_at_checked(word.len())?;
    let rest = rest.trim_start().strip_prefix('<').filter(|_| given.eq_ignore_ascii_case(word))?;
    rest.split_once('>').map(|(address, _)| address.to_owned())
}

/// A mail with its envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub from: String,
    pub to: Vec<String>,
    /// As it came, without the dots that only transport needs.
    pub data: String,
    pub tls: bool,
    /// Name and password of the login before it.
    pub user: Option<(String, String)>,
}

impl Received {
    /// A mail from somewhere else, with an envelope made from its headers.
    pub fn from_raw(data: &str) -> Self {
        let mut mail = Self { from: String::new(), to: Vec::new(), data: data.to_owned(), tls: false, user: None };
        mail.from = mail.header("From").map(|header| address_in(&header)).unwrap_or_default();
        let recipients = mail.header("To").unwrap_or_default();
        mail.to = recipients.split(',').map(address_in).filter(|address| !address.is_empty()).collect();
        mail
    }

    /// The first header of this name, on one line and decoded.
    pub fn header(&self, name: &str) -> Option<String> {
        Part::of(&self.data).header(name).map(decode_words)
    }

    /// The plain text, decoded, with `\n` at the end of lines; empty if there is none.
    pub fn text(&self) -> String {
        Part::of(&self.data).content("text/plain").unwrap_or_default()
    }

    /// The HTML, as [`Received::text`].
    pub fn html(&self) -> String {
        Part::of(&self.data).content("text/html").unwrap_or_default()
    }

    /// The digits of the first `1234 5678` in the text.
    pub fn code(&self) -> Option<String> {
        let text = self.text();
        text.split(|c: char| !c.is_ascii_digit() && c != ' ').find_map(|run| {
            let words: Vec<_> = run.split(' ').collect();
            let pair = words.windows(2).find(|pair| pair[0].len() == 4 && pair[1].len() == 4)?;
            Some(pair.concat())
        })
    }

    /// The first URL in the text.
    pub fn link(&self) -> Option<String> {
        let text = self.text();
        let starts = ["http://", "https://"].into_iter().filter_map(|scheme| text.find(scheme));
        let url = &text[starts.min()?..];
        let url = url.split(|c: char| c.is_whitespace() || "<>\"".contains(c)).next()?;
        // The end of a sentence is none of a URL.
        Some(url.trim_end_matches(['.', ',', ';', ':', '!', '?', ')']).to_owned())
    }
}

fn address_in(header: &str) -> String {
    let inner = header.rsplit_once('<').map_or(header, |(_, rest)| rest.split('>').next().unwrap_or_default());
    inner.trim().to_owned()
}

/// A mail, or a part of one with several.
struct Part {
    headers: Vec<(String, String)>,
    body: String,
}

impl Part {
    fn of(raw: &str) -> Self {
        // A file may have lost its carriage returns already.
        let text = raw.replace("\r\n", "\n");
        // A part may have no headers at all; then it begins with the empty line.
        let (head, body) = match text.strip_prefix('\n') {
            Some(body) => ("", body),
            None => text.split_once("\n\n").unwrap_or((&text, "")),
        };
        let mut headers: Vec<(String, String)> = Vec::new();
        for line in head.lines() {
            if let (Some((_, value)), true) = (headers.last_mut(), line.starts_with([' ', '\t'])) {
                value.push_str(line);
            } else if let Some((name, value)) = line.split_once(':') {
                headers.push((name.to_owned(), value.to_owned()));
            }
        }
        Self { headers, body: body.to_owned() }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The first content of this type, at any depth.
    fn content(&self, wanted: &str) -> Option<String> {
        let content_type = self.header("Content-Type").unwrap_or("text/plain");
        let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if essence.starts_with("multipart/") {
            let parts = parts(&self.body, &parameter(content_type, "boundary")?);
            return parts.iter().find_map(|part| part.content(wanted));
        }
        (essence == wanted).then(|| self.decoded())
    }

    fn decoded(&self) -> String {
        let encoding = self.header("Content-Transfer-Encoding").unwrap_or_default().to_ascii_lowercase();
        let bytes = match encoding.as_str() {
            "base64" => from_base64(&self.body),
            "quoted-printable" => from_quoted_printable(&self.body),
            _ => self.body.clone().into_bytes(),
        };
        String::from_utf8_lossy(&bytes).replace("\r\n", "\n")
    }
}

/// What stands between the lines that begin with the boundary.
fn parts(body: &str, boundary: &str) -> Vec<Part> {
    let mut parts: Vec<String> = Vec::new();
    for line in body.split('\n') {
        match line.strip_prefix("--").and_then(|line| line.strip_prefix(boundary)).map(str::trim_end) {
            Some("--") => break,
            Some("") => parts.push(String::new()),
            // Before the first boundary nothing is meant for a reader.
            _ => {
                if let Some(part) = parts.last_mut() {
                    part.push_str(line);
                    part.push('\n');
                }
            }
        }
    }
    // The line end before a boundary belongs to the boundary.
    parts.iter().map(|part| Part::of(part.strip_suffix('\n').unwrap_or(part))).collect()
}

fn parameter(header: &str, name: &str) -> Option<String> {
    header.split(';').skip(1).find_map(|parameter| {
        let (key, value) = parameter.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"').to_owned())
    })
}

fn from_base64(text: &str) -> Vec<u8> {
    let text: String = text.split_whitespace().collect();
    STANDARD.decode(&text).unwrap_or_else(|error| panic!("a mail with bad base64: {error}: {text}"))
}

fn from_quoted_printable(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in text.split_inclusive('\n') {
        // Blanks at the end of a line were put there on the way.
        let content = line.trim_end();
        if let Some(goes_on) = content.strip_suffix('=') {
            unescape(goes_on, &mut bytes);
        } else {
            unescape(content, &mut bytes);
            bytes.extend(line.ends_with('\n').then_some(b'\n'));
        }
    }
    bytes
}

/// `=C3=A4` as bytes.
fn unescape(text: &str, bytes: &mut Vec<u8>) {
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = after.get(..2).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        if let Some(byte) = escaped.filter(|_| first == b'=') {
            bytes.push(byte);
            rest = &after[2..];
        } else {
            bytes.push(first);
            rest = after;
        }
    }
}

/// Encoded words (RFC 2047) of a header as text.
fn decode_words(header: &str) -> String {
    let (mut text, mut after_word) = (String::new(), false);
    let mut rest = header;
    while let Some(at) = rest.find("=?") {
        let (before, from) = rest.split_at(at);
        let Some((word, length)) = encoded_word(from) else {
            text.push_str(before);
            text.push_str("=?");
            (rest, after_word) = (&from[2..], false);
            continue;
        };
        // Blanks between two words are there to fold the line.
        if !after_word || !before.trim().is_empty() {
            text.push_str(before);
        }
        text.push_str(&word);
        (rest, after_word) = (&from[length..], true);
    }
    text + rest
}

/// The word at the beginning, and how long it was in its code.
fn encoded_word(from: &str) -> Option<(String, usize)> {
    let mut fields = from.strip_prefix("=?")?.splitn(4, '?');
    let (charset, encoding, code, end) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let known = charset.eq_ignore_ascii_case("utf-8") || charset.eq_ignore_ascii_case("us-ascii");
    if !known || !end.starts_with('=') {
        return None;
    }
    let bytes = match encoding {
        "B" | "b" => STANDARD.decode(code).ok()?,
        "Q" | "q" => {
            let mut bytes = Vec::new();
            unescape(&code.replace('_', " "), &mut bytes);
            bytes
        }
        _ => return None,
    };
    let length = "=????=".len() + charset.len() + encoding.len() + code.len();
    Some((String::from_utf8_lossy(&bytes).into_owned(), length))
}

/// Signs certificates for the length of a test.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// What a server shows, with its key.
#[derive(Clone)]
pub struct Certificate(Arc<ServerConfig>);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, "Latchkey test authority");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// For `localhost` and 127.0.0.1, which is where a [`Sink`] is.
    pub fn right_name(&self) -> Certificate {
        self.certify(&["localhost", "127.0.0.1"])
    }

    /// For somewhere else.
    pub fn wrong_name(&self) -> Certificate {
        self.certify(&["mail.example.org"])
    }

    pub fn certify(&self, names: &[&str]) -> Certificate {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, "Latchkey test server");
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.0).unwrap();
        // Named, since a process in which two crates chose differently has no default.
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
            .unwrap();
        Certificate(Arc::new(config))
    }

    /// A certificate for these names and its key, as files of a server.
    pub fn write_server_pem(&self, names: &[&str], certificate: &Path, key: &Path) {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let pair = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(names).unwrap().signed_by(&pair, &self.0).unwrap();
        std::fs::write(certificate, leaf.pem()).unwrap();
        std::fs::write(key, pair.serialize_pem()).unwrap();
        std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// What a client trusts who knows this authority and no other.
    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }

    /// Its own certificate as a file, for `SSL_CERT_FILE`.
    pub fn write_pem(&self, path: &Path) {
        std::fs::write(path, self.0.pem()).unwrap();
    }
}
