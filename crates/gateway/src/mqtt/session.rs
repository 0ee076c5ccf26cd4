//! One client's session: its subscriptions, the replies that wait for it, and the QoS 2 packet ids
//! between PUBREC and PUBREL. A state machine without I/O or clock; every collection is bounded.
//!
//! A reply goes `waiting` → `unacked` (QoS 1, sent) → gone; at QoS 0 it is gone when it is sent.
//! After a reconnect the unacknowledged ones are sent again first, in their order, with DUP
//! (MQTT-4.4.0-1, MQTT-4.6.0-1).

use std::{collections::VecDeque, num::NonZeroU16};

use bytes::Bytes;
use bytestring::ByteString;

use super::{Dropped, Qos, Reply, filter};
use crate::limits;

/// What a session is made of, as it is kept over a restart.
#[derive(Debug, Default)]
pub(crate) struct Session {
    pub(super) subscriptions: Vec<Subscription>,
    pub(super) waiting: VecDeque<Waiting>,
    pub(super) unacked: VecDeque<Sent>,
    /// QoS 2 packet ids acknowledged by PUBREC and not yet released, oldest first.
    pub(super) received: VecDeque<NonZeroU16>,
    /// Where in `unacked` a resend after a reconnect has come to.
    resend_at: usize,
    last_id: u16,
    reply_bytes: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub(crate) filter: String,
    /// At most [`Qos::AtLeastOnce`].
    pub(crate) qos: Qos,
    /// The subscription identifier of 5.0.
    pub(crate) tag: Option<u32>,
}

/// A reply that has not been sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) reply: Reply,
    pub(crate) qos: Qos,
    pub(crate) tags: Vec<u32>,
    pub(crate) since_ms: i64,
}

/// A QoS 1 reply that has been sent and not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) id: NonZeroU16,
    pub(crate) waiting: Waiting,
}

/// What became of a reply that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offered {
    Waits,
    NoSubscription,
    Dropped(Dropped),
}

/// The next packet for the client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outgoing {
    pub(crate) reply: Reply,
    /// Set for QoS 1.
    pub(crate) packet_id: Option<NonZeroU16>,
    pub(crate) dup: bool,
    pub(crate) tags: Vec<u32>,
}

/// The client has too many subscriptions.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

impl Session {
    /// The session is over. The subscriptions stay: they tell a late reply that it had somewhere
    /// to go.
    pub(crate) fn end(&mut self) {
        *self = Self {
            subscriptions: std::mem::take(&mut self.subscriptions),
            ..Self::default()
        };
    }

    /// A session as it was kept: what was unacknowledged is sent again.
    pub(super) fn restored(
        subscriptions: Vec<Subscription>,
        waiting: VecDeque<Waiting>,
        unacked: VecDeque<Sent>,
        received: VecDeque<NonZeroU16>,
    ) -> Self {
        let bytes = |waiting: &Waiting| waiting.bytes();
        let reply_bytes = waiting.iter().map(bytes).sum::<usize>()
            + unacked
                .iter()
                .map(|sent| bytes(&sent.waiting))
                .sum::<usize>();
        let last_id = unacked.back().map_or(0, |sent| sent.id.get());
        Self {
            subscriptions,
            waiting,
            unacked,
            received,
            resend_at: 0,
            last_id,
            reply_bytes,
        }
    }

    /// Bytes of the replies that it holds.
    pub(crate) fn reply_bytes(&self) -> usize {
        self.reply_bytes
    }

    /// Adds a granted filter, or replaces its options (MQTT-3.8.4-3).
    pub(crate) fn subscribe(
        &mut self,
        filter: &str,
        qos: Qos,
        tag: Option<u32>,
        limits: &limits::Mqtt,
    ) -> Result<Qos, TooMany> {
        let qos = qos.min(Qos::AtLeastOnce);
        if let Some(known) = self
            .subscriptions
            .iter_mut()
            .find(|known| known.filter == filter)
        {
            known.qos = qos;
            known.tag = tag;
            return Ok(qos);
        }
        if self.subscriptions.len() >= limits.subscriptions_max {
            return Err(TooMany);
        }
        self.subscriptions.push(Subscription {
            filter: filter.to_owned(),
            qos,
            tag,
        });
        Ok(qos)
    }

    /// Says whether the filter was there.
    pub(crate) fn unsubscribe(&mut self, filter: &str) -> bool {
        let before = self.subscriptions.len();
        self.subscriptions.retain(|known| known.filter != filter);
        self.subscriptions.len() < before
    }

    pub(crate) fn has_subscriptions(&self) -> bool {
        !self.subscriptions.is_empty()
    }

    pub(crate) fn is_subscribed(&self, topic: &str) -> bool {
        self.subscriptions
            .iter()
            .any(|known| filter::matches(&known.filter, topic))
    }

    /// Queues a reply if a subscription matches: once, with the highest QoS of all that match.
    pub(crate) fn offer(
        &mut self,
        reply: &Reply,
        now_ms: i64,
        is_connected: bool,
        limits: &limits::Mqtt,
    ) -> Offered {
        let matching = || {
            self.subscriptions
                .iter()
                .filter(|known| filter::matches(&known.filter, &reply.topic))
        };
        let Some(qos) = matching().map(|known| known.qos).max() else {
            return Offered::NoSubscription;
        };
        if !is_connected && qos == Qos::AtMostOnce {
            return Offered::Dropped(Dropped::Away);
        }
        let tags = matching().filter_map(|known| known.tag).collect();
        let waiting = Waiting {
            reply: reply.clone(),
            qos,
            tags,
            since_ms: now_ms,
        };
        if self.waiting.len() + self.unacked.len() >= limits.waiting_replies_max
            || self.reply_bytes + waiting.bytes() > limits.waiting_reply_bytes_max
        {
            return Offered::Dropped(Dropped::Full);
        }
        self.reply_bytes += waiting.bytes();
        self.waiting.push_back(waiting);
        Offered::Waits
    }

    /// The next reply to send: resends first, then new ones while the client's Receive Maximum
    /// allows (MQTT-3.3.4-9; QoS 0 is not held back by it).
    pub(crate) fn next(&mut self, receive_max: u16) -> Option<Outgoing> {
        if let Some(sent) = self.unacked.get(self.resend_at) {
            if self.resend_at >= usize::from(receive_max) {
                return None;
            }
            self.resend_at += 1;
            let Waiting { reply, tags, .. } = sent.waiting.clone();
            return Some(Outgoing {
                reply,
                packet_id: Some(sent.id),
                dup: true,
                tags,
            });
        }
        if self.waiting.front()?.qos == Qos::AtMostOnce {
            let waiting = self.waiting.pop_front()?;
            self.reply_bytes -= waiting.bytes();
            let Waiting { reply, tags, .. } = waiting;
            return Some(Outgoing {
                reply,
                packet_id: None,
                dup: false,
                tags,
            });
        }
        if self.unacked.len() >= usize::from(receive_max) {
            return None;
        }
        let id = self.free_id()?;
        let waiting = self.waiting.pop_front()?;
        let outgoing = Outgoing {
            reply: waiting.reply.clone(),
            packet_id: Some(id),
            dup: false,
            tags: waiting.tags.clone(),
        };
        self.unacked.push_back(Sent { id, waiting });
        self.resend_at = self.unacked.len();
        Some(outgoing)
    }

    /// PUBACK: says whether the id was in flight.
    pub(crate) fn acked(&mut self, id: NonZeroU16) -> bool {
        let Some(at) = self.unacked.iter().position(|sent| sent.id == id) else {
            return false;
        };
        if let Some(sent) = self.unacked.remove(at) {
            self.reply_bytes -= sent.waiting.bytes();
        }
        if at < self.resend_at {
            self.resend_at -= 1;
        }
        true
    }

    pub(crate) fn is_unacked(&self, id: NonZeroU16) -> bool {
        self.unacked.iter().any(|sent| sent.id == id)
    }

    /// A new connection takes the session up: everything unacknowledged is due again.
    pub(crate) fn resume(&mut self) {
        self.resend_at = 0;
    }

    /// The client is away: what only a connected client gets is dropped.
    pub(crate) fn leave(&mut self) -> Vec<Reply> {
        self.take_out(|waiting| waiting.qos == Qos::AtMostOnce)
    }

    /// Drops the replies that have waited since before this moment.
    pub(crate) fn expire(&mut self, before_ms: i64) -> Vec<Reply> {
        let mut old = self.take_out(|waiting| waiting.since_ms < before_ms);
        while self
            .unacked
            .front()
            .is_some_and(|sent| sent.waiting.since_ms < before_ms)
        {
            if let Some(sent) = self.unacked.pop_front() {
                self.reply_bytes -= sent.waiting.bytes();
                self.resend_at = self.resend_at.saturating_sub(1);
                old.push(sent.waiting.reply);
            }
        }
        old
    }

    fn take_out(&mut self, is_out: impl Fn(&Waiting) -> bool) -> Vec<Reply> {
        let (out, stay) = self
            .waiting
            .drain(..)
            .partition::<Vec<_>, _>(|waiting| is_out(waiting));
        self.waiting = stay.into();
        self.reply_bytes -= out.iter().map(Waiting::bytes).sum::<usize>();
        out.into_iter().map(|waiting| waiting.reply).collect()
    }

    /// Whether this QoS 2 message has been acknowledged by PUBREC already and awaits its PUBREL.
    pub(crate) fn is_received(&self, id: NonZeroU16) -> bool {
        self.received.contains(&id)
    }

    /// Remembers a QoS 2 message from its PUBREC to its PUBREL. Over the bound the oldest is
    /// forgotten: if it comes again it is stored again, which changes nothing.
    pub(crate) fn received(&mut self, id: NonZeroU16, limits: &limits::Mqtt) {
        if self.is_received(id) {
            return;
        }
        if self.received.len() >= limits.received_ids_max {
            self.received.pop_front();
        }
        self.received.push_back(id);
    }

    /// PUBREL: the id is free again.
    pub(crate) fn released(&mut self, id: NonZeroU16) {
        self.received.retain(|known| *known != id);
    }

    /// The next packet id that is not in flight.
    fn free_id(&mut self) -> Option<NonZeroU16> {
        for _ in 0..=self.unacked.len() + 1 {
            self.last_id = self.last_id.wrapping_add(1);
            if let Some(id) = NonZeroU16::new(self.last_id)
                && !self.is_unacked(id)
            {
                return Some(id);
            }
        }
        None
    }
}

impl Waiting {
    /// What it costs: its bytes, and a flat rate for what holds them.
    fn bytes(&self) -> usize {
        self.reply.topic.len() + self.reply.payload.len() + 64
    }
}

/// A reply whose bytes are its own, not a slice of a buffer.
pub(super) fn own_reply(topic: &str, payload: &[u8]) -> Reply {
    Reply {
        topic: ByteString::from(topic),
        payload: Bytes::copy_from_slice(payload),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOPIC: &str = "sys/PK/integration/event/post_reply";

    fn limits() -> limits::Mqtt {
        limits::Mqtt {
            waiting_replies_max: 4,
            received_ids_max: 3,
            ..limits::Mqtt::default()
        }
    }

    fn subscribed(qos: Qos) -> Session {
        let mut session = Session::default();
        session.subscribe(TOPIC, qos, None, &limits()).unwrap();
        session
    }

    fn reply(text: &str) -> Reply {
        own_reply(TOPIC, text.as_bytes())
    }

    fn id(id: u16) -> NonZeroU16 {
        NonZeroU16::new(id).unwrap()
    }

    fn text(outgoing: Option<Outgoing>) -> (String, u16, bool) {
        let outgoing = outgoing.expect("something is due");
        let text = String::from_utf8(outgoing.reply.payload.to_vec()).unwrap();
        (
            text,
            outgoing.packet_id.map_or(0, NonZeroU16::get),
            outgoing.dup,
        )
    }

    #[test]
    fn a_reply_without_subscription_is_nobodys() {
        let mut session = Session::default();
        assert_eq!(
            session.offer(&reply("a"), 0, true, &limits()),
            Offered::NoSubscription
        );
        assert_eq!(session.next(10), None);
    }

    #[test]
    fn unacknowledged_replies_are_sent_again_in_order_before_new_ones() {
        let mut session = subscribed(Qos::ExactlyOnce);
        for name in ["a", "b", "c"] {
            assert_eq!(
                session.offer(&reply(name), 0, true, &limits()),
                Offered::Waits
            );
        }
        assert_eq!(text(session.next(2)), ("a".to_owned(), 1, false));
        assert_eq!(text(session.next(2)), ("b".to_owned(), 2, false));
        assert_eq!(session.next(2), None, "the receive maximum is reached");
        session.resume();
        assert_eq!(text(session.next(2)), ("a".to_owned(), 1, true));
        assert!(session.acked(id(1)));
        assert!(!session.acked(id(1)));
        assert_eq!(text(session.next(2)), ("b".to_owned(), 2, true));
        assert_eq!(text(session.next(2)), ("c".to_owned(), 3, false));
        assert!(session.acked(id(2)) && session.acked(id(3)));
        assert_eq!(session.reply_bytes(), 0);
    }

    #[test]
    fn waiting_replies_are_bounded_by_count_and_age() {
        let mut session = subscribed(Qos::AtLeastOnce);
        for at in 0..4 {
            assert_eq!(
                session.offer(&reply("x"), at, false, &limits()),
                Offered::Waits
            );
        }
        let full = session.offer(&reply("x"), 4, false, &limits());
        assert_eq!(full, Offered::Dropped(Dropped::Full));
        assert!(session.next(10).is_some(), "one of them is unacknowledged");
        assert_eq!(session.expire(2).len(), 2);
        assert_eq!(session.waiting.len(), 2);
    }

    #[test]
    fn qos_0_replies_do_not_wait_for_a_client_that_is_away() {
        let mut session = subscribed(Qos::AtMostOnce);
        let offered = session.offer(&reply("x"), 0, false, &limits());
        assert_eq!(offered, Offered::Dropped(Dropped::Away));
        assert_eq!(
            session.offer(&reply("x"), 0, true, &limits()),
            Offered::Waits
        );
        assert_eq!(session.leave().len(), 1);
        assert_eq!(session.next(10), None);
    }

    #[test]
    fn a_reply_that_several_filters_match_is_sent_once_with_all_their_tags() {
        let mut session = Session::default();
        session
            .subscribe(TOPIC, Qos::AtMostOnce, Some(1), &limits())
            .unwrap();
        session
            .subscribe("sys/PK/#", Qos::AtLeastOnce, Some(2), &limits())
            .unwrap();
        session.offer(&reply("x"), 0, true, &limits());
        let outgoing = session.next(10).unwrap();
        assert_eq!(
            (outgoing.tags, outgoing.packet_id),
            (vec![1, 2], Some(id(1)))
        );
        assert_eq!(session.next(10), None);
    }

    #[test]
    fn received_ids_last_until_their_release_and_are_bounded() {
        let mut session = Session::default();
        for n in 1..=4 {
            session.received(id(n), &limits());
            session.received(id(n), &limits());
        }
        assert!(!session.is_received(id(1)), "the oldest is forgotten");
        assert!(session.is_received(id(4)));
        session.released(id(4));
        assert!(!session.is_received(id(4)));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Offer,
        Next,
        Ack(u16),
        Resume,
        Expire(i64),
        Leave,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Offer),
            4 => Just(Step::Next),
            2 => (1_u16..8).prop_map(Step::Ack),
            1 => Just(Step::Resume),
            1 => (0_i64..20).prop_map(Step::Expire),
            1 => Just(Step::Leave),
        ]
    }

    proptest! {
        /// Whatever happens, the bounds hold, the bytes are right, ids in flight are distinct, and
        /// replies leave for the first time in the order in which they were offered.
        #[test]
        fn a_session_keeps_its_bounds_and_its_order(
            steps in prop::collection::vec(step(), 0..200), receive_max in 1_u16..4,
        ) {
            let mut session = subscribed(Qos::AtLeastOnce);
            let mut last_sent = -1_i64;
            for (at, step) in (0_i64..).zip(steps) {
                match step {
                    Step::Offer => {
                        session.offer(&reply(&at.to_string()), at, true, &limits());
                    }
                    Step::Next => {
                        if let Some(outgoing) = session.next(receive_max) && !outgoing.dup {
                            let text = String::from_utf8(outgoing.reply.payload.to_vec()).unwrap();
                            let number: i64 = text.parse().unwrap();
                            prop_assert!(number > last_sent);
                            last_sent = number;
                        }
                    }
                    Step::Ack(n) => { session.acked(id(n)); }
                    Step::Resume => session.resume(),
                    Step::Expire(before) => { session.expire(before); }
                    Step::Leave => { session.leave(); }
                }
                prop_assert!(session.waiting.len() + session.unacked.len() <= 4);
                prop_assert!(session.unacked.len() <= usize::from(receive_max));
                prop_assert!(session.resend_at <= session.unacked.len());
                let mut ids: Vec<_> = session.unacked.iter().map(|sent| sent.id).collect();
                ids.sort_unstable();
                ids.dedup();
                prop_assert_eq!(ids.len(), session.unacked.len());
                let bytes: usize = session.waiting.iter().map(Waiting::bytes).sum::<usize>()
                    + session.unacked.iter().map(|sent| sent.waiting.bytes()).sum::<usize>();
                prop_assert_eq!(bytes, session.reply_bytes());
            }
        }
    }
}
