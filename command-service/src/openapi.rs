//! What this service says of itself in OpenAPI: each operation with all that may be asked and answered.

use http_api::Problem;
use http_api::openapi::{
    etag, in_path, json, refuse, request_header, response_header, shown_tokens, text,
    token_required,
};
use serde_json::{Value, json};
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::{HttpMethod, OperationBuilder, PathItem, PathItemBuilder};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::schema::ComponentsBuilder;
use utoipa::openapi::{
    Header, InfoBuilder, OpenApi, Paths, PathsBuilder, Ref, RefOr, Required, Response,
};

use crate::answer::Body;
use crate::requests::{Article, NewPost, Patch};

const JSON: &str = "application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const FORM: &str = "application/x-www-form-urlencoded";

pub(crate) fn document() -> OpenApi {
    let about = "Takes every change. A command that changes nothing is a success that records nothing. \
        Bodies have at most 1 MiB.";
    let info = InfoBuilder::new()
        .title("Inkstream: commands")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(about));
    let schemas = ComponentsBuilder::new()
        .schema_from::<NewPost>()
        .schema_from::<Article>()
        .schema_from::<Patch>()
        .schema_from::<Body<'_>>();
    http_api::openapi::document(info.build(), paths(), schemas)
}

fn paths() -> Paths {
    let post = PathItemBuilder::new()
        .operation(HttpMethod::Patch, revise())
        .operation(HttpMethod::Delete, delete());
    PathsBuilder::new()
        .path("/posts", PathItem::new(HttpMethod::Post, create()))
        .path("/posts/{id}", post.build())
        .path("/posts/{id}/publish", PathItem::new(HttpMethod::Post, publish()))
        .path("/posts/{id}/unpublish", PathItem::new(HttpMethod::Post, unpublish()))
        .path("/post", PathItem::new(HttpMethod::Post, create_article()))
        .build()
}

fn create() -> OperationBuilder {
    let example = json!({
        "title": "On writing", "content": "Write *every* day.", "tags": ["craft"], "status": "draft",
    });
    let operation =
        command("createPost", "Write a post, and publish it unless it is to be a draft")
            .request_body(Some(body("NewPost", &[JSON], &example)))
            .response("201", made());
    let refusals = [general(), of_bodies(), vec![Problem::slug_taken()]];
    refused(operation, refusals)
}

fn create_article() -> OperationBuilder {
    let example = json!({ "title": "On writing", "content": "Write *every* day." });
    let operation = command("createArticle", "Publish an article")
        .description(Some("Kept from the article this began with; POST /posts can do more."))
        .request_body(Some(body("Article", &[FORM, JSON], &example)))
        .response("201", made());
    refused(operation, [general(), of_bodies()])
}

fn revise() -> OperationBuilder {
    let example = json!({ "title": "On rewriting", "summary": null });
    let operation = of_a_post("revisePost", "Change what a post says, or its slug")
        .request_body(Some(body("Patch", &[MERGE_PATCH, JSON], &example)))
        .response("200", done());
    let refusals = [general(), of_bodies(), of_posts(), vec![Problem::slug_taken(), gone()]];
    refused(operation, refusals)
}

fn publish() -> OperationBuilder {
    let operation = of_a_post("publishPost", "Let everybody read a post").response("200", done());
    let refusals = [general(), of_bodies(), of_posts(), vec![Problem::slug_taken(), gone()]];
    refused(operation, refusals)
}

fn unpublish() -> OperationBuilder {
    let operation = of_a_post("unpublishPost", "Make a post a draft again, which keeps its slug")
        .response("200", done());
    refused(operation, [general(), of_bodies(), of_posts(), vec![gone()]])
}

fn delete() -> OperationBuilder {
    let operation = of_a_post("deletePost", "Delete a post for good; once more does no harm")
        .response("200", done());
    refused(operation, [general(), of_bodies(), of_posts()])
}

/// What every command may be asked with.
fn command(id: &str, summary: &str) -> OperationBuilder {
    let key = text().min_length(Some(1)).max_length(Some(255)).pattern(Some("^[!-~]+$"));
    let key_says = "Chosen by the client for one request. Asked once more with the same key, that request is \
        answered as it was, and not carried out again.";
    let tags = text()
        .pattern(Some("^(\\*|[ ,]*((W/)?\"[!#-~]*\"([ ,]*,[ ,]*(W/)?\"[!#-~]*\")*)?[ ,]*)$"))
        .examples([json!("\"3\""), json!("*")]);
    let tags_say = "The versions at which it may be carried out, or `*`: the `ETag` of a command or of `GET \
        /posts/{slug or id}`, strong or weakened by a proxy. It does not count where something is made.";
    let wait_says =
        "`wait=<seconds>`, at most 10: answer once readers see the change, or after that time.";
    OperationBuilder::new()
        .operation_id(Some(id))
        .summary(Some(summary))
        .securities(Some(token_required()))
        .parameter(request_header("Idempotency-Key", key_says, key))
        .parameter(request_header("If-Match", tags_say, tags))
        .parameter(request_header("Prefer", wait_says, text().examples([json!("wait=2")])))
        .parameters(Some(shown_tokens()))
}

/// A command about a post that is there.
fn of_a_post(id: &str, summary: &str) -> OperationBuilder {
    let names = text().min_length(Some(1)).max_length(Some(80)).pattern(Some("^[A-Za-z0-9-]+$"));
    command(id, summary).parameter(in_path(
        "id",
        "The post: its id, or a slug that it has or had",
        names,
    ))
}

fn body(schema: &str, media_types: &[&str], example: &Value) -> RequestBody {
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name(schema)))
        .example(Some(example.clone()))
        .build();
    let body = RequestBodyBuilder::new().required(Some(Required::True));
    let with_content = media_types
        .iter()
        .fold(body, |body, media_type| body.content(*media_type, content.clone()));
    with_content.build()
}

fn made() -> Response {
    let location = response_header("Where readers find the post", text());
    let headers = headers().into_iter().chain([("Location", location)]);
    json("The post as it stands now", "PostStanding", headers)
}

fn done() -> Response {
    json("The post as it stands now", "PostStanding", headers())
}

/// What comes with every command that was carried out.
fn headers() -> [(&'static str, Header); 4] {
    let token = "Shown to the query service, it makes an answer include this change";
    let cookie = "The same token, for browsers: `consistency=…; Path=/; SameSite=Lax; Max-Age=60`";
    let waited = text().enum_values(Some(["wait"]));
    [
        ("ETag", etag("The version of the post")),
        ("Consistency-Token", response_header(token, text().pattern(Some("^[A-Za-z0-9_-]+$")))),
        ("Set-Cookie", response_header(cookie, text().pattern(Some("^consistency=")))),
        ("Preference-Applied", response_header("Readers see the change", waited)),
    ]
}

/// Why any command may be refused.
fn general() -> Vec<Problem> {
    vec![
        Problem::invalid_request("the request cannot be read"),
        Problem::unauthenticated("a bearer token is required"),
        Problem::request_timeout(),
        Problem::version_conflict("others keep changing this post"),
        Problem::too_large("a body has at most 1048576 bytes"),
        Problem::idempotency_key_reused(),
        Problem::rate_limited("too many requests of this author are in flight", 1),
        Problem::internal(),
        Problem::unavailable("commands cannot be recorded at the moment", 2),
        Problem::outcome_unknown(Some(2)),
    ]
}

/// Why a command may be refused for its body, also where it has none to take.
fn of_bodies() -> Vec<Problem> {
    let error = http_api::FieldError::new("title", "empty", "must not be empty");
    vec![
        Problem::unsupported_media_type("expected a body of another type"),
        Problem::validation_failed(vec![error]),
    ]
}

/// Why a command about a post that is there may be refused.
fn of_posts() -> Vec<Problem> {
    vec![
        Problem::forbidden("only its author may change a post"),
        Problem::not_found("there is no such post"),
        Problem::precondition_failed(3),
    ]
}

fn gone() -> Problem {
    Problem::gone("the post has been deleted")
}

fn refused(
    operation: OperationBuilder,
    problems: impl IntoIterator<Item = Vec<Problem>>,
) -> OperationBuilder {
    let mut operation = refuse(operation, problems.into_iter().flatten()).build();
    // These are kept under the key of their request.
    for status in ["200", "201", "403", "404", "409", "410", "412"] {
        if let Some(RefOr::T(response)) = operation.responses.responses.get_mut(status) {
            let kept = text().enum_values(Some(["true"]));
            let kept = response_header("It was kept under the Idempotency-Key", kept);
            response.headers.insert("Idempotent-Replayed".to_owned(), kept.into());
        }
    }
    operation.into()
}
