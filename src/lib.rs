//! trackpost
pub mod event;
pub mod mail;
pub mod token;
