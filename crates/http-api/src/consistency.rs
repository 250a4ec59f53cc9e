//! What a writer gets and a reader may show, to see at least that write.
//!
//! A token holds, for some partitions, the position that views must have reached. It travels as a header and
//! as a cookie, so a browser that knows nothing of it gets the same promise. It is not secret and not signed:
//! whoever makes one up makes only their own reads wait.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::{Partition, Partitions, Position};
use sha2::{Digest as _, Sha256};

use crate::Problem;

/// The name of the header.
pub const HEADER: &str = "consistency-token";
/// The name of the cookie.
pub const COOKIE: &str = "consistency";
/// How long the cookie lives: much longer than views are ever behind.
const COOKIE_SECONDS: u32 = 60;

/// The first byte, which tells the format.
const FORMAT: u8 = 1;
/// How many bytes of a hash stand at the end, so that garbage is known as such.
const CHECK_BYTES: usize = 4;

/// Positions that views must have reached, all given in one life of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsistencyToken {
    pub incarnation: u32,
    pub positions: BTreeMap<Partition, Position>,
}

/// A text that is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a consistency token")]
pub struct Garbage;

impl ConsistencyToken {
    pub fn new(incarnation: u32, partition: Partition, position: Position) -> Self {
        Self { incarnation, positions: BTreeMap::from([(partition, position)]) }
    }

    /// The token that a request shows: its header, or else its cookie. A header that is garbage is refused;
    /// a cookie, which somebody else may have set, is passed over. So is a partition the store has not.
    pub fn shown(headers: &HeaderMap, partitions: Partitions) -> Result<Option<Self>, Problem> {
        let known = |token: Self| token.positions.keys().all(|known| known.0 < partitions.count());
        if let Some(value) = headers.get(HEADER) {
            let token = value.to_str().ok().and_then(|text| text.parse().ok());
            let token: Self = token
                .filter(|token: &Self| known(token.clone()))
                .ok_or_else(|| Problem::invalid_request("Consistency-Token is not one of ours"))?;
            return Ok(Some(token));
        }
        let cookies =
            headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let pairs =
            cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.split_once('='));
        let ours = pairs.filter(|(name, _)| name.trim() == COOKIE);
        let mut tokens = ours.filter_map(|(_, text)| text.trim().parse::<Self>().ok());
        Ok(tokens.find(|token| known(token.clone())))
    }

    /// What both demand: for each partition the higher position. One of an earlier life of the store demands
    /// nothing that could still be fulfilled.
    pub fn merge(self, shown: Option<Self>) -> Self {
        let Some(shown) = shown.filter(|shown| shown.incarnation == self.incarnation) else {
            return self;
        };
        let mut positions = shown.positions;
        for (partition, position) in self.positions {
            let highest = positions.entry(partition).or_insert(position);
            *highest = position.max(*highest);
        }
        Self { positions, ..self }
    }

    /// The headers that hand the token to a client; `secure` keeps the cookie from plain connections.
    pub fn hand_out(&self, headers: &mut HeaderMap, secure: bool) {
        let text = self.to_string();
        let secure = if secure { "; Secure" } else { "" };
        let cookie =
            format!("{COOKIE}={text}; Path=/; SameSite=Lax; Max-Age={COOKIE_SECONDS}{secure}");
        // Base64 and what stands around it are visible ASCII.
        if let (Ok(text), Ok(cookie)) = (HeaderValue::try_from(text), HeaderValue::try_from(cookie))
        {
            headers.insert(HEADER, text);
            headers.append(header::SET_COOKIE, cookie);
        }
    }
}

/// Base64 of: the format, the incarnation, a partition and a position for each pair, the check. Numbers are
/// LEB128 (<https://dwarfstd.org/doc/DWARF5.pdf>, section 7.6).
impl fmt::Display for ConsistencyToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![FORMAT];
        put(&mut bytes, self.incarnation.into());
        for (partition, position) in &self.positions {
            put(&mut bytes, partition.0.into());
            put(&mut bytes, position.0);
        }
        let check = check(&bytes);
        bytes.extend(check);
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for ConsistencyToken {
    type Err = Garbage;

    fn from_str(text: &str) -> Result<Self, Garbage> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Garbage)?;
        let (bytes, found) = bytes.split_last_chunk::<CHECK_BYTES>().ok_or(Garbage)?;
        if check(bytes) != *found {
            return Err(Garbage);
        }
        let mut rest = bytes.strip_prefix(&[FORMAT]).ok_or(Garbage)?;
        let incarnation = take(&mut rest)?.try_into().map_err(|_| Garbage)?;
        let mut positions = BTreeMap::new();
        while !rest.is_empty() {
            let partition = take(&mut rest)?.try_into().map_err(|_| Garbage)?;
            positions.insert(Partition(partition), Position(take(&mut rest)?));
        }
        Ok(Self { incarnation, positions })
    }
}

fn check(bytes: &[u8]) -> [u8; CHECK_BYTES] {
    let hash = Sha256::digest(bytes);
    [hash[0], hash[1], hash[2], hash[3]]
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
}

fn take(bytes: &mut &[u8]) -> Result<u64, Garbage> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(Garbage)?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return Err(Garbage);
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Garbage)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(incarnation: u32, positions: &[(u16, u64)]) -> ConsistencyToken {
        let pair =
            |(partition, position): &(u16, u64)| (Partition(*partition), Position(*position));
        ConsistencyToken { incarnation, positions: positions.iter().map(pair).collect() }
    }

    fn shown(headers: &[(&str, &str)]) -> Result<Option<ConsistencyToken>, Problem> {
        let pair = |(name, value): &(&str, &str)| {
            (name.parse::<header::HeaderName>().unwrap(), value.parse().unwrap())
        };
        ConsistencyToken::shown(&headers.iter().map(pair).collect(), Partitions::new(16).unwrap())
    }

    #[test]
    fn a_token_is_read_back_as_it_was_written() {
        for token in [
            token(1, &[]),
            token(u32::MAX, &[(0, 0), (1, 127), (2, 128), (300, u64::MAX), (u16::MAX, 1 << 56)]),
        ] {
            assert_eq!(token.to_string().parse(), Ok(token));
        }
    }

    #[test]
    fn a_token_with_any_character_changed_is_garbage() {
        let text = token(1, &[(3, 1_000_000), (7, 42)]).to_string();
        for (at, _) in text.char_indices() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(changed.parse::<ConsistencyToken>(), Err(Garbage), "{changed}");
            assert_eq!(text[..at].parse::<ConsistencyToken>(), Err(Garbage));
        }
    }

    #[test]
    fn the_higher_position_of_each_partition_counts() {
        let merged = token(1, &[(3, 10), (4, 10)]).merge(Some(token(1, &[(3, 11), (5, 2)])));
        assert_eq!(merged, token(1, &[(3, 11), (4, 10), (5, 2)]));
        let of_another_life = token(2, &[(3, 10)]).merge(Some(token(1, &[(3, 11)])));
        assert_eq!(of_another_life, token(2, &[(3, 10)]));
    }

    #[test]
    fn the_header_counts_before_the_cookie() {
        let (a, b) = (token(1, &[(3, 10)]), token(1, &[(4, 11)]));
        let cookie = format!("x=1; consistency={b}");
        assert_eq!(shown(&[("cookie", &cookie)]).unwrap(), Some(b));
        let both = [("cookie", cookie.as_str()), ("consistency-token", &a.to_string())];
        assert_eq!(shown(&both).unwrap(), Some(a));
        assert_eq!(shown(&[]).unwrap(), None);
    }

    #[test]
    fn garbage_is_refused_in_a_header_and_passed_over_in_a_cookie() {
        let of_no_partition = token(1, &[(16, 10)]).to_string();
        for bad in ["", "x", "AAAA", &of_no_partition] {
            assert!(shown(&[("consistency-token", bad)]).is_err(), "{bad}");
            assert_eq!(shown(&[("cookie", &format!("consistency={bad}"))]).unwrap(), None);
        }
    }

    #[test]
    fn a_token_is_handed_out_as_a_header_and_a_cookie() {
        let mut headers = HeaderMap::new();
        let token = token(1, &[(3, 10)]);
        token.hand_out(&mut headers, true);
        assert_eq!(headers[HEADER].to_str().unwrap(), token.to_string());
        let cookie = format!("consistency={token}; Path=/; SameSite=Lax; Max-Age=60; Secure");
        assert_eq!(headers["set-cookie"].to_str().unwrap(), cookie);
    }
}
