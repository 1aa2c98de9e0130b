//! What is done to the mail of a sender domain, read from the settings at each attempt and kept until they change; for
//! a domain whose mail is signed some seconds at most, since its key may be mended or exposed on disk meanwhile.

use super::sign::Signer as DkimSigner;
use crate::clock;
use crate::domain::{Demand, Excluded, SenderDomain, Subdomain};
use crate::keys::DkimKeys;
use crate::mail::{DomainName, Recipient, Role};
use crate::privacy::{OptOuts, PrivacyKey};
use crate::rewrite::{Limits, OffReason, OnSigned, Policy, Scheme, Tracking};
use crate::settings::{Settings, Snapshot};
use crate::spool::MessageHead;
use crate::token::{HostSigner, Signer};
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The parts of the configuration that shape a policy.
#[derive(Clone, Debug)]
pub struct Style {
    pub scheme: Scheme,
    /// What must be true before a host is used for links.
    pub demand: Demand,
    /// 0: none is written.
    pub port: u16,
    pub on_signed: OnSigned,
    pub limits: Limits,
}

/// What is done to one domain's mail.
#[derive(Clone)]
pub struct Route {
    pub tracking: Tracking,
    /// Whose copies are left alone.
    pub excluded: Excluded,
    /// Who has opted out of tracking.
    pub opt_outs: Arc<OptOuts>,
    /// What they are found with.
    pub privacy: Arc<PrivacyKey>,
    /// Signs for the tracking host; there whenever tracking is active.
    pub signer: Option<HostSigner>,
    /// Signs what leaves.
    pub dkim: Option<Arc<DkimSigner>>,
}

impl Route {
    /// For each recipient why their copy is left alone, if it is; empty where nobody's can be.
    pub(super) fn left_alone(&self, recipients: &[Recipient]) -> Vec<Option<OffReason>> {
        let Tracking::Active(policy) = &self.tracking else { return Vec::new() };
        if self.excluded.is_empty() && self.opt_outs.is_empty() {
            return Vec::new();
        }
        let reason = |recipient: &Recipient| {
            if self.excluded.holds(&recipient.address) {
                return Some(OffReason::ExcludedRecipient);
            }
            let opted_out = self.opt_outs.hold(&self.privacy, Some(&policy.domain), &recipient.address);
            opted_out.then_some(OffReason::OptedOut)
        };
        recipients.iter().map(reason).collect()
    }

    /// The same for a message that cannot be signed: a signature it brings is then one that we cannot replace.
    pub(super) fn without_dkim(&self) -> Self {
        let mut route = Self { dkim: None, ..self.clone() };
        if let Tracking::Active(policy) = &mut route.tracking {
            policy.signs = false;
        }
        route
    }
}

/// Routes by domain, made when first asked for and dropped when settings or keys change.
pub struct Routes {
    settings: Arc<Settings>,
    signer: Arc<ArcSwap<Signer>>,
    dkim: Arc<DkimKeys>,
    privacy: Arc<PrivacyKey>,
    /// May be swapped.
    pub style: ArcSwap<Style>,
    known: Mutex<Known>,
    /// Domains whose key cannot be used, with the reason that was logged.
    unusable: Mutex<HashMap<DomainName, String>>,
}

#[derive(Default)]
struct Known {
    version: u64,
    signer: Option<Arc<Signer>>,
    style: Option<Arc<Style>>,
    /// With the time (of [`clock::steady_ms`]) until which each is good.
    routes: HashMap<Box<str>, (Arc<Route>, u64)>,
}

/// More domains than this are made anew each time they are asked for.
const MAX_KNOWN: usize = 10_000;
/// How often the file of a key that signs is looked at.
const LOOK_EVERY_MS: u64 = 5_000;

impl Routes {
    pub fn new(
        settings: Arc<Settings>,
        signer: Arc<ArcSwap<Signer>>,
        dkim: Arc<DkimKeys>,
        privacy: Arc<PrivacyKey>,
        style: Style,
    ) -> Self {
        let (known, unusable) = (Mutex::default(), Mutex::default());
        Self { settings, signer, dkim, privacy, style: ArcSwap::from_pointee(style), known, unusable }
    }

    /// The route for a message: by its listener, then by the domain that its From header names.
    pub fn of(&self, head: &MessageHead) -> Arc<Route> {
        match head.role {
            Role::Submission => self.of_domain(head.from_domain.as_deref()),
            Role::Inbound => Arc::new(Route {
                tracking: Tracking::Off(OffReason::Inbound),
                excluded: Excluded::default(),
                opt_outs: Arc::default(),
                privacy: Arc::clone(&self.privacy),
                signer: None,
                dkim: None,
            }),
        }
    }

    fn of_domain(&self, domain: Option<&str>) -> Arc<Route> {
        let settings = self.settings.snapshot();
        let (signer, style) = (self.signer.load_full(), self.style.load_full());
        let name = domain.unwrap_or("");
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let same = known.version == settings.version
            && known.signer.as_ref().is_some_and(|known| Arc::ptr_eq(known, &signer))
            && known.style.as_ref().is_some_and(|known| Arc::ptr_eq(known, &style));
        if !same || known.routes.len() > MAX_KNOWN {
            *known = Known {
                version: settings.version,
                signer: Some(Arc::clone(&signer)),
                style: Some(Arc::clone(&style)),
                routes: HashMap::new(),
            };
        }
        let now = clock::steady_ms();
        if let Some((route, until)) = known.routes.get(name)
            && now < *until
        {
            return Arc::clone(route);
        }
        let domain = DomainName::parse(name).ok().and_then(|name| settings.domains.get(&name));
        let dkim = domain.and_then(|domain| self.dkim_signer(domain));
        let mut tracking = tracking(&settings, &style, name);
        if let Tracking::Active(policy) = &mut tracking {
            policy.signs = dkim.is_some();
        }
        let signer = match &tracking {
            Tracking::Active(policy) => Some(signer.for_host(&policy.host)),
            Tracking::Off(_) => None,
        };
        let excluded = match &tracking {
            Tracking::Active(policy) => settings.domains.get(&policy.domain).map(|domain| domain.excluded.clone()),
            Tracking::Off(_) => None,
        };
        let (excluded, opt_outs) = (excluded.unwrap_or_default(), Arc::clone(&settings.opt_outs));
        let privacy = Arc::clone(&self.privacy);
        let route = Arc::new(Route { tracking, excluded, opt_outs, privacy, signer, dkim });
        let rests_on_a_file = domain.is_some_and(|domain| domain.dkim.signing().is_some());
        let until = if rests_on_a_file { now.saturating_add(LOOK_EVERY_MS) } else { u64::MAX };
        known.routes.insert(name.into(), (Arc::clone(&route), until));
        route
    }

    /// What signs mail of the domain, if its key is in use and can be read.
    fn dkim_signer(&self, domain: &SenderDomain) -> Option<Arc<DkimSigner>> {
        let key = domain.dkim.signing()?;
        let mut unusable = self.unusable.lock().unwrap_or_else(PoisonError::into_inner);
        match self.dkim.open(&domain.name, &key.selector, &key.public) {
            Ok(opened) => {
                if unusable.remove(&domain.name).is_some() {
                    tracing::info!(domain = %domain.name, "mail is signed again");
                }
                let (domain, selector) = (domain.name.clone(), key.selector.clone());
                Some(Arc::new(DkimSigner { domain, selector, key: opened }))
            }
            Err(why) => {
                let why = why.to_string();
                if unusable.get(&domain.name) != Some(&why) {
                    tracing::error!(domain = %domain.name, "mail is not signed: {why}");
                    unusable.insert(domain.name.clone(), why);
                }
                None
            }
        }
    }
}

/// The four conditions of tracking, in the order in which an operator would mend them.
fn tracking(settings: &Snapshot, style: &Style, name: &str) -> Tracking {
    let Ok(name) = DomainName::parse(name) else { return Tracking::Off(OffReason::UnknownDomain) };
    let Some(domain) = settings.domains.get(&name) else { return Tracking::Off(OffReason::UnknownDomain) };
    if settings.tracking_off || settings.tracking_off_for.contains(&name) {
        return Tracking::Off(OffReason::SwitchedOff);
    }
    if !domain.open_tracking && !domain.click_tracking {
        return Tracking::Off(OffReason::Disabled);
    }
    if domain.tracking_subdomain().is_none() {
        return Tracking::Off(OffReason::NoSubdomain);
    }
    let verified = |asked: &Subdomain| asked.is_usable(Demand::Nothing);
    match domain.active_subdomain(style.demand) {
        Some(active) => Tracking::Active(policy(style, domain, active.host.clone())),
        None if domain.tracking_subdomain().is_some_and(verified) => Tracking::Off(OffReason::NoCertificate),
        None => Tracking::Off(OffReason::NotVerified),
    }
}

fn policy(style: &Style, domain: &SenderDomain, host: DomainName) -> Policy {
    Policy {
        domain: domain.name.clone(),
        open: domain.open_tracking,
        click: domain.click_tracking,
        scheme: style.scheme,
        host,
        port: style.port,
        own_hosts: domain.subdomains().iter().map(|s| s.host.clone()).collect(),
        on_signed: style.on_signed,
        signs: false,
        limits: style.limits.clone(),
    }
}
