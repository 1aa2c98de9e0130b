//! trackpost
pub mod domain;
pub mod event;
pub mod keys;
pub mod mail;
pub mod outbound;
pub mod retry;
pub mod token;
