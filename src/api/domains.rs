//! `/domains`.

use super::Api;
use super::caller::{Full, Unbound};
use super::error::{ApiError, Kind, Refusals, json};
use super::input::{Fields, Id, Page, PageQuery};
use super::time::iso;
use crate::domain::Region;
use crate::ops::{self, CertificateView, DomainUpdate, DomainView, NewDomain, RecordView, Verify};
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use utoipa::ToSchema;
use uuid::Uuid;

/// A domain with its DNS records.
#[derive(Serialize, ToSchema)]
pub struct Domain {
    /// Always `domain`.
    object: &'static str,
    #[serde(flatten)]
    item: DomainItem,
    records: Vec<DnsRecord>,
    /// The same as `created_at`, for one client; in the answer to creation alone.
    #[serde(rename = "createdAt", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    created_at_again: Option<String>,
}

/// A domain as lists have it.
#[derive(Serialize, ToSchema)]
pub struct DomainItem {
    id: Uuid,
    /// With U-labels.
    name: String,
    created_at: String,
    /// `not_started`, `pending`, `verified`, `partially_verified` or `failed`.
    #[schema(value_type = DomainStatus)]
    status: String,
    open_tracking: bool,
    click_tracking: bool,
    /// The one asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    tracking_subdomain: Option<String>,
    /// The one that links in new mail use.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    active_tracking_subdomain: Option<String>,
    capabilities: Capabilities,
    region: String,
    /// Whether mail is tracked, and why not.
    tracking: String,
    /// Of the tracking host asked for.
    certificate: Certificate,
    /// Of every tracking host.
    certificates: Vec<Certificate>,
    /// Addresses, and domains as `@example.com`, whose copies are never tracked.
    excluded_recipients: Vec<String>,
    /// Mail is to be signed: it is, once the DKIM record is verified.
    dkim: bool,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "names the words for the schema")]
enum DomainStatus {
    NotStarted,
    Pending,
    Verified,
    PartiallyVerified,
    Failed,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "names the words for the schema")]
enum RecordStatus {
    NotStarted,
    Pending,
    Verified,
    TemporaryFailure,
    Failed,
}

/// What a domain can do. Always the same.
#[derive(Serialize, ToSchema)]
pub struct Capabilities {
    sending: &'static str,
    receiving: &'static str,
}

/// TLS of the tracking host.
#[derive(Serialize, ToSchema)]
pub struct Certificate {
    /// `none` (links are plain HTTP), `external` (someone else ends TLS), `waiting`, `ordering`, `valid` or `failed`.
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    valid_until: Option<String>,
    /// Why the last order failed, in the CA's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next_try_at: Option<String>,
}

/// A record to be added to the domain's DNS.
#[derive(Serialize, ToSchema)]
pub struct DnsRecord {
    /// `Tracking`, `TrackingCAA` or `DKIM`.
    record: String,
    /// The full name, with A-labels.
    name: String,
    #[serde(rename = "type")]
    kind: String,
    /// Always `Auto`.
    ttl: &'static str,
    #[schema(value_type = RecordStatus)]
    status: String,
    value: String,
    /// What is there instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    found: Option<String>,
    /// True where an operator vouched for it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    by_operator: bool,
    /// True for a subdomain or a key that was used before, which mail already sent still needs.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    earlier: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next_check_at: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub struct DomainList {
    /// Always `list`.
    object: &'static str,
    has_more: bool,
    data: Vec<DomainItem>,
}

/// That something was begun.
#[derive(Serialize, ToSchema)]
pub struct DomainId {
    object: &'static str,
    id: Uuid,
}

#[derive(Serialize, ToSchema)]
pub struct DomainDeleted {
    object: &'static str,
    id: Uuid,
    deleted: bool,
    /// What becomes of links already sent.
    message: String,
}

/// A domain to be added. Fields that are not named here are accepted and ignored.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `Fields` reads")]
pub struct CreateDomain {
    #[schema(example = "example.com")]
    name: String,
    open_tracking: Option<bool>,
    click_tracking: Option<bool>,
    /// Labels below the domain.
    #[schema(example = "links", nullable = false)]
    tracking_subdomain: Option<String>,
    /// `us-east-1` unless given; it means nothing here.
    #[schema(value_type = Option<RegionName>)]
    region: Option<String>,
    excluded_recipients: Option<Vec<String>>,
    /// Sign mail of the domain, with a key that is made.
    dkim: Option<bool>,
    /// Accepted for clients that send it; not kept.
    custom_return_path: Option<String>,
    /// Accepted in any case of letters; not kept.
    tls: Option<String>,
    #[schema(value_type = Option<Object>)]
    capabilities: Option<()>,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "names the words for the schema")]
enum RegionName {
    #[schema(rename = "us-east-1")]
    UsEast1,
    #[schema(rename = "eu-west-1")]
    EuWest1,
    #[schema(rename = "sa-east-1")]
    SaEast1,
    #[schema(rename = "ap-northeast-1")]
    ApNortheast1,
}

/// What is to change; what is absent stays.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `Fields` reads")]
pub struct UpdateDomain {
    open_tracking: Option<bool>,
    click_tracking: Option<bool>,
    /// Can be changed once in 24 hours, and never taken away.
    #[schema(example = "links", nullable = false)]
    tracking_subdomain: Option<String>,
    excluded_recipients: Option<Vec<String>>,
    /// Sign mail of the domain; the first time with a key that is made.
    dkim: Option<bool>,
    tls: Option<String>,
    #[schema(value_type = Option<Object>)]
    capabilities: Option<()>,
}

/// How long the answer to verify waits for the first look.
const VERIFY_PATIENCE: Duration = Duration::from_secs(2);

/// Add a domain.
#[utoipa::path(post, path = "/domains", operation_id = "domain_create",
    tag = "domains", request_body = CreateDomain,
    responses((status = 201, body = Domain), Refusals))]
pub async fn create(State(api): State<Arc<Api>>, _: Unbound, fields: Fields) -> Result<Response, ApiError> {
    check_ignored(&fields)?;
    let region = match fields.text("region")? {
        None => Region::default(),
        Some(text) => Region::parse(&text).ok_or_else(|| {
            let known: Vec<_> = Region::ALL.iter().map(|region| format!("\"{}\"", region.as_str())).collect();
            ApiError::new(Kind::InvalidRegion, format!("Region must be {}.", known.join(" | ")))
        })?,
    };
    let new = NewDomain {
        name: fields.required("name")?,
        subdomain: subdomain(&fields)?,
        open: fields.flag("open_tracking")?.unwrap_or(false),
        click: fields.flag("click_tracking")?.unwrap_or(false),
        region,
        excluded: fields.texts("excluded_recipients")?.unwrap_or_default(),
        dkim: fields.flag("dkim")?.unwrap_or(false),
        force_verified: false,
    };
    let view = ops::domain_add(&api.ops, new).await?;
    let mut domain = Domain::of(view);
    domain.created_at_again = Some(domain.item.created_at.clone());
    Ok(json(StatusCode::CREATED, &domain))
}

/// List the domains.
#[utoipa::path(get, path = "/domains", operation_id = "domain_list",
    tag = "domains", params(PageQuery),
    responses((status = 200, body = DomainList), Refusals))]
pub async fn list(State(api): State<Arc<Api>>, caller: Full, page: Page) -> Result<Response, ApiError> {
    let settings = api.ops.settings.snapshot();
    let mut ids: Vec<Uuid> = settings.domains.values().filter(|d| caller.0.reaches(d)).map(|d| d.id).collect();
    ids.sort_unstable_by(|a, b| b.cmp(a));
    let (ids, has_more) = page.of(ids, |id| *id);
    // One that was removed meanwhile is left out.
    let views = ids.into_iter().filter_map(|id| ops::domain_show(&api.ops, id).ok());
    let data = views.map(|view| Domain::of(view).item).collect();
    Ok(json(StatusCode::OK, &DomainList { object: "list", has_more, data }))
}

/// One domain with its records.
#[utoipa::path(get, path = "/domains/{id}", operation_id = "domain_get",
    tag = "domains", params(("id" = Uuid, Path)),
    responses((status = 200, body = Domain), Refusals))]
pub async fn get(State(api): State<Arc<Api>>, caller: Full, Id(id): Id) -> Result<Response, ApiError> {
    caller.domain(&api.ops.settings.snapshot(), id)?;
    Ok(json(StatusCode::OK, &Domain::of(ops::domain_show(&api.ops, id)?)))
}

/// Change a domain.
#[utoipa::path(patch, path = "/domains/{id}", operation_id = "domain_update",
    tag = "domains", params(("id" = Uuid, Path)), request_body = UpdateDomain,
    responses((status = 200, body = Domain), Refusals))]
pub async fn update(
    State(api): State<Arc<Api>>,
    caller: Full,
    Id(id): Id,
    fields: Fields,
) -> Result<Response, ApiError> {
    caller.domain(&api.ops.settings.snapshot(), id)?;
    check_ignored(&fields)?;
    let update = DomainUpdate {
        subdomain: subdomain(&fields)?,
        open: fields.flag("open_tracking")?,
        click: fields.flag("click_tracking")?,
        excluded: fields.texts("excluded_recipients")?,
        dkim: fields.flag("dkim")?,
        ..DomainUpdate::default()
    };
    Ok(json(StatusCode::OK, &Domain::of(ops::domain_update(&api.ops, id, update).await?)))
}

/// Look at the DNS records, at once and then again for 72 hours.
#[utoipa::path(post, path = "/domains/{id}/verify", operation_id = "domain_verify",
    tag = "domains", params(("id" = Uuid, Path)),
    responses((status = 200, body = DomainId), Refusals))]
pub async fn verify(State(api): State<Arc<Api>>, caller: Full, Id(id): Id) -> Result<Response, ApiError> {
    caller.domain(&api.ops.settings.snapshot(), id)?;
    ops::domain_verify(&api.ops, id, Verify::Ask, VERIFY_PATIENCE).await?;
    Ok(json(StatusCode::OK, &DomainId { object: "domain", id }))
}

/// Remove a domain. Its mail is no longer tracked; links already sent go on for the configured grace.
#[utoipa::path(delete, path = "/domains/{id}", operation_id = "domain_delete",
    tag = "domains", params(("id" = Uuid, Path)),
    responses((status = 200, body = DomainDeleted), Refusals))]
pub async fn delete(State(api): State<Arc<Api>>, caller: Full, Id(id): Id) -> Result<Response, ApiError> {
    caller.domain(&api.ops.settings.snapshot(), id)?;
    let message = ops::domain_remove(&api.ops, id).await?;
    Ok(json(StatusCode::OK, &DomainDeleted { object: "domain", id, deleted: true, message }))
}

fn subdomain(fields: &Fields) -> Result<Option<String>, ApiError> {
    let refusal = "The `tracking_subdomain` field can be changed but not removed: links already sent use it.";
    fields.text_not_null("tracking_subdomain", refusal)
}

/// Fields that are accepted and not kept must still be what they are said to be.
fn check_ignored(fields: &Fields) -> Result<(), ApiError> {
    fields.word("tls", &["opportunistic", "enforced"])?;
    fields.text("custom_return_path")?;
    if let Some(capabilities) = fields.object("capabilities")? {
        for field in ["sending", "receiving"] {
            capabilities.word(field, &["enabled", "disabled"])?;
        }
    }
    Ok(())
}

impl Domain {
    fn of(view: DomainView) -> Self {
        let item = DomainItem {
            id: view.id.parse().unwrap_or_default(),
            name: view.name,
            created_at: iso(view.created_at),
            status: view.status,
            open_tracking: view.open_tracking,
            click_tracking: view.click_tracking,
            tracking_subdomain: view.tracking_subdomain,
            active_tracking_subdomain: view.active_tracking_subdomain,
            capabilities: Capabilities { sending: "enabled", receiving: "disabled" },
            region: view.region,
            tracking: view.tracking,
            certificate: Certificate::of(view.certificate),
            certificates: view.certificates.into_iter().map(Certificate::of).collect(),
            excluded_recipients: view.excluded_recipients,
            dkim: view.dkim,
        };
        let records = view.records.into_iter().map(DnsRecord::of).collect();
        Self { object: "domain", item, records, created_at_again: None }
    }
}

impl Certificate {
    fn of(view: CertificateView) -> Self {
        Self {
            state: view.state,
            host: view.host,
            valid_until: view.valid_until.map(iso),
            message: view.message,
            next_try_at: view.next_try_at.map(iso),
        }
    }
}

impl DnsRecord {
    fn of(view: RecordView) -> Self {
        Self {
            record: view.record,
            name: view.name,
            kind: view.kind,
            ttl: "Auto",
            status: view.status,
            value: view.value,
            found: view.found,
            by_operator: view.by_operator,
            earlier: view.earlier,
            next_check_at: view.next_check_at.map(iso),
        }
    }
}
