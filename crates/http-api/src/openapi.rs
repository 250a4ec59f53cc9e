//! What the OpenAPI documents of both services say alike, and where they are served.
//!
//! Each service lists its own operations. Refusals are shown by the problems themselves, so that a code or
//! a status cannot be described otherwise than it is sent.

use std::collections::BTreeMap;

use axum::Router;
use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{OperationBuilder, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{AllOfBuilder, ComponentsBuilder, ObjectBuilder, Schema, Type};
use utoipa::openapi::security::{
    Http, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{Header, Info, OpenApi, OpenApiVersion, Paths, Ref, RefOr, Required};
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::problem::Document;
use crate::{FieldError, Problem};

/// The name of the way to say who is asking.
const BEARER: &str = "bearer";
const SLUG: &str = "^[a-z0-9]+(-[a-z0-9]+)*$";
/// The id of the requests in examples.
const REQUEST_ID: &str = "019a2b3c-4d5e-7f60-8a9b-0c1d2e3f4a5b";
const ETAG: &str = "^\"[^\"]*\"$";

/// The document of one service: its operations, with the schemas of its own.
pub fn document(info: Info, paths: impl Into<Paths>, schemas: ComponentsBuilder) -> OpenApi {
    let mut paths = paths.into();
    paths.paths.values_mut().for_each(add_request_ids);
    let components = schemas
        .schema_from::<Document<'_>>()
        .schema_from::<FieldError>()
        .security_scheme(BEARER, SecurityScheme::Http(bearer()));
    OpenApi::builder()
        .openapi(OpenApiVersion::Version31)
        .info(info)
        .paths(paths)
        .components(Some(components.build()))
        .build()
}

/// `/openapi.json`, and `/docs` for people: a page that loads nothing from elsewhere.
///
/// # Panics
///
/// If the document cannot be printed as JSON.
pub fn serve<S: Clone + Send + Sync + 'static>(document: &OpenApi) -> Router<S> {
    // Left to itself, the page asks a service on the Internet whether the document is valid.
    let config = Config::new(["/openapi.json"]).validator_url("none").try_it_out_enabled(true);
    let page: Router<S> = SwaggerUi::new("/docs").config(config).into();
    // Printed once: requests for it are unauthenticated and must cost little.
    let json = Bytes::from(serde_json::to_vec(document).expect("the document is no JSON"));
    page.route("/openapi.json", get(async || ([(CONTENT_TYPE, "application/json")], json)))
}

/// Any request may have an id, and so has its response.
fn add_request_ids(path: &mut PathItem) {
    let id = || text().min_length(Some(1)).max_length(Some(128)).pattern(Some("^[!-~]+$"));
    let chosen = "An id of the client's choice for this request: 1–128 visible ASCII characters. Without one, or \
        in place of another text, the service makes one. Responses, problem documents and log output name it.";
    // Any text is accepted, so the schema of the parameter has no pattern.
    let parameter = request_header("X-Request-Id", chosen, text());
    path.parameters.get_or_insert_default().push(parameter.into());
    let PathItem { get, head, post, put, patch, delete, .. } = path;
    let operations = [get, head, post, put, patch, delete].into_iter().flatten();
    for response in operations.flat_map(|operation| operation.responses.responses.values_mut()) {
        if let RefOr::T(response) = response {
            let header = response_header("The id of the request", id());
            response.headers.insert("X-Request-Id".to_owned(), header.into());
        }
    }
}

fn bearer() -> Http {
    let claims = "A JWT with `sub`, the id of an author (1–128 of `A–Z a–z 0–9 . _ - | @`), `exp` and, if \
        known, `name`.";
    HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some(claims))
        .build()
}

/// A bearer token must be shown.
pub fn token_required() -> Vec<SecurityRequirement> {
    vec![SecurityRequirement::new(BEARER, [""; 0])]
}

/// A bearer token may be shown.
pub fn token_optional() -> Vec<SecurityRequirement> {
    vec![SecurityRequirement::default(), SecurityRequirement::new(BEARER, [""; 0])]
}

pub fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

pub fn slug() -> ObjectBuilder {
    text().min_length(Some(1)).max_length(Some(80)).pattern(Some(SLUG))
}

/// A header of a request, which may be left out.
pub fn request_header(name: &str, description: &str, schema: impl Into<Schema>) -> Parameter {
    parameter(ParameterIn::Header, name, description, schema)
}

/// What may stand behind the `?`.
pub fn query(name: &str, description: &str, schema: impl Into<Schema>) -> Parameter {
    parameter(ParameterIn::Query, name, description, schema)
}

/// What may stand in a cookie.
pub fn cookie(name: &str, description: &str, schema: impl Into<Schema>) -> Parameter {
    parameter(ParameterIn::Cookie, name, description, schema)
}

/// What stands in the path.
pub fn in_path(name: &str, description: &str, schema: impl Into<Schema>) -> Parameter {
    let parameter = parameter(ParameterIn::Path, name, description, schema);
    ParameterBuilder::from(parameter).required(Required::True).build()
}

fn parameter(
    place: ParameterIn,
    name: &str,
    description: &str,
    schema: impl Into<Schema>,
) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(schema.into()))
        .build()
}

/// The token that a request may show: as a header, or as the cookie a browser keeps by itself.
pub fn shown_tokens() -> [Parameter; 2] {
    let header =
        "What an earlier command answered under this name: the answer knows of those writes.";
    let cookie_says = "The same token, as a browser keeps it; garbage is ignored here.";
    [
        request_header("Consistency-Token", header, text()),
        cookie(crate::consistency::COOKIE, cookie_says, text()),
    ]
}

/// A header of an answer.
pub fn response_header(description: &str, schema: impl Into<Schema>) -> Header {
    HeaderBuilder::new().description(Some(description)).schema(Some(schema.into())).build()
}

/// The header with the version of what is answered.
pub fn etag(description: &str) -> Header {
    response_header(description, text().pattern(Some(ETAG)))
}

/// An answer with a body of JSON, of a schema among the components.
pub fn json(
    description: &str,
    schema: &str,
    headers: impl IntoIterator<Item = (&'static str, Header)>,
) -> Response {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(schema))).build();
    without_body(ResponseBuilder::new().content("application/json", content), description, headers)
}

/// An answer without a body.
pub fn bare(
    description: &str,
    headers: impl IntoIterator<Item = (&'static str, Header)>,
) -> Response {
    without_body(ResponseBuilder::new(), description, headers)
}

fn without_body(
    response: ResponseBuilder,
    description: &str,
    headers: impl IntoIterator<Item = (&'static str, Header)>,
) -> Response {
    let response = response.description(description);
    headers
        .into_iter()
        .fold(response, |response, (name, header)| response.header(name, header))
        .build()
}

/// Adds an answer for every status that these problems have.
pub fn refuse(
    operation: OperationBuilder,
    problems: impl IntoIterator<Item = Problem>,
) -> OperationBuilder {
    let mut by_status = BTreeMap::<u16, Vec<Problem>>::new();
    for problem in problems {
        by_status.entry(problem.status().as_u16()).or_default().push(problem);
    }
    by_status.into_iter().fold(operation, |operation, (status, problems)| {
        operation.response(status.to_string(), refusal(&problems))
    })
}

/// The answer for problems that share a status.
fn refusal(problems: &[Problem]) -> Response {
    let mut codes: Vec<&str> = problems.iter().map(Problem::code).collect();
    codes.dedup();
    let code = text().enum_values(Some(codes));
    let schema = AllOfBuilder::new()
        .item(Ref::from_schema_name("Problem"))
        .item(ObjectBuilder::new().property("code", code));
    let examples = problems.iter().map(|problem| {
        let value = serde_json::to_value(problem.document(Some(REQUEST_ID))).ok();
        (problem.code(), ExampleBuilder::new().value(value).build())
    });
    let content = ContentBuilder::new().schema(Some(schema)).examples_from_iter(examples).build();
    let described: Vec<String> = problems
        .iter()
        .map(|problem| format!("`{}`: {}", problem.code(), problem.document(None).detail))
        .collect();
    let response = ResponseBuilder::new()
        .description(described.join("; "))
        .content("application/problem+json", content);
    headers_of(problems)
        .into_iter()
        .fold(response, |response, (name, header)| response.header(name, header))
        .build()
}

/// The headers that a problem brings along.
fn headers_of(problems: &[Problem]) -> Vec<(&'static str, Header)> {
    let seconds = |description| {
        let seconds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0));
        response_header(description, seconds)
    };
    let retry_after = seconds("In how many seconds to try again");
    let only_with_key = seconds("In how many seconds to try again; only with an Idempotency-Key");
    let challenges = text().enum_values(Some(["Bearer", "Bearer error=\"invalid_token\""]));
    let scheme = response_header("How to say who is asking", challenges);
    match problems.first().map(|problem| problem.status().as_u16()) {
        Some(401) => vec![("WWW-Authenticate", scheme)],
        Some(429 | 503) => vec![("Retry-After", retry_after)],
        Some(504) => vec![("Retry-After", only_with_key)],
        _ => vec![],
    }
}
