//! Where everything listens on this machine: ports of our own, so that nothing that runs here
//! already is in the way.

use clap::Args;

#[derive(Args, Debug)]
pub(crate) struct Settings {
    #[arg(long, env = POSTGRES_PORT, default_value_t = 15432)]
    pub(crate) postgres_port: u16,
    #[arg(long, env = REDIS_PORT, default_value_t = 16379)]
    pub(crate) redis_port: u16,
    #[arg(long, env = KAFKA_PORT, default_value_t = 19092)]
    pub(crate) kafka_port: u16,
    /// Where the Kafka broker finds itself in its other role
    #[arg(long, env = KAFKA_CONTROLLER_PORT, default_value_t = 19093)]
    pub(crate) kafka_controller_port: u16,
    /// Takes commands
    #[arg(long, env = COMMAND_PORT, default_value_t = 8080)]
    pub(crate) command_port: u16,
    /// Answers reads
    #[arg(long, env = QUERY_PORT, default_value_t = 8081)]
    pub(crate) query_port: u16,
    /// Health and metrics of the command service
    #[arg(long, env = COMMAND_OPS_PORT, default_value_t = 9080)]
    pub(crate) command_ops_port: u16,
    /// Health and metrics of the query service
    #[arg(long, env = QUERY_OPS_PORT, default_value_t = 9081)]
    pub(crate) query_ops_port: u16,
    /// Health and metrics of the projector
    #[arg(long, env = PROJECTOR_OPS_PORT, default_value_t = 9082)]
    pub(crate) projector_ops_port: u16,
    /// What all keys in Redis begin with
    #[arg(long, env = "INKSTREAM_REDIS_PREFIX", default_value = "inkstream")]
    pub(crate) redis_prefix: String,
}

const POSTGRES_PORT: &str = "INKSTREAM_DEV_POSTGRES_PORT";
const REDIS_PORT: &str = "INKSTREAM_DEV_REDIS_PORT";
const KAFKA_PORT: &str = "INKSTREAM_DEV_KAFKA_PORT";
const KAFKA_CONTROLLER_PORT: &str = "INKSTREAM_DEV_KAFKA_CONTROLLER_PORT";
const COMMAND_PORT: &str = "INKSTREAM_DEV_COMMAND_PORT";
const QUERY_PORT: &str = "INKSTREAM_DEV_QUERY_PORT";
const COMMAND_OPS_PORT: &str = "INKSTREAM_DEV_COMMAND_OPS_PORT";
const QUERY_OPS_PORT: &str = "INKSTREAM_DEV_QUERY_OPS_PORT";
const PROJECTOR_OPS_PORT: &str = "INKSTREAM_DEV_PROJECTOR_OPS_PORT";

impl Settings {
    /// Every port with what it is for and the setting that moves it.
    pub(crate) fn ports(&self) -> [(u16, &'static str, &'static str); 9] {
        [
            (self.postgres_port, "Postgres", POSTGRES_PORT),
            (self.redis_port, "Redis", REDIS_PORT),
            (self.kafka_port, "Kafka", KAFKA_PORT),
            (self.kafka_controller_port, "Kafka's controller", KAFKA_CONTROLLER_PORT),
            (self.command_port, "the command service", COMMAND_PORT),
            (self.query_port, "the query service", QUERY_PORT),
            (self.command_ops_port, "the command service's health", COMMAND_OPS_PORT),
            (self.query_ops_port, "the query service's health", QUERY_OPS_PORT),
            (self.projector_ops_port, "the projector's health", PROJECTOR_OPS_PORT),
        ]
    }

    pub(crate) fn command_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.command_port)
    }

    pub(crate) fn query_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.query_port)
    }

    pub(crate) fn database_url(&self) -> String {
        format!("postgres://inkstream@127.0.0.1:{}/{DATABASE}", self.postgres_port)
    }

    pub(crate) fn redis_url(&self) -> String {
        format!("redis://127.0.0.1:{}/?protocol=resp3", self.redis_port)
    }

    pub(crate) fn kafka(&self) -> String {
        format!("127.0.0.1:{}", self.kafka_port)
    }
}

pub(crate) const DATABASE: &str = "inkstream";
