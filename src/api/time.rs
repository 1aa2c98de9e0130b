//! Times as the API writes them.

use jiff::Timestamp;

/// `2026-03-28T17:12:02.059000+00:00` of milliseconds since 1970.
pub fn iso(unix_ms: u64) -> String {
    timestamp(unix_ms).strftime("%Y-%m-%dT%H:%M:%S.%6f+00:00").to_string()
}

/// `2026-03-28 17:12:02.059000+00`, which clients expect of webhooks.
pub fn iso_spaced(unix_ms: u64) -> String {
    timestamp(unix_ms).strftime("%Y-%m-%d %H:%M:%S.%6f+00").to_string()
}

fn timestamp(unix_ms: u64) -> Timestamp {
    i64::try_from(unix_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_clients_expect_it() {
        assert_eq!(iso(1_774_717_922_059), "2026-03-28T17:12:02.059000+00:00");
        assert_eq!(iso_spaced(1_774_717_922_059), "2026-03-28 17:12:02.059000+00");
        assert_eq!(iso(0), "1970-01-01T00:00:00.000000+00:00");
        assert_eq!(iso(u64::MAX), "1970-01-01T00:00:00.000000+00:00");
    }
}
