//! Channel logins (`mqtt-channel.md` §1.3–1.5, `decisions.md` §2).
//!
//! A login proves knowledge of a channel's secret by a plain digest over the client id, the product
//! key and a timestamp that is opaque text and never expires.

use md5::{Digest, Md5};
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::ProductKey;

/// The pseudo device key of a channel.
const CHANNEL_DEVICE: &str = "%channel%";

/// How a login was signed. None of them is a real HMAC, whatever its spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignMethod {
    Sha256,
    Sha1,
    Md5,
}

impl SignMethod {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha1 => "sha1",
            Self::Md5 => "md5",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        match text.strip_prefix("hmac").unwrap_or(&text) {
            "sha256" => Some(Self::Sha256),
            "sha1" => Some(Self::Sha1),
            "md5" => Some(Self::Md5),
            _ => None,
        }
    }

    fn hex_digest(self, text: &str) -> String {
        match self {
            Self::Sha256 => hex::encode(Sha256::digest(text)),
            Self::Sha1 => hex::encode(Sha1::digest(text)),
            Self::Md5 => hex::encode(Md5::digest(text)),
        }
    }
}

/// The codec that a client announces for every payload in both directions
/// (`mqtt-channel.md` §1.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
}

/// A well-formed login, not yet verified.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub product: ProductKey,
    pub method: SignMethod,
    pub compression: Compression,
    cid: String,
    timestamp: String,
    digest: String,
}

/// Why CONNECT's three fields are no channel login.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    #[error("client id has no |securemode=4,signmethod=…,timestamp=…| block; paste the channel's")]
    NoBlock,
    #[error("user name is not %channel%&<product key>; paste the channel's")]
    UserName,
    #[error("user name or password is absent")]
    Absent,
    #[error("securemode {0:?} is not 4, a channel's login")]
    SecureMode(String),
    #[error("signmethod {0:?} is none of sha256, sha1, md5")]
    SignMethod(String),
    #[error("timestamp is absent from the client id")]
    Timestamp,
    #[error("compression {0:?} is not supported; use DEFAULT or GZIP")]
    Compression(String),
}

impl Credentials {
    /// Reads the fields of a CONNECT by the rule of `mqtt-channel.md` §1.5.
    pub fn parse(
        client_id: &str,
        user_name: Option<&str>,
        password: Option<&[u8]>,
    ) -> Result<Self, LoginError> {
        let (Some(user_name), Some(password)) = (user_name, password) else {
            return Err(LoginError::Absent);
        };
        let (cid, block) = client_id.split_once('|').ok_or(LoginError::NoBlock)?;
        let block = block.strip_suffix('|').unwrap_or(block);
        let field = |name: &str| {
            block
                .split(',')
                .filter_map(|pair| pair.split_once('='))
                .find(|(key, _)| key.trim() == name)
                .map(|(_, value)| value.trim())
        };
        let (device, product) = user_name.rsplit_once('&').ok_or(LoginError::UserName)?;
        if device != CHANNEL_DEVICE {
            return Err(LoginError::UserName);
        }
        let product = ProductKey::new(product).map_err(|_| LoginError::UserName)?;
        let mode = field("securemode").ok_or(LoginError::NoBlock)?;
        if mode != "4" {
            return Err(LoginError::SecureMode(mode.to_owned()));
        }
        // Absent: the vendor's helper falls back to sha1.
        let method = field("signmethod").unwrap_or("sha1");
        let method =
            SignMethod::parse(method).ok_or_else(|| LoginError::SignMethod(method.to_owned()))?;
        Ok(Self {
            product,
            method,
            compression: compression(cid)?,
            cid: cid.to_owned(),
            timestamp: field("timestamp").ok_or(LoginError::Timestamp)?.to_owned(),
            // A password that is no text verifies against nothing.
            digest: std::str::from_utf8(password)
                .unwrap_or_default()
                .to_ascii_lowercase(),
        })
    }

    /// Whether the login was signed with `secret`. Takes the same time wherever they differ.
    pub fn verify(&self, secret: &str) -> bool {
        let content = content(&self.cid, &self.product, &self.timestamp, secret);
        self.method
            .hex_digest(&content)
            .as_bytes()
            .ct_eq(self.digest.as_bytes())
            .into()
    }
}

/// `cid{ip=…,version=…,compress=NAME}` announces a codec.
fn compression(cid: &str) -> Result<Compression, LoginError> {
    let Some((_, block)) = cid.split_once('{') else {
        return Ok(Compression::None);
    };
    let block = block.trim_end_matches('}');
    let announced = block
        .split(',')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| key.trim() == "compress")
        .map(|(_, value)| value.trim().to_ascii_uppercase());
    match announced.as_deref() {
        None | Some("DEFAULT" | "NONE" | "") => Ok(Compression::None),
        Some("GZIP") => Ok(Compression::Gzip),
        Some(other) => Err(LoginError::Compression(other.to_owned())),
    }
}

fn content(cid: &str, product: &ProductKey, timestamp: &str, secret: &str) -> String {
    format!("clientId{cid}deviceKey{CHANNEL_DEVICE}productKey{product}timestamp{timestamp}{secret}")
}

/// What the third party pastes into its MQTT client, the broker's address apart.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectionStrings {
    pub client_id: String,
    pub user_name: String,
    pub password: String,
}

impl ConnectionStrings {
    /// The strings of a channel. `timestamp_ms` is fixed when the channel is made; another one
    /// makes another client id for the same channel.
    pub fn new(product: &ProductKey, secret: &str, timestamp_ms: i64) -> Self {
        let timestamp = timestamp_ms.to_string();
        let cid = product.as_str();
        Self {
            client_id: format!("{cid}|securemode=4,signmethod=sha256,timestamp={timestamp}|"),
            user_name: format!("{CHANNEL_DEVICE}&{product}"),
            password: SignMethod::Sha256.hex_digest(&content(cid, product, &timestamp, secret)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: Option<&str> = Some("%channel%&PKdemo");

    fn login(client_id: &str, password: &str) -> Result<Credentials, LoginError> {
        Credentials::parse(client_id, USER, Some(password.as_bytes()))
    }

    /// The vectors of mqtt-channel.md §1.3.
    const VECTORS: [(&str, &str, &str); 4] = [
        (
            "PKdemo",
            "sha256",
            "5e8e2fae2b25e8d8df27942c988138aef39ae2b3e2ccd064719b4aea75bd96c5",
        ),
        ("PKdemo", "sha1", "2671C9D4019CEA4A491F982A1AD3A0E53486E307"),
        ("PKdemo", "md5", "76821c4bf93482b8e0adec8d2a84ad48"),
        (
            "PKdemo{ip=10.0.0.7,version=enos-mqtt-2.2.16,compress=DEFAULT}",
            "sha256",
            "6866f2243d33e571092f102528e2e05abe4666c5184db05cb66af988db774459",
        ),
    ];

    #[test]
    fn the_vectors_verify_in_either_hex_case_and_with_or_without_hmac() {
        for (cid, method, password) in VECTORS {
            for spelling in [
                method.to_owned(),
                format!("hmac{method}"),
                method.to_uppercase(),
            ] {
                let id =
                    format!("{cid}|securemode=4,signmethod={spelling},timestamp=1700000000000|");
                for password in [password.to_lowercase(), password.to_uppercase()] {
                    let credentials = login(&id, &password).unwrap();
                    assert!(credentials.verify("S3cret"), "{id}");
                    assert!(!credentials.verify("S3cre"), "{id}");
                }
            }
        }
    }

    #[test]
    fn own_connection_strings_equal_the_vector_and_verify() {
        let product = ProductKey::new("PKdemo").unwrap();
        let strings = ConnectionStrings::new(&product, "S3cret", 1_700_000_000_000);
        assert_eq!(strings.password, VECTORS[0].2);
        let credentials = Credentials::parse(
            &strings.client_id,
            Some(&strings.user_name),
            Some(strings.password.as_bytes()),
        )
        .unwrap();
        assert!(credentials.verify("S3cret"));
    }

    #[test]
    fn timestamps_are_opaque_and_blanks_are_trimmed() {
        let content =
            "clientIdPKdemodeviceKey%channel%productKeyPKdemotimestamp1795456582936.8845S";
        let password = SignMethod::Sha256.hex_digest(content);
        let id = "PKdemo|securemode=4, signmethod=hmacsha256 , timestamp=1795456582936.8845|";
        assert!(login(id, &password).unwrap().verify("S"));
    }

    /// Two clients of one channel need two client ids: a further field tells them apart.
    #[test]
    fn a_field_of_no_meaning_makes_another_client_id_for_the_same_login() {
        let id = "PKdemo|securemode=4,signmethod=sha256,timestamp=1700000000000,n=2|";
        assert!(login(id, VECTORS[0].2).unwrap().verify("S3cret"));
    }

    #[test]
    fn an_absent_signmethod_means_sha1() {
        let id = "PKdemo|securemode=4,timestamp=1700000000000|";
        assert!(login(id, VECTORS[1].2).unwrap().verify("S3cret"));
    }

    #[test]
    fn what_is_no_channel_login_is_refused_with_its_reason() {
        let id = "PKdemo|securemode=4,signmethod=sha256,timestamp=1|";
        assert_eq!(login("PKdemo", "x").err(), Some(LoginError::NoBlock));
        assert_eq!(
            login("PKdemo|securemode=2,signmethod=sha1,timestamp=1|", "x").err(),
            Some(LoginError::SecureMode("2".into()))
        );
        assert_eq!(
            login("PKdemo|securemode=4,signmethod=sha512,timestamp=1|", "x").err(),
            Some(LoginError::SignMethod("sha512".into()))
        );
        assert_eq!(
            login("PKdemo|securemode=4,signmethod=sha256|", "x").err(),
            Some(LoginError::Timestamp)
        );
        assert_eq!(
            login("PKdemo{compress=LZ4}|securemode=4,timestamp=1|", "x").err(),
            Some(LoginError::Compression("LZ4".into()))
        );
        assert_eq!(
            login("PKdemo{a=b,compress=gzip}|securemode=4,timestamp=1|", "x")
                .unwrap()
                .compression,
            Compression::Gzip
        );
        assert_eq!(
            Credentials::parse(id, Some("dev&PKdemo"), Some(b"x")).err(),
            Some(LoginError::UserName)
        );
        assert_eq!(
            Credentials::parse(id, None, None).err(),
            Some(LoginError::Absent)
        );
        assert!(
            !Credentials::parse(id, USER, Some(&[0xff]))
                .unwrap()
                .verify("S3cret")
        );
    }
}
