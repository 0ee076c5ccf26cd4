//! SUBSCRIBE and UNSUBSCRIBE: which filters are granted, and what the client is told.

use super::*;

impl<H: House> Connection<H> {
    pub(super) fn subscribe(
        &mut self,
        id: NonZeroU16,
        tag: Option<u32>,
        filters: &[(bytestring::ByteString, Qos)],
    ) {
        let limits = &self.door.limits;
        let product = self.link.channel.product();
        let mut codes = Vec::with_capacity(filters.len());
        for (at, (filter, qos)) in filters.iter().enumerate() {
            let refused = match filter::grant(filter, product) {
                _ if at >= limits.filters_per_subscribe_max => {
                    Err((Reason::QUOTA, "too many filters in one SUBSCRIBE"))
                }
                Err(filter::Refused::Shared) => Err((
                    Reason::SHARED_UNSUPPORTED,
                    "shared subscriptions are not supported",
                )),
                Err(filter::Refused::NotOwn) => Err((
                    Reason::NOT_AUTHORIZED,
                    "it can match more than the reply topics of this channel's product, or none",
                )),
                Ok(()) => self
                    .attached
                    .subscriptions(|session| session.subscribe(filter, *qos, tag, limits))
                    .unwrap_or(Ok(Qos::AtMostOnce))
                    .map_err(|_| (Reason::QUOTA, "too many subscriptions")),
            };
            let filter = filter.to_string();
            match refused {
                Ok(granted) => {
                    codes.push(granted as u8);
                    self.note(Event::Subscribed { filter });
                }
                Err((code, reason)) => {
                    // 3.1.1 has one code for all of them.
                    codes.push(if self.version() == Version::V3 {
                        0x80
                    } else {
                        code.0
                    });
                    self.note(Event::SubscriptionRefused { filter, reason });
                }
            }
        }
        let version = self.version();
        outbound::filters_ack(&mut self.out, kind::SUBACK, id, &codes, version);
    }

    pub(super) fn unsubscribe(&mut self, id: NonZeroU16, filters: &[bytestring::ByteString]) {
        let codes: Vec<u8> = filters
            .iter()
            .map(|filter| {
                let known = self
                    .attached
                    .subscriptions(|session| session.unsubscribe(filter));
                match known {
                    Some(true) => Reason::SUCCESS.0,
                    Some(false) | None => Reason::NO_SUBSCRIPTION.0,
                }
            })
            .collect();
        let version = self.version();
        outbound::filters_ack(&mut self.out, kind::UNSUBACK, id, &codes, version);
    }
}
