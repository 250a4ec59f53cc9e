//! The author who makes a request.

use axum::extract::{FromRef, FromRequestParts, OptionalFromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use domain::AuthorId;

use super::TokenVerifier;
use crate::Problem;

/// Tokens of ours have a few hundred bytes. Nobody should make us hash much more.
const MAX_HEADER_BYTES: usize = 8192;

/// Who is asking, by the name they have now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    pub author_id: AuthorId,
    pub name: Option<String>,
}

/// As a parameter of a handler: nobody gets past it without a good token.
impl<S> FromRequestParts<S> for Actor
where
    TokenVerifier: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let token = token(&parts.headers)?;
        let token = token.ok_or_else(|| Problem::unauthenticated("a bearer token is required"))?;
        TokenVerifier::from_ref(state).verify(token)
    }
}

/// As an `Option`: no token is fine, a bad one is not, since its bearer believes to be known.
impl<S> OptionalFromRequestParts<S> for Actor
where
    TokenVerifier: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Option<Self>, Problem> {
        let token = token(&parts.headers)?;
        token.map(|token| TokenVerifier::from_ref(state).verify(token)).transpose()
    }
}

/// The token in `Authorization: Bearer <token>`. Another scheme counts as no credentials.
fn token(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let given = headers.get_all(header::AUTHORIZATION);
    let Some(value) = given.iter().find(|value| is_bearer(value)) else { return Ok(None) };
    if given.iter().count() > 1 {
        return Err(Problem::invalid_token("there is more than one Authorization header"));
    }
    if value.len() > MAX_HEADER_BYTES {
        return Err(Problem::invalid_token("the Authorization header is too long"));
    }
    let token = value.to_str().ok().and_then(|text| text.split_once(' '));
    let token = token.map(|(_scheme, token)| token.trim());
    token.map(Some).ok_or_else(|| Problem::invalid_token("the Authorization header holds no token"))
}

fn is_bearer(value: &HeaderValue) -> bool {
    let scheme = value.as_bytes().split(|byte| *byte == b' ').next();
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer"))
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use axum::response::IntoResponse as _;

    use super::*;
    use crate::AuthArgs;

    #[tokio::test]
    async fn a_good_token_names_the_actor() {
        let token = good_token();
        for header in [format!("Bearer {token}"), format!("bearer  {token} ")] {
            let actor = actor(&[&header]).await.unwrap();
            assert_eq!(actor.author_id.as_str(), "anne");
            assert_eq!(maybe_actor(&[&header]).await, Ok(Some(actor)));
        }
    }

    #[tokio::test]
    async fn a_bad_token_is_refused() {
        let good = format!("Bearer {}", good_token());
        let long = format!("Bearer {}", "x".repeat(MAX_HEADER_BYTES));
        for headers in [
            &["Bearer"][..],
            &["Bearer "],
            &["bearer nonsense"],
            &[&good, &good],
            &["Basic YTpi", &good],
            &[&long],
        ] {
            for refused in
                [actor(headers).await.unwrap_err(), maybe_actor(headers).await.unwrap_err()]
            {
                assert_eq!(refused.code(), "unauthenticated");
                let response = refused.into_response();
                assert_eq!(
                    response.headers()["www-authenticate"],
                    "Bearer error=\"invalid_token\""
                );
            }
        }
    }

    #[tokio::test]
    async fn another_scheme_counts_as_no_credentials() {
        let token = good_token();
        for headers in
            [&["Basic YTpi"][..], &["Basic YTpi", "Digest x"], &[&token], &[""], &["Bearerx"]]
        {
            let response = actor(headers).await.unwrap_err().into_response();
            assert_eq!(response.headers()["www-authenticate"], "Bearer", "{headers:?}");
            assert_eq!(maybe_actor(headers).await, Ok(None), "{headers:?}");
        }
    }

    #[tokio::test]
    async fn nobody_may_ask_where_a_token_is_optional() {
        assert_eq!(actor(&[]).await.unwrap_err().code(), "unauthenticated");
        assert_eq!(maybe_actor(&[]).await, Ok(None));
    }

    fn args() -> AuthArgs {
        let secret = Some("a secret of at least thirty-two bytes".to_owned());
        AuthArgs { jwt_secret: secret, ..AuthArgs::default() }
    }

    fn good_token() -> String {
        let anne = Actor { author_id: "anne".parse().unwrap(), name: None };
        crate::bearer::sign(&args(), &anne, std::time::Duration::from_secs(60)).unwrap()
    }

    fn request(headers: &[&str]) -> Parts {
        let request = headers.iter().fold(Request::builder(), |request, value| {
            request.header(header::AUTHORIZATION, *value)
        });
        request.body(()).unwrap().into_parts().0
    }

    async fn actor(headers: &[&str]) -> Result<Actor, Problem> {
        let verifier = TokenVerifier::new(&args()).unwrap();
        <Actor as FromRequestParts<_>>::from_request_parts(&mut request(headers), &verifier).await
    }

    async fn maybe_actor(headers: &[&str]) -> Result<Option<Actor>, Problem> {
        let verifier = TokenVerifier::new(&args()).unwrap();
        <Actor as OptionalFromRequestParts<_>>::from_request_parts(&mut request(headers), &verifier)
            .await
    }
}
