//! What this service says of itself in OpenAPI: each operation with all that may be asked and answered.

use std::collections::BTreeMap;

use http_api::openapi::{
    bare, etag, in_path, json, query, refuse, request_header, response_header, shown_tokens, slug,
    text, token_optional, token_required,
};
use http_api::{FieldError, Problem};
use serde_json::json;
use utoipa::ToSchema;
use utoipa::openapi::link::{Link, LinkBuilder};
use utoipa::openapi::path::{
    HttpMethod, Operation, OperationBuilder, Parameter, PathItem, PathItemBuilder,
};
use utoipa::openapi::schema::{ComponentsBuilder, ObjectBuilder, Type};
use utoipa::openapi::{
    Content, Header, InfoBuilder, OpenApi, Paths, PathsBuilder, RefOr, Response,
};

use crate::list_query::{DEFAULT_LIMIT, MAX_LIMIT};
use crate::site::Site;

pub(crate) fn document() -> OpenApi {
    let about = "Answers every read. What is published can be read by everybody; a bearer token shows its \
        author drafts as well. What has a page for people is answered with it to whoever would rather have \
        `text/html` than JSON, and so is every refusal.";
    let info = InfoBuilder::new()
        .title("Inkstream: reads")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(about));
    let schemas = ComponentsBuilder::new()
        .schema_from::<Page>()
        .schema_from::<Card>()
        .schema_from::<CardAuthor>()
        .schema_from::<Cards>()
        .schema_from::<Article>();
    http_api::openapi::document(info.build(), paths(), schemas)
}

fn paths() -> Paths {
    PathsBuilder::new()
        .path("/posts", read(posts()))
        .path("/posts/{address}", read(page()))
        .path("/me/posts", read(own_posts()))
        .path("/post/{slug}", read(article()))
        .path(Site::FEED, read(feed()))
        .path("/sitemap.xml", read(sitemap()))
        .build()
}

// Answers are put together from pieces that are stored as JSON. These tell what comes of that.

/// All but the content of a post
#[derive(ToSchema)]
#[expect(dead_code, reason = "described, never made")]
struct Card {
    #[schema(format = Uuid)]
    id: String,
    /// `null` while a draft has none
    #[schema(required, min_length = 1, max_length = 80, pattern = "^[a-z0-9]+(-[a-z0-9]+)*$")]
    slug: Option<String>,
    #[schema(min_length = 1, max_length = 200)]
    title: String,
    #[schema(required, max_length = 500)]
    summary: Option<String>,
    /// As the author spells them
    #[schema(max_items = 10, min_length = 1, max_length = 40)]
    tags: Vec<String>,
    author: CardAuthor,
    #[schema(pattern = "^(draft|published)$")]
    status: String,
    /// The first publication; `null` before it
    #[schema(required, format = DateTime)]
    published_at: Option<String>,
    /// When readers last got another text: a title, a summary, a content, or the first publication. A slug, a tag or
    /// another publication does not move it. The feed's `<updated>` and the sitemap's `<lastmod>` say the same
    #[schema(format = DateTime)]
    updated_at: String,
    /// How far the post has come in its stream; commands show it in `If-Match`
    #[schema(minimum = 1)]
    version: u64,
}

/// A post as its readers see it
#[derive(ToSchema)]
#[expect(dead_code, reason = "described, never made")]
struct Page {
    #[schema(inline)]
    #[serde(flatten)]
    card: Card,
    /// Markdown
    content: String,
}

/// The author by the name they had when they wrote the post
#[derive(ToSchema)]
#[expect(dead_code, reason = "described, never made")]
struct CardAuthor {
    #[schema(min_length = 1, max_length = 128)]
    id: String,
    #[schema(required)]
    name: Option<String>,
}

/// One page of a list
#[derive(ToSchema)]
#[expect(dead_code, reason = "described, never made")]
struct Cards {
    #[schema(max_items = 100)]
    items: Vec<Card>,
    /// The `cursor` of the next page; `null` at the end
    #[schema(required)]
    next: Option<String>,
}

/// A post in the shape of the article this began with
#[derive(ToSchema)]
#[expect(dead_code, reason = "described, never made")]
struct Article {
    #[schema(format = Uuid)]
    uid: String,
    title: String,
    content: String,
    #[schema(min_length = 1, max_length = 80, pattern = "^[a-z0-9]+(-[a-z0-9]+)*$")]
    slug: String,
}

fn posts() -> OperationBuilder {
    let tag = "Only posts with this tag: its slug, or any spelling of it";
    let author = "Only posts of this author; does not go together with `tag`";
    let tag = query("tag", tag, text().min_length(Some(1)).max_length(Some(80)));
    let id = text().min_length(Some(1)).max_length(Some(128)).pattern(Some("^[A-Za-z0-9._|@-]+$"));
    let operation = list("listPosts", "List what is published, the latest first publication first")
        .securities(Some(token_optional()))
        .parameter(tag)
        .parameter(query("author", author, id));
    with_page(refuse(operation, [of_lists(), general()].concat()))
}

fn own_posts() -> OperationBuilder {
    let status = text().enum_values(Some(["draft", "published"]));
    let operation = list("listOwnPosts", "List one's own posts, drafts included, the latest first")
        .securities(Some(token_required()))
        .parameter(query("status", "Only posts that are this", status));
    refuse(operation, [of_lists(), general()].concat())
}

fn page() -> OperationBuilder {
    let address = text().examples([json!("on-writing")]);
    let address = in_path(
        "address",
        "The slug of the post, or its id; a draft has no address but its id",
        address,
    );
    with_page(post("readPost", "Read a post", address, "Page"))
}

fn feed() -> OperationBuilder {
    let operation = asked("readFeed", "Follow what is published: the latest 20 posts as Atom")
        .description(Some(DOCUMENT))
        .securities(Some(token_optional()))
        .response("200", document_of("The feed", "application/atom+xml", headers()))
        .response("304", bare("The reader has it already", headers()));
    refuse(operation, general().into_iter().chain([bad_token()]))
}

fn sitemap() -> OperationBuilder {
    let says = "For search engines: the addresses of the latest 50,000 posts";
    let operation = asked("readSitemap", says)
        .description(Some(DOCUMENT))
        .securities(Some(token_optional()))
        .response("200", document_of("The sitemap", "application/xml", headers()))
        .response("304", bare("The reader has it already", headers()));
    refuse(operation, general().into_iter().chain([bad_token()]))
}

/// What is said of documents that are made of many posts.
const DOCUMENT: &str = "Never lacks posts: while a partition of the views is being filled, or the views cannot be read, \
    it is the last whole one, `stale`, or 503.";

/// An answer that is a text of this type.
fn document_of<const N: usize>(
    description: &str,
    media_type: &str,
    headers: [(&'static str, Header); N],
) -> Response {
    let mut response = bare(description, headers);
    response.content.insert(media_type.to_owned(), text_content());
    response
}

/// A read that has a page for people as well.
fn with_page(operation: OperationBuilder) -> OperationBuilder {
    let mut operation = operation.build();
    if let Some(RefOr::T(response)) = operation.responses.responses.get_mut("200") {
        response.content.insert("text/html".to_owned(), text_content());
    }
    operation.into()
}

fn article() -> OperationBuilder {
    post(
        "readArticle",
        "Read an article",
        in_path("slug", "The slug of the post", slug()),
        "Article",
    )
    .description(Some("Kept from the article this began with; /posts/{address} tells more."))
}

/// A read of one post.
fn post(id: &str, summary: &str, address: Parameter, schema: &str) -> OperationBuilder {
    let location = ("Location", response_header("Where the post is now", text()));
    let operation = asked(id, summary)
        .securities(Some(token_optional()))
        .parameter(address)
        .response("200", json("The post", schema, headers()))
        .response("301", bare("The post has another slug by now", [location, freshness()]))
        .response("304", bare("The reader has it already", headers()));
    let missing =
        [Problem::not_found("no such post is published"), Problem::gone("this post was deleted")];
    let operation = refuse(operation, general().into_iter().chain(missing).chain([bad_token()]));
    with_freshness(operation, ["404", "410"])
}

/// Something was read before these were refused.
fn with_freshness<const N: usize>(
    operation: OperationBuilder,
    refusals: [&str; N],
) -> OperationBuilder {
    let mut operation = operation.build();
    for status in refusals {
        if let Some(RefOr::T(refusal)) = operation.responses.responses.get_mut(status) {
            let (name, header) = freshness();
            refusal.headers.insert(name.to_owned(), RefOr::T(header));
        }
    }
    operation.into()
}

/// A read of a list.
fn list(id: &str, summary: &str) -> OperationBuilder {
    let limit = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(1))
        .maximum(Some(MAX_LIMIT))
        .default(Some(json!(DEFAULT_LIMIT)));
    let cursor = "Where the page begins: what `next` said on the page before, of the same list";
    let link = text().pattern(Some("^<.*>; rel=\"next\"$"));
    let link = ("Link", response_header("Where the next page is, if there is one", link));
    let with_link = || headers().into_iter().chain([link.clone()]);
    let mut page = json("A page of the list", "Cards", with_link());
    page.links = links(id);
    asked(id, summary)
        .parameter(query("limit", "How many posts a page has at most", limit))
        .parameter(query("cursor", cursor, text()))
        .response("200", page)
        .response("304", bare("The reader has it already", with_link()))
}

/// What a page of this list leads to.
fn links(id: &str) -> BTreeMap<String, RefOr<Link>> {
    let next = LinkBuilder::new()
        .operation_id(id)
        .parameter("cursor", "$response.body#/next")
        .description("The next page, if there is one");
    let first = LinkBuilder::new()
        .operation_id("readPost")
        .parameter("address", "$response.body#/items/0/id")
        .description("The first post of the page");
    let article = LinkBuilder::new()
        .operation_id("readArticle")
        .parameter("slug", "$response.body#/items/0/slug")
        .description("The first post of the page, as an article");
    [("next", next), ("first", first), ("firstArticle", article)]
        .map(|(name, link)| (name.to_owned(), RefOr::T(link.build())))
        .into()
}

fn asked(id: &str, summary: &str) -> OperationBuilder {
    let known = "The entity tags of what the reader has, or `*`";
    let operation = OperationBuilder::new()
        .operation_id(Some(id))
        .summary(Some(summary))
        .parameter(request_header("If-None-Match", known, text()));
    shown_tokens().into_iter().fold(operation, OperationBuilder::parameter)
}

/// What comes with every answer that is not refused.
fn headers() -> [(&'static str, Header); 4] {
    let may_keep = "Whether caches may keep it, and must ask before they use it";
    [
        ("ETag", etag("Names these bytes, for `If-None-Match`")),
        ("Cache-Control", response_header(may_keep, text())),
        (
            "Vary",
            response_header(
                "What else the answer depends on: who asks, and for which form",
                text(),
            ),
        ),
        freshness(),
    ]
}

fn freshness() -> (&'static str, Header) {
    let says = "How far the source had come, which one it was, how many seconds ago, and `stale` where the \
        answer is known to be behind";
    let pattern = "^position=[0-9]+, source=(memory|redis|log), age=[0-9]+(, stale)?$";
    ("Freshness", response_header(says, text().pattern(Some(pattern))))
}

fn bad_token() -> Problem {
    Problem::invalid_request("Consistency-Token is no such token")
}

fn general() -> Vec<Problem> {
    vec![
        Problem::unauthenticated("the bearer token is not good"),
        Problem::internal(),
        Problem::unavailable("reads cannot be answered at the moment", 1),
    ]
}

fn of_lists() -> Vec<Problem> {
    let error = FieldError::new("limit", "out_of_range", "must be a number from 1 to 100");
    vec![
        Problem::invalid_request("there is no parameter `limt`"),
        Problem::validation_failed(vec![error]),
    ]
}

/// Every read can be asked for without its body as well.
fn read(get: OperationBuilder) -> PathItem {
    let mut get = get.build();
    for response in get.responses.responses.values_mut() {
        if let RefOr::T(response) = response
            && response.content.contains_key("application/problem+json")
        {
            response.content.insert("text/html".to_owned(), text_content());
        }
    }
    let head = without_bodies(get.clone());
    PathItemBuilder::new().operation(HttpMethod::Get, get).operation(HttpMethod::Head, head).build()
}

fn without_bodies(mut operation: Operation) -> Operation {
    operation.operation_id = operation.operation_id.map(|id| format!("{id}Head"));
    operation.summary = operation.summary.map(|summary| format!("{summary}: the headers alone"));
    for response in operation.responses.responses.values_mut() {
        if let RefOr::T(response) = response {
            response.content.clear();
        }
    }
    operation
}

fn text_content() -> RefOr<Content> {
    Content::new(Some(text())).into()
}
