//! What both HTTP services say alike: who is asking, how a request is read, how a refusal looks, and
//! the limits around every handler.
//!
//! What a service does is left to the service.

pub mod bearer;
pub mod body;
pub mod consistency;
pub mod cors;
pub mod edge;
pub mod etag;
pub mod layers;
pub mod openapi;
pub mod path;
pub mod problem;
pub mod request_id;
pub mod validation;

pub use bearer::{Actor, AuthArgs, TokenVerifier};
pub use body::{EmptyBody, FormOrJson, Json, MergePatch};
pub use consistency::{ConsistencyToken, ConsistencyTokens, ShownToken};
pub use cors::CorsArgs;
pub use edge::Edge;
pub use path::{PathId, PostAddress};
pub use problem::Problem;
pub use request_id::RequestId;
pub use validation::{FieldError, FieldErrors};
