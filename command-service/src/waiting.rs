//! `Prefer: wait=<seconds>`: an answer that comes once the views have the command's events.

use std::time::Duration;

use axum::http::HeaderMap;

/// The longest a client may ask to wait.
pub const MAX_WAIT: Duration = Duration::from_secs(10);

/// How long a request wants to wait (RFC 7240): whole seconds, of which it gets at most [`MAX_WAIT`]. What
/// cannot be read is no preference.
pub(crate) fn preferred(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let preferences = values.flat_map(|value| value.split(','));
    let wait = preferences.filter_map(|preference| {
        let preference = preference.split(';').next()?;
        let (name, seconds) = preference.split_once('=')?;
        let seconds = seconds.trim().trim_matches('"').parse().ok()?;
        name.trim().eq_ignore_ascii_case("wait").then(|| Duration::from_secs(seconds))
    });
    // The first one counts.
    wait.take(1).next().map(|wait| wait.min(MAX_WAIT)).filter(|wait| !wait.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preference_is_read_where_there_is_one() {
        let read = |values: &[&str]| {
            let pair = |value: &&str| ("prefer".parse().unwrap(), value.parse().unwrap());
            preferred(&values.iter().map(pair).collect::<HeaderMap>())
        };
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for good in
            ["wait=2", "respond-async, wait=2", "Wait = 2; x=y", "wait=\"2\"", "wait=2, wait=3"]
        {
            assert_eq!(read(&[good]), seconds(2), "{good}");
        }
        assert_eq!(read(&["respond-async", "wait=2"]), seconds(2));
        assert_eq!(read(&["wait=3600"]), seconds(10));
        for none in ["", "wait", "wait=", "wait=-1", "wait=x", "wait=0", "waiting=2"] {
            assert_eq!(read(&[none]), None, "{none}");
        }
    }
}
