//! `/emails/metrics`: counts and rates over time.

use super::Api;
use super::caller::Full;
use super::emails::aside;
use super::error::{ApiError, Kind, Refusals, json};
use super::input::uuid;
use crate::clock;
use crate::domain::unicode;
use crate::mail::QueueId;
use crate::ops::{
    self, CONTRACT, DomainHours, Figure, Granularity, Metrics, MetricsQuery, OURS, OpError, Value, Window,
};
use crate::settings::Snapshot;
use crate::store::Counts;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use url::form_urlencoded;
use utoipa::openapi::schema::Type;
use utoipa::openapi::{ObjectBuilder, RefOr, Schema};
use utoipa::{IntoParams, PartialSchema, ToSchema};
use uuid::Uuid;

/// Lists are separated by commas, given several times, or both.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes what `Asked` reads")]
pub struct MetricsParams {
    /// ISO 8601 date or time; the beginning of the day six days before the end unless given (with `email_id`, of the
    /// day on which the first of them was accepted, if that is earlier).
    start_date: Option<String>,
    /// ISO 8601 date, which is included, or time; now unless given.
    end_date: Option<String>,
    /// IANA time zone, whose days count.
    #[param(default = "UTC")]
    timezone: Option<String>,
    /// How long a period is; at most 10,000 of them.
    granularity: Option<GranularityName>,
    /// Names of figures; all of the contract unless given. Ours are messages, tracked, untracked, opened_human,
    /// opened_machine, clicked_human, clicked_machine, unique_opened_human, unique_clicked_human, open_rate_human and
    /// click_rate_human.
    metrics: Option<Vec<MetricName>>,
    /// What rows there are: by period, domain and email (only with `email_id`). There are no rows by broadcast.
    dimensions: Option<Vec<DimensionName>>,
    /// These domains alone; 100 at most.
    #[param(max_items = 100)]
    domain_id: Option<Vec<Uuid>>,
    /// These messages alone, each with all that was counted for it, in the period in which it was accepted; 100 at
    /// most. Those that are not there are left out.
    #[param(max_items = 100)]
    email_id: Option<Vec<Uuid>>,
    /// There are no broadcasts: with one, everything is nothing. Not with `email_id`.
    #[param(max_items = 100)]
    broadcast_id: Option<Vec<Uuid>>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "names the words for the schema")]
enum GranularityName {
    Hourly,
    Daily,
    Weekly,
    Monthly,
}

/// The name of a figure.
struct MetricName;

impl PartialSchema for MetricName {
    fn schema() -> RefOr<Schema> {
        let names = CONTRACT.iter().chain(&OURS).map(|figure| figure.name);
        ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).build().into()
    }
}

impl ToSchema for MetricName {}

/// What there is a row for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum DimensionName {
    Period,
    Domain,
    Email,
    Broadcast,
}

#[derive(Serialize, ToSchema)]
pub struct MetricsBody {
    /// Always `metrics`.
    object: &'static str,
    start_date: String,
    end_date: String,
    /// The figures that were asked for.
    metrics: Vec<&'static str>,
    dimensions: Vec<DimensionName>,
    #[schema(value_type = GranularityName)]
    granularity: &'static str,
    /// Of everything that was asked for: without a filter all mail, of known domains or not.
    #[schema(value_type = BTreeMap<String, f64>)]
    totals: BTreeMap<&'static str, Value>,
    /// Only with dimensions. By period alone there is a row for each; else one where there was something.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    data: Option<Vec<MetricsRow>>,
}

/// Figures of one period, domain or message, by their names.
#[derive(Serialize, ToSchema)]
pub struct MetricsRow {
    /// The first day of the period, or the time at which its hour begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    period: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    domain_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    domain_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    email_id: Option<Uuid>,
    #[serde(flatten)]
    #[schema(value_type = BTreeMap<String, f64>)]
    figures: BTreeMap<&'static str, Value>,
}

/// Ids in one filter.
const MAX_IDS: usize = 100;

/// Counts and rates over time.
#[utoipa::path(get, path = "/emails/metrics", operation_id = "email_metrics",
    tag = "emails", params(MetricsParams),
    responses((status = 200, body = MetricsBody), Refusals))]
pub async fn get(
    State(api): State<Arc<Api>>,
    Full(key): Full,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let asked = Asked::read(query.as_deref().unwrap_or_default(), clock::unix_ms())?;
    let settings = api.ops.settings.snapshot();
    let query = MetricsQuery {
        window: asked.window.clone(),
        by_period: asked.by(DimensionName::Period).then_some(asked.granularity),
        by_domain: asked.by(DimensionName::Domain),
        by_email: asked.by(DimensionName::Email),
        domains: match asked.of_broadcasts {
            true => Some(Vec::new()),
            false => domains(&settings, &Full(key.clone()), &asked)?,
        },
        emails: asked.emails.clone(),
    };
    let reader = Arc::clone(&api);
    let found =
        aside(&api, move || ops::metrics(&reader.ops, query, |from, at| ops::may_see(&settings, &key, from, at)))
            .await?;
    Ok(json(StatusCode::OK, &asked.answer(found)))
}

/// The domains that count: those asked for, or all that the key may see; nothing for all mail.
fn domains(settings: &Snapshot, key: &Full, asked: &Asked) -> Result<Option<Vec<DomainHours>>, ApiError> {
    let is_tied = !key.0.domains.is_empty();
    if asked.domains.is_empty() {
        let own = || settings.domains.values().filter(|domain| key.0.reaches(domain)).map(DomainHours::of).collect();
        return Ok(is_tied.then(own));
    }
    let find = |id: &Uuid| match settings.removed.get(id).filter(|_| !is_tied) {
        Some(removed) => Ok(DomainHours::of(removed)),
        None => key.domain(settings, *id).map(DomainHours::of),
    };
    asked.domains.iter().map(find).collect::<Result<_, _>>().map(Some)
}

/// A query string that was understood.
#[derive(Debug)]
struct Asked {
    window: Window,
    granularity: Granularity,
    figures: Vec<&'static Figure>,
    dimensions: Vec<DimensionName>,
    /// Each once.
    domains: Vec<Uuid>,
    emails: Option<Vec<QueueId>>,
    of_broadcasts: bool,
}

impl Asked {
    fn read(query: &str, now: u64) -> Result<Self, ApiError> {
        let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
        // Of several the last.
        let one = |name: &str| pairs.iter().rev().find(|(key, _)| key == name).map(|(_, value)| &**value);
        let list = |name: &str| -> Vec<&str> {
            let values = pairs.iter().filter(|(key, _)| key == name).flat_map(|(_, value)| value.split(','));
            values.map(str::trim).filter(|entry| !entry.is_empty()).collect()
        };
        let granularity = match one("granularity") {
            None => Granularity::Daily,
            Some(text) => {
                Granularity::ALL.into_iter().find(|granularity| granularity.name() == text).ok_or_else(|| {
                    ApiError::validation("The `granularity` parameter must be one of hourly, daily, weekly, monthly.")
                })?
            }
        };
        let mut figures = Vec::new();
        for name in list("metrics") {
            let unknown = || ApiError::validation(format!("There is no metric {name:?}."));
            let figure = Figure::named(name).ok_or_else(unknown)?;
            if !figures.iter().any(|known: &&Figure| known.name == figure.name) {
                figures.push(figure);
            }
        }
        if figures.is_empty() {
            figures = CONTRACT.iter().collect();
        }
        let mut dimensions = Vec::new();
        for name in list("dimensions") {
            let dimension = DimensionName::named(name).ok_or_else(|| {
                ApiError::validation("The `dimensions` parameter takes period, domain, email and broadcast.")
            })?;
            if !dimensions.contains(&dimension) {
                dimensions.push(dimension);
            }
        }
        let emails = ids("email_id", &list("email_id"))?;
        let broadcasts = ids("broadcast_id", &list("broadcast_id"))?;
        let (by_email, by_broadcast) =
            (dimensions.contains(&DimensionName::Email), dimensions.contains(&DimensionName::Broadcast));
        if (by_email || !emails.is_empty()) && (by_broadcast || !broadcasts.is_empty()) {
            return Err(ApiError::validation("Use either emails or broadcasts, not both."));
        }
        if by_email && emails.is_empty() {
            return Err(ApiError::validation("The dimension `email` needs the `email_id` parameter."));
        }
        let emails: Vec<_> = emails.into_iter().map(|id| QueueId::from_bytes(id.into_bytes())).collect();
        Ok(Self {
            window: Window::new(one("start_date"), one("end_date"), one("timezone"), now).map_err(OpError::from)?,
            granularity,
            figures,
            dimensions,
            domains: ids("domain_id", &list("domain_id"))?,
            emails: (!emails.is_empty()).then_some(emails),
            of_broadcasts: !broadcasts.is_empty(),
        })
    }

    fn by(&self, dimension: DimensionName) -> bool {
        self.dimensions.contains(&dimension)
    }

    fn answer(&self, found: Metrics) -> MetricsBody {
        let figures = |counts: &Counts| self.figures.iter().map(|figure| (figure.name, figure.of(counts))).collect();
        let row = |row: ops::MetricsRow| {
            let (domain_id, domain_name) = row.domain.map(|(id, name)| (id, unicode(name.as_str()))).unzip();
            MetricsRow {
                period: row.period,
                domain_id,
                domain_name,
                email_id: row.email.map(|id| Uuid::from_bytes(*id.as_bytes())),
                figures: figures(&row.counts),
            }
        };
        let rows = (!self.dimensions.is_empty()).then(|| match self.by(DimensionName::Broadcast) {
            // Nothing belongs to one.
            true => Vec::new(),
            false => found.rows.into_iter().map(row).collect(),
        });
        MetricsBody {
            object: "metrics",
            start_date: time(found.window.start()),
            end_date: time(found.window.end()),
            metrics: self.figures.iter().map(|figure| figure.name).collect(),
            dimensions: self.dimensions.clone(),
            granularity: self.granularity.name(),
            totals: figures(&found.totals),
            data: rows,
        }
    }
}

impl DimensionName {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "period" => Self::Period,
            "domain" => Self::Domain,
            "email" => Self::Email,
            "broadcast" => Self::Broadcast,
            _ => return None,
        })
    }
}

/// Each once.
fn ids(name: &str, texts: &[&str]) -> Result<Vec<Uuid>, ApiError> {
    let bad = || ApiError::new(Kind::InvalidParameter, format!("The `{name}` parameter must hold valid UUIDs."));
    let mut ids = texts.iter().map(|text| uuid(text).ok_or_else(bad)).collect::<Result<Vec<_>, _>>()?;
    ids.sort_unstable();
    ids.dedup();
    match ids.len() {
        0..=MAX_IDS => Ok(ids),
        _ => Err(ApiError::validation(format!("The `{name}` parameter takes {MAX_IDS} ids at most."))),
    }
}

/// `2026-07-01T00:00:00.000Z`.
fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-24 10:30 UTC.
    const NOW: u64 = 1_795_516_200_000;
    const ID: &str = "01a20bca-30ad-7a41-9458-9e4990397764";

    #[test]
    fn lists_come_in_any_form() {
        let asked = Asked::read("metrics=sent,opened&metrics=open_rate_human%2Csent&dimensions=period", NOW).unwrap();
        let names: Vec<_> = asked.figures.iter().map(|figure| figure.name).collect();
        assert_eq!(names, ["sent", "opened", "open_rate_human"]);
        assert!(asked.by(DimensionName::Period) && !asked.by(DimensionName::Domain));
        let plain = Asked::read("", NOW).unwrap();
        assert_eq!((plain.figures.len(), plain.granularity, plain.emails), (22, Granularity::Daily, None));
        let ids = Asked::read(&format!("email_id={ID},{ID}&domain_id={ID}&what=ever"), NOW).unwrap();
        assert_eq!((ids.emails.map(|ids| ids.len()), ids.domains.len()), (Some(1), 1));
    }

    #[test]
    fn what_is_wrong_is_refused() {
        let many: Vec<_> = (0..101u128).map(|n| Uuid::from_u128(n).to_string()).collect();
        let many = format!("domain_id={}", many.join(","));
        for (query, name) in [
            ("metrics=sent,opens", "validation_error"),
            ("dimensions=day", "validation_error"),
            ("granularity=yearly", "validation_error"),
            ("granularity=Daily", "validation_error"),
            ("timezone=Mars/Olympus", "validation_error"),
            ("start_date=soon", "validation_error"),
            ("start_date=", "validation_error"),
            ("start_date=2026-11-30", "validation_error"),
            ("domain_id=example.com", "invalid_parameter"),
            ("email_id=01a20bca30ad7a4194589e4990397764", "invalid_parameter"),
            ("broadcast_id=1", "invalid_parameter"),
            ("dimensions=email", "validation_error"),
            ("dimensions=broadcast,email&email_id=01a20bca-30ad-7a41-9458-9e4990397764", "validation_error"),
            ("dimensions=broadcast&email_id=01a20bca-30ad-7a41-9458-9e4990397764", "validation_error"),
            (&many, "validation_error"),
        ] {
            let refused = Asked::read(query, NOW).unwrap_err();
            assert_eq!((refused.kind.name(), refused.kind.status().as_u16()), (name, 422), "{query}");
        }
    }

    #[test]
    fn an_answer_holds_numbers_alone() {
        let asked = Asked::read("dimensions=period,broadcast&metrics=sent,open_rate", NOW).unwrap();
        let found =
            Metrics { window: asked.window.clone(), totals: Default::default(), rows: vec![Default::default()] };
        let body = serde_json::to_value(asked.answer(found.clone())).unwrap();
        assert_eq!(body["totals"], serde_json::json!({"sent": 0, "open_rate": 0.0}));
        assert_eq!((&body["data"], &body["start_date"]), (&serde_json::json!([]), &"2026-11-18T00:00:00.000Z".into()));
        let plain = serde_json::to_value(Asked::read("", NOW).unwrap().answer(found)).unwrap();
        assert!(plain.get("data").is_none() && plain["totals"].as_object().unwrap().values().all(|v| v.is_number()));
    }
}
