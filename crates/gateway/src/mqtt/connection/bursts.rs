//! Bursts on their way: handed to the house in order, acknowledged in order, whole.

use super::*;

impl<H: House> Connection<H> {
    /// Hands a burst to the house. Its future is polled for the first time in the order of bursts:
    /// `FuturesOrdered` polls what is new in the order in which it was pushed.
    pub(super) fn hand_over(
        &mut self,
        publishes: Vec<Publish>,
        acks: Vec<PendingAck>,
        bytes: usize,
    ) {
        self.in_flight_messages += acks.len();
        self.in_flight_bytes += bytes;
        let burst = Burst {
            acks,
            bytes,
            _charge: self.inbox.charge(),
        };
        let link = Arc::clone(&self.link);
        self.in_flight.push_back(
            async move {
                if publishes.is_empty() {
                    return (burst, Ok(Vec::new()));
                }
                let count = publishes.len();
                let taken = link
                    .house
                    .take(&link.channel, &link.client, publishes)
                    .await;
                // Nothing is acknowledged by its place alone.
                let taken = taken.and_then(|outcomes| {
                    if outcomes.len() == count {
                        return Ok(outcomes);
                    }
                    tracing::error!(count, outcomes = outcomes.len(), "a message has no outcome");
                    Err(StoreDown)
                });
                (burst, taken)
            }
            .boxed(),
        );
    }

    /// Acknowledges a burst and those behind it that are done too, in one write.
    pub(super) fn finish_bursts(&mut self, first: Taken) -> Result<(), Ending> {
        let mut done = Some(first);
        while let Some((burst, outcomes)) = done {
            self.in_flight_messages -= burst.acks.len();
            self.in_flight_bytes -= burst.bytes;
            let outcomes = outcomes.map_err(|StoreDown| Ending::StoreDown)?;
            self.acknowledge(&burst, &outcomes);
            self.link.deliver(&outcomes);
            done = self.in_flight.next().now_or_never().flatten();
        }
        Ok(())
    }

    pub(super) fn acknowledge(&mut self, burst: &Burst, outcomes: &[Outcome]) {
        let version = self.version();
        let mut outcomes = outcomes.iter();
        for ack in &burst.acks {
            let mut reason = || match outcomes.next().map(|outcome| outcome.ack) {
                Some(Ack::NotAuthorized) => Reason::NOT_AUTHORIZED,
                Some(Ack::Success) | None => Reason::SUCCESS,
            };
            let (kind, id, reason) = match *ack {
                PendingAck::None => {
                    reason();
                    continue;
                }
                PendingAck::PubAck(id) => (kind::PUBACK, id, reason()),
                PendingAck::PubRec(id) => {
                    let reason = reason();
                    // 5.0 §4.3.3: a PUBREC that refuses ends the exchange; no PUBREL follows.
                    if reason == Reason::SUCCESS || version == Version::V3 {
                        let limits = &self.door.limits;
                        self.attached
                            .session(|session| session.received(id, limits));
                    }
                    (kind::PUBREC, id, reason)
                }
                PendingAck::PubRecAgain(id) => (kind::PUBREC, id, Reason::SUCCESS),
            };
            outbound::ack(&mut self.out, kind, id, reason, version);
            self.link.meters.acks.increment(1);
        }
    }
}
