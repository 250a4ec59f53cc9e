//! The settings by which tokens are judged.

use std::fmt;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// A secret that is shared with the issuer of the tokens, or the issuer's public key, or a set of such keys.
#[derive(Clone, Default, Args)]
pub struct AuthArgs {
    /// The secret with which bearer tokens are signed (HS256): at least 32 bytes
    #[arg(long, env = "INKSTREAM_JWT_SECRET", hide_env_values = true)]
    pub jwt_secret: Option<String>,

    /// In place of a secret, the file of the public key (PEM) that verifies bearer tokens
    #[arg(long, env = "INKSTREAM_JWT_PUBLIC_KEY_FILE")]
    pub jwt_public_key_file: Option<PathBuf>,

    /// The algorithm that belongs to the public key
    #[arg(long, env = "INKSTREAM_JWT_ALGORITHM")]
    pub jwt_algorithm: Option<PublicKeyAlgorithm>,

    /// In place of both, the file of a JWK Set with several secrets and public keys, so that keys can be rotated: each
    /// with `kid` and `alg` (HS256, EdDSA or RS256); the first secret signs
    #[arg(long, env = "INKSTREAM_JWT_KEYS_FILE")]
    pub jwt_keys_file: Option<PathBuf>,

    /// Who must have made a bearer token (its `iss`); if unset, that is not checked
    #[arg(long, env = "INKSTREAM_JWT_ISSUER")]
    pub jwt_issuer: Option<String>,

    /// For whom a bearer token must be meant (its `aud`); if unset, a token with an `aud` is rejected
    #[arg(long, env = "INKSTREAM_JWT_AUDIENCE")]
    pub jwt_audience: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PublicKeyAlgorithm {
    #[value(name = "EdDSA")]
    EdDsa,
    #[value(name = "RS256")]
    Rs256,
}

/// Everything but the secret.
impl fmt::Debug for AuthArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthArgs")
            .field("jwt_public_key_file", &self.jwt_public_key_file)
            .field("jwt_algorithm", &self.jwt_algorithm)
            .field("jwt_keys_file", &self.jwt_keys_file)
            .field("jwt_issuer", &self.jwt_issuer)
            .field("jwt_audience", &self.jwt_audience)
            .finish_non_exhaustive()
    }
}
