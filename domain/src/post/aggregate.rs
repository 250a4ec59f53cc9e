//! The rules: which events a command causes, and what they leave behind.

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    Author, Body, PostChanges, PostCommand, PostContent, PostError, PostEvent, SlugChoice, Summary,
    Tag, Title,
};
use crate::{AuthorId, Slug};

/// Where a post stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    #[default]
    Unwritten,
    Draft,
    Published,
    Deleted,
}

/// A post, as far as its rules look: the title, since a slug is made from it, and a digest for each other
/// text, since the rules only ask whether it changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Post {
    author: Option<AuthorId>,
    status: Status,
    /// It was published once, so that others know of it.
    was_published: bool,
    slug: Option<Slug>,
    title: Title,
    content: Digest,
    summary: Digest,
    tags: Digest,
}

impl Post {
    /// Names the serialised form of a post and what it means. A stored snapshot of another shape is void.
    ///
    /// A digest over samples of events: `domain/tests/wire.rs` computes it and fails when it changes.
    pub const SHAPE: &'static str = "949f2a0ab43d2f3c";

    pub fn status(&self) -> Status {
        self.status
    }

    pub fn slug(&self) -> Option<&Slug> {
        self.slug.as_ref()
    }

    /// About how many bytes of memory it takes.
    pub fn weight(&self) -> usize {
        let texts = [
            self.title.as_str().len(),
            self.slug.as_ref().map_or(0, |slug| slug.as_str().len()),
            self.author.as_ref().map_or(0, |author| author.as_str().len()),
        ];
        size_of::<Self>() + texts.iter().sum::<usize>()
    }

    /// Answers a command with the events it causes, or with the reason it is refused.
    pub fn decide(&self, command: PostCommand) -> Result<Vec<PostEvent>, PostError> {
        match command {
            PostCommand::Draft { author, content, slug } => match self.status {
                Status::Unwritten => Ok(vec![PostEvent::Drafted { author, content, slug }]),
                Status::Draft | Status::Published | Status::Deleted => {
                    Err(PostError::AlreadyExists)
                }
            },
            PostCommand::Publish { by, post_id, slug } => {
                self.require_author(&by)?;
                self.require_alive()?;
                // A client that lost our answer asks again. The post is as it wishes already, so there
                // is nothing to record and nothing to refuse.
                if self.status == Status::Published {
                    return Ok(vec![]);
                }
                let made = || match slug {
                    SlugChoice::FromTitle => Slug::from_title(self.title.as_str(), post_id),
                    SlugChoice::FromTitleAndId => {
                        Slug::from_title_and_id(self.title.as_str(), post_id)
                    }
                };
                Ok(vec![PostEvent::Published { slug: self.slug.clone().unwrap_or_else(made) }])
            }
            PostCommand::Revise { by, changes, slug } => {
                self.require_author(&by)?;
                self.require_alive()?;
                let changes = self.what_differs(changes);
                let slug = slug.filter(|slug| self.slug.as_ref() != Some(slug));
                if changes.is_empty() && slug.is_none() {
                    return Ok(vec![]);
                }
                Ok(vec![PostEvent::Revised { changes, slug }])
            }
            PostCommand::Unpublish { by } => {
                self.require_author(&by)?;
                self.require_alive()?;
                match self.status {
                    Status::Published => Ok(vec![PostEvent::Unpublished {}]),
                    Status::Unwritten | Status::Draft | Status::Deleted => Ok(vec![]),
                }
            }
            PostCommand::Delete { by } => {
                self.require_author(&by)?;
                match self.status {
                    Status::Draft | Status::Published => Ok(vec![PostEvent::Deleted {}]),
                    Status::Unwritten | Status::Deleted => Ok(vec![]),
                }
            }
        }
    }

    /// Rejects a command of another than the author, to whom a post exists only if readers know of it.
    fn require_author(&self, by: &AuthorId) -> Result<(), PostError> {
        match &self.author {
            Some(author) if author == by => Ok(()),
            Some(_) if self.is_known_to_readers() => Err(PostError::NotTheAuthor),
            Some(_) | None => Err(PostError::NotFound),
        }
    }

    /// Returns `true` if readers see the post, or see that it was deleted.
    fn is_known_to_readers(&self) -> bool {
        match self.status {
            Status::Published => true,
            Status::Deleted => self.was_published,
            Status::Unwritten | Status::Draft => false,
        }
    }

    fn require_alive(&self) -> Result<(), PostError> {
        match self.status {
            Status::Draft | Status::Published => Ok(()),
            Status::Unwritten => Err(PostError::NotFound),
            Status::Deleted => Err(PostError::Deleted),
        }
    }

    fn what_differs(&self, changes: PostChanges) -> PostChanges {
        PostChanges {
            title: changes.title.filter(|title| *title != self.title),
            content: changes.content.filter(|content| Digest::of_body(content) != self.content),
            summary: changes.summary.filter(|summary| Digest::of_summary(summary) != self.summary),
            tags: changes.tags.filter(|tags| Digest::of_tags(tags) != self.tags),
        }
    }

    fn revise(&mut self, changes: &PostChanges) {
        if let Some(title) = &changes.title {
            self.title = title.clone();
        }
        if let Some(content) = &changes.content {
            self.content = Digest::of_body(content);
        }
        if let Some(summary) = &changes.summary {
            self.summary = Digest::of_summary(summary);
        }
        if let Some(tags) = &changes.tags {
            self.tags = Digest::of_tags(tags);
        }
    }
}

impl Aggregate for Post {
    const TYPE: &'static str = "post";
    type Command = PostCommand;
    type Event = PostEvent;
    type Error = PostError;
    type Services = ();

    async fn handle(
        &mut self,
        command: PostCommand,
        (): &(),
        sink: &EventSink<Self>,
    ) -> Result<(), PostError> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: PostEvent) {
        match event {
            PostEvent::Drafted { author: Author { id, .. }, content, slug } => {
                let PostContent { title, content, summary, tags } = content;
                self.author = Some(id);
                self.status = Status::Draft;
                self.slug = slug;
                self.revise(&PostChanges {
                    title: Some(title),
                    content: Some(content),
                    summary: Some(summary),
                    tags: Some(tags),
                });
            }
            PostEvent::Published { slug } => {
                self.slug = Some(slug);
                self.status = Status::Published;
                self.was_published = true;
            }
            PostEvent::Revised { changes, slug } => {
                self.revise(&changes);
                self.slug = slug.or(self.slug.take());
            }
            PostEvent::Unpublished {} => self.status = Status::Draft,
            PostEvent::Deleted {} => self.status = Status::Deleted,
        }
    }
}

/// The first half of a SHA-256: enough to tell that a text is the one it was, whoever chose the texts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct Digest([u8; 16]);

impl Digest {
    fn of_body(content: &Body) -> Self {
        Self::of([content.as_str()])
    }

    fn of_summary(summary: &Summary) -> Self {
        Self::of([summary.as_str()])
    }

    fn of_tags(tags: &[Tag]) -> Self {
        Self::of(tags.iter().map(Tag::as_str))
    }

    fn of<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut hash = Sha256::new();
        for text in texts {
            hash.update(text);
            // No text contains NUL, so this keeps one list of texts from looking like another.
            hash.update([0]);
        }
        let mut half = [0; 16];
        half.copy_from_slice(&hash.finalize()[..16]);
        Self(half)
    }
}
