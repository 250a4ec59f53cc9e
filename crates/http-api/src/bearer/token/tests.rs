//! Which tokens are believed.

use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::EncodingKey;
use serde_json::{Value, json};

use super::super::PublicKeyAlgorithm;
use super::*;

const SECRET: &str = "a secret of at least thirty-two bytes";

#[test]
fn a_token_that_we_signed_is_believed() {
    let args = args(SECRET);
    for name in [None, Some("Anne Ä.".to_owned())] {
        let anne = Actor { author_id: "anne".parse().unwrap(), name };
        let token = sign(&args, &anne, Duration::from_secs(60)).unwrap();
        assert_eq!(verifier(&args).verify(&token), Ok(anne));
    }
}

#[test]
fn a_token_that_lacks_something_is_not_believed() {
    let soon = get_current_timestamp() + 60;
    assert!(believed(&args(SECRET), &json!({ "sub": "anne", "exp": soon })));
    // A NumericDate may have a fraction.
    let soon_and_a_bit = Duration::from_secs(soon).as_secs_f64() + 0.25;
    let fractions = json!({ "sub": "anne", "exp": soon_and_a_bit, "nbf": soon_and_a_bit - 100.0 });
    assert!(believed(&args(SECRET), &fractions));
    for claims in [
        json!({ "sub": "anne", "exp": soon_and_a_bit - 120.0 }),
        json!({ "sub": "anne", "exp": -1 }),
        json!({ "sub": "anne", "exp": 1e300 }),
        json!({ "sub": "anne", "exp": null }),
        json!({ "sub": "anne" }),
        json!({ "exp": soon }),
        json!({ "sub": "anne", "exp": soon - 120 }),
        json!({ "sub": "anne", "exp": "tomorrow" }),
        json!({ "sub": "anne", "exp": soon, "nbf": soon }),
        json!({ "sub": "", "exp": soon }),
        json!({ "sub": "anne smith", "exp": soon }),
        json!({ "sub": 5, "exp": soon }),
        json!({ "sub": "anne", "exp": soon, "name": "x".repeat(201) }),
        json!({ "sub": "anne", "exp": soon, "name": "\0" }),
        json!({ "sub": "anne", "exp": soon, "name": 5 }),
    ] {
        assert!(!believed(&args(SECRET), &claims), "{claims} was believed");
    }
}

#[test]
fn an_expired_token_is_told_so() {
    let token = token(SECRET, Algorithm::HS256, &json!({ "sub": "anne", "exp": 1 }));
    let told = Problem::invalid_token("the bearer token has expired");
    assert_eq!(verifier(&args(SECRET)).verify(&token), Err(told));
}

#[test]
fn a_token_signed_otherwise_is_not_believed() {
    let claims = json!({ "sub": "anne", "exp": get_current_timestamp() + 60 });
    let another = "another secret of thirty-two bytes or more";
    for token in [
        token(another, Algorithm::HS256, &claims),
        token(SECRET, Algorithm::HS512, &claims),
        // {"alg":"none","typ":"JWT"} and {"sub":"anne","exp":99999999999}, unsigned
        "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJzdWIiOiJhbm5lIiwiZXhwIjo5OTk5OTk5OTk5OX0."
            .to_owned(),
        String::new(),
        "a.b.c".to_owned(),
    ] {
        assert!(verifier(&args(SECRET)).verify(&token).is_err(), "{token} was believed");
    }
}

#[test]
fn issuer_and_audience_are_checked_if_set() {
    let soon = get_current_timestamp() + 60;
    let from_us = json!({ "sub": "anne", "exp": soon, "iss": "us" });
    let for_us = json!({ "sub": "anne", "exp": soon, "aud": ["inkstream", "x"] });
    let neither = json!({ "sub": "anne", "exp": soon });
    let issuer = AuthArgs { jwt_issuer: Some("us".to_owned()), ..args(SECRET) };
    let audience = AuthArgs { jwt_audience: Some("inkstream".to_owned()), ..args(SECRET) };
    for (args, good) in [(issuer, from_us), (audience, for_us)] {
        assert!(believed(&args, &good));
        assert!(!believed(&args, &neither));
        let anne = Actor { author_id: "anne".parse().unwrap(), name: None };
        assert!(
            verifier(&args).verify(&sign(&args, &anne, Duration::from_secs(60)).unwrap()).is_ok()
        );
    }
    let other = json!({ "sub": "anne", "exp": soon, "iss": "them" });
    let issuer = AuthArgs { jwt_issuer: Some("us".to_owned()), ..args(SECRET) };
    assert!(!believed(&issuer, &other));
}

#[test]
fn a_token_for_an_audience_is_not_believed_where_none_is_set() {
    let soon = get_current_timestamp() + 60;
    for audience in [json!("inkstream"), json!(["inkstream"]), json!([]), json!(5), json!("")] {
        let claims = json!({ "sub": "anne", "exp": soon, "aud": audience });
        assert!(!believed(&args(SECRET), &claims), "{claims} was believed");
    }
}

#[test]
fn a_token_with_critical_extensions_is_not_believed() {
    let claims = json!({ "sub": "anne", "exp": get_current_timestamp() + 60 });
    for crit in [vec!["exp".to_owned()], vec!["b64".to_owned()], vec![]] {
        let header = Header { crit: Some(crit), ..Header::new(Algorithm::HS256) };
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let token = jsonwebtoken::encode(&header, &claims, &key).unwrap();
        assert!(verifier(&args(SECRET)).verify(&token).is_err(), "{token} was believed");
    }
}

#[test]
fn a_single_key_believes_a_token_whatever_it_calls_its_key() {
    let claims = json!({ "sub": "anne", "exp": get_current_timestamp() + 60 });
    assert!(verifier(&args(SECRET)).verify(&token_of("any", SECRET, &claims)).is_ok());
}

#[test]
fn keys_are_rotated_in_a_set() {
    let claims = json!({ "sub": "anne", "exp": get_current_timestamp() + 60 });
    let other = "another secret of thirty-two bytes or more";
    let only = KeySet::new(&[secret("a", SECRET)]);
    let both = KeySet::new(&[secret("b", other), secret("a", SECRET)]);
    let signed = |set: &KeySet| sign(&set.args(), &anne(), Duration::from_secs(60)).unwrap();

    // The process that knows both signs with the first, and believes tokens of the other still.
    let (old, new) = (signed(&only), signed(&both));
    assert!(verifier(&both.args()).verify(&old).is_ok());
    assert!(verifier(&both.args()).verify(&new).is_ok());
    assert!(verifier(&only.args()).verify(&new).is_err());

    for (key, secret, believed) in
        [("a", SECRET, true), ("a", other, false), ("b", SECRET, false), ("c", SECRET, false)]
    {
        let token = token_of(key, secret, &claims);
        assert_eq!(verifier(&both.args()).verify(&token).is_ok(), believed, "{key}");
    }
    // Of several keys a token names its own; one alone need not be named.
    let nameless = token(SECRET, Algorithm::HS256, &claims);
    assert!(verifier(&both.args()).verify(&nameless).is_err());
    assert!(verifier(&only.args()).verify(&nameless).is_ok());
}

#[test]
fn a_set_may_hold_public_keys_beside_secrets() {
    let keys = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys");
    let pem = std::fs::read_to_string(format!("{keys}/ed25519.pem")).unwrap();
    let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = base64::engine::general_purpose::STANDARD.decode(der).unwrap();
    // The last 32 bytes of the structure are the key.
    let x = URL_SAFE_NO_PAD.encode(&der[der.len() - 32..]);
    let public = json!({ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "p", "x": x });
    let alone = KeySet::new(std::slice::from_ref(&public));
    let token = std::fs::read_to_string(format!("{keys}/ed25519.token")).unwrap();
    assert!(verifier(&alone.args()).verify(token.trim()).is_ok());
    assert!(sign(&alone.args(), &anne(), Duration::from_secs(60)).is_err());

    // The algorithm is that of the key, whatever a token says.
    let claims = json!({ "sub": "anne", "exp": get_current_timestamp() + 60 });
    let mixed = KeySet::new(&[public, secret("a", SECRET)]);
    assert!(verifier(&mixed.args()).verify(&token_of("a", SECRET, &claims)).is_ok());
    assert!(verifier(&mixed.args()).verify(&token_of("p", SECRET, &claims)).is_err());
    assert!(sign(&mixed.args(), &anne(), Duration::from_secs(60)).is_ok());
}

#[test]
fn a_set_that_cannot_be_used_is_refused() {
    let rsa = json!({ "kty": "RSA", "alg": "RS512", "kid": "r", "n": "AQAB", "e": "AQAB" });
    let nameless = json!({ "kty": "oct", "alg": "HS256", "k": "x" });
    let free = json!({ "kty": "oct", "kid": "a", "k": URL_SAFE_NO_PAD.encode(SECRET) });
    let for_others = json!({
        "kty": "oct", "alg": "HS256", "kid": "e", "use": "enc", "k": URL_SAFE_NO_PAD.encode(SECRET),
    });
    for (keys, why) in [
        (vec![], "1 to 16 keys"),
        (vec![for_others], "1 to 16 keys"),
        (vec![rsa], "`r`"),
        (vec![nameless], "`kid`"),
        (vec![free], "`a`"),
        (vec![secret("a", "short")], "at least 32 bytes"),
        (vec![secret("a", SECRET), secret("a", SECRET)], "two keys"),
        ((0..17).map(|n| secret(&n.to_string(), SECRET)).collect(), "1 to 16 keys"),
    ] {
        let set = KeySet::new(&keys);
        let refused = format!("{:#}", TokenVerifier::new(&set.args()).unwrap_err());
        assert!(refused.contains(why) && refused.contains("INKSTREAM_JWT_KEYS_FILE"), "{refused}");
        assert!(!refused.contains("short") && !refused.contains(SECRET), "{refused}");
    }
}

#[test]
fn a_public_key_believes_its_own_algorithm_only() {
    let keys = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys");
    let args = |name: &str, algorithm| AuthArgs {
        jwt_public_key_file: Some(format!("{keys}/{name}.pem").into()),
        jwt_algorithm: Some(algorithm),
        ..AuthArgs::default()
    };
    let kinds = [("ed25519", PublicKeyAlgorithm::EdDsa), ("rs256", PublicKeyAlgorithm::Rs256)];
    for (name, algorithm) in kinds {
        let verifier = verifier(&args(name, algorithm));
        for (other, _) in kinds {
            let token = std::fs::read_to_string(format!("{keys}/{other}.token")).unwrap();
            assert_eq!(verifier.verify(token.trim()).is_ok(), name == other);
        }
        // Everybody has the public key, so nobody must get anywhere by taking it for a secret.
        let public = std::fs::read_to_string(format!("{keys}/{name}.pem")).unwrap();
        let claims = json!({ "sub": "anne", "exp": get_current_timestamp() + 60 });
        assert!(verifier.verify(&token(&public, Algorithm::HS256, &claims)).is_err());
    }
    let mismatch = TokenVerifier::new(&args("ed25519", PublicKeyAlgorithm::Rs256));
    assert!(mismatch.unwrap_err().to_string().contains("RS256"));
}

#[test]
fn settings_that_do_not_make_a_whole_are_refused() {
    let key_file = Some("/nowhere".into());
    let refused = |args| TokenVerifier::new(&args).unwrap_err().to_string();
    assert!(refused(AuthArgs::default()).contains("INKSTREAM_JWT_SECRET"));
    assert!(refused(args("short")).contains("at least 32 bytes"));
    assert!(!refused(args("short")).contains("short"));
    let both = AuthArgs { jwt_public_key_file: key_file.clone(), ..args(SECRET) };
    assert!(refused(both).contains("set one of"));
    let lost = AuthArgs { jwt_public_key_file: key_file, ..AuthArgs::default() };
    assert!(refused(lost).contains("/nowhere"));
}

#[test]
fn the_secret_does_not_print() {
    assert!(!format!("{:?} {:?}", args(SECRET), verifier(&args(SECRET))).contains(SECRET));
}

fn anne() -> Actor {
    Actor { author_id: "anne".parse().unwrap(), name: None }
}

/// A JWK Set in a file, which is removed with it.
struct KeySet(std::path::PathBuf);

impl KeySet {
    fn new(keys: &[Value]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("inkstream-keys-{}-{number}.json", std::process::id());
        let file = std::env::temp_dir().join(name);
        std::fs::write(&file, json!({ "keys": keys }).to_string()).unwrap();
        Self(file)
    }

    fn args(&self) -> AuthArgs {
        AuthArgs { jwt_keys_file: Some(self.0.clone()), ..AuthArgs::default() }
    }
}

impl Drop for KeySet {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn secret(id: &str, secret: &str) -> Value {
    json!({ "kty": "oct", "alg": "HS256", "kid": id, "k": URL_SAFE_NO_PAD.encode(secret) })
}

fn token_of(key: &str, secret: &str, claims: &Value) -> String {
    let header = Header { kid: Some(key.to_owned()), ..Header::new(Algorithm::HS256) };
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&header, claims, &key).unwrap()
}

fn args(secret: &str) -> AuthArgs {
    AuthArgs { jwt_secret: Some(secret.to_owned()), ..AuthArgs::default() }
}

fn verifier(args: &AuthArgs) -> TokenVerifier {
    TokenVerifier::new(args).unwrap()
}

fn token(secret: &str, algorithm: Algorithm, claims: &Value) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(algorithm), claims, &key).unwrap()
}

fn believed(args: &AuthArgs, claims: &Value) -> bool {
    verifier(args).verify(&token(SECRET, Algorithm::HS256, claims)).is_ok()
}
