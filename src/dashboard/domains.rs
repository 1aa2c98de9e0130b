//! The list of sender domains, and adding one. The pages of one domain are [`super::domain`]'s.

use super::domain::{Badge, Tracking, badge_of, certificate_badge, host_of};
use super::error::Error;
use super::form::{Asked, Form};
use super::frame::{Frame, Operator, Section, Signed, page, page_again};
use super::{Dashboard, filters};
use crate::domain::{SenderDomain, unicode};
use crate::ops::{self, DomainView, NewDomain};
use crate::settings::Snapshot;
use askama::Template;
use axum::extract::State;
use axum::response::Response;
use std::ops::Bound;
use std::sync::Arc;
use url::form_urlencoded;

pub const LIST: &str = "/dashboard/domains";
/// Domains of a page.
const PAGE: usize = 50;

#[derive(Template)]
#[template(path = "domains.html")]
struct List {
    frame: Frame,
    rows: Vec<Row>,
    /// What names are to contain.
    wanted: String,
    /// There are domains for this key, whatever is looked for.
    any: bool,
    /// This is not the first page.
    later: bool,
    /// The addresses of the first page and of the next one.
    first: String,
    more: Option<String>,
}

struct Row {
    id: String,
    name: String,
    badge: Badge,
    tracking: Tracking,
    /// The tracking host asked for, and the one in use where that is another one.
    host: Option<String>,
    in_use: Option<String>,
    certificate: Option<Badge>,
}

#[derive(Template)]
#[template(path = "domain_new.html")]
struct New {
    frame: Frame,
    name: String,
    dkim: bool,
    wrong: Option<String>,
}

/// The list in the order of names; `?after=NAME` goes on, `?q=TEXT` leaves those whose name has it.
pub async fn list(
    State(dashboard): State<Arc<Dashboard>>,
    signed: Signed,
    Asked(asked): Asked,
) -> Result<Response, Error> {
    let settings = dashboard.ops.settings.snapshot();
    let (wanted, after) = (asked.text("q"), asked.text("after"));
    let mut found = matching(&settings, &signed, &wanted.to_lowercase(), after);
    let more = (found.len() > PAGE).then(|| address(wanted, found[PAGE - 1].name.as_str()));
    found.truncate(PAGE);
    // One that was removed meanwhile is left out.
    let views = found.iter().filter_map(|domain| ops::domain_show(&dashboard.ops, domain.id).ok());
    page(&List {
        frame: dashboard.frame(&signed, Section::Domains, "Domains"),
        rows: views.map(Row::of).collect(),
        wanted: wanted.to_owned(),
        any: settings.domains.values().any(|domain| signed.key.reaches(domain)),
        later: !after.is_empty(),
        first: address(wanted, ""),
        more,
    })
}

/// Those of a page and one more, where there is one.
fn matching<'a>(settings: &'a Snapshot, signed: &Signed, wanted: &str, after: &str) -> Vec<&'a SenderDomain> {
    let has = |name: &str| name.contains(wanted) || unicode(name).contains(wanted);
    let rest = settings.domains.range::<str, _>((Bound::Excluded(after), Bound::Unbounded));
    let own = rest.map(|(_, domain)| domain).filter(|domain| signed.key.reaches(domain));
    own.filter(|domain| wanted.is_empty() || has(domain.name.as_str())).take(PAGE + 1).collect()
}

fn address(wanted: &str, after: &str) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, value) in [("q", wanted), ("after", after)].into_iter().filter(|(_, value)| !value.is_empty()) {
        query.append_pair(name, value);
    }
    match query.finish() {
        query if query.is_empty() => LIST.to_owned(),
        query => format!("{LIST}?{query}"),
    }
}

/// The form to add one.
pub async fn new(State(dashboard): State<Arc<Dashboard>>, Operator(signed): Operator) -> Result<Response, Error> {
    let frame = dashboard.frame(&signed, Section::Domains, "Add a domain");
    page(&New { frame, name: String::new(), dkim: false, wrong: None })
}

/// Adds one; its configuration comes next.
pub async fn add(
    State(dashboard): State<Arc<Dashboard>>,
    Operator(signed): Operator,
    form: Form,
) -> Result<Response, Error> {
    let (name, dkim) = (form.text("name").trim_end_matches('.').to_owned(), form.has("dkim"));
    let added = match name.is_empty() {
        true => Err(Error::Refused("Give the domain that stands in the From of its mail, such as example.com.".into())),
        false => {
            let new = NewDomain { name: name.clone(), dkim, ..NewDomain::default() };
            ops::domain_add(&dashboard.ops, new).await.map_err(Error::from)
        }
    };
    match added {
        Ok(view) => {
            let text = format!("{} is added. Its mail is not tracked yet: that is configured here.", view.name);
            Ok(dashboard.done(&signed, &format!("{LIST}/{}/configuration", view.id), text))
        }
        Err(Error::Refused(why)) => {
            let frame = dashboard.frame(&signed, Section::Domains, "Add a domain");
            page_again(&New { frame, name, dkim, wrong: Some(why) })
        }
        Err(other) => Err(other),
    }
}

impl Row {
    fn of(view: DomainView) -> Self {
        let (asked, used) = (view.tracking_subdomain.as_deref(), view.active_tracking_subdomain.as_deref());
        Self {
            badge: badge_of(&view),
            tracking: Tracking::of(&view),
            host: asked.map(|labels| host_of(labels, &view.name)),
            in_use: used.filter(|_| used != asked).map(|labels| host_of(labels, &view.name)),
            certificate: asked.map(|_| certificate_badge(&view.certificate)),
            id: view.id,
            name: view.name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::DomainName;
    use crate::settings::{ApiKey, Permission, Tie};
    use uuid::Uuid;

    fn signed(domains: Vec<Tie>) -> Signed {
        let key = ApiKey::new(Uuid::nil(), "a".into(), "re_a", Permission::FullAccess, domains, 0);
        Signed { id: [0; 32], csrf: String::new(), key, by_itself: false }
    }

    #[test]
    fn pages_of_names() {
        let mut settings = Snapshot::default();
        let mut names: Vec<String> = (0..60).map(|n| format!("shop{n:02}.example.com")).collect();
        names.push("bücher.example".to_owned());
        for (n, name) in names.iter().enumerate() {
            let name = DomainName::parse(name).unwrap();
            settings.domains.insert(name.clone(), SenderDomain::new(name, Uuid::from_u128(n as u128), 0));
        }
        let all = signed(Vec::new());
        let names = |signed: &Signed, wanted: &str, after: &str| -> Vec<String> {
            matching(&settings, signed, wanted, after).iter().map(|domain| domain.name.to_string()).collect()
        };
        let first = names(&all, "", "");
        assert_eq!((first.len(), first[0].as_str()), (51, "shop00.example.com"));
        let second = names(&all, "", &first[49]);
        assert_eq!((second.len(), &second[0]), (11, &first[50]));
        assert_eq!(names(&all, "bücher", ""), ["xn--bcher-kva.example"]);
        assert_eq!(names(&all, "xn--", ""), ["xn--bcher-kva.example"]);
        assert_eq!(names(&all, "shop0", "shop07.example.com"), ["shop08.example.com", "shop09.example.com"]);
        let tie = Tie { id: Uuid::from_u128(5), name: DomainName::parse("shop05.example.com").unwrap() };
        assert_eq!(names(&signed(vec![tie]), "", ""), ["shop05.example.com"]);
    }

    #[test]
    fn addresses_of_pages() {
        assert_eq!(address("", ""), LIST);
        assert_eq!(address("a&b", "x.example"), "/dashboard/domains?q=a%26b&after=x.example");
    }
}
