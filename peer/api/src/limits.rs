//! Limits of what passes between peers, in bytes per second.

use serde::{Deserialize, Deserializer, Serialize};

/// The lowest limit, in bytes per second. Peers send blocks of 64 KiB, up to four of them at once, and give up on
/// somebody from whom nothing came for 15 seconds.
pub const LEAST: u64 = 20_000;

/// Limits in bytes per second; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// What is sent to all peers together.
    pub upload: Option<u64>,
    /// What is received from all peers together.
    pub download: Option<u64>,
    /// What is sent to each peer.
    pub upload_each: Option<u64>,
    /// What is received from each peer.
    pub download_each: Option<u64>,
}

/// Changes some limits. In JSON a limit that isn't named stays as it is, and `null` takes it away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
// All are optional, so a name that is misspelt would change nothing without a word.
#[serde(default, deny_unknown_fields)]
pub struct LimitsOrder {
    /// What is sent to all peers together.
    #[serde(deserialize_with = "named", skip_serializing_if = "Option::is_none")]
    pub upload: Option<Option<u64>>,
    /// What is received from all peers together.
    #[serde(deserialize_with = "named", skip_serializing_if = "Option::is_none")]
    pub download: Option<Option<u64>>,
    /// What is sent to each peer.
    #[serde(deserialize_with = "named", skip_serializing_if = "Option::is_none")]
    pub upload_each: Option<Option<u64>>,
    /// What is received from each peer.
    #[serde(deserialize_with = "named", skip_serializing_if = "Option::is_none")]
    pub download_each: Option<Option<u64>>,
}

/// A limit below [`LEAST`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a limit is {} kB/s at least: with less, a block would take so long that peers give up on each other; `none` is no limit",
    LEAST / 1000
)]
pub struct TooLow;

impl Limits {
    /// Whether there is any.
    pub fn is_any(&self) -> bool {
        *self != Limits::default()
    }

    /// The same with those changed that are named.
    pub fn changed(self, order: &LimitsOrder) -> Limits {
        Limits {
            upload: order.upload.unwrap_or(self.upload),
            download: order.download.unwrap_or(self.download),
            upload_each: order.upload_each.unwrap_or(self.upload_each),
            download_each: order.download_each.unwrap_or(self.download_each),
        }
    }
}

impl LimitsOrder {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        *self == LimitsOrder::default()
    }

    /// Refuses what no peer could live with.
    pub fn check(&self) -> Result<(), TooLow> {
        let rates = [self.upload, self.download, self.upload_each, self.download_each];
        rates.into_iter().flatten().flatten().try_for_each(check)
    }
}

/// Refuses a rate below [`LEAST`].
pub fn check(rate: u64) -> Result<(), TooLow> {
    if rate < LEAST { Err(TooLow) } else { Ok(()) }
}

/// A value that is there, be it `null`.
fn named<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<u64>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_changes_what_it_names_and_null_takes_away() {
        let limits = Limits { upload: Some(50_000), download: Some(60_000), ..Limits::default() };
        let order: LimitsOrder = serde_json::from_str(r#"{"upload":null,"upload_each":70000}"#).unwrap();
        let changed = Limits { download: Some(60_000), upload_each: Some(70_000), ..Limits::default() };
        assert_eq!(limits.changed(&order), changed);
        assert!(changed.is_any() && !Limits::default().is_any());
        let nothing: LimitsOrder = serde_json::from_str("{}").unwrap();
        assert!(nothing.is_empty() && !order.is_empty());
        assert_eq!(limits.changed(&nothing), limits);
    }

    #[test]
    fn an_order_is_the_same_after_its_way_as_json() {
        let order = LimitsOrder { upload: Some(None), download_each: Some(Some(u64::MAX)), ..LimitsOrder::default() };
        let json = serde_json::to_string(&order).unwrap();
        assert_eq!(json, r#"{"upload":null,"download_each":18446744073709551615}"#);
        assert_eq!(serde_json::from_str::<LimitsOrder>(&json).unwrap(), order);
        for wrong in [r#"{"uplaod":50000}"#, r#"{"upload":-1}"#, r#"{"upload":"5MB/s"}"#, r#"{"upload":0.5}"#] {
            assert!(serde_json::from_str::<LimitsOrder>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_limit_that_would_starve_peers_is_refused() {
        let order = |rate| LimitsOrder { download: Some(rate), ..LimitsOrder::default() };
        assert_eq!(order(Some(LEAST)).check(), Ok(()));
        assert_eq!(order(None).check(), Ok(()));
        assert_eq!(order(Some(LEAST - 1)).check(), Err(TooLow));
        assert_eq!(order(Some(0)).check(), Err(TooLow));
        assert!(TooLow.to_string().contains("20 kB/s") && TooLow.to_string().contains("none"));
    }
}
