//! Scenarios on the real binary, one behaviour a file: a server on a folder of its own, a smarthost that does what the
//! scenario needs, and clients that see what anybody sees from outside.
//!
//! All are one program, since each more would link the whole crate again.

#[path = "../common/mod.rs"]
mod common;

mod accepted_mail_survives_kill;
mod api_keys;
mod backup_and_restore;
mod bounces;
mod client_limits;
mod commands_without_a_server;
mod customers_have_shares;
mod disk_is_full;
mod domain_is_changed_and_removed;
mod early_talker;
mod envelopes_are_damaged;
mod erased_for_good;
mod excluded_recipients;
mod files_are_their_owners_alone;
mod health;
mod hits_are_classified;
mod inbound_mail_is_relayed_as_it_came;
mod kill_list;
mod large_messages;
mod loops_are_refused;
mod metrics_over_the_api;
mod odd_messages;
mod one_link_is_flooded;
mod one_outcome_per_recipient;
mod opt_outs;
mod prometheus;
mod proxy_protocol;
mod queue_commands;
mod recipients_have_their_own_links;
mod reload;
mod sigterm_drains;
mod slow_clients;
mod slow_domain;
mod smarthost_answers_late;
mod smarthost_defers_and_bounces;
mod smarthost_drops_the_connection;
mod smarthost_is_down;
mod smarthost_is_limited;
mod smarthost_takes_few_recipients;
mod smuggling_over_tls;
mod start_is_refused;
mod store_is_gone;
mod submission;
mod submission_is_guessed_at;
mod the_rust_sdk;
mod tracking_is_switched_off;
mod under_systemd;
mod unknown_domains;
mod webhooks_outlive_the_store;
mod written_into_the_log;
