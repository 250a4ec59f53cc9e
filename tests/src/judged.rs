//! What readers were told under a steady load, held against what was written.

use std::time::Duration;

use serde_json::Value;

use crate::reader::Answer;

/// A revision as its author knows it.
#[derive(Debug, Clone)]
pub(crate) struct Edition {
    pub(crate) post: String,
    pub(crate) title: String,
    /// Version and position; `None` if there was no answer, so that nobody knows whether it was recorded.
    pub(crate) recorded: Option<(u64, u64)>,
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A page that is read again and again, by somebody who shows nothing.
    Page,
    /// A page, by its author, with the token of the revision just made.
    WithToken,
    /// A page as a browser asks for it.
    Html,
    /// A page that nobody has read before, so that it is not in memory.
    Cold,
    /// The latest posts.
    List,
}

/// One read.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) kind: Kind,
    pub(crate) took: Duration,
    /// Those that the answer must show, and none but those, in this order.
    pub(crate) posts: Vec<String>,
    /// The version that had to be in it unless it said that it is stale.
    pub(crate) promised: Option<u64>,
    pub(crate) answer: Result<Answer, String>,
}

/// What became of it all.
#[derive(Debug, Default)]
pub struct Judged {
    /// Answers that were not true, with the reason.
    pub wrong: Vec<String>,
    pub writes: usize,
    /// Revisions that were not acknowledged.
    pub refused: usize,
    pub(crate) tallies: [Tally; Kind::ALL.len()],
}

/// What became of the reads of one kind.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    pub reads: usize,
    /// Those that were not answered with what was asked for.
    pub errors: usize,
    /// Answers that said they may lack something.
    pub stale: usize,
    pub longest: Duration,
}

impl Kind {
    pub const ALL: [Self; 5] = [Self::Page, Self::WithToken, Self::Html, Self::Cold, Self::List];

    pub fn name(self) -> &'static str {
        match self {
            Self::Page => "pages",
            Self::WithToken => "pages with token",
            Self::Html => "HTML pages",
            Self::Cold => "cold pages",
            Self::List => "lists",
        }
    }
}

impl Judged {
    pub fn of(&self, kind: Kind) -> Tally {
        self.tallies[kind as usize]
    }

    pub(crate) fn add(&mut self, read: &Read, editions: &[Edition]) {
        let tally = &mut self.tallies[read.kind as usize];
        tally.reads += 1;
        tally.longest = tally.longest.max(read.took);
        match &read.answer {
            Ok(answer) if answer.status == 200 => {
                tally.stale += usize::from(answer.is_stale());
                self.wrong.extend(untruth(read, answer, editions));
            }
            // An honest one; whatever else there is, is not.
            Ok(answer) if answer.status != 503 => self.wrong.push(format!("{answer:?}")),
            Ok(_) | Err(_) => tally.errors += 1,
        }
    }
}

/// A post as an answer shows it. A page for people does not tell its version.
struct Shown<'a> {
    post: &'a str,
    title: &'a str,
    version: Option<u64>,
}

/// What is not true about an answer, if anything is.
fn untruth(read: &Read, answer: &Answer, editions: &[Edition]) -> Option<String> {
    let wrong = |why: &str| Some(format!("{why}: {answer:?}"));
    let Some(position) = position(answer) else {
        return wrong("it does not say how fresh it is");
    };
    let Some(shown) = shown(read, &answer.body) else {
        return wrong("it does not show what was asked for");
    };
    let posts = shown.iter().map(|shown| shown.post);
    if !posts.eq(read.posts.iter().map(String::as_str)) && !answer.is_stale() {
        return wrong("it shows other posts");
    }
    for Shown { post, title, version } in shown {
        let mut editions_of = editions.iter().filter(|edition| edition.post == post);
        if read.kind == Kind::List && answer.is_stale() && editions_of.clone().next().is_none() {
            // In the place of posts that it lacks it shows older ones, of which we know nothing.
            continue;
        }
        let Some(edition) = editions_of.clone().find(|edition| edition.title == title) else {
            return wrong("nobody wrote this");
        };
        let recorded = edition.recorded.map(|(version, _)| version);
        if version.is_some() && recorded.is_some_and(|recorded| Some(recorded) != version) {
            return wrong("this title has another version");
        }
        // Of a page for people whose edition nobody acknowledged, the version cannot be told.
        let Some(version) = version.or(recorded) else { continue };
        if answer.is_stale() {
            continue;
        }
        let is_lacking = |(recorded, at): (u64, u64)| at <= position && recorded > version;
        if editions_of.any(|edition| edition.recorded.is_some_and(is_lacking)) {
            return wrong("it is older than it says");
        }
        if read.promised.is_some_and(|promised| version < promised) {
            return wrong("its reader has written more");
        }
    }
    None
}

/// How far the answer says that its source had come.
fn position(answer: &Answer) -> Option<u64> {
    let members = answer.header("freshness").strip_prefix("position=")?;
    members.split(',').next()?.parse().ok()
}

fn shown<'a>(read: &'a Read, body: &'a Value) -> Option<Vec<Shown<'a>>> {
    let of_json = |post: &'a Value| {
        Some(Shown {
            post: post["id"].as_str()?,
            title: post["title"].as_str()?,
            version: Some(post["version"].as_u64()?),
        })
    };
    match read.kind {
        Kind::Page | Kind::WithToken | Kind::Cold => Some(vec![of_json(body)?]),
        Kind::List => body["items"].as_array()?.iter().map(of_json).collect(),
        Kind::Html => {
            let (_, rest) = body.as_str()?.split_once("<h1>")?;
            let (title, _) = rest.split_once("</h1>")?;
            Some(vec![Shown { post: read.posts.first()?, title, version: None }])
        }
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderMap;
    use serde_json::json;

    use super::*;

    const FRESH: &str = "position=20, source=redis, age=0";

    #[test]
    fn an_answer_that_is_as_was_written_is_true() {
        assert_eq!(judged(Kind::Page, page("b", 2), FRESH), [""; 0]);
        assert_eq!(judged(Kind::List, json!({"items": [page("b", 2)]}), FRESH), [""; 0]);
        assert_eq!(judged(Kind::Html, "<h1>b</h1>".into(), FRESH), [""; 0]);
        let before = "position=19, source=redis, age=0";
        assert_eq!(judged(Kind::Page, page("a", 1), before), [""; 0]);
        let stale = "position=20, source=memory, age=3, stale";
        assert_eq!(judged(Kind::Page, page("a", 1), stale), [""; 0]);
        let another = json!({"id": "y", "title": "d", "version": 2});
        assert_eq!(judged(Kind::List, json!({"items": [another]}), stale), [""; 0]);
    }

    #[test]
    fn an_answer_that_shows_nothing_or_does_not_say_how_fresh_it_is_is_wrong() {
        for kind in Kind::ALL {
            for body in [Value::Null, json!({}), json!({"items": [{}]}), "".into()] {
                assert_eq!(judged(kind, body, FRESH), ["it does not show what was asked for"]);
            }
            for freshness in ["", "position=, source=redis, age=0", "source=redis"] {
                let why = judged(kind, page("b", 2), freshness);
                assert_eq!(why, ["it does not say how fresh it is"], "{kind:?}");
            }
        }
    }

    #[test]
    fn an_answer_that_is_older_than_it_says_or_was_never_written_is_wrong() {
        for (kind, body, why) in [
            (Kind::Page, page("a", 1), "it is older than it says"),
            (Kind::List, json!({"items": [page("a", 1)]}), "it is older than it says"),
            (Kind::Html, "<h1>a</h1>".into(), "it is older than it says"),
            (Kind::Page, page("c", 3), "nobody wrote this"),
            (Kind::Html, "<h1>c</h1>".into(), "nobody wrote this"),
            (Kind::Page, page("b", 1), "this title has another version"),
            (Kind::List, json!({"items": []}), "it shows other posts"),
            (Kind::Page, json!({"id": "y", "title": "b", "version": 2}), "it shows other posts"),
            (Kind::List, json!({"items": [page("c", 3)]}), "nobody wrote this"),
        ] {
            assert_eq!(judged(kind, body, FRESH), [why]);
        }
    }

    /// What is wrong with an answer about a post of two editions, the second at position 20.
    fn judged(kind: Kind, body: Value, freshness: &str) -> Vec<String> {
        let edition = |title: &str, version| Edition {
            post: "x".to_owned(),
            title: title.to_owned(),
            recorded: Some((version, 10 * version)),
        };
        let mut headers = HeaderMap::new();
        headers.insert("freshness", freshness.parse().expect("a header"));
        let read = Read {
            kind,
            took: Duration::ZERO,
            posts: vec!["x".to_owned()],
            promised: None,
            answer: Ok(Answer { status: 200, headers, body }),
        };
        let mut judged = Judged::default();
        judged.add(&read, &[edition("a", 1), edition("b", 2)]);
        let reasons = judged.wrong.into_iter();
        reasons.map(|wrong| wrong.split(": ").next().unwrap_or("").to_owned()).collect()
    }

    fn page(title: &str, version: u64) -> Value {
        json!({"id": "x", "title": title, "version": version})
    }
}
