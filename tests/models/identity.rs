//! The identity of a model is the same for every program: `identity.json` holds vectors that another encoder made.

use underbelly::{IDENTITY_PREFIX, Metadata, MetadataError};

const VECTORS: &str = include_str!("identity.json");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    assert!(rest.is_empty());
    pairs.iter().map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// The same without what stays outside.
fn identity(metadata: &Metadata) -> Metadata {
    let inside = |name: &String| !["timestamp", "name", "tags"].contains(&name.as_str());
    let entries = metadata.entries().iter().filter(|(name, _)| inside(name));
    Metadata::from_entries(entries.map(|(name, value)| (name.clone(), value.clone())).collect())
}

#[test]
fn the_vectors_of_identity_hold() {
    let vectors: serde_json::Value = serde_json::from_str(VECTORS).unwrap();
    assert_eq!(vectors["prefix"].as_str().unwrap(), hex(IDENTITY_PREFIX));
    let all = vectors["vectors"].as_array().unwrap();
    assert!(all.len() > 50);
    for vector in all {
        let text = |name: &str| vector[name].as_str().unwrap();
        let what = text("what");
        let metadata = match vector.get("json") {
            Some(json) => Metadata::from_json(json.as_str().unwrap()).unwrap(),
            None => Metadata::from_cbor(&bytes(text("cbor"))).unwrap(),
        };
        if vector.get("cbor").is_some() {
            assert_eq!(hex(&metadata.to_cbor().unwrap()), text("cbor"), "{what}");
        }
        let before = metadata.clone();
        assert_eq!(metadata.id().unwrap().to_string(), text("id"), "{what}");
        assert_eq!(metadata, before, "{what}");
        assert_eq!(hex(&identity(&metadata).to_cbor().unwrap()), text("identity"), "{what}");
        // What stays outside may be anything.
        let other = metadata.with("timestamp", 7i64).with("name", "other").with("tags", true);
        assert_eq!(other.id().unwrap().to_string(), text("id"), "{what}");
    }
}

#[test]
fn what_has_no_identity_is_refused_and_told() {
    let vectors: serde_json::Value = serde_json::from_str(VECTORS).unwrap();
    for vector in vectors["refused"].as_array().unwrap() {
        let text = |name: &str| vector[name].as_str().unwrap();
        let refused = Metadata::from_json(text("json")).and_then(|metadata| metadata.id());
        let told = refused.as_ref().unwrap_err().to_string();
        assert!(told.contains(text("says")), "{}: {told}", text("what"));
    }
    for vector in vectors["long"].as_array().unwrap() {
        let text = |name: &str| vector[name].as_str().unwrap();
        let long = "x".repeat(vector["times"].as_u64().unwrap() as usize);
        let json = [text("begin"), &long, text("end")].concat();
        match Metadata::from_json(&json).and_then(|metadata| metadata.id()) {
            Ok(id) => assert_eq!(id.to_string(), text("id"), "{}", text("what")),
            Err(error) => assert!(error.to_string().contains(text("says")), "{}: {error}", text("what")),
        }
    }
    let twice = Metadata::from_json(r#"{"type":"m","a":[0,{"b":1,"b":1}]}"#);
    assert_eq!(twice, Err(MetadataError::Duplicate { path: "a.1.b".to_string() }));
}
