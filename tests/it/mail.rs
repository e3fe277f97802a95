//! What people get: mails as they stand on the wire and in files, in their language and from the operator's templates,
//! with nothing in them that became a header; codes that lie neither in SQL nor in the log; and the whole tour through a
//! mail server that is not ours.

use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use axum::http::Method;
use base64::{Engine, engine::general_purpose::STANDARD};
use latchkey::ambient::Ambient;
use serde_json::json;

use crate::{
    process::LOUD,
    smtp::{register, row, set},
    support::{
        Client, MailHog, Mood, PASSWORD, Process, Received, Sink, Stack, StackKind, Test, TestApp, eventually,
        json_body,
    },
};

pub fn tests() -> Vec<Test> {
    let mut tests = crate::on_stacks!(&StackKind::ALL;
        a_mail_arrives_whole_and_once,
        no_code_lies_in_sql,
        no_log_holds_a_code,
    );
    tests.extend(crate::on_stacks!(&[StackKind::Embedded];
        nothing_that_somebody_writes_becomes_a_header,
        a_sender_with_an_international_domain_is_written_in_ascii,
        mails_become_closed_files_where_there_is_no_server,
        a_mail_that_cannot_be_written_to_a_file_waits,
        mails_speak_the_language_of_their_reader,
        broken_templates_are_told_all_at_once_at_the_start,
    ));
    tests.extend(crate::on_stacks!(&StackKind::ALL, MailHog::missing; the_whole_tour_goes_through_mailhog));
    tests
}

// --- on the wire -------------------------------------------------------------

/// The names of the headers before the body, in the order of the alphabet.
fn header_names(mail: &Received) -> Vec<String> {
    let head = mail.data.split("\r\n\r\n").next().unwrap();
    let lines = head.split("\r\n").filter(|line| !line.starts_with([' ', '\t']));
    let mut names: Vec<_> = lines.map(|line| line.split_once(':').expect("a header").0.to_owned()).collect();
    names.sort();
    names
}

/// What every mail has, and nothing else.
const HEADERS: [&str; 8] =
    ["Auto-Submitted", "Content-Type", "Date", "From", "MIME-Version", "Message-ID", "Subject", "To"];

async fn a_mail_arrives_whole_and_once(stack: Stack) {
    let sink = Sink::start().await;
    let from = ("LATCHKEY_MAIL_FROM", "Key House <keys@house.example>");
    let app = stack.app_with(&[("SMTP_URL", &sink.url()), from]).await;
    let body = json!({"email": "Alice@Example.com", "password": PASSWORD});
    let flow = app.anonymous().post("/register", body).await.is(201).text("/verification/flow_id");
    let id = row(&app).await.id;
    app.deliver().await;
    let [mail] = sink.mails().try_into().expect("one mail");

    assert_eq!((mail.from.as_str(), mail.to.as_slice()), ("keys@house.example", &["alice@example.com".to_owned()][..]));
    let header = |name: &str| mail.header(name).unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(header_names(&mail), HEADERS);
    assert_eq!(header("From"), "\"Key House\" <keys@house.example>");
    assert_eq!(header("To"), "alice@example.com");
    assert_eq!(header("Subject"), "Confirm your email address");
    assert_eq!(header("Message-ID"), format!("<{id}@house.example>"));
    assert_eq!(header("Date"), "Sun, 22 Nov 2026 10:56:00 +0000");
    assert_eq!(header("Auto-Submitted"), "auto-generated");
    assert!(header("Content-Type").starts_with("multipart/alternative;"), "{}", header("Content-Type"));
    let code = mail.code().expect("a code");
    let typed = format!("{} {}", &code[..4], &code[4..]);
    assert!(mail.text().contains("Please confirm") && mail.html().contains(&typed), "{}", mail.data);
    assert!(mail.data.is_ascii() && mail.data.split("\r\n").all(|line| line.len() <= 998 && !line.contains('\n')));
    app.anonymous().post("/email/verify", json!({"flow_id": flow, "code": code})).await.is(204);

    // Whatever comes: it is not sent again, and the facts about it are gone.
    for _ in 0..3 {
        app.pass(Duration::from_secs(6 * 60));
        app.deliver().await;
    }
    assert_eq!(sink.mails().len(), 1);
    assert_eq!(app.number("SELECT COUNT(*) FROM outbox WHERE state = 'sent' AND data = '{}'").await, 1);
}

async fn nothing_that_somebody_writes_becomes_a_header(stack: Stack) {
    let sink = Sink::start().await;
    let templates = stack.dir.path().join("templates");
    std::fs::create_dir(&templates).unwrap();
    let subject = include_str!("../../src/mail/templates/en.jinja")
        .replace("Your password was changed", "{{ product }}: your password was changed");
    std::fs::write(templates.join("en.jinja"), subject).unwrap();
    let product = "\"<b>Bcc: eve@example.org\u{fffd}, Söhne & 🔑";
    let app = stack
        .app_with(&[
            ("SMTP_URL", &sink.url()),
            ("LATCHKEY_PRODUCT_NAME", product),
            ("LATCHKEY_SUPPORT", "https://help.example.com/?a='b'&c=%0d%0aBcc:%20eve@example.org"),
            ("LATCHKEY_MAIL_FROM", "\"Müller, Söhne & <Co> =?utf-8?q?x?=\" <no-reply@example.com>"),
            ("LATCHKEY_TEMPLATES", templates.to_str().unwrap()),
        ])
        .await;
    let alice = app.person("alice").await;
    app.sql("UPDATE users SET email_verified = TRUE").await;
    let bearer = alice.client.bearer(&alice.access).with("content-type", "application/json");
    let name = "Bcc: eve, =?utf-8?q?x?= <script>\"'&.";
    let named = json_body(&json!({"display_name": name}));
    bearer.send(Method::PATCH, "/me", named).await.is(200);
    for evil in ["a\r\nBcc: eve", "a\u{2028}b", "a\u{202e}b", "a\u{85}b"] {
        let named = json_body(&json!({"display_name": evil}));
        bearer.send(Method::PATCH, "/me", named).await.is(422);
    }
    let change = json_body(&json!({"current_password": PASSWORD, "new_password": "another good one"}));
    bearer.send(Method::PUT, "/me/password", change).await.is(204);
    app.deliver().await;

    let mails = sink.mails();
    let mail = mails.iter().find(|mail| mail.text().contains("The password of your account"));
    let mail =
        mail.unwrap_or_else(|| panic!("no notice among {:?}", mails.iter().map(|mail| &mail.data).collect::<Vec<_>>()));
    for mail in &mails {
        assert_eq!(header_names(mail), HEADERS, "{}", mail.data);
        assert_eq!(mail.to, ["alice@example.com"]);
        assert!(mail.data.is_ascii() && mail.data.split("\r\n").all(|line| line.len() <= 998));
    }
    assert_eq!(mail.header("From").unwrap(), "Müller, Söhne & <Co> =?utf-8?q?x?= <no-reply@example.com>");
    assert!(mail.data.starts_with("From: =?utf-8?b?"), "the comma is inside an encoded word: {}", mail.data);
    let subject = mail.header("Subject").unwrap();
    assert_eq!(subject, "\"<b>Bcc: eve@example.org\u{fffd}, Söhne & 🔑: your password was changed");
    assert!(mail.text().contains(&format!("Hello {name},\n")), "{}", mail.text());
    assert!(mail.html().contains("&lt;script&gt;") && !mail.html().contains("<script"), "{}", mail.html());
}

async fn a_sender_with_an_international_domain_is_written_in_ascii(stack: Stack) {
    let sink = Sink::start().await;
    let from = ("LATCHKEY_MAIL_FROM", "Schlüssel <No-Reply@Bücher.example>");
    let app = stack.app_with(&[("SMTP_URL", &sink.url()), from]).await;
    register(&app, ["alice".to_owned()]).await;
    app.deliver().await;
    let [mail] = sink.mails().try_into().expect("one mail");
    assert_eq!(mail.from, "No-Reply@xn--bcher-kva.example");
    assert_eq!(mail.header("From").unwrap(), "Schlüssel <No-Reply@xn--bcher-kva.example>");
    assert!(mail.data.is_ascii() && mail.header("Message-ID").unwrap().ends_with("@xn--bcher-kva.example>"));
}

// --- files -------------------------------------------------------------------

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

async fn mails_become_closed_files_where_there_is_no_server(stack: Stack) {
    let process = Process::start(stack.dir.path(), &stack.settings().await);
    let body = json!({"email": "alice@example.com", "password": PASSWORD});
    let flow = process.client().post("/register", body).await.is(201).text("/verification/flow_id");
    eventually("the log tells of it", || async { process.output().contains("a mail was written") }).await;
    let folder = stack.dir.path().join("data/mail");
    let [path] =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>().try_into().unwrap();
    assert_eq!((mode(&folder), mode(&path)), (0o700, 0o600));
    let mail = Received::from_raw(&std::fs::read_to_string(&path).unwrap());
    let code = mail.code().expect("a code");
    assert!(mail.html().contains("</html>") && mail.header("To").as_deref() == Some("alice@example.com"));
    let output = process.output();
    assert!(output.contains(path.to_str().unwrap()), "{output}");
    assert!(!output.contains(&code) && !output.contains(&format!("{} {}", &code[..4], &code[4..])), "{output}");
    process.client().post("/email/verify", json!({"flow_id": flow, "code": code})).await.is(204);
}

async fn a_mail_that_cannot_be_written_to_a_file_waits(stack: Stack) {
    let app = stack.app().await;
    // Not even root can make a folder of a file.
    let folder = stack.dir.path().join("data/mail");
    std::fs::write(&folder, "").unwrap();
    let alice = app.person("alice").await;
    app.deliver().await;
    let waiting = row(&app).await;
    assert_eq!((waiting.state.as_str(), waiting.attempts), ("pending", 1), "{waiting:?}");
    let ready = Client::of(app.internal_router()).get("/health/ready").await.is(503).json();
    assert_eq!(ready["checks"]["mail"]["status"], "down");
    std::fs::remove_file(&folder).unwrap();
    app.pass(Duration::from_secs(5));
    assert!(app.mail_to("verify_address", &alice.email).await.code().is_some());
    assert_eq!(app.mails_to("verify_address", &alice.email).len(), 1);
}

// --- languages and templates -------------------------------------------------

async fn mails_speak_the_language_of_their_reader(stack: Stack) {
    const ENGLISH: [&str; 2] = ["Confirm your email address", "Reset your password"];
    const GERMAN: [&str; 2] = ["Bitte bestätigen Sie Ihre E-Mail-Adresse", "Setzen Sie Ihr Passwort zurück"];
    let number = &std::cell::Cell::new(0);
    // Registers with these, then forgets the password with that.
    let subjects = async |app: &TestApp, locale: Option<&str>, accept: &str, later: &str| {
        number.set(number.get() + 1);
        let email = format!("person{}@example.com", number.get());
        let client = |accept: &str| match accept {
            "" => app.anonymous(),
            accept => app.anonymous().with("accept-language", accept),
        };
        let body = match locale {
            Some(locale) => json!({"email": email, "password": PASSWORD, "locale": locale}),
            None => json!({"email": email, "password": PASSWORD}),
        };
        client(accept).post("/register", body).await.is(201);
        client(later).post("/password/forgot", json!({"email": email})).await.is(202);
        let mails = [app.mail_to("verify_address", &email).await, app.mail_to("reset_password", &email).await];
        let html = if mails[1].header("Subject").as_deref() == Some(GERMAN[1]) { "lang=\"de\"" } else { "lang=\"en\"" };
        assert!(mails[1].html().contains(html));
        mails.map(|mail| mail.header("Subject").unwrap())
    };
    let app = stack.app().await;
    assert_eq!(subjects(&app, None, "", "").await, ENGLISH);
    assert_eq!(subjects(&app, Some("de"), "", "").await, GERMAN);
    assert_eq!(subjects(&app, Some("de-AT"), "en", "en").await, GERMAN, "the person's own wins, then and later");
    assert_eq!(subjects(&app, None, "de-CH, en;q=0.5", "en").await, GERMAN, "what was asked for is remembered");
    assert_eq!(subjects(&app, None, "fr, en;q=0.5", "").await, ENGLISH);
    assert_eq!(subjects(&app, None, "fr", "de").await, [ENGLISH[0], GERMAN[1]], "nothing known: as it is asked for");
    assert_eq!(subjects(&app, Some("fr"), "", "de").await, [ENGLISH[0], GERMAN[1]], "there is no French");
    drop(app);

    // Another language for who asked for none, and a file of the house in place of ours.
    let templates = stack.dir.path().join("templates");
    std::fs::create_dir(&templates).unwrap();
    let own = include_str!("../../src/mail/templates/en.jinja").replace(ENGLISH[1], "A new password for you");
    std::fs::write(templates.join("en.jinja"), own).unwrap();
    let settings = [("LATCHKEY_LOCALE", "de"), ("LATCHKEY_TEMPLATES", templates.to_str().unwrap())];
    let app = stack.app_with(&settings).await;
    assert_eq!(subjects(&app, None, "", "").await, GERMAN);
    assert_eq!(subjects(&app, Some("en"), "", "").await, [ENGLISH[0], "A new password for you"]);
}

async fn broken_templates_are_told_all_at_once_at_the_start(stack: Stack) {
    let templates = stack.dir.path().join("templates");
    std::fs::create_dir(&templates).unwrap();
    let english = include_str!("../../src/mail/templates/en.jinja");
    for (name, text) in [
        ("en.jinja", english.replacen("You would like", "{{ nmae }}, you would like", 1)),
        ("de.jinja", "{% block".to_owned()),
        ("layout.html", "{{ titel }}".to_owned()),
        ("Readme.md", "kanarienvogel".to_owned()),
    ] {
        std::fs::write(templates.join(name), text).unwrap();
    }
    let mut settings = stack.settings().await;
    settings.push(set("LATCHKEY_TEMPLATES", templates.display()));
    let Err(told) = Process::try_start(stack.dir.path(), &settings) else { panic!("it starts") };
    for part in ["LATCHKEY_TEMPLATES", "en.jinja:", "nmae", "de.jinja:", "layout.html:", "Readme.md:"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert_eq!(told.matches("Readme.md").count(), 1, "each is told once: {told}");
    settings.pop();
    settings.push(set("LATCHKEY_LOCALE", "fr"));
    let Err(told) = Process::try_start(stack.dir.path(), &settings) else { panic!("it starts") };
    assert!(told.contains("fr.jinja") && told.contains("LATCHKEY_LOCALE"), "{told}");
}

// --- what nobody may find ----------------------------------------------------

/// Everything that the database holds, as bytes in which a text can be found.
async fn dump(stack: &Stack, app: &TestApp) -> String {
    let mut found = String::new();
    if stack.kind == StackKind::Embedded {
        for name in ["latchkey.db", "latchkey.db-wal"] {
            let bytes = std::fs::read(stack.dir.path().join("data").join(name)).unwrap_or_default();
            found.push_str(&String::from_utf8_lossy(&bytes));
        }
        return found;
    }
    let tables = "SELECT string_agg(table_name, ',') FROM information_schema.tables WHERE table_schema = 'public'";
    for table in app.text(tables).await.split(',') {
        // Bytes as they would stand in a file: `escape` leaves what can be read as it is.
        let sql = format!("SELECT COALESCE(string_agg(t::text, ' '), '') FROM \"{table}\" t");
        found.push_str(&app.text(&sql).await);
    }
    let values = "SELECT COALESCE(string_agg(encode(value, 'escape'), ' '), '') FROM ephemeral";
    found + &app.text(values).await
}

async fn no_code_lies_in_sql(stack: Stack) {
    let sink = Sink::start().await;
    let settings = [("SMTP_URL", sink.url()), ("LATCHKEY_EMAIL_VERIFICATION", "required".into())];
    let app = stack.app_with(&settings.each_ref().map(|(name, value)| (*name, value.as_str()))).await;
    let client = app.anonymous();
    let registration = |name: &str| json!({"email": format!("{name}@example.com"), "password": PASSWORD});
    let flow = client.post("/register", registration("alice")).await.is(202).text("/verification/flow_id");
    app.deliver().await;
    let used = sink.mails()[0].code().unwrap();
    client.post("/email/verify", json!({"flow_id": flow, "code": used})).await.is(204);
    let access = client.login("alice@example.com", PASSWORD).await.is(200).text("/access_token");

    // Three codes that live, with their rows in hand: nobody knows whether the mails arrived.
    sink.set(Mood::LoseAck);
    client.post("/register", registration("bob")).await.is(202);
    client.post("/password/forgot", json!({"email": "alice@example.com"})).await.is(202);
    let change = json!({"new_email": "carol@example.com", "password": PASSWORD});
    client.bearer(&access).post("/me/email", change).await.is(202);
    app.deliver().await;
    let before = dump(&stack, &app).await;
    sink.set(Mood::Accept);
    app.pass(Duration::from_secs(50));
    app.deliver().await;
    let after = dump(&stack, &app).await;
    let codes: Vec<_> = sink.mails().iter().filter_map(Received::code).collect();
    assert_eq!((codes.len(), sink.mails().len()), (7, 9), "three of them twice, and a notice twice");
    for dump in [before, after] {
        assert!(dump.contains("carol@example.com") && dump.contains("address_verified"), "this is what it holds");
        for code in &codes {
            assert!(!dump.contains(code.as_str()) && !dump.contains(&spaced(code)), "a code lies in SQL");
        }
    }
}

/// A code as it stands in a mail.
fn spaced(code: &str) -> String {
    format!("{} {}", &code[..4], &code[4..])
}

async fn no_log_holds_a_code(stack: Stack) {
    let sink = Sink::start().await;
    let (password, chosen) = ("kanarienvogel-p-77", "kanarienvogel-n-99");
    for (round, filter) in LOUD.into_iter().enumerate() {
        let mut settings = stack.settings().await;
        settings.push(set("RUST_LOG", format!("{filter},lettre=trace")));
        settings.push(set("SMTP_URL", sink.url_at("user:kanarienvogel@127.0.0.1")));
        let mut process = Process::start(stack.dir.path(), &settings);
        let client = process.client();
        let (email, other) = (format!("person{round}@example.com"), format!("other{round}@example.com"));
        let seen = sink.mails().len();
        let body = json!({"email": email, "password": password});
        let flow = client.post("/register", body).await.is(201).text("/verification/flow_id");
        let mut codes = vec![sink.wait_for(seen + 1).await[seen].code().unwrap()];
        client.post("/email/verify", json!({"flow_id": flow, "code": spaced(&codes[0])})).await.is(204);

        // A mail that is refused is in the log, too.
        sink.set(Mood::TemporaryAtData);
        client.post("/password/forgot", json!({"email": email})).await.is(202);
        eventually("the refusal is logged", || async { process.output().contains("mail not delivered") }).await;
        sink.set(Mood::Accept);
        let link = sink.wait_for(seen + 2).await[seen + 1].link().unwrap();
        let (_, fragment) = link.split_once("#flow=").unwrap();
        let (flow, code) = fragment.split_once("&code=").unwrap();
        codes.push(code.to_owned());
        client.get(&format!("/reset?flow={flow}&code={code}")).await;
        let reset = json!({"flow_id": flow, "code": code, "new_password": chosen});
        client.post("/password/reset", reset.clone()).await.is(204);
        client.post("/password/reset", reset).await.is(400);

        let access = client.login(&email, chosen).await.is(200).text("/access_token");
        let body = json!({"new_email": other, "password": chosen});
        let flow = client.bearer(&access).post("/me/email", body).await.is(202).text("/flow_id");
        let mails = sink.wait_for(seen + 5).await;
        let mail = mails.iter().find(|mail| mail.to == [other.clone()]).unwrap();
        codes.push(mail.code().unwrap());
        client.post("/me/email/confirm", json!({"flow_id": flow, "code": codes[2]})).await.is(204);
        sink.wait_for(seen + 6).await;
        process.terminate();
        assert_eq!(process.wait(Duration::from_secs(30)).code(), Some(0));
        eventually("the last line arrives", || async { process.output().contains("\"message\":\"stopped\"") }).await;

        let output = process.output();
        assert!(output.lines().filter(|line| line.contains("mail sent")).count() >= 6, "{output}");
        let mut secrets =
            vec!["kanarienvogel".to_owned(), STANDARD.encode("\0user\0kanarienvogel"), "#flow=".to_owned()];
        secrets.extend(codes.iter().flat_map(|code| [code.clone(), spaced(code), code.replace(' ', "%20")]));
        for secret in &secrets {
            let told: Vec<_> = output.lines().filter(|line| line.contains(secret)).collect();
            assert!(told.is_empty(), "with RUST_LOG={filter} the log holds {secret}:\n{}", told.join("\n"));
        }
    }
}

// --- a mail server that is not ours ------------------------------------------

/// The one mail of this subject to this address, once it is there.
async fn mail_of(hog: &MailHog, address: &str, subject: &str) -> Received {
    let started = Instant::now();
    loop {
        let mut mails = hog.mails_to(address).await;
        mails.retain(|mail| mail.header("Subject").as_deref() == Some(subject));
        if let Some(mail) = mails.pop() {
            assert!(mails.is_empty(), "one {subject}, and not another");
            return mail;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "no {subject} to {address}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn the_whole_tour_goes_through_mailhog(stack: Stack) {
    let hog = MailHog::from_env().expect("it was asked for");
    let mut settings = stack.settings().await;
    settings.push(set("SMTP_URL", hog.smtp_url()));
    let process = Process::start(stack.dir.path(), &settings);
    let client = process.client();
    // Addresses of our own: it is shared with other tests, and with other runs.
    let [old, new] = [(); 2].map(|()| format!("{}@example.com", Ambient::system().uuid().simple()));

    let body = json!({"email": old, "password": PASSWORD});
    let flow = client.post("/register", body).await.is(201).text("/verification/flow_id");
    let code = mail_of(&hog, &old, "Confirm your email address").await.code();
    client.post("/email/verify", json!({"flow_id": flow, "code": code})).await.is(204);

    client.post("/password/forgot", json!({"email": old})).await.is(202);
    let mail = mail_of(&hog, &old, "Reset your password").await;
    let link = mail.link().expect("a link");
    assert!(mail.html().contains("<a ") && link.starts_with("http://localhost:3000/reset#flow="), "{link}");
    let (flow, code) = link.split_once("#flow=").unwrap().1.split_once("&code=").unwrap();
    assert_eq!(mail.code().as_deref(), Some(code));
    let reset = json!({"flow_id": flow, "code": code, "new_password": "another good one"});
    client.post("/password/reset", reset).await.is(204);
    mail_of(&hog, &old, "Your password was reset").await;

    let access = client.login(&old, "another good one").await.is(200).text("/access_token");
    let body = json!({"new_email": new, "password": "another good one"});
    let flow = client.bearer(&access).post("/me/email", body).await.is(202).text("/flow_id");
    mail_of(&hog, &old, "Your email address is about to change").await;
    let code = mail_of(&hog, &new, "Confirm your new email address").await.code();
    client.bearer(&access).post("/me/email/confirm", json!({"flow_id": flow, "code": code})).await.is(204);
    let told = mail_of(&hog, &old, "Your email address was changed").await;
    assert!(told.text().contains(&new) && told.code().is_none());
    assert_eq!(client.bearer(&access).get("/me").await.is(200).text("/email"), new);
}
