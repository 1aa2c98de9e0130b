//! From the configuration to the parts that act on it. Nothing is started here, so that a reload can make all parts
//! of a new configuration before it swaps the first.

use super::StartError;
use crate::config::{self, Config};
use crate::inbound::{self, Terms};
use crate::intake;
use crate::outbound::{self, Delivery, Smarthost, Style, TlsMode};
use crate::rewrite::{Limits, OnSigned, Scheme};
use crate::smtp::{Auth, BareNewline, SessionConfig, Timeouts};
use std::sync::Arc;

/// A setting that is silently ignored would be worse than one that is refused.
pub fn refuse_what_is_not_built(config: &Config) -> Result<(), StartError> {
    for listener in &config.smtp.listeners {
        if listener.tls != config::ListenerTls::None {
            return Err(StartError::NotBuilt("smtp.listener.tls other than none"));
        }
        if listener.auth != config::ListenerAuth::None {
            return Err(StartError::NotBuilt("smtp.listener.auth other than none"));
        }
        if !listener.proxy_protocol.is_empty() {
            return Err(StartError::NotBuilt("smtp.listener.proxy_protocol"));
        }
    }
    if config.tracking.tls != config::TrackingTls::External {
        return Err(StartError::NotBuilt("tracking.tls other than external"));
    }
    Ok(())
}

/// What is taken from clients.
pub fn intake_rules(config: &Config) -> intake::Rules {
    intake::Rules {
        reject_unknown: config.unknown_domains == config::UnknownDomains::Reject,
        max_messages: usize::try_from(config.queue.max_messages).unwrap_or(usize::MAX),
    }
}

/// Limits of connections.
pub fn inbound_rules(config: &Config) -> inbound::Rules {
    let times = &config.smtp.timeouts;
    inbound::Rules {
        timeouts: Timeouts {
            command: times.command,
            data_block: times.data,
            handshake: times.handshake,
            data_rate: config.smtp.min_data_rate,
            ..Timeouts::default()
        },
        max_connections: config.smtp.max_connections,
        max_connections_per_client: config.smtp.max_connections_per_client,
    }
}

/// Where mail goes.
pub fn delivery(config: &Config) -> Result<Delivery, StartError> {
    Ok(Delivery {
        smarthosts: smarthosts(config)?,
        max_connections: config.smarthosts.first().map_or(1, |smarthost| smarthost.max_connections),
        schedule: config.queue.schedule.clone(),
    })
}

/// What one listener offers.
pub fn terms(config: &Config, listener: &config::Listener) -> Terms {
    Terms { session: Arc::new(session_config(config, listener)), trusted_networks: listener.trusted_networks.clone() }
}

fn session_config(config: &Config, listener: &config::Listener) -> SessionConfig {
    SessionConfig {
        hostname: config.hostname.clone(),
        max_message_size: config.smtp.max_message_size,
        max_recipients: config.smtp.max_recipients,
        starttls: false,
        auth: Auth::None,
        bare_newline: match listener.bare_newline {
            config::BareNewline::Reject => BareNewline::Reject,
            config::BareNewline::Normalize => BareNewline::Normalize,
        },
    }
}

/// How links are written.
pub fn style(config: &Config) -> Style {
    Style {
        scheme: match config.tracking.link_scheme {
            config::LinkScheme::Http => Scheme::Http,
            config::LinkScheme::Https => Scheme::Https,
        },
        port: config.tracking.link_port,
        on_signed: match config.rewrite.on_signed {
            config::OnSigned::Skip => OnSigned::Skip,
            config::OnSigned::Rewrite => OnSigned::Rewrite,
        },
        limits: Limits {
            max_link_length: config.rewrite.max_link_length,
            max_links: config.rewrite.max_links,
            max_html_size: usize::try_from(config.rewrite.max_html_size).unwrap_or(usize::MAX),
        },
    }
}

/// The smarthosts, in the order in which they are tried.
fn smarthosts(config: &Config) -> Result<Vec<Smarthost>, StartError> {
    let made = config.smarthosts.iter().map(|smarthost| {
        let tls = match smarthost.tls {
            config::SmarthostTls::None => TlsMode::None,
            config::SmarthostTls::Opportunistic => TlsMode::Opportunistic,
            config::SmarthostTls::Required => TlsMode::Required,
            config::SmarthostTls::Implicit => TlsMode::Implicit,
        };
        let verify = matches!(tls, TlsMode::Required | TlsMode::Implicit);
        let tls_config = outbound::client_tls(smarthost.ca_file.as_deref(), verify).map_err(StartError::Tls)?;
        let t = &smarthost.timeouts;
        Ok(Smarthost {
            host: smarthost.host.clone(),
            port: smarthost.port,
            tls,
            credentials: smarthost.credentials.as_ref().map(|c| outbound::Credentials {
                username: c.username.clone(),
                password: c.password.reveal().to_owned(),
            }),
            tls_config: Arc::new(tls_config),
            helo: config.hostname.clone(),
            timeouts: outbound::Timeouts {
                connect: t.connect,
                greeting: t.greeting,
                ehlo: t.ehlo,
                mail: t.mail,
                rcpt: t.rcpt,
                data: t.data,
                block: t.block,
                dot: t.dot,
                quit: t.quit,
            },
        })
    });
    made.collect()
}
