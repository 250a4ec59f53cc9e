//! Which tokens are believed.

use serde_json::{Value, json};

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
    for claims in [
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
    let told = Problem::unauthenticated("the bearer token has expired");
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
    let both = json!({ "sub": "anne", "exp": soon, "iss": "us", "aud": ["inkstream", "x"] });
    let neither = json!({ "sub": "anne", "exp": soon });
    let issuer = AuthArgs { jwt_issuer: Some("us".to_owned()), ..args(SECRET) };
    let audience = AuthArgs { jwt_audience: Some("inkstream".to_owned()), ..args(SECRET) };
    for args in [issuer, audience] {
        assert!(believed(&args, &both));
        assert!(!believed(&args, &neither));
        let anne = Actor { author_id: "anne".parse().unwrap(), name: None };
        assert!(
            verifier(&args).verify(&sign(&args, &anne, Duration::from_secs(60)).unwrap()).is_ok()
        );
    }
    assert!(believed(&args(SECRET), &both));
    let other = json!({ "sub": "anne", "exp": soon, "iss": "them" });
    let issuer = AuthArgs { jwt_issuer: Some("us".to_owned()), ..args(SECRET) };
    assert!(!believed(&issuer, &other));
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
    assert!(refused(both).contains("not both"));
    let lost = AuthArgs { jwt_public_key_file: key_file, ..AuthArgs::default() };
    assert!(refused(lost).contains("/nowhere"));
}

#[test]
fn the_secret_does_not_print() {
    assert!(!format!("{:?} {:?}", args(SECRET), verifier(&args(SECRET))).contains(SECRET));
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
