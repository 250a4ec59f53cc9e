//! Consistency tokens: a write hands one out, and a read that shows it sees at least that write.
//!
//! A token holds, for some partitions, the position that views must have reached. It travels as a header and
//! as a cookie, so a browser that knows nothing of it gets the same promise. It carries an HMAC under a key of
//! the store, since a token makes a read wait and read the event store: only a writer can hand one out.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::{Partition, Partitions, Position};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::Problem;

/// The name of the header.
pub const HEADER: &str = "consistency-token";
/// The name of the cookie.
pub const COOKIE: &str = "consistency";
/// How long the cookie lives: much longer than views are ever behind.
const COOKIE_SECONDS: u32 = 60;

/// The first byte, which tells the format.
const FORMAT: u8 = 2;
/// Maximum number of partitions in a token; the lowest positions are left out first.
const MAX_PAIRS: usize = 64;
/// Length of the HMAC-SHA-256 at the end, which is truncated.
const MAC_BYTES: usize = 16;
/// Maximum length of a token: the format, the incarnation (5 bytes at most), and for each pair a partition (3)
/// and a position (10), in Base64.
const MAX_CHARS: usize = (1 + 5 + MAX_PAIRS * (3 + 10) + MAC_BYTES).div_ceil(3) * 4;
/// Maximum number of cookies of our name that are read; a browser sends one.
const MAX_COOKIES: usize = 8;

/// Positions that views must have reached, all given in one incarnation of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsistencyToken {
    pub incarnation: u32,
    pub positions: BTreeMap<Partition, Position>,
}

/// Consistency token that a request shows, if any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShownToken {
    Nothing,
    /// A token of a key or an incarnation that this process does not know.
    Unknown,
    Token(ConsistencyToken),
}

/// Text that is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a consistency token")]
pub struct Garbage;

/// Signs and verifies tokens under the present key of the store. Clones share it.
#[derive(Debug, Clone)]
pub struct ConsistencyTokens {
    present: Arc<RwLock<Present>>,
    partitions: Partitions,
}

struct Present {
    incarnation: u32,
    key: [u8; 32],
}

impl ConsistencyTokens {
    pub fn new(incarnation: u32, key: [u8; 32], partitions: Partitions) -> Self {
        Self { present: Arc::new(RwLock::new(Present { incarnation, key })), partitions }
    }

    /// Replaces the key and the incarnation of the store: either may have changed since they were read.
    pub fn update(&self, incarnation: u32, key: [u8; 32]) {
        *self.present.write().unwrap_or_else(PoisonError::into_inner) =
            Present { incarnation, key };
    }

    /// Incarnation that new tokens are of.
    pub fn incarnation(&self) -> u32 {
        self.present.read().unwrap_or_else(PoisonError::into_inner).incarnation
    }

    /// Token that a request shows: its header, or else its cookie. A header that is no token is refused, and so
    /// are two. A cookie that is none is ignored, since the client may not have set it.
    pub fn shown(&self, headers: &HeaderMap) -> Result<ShownToken, Problem> {
        let mut given = headers.get_all(HEADER).iter();
        if let Some(value) = given.next() {
            if given.next().is_some() {
                return Err(Problem::invalid_request("Consistency-Token is given more than once"));
            }
            let token = value.to_str().map_err(|_| Garbage).and_then(|text| self.open(text));
            let refused = |Garbage| Problem::invalid_request("Consistency-Token is no such token");
            return token.map_err(refused);
        }
        let values = cookies(headers).take(MAX_COOKIES);
        let texts = values.filter_map(|value| std::str::from_utf8(value).ok());
        let tokens = texts.filter_map(|text| self.open(text).ok());
        Ok(tokens.fold(ShownToken::Nothing, |so_far, token| match (so_far, token) {
            (ShownToken::Token(first), _) => ShownToken::Token(first),
            (_, token) => token,
        }))
    }

    /// Token for a write at a position, and for all that the writer knew before.
    pub fn issue(
        &self,
        partition: Partition,
        position: Position,
        shown: ShownToken,
    ) -> ConsistencyToken {
        let incarnation = self.incarnation();
        let mut positions = match shown {
            ShownToken::Token(token) if token.incarnation == incarnation => token.positions,
            ShownToken::Token(_) | ShownToken::Unknown | ShownToken::Nothing => BTreeMap::new(),
        };
        let highest = positions.entry(partition).or_insert(position);
        *highest = position.max(*highest);
        ConsistencyToken { incarnation, positions }
    }

    /// Hands a token to a client, in headers; `secure` keeps the cookie from plain connections.
    pub fn hand_out(&self, token: &ConsistencyToken, headers: &mut HeaderMap, secure: bool) {
        let text = self.seal(token);
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

    /// Signs a token. Base64 of: the format, the incarnation, a partition and a position for each pair, the MAC.
    /// Numbers are LEB128 (<https://dwarfstd.org/doc/DWARF5.pdf>, section 7.6).
    pub fn seal(&self, token: &ConsistencyToken) -> String {
        let mut bytes = vec![FORMAT];
        put(&mut bytes, token.incarnation.into());
        let mut pairs: Vec<_> = token.positions.iter().collect();
        pairs.sort_unstable_by_key(|(_, position)| Reverse(**position));
        for (partition, position) in pairs.into_iter().take(MAX_PAIRS) {
            put(&mut bytes, partition.0.into());
            put(&mut bytes, position.0);
        }
        let mac = self.mac(&bytes).finalize().into_bytes();
        bytes.extend_from_slice(&mac[..MAC_BYTES]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Verifies a token.
    pub fn open(&self, text: &str) -> Result<ShownToken, Garbage> {
        // Before anything is decoded: the work must not grow with what a client sends.
        if text.len() > MAX_CHARS {
            return Err(Garbage);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Garbage)?;
        let (bytes, mac) = bytes.split_last_chunk::<MAC_BYTES>().ok_or(Garbage)?;
        let token = read(bytes)?;
        // Takes the same time wherever the two differ.
        let is_ours = self.mac(bytes).verify_truncated_left(mac).is_ok();
        let is_known = is_ours
            && token.incarnation == self.incarnation()
            && token.positions.keys().all(|partition| partition.0 < self.partitions.count());
        Ok(if is_known { ShownToken::Token(token) } else { ShownToken::Unknown })
    }

    fn mac(&self, bytes: &[u8]) -> Hmac<Sha256> {
        let key = self.present.read().unwrap_or_else(PoisonError::into_inner).key;
        // Fails for no length of a key.
        let mac = Hmac::<Sha256>::new_from_slice(&key);
        mac.unwrap_or_else(|error| unreachable!("{error}")).chain_update(bytes)
    }
}

/// Returns `true` if a request shows a token in either way, be it garbage: the response is not for others.
pub fn is_shown(headers: &HeaderMap) -> bool {
    headers.contains_key(HEADER) || cookies(headers).next().is_some()
}

/// Values of the cookies of our name.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(header::COOKIE).iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.filter_map(|pair| {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii());
        (name == COOKIE.as_bytes()).then_some(value)
    })
}

fn read(bytes: &[u8]) -> Result<ConsistencyToken, Garbage> {
    let mut rest = bytes.strip_prefix(&[FORMAT]).ok_or(Garbage)?;
    let incarnation = take(&mut rest)?.try_into().map_err(|_| Garbage)?;
    let mut positions = BTreeMap::new();
    while !rest.is_empty() {
        let partition = Partition(take(&mut rest)?.try_into().map_err(|_| Garbage)?);
        let is_second = positions.insert(partition, Position(take(&mut rest)?)).is_some();
        if is_second || positions.len() > MAX_PAIRS {
            return Err(Garbage);
        }
    }
    Ok(ConsistencyToken { incarnation, positions })
}

impl fmt::Debug for Present {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Present").field("incarnation", &self.incarnation).finish_non_exhaustive()
    }
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

    #[test]
    fn a_token_is_read_back_as_it_was_signed() {
        let tokens = of_key(1, 7);
        for token in
            [token(1, &[]), token(1, &[(0, 0), (1, 127), (2, 128), (127, u64::MAX), (9, 1 << 56)])]
        {
            assert_eq!(tokens.open(&tokens.seal(&token)), Ok(ShownToken::Token(token)));
        }
    }

    #[test]
    fn a_token_with_any_bit_changed_is_not_believed() {
        let tokens = of_key(1, 7);
        let text = tokens.seal(&token(1, &[(3, 1_000_000), (7, 42)]));
        let bytes = URL_SAFE_NO_PAD.decode(&text).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let opened = tokens.open(&URL_SAFE_NO_PAD.encode(changed));
            assert!(!matches!(opened, Ok(ShownToken::Token(_))), "bit {bit}");
        }
        for length in 0..text.len() {
            let opened = tokens.open(&text[..length]);
            assert!(!matches!(opened, Ok(ShownToken::Token(_))), "length {length}");
        }
    }

    #[test]
    fn a_token_of_another_key_or_incarnation_is_unknown() {
        let tokens = of_key(2, 7);
        for other in [of_key(2, 8), of_key(1, 7), of_key(3, 7)] {
            let text = other.seal(&token(other.incarnation(), &[(3, 10)]));
            assert_eq!(tokens.open(&text), Ok(ShownToken::Unknown));
        }
        let of_no_partition = tokens.seal(&token(2, &[(128, 10)]));
        assert_eq!(tokens.open(&of_no_partition), Ok(ShownToken::Unknown));

        let text = tokens.seal(&token(2, &[(3, 10)]));
        tokens.update(3, [8; 32]);
        assert_eq!(tokens.open(&text), Ok(ShownToken::Unknown));
    }

    #[test]
    fn the_longest_token_has_64_pairs_and_lacks_the_lowest_positions() {
        let tokens = of_key(1, 7);
        let high = u64::MAX - 200;
        let pairs: Vec<_> = (0..128).map(|number| (number, high + u64::from(number))).collect();
        let text = tokens.seal(&token(1, &pairs));
        assert!(text.len() <= MAX_CHARS, "{}", text.len());
        assert_eq!(tokens.open(&text), Ok(ShownToken::Token(token(1, &pairs[64..]))));
    }

    #[test]
    fn what_is_too_long_has_too_many_pairs_or_one_twice_is_no_token() {
        let tokens = of_key(1, 7);
        let sealed = |pairs: &[(u16, u64)]| {
            let mut bytes = vec![FORMAT, 1];
            for (partition, position) in pairs {
                put(&mut bytes, (*partition).into());
                put(&mut bytes, *position);
            }
            let mac = tokens.mac(&bytes).finalize().into_bytes();
            bytes.extend_from_slice(&mac[..MAC_BYTES]);
            URL_SAFE_NO_PAD.encode(bytes)
        };
        let pairs = |count: u16| (0..count).map(|number| (number, 1)).collect::<Vec<_>>();
        assert!(tokens.open(&sealed(&pairs(64))).is_ok());
        for bad in [
            sealed(&pairs(65)),
            sealed(&[(3, 1), (3, 1)]),
            "A".repeat(MAX_CHARS + 1),
            "A".repeat(300_000),
            String::new(),
            "x".to_owned(),
            "?".to_owned(),
        ] {
            assert_eq!(tokens.open(&bad), Err(Garbage), "{bad}");
        }
    }

    #[test]
    fn a_new_token_holds_the_higher_position_of_each_partition() {
        let tokens = of_key(1, 7);
        let shown = ShownToken::Token(token(1, &[(3, 10), (4, 10)]));
        let issue = |partition, position, shown: &ShownToken| {
            tokens.issue(Partition(partition), Position(position), shown.clone())
        };
        assert_eq!(issue(3, 11, &shown), token(1, &[(3, 11), (4, 10)]));
        assert_eq!(issue(5, 2, &shown), token(1, &[(3, 10), (4, 10), (5, 2)]));
        assert_eq!(issue(3, 9, &shown), token(1, &[(3, 10), (4, 10)]));
        for other in [ShownToken::Nothing, ShownToken::Unknown] {
            assert_eq!(issue(3, 11, &other), token(1, &[(3, 11)]));
        }
    }

    #[test]
    fn the_header_counts_before_the_cookie() {
        let tokens = of_key(1, 7);
        let (a, b) = (token(1, &[(3, 10)]), token(1, &[(4, 11)]));
        let cookie = format!("x=1; consistency={}", tokens.seal(&b));
        assert_eq!(shown(&[("cookie", &cookie)]).unwrap(), ShownToken::Token(b));
        let both = [("cookie", cookie.as_str()), ("consistency-token", &tokens.seal(&a))];
        assert_eq!(shown(&both).unwrap(), ShownToken::Token(a));
        assert_eq!(shown(&[]).unwrap(), ShownToken::Nothing);
    }

    #[test]
    fn garbage_is_refused_in_a_header_and_ignored_in_a_cookie() {
        let good = of_key(1, 7).seal(&token(1, &[(3, 10)]));
        for bad in ["", "x", "AAAA"] {
            assert!(shown(&[("consistency-token", bad)]).is_err(), "{bad}");
            let cookie = format!("consistency={bad}");
            assert_eq!(shown(&[("cookie", &cookie)]).unwrap(), ShownToken::Nothing);
            let both = format!("consistency={bad}; consistency={good}");
            assert!(matches!(shown(&[("cookie", &both)]).unwrap(), ShownToken::Token(_)));
        }
        let twice = [("consistency-token", good.as_str()), ("consistency-token", good.as_str())];
        assert!(shown(&twice).is_err());
    }

    #[test]
    fn a_cookie_is_known_by_its_exact_name() {
        for (cookie, expected) in [
            ("consistency=x", true),
            ("a=b; consistency=", true),
            ("a=b;consistency = x", true),
            ("consistency2=x", false),
            ("consistency-token=x", false),
            ("xconsistency=x", false),
            ("a=consistency=x", false),
            ("consistency", false),
        ] {
            let headers = [(header::COOKIE, HeaderValue::from_static(cookie))];
            assert_eq!(is_shown(&headers.into_iter().collect()), expected, "{cookie}");
        }
    }

    #[test]
    fn a_token_is_handed_out_as_a_header_and_a_cookie() {
        let (tokens, mut headers) = (of_key(1, 7), HeaderMap::new());
        let token = token(1, &[(3, 10)]);
        tokens.hand_out(&token, &mut headers, true);
        let text = tokens.seal(&token);
        assert_eq!(headers[HEADER].to_str().unwrap(), text);
        let cookie = format!("consistency={text}; Path=/; SameSite=Lax; Max-Age=60; Secure");
        assert_eq!(headers["set-cookie"].to_str().unwrap(), cookie);
    }

    #[test]
    fn the_key_is_not_printed() {
        assert!(!format!("{:?}", of_key(1, 201)).contains("201"));
    }

    fn of_key(incarnation: u32, byte: u8) -> ConsistencyTokens {
        ConsistencyTokens::new(incarnation, [byte; 32], Partitions::new(128).unwrap())
    }

    fn token(incarnation: u32, positions: &[(u16, u64)]) -> ConsistencyToken {
        let pair =
            |(partition, position): &(u16, u64)| (Partition(*partition), Position(*position));
        ConsistencyToken { incarnation, positions: positions.iter().map(pair).collect() }
    }

    fn shown(headers: &[(&str, &str)]) -> Result<ShownToken, Problem> {
        let pair = |(name, value): &(&str, &str)| {
            (name.parse::<header::HeaderName>().unwrap(), value.parse().unwrap())
        };
        of_key(1, 7).shown(&headers.iter().map(pair).collect())
    }
}
