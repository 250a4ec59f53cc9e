//! The keys that verify bearer tokens, read from the settings when a process starts.
//!
//! One secret or one public key is enough. A JWK Set holds several, of which a token names one by its `kid`, so that
//! keys can be rotated. A token is verified with one key at most, and never with an algorithm of its own choice.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};

use super::{AuthArgs, PublicKeyAlgorithm};

/// Minimum length of a secret, that of the hash of HS256: a shorter one can be searched for.
const MIN_SECRET_BYTES: usize = 32;
/// Maximum number of keys in a JWK Set.
const MAX_KEYS: usize = 16;

/// Key that verifies tokens, and the only algorithm it does so with.
#[derive(Clone)]
pub(super) struct Key {
    /// Name of the key in a JWK Set.
    pub(super) id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) verifying: DecodingKey,
    /// Only of a shared secret.
    pub(super) signing: Option<EncodingKey>,
}

/// Reads the keys, at least one. Fails with the name of a setting that is missing, wrong or too much.
pub(super) fn read(args: &AuthArgs) -> anyhow::Result<Vec<Key>> {
    let AuthArgs { jwt_secret, jwt_public_key_file, jwt_keys_file, jwt_algorithm, .. } = args;
    // The algorithm follows from the settings alone: a token that could choose it could choose
    // a public key as its secret.
    let keys = match (jwt_secret, jwt_public_key_file, jwt_keys_file) {
        (Some(secret), None, None) => {
            vec![Key::shared(None, secret.as_bytes(), "INKSTREAM_JWT_SECRET")?]
        }
        (None, Some(file), None) => return Ok(vec![Key::public(file, *jwt_algorithm)?]),
        (None, None, Some(file)) => key_set(file)?,
        _ => bail!(
            "set one of INKSTREAM_JWT_SECRET, INKSTREAM_JWT_PUBLIC_KEY_FILE and INKSTREAM_JWT_KEYS_FILE"
        ),
    };
    ensure!(
        jwt_algorithm.is_none(),
        "INKSTREAM_JWT_ALGORITHM goes with INKSTREAM_JWT_PUBLIC_KEY_FILE"
    );
    Ok(keys)
}

impl Key {
    fn shared(id: Option<String>, secret: &[u8], place: &str) -> anyhow::Result<Self> {
        ensure!(
            secret.len() >= MIN_SECRET_BYTES,
            "{place} must have at least {MIN_SECRET_BYTES} bytes"
        );
        Ok(Self {
            id,
            algorithm: Algorithm::HS256,
            verifying: DecodingKey::from_secret(secret),
            signing: Some(EncodingKey::from_secret(secret)),
        })
    }

    fn public(file: &Path, algorithm: Option<PublicKeyAlgorithm>) -> anyhow::Result<Self> {
        let pem = fs::read(file).with_context(|| {
            format!("INKSTREAM_JWT_PUBLIC_KEY_FILE, {}, cannot be read", file.display())
        })?;
        let (key, algorithm) = match algorithm {
            Some(PublicKeyAlgorithm::EdDsa) => (DecodingKey::from_ed_pem(&pem), Algorithm::EdDSA),
            Some(PublicKeyAlgorithm::Rs256) => (DecodingKey::from_rsa_pem(&pem), Algorithm::RS256),
            None => bail!("set INKSTREAM_JWT_ALGORITHM: EdDSA or RS256"),
        };
        let verifying = key
            .with_context(|| format!("{} holds no public key for {algorithm:?}", file.display()))?;
        Ok(Self { id: None, algorithm, verifying, signing: None })
    }

    fn of_set(jwk: &Jwk) -> anyhow::Result<Self> {
        let id = jwk.common.key_id.clone().filter(|id| !id.is_empty());
        let id = id.context("a key has no `kid`")?;
        let algorithm = match (jwk.common.key_algorithm, &jwk.algorithm) {
            (Some(KeyAlgorithm::HS256), AlgorithmParameters::OctetKey(key)) => {
                // The error would quote the secret.
                let secret = URL_SAFE_NO_PAD.decode(&key.value).ok();
                let secret =
                    secret.with_context(|| format!("the `k` of `{id}` is not base64url"))?;
                let place = format!("the secret `{id}`");
                return Self::shared(Some(id), &secret, &place);
            }
            (Some(KeyAlgorithm::EdDSA), AlgorithmParameters::OctetKeyPair(key))
                if key.curve == EllipticCurve::Ed25519 =>
            {
                Algorithm::EdDSA
            }
            (Some(KeyAlgorithm::RS256), AlgorithmParameters::RSA(_)) => Algorithm::RS256,
            _ => bail!(
                "the key `{id}` is not for HS256, EdDSA (Ed25519) or RS256, by its `alg` and `kty`"
            ),
        };
        let verifying = DecodingKey::from_jwk(jwk);
        let verifying = verifying.with_context(|| format!("the key `{id}` cannot be used"))?;
        Ok(Self { id: Some(id), algorithm, verifying, signing: None })
    }
}

fn key_set(file: &Path) -> anyhow::Result<Vec<Key>> {
    let place = || format!("INKSTREAM_JWT_KEYS_FILE, {}", file.display());
    let json = fs::read(file).with_context(|| format!("{}, cannot be read", place()))?;
    // The error may quote the file, which may hold secrets.
    let set = serde_json::from_slice::<JwkSet>(&json).ok();
    let set = set.with_context(|| format!("{}, holds no JWK Set", place()))?;
    let is_for_tokens = |jwk: &&Jwk| jwk.common.public_key_use != Some(PublicKeyUse::Encryption);
    let keys = set.keys.iter().filter(is_for_tokens).map(Key::of_set);
    let keys = keys.collect::<anyhow::Result<Vec<_>>>().with_context(place)?;
    ensure!((1..=MAX_KEYS).contains(&keys.len()), "{}, must hold 1 to {MAX_KEYS} keys", place());
    let ids: HashSet<_> = keys.iter().map(|key| &key.id).collect();
    ensure!(ids.len() == keys.len(), "{}, gives one `kid` to two keys", place());
    Ok(keys)
}
