//! An event of an older version is read as the present one, by way of all the versions between.

use chrono::DateTime;
use cqrs_es::DomainEvent;
use domain::{Position, RawEvent, Recorded, StoredEvent, Undecodable, Upcast};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

/// It was called a memo in its first version, and had one tag in its second.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum NoteEvent {
    Written { text: String, tags: Vec<String> },
}

impl DomainEvent for NoteEvent {
    fn event_type(&self) -> String {
        "note.written".to_owned()
    }

    fn event_version(&self) -> String {
        "3".to_owned()
    }
}

impl StoredEvent for NoteEvent {
    const KNOWN: &'static [(&'static str, &'static str)] = &[("note.written", "3")];
    const UPCASTS: &'static [Upcast] = &[
        Upcast { from: ("memo.written", "1"), to: ("note.written", "2"), payload: call_it_a_note },
        Upcast { from: ("note.written", "2"), to: ("note.written", "3"), payload: allow_more_tags },
    ];
}

fn call_it_a_note(mut memo: Value) -> Value {
    let text = memo.pointer_mut("/memo").map(Value::take);
    json!({"written": {"text": text, "tag": "memo"}})
}

fn allow_more_tags(mut note: Value) -> Value {
    let mut take = |member| note.pointer_mut(member).map(Value::take);
    json!({"written": {"text": take("/written/text"), "tags": [take("/written/tag")]}})
}

#[test]
fn every_version_is_read_as_the_present_one() {
    for (event_type, version, payload) in [
        ("memo.written", "1", r#"{"memo": "Begin."}"#),
        ("note.written", "2", r#"{"written": {"text": "Begin.", "tag": "memo"}}"#),
        ("note.written", "3", r#"{"written": {"text": "Begin.", "tags": ["memo"]}}"#),
    ] {
        let read = NoteEvent::decode(recorded(event_type, version, payload)).unwrap();
        let present =
            NoteEvent::Written { text: "Begin.".to_owned(), tags: vec!["memo".to_owned()] };
        assert_eq!(read.payload, present, "{event_type} {version}");
        assert_eq!((read.position, read.sequence), (Position(7), 2));
    }
}

#[test]
fn an_old_event_that_is_damaged_is_refused() {
    for payload in ["{}", "[]", r#"{"written": {"tag": "memo"}}"#, "{"] {
        let read = NoteEvent::decode(recorded("note.written", "2", payload));
        assert!(matches!(read, Err(Undecodable::Payload { .. })), "{payload}: {read:?}");
    }
}

#[test]
fn a_version_that_no_step_leads_away_from_is_refused_by_its_name() {
    for (event_type, version) in
        [("note.written", "1"), ("memo.written", "2"), ("note.written", "4")]
    {
        let read = NoteEvent::decode(recorded(event_type, version, "{}"));
        let Err(Undecodable::Unknown { event_type: unknown, event_version }) = read else {
            panic!("{event_type} {version} gave {read:?}")
        };
        assert_eq!((unknown.as_str(), event_version.as_str()), (event_type, version));
    }
}

fn recorded(event_type: &str, event_version: &str, json: &str) -> Recorded<RawEvent> {
    Recorded {
        position: Position(7),
        event_id: Uuid::from_u128(7),
        stream_id: "a-note".to_owned(),
        sequence: 2,
        recorded_at: DateTime::UNIX_EPOCH,
        payload: RawEvent {
            event_type: event_type.to_owned(),
            event_version: event_version.to_owned(),
            json: json.to_owned(),
            traceparent: None,
        },
    }
}
