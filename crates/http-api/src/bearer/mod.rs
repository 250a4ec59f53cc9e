//! Who is asking: bearer tokens (RFC 6750) that are JSON Web Tokens.

mod actor;
mod args;
mod keys;
mod token;

pub use actor::Actor;
pub use args::{AuthArgs, PublicKeyAlgorithm};
pub use token::{TokenVerifier, sign};
