//! Who gets in, and which forms are taken: the dashboard as it is served, over a relay's parts without its listeners.

mod pages;
mod place;

use super::*;
use crate::http::BodyError;
use crate::ops;
use crate::settings::Permission;
use place::{Browser, ORIGIN, Place};
use url::form_urlencoded;
use uuid::Uuid;

/// Every route with the methods it takes, as the table of [`routes`] has it, with ids that there are not.
fn all_routes() -> Vec<(String, String)> {
    let table = include_str!("mod.rs").split_once("fn routes()").unwrap().1.split_once(".fallback(").unwrap().0;
    let routes = table.split(".route(").skip(1).map(|route| {
        let (path, methods) = route.split_once('"').unwrap().1.split_once('"').unwrap();
        let mut path = path.to_owned();
        while let Some((start, end)) = path.find('{').zip(path.find('}')) {
            path.replace_range(start..=end, "01a20cce-7506-7d68-bf36-479c1abd545c");
        }
        (path, methods.to_owned())
    });
    routes.collect()
}

/// Those that answer GET and are for whoever is signed in.
fn all_pages() -> Vec<String> {
    let open = |path: &str| path == sign_in::PATH || path.starts_with("/dashboard/assets/");
    let pages: Vec<_> =
        all_routes().into_iter().filter(|(path, methods)| methods.contains("get(") && !open(path)).collect();
    assert!(pages.len() > 15, "{pages:?}");
    pages.into_iter().map(|(path, _)| path).collect()
}

fn all_forms() -> Vec<String> {
    let forms: Vec<_> = all_routes().into_iter().filter(|(_, methods)| methods.contains("post(")).collect();
    assert!(forms.len() > 10, "{forms:?}");
    forms.into_iter().map(|(path, _)| path).filter(|path| path != sign_in::PATH).collect()
}

#[tokio::test]
async fn nobody_is_led_to_sign_in_from_every_page() {
    let place = Place::new(false);
    let nobody = Browser::default();
    for path in all_pages() {
        let answer = place.get(&path, &nobody).await;
        // Nobody needs to be led back to where everybody begins.
        let is_root = path == ROOT && answer.location().starts_with("/dashboard/");
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{path}");
        assert!(is_root || answer.leads_to_sign_in(&path), "{path}: {} {}", answer.status, answer.location());
    }
    let answer = place.get("/dashboard/webhooks?after=x&y=a%26b", &nobody).await;
    assert!(answer.leads_to_sign_in("/dashboard/webhooks?after=x&y=a%26b"), "{}", answer.location());
    let forged = Browser { cookie: "trackpost=AAAA".to_owned(), csrf: String::new() };
    assert!(place.get("/dashboard/webhooks", &forged).await.leads_to_sign_in("/dashboard/webhooks"));
    for (path, kind) in [
        ("/dashboard/sign-in", "text/html"),
        ("/dashboard/assets/style.css", "text/css"),
        ("/dashboard/assets/script.js", "text/javascript"),
        ("/dashboard/assets/icon.svg", "image/svg+xml"),
    ] {
        let answer = place.get(path, &nobody).await;
        assert!(answer.status == StatusCode::OK && answer.header("content-type").starts_with(kind), "{path}");
    }
    for path in ["/dashboard/none", "/dashboard/assets/mod.rs", "/dashboard/assets/%2e%2e%2fmod.rs"] {
        assert_eq!(place.get(path, &nobody).await.status, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn a_key_signs_in_and_others_do_not() {
    for secure in [false, true] {
        let place = Place::new(secure);
        let (_, token) = place.key(Permission::FullAccess, &[]).await;
        let (_, sending) = place.key(Permission::SendingAccess, &[]).await;
        let sign_in = async |key: &str| place.post(sign_in::PATH, &Browser::default(), &[("key", key)]).await;
        for wrong in ["", "re_", &token[..token.len() - 1], &format!("{token}a"), &token.to_uppercase()] {
            let answer = sign_in(wrong).await;
            assert_eq!((answer.status, answer.header("set-cookie")), (StatusCode::FORBIDDEN, ""), "{wrong}");
            assert!(answer.text.contains("There is no such key"));
            assert!(wrong.len() < 9 || !answer.text.contains(wrong), "keys are not shown");
        }
        let answer = sign_in(&sending).await;
        assert_eq!((answer.status, answer.header("set-cookie")), (StatusCode::FORBIDDEN, ""));
        assert!(answer.text.contains("may only send mail"));

        let answer = sign_in(&format!(" {token}\n")).await;
        assert_eq!((answer.status, answer.location()), (StatusCode::SEE_OTHER, ROOT));
        let cookie = answer.header("set-cookie");
        let (name, rest) = cookie.split_once('=').unwrap();
        assert_eq!(name, if secure { "__Host-trackpost" } else { "trackpost" });
        assert!(rest.contains("; Path=/; HttpOnly; SameSite=Lax"), "{cookie}");
        assert_eq!(rest.contains("; Secure"), secure, "{cookie}");
        assert_eq!(!answer.header("strict-transport-security").is_empty(), secure);
        let browser = Browser { cookie: answer.cookie(), csrf: String::new() };
        assert_eq!(place.get("/dashboard/webhooks", &browser).await.status, StatusCode::OK);
        // Who is signed in has no need of the form.
        assert_eq!(place.get("/dashboard/sign-in?to=/dashboard/queue", &browser).await.location(), "/dashboard/queue");
    }
}

#[tokio::test]
async fn wrong_keys_are_slowed_down_and_the_right_one_is_not() {
    let place = Place::new(false);
    let (_, token) = place.key(Permission::FullAccess, &[]).await;
    let mut last = StatusCode::OK;
    for _ in 0..11 {
        last = place.post(sign_in::PATH, &Browser::default(), &[("key", "re_wrong")]).await.status;
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
    place.sign_in(&token).await;
}

#[tokio::test]
async fn signing_in_leads_to_our_pages_alone() {
    let place = Place::new(false);
    let (_, token) = place.key(Permission::FullAccess, &[]).await;
    let signed = place.sign_in(&token).await;
    for (to, leads) in [
        ("/dashboard/queue", "/dashboard/queue"),
        ("/dashboard/emails?query=a%26b&page=2", "/dashboard/emails?query=a%26b&page=2"),
        ("/dashboard/emails?to=//example.org/..", "/dashboard/emails?to=//example.org/.."),
        ("", ROOT),
        ("//evil.example.org", ROOT),
        ("///evil.example.org", ROOT),
        ("https://evil.example.org/dashboard", ROOT),
        ("https:/dashboard", ROOT),
        ("javascript:alert(1)", ROOT),
        ("evil.example.org", ROOT),
        ("/dashboardevil", ROOT),
        ("/dashboard.evil.example.org", ROOT),
        ("/dashboard@evil.example.org", ROOT),
        ("/domains", ROOT),
        ("/dashboard/../x", ROOT),
        ("/dashboard/%2e%2e/x", ROOT),
        ("/dashboard/.%2E/x", ROOT),
        ("/dashboard//evil.example.org", ROOT),
        ("/dashboard/\\evil.example.org", ROOT),
        ("\\\\evil.example.org", ROOT),
        ("/dashboard/\r\nx-evil: 1", ROOT),
        ("/dashboard/\t/x", ROOT),
        ("/dashboard/\u{e9}", ROOT),
        ("/dashboard/sign-in", ROOT),
        ("/dashboard/sign-in?to=/dashboard/sign-in", ROOT),
    ] {
        let answer = place.post(sign_in::PATH, &Browser::default(), &[("key", &token), ("to", to)]).await;
        assert_eq!((answer.status, answer.location()), (StatusCode::SEE_OTHER, leads), "{to:?}");
        assert!(answer.headers.get("x-evil").is_none());
        let query = form_urlencoded::Serializer::new(String::new()).append_pair("to", to).finish();
        let path = format!("{}?{query}", sign_in::PATH);
        assert_eq!(place.get(&path, &signed).await.location(), leads, "{to:?}");
        assert_eq!(place.get(&path, &Browser::default()).await.status, StatusCode::OK);
    }
}

const HOOK: [(&str, &str); 3] =
    [("endpoint", "https://hooks.example.com/mail"), ("events[]", "email.opened"), ("enabled", "yes")];

#[tokio::test]
async fn forms_of_other_sites_and_without_the_token_change_nothing() {
    let place = Place::new(false);
    let (one, other) = (place.operator().await, place.operator().await);
    let cookie = ("cookie", &*one.cookie);
    let fields = |csrf| [&[("csrf", csrf)], &HOOK[..]].concat();
    for (headers, csrf) in [
        (vec![cookie], ""),
        (vec![cookie], "AAAA"),
        (vec![cookie, ("origin", ORIGIN)], &*other.csrf),
        (vec![cookie, ("origin", "https://evil.example.org")], &*one.csrf),
        (vec![cookie, ("origin", "http://relay.example.net")], &*one.csrf),
        (vec![cookie, ("origin", "http://relay.example.net:8082")], &*one.csrf),
        (vec![cookie, ("origin", "null")], &*one.csrf),
        (vec![cookie, ("origin", "not a URL")], &*one.csrf),
        (vec![cookie, ("origin", "http://relay.example.net.evil.example.org")], &*one.csrf),
        (vec![cookie, ("sec-fetch-site", "cross-site")], &*one.csrf),
        (vec![cookie, ("sec-fetch-site", "same-site")], &*one.csrf),
        (vec![cookie, ("origin", ORIGIN), ("sec-fetch-site", "cross-site")], &*one.csrf),
    ] {
        let answer = place.post_with("/dashboard/webhooks/new", &headers, &fields(csrf)).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{headers:?}");
        assert_eq!(place.webhooks(), 0, "{headers:?}");
    }
    let without = place.post_with("/dashboard/webhooks/new", &[cookie], &HOOK).await;
    assert_eq!((without.status, place.webhooks()), (StatusCode::FORBIDDEN, 0));
    // Nobody is signed in by another site either.
    let (_, token) = place.key(Permission::FullAccess, &[]).await;
    let headers = [("origin", "https://evil.example.org")];
    let answer = place.post_with(sign_in::PATH, &headers, &[("key", &token)]).await;
    assert_eq!((answer.status, answer.header("set-cookie")), (StatusCode::FORBIDDEN, ""));

    let answer = place.post("/dashboard/webhooks/new", &one, &HOOK).await;
    assert_eq!((answer.status, place.webhooks()), (StatusCode::SEE_OTHER, 1));
    // A client that is no browser says nothing of where it comes from, and knows the token.
    let answer = place.post_with("/dashboard/webhooks/new", &[cookie], &fields(&one.csrf)).await;
    assert_eq!((answer.status, place.webhooks()), (StatusCode::SEE_OTHER, 2));
}

#[tokio::test]
async fn every_form_needs_a_session_and_its_token() {
    let place = Place::new(false);
    let browser = place.operator().await;
    let (before, forged) = (place.ops.settings.snapshot().version, Browser { csrf: "x".to_owned(), ..browser.clone() });
    for path in all_forms() {
        for who in [&Browser::default(), &forged] {
            let answer = place.post(&path, who, &[("held", "yes")]).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
            assert!(answer.header("set-cookie").is_empty() && answer.location().is_empty(), "{path}");
        }
    }
    assert!(!place.ops.queue.is_held());
    // That the key was used may have been noted meanwhile.
    assert!(place.ops.settings.snapshot().version <= before + 1);
    assert_eq!(place.get("/dashboard/webhooks", &browser).await.status, StatusCode::OK, "nobody was signed out");
}

#[tokio::test]
async fn what_was_typed_outlasts_a_session() {
    let place = Place::new(false);
    let (_, token) = place.key(Permission::FullAccess, &[]).await;
    let ended = place.sign_in(&token).await;
    assert_eq!(place.post("/dashboard/sign-out", &ended, &[]).await.location(), sign_in::PATH);
    assert!(place.get("/dashboard/queue", &ended).await.leads_to_sign_in("/dashboard/queue"));

    let long = format!("https://hooks.example.com/{}?a=\"<b>'&c={}", "x".repeat(10_000), "\u{202e}");
    let typed = [("endpoint", &*long), ("events[]", "email.opened"), ("events[]", "email.clicked"), ("enabled", "yes")];
    let asked = place.post("/dashboard/webhooks/new", &ended, &typed).await;
    assert_eq!(asked.status, StatusCode::FORBIDDEN);
    assert!(asked.text.contains("what you typed is kept") && !asked.text.contains(&ended.csrf));
    let unescaped = |text: &str| {
        let text = text.replace("&#34;", "\"").replace("&#39;", "'").replace("&#60;", "<").replace("&#62;", ">");
        text.replace("&#38;", "&")
    };
    let kept = unescaped(asked.between("name=\"typed\" value=\"", "\""));
    let to = asked.between("name=\"to\" value=\"", "\"").to_owned();
    assert_eq!(to, "/dashboard/webhooks/new");

    // A wrong key at this point loses nothing either.
    let fields = |key| [("key", key), ("to", to.as_str()), ("typed", kept.as_str())];
    let wrong = place.post(sign_in::PATH, &Browser::default(), &fields("re_wrong")).await;
    assert_eq!(unescaped(wrong.between("name=\"typed\" value=\"", "\"")), kept);

    let shown = place.post(sign_in::PATH, &Browser::default(), &fields(&token)).await;
    assert_eq!((shown.status, place.webhooks()), (StatusCode::OK, 0), "nothing is done before somebody has seen it");
    let browser = Browser { cookie: shown.cookie(), csrf: shown.csrf() };
    let form = shown.between("<form method=\"post\" action=\"/dashboard/webhooks/new\"", "</form>");
    let mut again = Vec::new();
    for input in form.split("<input type=\"hidden\" name=\"").skip(1) {
        let (name, rest) = input.split_once("\" value=\"").unwrap();
        again.push((name.to_owned(), unescaped(rest.split_once('"').unwrap().0)));
    }
    let csrf = again.iter().position(|(name, _)| name == form::CSRF).unwrap();
    assert_eq!(again.remove(csrf).1, browser.csrf);
    assert!(again.iter().map(|(name, value)| (&**name, &**value)).eq(typed), "{again:?}");
    let again: Vec<_> = again.iter().map(|(name, value)| (&**name, &**value)).collect();
    let answer = place.post("/dashboard/webhooks/new", &browser, &again).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer.text.contains("is longer than 2000 characters"));
    assert_eq!(place.post("/dashboard/webhooks/new", &browser, &HOOK).await.status, StatusCode::SEE_OTHER);
    assert_eq!(place.webhooks(), 1);
}

#[tokio::test]
async fn a_form_of_an_earlier_session_is_shown_and_not_done() {
    let place = Place::new(false);
    let (_, token) = place.key(Permission::FullAccess, &[]).await;
    let (earlier, now) = (place.sign_in(&token).await, place.sign_in(&token).await);
    let mixed = Browser { csrf: earlier.csrf, ..now.clone() };
    let shown = place.post("/dashboard/webhooks/new", &mixed, &HOOK).await;
    assert_eq!((shown.status, shown.csrf(), place.webhooks()), (StatusCode::FORBIDDEN, now.csrf, 0));
    for (name, value) in HOOK {
        assert!(shown.text.contains(&format!("<input type=\"hidden\" name=\"{name}\" value=\"{value}\">")));
    }
}

#[tokio::test]
async fn a_revoked_key_ends_its_sessions() {
    let place = Place::new(false);
    let (id, token) = place.key(Permission::FullAccess, &[]).await;
    let (one, two) = (place.sign_in(&token).await, place.sign_in(&token).await);
    ops::key_delete(&place.ops, id).await.unwrap();
    for browser in [one, two] {
        assert!(place.get("/dashboard/queue", &browser).await.leads_to_sign_in("/dashboard/queue"));
        let answer = place.post("/dashboard/queue/hold", &browser, &[("held", "yes")]).await;
        assert_eq!((answer.status, place.ops.queue.is_held()), (StatusCode::FORBIDDEN, false));
    }
    let answer = place.post(sign_in::PATH, &Browser::default(), &[("key", &token)]).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn what_is_the_operators_is_not_there_for_others() {
    let place = Place::new(false);
    place.domain("example.com").await;
    let (_, token) = place.key(Permission::FullAccess, &["example.com"]).await;
    let (tied, operator) = (place.sign_in(&token).await, place.operator().await);
    let operators = ["/dashboard/api-keys", "/dashboard/queue", "/dashboard/kill-list"];
    for list in operators {
        assert_eq!(place.get(list, &operator).await.status, StatusCode::OK, "{list}");
    }
    let is_operators = |path: &String| operators.iter().any(|list| path.starts_with(list));
    for path in all_pages().iter().filter(|path| is_operators(path)) {
        assert_eq!(place.get(path, &tied).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    let version = place.ops.settings.snapshot().version;
    for path in all_forms().iter().filter(|path| is_operators(path)) {
        let fields =
            [("held", "yes"), ("name", "x"), ("permission", "full_access"), ("kind", "domain"), ("value", "a.test")];
        assert_eq!(place.post(path, &tied, &fields).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    assert!(!place.ops.queue.is_held());
    assert!(place.ops.settings.snapshot().version <= version + 2, "that keys were used may have been noted");
    let page = place.get("/dashboard/webhooks", &tied).await.text;
    assert!(operators.iter().all(|path| !page.contains(path)), "the navigation hides them");
}

#[tokio::test]
async fn no_page_fails_for_what_is_not_there() {
    let place = Place::new(false);
    let browser = place.operator().await;
    let odd = ["x", "%00", "%ff", "%E2%80%AE", "..%2f", "00000000-0000-0000-0000-000000000000", "<script>", "%22%3E"];
    for path in all_pages() {
        let mut paths = vec![path.clone()];
        paths
            .extend(odd.map(|id| path.replace("01a20cce-7506-7d68-bf36-479c1abd545c", &id.replace(['<', '>'], "%3C"))));
        for path in paths {
            let answer = place.get(&path, &browser).await;
            let status = answer.status.as_u16();
            let kind = if path.ends_with(".csv") { "text/csv" } else { "text/html" };
            assert!(matches!(status, 200 | 303 | 404), "{path}: {status} {}", answer.text);
            assert!(status == 303 || answer.header("content-type").starts_with(kind), "{path}");
        }
        for query in ["after=x", "after=%00", "page=0", "page=99999999999999999999", "page=-1", "&&==&;", "a=%ff"] {
            let answer = place.get(&format!("{path}?{query}"), &browser).await;
            assert!(answer.status.as_u16() < 500, "{path}?{query}: {}", answer.text);
        }
    }
}

#[tokio::test]
async fn methods_slashes_and_bodies_that_cannot_be_read() {
    let place = Place::new(false);
    let browser = place.operator().await;
    let cookie = [("cookie", &*browser.cookie)];
    for method in [Method::PUT, Method::DELETE, Method::PATCH] {
        let answer = place.ask(method, "/dashboard/webhooks/new", &cookie, Ok(Bytes::new())).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    }
    let answer = place.get("/dashboard/webhooks/", &browser).await;
    assert_eq!((answer.status, answer.location()), (StatusCode::PERMANENT_REDIRECT, "/dashboard/webhooks"));
    let answer = place.get("/dashboard/emails/?q=ada&x=%2F", &browser).await;
    assert_eq!(answer.location(), "/dashboard/emails?q=ada&x=%2F", "an address keeps what it asks for");
    assert_eq!(place.get("/dashboard/sign-out", &browser).await.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(place.get("/dashboard/webhooks", &browser).await.status, StatusCode::OK, "a link signs nobody out");
    for (error, status) in [
        (BodyError::Busy, StatusCode::TOO_MANY_REQUESTS),
        (BodyError::TooLarge { limit: 1 }, StatusCode::UNPROCESSABLE_ENTITY),
        (BodyError::Broken, StatusCode::UNPROCESSABLE_ENTITY),
    ] {
        let answer = place.ask(Method::POST, "/dashboard/webhooks/new", &cookie, Err(error.into())).await;
        assert_eq!((answer.status, place.webhooks()), (status, 0));
    }
}
