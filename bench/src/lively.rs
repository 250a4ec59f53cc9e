//! A history like that of a platform that has been in use for years: texts short and long, posts that are
//! revised again and again, taken back and deleted.

use domain::post::{Author, PostChanges, PostEvent};

use crate::history::Story;
use crate::prose::Prose;
use crate::random::Random;
use crate::stories::{drafted, published, revised};

/// In bytes: half of the texts are shorter. With the spread, they have 2 kB on average.
const MEDIAN_TEXT: f64 = 1500.0;
const TEXT_SPREAD: f64 = 0.76;
const LONGEST_TEXT: f64 = 65_536.0;
/// Of those that are revised at all, 35 of a hundred are so twice or more, 3 ten times or more, and few a
/// hundred times.
const STEEPNESS: f64 = 1.5;
const MOST_REVISIONS: f64 = 200.0;
const PEOPLE: usize = 1000;
const TAGS: usize = 50;

/// What happens to each post follows from its number alone.
#[derive(Debug)]
pub(crate) struct Lively {
    posts: usize,
    prose: Prose,
}

/// What will have happened to a post.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Life {
    is_published: bool,
    revisions: usize,
    end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Stays,
    TakenBack,
    PublishedAgain,
    Deleted,
}

impl Lively {
    /// As many posts as it takes to have so many events, or up to a few hundred more.
    pub(crate) fn of_events(events: usize) -> Self {
        let mut have = 0;
        let lives = (0..).map(|post| Life::of(post).events());
        let posts = lives.take_while(|more| {
            let is_short = have < events;
            have += more;
            is_short
        });
        Self { posts: posts.count(), prose: Prose::new() }
    }

    /// The posts that anybody can read in the end.
    pub(crate) fn public(&self) -> Vec<usize> {
        let is_public = |post: &usize| {
            let Life { is_published, end, .. } = Life::of(*post);
            is_published && matches!(end, End::Stays | End::PublishedAgain)
        };
        (0..self.posts).filter(is_public).collect()
    }

    fn text(&self, random: &mut Random) -> String {
        let bytes = random.log_normal(MEDIAN_TEXT, TEXT_SPREAD).min(LONGEST_TEXT);
        self.prose.cut(bytes as usize, random)
    }

    fn drafted(&self, post: usize, random: &mut Random) -> anyhow::Result<PostEvent> {
        let person = random.below(PEOPLE);
        let name = Some(format!("Author {person}"));
        let author = Author { id: format!("author-{person}").parse()?, name };
        let (count, first) = (random.below(4), random.below(TAGS));
        let tags: Vec<String> =
            (first..first + count).map(|tag| format!("tag-{}", tag % TAGS)).collect();
        let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
        drafted(post, author, self.text(random), &tags)
    }

    /// Mostly the text, else one of the small things.
    fn revised(&self, random: &mut Random) -> anyhow::Result<PostEvent> {
        if random.is_one_of_hundred(70) {
            return revised(self.text(random));
        }
        let mut changes = PostChanges::default();
        if random.is_one_of_hundred(50) {
            changes.title = Some(self.prose.cut(40, random).try_into()?);
        } else {
            changes.tags = Some(vec![format!("tag-{}", random.below(TAGS)).try_into()?]);
        }
        Ok(PostEvent::Revised { changes, slug: None })
    }
}

impl Story for Lively {
    fn posts(&self) -> usize {
        self.posts
    }

    fn under_way(&self) -> usize {
        32
    }

    fn commit(&self, post: usize, number: usize) -> anyhow::Result<Option<Vec<PostEvent>>> {
        let life = Life::of(post);
        let mut random = random_of(post, 1 + number);
        let events = match number.checked_sub(1 + life.revisions) {
            None if number == 0 => {
                let mut events = vec![self.drafted(post, &mut random)?];
                events.extend(life.is_published.then(|| published(post)));
                events
            }
            None => vec![self.revised(&mut random)?],
            Some(last) => match life.end.events(post).get(last) {
                Some(event) => vec![event.clone()],
                None => return Ok(None),
            },
        };
        Ok(Some(events))
    }
}

impl Life {
    fn of(post: usize) -> Self {
        let mut random = random_of(post, 0);
        let is_published = random.is_one_of_hundred(95);
        let revisions = if random.is_one_of_hundred(40) {
            random.few_are_many(STEEPNESS).min(MOST_REVISIONS) as usize
        } else {
            0
        };
        let end = match random.below(100) {
            0..3 => End::Deleted,
            3..5 if is_published => End::TakenBack,
            5..6 if is_published => End::PublishedAgain,
            _ => End::Stays,
        };
        Self { is_published, revisions, end }
    }

    fn events(self) -> usize {
        1 + usize::from(self.is_published) + self.revisions + self.end.events(0).len()
    }
}

impl End {
    fn events(self, post: usize) -> Vec<PostEvent> {
        match self {
            Self::Stays => vec![],
            Self::TakenBack => vec![PostEvent::Unpublished {}],
            Self::PublishedAgain => vec![PostEvent::Unpublished {}, published(post)],
            Self::Deleted => vec![PostEvent::Deleted {}],
        }
    }
}

/// Each part of each post has its own, so that a commit can be told without those before it.
fn random_of(post: usize, part: usize) -> Random {
    Random::new(((post as u64) << 16) | part as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_the_events_it_was_made_for_and_hardly_more() {
        for events in [1, 1000, 30_000] {
            let story = Lively::of_events(events);
            let all: usize = (0..story.posts()).map(|post| told(&story, post).len()).sum();
            assert!((events..=events + 203).contains(&all), "{all} in place of {events}");
        }
    }

    #[test]
    fn some_posts_are_revised_and_few_of_them_often() {
        let lives: Vec<Life> = (0..100_000).map(Life::of).collect();
        let count =
            |wanted: fn(&Life) -> bool| lives.iter().filter(|life| wanted(life)).count() / 1000;
        assert!((39..=40).contains(&count(|life| life.revisions > 0)));
        assert!((12..=15).contains(&count(|life| life.revisions > 1)));
        assert!((1..=2).contains(&count(|life| life.revisions >= 10)));
        assert!(lives.iter().all(|life| life.revisions <= 200));
        assert!((2..=3).contains(&count(|life| life.end == End::Deleted)));
        assert!((1..=2).contains(&count(|life| life.end == End::TakenBack)));
    }

    #[test]
    fn no_post_is_told_of_after_it_was_deleted_or_before_it_was_drafted() {
        let story = Lively::of_events(30_000);
        for post in 0..story.posts() {
            let events = told(&story, post);
            assert!(matches!(events[0], PostEvent::Drafted { .. }), "{post}");
            let drafted = |event: &PostEvent| matches!(event, PostEvent::Drafted { .. });
            assert_eq!(events.iter().filter(|event| drafted(event)).count(), 1, "{post}");
            let deleted = events.iter().position(|event| matches!(event, PostEvent::Deleted {}));
            assert!(deleted.is_none_or(|at| at + 1 == events.len()), "{post}");
        }
    }

    #[test]
    fn texts_have_two_kilobytes_on_average() {
        let (story, mut random) = (Lively::of_events(1), Random::new(1));
        let bytes: usize = (0..20_000).map(|_| story.text(&mut random).len()).sum();
        assert!((1950..2050).contains(&(bytes / 20_000)), "{}", bytes / 20_000);
    }

    fn told(story: &Lively, post: usize) -> Vec<PostEvent> {
        let commits = (0..).map_while(|number| story.commit(post, number).unwrap());
        commits.flatten().collect()
    }
}
