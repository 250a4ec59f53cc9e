//! What can be asked of a post, and how it is refused.

use super::{Author, PostChanges, PostContent};
use crate::{AuthorId, PostId, Slug};

/// A request about a post, by whom it is made.
#[derive(Debug, Clone)]
pub enum PostCommand {
    /// Begins a post that only its author sees.
    Draft {
        author: Author,
        content: PostContent,
        slug: Option<Slug>,
    },
    /// Shows it to everybody, under the slug that it has or else one made from its title.
    Publish {
        by: AuthorId,
        post_id: PostId,
        slug: SlugChoice,
    },
    /// Says some of it anew.
    Revise {
        by: AuthorId,
        changes: PostChanges,
        slug: Option<Slug>,
    },
    /// Makes it a draft again, which keeps its slug.
    Unpublish {
        by: AuthorId,
    },
    Delete {
        by: AuthorId,
    },
}

/// Which slug a post gets that has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlugChoice {
    /// The one its title suggests.
    FromTitle,
    /// The same with digits of its id behind it, once the first proved taken.
    FromTitleAndId,
}

/// Why a command was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    #[error("there is no such post")]
    NotFound,
    #[error("the post exists already")]
    AlreadyExists,
    #[error("the post has been deleted")]
    Deleted,
    #[error("only its author may change a post")]
    NotTheAuthor,
}
