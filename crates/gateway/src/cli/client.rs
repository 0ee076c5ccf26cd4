//! The HTTP client of every command: base address, token, and what a refusal means.

use std::{
    fmt, fs, io,
    net::{IpAddr, ToSocketAddrs},
    path::Path,
    time::Duration,
};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, de::DeserializeOwned};
use ureq::{
    Agent, Body, RequestBuilder,
    http::{Response, StatusCode, Uri, header},
};

use super::{Connection, Failure};

/// Where the data directory is unless given.
const DATA_DIR: &str = "./backtide-data";
/// What first start writes into the data directory.
const TOKEN_FILE: &str = "admin.token";

/// A refusal as the gateway words it (RFC 9457 problem details), every member optional so that an
/// answer from something between us and the gateway still reads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Problem {
    #[serde(default)]
    pub status: u16,
    #[serde(default)]
    pub title: String,
    /// The stable word for the kind of refusal, such as `in-use`.
    #[serde(default)]
    pub code: String,
    #[serde(default)]
    pub detail: String,
    /// What it is about, such as `document 3, line 17` or `limit`.
    #[serde(default, rename = "where")]
    pub place: Option<String>,
    #[serde(default)]
    pub fix: Option<String>,
    /// Every fault found in a body of many documents.
    #[serde(default)]
    pub errors: Vec<Fault>,
}

/// What is wrong with one document of a body.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Fault {
    /// Which document, from 1.
    pub document: usize,
    /// The line in the whole body, from 1.
    pub line: Option<usize>,
    /// What it declares, such as `device R80711`, where that was readable.
    pub object: Option<String>,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            // Not said twice where the detail begins with it.
            Some(place) if self.detail.starts_with(place.as_str()) => {}
            Some(place) => write!(f, "{place}: ")?,
            None if self.detail.is_empty() => write!(f, "{} {}", self.status, self.title)?,
            None => {}
        }
        f.write_str(&self.detail)?;
        match &self.fix {
            Some(fix) => write!(f, "\nfix: {fix}"),
            None => Ok(()),
        }
    }
}

/// One page of a list resource.
#[derive(Debug, Deserialize)]
struct Page<T> {
    items: Vec<T>,
    next: Option<String>,
}

/// Speaks to one gateway.
pub struct Client {
    agent: Agent,
    base: String,
    token: Option<SecretString>,
}

impl Client {
    /// Settles address and token; nothing is sent yet.
    ///
    /// # Errors
    /// [`Failure::Usage`] where the address is none, or no token is to be found.
    pub fn new(connection: &Connection) -> Result<Self, Failure> {
        let base = connection.url.trim_end_matches('/').to_owned();
        let uri: Uri = base.parse().map_err(|error| {
            Failure::Usage(format!(
                "{base:?} is no address ({error}); try http://127.0.0.1:8080"
            ))
        })?;
        if uri.scheme_str() != Some("http") || uri.host().is_none() {
            return Err(Failure::Usage(format!(
                "{base:?} is no address of the gateway; it starts with http:// and a host"
            )));
        }
        let token = match &connection.token {
            Some(token) => Some(token.clone()),
            None if is_loopback(&uri) => token_of(
                connection
                    .data_dir
                    .as_deref()
                    .unwrap_or(Path::new(DATA_DIR)),
            )?,
            None => None,
        };
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            // Exports may stream for hours: only the connecting has a limit.
            .timeout_connect(Some(Duration::from_secs(10)))
            .user_agent(concat!("backtide/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Ok(Self { agent, base, token })
    }

    /// `GET` of a JSON document. `path` starts with a slash and is encoded where needed
    /// ([`segment`]).
    ///
    /// # Errors
    /// [`Failure`]: nobody answered, or the gateway refused.
    pub fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<T, Failure> {
        self.json(self.send_get(path, query, "application/json")?)
    }

    /// `GET` of a body of any length, to be read as it arrives.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn get_stream(
        &self,
        path: &str,
        query: &[(&str, &str)],
        accept: &str,
    ) -> Result<impl io::Read + use<>, Failure> {
        Ok(self
            .send_get(path, query, accept)?
            .into_body()
            .into_reader())
    }

    /// Calls `each` with every item of a list resource, page after page.
    ///
    /// # Errors
    /// As [`Client::get`], and those of `each`.
    pub fn each<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        mut each: impl FnMut(T) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut cursor: Option<String> = None;
        loop {
            let mut query = query.to_vec();
            query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let page: Page<T> = self.get(path, &query)?;
            page.items.into_iter().try_for_each(&mut each)?;
            match page.next {
                Some(next) => cursor = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// `POST` of a body of the given type, answered by a JSON document.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        content_type: &str,
        body: &[u8],
    ) -> Result<T, Failure> {
        self.json(self.send_post(path, query, content_type, body)?)
    }

    /// `POST` of a file of any length, answered by a JSON document.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn post_file<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        content_type: &str,
        file: fs::File,
    ) -> Result<T, Failure> {
        let request = self
            .agent
            .post(format!("{}{path}", self.base))
            .query_pairs(query.iter().copied())
            .header(header::CONTENT_TYPE, content_type);
        self.json(self.accepted(self.signed(request).send(file))?)
    }

    /// `POST` of a body of the given type, answered by a body of any length.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn post_stream(
        &self,
        path: &str,
        content_type: &str,
        body: &[u8],
    ) -> Result<impl io::Read + use<>, Failure> {
        let answer = self.send_post(path, &[], content_type, body)?;
        Ok(answer.into_body().into_reader())
    }

    fn send_post(
        &self,
        path: &str,
        query: &[(&str, &str)],
        content_type: &str,
        body: &[u8],
    ) -> Result<Response<Body>, Failure> {
        let request = self
            .agent
            .post(format!("{}{path}", self.base))
            .query_pairs(query.iter().copied())
            .header(header::CONTENT_TYPE, content_type);
        self.accepted(self.signed(request).send(body))
    }

    /// `PUT` of a body of the given type, answered by a JSON document.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        content_type: &str,
        body: &[u8],
    ) -> Result<T, Failure> {
        let request = self
            .agent
            .put(format!("{}{path}", self.base))
            .header(header::CONTENT_TYPE, content_type);
        self.json(self.accepted(self.signed(request).send(body))?)
    }

    /// `DELETE`; the answer has no body worth reading.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn delete(&self, path: &str, query: &[(&str, &str)]) -> Result<(), Failure> {
        let request = self
            .agent
            .delete(format!("{}{path}", self.base))
            .query_pairs(query.iter().copied());
        self.accepted(self.signed(request).call()).map(drop)
    }

    fn send_get(
        &self,
        path: &str,
        query: &[(&str, &str)],
        accept: &str,
    ) -> Result<Response<Body>, Failure> {
        let request = self
            .agent
            .get(format!("{}{path}", self.base))
            .query_pairs(query.iter().copied())
            .header(header::ACCEPT, accept);
        self.accepted(self.signed(request).call())
    }

    /// With who asks, where that is known.
    fn signed<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        match self.bearer() {
            Some(bearer) => request.header(header::AUTHORIZATION, bearer),
            None => request,
        }
    }

    fn bearer(&self) -> Option<String> {
        self.token
            .as_ref()
            .map(|token| format!("Bearer {}", token.expose_secret()))
    }

    /// The one place where an answer becomes a success or a failure.
    fn accepted(
        &self,
        answer: Result<Response<Body>, ureq::Error>,
    ) -> Result<Response<Body>, Failure> {
        let response = answer.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let text = response.into_body().read_to_string().unwrap_or_default();
        let mut problem: Problem = serde_json::from_str(&text).unwrap_or_default();
        problem.status = status.as_u16();
        if problem.title.is_empty() {
            problem.title = status.canonical_reason().unwrap_or_default().to_owned();
        }
        if status == StatusCode::UNAUTHORIZED && self.token.is_none() {
            problem.fix = Some(format!(
                "give --token or BACKTIDE_TOKEN, or the --data-dir that holds {TOKEN_FILE}"
            ));
        }
        Err(Failure::Refused(Box::new(problem)))
    }

    fn json<T: DeserializeOwned>(&self, response: Response<Body>) -> Result<T, Failure> {
        let text = response
            .into_body()
            .into_with_config()
            .limit(1 << 30)
            .read_to_string()
            .map_err(|error| self.unreachable(&error))?;
        serde_json::from_str(&text).map_err(|error| {
            Failure::Failed(format!(
                "{} answered something else than expected: {error}",
                self.base
            ))
        })
    }

    fn unreachable(&self, error: &ureq::Error) -> Failure {
        Failure::Unreachable {
            url: self.base.clone(),
            reason: error.to_string(),
        }
    }
}

/// A name as one segment of a path: everything but unreserved ASCII is percent-encoded.
pub fn segment(name: &str) -> String {
    use fmt::Write as _;
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte));
            }
            byte => write!(encoded, "%{byte:02X}").expect("a string takes every write"),
        }
    }
    // A path of dots alone would be folded away.
    if encoded.bytes().all(|byte| byte == b'.') {
        encoded.replace('.', "%2E")
    } else {
        encoded
    }
}

fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    match host.parse::<IpAddr>() {
        Ok(ip) => ip.is_loopback(),
        Err(_) => {
            host == "localhost"
                && (host, 0)
                    .to_socket_addrs()
                    .is_ok_and(|mut ips| ips.all(|a| a.ip().is_loopback()))
        }
    }
}

/// The token that first start wrote; `None` where there is none.
fn token_of(data_dir: &Path) -> Result<Option<SecretString>, Failure> {
    let path = data_dir.join(TOKEN_FILE);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim().to_owned().into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::io(
            format!("cannot read {}", path.display()),
            error,
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(url: &str, data_dir: &Path) -> Connection {
        Connection {
            url: url.into(),
            token: None,
            data_dir: Some(data_dir.into()),
        }
    }

    #[test]
    fn the_token_of_the_data_directory_is_for_loopback_addresses_only() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(TOKEN_FILE), "t0ken\n").unwrap();
        for url in [
            "http://127.0.0.1:8080",
            "http://[::1]:8080/",
            "http://localhost:1",
        ] {
            let client = Client::new(&connection(url, dir.path())).unwrap();
            assert_eq!(client.bearer().as_deref(), Some("Bearer t0ken"), "{url}");
        }
        let client = Client::new(&connection("http://192.0.2.1:8080", dir.path())).unwrap();
        assert_eq!(client.bearer(), None);
    }

    #[test]
    fn what_is_no_address_is_a_usage_error() {
        let dir = tempfile::tempdir().unwrap();
        for url in ["127.0.0.1:8080", "ftp://host", "https://host", ""] {
            assert!(
                matches!(
                    Client::new(&connection(url, dir.path())),
                    Err(Failure::Usage(_))
                ),
                "{url}"
            );
        }
    }

    #[test]
    fn a_problem_reads_as_place_detail_and_fix() {
        let problem = Problem {
            detail: "unknown field".into(),
            place: Some("document 2".into()),
            fix: Some("drop it".into()),
            ..Problem::default()
        };
        assert_eq!(
            problem.to_string(),
            "document 2: unknown field\nfix: drop it"
        );
        let bare = Problem {
            status: 502,
            title: "Bad Gateway".into(),
            ..Problem::default()
        };
        assert_eq!(bare.to_string(), "502 Bad Gateway");
    }

    #[test]
    fn names_of_any_script_become_one_path_segment() {
        assert_eq!(segment("scada-history_1.0"), "scada-history_1.0");
        assert_eq!(segment("风/%"), "%E9%A3%8E%2F%25");
        assert_eq!(segment(".."), "%2E%2E");
    }
}
