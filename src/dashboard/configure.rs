//! The form in which tracking is configured: subdomain, opens, clicks, signing, whose copies are left alone.
//!
//! It carries what it was filled from. Where somebody else has changed that meanwhile, nothing is saved: the form comes
//! again with what was typed, says what has changed, and can be sent once more, over what it now shows.

use super::domain::{Reached, host_of, when};
use super::error::Error;
use super::form::Form;
use super::frame::{Frame, Section, page, page_again};
use super::words::sentence;
use super::{Dashboard, filters};
use crate::clock;
use crate::domain::{DomainRule, SenderDomain, unicode};
use crate::ops::{self, Configuration, DomainUpdate, OpError};
use askama::Template;
use axum::extract::State;
use axum::response::Response;
use std::sync::Arc;
use url::form_urlencoded;

#[derive(Template)]
#[template(path = "domain_configure.html")]
struct Page {
    frame: Frame,
    root: String,
    /// What the form was filled from.
    was: String,
    typed: Typed,
    wrong: Wrong,
    /// What somebody else has changed.
    changed: Vec<String>,
    name: String,
    /// There is no tracking subdomain yet.
    new: bool,
    /// The tracking host asked for, and the one in use where that is another one.
    host: String,
    in_use: Option<String>,
    /// Until when the subdomain cannot be changed.
    locked: Option<String>,
    /// The field is locked, as it shows what it was.
    readonly: bool,
    /// Characters that the list of excluded recipients may have here.
    most: usize,
}

/// What stands in the form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Typed {
    subdomain: String,
    open: bool,
    click: bool,
    dkim: bool,
    /// One a line. Nothing where there are too many for a form.
    excluded: Option<String>,
}

/// What is wrong, beside which field.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wrong {
    subdomain: Option<String>,
    excluded: Option<String>,
    dkim: Option<String>,
    /// Where no field is to blame.
    all: Option<String>,
}

/// Longer lists of excluded recipients are changed by the API and the command line: a form with one would not come in.
const MOST_EXCLUDED: usize = 60_000;

pub async fn form(State(dashboard): State<Arc<Dashboard>>, reached: Reached) -> Result<Response, Error> {
    let typed = Typed::of(&reached.domain);
    page(&Page::of(&dashboard, &reached, &reached.domain, typed))
}

pub async fn save(State(dashboard): State<Arc<Dashboard>>, reached: Reached, form: Form) -> Result<Response, Error> {
    let typed = Typed::read(&form);
    let was = read(form.given("was").unwrap_or_default());
    let before = &reached.domain;
    if typed.subdomain.is_empty() && before.tracking_subdomain().is_none() && (typed.open || typed.click) {
        let text = "Give a tracking subdomain, such as links: without one nothing is tracked.".to_owned();
        let wrong = Wrong { subdomain: Some(text), ..Wrong::default() };
        return page_again(&Page { wrong, was: text_of(&was), ..Page::of(&dashboard, &reached, before, typed) });
    }
    match ops::domain_update(&dashboard.ops, before.id, typed.update(&was)).await {
        Ok(view) => {
            let root = reached.root();
            let asks = view.tracking_subdomain.as_deref() != was.subdomain.as_deref().map(unicode).as_deref();
            if asks || view.dkim && !was.dkim {
                let text = "Saved. Add the records that stand here to DNS, then press “I've added the records”.";
                return Ok(dashboard.done(&reached.signed, &root, text));
            }
            Ok(dashboard.done(&reached.signed, &format!("{root}/configuration"), "Saved."))
        }
        Err(OpError::ChangedMeanwhile) => {
            let settings = dashboard.ops.settings.snapshot();
            let now = settings.domain(before.id).ok_or(Error::NotThere)?;
            let changed = changes(&was, now);
            page_again(&Page { changed, ..Page::of(&dashboard, &reached, now, typed) })
        }
        Err(refused) => {
            let wrong = Wrong::of(refused)?;
            page_again(&Page { wrong, was: text_of(&was), ..Page::of(&dashboard, &reached, before, typed) })
        }
    }
}

impl Page {
    fn of(dashboard: &Dashboard, reached: &Reached, domain: &SenderDomain, typed: Typed) -> Self {
        let (name, now) = (unicode(domain.name.as_str()), clock::unix_ms());
        let asked = domain.tracking_subdomain().map(|subdomain| unicode(&subdomain.labels));
        let next = domain.next_change(now).filter(|_| asked.is_some());
        Self {
            frame: dashboard.frame(&reached.signed, Section::Domains, &format!("Configure {name}")),
            root: reached.root(),
            was: text_of(&Configuration::of(domain)),
            readonly: next.is_some() && asked.as_ref() == Some(&typed.subdomain),
            typed,
            wrong: Wrong::default(),
            changed: Vec::new(),
            new: asked.is_none(),
            in_use: domain
                .active_subdomain(dashboard.ops.terms.load().demand)
                .filter(|used| domain.tracking_subdomain() != Some(used))
                .map(|used| unicode(used.host.as_str())),
            host: host_of(asked.as_deref().unwrap_or("links"), &name),
            locked: next.map(|at| when(at, now)),
            name,
            most: MOST_EXCLUDED,
        }
    }
}

impl Typed {
    /// As the form begins.
    fn of(domain: &SenderDomain) -> Self {
        let excluded = domain.excluded.iter().collect::<Vec<_>>().join("\n");
        Self {
            subdomain: domain.tracking_subdomain().map(|s| unicode(&s.labels)).unwrap_or_default(),
            open: domain.open_tracking,
            click: domain.click_tracking,
            dkim: domain.dkim.is_on(),
            excluded: (excluded.len() <= MOST_EXCLUDED).then_some(excluded),
        }
    }

    fn read(form: &Form) -> Self {
        Self {
            subdomain: form.text("subdomain").to_owned(),
            open: form.has("open"),
            click: form.has("click"),
            dkim: form.has("dkim"),
            excluded: form.given("excluded").map(str::to_owned),
        }
    }

    fn update(&self, was: &Configuration) -> DomainUpdate {
        let lines =
            |text: &String| text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
        DomainUpdate {
            // Nothing where nothing was: that is no attempt to take it away.
            subdomain: (!self.subdomain.is_empty() || was.subdomain.is_some()).then(|| self.subdomain.clone()),
            open: Some(self.open),
            click: Some(self.click),
            excluded: self.excluded.as_ref().map(lines),
            dkim: (self.dkim != was.dkim).then_some(self.dkim),
            force_verified: false,
            expects: Some(was.clone()),
        }
    }
}

impl Wrong {
    /// Finds the field; what is no fault of the form's stays an error.
    fn of(error: OpError) -> Result<Self, Error> {
        let text = Some(sentence(&error.to_string()));
        Ok(match error {
            OpError::Rule(
                DomainRule::BadSubdomain(..)
                | DomainRule::WholeHost(_)
                | DomainRule::SubdomainRemoved
                | DomainRule::ChangedLately { .. },
            )
            | OpError::HostIsTarget(_)
            | OpError::HostTaken(_)
            | OpError::UnsupportedSuffix { .. } => Self { subdomain: text, ..Self::default() },
            OpError::Rule(DomainRule::BadExcluded(_) | DomainRule::TooManyExcluded) => {
                Self { excluded: text, ..Self::default() }
            }
            OpError::Rule(DomainRule::BadSelector(_) | DomainRule::SelectorInUse(_) | DomainRule::NoDkimKey)
            | OpError::BadDkimKey(_) => Self { dkim: text, ..Self::default() },
            other => match Error::from(other) {
                Error::Refused(text) => Self { all: Some(text), ..Self::default() },
                other => return Err(other),
            },
        })
    }
}

/// A configuration as one field of a form has it.
fn text_of(configuration: &Configuration) -> String {
    let Configuration { subdomain, open, click, dkim, excluded } = configuration;
    let mut text = form_urlencoded::Serializer::new(String::new());
    for (name, on) in [("open", open), ("click", click), ("dkim", dkim)] {
        if *on {
            text.append_pair(name, "on");
        }
    }
    if let Some(labels) = subdomain {
        text.append_pair("subdomain", labels);
    }
    text.append_pair("excluded", excluded).finish()
}

/// Reads it again. What is none equals no domain's, so nothing is saved over it unseen.
fn read(text: &str) -> Configuration {
    let form = Form::read(text.as_bytes());
    Configuration {
        subdomain: form.given("subdomain").map(str::to_owned),
        open: form.has("open"),
        click: form.has("click"),
        dkim: form.has("dkim"),
        excluded: form.text("excluded").to_owned(),
    }
}

/// Field by field, what a domain now is that it was not.
fn changes(was: &Configuration, domain: &SenderDomain) -> Vec<String> {
    let now = Configuration::of(domain);
    let mut all = Vec::new();
    if was.subdomain != now.subdomain {
        let shown = |labels: &Option<String>| labels.as_deref().map_or("not set".to_owned(), unicode);
        all.push(format!("Tracking subdomain: {} (it was {})", shown(&now.subdomain), shown(&was.subdomain)));
    }
    let word = |on| if on { "on" } else { "off" };
    for (name, before, after) in [
        ("Open tracking", was.open, now.open),
        ("Click tracking", was.click, now.click),
        ("DKIM signing", was.dkim, now.dkim),
    ] {
        if before != after {
            all.push(format!("{name}: {} (it was {})", word(after), word(before)));
        }
    }
    if was.excluded != now.excluded {
        let (total, shown) = (domain.excluded.iter().count(), domain.excluded.iter().take(SHOWN).collect::<Vec<_>>());
        all.push(match total {
            0 => "Excluded recipients: nobody".to_owned(),
            _ if total > SHOWN => format!("Excluded recipients: {} and {} more", shown.join(", "), total - SHOWN),
            _ => format!("Excluded recipients: {}", shown.join(", ")),
        });
    }
    all
}

/// Excluded recipients that are named among what has changed.
const SHOWN: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Excluded;
    use crate::mail::DomainName;
    use uuid::Uuid;

    fn domain() -> SenderDomain {
        let mut domain = SenderDomain::new(DomainName::parse("example.com").unwrap(), Uuid::nil(), 0);
        domain.open_tracking = true;
        domain.set_subdomain("bücher", 0).unwrap();
        domain.excluded = Excluded::parse(["a@example.com", "@example.net"]).unwrap();
        domain
    }

    fn typed(text: &str) -> Typed {
        Typed::read(&Form::read(text.as_bytes()))
    }

    #[test]
    fn what_a_form_was_filled_from_comes_back() {
        for domain in [domain(), SenderDomain::new(DomainName::parse("example.com").unwrap(), Uuid::nil(), 0)] {
            let was = Configuration::of(&domain);
            assert_eq!(read(&text_of(&was)), was);
        }
        for text in ["", "excluded=", "%ff&&=&subdomain"] {
            let plain = SenderDomain::new(DomainName::parse("example.com").unwrap(), Uuid::nil(), 0);
            assert_ne!(read(text), Configuration::of(&plain), "{text}");
        }
    }

    #[test]
    fn a_form_that_is_sent_as_it_came_changes_nothing() {
        let before = domain();
        let was = Configuration::of(&before);
        let update = Typed::of(&before).update(&was);
        assert_eq!((update.open, update.click, update.dkim), (Some(true), Some(false), None));
        let mut after = before.clone();
        after.set_subdomain(&update.subdomain.unwrap(), 5).unwrap();
        after.excluded = Excluded::parse(update.excluded.unwrap().iter().map(String::as_str)).unwrap();
        assert_eq!(after, before);
    }

    #[test]
    fn what_is_typed_becomes_an_update() {
        let none = Configuration::default();
        let update = typed("subdomain=+links+&click=on&dkim=on&excluded=+a%40example.com%0D%0A%0D%0A%40example.net")
            .update(&none);
        assert_eq!(update.subdomain.as_deref(), Some("links"));
        assert_eq!((update.open, update.click, update.dkim), (Some(false), Some(true), Some(true)));
        assert_eq!(update.excluded.unwrap(), ["a@example.com", "@example.net"]);
        assert_eq!(typed("").update(&none).subdomain, None);
        let some = Configuration { subdomain: Some("links".into()), ..none };
        assert_eq!(typed("subdomain=").update(&some).subdomain.as_deref(), Some(""), "refused, not overlooked");
        assert_eq!(typed("").update(&some).excluded, None, "there was no such field");
    }

    #[test]
    fn lists_too_long_for_a_form_are_left_out() {
        let mut domain = domain();
        let many: Vec<_> = (0..1_000).map(|n| format!("{}{n}@example.com", "a".repeat(60))).collect();
        domain.excluded = Excluded::parse(many.iter().map(String::as_str)).unwrap();
        assert_eq!(Typed::of(&domain).excluded, None);
    }

    #[test]
    fn what_somebody_else_changed_is_told_field_by_field() {
        let mut domain = domain();
        let was = Configuration::of(&domain);
        assert!(changes(&was, &domain).is_empty());
        domain.set_subdomain("go", 1).unwrap();
        (domain.open_tracking, domain.click_tracking) = (false, true);
        assert_eq!(
            changes(&was, &domain),
            [
                "Tracking subdomain: go (it was bücher)",
                "Open tracking: off (it was on)",
                "Click tracking: on (it was off)"
            ]
        );
        let many: Vec<_> = (0..12).map(|n| format!("{n}@example.com")).collect();
        domain.excluded = Excluded::parse(many.iter().map(String::as_str)).unwrap();
        assert!(changes(&was, &domain)[3].ends_with(" and 2 more"));
        domain.excluded = Excluded::default();
        assert_eq!(changes(&was, &domain)[3], "Excluded recipients: nobody");
    }

    #[test]
    fn faults_stand_beside_their_fields() {
        let wrong = |rule: DomainRule| Wrong::of(OpError::Rule(rule)).unwrap();
        assert!(wrong(DomainRule::ChangedLately { next: 5 }).subdomain.is_some());
        assert!(wrong(DomainRule::SubdomainRemoved).subdomain.is_some());
        assert!(wrong(DomainRule::BadExcluded("x".into())).excluded.is_some());
        assert!(wrong(DomainRule::NoDkimKey).dkim.is_some());
        let host = DomainName::parse("links.example.com").unwrap();
        let taken = Wrong::of(OpError::HostTaken(host)).unwrap().subdomain.unwrap();
        assert!(taken.starts_with("links.example.com belongs"), "{taken}");
        assert!(matches!(Wrong::of(OpError::NoSuchDomain), Err(Error::NotThere)));
        assert!(matches!(Wrong::of(OpError::Fault("x".into())), Err(Error::Unavailable(_))));
    }
}
