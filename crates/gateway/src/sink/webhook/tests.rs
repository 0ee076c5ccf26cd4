//! A webhook against a server of the test's own.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex as SyncMutex;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
};

use super::*;

/// What it answers to each request, then 200; a body with `bad` in it is always refused with 422.
#[derive(Default)]
struct Server {
    answers: SyncMutex<VecDeque<&'static str>>,
    bodies: SyncMutex<Vec<String>>,
    heads: SyncMutex<Vec<String>>,
}

impl Server {
    async fn start(answers: &[&'static str]) -> (Arc<Self>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/in?x=1", listener.local_addr().unwrap());
        let server = Arc::new(Self::default());
        server.answers.lock().extend(answers);
        let serving = Arc::clone(&server);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let server = Arc::clone(&serving);
                tokio::spawn(async move { server.serve(socket).await });
            }
        });
        (server, url)
    }

    async fn serve(&self, socket: tokio::net::TcpStream) {
        let mut stream = BufReader::new(socket);
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            let length = head.to_lowercase();
            let length = length.split("content-length: ").nth(1).unwrap();
            let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.unwrap();
            let body = String::from_utf8(body).unwrap();
            let planned = self.answers.lock().pop_front();
            let answer = match planned {
                Some(answer) => answer,
                None if body.contains("bad") => "422 Unprocessable",
                None => {
                    self.bodies.lock().push(body);
                    self.heads.lock().push(head);
                    "200 OK"
                }
            };
            if answer == "close" {
                return;
            }
            let text = format!("HTTP/1.1 {answer}\r\ncontent-length: 4\r\n\r\nsaid");
            stream.get_mut().write_all(text.as_bytes()).await.unwrap();
        }
    }
}

fn file(url: &str) -> WebhookFile {
    serde_json::from_value(serde_json::json!({
        "url": url, "recordsMax": 4, "timeoutS": 5,
        "headers": { "authorization": "Bearer ${secret}" },
    }))
    .unwrap()
}

fn stretch(values: &[&str]) -> Stretch {
    let record = |value: &&str| Record {
        address: "".into(),
        key: Bytes::from_static(b"k"),
        value: Bytes::copy_from_slice(value.as_bytes()),
        headers: vec![("backtide-sequence".into(), Bytes::from_static(b"1"))],
    };
    Stretch {
        records: values.iter().map(record).collect(),
        reached: backtide_store::Sequence(1),
    }
}

#[tokio::test]
async fn poison_is_found_among_others_which_are_delivered_in_order() {
    let (server, url) = Server::start(&[]).await;
    let webhook = Webhook::new(&file(&url), Some(&"s3".to_owned().into())).unwrap();
    let stretch = stretch(&["1", "2", "\"bad\"", "4", "5", "6"]);
    let poison = webhook.deliver(&stretch).await.unwrap();
    assert_eq!(poison.len(), 1);
    assert_eq!(poison[0].index, 2);
    assert!(poison[0].reason.contains("422"), "{}", poison[0].reason);
    assert_eq!(server.bodies.lock().concat(), "1\n2\n4\n5\n6\n");
    let heads = server.heads.lock();
    assert!(heads[0].starts_with("POST /in?x=1 "), "{}", heads[0]);
    assert!(
        heads[0].contains("authorization: Bearer s3"),
        "{}",
        heads[0]
    );
}

#[tokio::test]
async fn what_speaks_of_the_destination_is_no_poison() {
    for answer in [
        "500 Oh",
        "503 Busy",
        "429 Slow",
        "401 Who",
        "404 Where",
        "302 There",
        "408 Late",
    ] {
        let (_, url) = Server::start(&[answer]).await;
        let webhook = Webhook::new(&file(&url), Some(&"s".to_owned().into())).unwrap();
        let outcome = webhook.deliver(&stretch(&["1", "2"])).await;
        let Err(SinkError::Unavailable(why)) = outcome else {
            panic!("{answer}: {outcome:?}");
        };
        assert!(why.contains(answer.split(' ').next().unwrap()), "{why}");
    }
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_is_opened_again() {
    let (server, url) = Server::start(&["200 OK", "close"]).await;
    let webhook = Webhook::new(&file(&url), Some(&"s".to_owned().into())).unwrap();
    webhook.deliver(&stretch(&["1"])).await.unwrap();
    webhook.deliver(&stretch(&["2"])).await.unwrap();
    assert_eq!(server.bodies.lock().concat(), "2\n");
}

#[test]
fn what_is_wrong_with_a_file_is_named() {
    for (url, headers, reason) in [
        ("ftp://a", "{}", "url"),
        ("http://u:p@a/", "{}", "password"),
        ("nothing", "{}", "url"),
        ("http://a", r#"{"host":"b"}"#, "host"),
        ("http://a", r#"{"a b":"b"}"#, "no name"),
        ("http://a", r#"{"a":"b\n"}"#, "characters"),
    ] {
        let headers: serde_json::Value = serde_json::from_str(headers).unwrap();
        let file = serde_json::json!({ "url": url, "headers": headers });
        let error = check(&serde_json::from_value(file).unwrap()).unwrap_err();
        assert!(error.contains(reason), "{url}: {error}");
    }
    let without = Webhook::new(&file("http://a"), None);
    assert!(without.err().unwrap().contains("rule secret"));
}

#[tokio::test]
async fn records_stand_with_their_keys_and_headers_where_that_is_asked_for() {
    let (server, url) = Server::start(&[]).await;
    let file = WebhookFile {
        format: BatchFormat::Records,
        ..file(&url)
    };
    let webhook = Webhook::new(&file, Some(&"s".to_owned().into())).unwrap();
    webhook.deliver(&stretch(&["{\"a\":1}"])).await.unwrap();
    assert_eq!(
        server.bodies.lock().concat(),
        "{\"key\":\"k\",\"headers\":{\"backtide-sequence\":\"1\"},\"value\":{\"a\":1}}\n"
    );
}
