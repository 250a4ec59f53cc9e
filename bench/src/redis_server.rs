//! What a Redis says about itself.

use std::time::Duration;

use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;

/// To forget some gigabytes takes seconds.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// All that it says, a line each.
#[derive(Debug)]
pub(crate) struct Info(String);

pub(crate) async fn connect(url: &str) -> anyhow::Result<MultiplexedConnection> {
    let patient = AsyncConnectionConfig::new().set_response_timeout(Some(TIME_LIMIT));
    Ok(redis::Client::open(url)?.get_multiplexed_async_connection_with_config(&patient).await?)
}

impl Info {
    pub(crate) async fn of(url: &str) -> anyhow::Result<Self> {
        Ok(Self(redis::cmd("INFO").query_async(&mut connect(url).await?).await?))
    }

    /// A number that it tells, zero if it does not.
    pub(crate) fn number(&self, name: &str) -> f64 {
        let mut lines = self.0.lines().filter_map(|line| line.split_once(':'));
        let value = lines.find(|(known, _)| *known == name).map(|(_, value)| value);
        value.and_then(|value| value.trim_start_matches("count=").parse().ok()).unwrap_or(0.0)
    }

    /// How often it refused a write for want of memory.
    pub(crate) fn refusals(&self) -> f64 {
        self.number("errorstat_OOM")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_by_its_whole_name() {
        let info = Info(
            "# Memory\r\nused_memory:1024\r\nused_memory_peak:2048\r\nerrorstat_OOM:count=3\r\n"
                .to_owned(),
        );
        assert_eq!(info.number("used_memory"), 1024.0);
        assert_eq!(info.number("used"), 0.0);
        assert_eq!(info.refusals(), 3.0);
    }
}
