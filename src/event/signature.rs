//! What proves to a webhook's receiver that a request is ours and new: the signature of Standard Webhooks, which is
//! Svix's. Pure: random bytes and the time are arguments.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::fmt;

/// The secret of one endpoint: `whsec_` and the base64 of the bytes that key the signature. `{:?}` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SigningSecret(String);

const PREFIX: &str = "whsec_";

impl SigningSecret {
    /// Of 24 random bytes.
    pub fn new(random: [u8; 24]) -> Self {
        Self(format!("{PREFIX}{}", STANDARD.encode(random)))
    }

    /// The text itself, for the receiver's owner. Not for logs.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// `v1,` and the base64 of the HMAC-SHA256 over `ID.SECONDS.BODY`. `seconds` since 1970.
    pub fn sign(&self, id: &str, seconds: u64, body: &[u8]) -> String {
        let text = self.0.strip_prefix(PREFIX).unwrap_or(&self.0);
        // Only we make secrets; one that somebody put into the log as plain text keys with its own bytes.
        let key = STANDARD.decode(text).unwrap_or_else(|_| text.as_bytes().to_vec());
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("HMAC takes keys of any length");
        mac.update(format!("{id}.{seconds}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_signature() {
        let secret = SigningSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into());
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        for other in [
            secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJel", 1_614_265_330, br#"{"test": 2432232314}"#),
            secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_331, br#"{"test": 2432232314}"#),
            secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232315}"#),
            SigningSecret::new([7; 24]).sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b"{}"),
        ] {
            assert_ne!(other, signature);
        }
    }

    #[test]
    fn a_secret_is_shown_to_its_owner_alone() {
        let secret = SigningSecret::new([0xff; 24]);
        assert_eq!(secret.reveal(), format!("whsec_{}", "/".repeat(32)));
        assert_eq!(format!("{secret:?}"), "SigningSecret(..)");
    }
}
