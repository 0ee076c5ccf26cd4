//! What is said at the subscription door: protobuf (proto2) packages, the same in every framing.
//!
//! The schema counts every field as required, so zeros are always written. A field that a client
//! leaves out reads as zero.

use bytes::Bytes;
use prost::Message as _;

use crate::subscription::{self, DEFAULT_GROUP};

/// Any package.
#[derive(Clone, PartialEq, prost::Message)]
struct TransferPkg {
    #[prost(int32, required, tag = "1")]
    cmd_id: i32,
    #[prost(bytes = "bytes", required, tag = "2")]
    data: Bytes,
    #[prost(int32, required, tag = "3")]
    seq_id: i32,
    #[prost(bool, required, tag = "4")]
    zip: bool,
    #[prost(uint32, required, tag = "5")]
    ver: u32,
}

mod command {
    pub(super) const IDLE_REQ: i32 = 0;
    pub(super) const IDLE_RSP: i32 = 1;
    pub(super) const AUTH_REQ: i32 = 2;
    pub(super) const AUTH_RSP: i32 = 3;
    pub(super) const PULL_REQ: i32 = 4;
    pub(super) const PULL_RSP: i32 = 5;
    pub(super) const SUB_REQ: i32 = 6;
    pub(super) const SUB_RSP: i32 = 7;
    /// Never answered: one SDK would take the answer for that of its next pull.
    pub(super) const COMMIT_REQ: i32 = 8;
    pub(super) const CLOSE_REQ: i32 = 10;
}

/// A login.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct AuthReq {
    #[prost(string, required, tag = "1")]
    pub(super) access_key: String,
    #[prost(string, required, tag = "2")]
    pub(super) sub_id: String,
    #[prost(string, required, tag = "3")]
    pub(super) sign: String,
    #[prost(int32, required, tag = "4")]
    pub(super) sub_type: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AuthRsp {
    /// 0: let in.
    #[prost(int32, required, tag = "1")]
    ack: i32,
    #[prost(string, required, tag = "2")]
    msg: String,
    #[prost(string, required, tag = "3")]
    channel_id: String,
}

/// Asks to be a member of a group.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SubReq {
    #[prost(int32, required, tag = "1")]
    pub(super) category: i32,
    #[prost(string, required, tag = "2")]
    pub(super) client_id: String,
    #[prost(string, required, tag = "3")]
    pub(super) sub_id: String,
    #[prost(string, required, tag = "4")]
    pub(super) access_key: String,
    #[prost(string, required, tag = "5")]
    consumer_group: String,
}

impl SubReq {
    /// The group it names, or the one that stands for none.
    pub(super) fn group(&self) -> &str {
        match self.consumer_group.as_str() {
            "" => DEFAULT_GROUP,
            group => group,
        }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct SubRsp {
    #[prost(int32, required, tag = "1")]
    ack: i32,
    #[prost(string, required, tag = "2")]
    channel_id: String,
    #[prost(string, required, tag = "3")]
    msg: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PullReq {
    #[prost(int64, required, tag = "1")]
    id: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PullRsp {
    #[prost(int64, required, tag = "1")]
    id: i64,
    #[prost(int32, required, tag = "2")]
    code: i32,
    #[prost(message, required, tag = "3")]
    msg_dto: MessageDto,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MessageDto {
    #[prost(message, repeated, tag = "1")]
    messages: Vec<Message>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Message {
    #[prost(string, required, tag = "1")]
    topic: String,
    #[prost(int32, required, tag = "2")]
    partition: i32,
    #[prost(int64, required, tag = "3")]
    offset: i64,
    #[prost(int64, required, tag = "4")]
    timestamp: i64,
    // Strings in the schema, the same on the wire; they are text already.
    #[prost(bytes = "bytes", optional, tag = "5")]
    key: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "6")]
    value: Option<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CommitDto {
    #[prost(message, repeated, tag = "1")]
    commits: Vec<Commit>,
}

/// Where a partition is to begin next time.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Commit {
    #[prost(string, required, tag = "1")]
    pub(super) topic: String,
    #[prost(int32, required, tag = "2")]
    pub(super) partition: i32,
    #[prost(int64, required, tag = "3")]
    pub(super) offset: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct IdleRsp {
    #[prost(int64, required, tag = "1")]
    svr_time: i64,
}

/// What a client says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Request {
    Auth(AuthReq),
    Sub(SubReq),
    Pull { id: i64 },
    Commit(Vec<Commit>),
    Idle,
    Close,
}

/// What the door says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Response<'a> {
    Auth {
        verdict: Result<&'a str, &'a str>,
    },
    Sub {
        verdict: Result<&'a str, &'a str>,
    },
    Pull {
        id: i64,
        topic: &'a str,
        messages: Vec<subscription::Message>,
    },
    Idle {
        now_ms: i64,
    },
}

/// Why a package makes no sense. The connection ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("the package is not protobuf: {0}")]
    Malformed(String),
    #[error("the package is compressed, which no client is asked for")]
    Zipped,
    #[error("command {0} is not known")]
    Unknown(i32),
}

impl From<prost::DecodeError> for FrameError {
    fn from(error: prost::DecodeError) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// Reads a package: what is said, and the number to answer under.
pub(super) fn read(package: Bytes) -> Result<(Request, i32), FrameError> {
    let package = TransferPkg::decode(package)?;
    if package.zip {
        return Err(FrameError::Zipped);
    }
    let data = package.data;
    let request = match package.cmd_id {
        command::IDLE_REQ => Request::Idle,
        command::AUTH_REQ => Request::Auth(AuthReq::decode(data)?),
        command::SUB_REQ => Request::Sub(SubReq::decode(data)?),
        command::PULL_REQ => Request::Pull {
            id: PullReq::decode(data)?.id,
        },
        command::COMMIT_REQ => Request::Commit(CommitDto::decode(data)?.commits),
        command::CLOSE_REQ => Request::Close,
        other => return Err(FrameError::Unknown(other)),
    };
    Ok((request, package.seq_id))
}

/// Writes a package, uncompressed: only one SDK could inflate it.
pub(super) fn write(response: Response<'_>, seq_id: i32) -> Bytes {
    let (cmd_id, data) = match response {
        Response::Auth { verdict } => {
            let (ack, channel_id, msg) = verdict_fields(verdict);
            let body = AuthRsp {
                ack,
                msg,
                channel_id,
            };
            (command::AUTH_RSP, body.encode_to_vec())
        }
        Response::Sub { verdict } => {
            let (ack, channel_id, msg) = verdict_fields(verdict);
            let body = SubRsp {
                ack,
                channel_id,
                msg,
            };
            (command::SUB_RSP, body.encode_to_vec())
        }
        Response::Pull {
            id,
            topic,
            messages,
        } => {
            let messages = messages.into_iter().map(|message| wire(topic, message));
            let msg_dto = MessageDto {
                messages: messages.collect(),
            };
            let body = PullRsp {
                id,
                code: 0,
                msg_dto,
            };
            (command::PULL_RSP, body.encode_to_vec())
        }
        Response::Idle { now_ms } => {
            let body = IdleRsp { svr_time: now_ms };
            (command::IDLE_RSP, body.encode_to_vec())
        }
    };
    let package = TransferPkg {
        cmd_id,
        data: data.into(),
        seq_id,
        zip: false,
        ver: 0,
    };
    package.encode_to_vec().into()
}

/// `ack`, the session's name, and why not.
fn verdict_fields(verdict: Result<&str, &str>) -> (i32, String, String) {
    match verdict {
        Ok(session) => (0, session.to_owned(), String::new()),
        Err(reason) => (1, String::new(), reason.to_owned()),
    }
}

fn wire(topic: &str, message: subscription::Message) -> Message {
    Message {
        topic: topic.to_owned(),
        partition: message.partition.into(),
        offset: i64::try_from(message.offset).expect("there are fewer than 2^63 messages"),
        timestamp: message.time_ms,
        key: Some(message.key),
        value: Some(message.value),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// A package as a client writes it.
    pub(in crate::subscribe) fn package(request: &Request) -> Bytes {
        let (cmd_id, data) = match request {
            Request::Auth(auth) => (command::AUTH_REQ, auth.encode_to_vec()),
            Request::Sub(sub) => (command::SUB_REQ, sub.encode_to_vec()),
            Request::Pull { id } => (command::PULL_REQ, PullReq { id: *id }.encode_to_vec()),
            Request::Commit(commits) => {
                let commits = CommitDto {
                    commits: commits.clone(),
                };
                (command::COMMIT_REQ, commits.encode_to_vec())
            }
            Request::Idle => (command::IDLE_REQ, Vec::new()),
            Request::Close => (command::CLOSE_REQ, Vec::new()),
        };
        let package = TransferPkg {
            cmd_id,
            data: data.into(),
            seq_id: 7,
            ..TransferPkg::default()
        };
        package.encode_to_vec().into()
    }

    /// A request to be a member of a group.
    pub(in crate::subscribe) fn sub(sub_id: &str, category: i32, group: &str) -> SubReq {
        SubReq {
            category,
            client_id: "host".into(),
            sub_id: sub_id.into(),
            access_key: String::new(),
            consumer_group: group.into(),
        }
    }

    /// What a client makes of an answer.
    #[derive(Debug, PartialEq)]
    pub(in crate::subscribe) enum Heard {
        Auth(i32, String),
        Sub(i32, String),
        /// The id, and of each message the partition, offset and value.
        Pull(i64, Vec<(i32, i64, String)>),
        Idle(i64),
    }

    pub(in crate::subscribe) fn heard(package: Bytes) -> Heard {
        let package = TransferPkg::decode(package).unwrap();
        assert!(!package.zip);
        let data = package.data;
        match package.cmd_id {
            command::AUTH_RSP => {
                let body = AuthRsp::decode(data).unwrap();
                Heard::Auth(body.ack, body.msg)
            }
            command::SUB_RSP => {
                let body = SubRsp::decode(data).unwrap();
                Heard::Sub(body.ack, body.msg)
            }
            command::PULL_RSP => {
                let body = PullRsp::decode(data).unwrap();
                let messages = body.msg_dto.messages.into_iter().map(|message| {
                    let value = String::from_utf8(message.value.unwrap().to_vec()).unwrap();
                    (message.partition, message.offset, value)
                });
                Heard::Pull(body.id, messages.collect())
            }
            command::IDLE_RSP => Heard::Idle(IdleRsp::decode(data).unwrap().svr_time),
            other => panic!("command {other}"),
        }
    }

    #[test]
    fn zeros_are_always_written() {
        let bytes = write(
            Response::Pull {
                id: 0,
                topic: "t",
                messages: vec![subscription::Message {
                    partition: 0,
                    offset: 0,
                    time_ms: 0,
                    key: Bytes::new(),
                    value: Bytes::new(),
                }],
            },
            0,
        );
        let inner = b"\x08\0\x10\0\x1a\x0f\x0a\x0d\x0a\x01t\x10\0\x18\0\x20\0\x2a\0\x32\0";
        let mut whole = b"\x08\x05\x12".to_vec();
        whole.push(u8::try_from(inner.len()).unwrap());
        whole.extend_from_slice(inner);
        whole.extend_from_slice(b"\x18\0\x20\0\x28\0");
        assert_eq!(bytes, whole);
    }

    #[test]
    fn what_a_client_leaves_out_is_zero_and_no_group_is_the_default_one() {
        let (request, seq_id) = read(Bytes::from_static(b"\x08\x06\x12\x05\x1a\x03sub")).unwrap();
        let Request::Sub(sub) = request else {
            panic!("{request:?}")
        };
        assert_eq!((seq_id, sub.category, sub.sub_id.as_str()), (0, 0, "sub"));
        assert_eq!(sub.group(), "DefaultConsumerGroup");
        assert_eq!(read(Bytes::new()), Ok((Request::Idle, 0)));
    }

    #[test]
    fn what_no_client_may_say_is_refused() {
        assert_eq!(
            read(Bytes::from_static(b"\x08\x09")),
            Err(FrameError::Unknown(9))
        );
        let zipped = Bytes::from_static(b"\x08\x04\x20\x01");
        assert_eq!(read(zipped), Err(FrameError::Zipped));
        assert!(matches!(
            read(Bytes::from_static(b"\x12\xff\xff\xff\xff\x0f")),
            Err(FrameError::Malformed(_))
        ));
    }

    proptest! {
        #[test]
        fn a_request_reads_back(id: i64, partition: i32, offset: i64, text in "\\PC{0,40}") {
            for request in [
                Request::Pull { id },
                Request::Auth(AuthReq {
                    access_key: text.clone(),
                    sub_id: text.clone(),
                    sign: text.clone(),
                    sub_type: partition,
                }),
                Request::Sub(sub(&text, partition, &text)),
                Request::Commit(vec![Commit { topic: text.clone(), partition, offset }]),
                Request::Idle,
                Request::Close,
            ] {
                prop_assert_eq!(read(package(&request)), Ok((request, 7)));
            }
        }

        #[test]
        fn any_bytes_are_a_request_or_an_error(bytes in vec(any::<u8>(), 0..200)) {
            drop(read(bytes.into()));
        }
    }
}
