//! trackpost
pub mod domain;
pub mod event;
pub mod keys;
pub mod mail;
pub mod mime;
pub mod retry;
pub mod rewrite;
pub mod token;
