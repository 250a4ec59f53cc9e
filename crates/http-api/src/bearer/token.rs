//! Verifies bearer tokens, and signs them for those who share the secret.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use domain::AuthorId;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Header, Validation, decode, decode_header, get_current_timestamp};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::keys::{self, Key};
use super::{Actor, AuthArgs};
use crate::Problem;

/// Maximum difference between the clocks of this process and of the issuer of a token.
const LEEWAY_SECONDS: u64 = 10;
const MAX_NAME_CHARS: usize = 200;

#[derive(Debug, Serialize)]
struct SignedClaims {
    sub: String,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<String>,
}

/// Claims that are used or checked here; the library checks the times, the issuer and a set audience.
#[derive(Debug, Deserialize)]
struct Claims {
    sub: String,
    name: Option<String>,
    aud: Option<IgnoredAny>,
}

/// Turns tokens into actors. Clones are cheap.
#[derive(Clone)]
pub struct TokenVerifier {
    keys: Arc<[(Key, Validation)]>,
    has_audience: bool,
}

impl TokenVerifier {
    /// Fails, naming the setting, where the settings do not make a whole.
    pub fn new(args: &AuthArgs) -> anyhow::Result<Self> {
        let keys = keys::read(args)?.into_iter().map(|key| {
            let validation = validation(key.algorithm, args);
            (key, validation)
        });
        Ok(Self { keys: keys.collect(), has_audience: args.jwt_audience.is_some() })
    }

    /// The actor a token speaks for, or a refusal that says what is wrong with it.
    pub fn verify(&self, token: &str) -> Result<Actor, Problem> {
        let not_valid = || Problem::invalid_token("the bearer token is not valid");
        let header = decode_header(token).map_err(|_| not_valid())?;
        // No extension of the format is understood here (RFC 7515, section 4.1.11).
        if header.crit.is_some() {
            return Err(Problem::invalid_token("the `crit` of the bearer token is not understood"));
        }
        let (key, validation) = self.key(header.kid.as_deref()).ok_or_else(|| {
            Problem::invalid_token("the bearer token is signed with a key that is not known")
        })?;
        let decoded = decode::<Claims>(token, &key.verifying, validation);
        let Claims { sub, name, aud } = decoded
            .map_err(|error| {
                if matches!(error.kind(), ErrorKind::ExpiredSignature) {
                    Problem::invalid_token("the bearer token has expired")
                } else {
                    not_valid()
                }
            })?
            .claims;
        // A token for an audience is not for a service that does not know itself to be one of it
        // (RFC 7519, section 4.1.3).
        if aud.is_some() && !self.has_audience {
            return Err(Problem::invalid_token("the bearer token is meant for another audience"));
        }
        let author_id = sub.parse::<AuthorId>().map_err(|invalid| {
            let detail = format!("the `sub` of the bearer token is not valid: {invalid}");
            Problem::invalid_token(detail)
        })?;
        let name = name.filter(|name| !name.is_empty());
        if let Some(name) = &name
            && (name.chars().count() > MAX_NAME_CHARS || name.contains('\0'))
        {
            let detail = "the `name` of the bearer token is too long or contains NUL";
            return Err(Problem::invalid_token(detail));
        }
        Ok(Actor { author_id, name })
    }

    /// Returns the one key that may have signed a token.
    fn key(&self, id: Option<&str>) -> Option<&(Key, Validation)> {
        match (&*self.keys, id) {
            // Issuers name their key even to those who know a single one.
            ([only], id) if only.0.id.is_none() || id.is_none() => Some(only),
            (_, None) => None,
            (keys, id) => keys.iter().find(|(key, _)| key.id.as_deref() == id),
        }
    }
}

impl fmt::Debug for TokenVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenVerifier")
            .field("keys", &self.keys.iter().map(|(key, _)| &key.id).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// Returns a token that a [`TokenVerifier`] of the same settings accepts for so long. The first secret signs it.
pub fn sign(args: &AuthArgs, actor: &Actor, lifetime: Duration) -> anyhow::Result<String> {
    let keys = keys::read(args)?;
    let key = keys.into_iter().find_map(|key| key.signing.map(|signing| (key.id, signing)));
    let (id, key) = key.context(
        "to sign tokens, set INKSTREAM_JWT_SECRET, or INKSTREAM_JWT_KEYS_FILE with a key for HS256",
    )?;
    let claims = SignedClaims {
        sub: actor.author_id.to_string(),
        exp: get_current_timestamp().saturating_add(lifetime.as_secs()),
        name: actor.name.clone(),
        iss: args.jwt_issuer.clone(),
        aud: args.jwt_audience.clone(),
    };
    let header = Header { kid: id, ..Header::new(Algorithm::HS256) };
    jsonwebtoken::encode(&header, &claims, &key).context("while signing a token")
}

fn validation(algorithm: Algorithm, args: &AuthArgs) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.leeway = LEEWAY_SECONDS;
    validation.validate_nbf = true;
    // What is checked must be there: by itself the library lets a missing claim pass.
    let mut required = vec!["exp", "sub"];
    if let Some(issuer) = &args.jwt_issuer {
        validation.set_issuer(&[issuer]);
        required.push("iss");
    }
    match &args.jwt_audience {
        Some(audience) => {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        None => validation.validate_aud = false,
    }
    validation.set_required_spec_claims(&required);
    validation
}

#[cfg(test)]
mod tests;
