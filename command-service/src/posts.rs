//! Commands about posts: each handler reads the request, forms the command, answers.

use axum::extract::State;
use axum::response::Response;
use domain::PostId;
use domain::post::PostCommand;
use http_api::{FormOrJson, Json, MergePatch, PathId, Problem};
use uuid::Uuid;

use crate::caller::Caller;
use crate::execute::Stream;
use crate::requests::{Article, Draft, NewPost, Patch, Revision};
use crate::service::Service;

/// `POST /posts`
#[tracing::instrument(skip_all)]
pub(crate) async fn create(
    State(service): State<Service>,
    caller: Caller,
    Json(body): Json<NewPost>,
) -> Result<Response, Problem> {
    write(&service, &caller, body.check()?).await
}

/// `POST /post`, kept from the article this began with.
#[tracing::instrument(skip_all)]
pub(crate) async fn create_article(
    State(service): State<Service>,
    caller: Caller,
    FormOrJson(body): FormOrJson<Article>,
) -> Result<Response, Problem> {
    write(&service, &caller, body.check()?).await
}

/// `PATCH /posts/{id}`
#[tracing::instrument(skip_all, fields(post.id = %id))]
pub(crate) async fn revise(
    State(service): State<Service>,
    caller: Caller,
    PathId(id): PathId<PostId>,
    MergePatch(body): MergePatch<Patch>,
) -> Result<Response, Problem> {
    let Revision { changes, slug } = body.check()?;
    let by = caller.author_id();
    let revise = PostCommand::Revise { by, changes, slug };
    change("revise", &service, &caller, id, revise).await
}

/// `POST /posts/{id}/publish`
#[tracing::instrument(skip_all, fields(post.id = %id))]
pub(crate) async fn publish(
    State(service): State<Service>,
    caller: Caller,
    PathId(id): PathId<PostId>,
) -> Result<Response, Problem> {
    let publish = |slug| vec![PostCommand::Publish { by: caller.author_id(), post_id: id, slug }];
    service.execute("publish", &caller, id, Stream::Existing, publish).await
}

/// `POST /posts/{id}/unpublish`
#[tracing::instrument(skip_all, fields(post.id = %id))]
pub(crate) async fn unpublish(
    State(service): State<Service>,
    caller: Caller,
    PathId(id): PathId<PostId>,
) -> Result<Response, Problem> {
    let unpublish = PostCommand::Unpublish { by: caller.author_id() };
    change("unpublish", &service, &caller, id, unpublish).await
}

/// `DELETE /posts/{id}`
#[tracing::instrument(skip_all, fields(post.id = %id))]
pub(crate) async fn delete(
    State(service): State<Service>,
    caller: Caller,
    PathId(id): PathId<PostId>,
) -> Result<Response, Problem> {
    let delete = PostCommand::Delete { by: caller.author_id() };
    change("delete", &service, &caller, id, delete).await
}

async fn write(service: &Service, caller: &Caller, draft: Draft) -> Result<Response, Problem> {
    let id = PostId(Uuid::now_v7());
    let commands = |choice| {
        let Draft { content, slug, publish } = &draft;
        let (content, slug) = (content.clone(), slug.clone());
        let written = PostCommand::Draft { author: caller.author(), content, slug };
        let shown = PostCommand::Publish { by: caller.author_id(), post_id: id, slug: choice };
        [Some(written), publish.then_some(shown)].into_iter().flatten().collect()
    };
    service.execute("create", caller, id, Stream::New, commands).await
}

/// Carries out a command that does not depend on which slugs are taken.
async fn change(
    name: &'static str,
    service: &Service,
    caller: &Caller,
    id: PostId,
    command: PostCommand,
) -> Result<Response, Problem> {
    service.execute(name, caller, id, Stream::Existing, |_| vec![command.clone()]).await
}
