//! A delivery against a broker that does what the test says.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::{
    delivery::{End, Job, Sight, Tally, deliver},
    link::{LinkError, Login},
};
use crate::files::{
    mapping::{Mapping, Points},
    source::Source,
};

/// What the broker does with a request.
#[derive(Clone)]
enum Then {
    Answer(Value),
    /// Stores it and closes the connection without a word.
    CloseUnanswered,
    /// Takes it and says nothing.
    Silence,
}

/// A broker for one test: connections one after the other or at a time, and what came over them.
struct Broker {
    port: u16,
    seen: Arc<Mutex<Vec<Vec<i64>>>>,
    messages: watch::Receiver<usize>,
}

impl Broker {
    /// `connack` is the return code; `script` decides about requests in the order of arrival and
    /// everything behind its end is answered with 200.
    async fn start(connack: u8, script: Vec<Then>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen: Arc<Mutex<Vec<Vec<i64>>>> = Arc::default();
        let script = Arc::new(Mutex::new(VecDeque::from(script)));
        let (count, messages) = watch::channel(0);
        let count = Arc::new(count);
        tokio::spawn({
            let seen = seen.clone();
            async move {
                loop {
                    let (socket, _) = listener.accept().await.unwrap();
                    let (seen, script, count) = (seen.clone(), script.clone(), count.clone());
                    tokio::spawn(async move {
                        // A closed socket ends the connection, as it should.
                        drop(serve(socket, connack, &seen, &script, &count).await);
                    });
                }
            }
        });
        Self {
            port,
            seen,
            messages,
        }
    }

    fn login(&self) -> Login {
        Login {
            host: "127.0.0.1".into(),
            port: self.port,
            client_id: "P|securemode=4|".into(),
            username: "%channel%&P".into(),
            password: "x".into(),
            topic: "/sys/P/integration/measurepoint/post".into(),
        }
    }

    /// The times of each message's rows, in the order of arrival.
    fn seen(&self) -> Vec<Vec<i64>> {
        self.seen.lock().clone()
    }
}

async fn serve(
    mut socket: TcpStream,
    connack: u8,
    seen: &Mutex<Vec<Vec<i64>>>,
    script: &Mutex<VecDeque<Then>>,
    count: &watch::Sender<usize>,
) -> std::io::Result<()> {
    loop {
        let (head, body) = packet(&mut socket).await?;
        match head >> 4 {
            1 => socket.write_all(&[0x20, 2, 0, connack]).await?,
            8 => socket.write_all(&[0x90, 3, body[0], body[1], 1]).await?,
            12 => socket.write_all(&[0xd0, 0]).await?,
            3 => {
                let topic_bytes = usize::from(u16::from_be_bytes([body[0], body[1]]));
                let (topic, rest) = body[2..].split_at(topic_bytes);
                let request: Value = serde_json::from_slice(&rest[2..]).unwrap();
                let rows = request["params"].as_array().unwrap();
                seen.lock().push(
                    rows.iter()
                        .map(|row| row["time"].as_i64().unwrap())
                        .collect(),
                );
                let ok = Then::Answer(json!({"code": 200, "data": {}}));
                let then = script.lock().pop_front().unwrap_or(ok);
                count.send_modify(|count| *count += 1);
                match then {
                    Then::CloseUnanswered => return Ok(()),
                    Then::Silence => {}
                    Then::Answer(mut reply) => {
                        reply["id"] = request["id"].clone();
                        socket.write_all(&[0x40, 2, rest[0], rest[1]]).await?;
                        publish(&mut socket, topic, reply.to_string().as_bytes()).await?;
                    }
                }
            }
            _ => return Ok(()),
        }
    }
}

async fn packet(socket: &mut TcpStream) -> std::io::Result<(u8, Vec<u8>)> {
    let head = socket.read_u8().await?;
    let mut bytes = 0;
    for place in 0..4 {
        let digit = socket.read_u8().await?;
        bytes |= usize::from(digit & 0x7f) << (7 * place);
        if digit & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; bytes];
    socket.read_exact(&mut body).await?;
    Ok((head, body))
}

async fn publish(socket: &mut TcpStream, topic: &[u8], payload: &[u8]) -> std::io::Result<()> {
    let topic = [topic, b"_reply"].concat();
    let bytes = 2 + topic.len() + payload.len();
    let mut packet = vec![0x30];
    packet.push(u8::try_from(bytes % 128 + 128).unwrap());
    packet.push(u8::try_from(bytes / 128).unwrap());
    packet.extend(u16::try_from(topic.len()).unwrap().to_be_bytes());
    packet.extend([&topic, payload].concat());
    socket.write_all(&packet).await
}

/// Rows with times 0, 1, 2, …; row 4 has no value. Two rows in a message.
fn job(logins: Vec<Login>, start_row: u64, window: usize) -> Job {
    let csv = "deviceKey,time,P\nR1,0,1\nR2,1,1\nR1,2,1\nR2,3,1\nR1,4,\nR2,5,1\nR1,6,1\nR2,7,1\n";
    let mapping = Mapping::default();
    let source = Source::of_csv(csv.as_bytes(), &mapping, &Points::Unknown).unwrap();
    Job {
        source,
        start_row,
        logins,
        rows_max: 2,
        window,
        run: "run".into(),
    }
}

async fn run(job: Job) -> (Tally, End) {
    deliver(job, std::future::pending(), |_| {}).await
}

#[tokio::test]
async fn every_row_arrives_once_and_in_order() {
    let broker = Broker::start(0, vec![]).await;
    let (tally, end) = run(job(vec![broker.login()], 0, 8)).await;
    assert!(
        matches!(&end, End::Complete(readout) if readout.empty == 1),
        "{end:?}"
    );
    assert_eq!(
        (tally.rows, tally.values, tally.messages, tally.rejected),
        (7, 7, 4, 0)
    );
    assert_eq!(tally.answered_prefix, 8);
    assert_eq!(broker.seen(), [vec![0, 1], vec![2, 3], vec![5, 6], vec![7]]);
}

#[tokio::test]
async fn what_is_unanswered_when_the_link_is_lost_is_sent_again_in_order() {
    let ok = Then::Answer(json!({"code": 200, "data": {}}));
    let broker = Broker::start(0, vec![ok, Then::CloseUnanswered]).await;
    let mut lost = 0;
    let job = job(vec![broker.login()], 0, 8);
    let (tally, end) = deliver(job, std::future::pending(), |sight| {
        lost += usize::from(matches!(sight, Sight::Lost(_)));
    })
    .await;
    assert!(matches!(end, End::Complete(_)), "{end:?}");
    assert_eq!((tally.rows, lost), (7, 1));
    // The second connection begins with the first message that had no answer.
    let seen = broker.seen();
    let again = seen.iter().rposition(|rows| *rows == [2, 3]).unwrap();
    assert_eq!(seen[..2], [vec![0, 1], vec![2, 3]]);
    assert_eq!(seen[again..], [vec![2, 3], vec![5, 6], vec![7]]);
}

#[tokio::test]
async fn a_resumed_run_begins_behind_the_answered_rows() {
    let broker = Broker::start(0, vec![]).await;
    let (tally, _) = run(job(vec![broker.login()], 3, 8)).await;
    assert_eq!(broker.seen(), [vec![3, 5], vec![6, 7]]);
    assert_eq!((tally.rows, tally.answered_prefix), (4, 8));
}

#[tokio::test]
async fn refused_rows_are_counted_and_named_by_their_place_in_the_file() {
    let strict = json!({"code": 1257, "message": "device not found", "data": {"stored": 0,
        "rejected": [{"index": 1, "code": 1257, "message": "device R2 not found"}]}});
    let bare = json!({"code": 1220, "message": "payload format error", "data": {}});
    let lenient = json!({"code": 1204, "message": "", "data": {"stored": 1,
        "rejected": [{"index": 0, "code": 1204, "message": "point P of R2"}]}});
    let script = [strict, bare, lenient].map(Then::Answer).to_vec();
    let broker = Broker::start(0, script).await;
    let (tally, end) = run(job(vec![broker.login()], 0, 1)).await;
    assert!(matches!(end, End::Complete(_)));
    assert_eq!((tally.rows, tally.rejected), (7, 5));
    assert_eq!(
        tally.rejections,
        [
            "row 2: device R2 not found",
            "rows 3 to 4: 1220 payload format error",
            "row 6: point P of R2"
        ]
    );
}

#[tokio::test]
async fn a_throttled_message_is_sent_again() {
    let throttled = Then::Answer(json!({"code": 1274, "message": "slower", "data": {}}));
    let broker = Broker::start(0, vec![throttled]).await;
    let (tally, _) = run(job(vec![broker.login()], 0, 1)).await;
    assert_eq!((tally.rows, tally.rejected), (7, 0));
    assert_eq!(broker.seen()[..2], [vec![0, 1], vec![0, 1]]);
}

#[tokio::test]
async fn a_refused_login_ends_the_run_at_once() {
    let broker = Broker::start(4, vec![]).await;
    let (tally, end) = run(job(vec![broker.login()], 0, 8)).await;
    assert!(matches!(end, End::GaveUp(LinkError::Login(_))), "{end:?}");
    assert_eq!(tally.answered_prefix, 0);
}

#[tokio::test]
async fn an_interrupted_run_keeps_what_is_answered_and_no_more() {
    let ok = Then::Answer(json!({"code": 200, "data": {}}));
    let broker = Broker::start(0, vec![ok, Then::Silence]).await;
    let mut messages = broker.messages.clone();
    let stop = async move {
        messages.wait_for(|count| *count >= 2).await.unwrap();
    };
    let (tally, end) = deliver(job(vec![broker.login()], 0, 1), stop, |_| {}).await;
    assert!(matches!(end, End::Interrupted), "{end:?}");
    assert_eq!((tally.rows, tally.answered_prefix), (2, 2));
}

#[tokio::test]
async fn over_several_connections_a_device_keeps_its_order() {
    let broker = Broker::start(0, vec![]).await;
    let logins = (0..3).map(|_| broker.login()).collect();
    let (tally, end) = run(job(logins, 0, 8)).await;
    assert!(matches!(end, End::Complete(_)));
    assert_eq!((tally.rows, tally.answered_prefix), (7, 8));
    // R1 has the even times, R2 the odd ones.
    for odd in [0, 1] {
        let of_device: Vec<_> = broker
            .seen()
            .concat()
            .into_iter()
            .filter(|time| time % 2 == odd)
            .collect();
        assert!(of_device.is_sorted(), "{of_device:?}");
    }
    let mut all: Vec<_> = broker.seen().concat();
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3, 5, 6, 7]);
}
