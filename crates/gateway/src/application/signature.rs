//! The digests that applications sign with. Pure.

use sha1::Sha1;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// What a request says, as far as it is signed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Said<'a> {
    /// Parameters of the query, decoded, in any order.
    pub query: &'a [(String, String)],
    /// Text parts of a form or a multipart body.
    pub texts: &'a [(String, String)],
    /// A JSON body, to the byte.
    pub body: &'a [u8],
}

/// Generation A: upper-case hex SHA-1 of key, parameters by name, body, secret. Text parts count as
/// parameters; one that stands in the query too counts once.
pub(super) fn sha1(access_key: &str, said: &Said<'_>, secret: &str) -> String {
    let mut params: Vec<(&str, &str)> = said
        .query
        .iter()
        .filter(|(name, _)| name != "accessKey" && name != "sign")
        .chain(said.texts)
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    params.sort_unstable();
    params.dedup_by(|a, b| a.0 == b.0);
    let mut digest = Sha1::new();
    digest.update(access_key);
    for (name, value) in params {
        digest.update(name);
        digest.update(value);
    }
    digest.update(said.body);
    digest.update(secret);
    hex::encode_upper(digest.finalize())
}

/// Generation B: lower-case hex SHA-256 of token, parameters of the query by name, body, timestamp,
/// secret.
pub(super) fn sha256(token: &str, said: &Said<'_>, timestamp: &str, secret: &str) -> String {
    let mut params: Vec<_> = said.query.iter().collect();
    params.sort_unstable();
    let mut digest = Sha256::new();
    digest.update(token);
    for (name, value) in params {
        digest.update(name);
        digest.update(value);
    }
    digest.update(said.body);
    digest.update(timestamp);
    digest.update(secret);
    hex::encode(digest.finalize())
}

/// What a request for a token shows: lower-case hex SHA-256 of key, timestamp, secret.
pub(super) fn encryption(access_key: &str, timestamp: &str, secret: &str) -> String {
    let mut digest = Sha256::new();
    for part in [access_key, timestamp, secret] {
        digest.update(part);
    }
    hex::encode(digest.finalize())
}

/// Whether two texts are the same; takes the same time wherever they differ.
pub(super) fn same(own: &str, given: &str) -> bool {
    own.as_bytes().ct_eq(given.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    // The digests were computed with Python's hashlib over the concatenations that the comments show.
    #[test]
    fn each_generation_signs_as_its_sdk_does() {
        let query = pairs(&[
            ("requestTimestamp", "1700000000000"),
            ("orgId", "o1"),
            ("accessKey", "AK"),
            ("sign", "X"),
        ]);
        let said = Said {
            query: &query,
            ..Said::default()
        };
        // AK orgIdo1 requestTimestamp1700000000000 SK
        assert_eq!(
            sha1("AK", &said, "SK"),
            "B8EB686D5B9AA9F7D2E142657E6A16FBC1ADE627"
        );
        let texts = pairs(&[("data", "[{}]"), ("orgId", "o1")]);
        let multipart = Said {
            query: &query,
            texts: &texts,
            body: b"",
        };
        // AK data[{}] orgIdo1 requestTimestamp1700000000000 SK
        assert_eq!(
            sha1("AK", &multipart, "SK"),
            "0AFF603F082F2B98935524A3BA63555CF2967F49"
        );
        let query = pairs(&[("orgId", "o1"), ("action", "get")]);
        let said = Said {
            query: &query,
            texts: &[],
            body: b"{\"a\":1}",
        };
        // T actionget orgIdo1 {"a":1} 1700000000000 SK
        assert_eq!(
            sha256("T", &said, "1700000000000", "SK"),
            "284a824251ee5273a646a9c0a6186db65839b3dd068c9d7d271df692858da0b0"
        );
        // AK 1700000000000 SK
        assert_eq!(
            encryption("AK", "1700000000000", "SK"),
            "973d44ed6097c285b6217e11a52e187079adc8fc0edf6225df186089ec3ee319"
        );
    }
}
