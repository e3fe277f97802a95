//! How a mail leaves for a mail server: which faults of the server are tried again, how often and how many times at most,
//! and how the way there is protected.

use std::{collections::BTreeSet, time::Duration};

use latchkey::{
    ambient::Ambient,
    mail::{
        Failure, MailKind, Outgoing, Security, SmtpServer, Transport,
        outbox::{self, Listed},
        template::Letter,
    },
    secret::SecretText,
    verification::courier,
};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::support::{
    Authority, Client, Mood, PASSWORD, Process, Sink, Stack, StackKind, Test, TestApp, Tls, eventually,
};

pub fn tests() -> Vec<Test> {
    let mut tests = crate::on_stacks!(&StackKind::ALL;
        a_refusal_is_tried_again_with_growing_waits,
        a_lost_acknowledgement_makes_one_duplicate_with_the_same_code,
        nobody_gets_a_mail_more_than_twice,
    );
    // One writer, and one pool: what Redis adds does not matter here.
    tests.extend(crate::on_stacks!(&[StackKind::Embedded, StackKind::Pg]; a_silent_server_holds_nobody_up));
    tests.extend(crate::on_stacks!(&[StackKind::Embedded];
        an_answer_that_comes_too_late_counts_as_lost,
        a_connection_is_used_again_until_it_ends,
        without_starttls_nothing_is_given_away,
        only_the_right_certificate_is_trusted,
        a_refused_password_waits_and_is_told_to_nobody,
        readiness_tells_of_the_mail_server,
    ));
    tests
}

/// An app that mails through this server.
pub async fn mailing(stack: &Stack, sink: &Sink) -> TestApp {
    stack.app_with(&[("SMTP_URL", &sink.url())]).await
}

/// Registers people of these names, one after the other, each of whom is owed a mail with a code.
pub async fn register(app: &TestApp, names: impl IntoIterator<Item = String>) {
    for name in names {
        app.pass(Duration::from_millis(1));
        let body = json!({"email": format!("{name}@example.com"), "password": PASSWORD});
        app.anonymous().post("/register", body).await.is(201);
    }
}

/// The row of the newest mail.
pub async fn row(app: &TestApp) -> Listed {
    outbox::list(&app.db, None).await.unwrap().into_iter().next().expect("a row")
}

/// A setting in the shape in which a process takes it.
pub fn set(name: &str, value: impl ToString) -> (String, String) {
    (name.to_owned(), value.to_string())
}

// --- a server with moods -----------------------------------------------------

async fn a_refusal_is_tried_again_with_growing_waits(stack: Stack) {
    let sink = Sink::start().await;
    let app = mailing(&stack, &sink).await;
    for (round, (mood, told)) in [
        (Mood::Temporary, "451"),
        (Mood::TemporaryAtData, "451"),
        (Mood::Permanent, "550"),
        (Mood::Closed, "Connection refused"),
    ]
    .into_iter()
    .enumerate()
    {
        sink.set(mood);
        register(&app, [format!("person{round}")]).await;
        // What the server will never take is asked for ever less often.
        let last = if mood == Mood::Permanent { [320, 640] } else { [300, 300] };
        for (tries, wait) in [5, 10, 20, 40, 80, 160].into_iter().chain(last).enumerate() {
            app.deliver().await;
            let Listed { state, attempts, next_attempt_at, last_error, .. } = row(&app).await;
            assert_eq!((state.as_str(), attempts), ("pending", i64::try_from(tries).unwrap() + 1), "{mood:?}");
            assert!(last_error.as_deref().is_some_and(|error| error.contains(told)), "{mood:?}: {last_error:?}");
            let waits = next_attempt_at.millis() - app.ambient.now().millis();
            assert_eq!(waits, wait * 1000, "{mood:?} {tries}");
            app.pass(Duration::from_millis(u64::try_from(waits).unwrap()) - Duration::from_millis(1));
            app.deliver().await;
            assert_eq!(row(&app).await.attempts, attempts, "not before its time");
            app.pass(Duration::from_millis(1));
        }
        assert_eq!(sink.mails().len(), round, "{mood:?}");
        sink.set(Mood::Accept);
        app.deliver().await;
        let mails = sink.mails();
        assert_eq!((mails.len(), row(&app).await.state.as_str()), (round + 1, "sent"), "{mood:?}");
        assert_eq!(mails[round].to, [format!("person{round}@example.com")]);
    }
    app.pass(Duration::from_secs(60 * 60));
    app.deliver().await;
    assert_eq!(sink.mails().len(), 4, "each once");
}

async fn a_silent_server_holds_nobody_up(stack: Stack) {
    let sink = Sink::start().await;
    sink.set(Mood::Silent);
    let app = mailing(&stack, &sink).await;
    let alice = app.person("alice").await;
    // As many as a worker takes at once: more than there are connections to the database.
    register(&app, (0..7).map(|number| format!("person{number}"))).await;
    let (worker, started) = (app.app.clone(), Instant::now());
    let delivery = tokio::spawn(async move { courier::round(&worker, worker.ambient.uuid()).await.unwrap() });
    eventually("all of them are on their way", || async { sink.connections() == 8 }).await;
    let ask = async {
        alice.client.post("/password/forgot", json!({"email": alice.email})).await.is(202);
        alice.client.login(&alice.email, PASSWORD).await.is(200);
        assert!(alice.is_signed_in().await);
        register(&app, ["late".to_owned()]).await;
    };
    timeout(Duration::from_secs(4), ask).await.expect("answers as ever");
    assert!(!delivery.is_finished());
    // Greeting, EHLO, MAIL: the tenth second is over before the text.
    sink.set(Mood::TarPit(Duration::from_millis(3500)));
    app.deliver().await;
    assert_eq!(delivery.await.unwrap(), 8);
    assert!(started.elapsed() < Duration::from_secs(25), "side by side: {:?}", started.elapsed());
    let pending = "SELECT COUNT(*) FROM outbox WHERE state = 'pending' AND last_error LIKE '%in time%'";
    assert_eq!((app.number(pending).await, sink.mails().len()), (10, 0));

    sink.set(Mood::Accept);
    app.pass(Duration::from_secs(5));
    app.deliver().await;
    let mails: BTreeSet<_> = sink.mails().into_iter().map(|mail| (mail.header("To"), mail.header("Subject"))).collect();
    assert_eq!((mails.len(), sink.mails().len()), (10, 10), "each once");
}

async fn a_lost_acknowledgement_makes_one_duplicate_with_the_same_code(stack: Stack) {
    let sink = Sink::start().await;
    let app = mailing(&stack, &sink).await;
    let body = json!({"email": "alice@example.com", "password": PASSWORD});
    let flow = app.anonymous().post("/register", body).await.is(201).text("/verification/flow_id");
    sink.set(Mood::LoseAck);
    app.deliver().await;
    assert_eq!((sink.mails().len(), row(&app).await.state.as_str()), (1, "pending"));
    sink.set(Mood::Accept);
    app.pass(Duration::from_secs(50));
    app.deliver().await;
    app.pass(Duration::from_secs(5 * 60));
    app.deliver().await;
    let [first, second] = sink.mails().try_into().expect("the mail and one duplicate");
    assert_eq!(first.header("Message-ID"), second.header("Message-ID"));
    assert_eq!((first.code(), first.text()), (second.code(), second.text()));
    let code = first.code().unwrap();
    app.anonymous().post("/email/verify", json!({"flow_id": flow, "code": code})).await.is(204);

    // A server that hung up over the text and did not keep it: nothing is lost either.
    register(&app, ["bob".to_owned()]).await;
    sink.set(Mood::DropAtData);
    app.deliver().await;
    sink.set(Mood::Accept);
    app.pass(Duration::from_secs(50));
    app.deliver().await;
    assert_eq!((sink.mails().len(), row(&app).await.state.as_str()), (3, "sent"));
}

async fn nobody_gets_a_mail_more_than_twice(stack: Stack) {
    let sink = Sink::start().await;
    let app = mailing(&stack, &sink).await;
    register(&app, ["alice".to_owned()]).await;
    for mood in [Mood::Temporary, Mood::LoseAck, Mood::Closed, Mood::Temporary, Mood::LoseAck] {
        assert_eq!(row(&app).await.state, "pending", "{mood:?}");
        sink.set(mood);
        app.deliver().await;
        app.pass(Duration::from_secs(5 * 60));
    }
    let Listed { state, attempts, last_error, .. } = row(&app).await;
    assert_eq!((state.as_str(), attempts, last_error.is_some()), ("dead", 5, true));
    sink.set(Mood::Accept);
    app.pass(Duration::from_secs(60 * 60));
    app.deliver().await;
    assert_eq!(sink.mails().len(), 2);
}

async fn an_answer_that_comes_too_late_counts_as_lost(stack: Stack) {
    let sink = Sink::start().await;
    let app = mailing(&stack, &sink).await;
    register(&app, ["alice".to_owned()]).await;
    sink.set(Mood::LateAck(Duration::from_secs(4)));
    app.deliver().await;
    assert_eq!(row(&app).await.state, "sent", "late, and in time");
    register(&app, ["bob".to_owned()]).await;
    sink.set(Mood::LateAck(Duration::from_secs(60)));
    for state in ["pending", "dead"] {
        app.deliver().await;
        assert_eq!(row(&app).await.state, state);
        app.pass(Duration::from_secs(50));
    }
    assert_eq!(sink.mails().len(), 3);
}

async fn a_connection_is_used_again_until_it_ends(stack: Stack) {
    let sink = Sink::start().await;
    let app = mailing(&stack, &sink).await;
    for number in 0..3 {
        register(&app, [format!("person{number}")]).await;
        app.deliver().await;
    }
    assert_eq!((sink.mails().len(), sink.connections()), (3, 1));
    // The server hangs up, as servers do after a while: that costs no attempt.
    sink.set(Mood::Closed);
    sink.set(Mood::Accept);
    register(&app, ["late".to_owned()]).await;
    app.deliver().await;
    let Listed { state, attempts, .. } = row(&app).await;
    assert_eq!((state.as_str(), attempts, sink.mails().len(), sink.connections()), ("sent", 1, 4, 2));
}

// --- the way there -----------------------------------------------------------

fn letter() -> Outgoing {
    let letter = Letter { subject: "Subject".into(), text: "text\n".into(), html: "<p>text</p>".into() };
    let (ambient, from) = (Ambient::system(), "no-reply@example.com".parse().unwrap());
    Outgoing::new(ambient.uuid(), MailKind::NewDevice, ambient.now(), &from, "alice@example.com", letter).unwrap()
}

/// What a server knows after somebody greeted it, and no more.
fn only_greeted(sink: &Sink) -> bool {
    sink.mails().is_empty() && sink.commands().iter().all(|line| line.starts_with("EHLO ") || line == "STARTTLS")
}

async fn without_starttls_nothing_is_given_away(_: Stack) {
    let authority = Authority::new();
    for (tls, told) in [
        (Tls::None, "no STARTTLS"),
        (Tls::StrippedStartTls, "no STARTTLS"),
        (Tls::StartTls(authority.right_name()), "certificate"),
        (Tls::Implicit(authority.right_name()), "certificate"),
    ] {
        let security = if matches!(tls, Tls::Implicit(_)) { Security::Implicit } else { Security::StartTls };
        let sink = Sink::start_with(tls).await;
        let credentials = Some(("user".to_owned(), SecretText::new("kanarienvogel".to_owned())));
        let server = SmtpServer { host: "localhost".into(), port: sink.port(), security, credentials };
        let Err(Failure::Refused(error)) = Transport::smtp(server, "localhost").unwrap().deliver(letter()).await else {
            panic!("{told}: it went, or nobody knows")
        };
        assert!(error.contains(told) && sink.connections() == 1 && only_greeted(&sink), "{error}");
    }
}

/// Waits until the log tells of a mail that was not delivered, and says why.
async fn refusal(process: &Process) -> String {
    let find = || {
        let output = process.output();
        let mut lines = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.find_map(|line| line["message"].as_str()?.starts_with("mail not").then(|| line["error"].to_string()))
    };
    eventually("the mail is refused", || async { find().is_some() }).await;
    find().unwrap()
}

async fn only_the_right_certificate_is_trusted(stack: Stack) {
    let (ours, foreign) = (Authority::new(), Authority::new());
    let pem = stack.dir.path().join("authority.pem");
    ours.write_pem(&pem);
    // Reaches 127.0.0.1, and is not one of the names by which a server is known to be on this machine.
    let mapped = "::ffff:127.0.0.1";
    let cases = [
        (Tls::Implicit(ours.right_name()), "localhost", None),
        (Tls::StartTls(ours.certify(&[mapped])), "[::ffff:127.0.0.1]", None),
        (Tls::Implicit(ours.wrong_name()), "localhost", Some("certificate")),
        (Tls::StartTls(ours.right_name()), "[::ffff:127.0.0.1]", Some("certificate")),
        (Tls::Implicit(foreign.right_name()), "localhost", Some("certificate")),
        (Tls::StartTls(foreign.certify(&[mapped])), "[::ffff:127.0.0.1]", Some("certificate")),
        // The right certificate, behind answers that anybody could have given.
        (Tls::InjectedStartTls(ours.certify(&[mapped])), "[::ffff:127.0.0.1]", Some("corrupt")),
    ];
    for (number, (tls, host, refused)) in cases.into_iter().enumerate() {
        let sink = Sink::start_with(tls).await;
        let dir = stack.dir.path().join(number.to_string());
        std::fs::create_dir(&dir).unwrap();
        let url = sink.url_at(&format!("us%40er:p%3Ass%2F@{host}"));
        let settings = [
            set("SMTP_URL", url),
            set("SSL_CERT_FILE", pem.display()),
            set("LATCHKEY_LISTEN", "127.0.0.1:0"),
            set("LATCHKEY_INTERNAL_LISTEN", "127.0.0.1:0"),
        ];
        let process = Process::start(&dir, &settings);
        let body = json!({"email": "alice@example.com", "password": PASSWORD});
        process.client().post("/register", body).await.is(201);
        let Some(told) = refused else {
            let [mail] = sink.wait_for(1).await.try_into().unwrap();
            assert!(mail.tls && mail.user == Some(("us@er".into(), "p:ss/".into())), "{number}: {mail:?}");
            continue;
        };
        let error = refusal(&process).await;
        assert!(error.contains(told) && only_greeted(&sink), "{number}: {error}");
    }
}

async fn a_refused_password_waits_and_is_told_to_nobody(stack: Stack) {
    let sink = Sink::start().await;
    sink.set(Mood::WrongPassword);
    let app = stack.app_with(&[("SMTP_URL", &sink.url_at("user:kanarienvogel@127.0.0.1"))]).await;
    register(&app, ["alice".to_owned()]).await;
    app.deliver().await;
    let waiting = row(&app).await;
    assert_eq!(waiting.state, "pending");
    assert!(waiting.last_error.as_deref().is_some_and(|error| error.contains("535")), "{waiting:?}");
    assert!(!format!("{waiting:?} {:?} {:?}", app.post, app.config).contains("kanarienvogel"));
    sink.set(Mood::Accept);
    app.pass(Duration::from_secs(5));
    app.deliver().await;
    let [mail] = sink.mails().try_into().expect("one mail");
    assert_eq!(mail.user, Some(("user".into(), "kanarienvogel".into())));
}

async fn readiness_tells_of_the_mail_server(stack: Stack) {
    let sink = Sink::start().await;
    let app = mailing(&stack, &sink).await;
    let client = Client::of(app.internal_router());
    for (mood, status, word) in [(Mood::Accept, 200, "ok"), (Mood::Closed, 503, "down"), (Mood::Accept, 200, "ok")] {
        sink.set(mood);
        let ready = client.get("/health/ready").await.is(status).json();
        assert_eq!(
            (&ready["checks"]["mail"]["status"], &ready["checks"]["database"]["status"]),
            (&json!(word), &json!("ok"))
        );
    }
}
