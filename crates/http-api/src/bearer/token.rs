//! Verifies bearer tokens, and signs them for those who share the secret.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use domain::AuthorId;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, get_current_timestamp,
};
use serde::{Deserialize, Serialize};

use super::{Actor, AuthArgs, PublicKeyAlgorithm};
use crate::Problem;

/// As many as the hash of HS256 has: a shorter secret can be searched for.
const MIN_SECRET_BYTES: usize = 32;
/// By how much the clocks of whoever makes the tokens and ours may differ.
const LEEWAY_SECONDS: u64 = 10;
const MAX_NAME_CHARS: usize = 200;

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    sub: String,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", skip_deserializing)]
    iss: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", skip_deserializing)]
    aud: Option<String>,
}

/// Turns tokens into actors. Clones are cheap.
#[derive(Clone)]
pub struct TokenVerifier {
    key: Arc<DecodingKey>,
    validation: Arc<Validation>,
}

impl TokenVerifier {
    /// Fails, naming the setting, where the settings do not make a whole.
    pub fn new(args: &AuthArgs) -> anyhow::Result<Self> {
        // The algorithm follows from the settings alone: a token that could choose it could choose
        // a public key as its secret.
        let (key, algorithm) = match (&args.jwt_secret, &args.jwt_public_key_file) {
            (Some(_), Some(_)) => {
                bail!("set INKSTREAM_JWT_SECRET or INKSTREAM_JWT_PUBLIC_KEY_FILE, not both")
            }
            (None, None) => bail!("set INKSTREAM_JWT_SECRET or INKSTREAM_JWT_PUBLIC_KEY_FILE"),
            (Some(secret), None) => {
                ensure!(
                    args.jwt_algorithm.is_none(),
                    "INKSTREAM_JWT_ALGORITHM goes with a public key, not with INKSTREAM_JWT_SECRET"
                );
                (DecodingKey::from_secret(checked(secret)?), Algorithm::HS256)
            }
            (None, Some(file)) => {
                let pem = std::fs::read(file).with_context(|| {
                    format!("INKSTREAM_JWT_PUBLIC_KEY_FILE, {}, cannot be read", file.display())
                })?;
                let (key, algorithm) = match args.jwt_algorithm {
                    Some(PublicKeyAlgorithm::EdDsa) => {
                        (DecodingKey::from_ed_pem(&pem), Algorithm::EdDSA)
                    }
                    Some(PublicKeyAlgorithm::Rs256) => {
                        (DecodingKey::from_rsa_pem(&pem), Algorithm::RS256)
                    }
                    None => bail!("set INKSTREAM_JWT_ALGORITHM: EdDSA or RS256"),
                };
                let key = key.with_context(|| {
                    format!("{} holds no public key for {algorithm:?}", file.display())
                })?;
                (key, algorithm)
            }
        };
        Ok(Self { key: Arc::new(key), validation: Arc::new(validation(algorithm, args)) })
    }

    /// The actor a token speaks for, or a refusal that says what is wrong with it.
    pub fn verify(&self, token: &str) -> Result<Actor, Problem> {
        let decoded = jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation);
        let claims = decoded.map_err(|error| {
            let expired = matches!(error.kind(), ErrorKind::ExpiredSignature);
            let what = if expired { "has expired" } else { "is not valid" };
            Problem::unauthenticated(format!("the bearer token {what}"))
        })?;
        let Claims { sub, name, .. } = claims.claims;
        let author_id = sub.parse::<AuthorId>().map_err(|invalid| {
            Problem::unauthenticated(format!(
                "the `sub` of the bearer token is not valid: {invalid}"
            ))
        })?;
        let name = name.filter(|name| !name.is_empty());
        if let Some(name) = &name
            && (name.chars().count() > MAX_NAME_CHARS || name.contains('\0'))
        {
            let detail = "the `name` of the bearer token is too long or contains NUL";
            return Err(Problem::unauthenticated(detail));
        }
        Ok(Actor { author_id, name })
    }
}

impl fmt::Debug for TokenVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenVerifier")
            .field("validation", &self.validation)
            .finish_non_exhaustive()
    }
}

/// A token that a [`TokenVerifier`] of the same settings accepts for so long.
pub fn sign(args: &AuthArgs, actor: &Actor, lifetime: Duration) -> anyhow::Result<String> {
    let secret = args.jwt_secret.as_ref().context("set INKSTREAM_JWT_SECRET")?;
    let claims = Claims {
        sub: actor.author_id.to_string(),
        exp: get_current_timestamp().saturating_add(lifetime.as_secs()),
        name: actor.name.clone(),
        iss: args.jwt_issuer.clone(),
        aud: args.jwt_audience.clone(),
    };
    let key = EncodingKey::from_secret(checked(secret)?);
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key)
        .context("while signing a token")
}

fn checked(secret: &str) -> anyhow::Result<&[u8]> {
    let bytes = secret.as_bytes();
    ensure!(
        bytes.len() >= MIN_SECRET_BYTES,
        "INKSTREAM_JWT_SECRET must have at least {MIN_SECRET_BYTES} bytes"
    );
    Ok(bytes)
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
