//! What is read for those who show what they have seen: the views have a moment to come as far, and then it
//! is folded from the log.

use std::time::Duration;

use domain::{AuthorId, Partition, Position, PostId};
use http_api::ConsistencyToken;

use super::{Found, ReadError, Reads, Warmth};
use crate::demand::Demand;
use crate::post::{Post, Sight};

impl Reads {
    /// A post that includes what is demanded, or says that it is stale.
    pub(crate) async fn post_with(
        &self,
        id: PostId,
        reader: Option<&AuthorId>,
        demand: Demand,
    ) -> Result<Post, ReadError> {
        let Demand::UpTo { incarnation, position } = demand else {
            return self.post(id, reader).await;
        };
        let mut warmth = self.row(id).await;
        let lacks = |found: &Found| {
            found.incarnation == incarnation && !Post::of(found, reader).includes(position)
        };
        if matches!(&warmth, Warmth::Found(found) if lacks(found))
            && self.reached(incarnation, &[(self.partition_of(id), position)]).await
        {
            warmth = self.row(id).await;
        }
        let (post, is_old, mark) = match warmth {
            Warmth::Found(found) => (Some(Post::of(&found, reader)), false, None),
            Warmth::Behind(found) => (Some(Post::of(&found, reader)), true, None),
            Warmth::Nothing(mark) => (None, false, mark),
        };
        // As everywhere: that it is not there, only the log can say.
        let is_withheld = post.as_ref().is_some_and(|post| matches!(post.sight, Sight::Nothing));
        let post = post.filter(|_| !is_withheld);
        if let Some(post) = post.as_ref().filter(|post| !is_old && demand.is_met_by(post)) {
            return Ok(post.clone());
        }
        let of_earlier_life = post.as_ref().is_some_and(|post| post.incarnation > incarnation);
        match (self.refold_with(id, reader, demand, Position::ZERO, mark).await, post) {
            (Ok(folded), _) => Ok(folded.stale_if(of_earlier_life)),
            // Better than nothing.
            (Err(ReadError::Unavailable), Some(post))
                if !is_old || self.withdrawn.are_complete() =>
            {
                Ok(post.stale_if(true))
            }
            (Err(error), Some(_)) => Err(error),
            (Err(error), None) if is_withheld => Err(error.withholding()),
            (Err(error), _) => Err(error),
        }
    }

    /// Waits a moment until the views have come as far as a token demands.
    pub(crate) async fn wait_for(&self, token: &ConsistencyToken) {
        let positions = token.positions.iter();
        let positions: Vec<_> = positions.map(|(partition, at)| (*partition, *at)).collect();
        self.reached(token.incarnation, &positions).await;
    }

    /// Waits a moment until the views have reached these positions, of the store's present life.
    pub(super) async fn reached(
        &self,
        incarnation: u32,
        positions: &[(Partition, Position)],
    ) -> bool {
        if incarnation != self.warm.standing.incarnation() || self.token_wait == Duration::ZERO {
            return false;
        }
        let reached = self.waiting.reached(incarnation, positions, self.token_wait).await;
        let outcome = if reached { "reached" } else { "timed_out" };
        metrics::counter!("token_waits_total", "outcome" => outcome).increment(1);
        reached
    }
}
