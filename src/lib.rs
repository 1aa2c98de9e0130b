//! trackpost
pub mod domain;
pub mod event;
pub mod http;
pub mod keys;
pub mod mail;
pub mod retry;
pub mod token;
pub mod track;
