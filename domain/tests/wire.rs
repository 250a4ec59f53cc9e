//! Events written by every past version can still be read, and mean what they meant.
//!
//! A sample stays as it is for ever. A new event, or a new version of one, adds a sample.

use std::fmt::Write as _;

use chrono::DateTime;
use cqrs_es::{Aggregate as _, DomainEvent};
use domain::post::{Post, PostEvent};
use domain::{Position, RawEvent, Recorded, StoredEvent};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

const SAMPLES: [(&str, &str, &str); 9] = [
    (
        "post.drafted",
        "1",
        r#"{"drafted":{"author":{"id":"anne","name":"Anne"},"content":{"title":"On writing","content":"Begin.","summary":"How to begin","tags":["craft","C++"]},"slug":"mine"}}"#,
    ),
    (
        "post.drafted",
        "1",
        r#"{"drafted":{"author":{"id":"anne"},"content":{"title":"On writing","content":"","summary":"","tags":[]}}}"#,
    ),
    ("post.published", "1", r#"{"published":{"slug":"on-writing"}}"#),
    ("post.revised", "1", r#"{"revised":{"changes":{"title":"On reading"}}}"#),
    ("post.revised", "1", r#"{"revised":{"changes":{"content":"Go on.","summary":"","tags":[]}}}"#),
    ("post.revised", "1", r#"{"revised":{"changes":{"tags":["craft"]},"slug":"mine"}}"#),
    ("post.revised", "1", r#"{"revised":{"changes":{},"slug":"mine"}}"#),
    ("post.unpublished", "1", r#"{"unpublished":{}}"#),
    ("post.deleted", "1", r#"{"deleted":{}}"#),
];

#[test]
fn every_sample_is_read_and_written_as_it_stands() {
    for (event_type, event_version, json) in SAMPLES {
        let event = PostEvent::decode(raw(event_type, event_version, json)).unwrap().payload;
        // One of an older version is written in another form today.
        if PostEvent::KNOWN.contains(&(event_type, event_version)) {
            assert_eq!(event.event_type(), event_type);
            assert_eq!(event.event_version(), event_version);
            assert_eq!(serde_json::to_string(&event).unwrap(), json);
        }
    }
}

#[test]
fn every_known_event_has_a_sample() {
    let older = PostEvent::UPCASTS.iter().map(|step| step.from);
    for known in PostEvent::KNOWN.iter().copied().chain(older) {
        assert!(
            SAMPLES.iter().any(|(event_type, version, _)| (*event_type, *version) == known),
            "{known:?}"
        );
    }
}

/// Snapshots of an aggregate carry its shape, so this must change with all that changes what they mean: the
/// serialised form, the rules by which events are applied, the events known, the reading of older ones.
#[test]
fn what_changes_the_state_of_a_post_voids_its_snapshots() {
    let mut text = format!("{:?}\n", PostEvent::KNOWN);
    let mut post = Post::default();
    for (event_type, event_version, json) in SAMPLES {
        post.apply(PostEvent::decode(raw(event_type, event_version, json)).unwrap().payload);
        let state = serde_json::to_string(&post).unwrap();
        assert_eq!(serde_json::from_str::<Post>(&state).unwrap(), post);
        writeln!(text, "{state}").unwrap();
    }
    let digest = Sha256::digest(text);
    let shape: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(Post::SHAPE, shape, "the state of a post has changed: set Post::SHAPE to {shape}");
}

#[test]
fn an_event_of_a_version_or_type_not_known_here_is_not_guessed_at() {
    for (event_type, version) in
        [("post.published", "2"), ("post.vanished", "1"), ("comment.written", "1")]
    {
        let refused =
            PostEvent::decode(raw(event_type, version, r#"{"published":{"slug":"on-writing"}}"#));
        assert!(refused.is_err(), "{event_type} {version} was read");
    }
}

fn raw(event_type: &str, event_version: &str, json: &str) -> Recorded<RawEvent> {
    Recorded {
        position: Position(1),
        event_id: Uuid::from_u128(1),
        stream_id: "a-post".to_owned(),
        sequence: 1,
        recorded_at: DateTime::UNIX_EPOCH,
        payload: RawEvent {
            event_type: event_type.to_owned(),
            event_version: event_version.to_owned(),
            json: json.to_owned(),
            traceparent: None,
        },
    }
}
