//! Limits of what passes between peers, in words.

use super::rate;
use datdot_api::Limits;

/// `5 MB/s in all, 1 MB/s to each peer`, if there is such a limit.
pub fn upload(limits: &Limits) -> Option<String> {
    in_words(limits.upload, limits.upload_each, "to each peer")
}

/// `5 MB/s in all, 1 MB/s from each peer`, if there is such a limit.
pub fn download(limits: &Limits) -> Option<String> {
    in_words(limits.download, limits.download_each, "from each peer")
}

/// `upload 5 MB/s in all; download 1 MB/s from each peer`, if there is any limit.
pub fn both(limits: &Limits) -> Option<String> {
    let [up, down] = [("upload", upload(limits)), ("download", download(limits))]
        .map(|(way, limit)| limit.map(|limit| format!("{way} {limit}")));
    let both: Vec<String> = up.into_iter().chain(down).collect();
    (!both.is_empty()).then(|| both.join("; "))
}

fn in_words(all: Option<u64>, each: Option<u64>, each_peer: &str) -> Option<String> {
    let all = all.map(|bytes| format!("{} in all", rate(bytes)));
    let each = each.map(|bytes| format!("{} {each_peer}", rate(bytes)));
    let both: Vec<String> = all.into_iter().chain(each).collect();
    (!both.is_empty()).then(|| both.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_limits_that_there_are_are_named() {
        let limits = Limits { upload: Some(5_000_000), upload_each: Some(1_500_000), ..Limits::default() };
        assert_eq!(upload(&limits).unwrap(), "5 MB/s in all, 1.5 MB/s to each peer");
        assert_eq!(download(&limits), None);
        let limits = Limits { download_each: Some(20_000), ..Limits::default() };
        assert_eq!(download(&limits).unwrap(), "20 kB/s from each peer");
        assert_eq!(both(&limits).unwrap(), "download 20 kB/s from each peer");
        let limits = Limits { upload: Some(1_000_000), ..limits };
        assert_eq!(both(&limits).unwrap(), "upload 1 MB/s in all; download 20 kB/s from each peer");
        assert_eq!(both(&Limits::default()), None);
    }
}
