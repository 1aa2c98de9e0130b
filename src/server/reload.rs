//! SIGHUP: the file is read again, and what may change while mail flows is swapped, all of it or, where the file is
//! bad, nothing. Addresses, the data folder and the like need a restart; the log says which were changed.

use super::{parts, systemd};
use crate::config::Config;
use crate::event::MachineList;
use crate::inbound::{Inbound, Terms};
use crate::intake::Intake;
use crate::ops::Ops;
use crate::outbound::Outbound;
use crate::recorder::Keeping;
use crate::supervise;
use crate::tls::ServerTls;
use crate::webhook::Webhooks;
use arc_swap::ArcSwap;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::signal::unix::Signal;
use tokio::sync::watch;

/// What a reload swaps.
pub struct Reloaded {
    /// As it is in force.
    pub config: Config,
    pub intake: Arc<Intake>,
    pub inbound: Arc<Inbound>,
    pub outbound: Arc<Outbound>,
    pub webhooks: Arc<Webhooks>,
    pub ops: Arc<Ops>,
    pub keeping: Arc<ArcSwap<Keeping>>,
    pub machines: Arc<ArcSwap<MachineList>>,
    pub tls: Option<Arc<ServerTls>>,
    /// By the address that the configuration gives.
    pub terms: Vec<(SocketAddr, Arc<ArcSwap<Terms>>)>,
}

/// Reloads at every SIGHUP until `stop`.
pub async fn run(mut parts: Reloaded, mut hangup: Signal, mut stop: watch::Receiver<bool>) {
    let mut turns = supervise::Turns::new("reload");
    loop {
        tokio::select! {
            told = hangup.recv() => if told.is_none() { return },
            _ = stop.wait_for(|stop| *stop) => return,
        }
        systemd::reloading();
        if let Err(panic) = supervise::caught(async { parts.reload() }).await
            && turns.pause(&panic, &mut stop).await
        {
            return;
        }
        systemd::ready();
    }
}

impl Reloaded {
    fn reload(&mut self) {
        let file = self.config.file.display().to_string();
        let mut config = match Config::load(&self.config.file) {
            Ok(config) => config,
            Err(faults) => {
                faults.iter().for_each(|fault| tracing::error!("{fault}"));
                return tracing::error!("{file} was not reloaded: what was in force stays in force");
            }
        };
        let mut left = needs_restart(&self.config, &config);
        let runs: Vec<SocketAddr> = self.terms.iter().map(|(address, _)| *address).collect();
        if config.smtp.listeners.iter().map(|listener| listener.address).ne(runs) {
            left.push("smtp.listener.address");
        }
        keep_what_runs(&self.config, &mut config);
        let delivery = match parts::delivery(&config) {
            Ok(delivery) => delivery,
            Err(e) => return tracing::error!("{file} was not reloaded: {e}"),
        };
        if let (Some(tls), Some(files)) = (&self.tls, &config.smtp.certificate)
            && let Err(e) = tls.reopen(files)
        {
            return tracing::error!("{file} was not reloaded: {e}");
        }
        self.outbound.delivery.store(Arc::new(delivery));
        self.outbound.routes.style.store(Arc::new(parts::style(&config)));
        self.ops.terms.store(Arc::new(parts::terms_of_domains(&config)));
        // Whoever looks at DNS and orders certificates sees at once what is needed now.
        self.ops.settings.nudge();
        self.webhooks.rules.store(Arc::new(parts::webhook_rules(&config)));
        self.intake.rules.store(Arc::new(parts::intake_rules(&config)));
        self.keeping.store(Arc::new(parts::keeping(&config)));
        self.machines.store(Arc::clone(&config.events.machines));
        self.inbound.rules.store(Arc::new(parts::inbound_rules(&config)));
        let mut tls_differs = false;
        for listener in &config.smtp.listeners {
            for (_, terms) in self.terms.iter().filter(|(address, _)| *address == listener.address) {
                if !parts::encrypts_as(&terms.load(), listener.tls) {
                    tls_differs = true;
                    continue;
                }
                terms.store(Arc::new(parts::terms(&config, listener, self.tls.as_ref())));
            }
        }
        left.extend(tls_differs.then_some("smtp.listener.tls"));
        tracing::info!("{file} was reloaded");
        if !left.is_empty() {
            tracing::warn!("changed, and in force only after a restart: {}", left.join(", "));
        }
        self.config = config;
    }
}

/// Keys that changed and are read at the start alone.
fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let table = [
        ("hostname", old.hostname != new.hostname),
        ("data_dir", old.data_dir != new.data_dir),
        ("smtp.max_message_size", old.smtp.max_message_size != new.smtp.max_message_size),
        ("queue.min_free", old.queue.min_free != new.queue.min_free),
        ("spool", old.spool != new.spool),
        ("tracking.http", old.tracking.http != new.tracking.http),
        ("tracking.cname_target", old.tracking.cname_target != new.tracking.cname_target),
        ("tracking.trusted_proxies", old.tracking.trusted_proxies != new.tracking.trusted_proxies),
        ("tracking.proxy_protocol", old.tracking.proxy_protocol != new.tracking.proxy_protocol),
        ("tracking.removed_domain_grace", old.tracking.removed_domain_grace != new.tracking.removed_domain_grace),
        ("tracking.https", old.tracking.https != new.tracking.https),
        ("tracking.tls", old.tracking.tls != new.tracking.tls),
        ("acme", old.acme != new.acme),
        ("dns", old.dns != new.dns),
        ("api", old.api != new.api),
        ("webhooks.allow_private", old.webhooks.allow_private != new.webhooks.allow_private),
        ("webhooks.ports", old.webhooks.ports != new.webhooks.ports),
        ("events.anonymize_ip", old.events.anonymize_ip != new.events.anonymize_ip),
        ("webhooks.ca_file", old.webhooks.ca_file != new.webhooks.ca_file),
        ("log", old.log != new.log),
    ];
    table.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key).collect()
}

/// What is read at the start alone stays as it is, also for what is made anew from the rest.
fn keep_what_runs(old: &Config, new: &mut Config) {
    new.hostname.clone_from(&old.hostname);
    new.data_dir.clone_from(&old.data_dir);
    new.smtp.max_message_size = old.smtp.max_message_size;
    new.queue.min_free = old.queue.min_free;
    new.spool = old.spool.clone();
    new.tracking.http.clone_from(&old.tracking.http);
    new.tracking.cname_target = old.tracking.cname_target.clone();
    new.tracking.trusted_proxies.clone_from(&old.tracking.trusted_proxies);
    new.tracking.proxy_protocol.clone_from(&old.tracking.proxy_protocol);
    new.tracking.removed_domain_grace = old.tracking.removed_domain_grace;
    new.tracking.https.clone_from(&old.tracking.https);
    new.tracking.tls = old.tracking.tls.clone();
    new.acme = old.acme.clone();
    new.dns = old.dns.clone();
    new.api = old.api.clone();
    new.webhooks.allow_private = old.webhooks.allow_private;
    new.webhooks.ports.clone_from(&old.webhooks.ports);
    new.events.anonymize_ip = old.events.anonymize_ip;
    new.webhooks.ca_file.clone_from(&old.webhooks.ca_file);
    new.log = old.log.clone();
}
