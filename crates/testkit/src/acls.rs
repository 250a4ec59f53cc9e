//! Rights on a topic, given and taken in Kafka's own words: the client library has no call for that.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const LIMIT: Duration = Duration::from_secs(15);

const CREATE_ACLS: i16 = 30;
const DELETE_ACLS: i16 = 31;
/// The last version with plain strings.
const VERSION: i16 = 1;

const TOPIC: u8 = 2;
const LITERAL: u8 = 3;
const ALL: u8 = 2;
const WRITE: u8 = 4;
const DENY: u8 = 2;
const ALLOW: u8 = 3;

/// Forbids all clients of a Kafka with an authorizer to write to a topic. They may do all else with it.
///
/// # Panics
///
/// If Kafka refuses or does not answer.
pub async fn forbid_writing(brokers: &str, topic: &str) {
    let mut body = 2_i32.to_be_bytes().to_vec();
    for (operation, permission) in [(ALL, ALLOW), (WRITE, DENY)] {
        body.extend(rule(topic, operation, permission));
    }
    ask(brokers, CREATE_ACLS, &body).await;
}

/// Ends [`forbid_writing`].
///
/// # Panics
///
/// If Kafka refuses or does not answer.
pub async fn allow_writing(brokers: &str, topic: &str) {
    let mut body = 1_i32.to_be_bytes().to_vec();
    body.extend(rule(topic, WRITE, DENY));
    ask(brokers, DELETE_ACLS, &body).await;
}

/// A rule, or the filter that finds it.
fn rule(topic: &str, operation: u8, permission: u8) -> Vec<u8> {
    [
        vec![TOPIC],
        string(topic),
        vec![LITERAL],
        string("User:*"),
        string("*"),
        vec![operation, permission],
    ]
    .concat()
}

/// Sends a request and expects that no result tells of an error.
async fn ask(brokers: &str, key: i16, body: &[u8]) {
    let head = [key.to_be_bytes(), VERSION.to_be_bytes()].concat();
    let request = [&head, &7_i32.to_be_bytes()[..], &string("a test"), body].concat();
    let length = i32::try_from(request.len()).expect("a request is short").to_be_bytes();
    let answer = timeout(LIMIT, async {
        let mut connection = TcpStream::connect(brokers).await?;
        connection.write_all(&[&length[..], &request].concat()).await?;
        let length = connection.read_u32().await?;
        let mut answer = vec![0; length as usize];
        connection.read_exact(&mut answer).await?;
        std::io::Result::Ok(answer)
    });
    let answer = answer.await.expect("Kafka did not answer in time").expect("Kafka did not answer");
    // Behind the number of the request, a delay and the number of results.
    let first_error = answer.get(12..14).expect("the answer is too short");
    assert_eq!(first_error, [0, 0], "Kafka refused: {answer:?}");
}

fn string(text: &str) -> Vec<u8> {
    let length = i16::try_from(text.len()).expect("a name is short");
    [&length.to_be_bytes()[..], text.as_bytes()].concat()
}
