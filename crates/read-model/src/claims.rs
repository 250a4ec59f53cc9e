//! Which post a slug names, remembered for all generations: what was claimed stays so.

use domain::{Claim, Position, Slug};
use redis::Expiry;

use crate::connection::Exchange;
use crate::views::{KEPT_SECONDS, read};
use crate::{Views, ViewsError};

impl Views {
    /// Which post a slug names, or named, if that is remembered.
    pub async fn claim_of(
        &self,
        incarnation: u32,
        slug: &Slug,
    ) -> Result<Option<Claim>, ViewsError> {
        let mut exchange = self.connection.exchange();
        let key = self.keys.slug(incarnation, slug);
        let longer = Expiry::EX(KEPT_SECONDS.unsigned_abs());
        exchange.question(&key).get_ex(&key, longer);
        let [answer] = exchange.send().await.next()?;
        let text: Option<String> = read(answer)?;
        text.map(|text| read_claim(&text).ok_or(ViewsError::Malformed("a slug"))).transpose()
    }

    /// Remembers which post a slug names, as the log says; it never names another.
    pub async fn remember_slug(
        &self,
        incarnation: u32,
        slug: &Slug,
        claim: Claim,
    ) -> Result<(), ViewsError> {
        let mut exchange = self.connection.exchange();
        self.add_claim(&mut exchange, incarnation, slug, claim);
        let [_done] = exchange.send().await.next()?;
        Ok(())
    }

    pub(crate) fn add_claim(
        &self,
        exchange: &mut Exchange<'_>,
        incarnation: u32,
        slug: &Slug,
        claim: Claim,
    ) {
        let key = self.keys.slug(incarnation, slug);
        let text = format!("{} {}", claim.post_id, claim.position);
        exchange.question(&key).set_ex(&key, text, KEPT_SECONDS.unsigned_abs());
    }
}

fn read_claim(text: &str) -> Option<Claim> {
    let (post_id, position) = text.split_once(' ')?;
    let position = Position(position.parse().ok()?);
    Some(Claim { post_id: post_id.parse().ok()?, position })
}
