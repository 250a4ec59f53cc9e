//! A post: somebody drafts it, publishes it, revises it as often as they like, may take it back and may
//! delete it. Only its author changes it. Its slug is its own for ever, and nobody else's.

mod aggregate;
mod command;
mod content;
mod event;
mod tag;
#[cfg(test)]
mod tests;

pub use aggregate::{Post, Status};
pub use command::{PostCommand, PostError, SlugChoice};
pub use content::{Body, PostChanges, PostContent, Summary, Title};
pub use event::{Author, PostEvent};
pub use tag::{MAX_TAGS, Tag, TagSlug};
