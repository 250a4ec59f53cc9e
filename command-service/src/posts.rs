//! Commands about posts: each handler reads the request, forms the command, answers.

use axum::extract::State;
use axum::response::Response;
use domain::post::PostCommand;
use http_api::{EmptyBody, FormOrJson, Json, MergePatch, PathId, PostAddress, Problem};

use crate::caller::{Caller, Sent};
use crate::requests::{Article, Draft, NewPost, Patch, Revision};
use crate::service::{Service, Target};

/// `POST /posts`
#[tracing::instrument(skip_all)]
pub(crate) async fn create(
    State(service): State<Service>,
    Sent { caller, body: Json(body) }: Sent<Json<NewPost>>,
) -> Result<Response, Problem> {
    write(&service, &caller, body.check()?).await
}

/// `POST /post`, kept from the article this began with.
#[tracing::instrument(skip_all)]
pub(crate) async fn create_article(
    State(service): State<Service>,
    Sent { caller, body: FormOrJson(body) }: Sent<FormOrJson<Article>>,
) -> Result<Response, Problem> {
    write(&service, &caller, body.check()?).await
}

/// `PATCH /posts/{id or slug}`
#[tracing::instrument(skip_all, fields(post = %address))]
pub(crate) async fn revise(
    State(service): State<Service>,
    PathId(address): PathId<PostAddress>,
    Sent { caller, body: MergePatch(body) }: Sent<MergePatch<Patch>>,
) -> Result<Response, Problem> {
    let Revision { changes, slug } = body.check()?;
    let by = caller.author_id();
    let revise = PostCommand::Revise { by, changes, slug };
    change("revise", &service, &caller, address, revise).await
}

/// `POST /posts/{id or slug}/publish`
#[tracing::instrument(skip_all, fields(post = %address))]
pub(crate) async fn publish(
    State(service): State<Service>,
    PathId(address): PathId<PostAddress>,
    Sent { caller, body: EmptyBody }: Sent<EmptyBody>,
) -> Result<Response, Problem> {
    let publish =
        |post_id, slug| vec![PostCommand::Publish { by: caller.author_id(), post_id, slug }];
    service.execute("publish", &caller, Target::Existing(address), publish).await
}

/// `POST /posts/{id or slug}/unpublish`
#[tracing::instrument(skip_all, fields(post = %address))]
pub(crate) async fn unpublish(
    State(service): State<Service>,
    PathId(address): PathId<PostAddress>,
    Sent { caller, body: EmptyBody }: Sent<EmptyBody>,
) -> Result<Response, Problem> {
    let unpublish = PostCommand::Unpublish { by: caller.author_id() };
    change("unpublish", &service, &caller, address, unpublish).await
}

/// `DELETE /posts/{id or slug}`
#[tracing::instrument(skip_all, fields(post = %address))]
pub(crate) async fn delete(
    State(service): State<Service>,
    PathId(address): PathId<PostAddress>,
    Sent { caller, body: EmptyBody }: Sent<EmptyBody>,
) -> Result<Response, Problem> {
    let delete = PostCommand::Delete { by: caller.author_id() };
    change("delete", &service, &caller, address, delete).await
}

async fn write(service: &Service, caller: &Caller, draft: Draft) -> Result<Response, Problem> {
    let commands = |post_id, choice| {
        let Draft { content, slug, publish } = &draft;
        let (content, slug) = (content.clone(), slug.clone());
        let written = PostCommand::Draft { author: caller.author(), content, slug };
        let shown = PostCommand::Publish { by: caller.author_id(), post_id, slug: choice };
        [Some(written), publish.then_some(shown)].into_iter().flatten().collect()
    };
    service.execute("create", caller, Target::New, commands).await
}

/// Carries out a command that does not depend on which slugs are taken.
async fn change(
    name: &'static str,
    service: &Service,
    caller: &Caller,
    address: PostAddress,
    command: PostCommand,
) -> Result<Response, Problem> {
    let target = Target::Existing(address);
    service.execute(name, caller, target, |_, _| vec![command.clone()]).await
}
