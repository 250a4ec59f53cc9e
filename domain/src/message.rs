//! An event on its way through Kafka: CloudEvents 1.0 in the Kafka protocol's binary mode
//! (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md>).

use std::collections::HashMap;

use chrono::{DateTime, SecondsFormat, Utc};
use uuid::Uuid;

use crate::{Point, Position, RawEvent, Recorded};

const TYPE_PREFIX: &str = "inkstream.";
/// Header of a stub, with the one value it can have: the payload stands in the event store only.
const CONTENT: &str = "content";
const IN_STORE: &str = "store";

/// An event, and what a reader needs to see whether it missed one.
///
/// A *stub* is a message without a value, for an event that Kafka rejects. Its payload is empty here; a reader
/// takes the event from the event store, by its position.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// The store's life in which the position was given.
    pub incarnation: u32,
    /// The event before this one in its partition.
    pub previous: Point,
    pub event: Recorded<RawEvent>,
}

/// A message on the topic that is not one of ours, or is damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotOurs {
    #[error("the header `{0}` is missing")]
    Missing(&'static str),
    #[error("the header `{0}` cannot be read")]
    Malformed(&'static str),
    #[error("the message has no text as its value")]
    NoValue,
}

impl Message {
    /// Returns the stub of this message: the same headers, marked, and no value.
    pub fn stub(mut self) -> Self {
        self.event.payload.json.clear();
        self
    }

    /// Returns `true` if the payload stands in the event store only.
    pub fn is_stub(&self) -> bool {
        // No JSON text is empty.
        self.event.payload.json.is_empty()
    }

    /// Value of the message: the payload, or nothing for a stub.
    pub fn value(&self) -> Option<&str> {
        Some(self.event.payload.json.as_str()).filter(|json| !json.is_empty())
    }

    /// The headers of the message; its key is the stream's id.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let event = &self.event;
        let raw = &event.payload;
        let mut headers = vec![
            ("ce_specversion", "1.0".to_owned()),
            ("ce_id", event.event_id.to_string()),
            ("ce_type", format!("{TYPE_PREFIX}{}.v{}", raw.event_type, raw.event_version)),
            ("ce_source", "inkstream".to_owned()),
            ("ce_subject", event.stream_id.clone()),
            ("ce_time", event.recorded_at.to_rfc3339_opts(SecondsFormat::Micros, true)),
            ("ce_sequence", event.sequence.to_string()),
            ("incarnation", self.incarnation.to_string()),
            ("position", event.position.to_string()),
            ("previous", format!("{} {}", self.previous.position, self.previous.event_id)),
            ("content-type", "application/json".to_owned()),
        ];
        headers.extend(raw.traceparent.clone().map(|trace| ("traceparent", trace)));
        headers.extend(self.is_stub().then(|| (CONTENT, IN_STORE.to_owned())));
        headers
    }

    /// Reads a message back from its headers and its value.
    pub fn read<'a>(
        headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        value: Option<&[u8]>,
    ) -> Result<Self, NotOurs> {
        let headers = Headers::new(headers)?;
        let (event_type, event_version) = headers
            .text("ce_type")?
            .strip_prefix(TYPE_PREFIX)
            .and_then(|name| name.rsplit_once(".v"))
            .ok_or(NotOurs::Malformed("ce_type"))?;
        let (previous, previous_id) =
            headers.text("previous")?.split_once(' ').ok_or(NotOurs::Malformed("previous"))?;
        let json = match (headers.0.get(CONTENT), value) {
            (Some(&IN_STORE), None) => "",
            (Some(_), _) => return Err(NotOurs::Malformed(CONTENT)),
            (None, value) => value
                .and_then(|bytes| std::str::from_utf8(bytes).ok())
                .filter(|json| !json.is_empty())
                .ok_or(NotOurs::NoValue)?,
        };
        Ok(Self {
            incarnation: headers.parsed("incarnation")?,
            previous: Point {
                position: Position(parse("previous", previous)?),
                event_id: parse("previous", previous_id)?,
            },
            event: Recorded {
                position: Position(headers.parsed("position")?),
                event_id: headers.parsed::<Uuid>("ce_id")?,
                stream_id: headers.text("ce_subject")?.to_owned(),
                sequence: headers.parsed("ce_sequence")?,
                recorded_at: headers.parsed::<DateTime<Utc>>("ce_time")?,
                payload: RawEvent {
                    event_type: event_type.to_owned(),
                    event_version: event_version.to_owned(),
                    json: json.to_owned(),
                    traceparent: headers.text("traceparent").ok().map(str::to_owned),
                },
            },
        })
    }
}

struct Headers<'a>(HashMap<&'a str, &'a str>);

impl<'a> Headers<'a> {
    fn new(headers: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Result<Self, NotOurs> {
        let text = |(name, value)| Some((name, std::str::from_utf8(value).ok()?));
        Ok(Self(headers.into_iter().filter_map(text).collect()))
    }

    fn text(&self, name: &'static str) -> Result<&'a str, NotOurs> {
        self.0.get(name).copied().ok_or(NotOurs::Missing(name))
    }

    fn parsed<T: std::str::FromStr>(&self, name: &'static str) -> Result<T, NotOurs> {
        parse(name, self.text(name)?)
    }
}

fn parse<T: std::str::FromStr>(name: &'static str, text: &str) -> Result<T, NotOurs> {
    text.parse().map_err(|_| NotOurs::Malformed(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message {
        Message {
            incarnation: 1,
            previous: Point { position: Position(7), event_id: Uuid::from_u128(7) },
            event: Recorded {
                position: Position(9),
                event_id: Uuid::from_u128(9),
                stream_id: "a-post".to_owned(),
                sequence: 2,
                recorded_at: "2026-05-04T03:02:01.123456Z".parse().unwrap(),
                payload: RawEvent {
                    event_type: "post.published".to_owned(),
                    event_version: "1".to_owned(),
                    json: r#"{"published":{"slug":"on-writing"}}"#.to_owned(),
                    traceparent: Some(
                        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
                    ),
                },
            },
        }
    }

    fn read(headers: &[(&'static str, String)], value: &str) -> Result<Message, NotOurs> {
        read_value(headers, Some(value))
    }

    fn read_value(
        headers: &[(&'static str, String)],
        value: Option<&str>,
    ) -> Result<Message, NotOurs> {
        Message::read(
            headers.iter().map(|(name, text)| (*name, text.as_bytes())),
            value.map(str::as_bytes),
        )
    }

    #[test]
    fn a_message_is_read_back_as_it_was_written() {
        let sent = message();
        assert_eq!(read(&sent.headers(), &sent.event.payload.json), Ok(sent));
    }

    #[test]
    fn a_stub_differs_by_one_header_and_has_no_value() {
        let (whole, stub) = (message(), message().stub());
        assert!(stub.is_stub() && !whole.is_stub());
        assert_eq!(stub.value(), None);
        let mut expected = whole.headers();
        expected.push(("content", "store".to_owned()));
        assert_eq!(stub.headers(), expected);
        assert_eq!(read_value(&expected, None), Ok(stub));
    }

    #[test]
    fn a_message_without_a_value_is_ours_only_as_a_stub() {
        let (whole, mut stub) = (message().headers(), message().stub().headers());
        assert_eq!(read_value(&whole, None), Err(NotOurs::NoValue));
        assert_eq!(read_value(&whole, Some("")), Err(NotOurs::NoValue));
        assert_eq!(read_value(&stub, Some("{}")), Err(NotOurs::Malformed("content")));
        stub.last_mut().unwrap().1 = "elsewhere".to_owned();
        assert_eq!(read_value(&stub, None), Err(NotOurs::Malformed("content")));
    }

    #[test]
    fn the_type_is_the_events_name_on_the_wire() {
        assert!(
            message().headers().contains(&("ce_type", "inkstream.post.published.v1".to_owned()))
        );
    }

    #[test]
    fn a_message_without_what_we_need_is_not_ours() {
        let sent = message();
        let needed = sent.headers().into_iter().map(|(name, _)| name).filter(|name| {
            !["ce_specversion", "ce_source", "content-type", "traceparent"].contains(name)
        });
        for name in needed {
            let mut headers = sent.headers();
            headers.retain(|(other, _)| *other != name);
            assert_eq!(read(&headers, "{}"), Err(NotOurs::Missing(name)));
            headers.push((name, "\u{1}".to_owned()));
            if name != "ce_subject" {
                assert_eq!(read(&headers, "{}"), Err(NotOurs::Malformed(name)));
            }
        }
    }
}
