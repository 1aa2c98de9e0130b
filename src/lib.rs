//! trackpost
pub mod config;
pub mod domain;
pub mod event;
pub mod http;
pub mod keys;
pub mod mail;
pub mod outbound;
pub mod retry;
pub mod smtp;
pub mod spool;
pub mod mime;
pub mod rewrite;
pub mod token;
pub mod track;
