//! `/reset`, the page behind the link of a reset mail, and `/.well-known/change-password` (W3C "A Well-Known URL for
//! Changing Passwords"), which leads password managers to it.
//!
//! The link carries flow and code in its fragment, which no browser sends anywhere: a mail scanner that opens the link
//! gets this page and changes nothing. The page's script takes them out of the address bar and posts them when the
//! person has chosen a password. Without a fragment it asks for the address first. Script and style are files of this
//! origin, so the policy needs no hash and no exception; they are not to be stored, since after an upgrade an old script
//! would meet a new page.
//!
//! A third language is one more object in `page/words.json`.

use std::{collections::BTreeMap, sync::LazyLock};

use axum::{
    extract::State,
    http::{
        StatusCode,
        header::{CONTENT_LANGUAGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, VARY},
    },
    response::{Html, IntoResponse, Response},
    routing::get,
};
use minijinja::{Environment, Value, context};
use utoipa_axum::router::OpenApiRouter;

use crate::{
    app::App,
    error::{ApiError, Code},
    http::AcceptLanguage,
};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

type Words = BTreeMap<String, BTreeMap<String, String>>;

static WORDS: LazyLock<Words> =
    LazyLock::new(|| serde_json::from_str(include_str!("page/words.json")).unwrap_or_default());

/// The routes: pages and assets, which are no operations of the API.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .route("/reset", get(page))
        .route("/reset.js", get(async || asset("text/javascript; charset=utf-8", include_str!("page/reset.js"))))
        .route("/reset.css", get(async || asset("text/css; charset=utf-8", include_str!("page/reset.css"))))
        .route("/.well-known/change-password", get(async || (StatusCode::SEE_OTHER, [(LOCATION, "/reset")])))
}

fn asset(content_type: &'static str, text: &'static str) -> Response {
    ([(CONTENT_TYPE, content_type)], text).into_response()
}

async fn page(State(app): State<App>, AcceptLanguage(asked): AcceptLanguage) -> Result<Response, ApiError> {
    let known = |tag: Option<&str>| {
        let language = tag?.split('-').next()?.to_ascii_lowercase();
        WORDS.get_key_value(&language)
    };
    let language = app.post.language(None, asked.as_deref());
    let (lang, words) = known(Some(language)).or_else(|| known(Some("en"))).ok_or(Code::Internal)?;
    let html = render(lang, words, &app).map_err(|error| ApiError::new(Code::Internal).caused_by(error))?;
    let headers = [(CONTENT_SECURITY_POLICY, POLICY), (CONTENT_LANGUAGE, lang), (VARY, "Accept-Language")];
    Ok((headers, Html(html)).into_response())
}

fn render(lang: &str, words: &BTreeMap<String, String>, app: &App) -> Result<String, minijinja::Error> {
    static PAGE: LazyLock<Result<Environment<'static>, minijinja::Error>> = LazyLock::new(|| {
        let mut environment = Environment::new();
        // The name's ending turns escaping on.
        environment.add_template("reset.html", include_str!("page/reset.html"))?;
        Ok(environment)
    });
    let environment = PAGE.as_ref().map_err(|error| minijinja::Error::new(error.kind(), "the page is broken"))?;
    environment.get_template("reset.html")?.render(context! {
        lang => lang,
        words => Value::from_pairs(words.iter().map(|(key, text)| (key.as_str(), text.as_str()))),
        product => app.config.product_name.as_str(),
        support => app.config.mail.support.as_deref().unwrap_or_default(),
        min_length => app.config.passwords.min_length,
    })
}
