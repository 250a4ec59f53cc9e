//! What happens to posts in histories of which only the length matters.

use domain::Slug;
use domain::post::{Author, PostChanges, PostContent, PostEvent};

use crate::history::Story;
use crate::prose::Prose;
use crate::random::Random;
use crate::requests::{TEXT_BYTES, text};

/// Each post is drafted and published, then all are revised, and once more. So a projector that comes back
/// finds rows to fold into.
#[derive(Debug)]
pub(crate) struct RevisedTwice {
    pub(crate) posts: usize,
}

impl RevisedTwice {
    pub(crate) const fn events(&self) -> usize {
        4 * self.posts
    }
}

impl Story for RevisedTwice {
    fn posts(&self) -> usize {
        self.posts
    }

    fn under_way(&self) -> usize {
        self.posts
    }

    fn commit(&self, post: usize, number: usize) -> anyhow::Result<Option<Vec<PostEvent>>> {
        let events = match number {
            0 => vec![drafted(post, anne()?, text(TEXT_BYTES), &["craft"])?, published(post)],
            1 | 2 => vec![revised(format!("For the {number}. time. {}", text(TEXT_BYTES)))?],
            _ => return Ok(None),
        };
        Ok(Some(events))
    }
}

/// Each post is published, and stays as it is.
#[derive(Debug)]
pub(crate) struct Published {
    posts: usize,
    text_bytes: usize,
    prose: Prose,
}

impl Published {
    pub(crate) fn new(posts: usize, text_bytes: usize) -> Self {
        Self { posts, text_bytes, prose: Prose::new() }
    }
}

impl Story for Published {
    fn posts(&self) -> usize {
        self.posts
    }

    fn under_way(&self) -> usize {
        1
    }

    fn commit(&self, post: usize, number: usize) -> anyhow::Result<Option<Vec<PostEvent>>> {
        if number > 0 {
            return Ok(None);
        }
        let text = self.prose.cut(self.text_bytes, &mut Random::new(post as u64));
        Ok(Some(vec![drafted(post, anne()?, text, &["craft"])?, published(post)]))
    }
}

pub(crate) fn title(post: usize) -> String {
    format!("On writing {post}")
}

/// The one under which a post of these stories can be read.
pub(crate) fn slug(post: usize) -> String {
    format!("on-writing-{post}")
}

pub(crate) fn anne() -> anyhow::Result<Author> {
    Ok(Author { id: "anne".parse()?, name: Some("Anne".to_owned()) })
}

pub(crate) fn drafted(
    post: usize,
    author: Author,
    content: String,
    tags: &[&str],
) -> anyhow::Result<PostEvent> {
    let tags = tags.iter().map(|tag| (*tag).to_owned().try_into());
    let content = PostContent {
        title: title(post).try_into()?,
        content: content.try_into()?,
        summary: "How to begin".to_owned().try_into()?,
        tags: tags.collect::<Result<_, _>>()?,
    };
    Ok(PostEvent::Drafted { author, content, slug: None })
}

pub(crate) fn published(post: usize) -> PostEvent {
    PostEvent::Published { slug: Slug::recorded(slug(post)) }
}

pub(crate) fn revised(content: String) -> anyhow::Result<PostEvent> {
    let changes = PostChanges { content: Some(content.try_into()?), ..PostChanges::default() };
    Ok(PostEvent::Revised { changes, slug: None })
}
