//! Where a file goes: the channel's login, and what its product knows.

use std::collections::HashMap;

use backtide_model::{ConnectionStrings, Items, ProductKey};
use serde::Deserialize;

use super::link::Login;
use crate::{
    cli::{
        Failure,
        client::{Client, segment},
    },
    files::{mapping::Points, value::Form},
};

/// A channel as the registry describes it.
pub struct Target {
    strings: Strings,
    /// The product's name; empty where there is no registry to ask.
    pub product: String,
    pub is_strict: bool,
    /// What is sent there.
    items: Items,
    pub points: Points,
}

/// The strings of `channel show`, from the registry or from flags.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Strings {
    pub broker_url: String,
    pub client_id: String,
    pub username: String,
    pub password: String,
    /// Signs further client ids; only the registry tells.
    pub secret: Option<String>,
    #[serde(default)]
    product: String,
    #[serde(default)]
    mode: String,
}

#[derive(Deserialize)]
struct Product {
    model: Option<String>,
}

#[derive(Deserialize)]
struct Model {
    #[serde(default)]
    measurepoints: HashMap<String, serde_json::Value>,
    #[serde(default)]
    attributes: HashMap<String, serde_json::Value>,
    #[serde(default)]
    passthrough: bool,
}

impl Target {
    /// Asks the registry.
    ///
    /// # Errors
    /// There is no such channel, or nobody answers.
    pub fn ask(client: &Client, channel: &str, items: Items) -> Result<Self, Failure> {
        let strings: Strings = client.get(
            &format!("/api/v1/channels/{}/connection", segment(channel)),
            &[],
        )?;
        let product = strings.product.clone();
        let Product { model } =
            client.get(&format!("/api/v1/products/{}", segment(&product)), &[])?;
        let points = match model {
            None => Points::Unknown,
            Some(model) => {
                let known: Model =
                    client.get(&format!("/api/v1/models/{}", segment(&model)), &[])?;
                let declared = match items {
                    Items::Points | Items::Events => &known.measurepoints,
                    Items::Attributes => &known.attributes,
                };
                let forms = declared
                    .iter()
                    .map(|(n, p)| (n.clone(), Form::of(p)))
                    .collect();
                let declared = Points::Declared {
                    model,
                    forms,
                    passthrough: known.passthrough,
                };
                Points::of(items, declared)
            }
        };
        Ok(Self {
            is_strict: strings.mode != "lenient",
            strings,
            product,
            items,
            points,
        })
    }

    /// A broker of which only the strings are known.
    pub fn given(
        broker_url: String,
        client_id: String,
        username: String,
        password: String,
        items: Items,
    ) -> Self {
        let strings = Strings {
            broker_url,
            client_id,
            username,
            password,
            secret: None,
            product: String::new(),
            mode: String::new(),
        };
        Self {
            strings,
            product: String::new(),
            is_strict: true,
            items,
            points: Points::of(items, Points::Unknown),
        }
    }

    /// What an integrator pastes into an MQTT client.
    pub fn strings(&self) -> &Strings {
        &self.strings
    }

    /// Logins for so many connections. A client id names one connection, and who comes with the same
    /// takes it over: so where the secret is known each is signed anew, with a timestamp of its own
    /// (`mqtt-channel.md` §1.3), and a client that has the channel's strings is left alone.
    ///
    /// # Errors
    /// The strings make no sense, or there is no secret to sign a second login with.
    pub fn logins(&self, connections: usize, now_ms: i64) -> Result<Vec<Login>, Failure> {
        let Strings {
            broker_url,
            client_id,
            username,
            password,
            ..
        } = &self.strings;
        let (host, port) = address(broker_url).map_err(Failure::Usage)?;
        let key = username.rsplit_once('&').map_or("", |(_, key)| key);
        let topic = format!("/sys/{key}/integration/{}", self.items.path());
        let given = Login {
            host,
            port,
            client_id: client_id.clone(),
            username: username.clone(),
            password: password.clone(),
            topic,
        };
        let Some(secret) = self.strings.secret.as_deref() else {
            if connections > 1 {
                return Err(Failure::Usage(
                    "--connections needs the channel's secret: leave out --broker-url".into(),
                ));
            }
            return Ok(vec![given]);
        };
        let product = ProductKey::new(key).map_err(|e| Failure::Usage(e.to_string()))?;
        let logins = (0..connections).zip(now_ms..).map(|(_, timestamp_ms)| {
            let strings = ConnectionStrings::new(&product, secret, timestamp_ms);
            Login {
                client_id: strings.client_id,
                username: strings.user_name,
                password: strings.password,
                ..given.clone()
            }
        });
        Ok(logins.collect())
    }
}

/// Host and port of a broker URL.
fn address(url: &str) -> Result<(String, u16), String> {
    let rest = match url.split_once("://") {
        None => url,
        Some(("tcp" | "mqtt", rest)) => rest,
        Some((scheme, _)) => {
            return Err(format!(
                "broker URL {url:?}: send speaks plain MQTT (tcp://host:port), not {scheme}://"
            ));
        }
    };
    let rest = rest.trim_end_matches('/');
    let wrong = || format!("broker URL {url:?} is not tcp://host:port");
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() => (host, port.parse().map_err(|_| wrong())?),
        Some(_) => return Err(wrong()),
        None => (rest, 1883),
    };
    if host.is_empty() {
        return Err(wrong());
    }
    Ok((host.trim_matches(['[', ']']).to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(secret: Option<&str>) -> Target {
        let mut target = Target::given(
            "tcp://127.0.0.1:11883".into(),
            "PKdemo|securemode=4,signmethod=sha256,timestamp=1700000000000|".into(),
            "%channel%&PKdemo".into(),
            "5e8e2fae2b25e8d8df27942c988138aef39ae2b3e2ccd064719b4aea75bd96c5".into(),
            Items::Points,
        );
        target.strings.secret = secret.map(str::to_owned);
        target
    }

    #[test]
    fn each_connection_is_signed_anew_where_the_secret_is_known() {
        let logins = target(Some("S3cret")).logins(3, 1_700_000_000_001).unwrap();
        assert_eq!(logins[0].topic, "/sys/PKdemo/integration/measurepoint/post");
        let ids: Vec<_> = logins
            .iter()
            .map(|login| login.client_id.as_str())
            .collect();
        assert!(ids[0].contains("timestamp=1700000000001") && ids[2].contains("1700000000003"));
        assert_ne!(logins[1].password, logins[0].password);
        let given = target(None).logins(1, 1_700_000_000_001).unwrap();
        assert!(given[0].client_id.contains("timestamp=1700000000000"));
        assert!(target(None).logins(2, 0).is_err());
        assert_eq!(target(None).logins(1, 0).unwrap().len(), 1);
    }

    #[test]
    fn broker_urls_are_read_as_they_are_printed() {
        assert_eq!(
            address("tcp://127.0.0.1:11883"),
            Ok(("127.0.0.1".into(), 11883))
        );
        assert_eq!(address("tcp://[::1]:11883/"), Ok(("::1".into(), 11883)));
        assert_eq!(
            address("gateway.example"),
            Ok(("gateway.example".into(), 1883))
        );
        assert!(address("ssl://host:18883").unwrap_err().contains("ssl"));
        assert!(address("tcp://:1").is_err() && address("tcp://host:x").is_err());
    }
}
