//! What a connection is given time for: keep-alive, writing, finishing a packet, being idle.

use super::*;

impl<H: House> Connection<H> {
    /// Arms the timer for the nearest deadline. It may fire early; then it is armed again.
    pub(super) fn set_timer(&mut self, mut timer: std::pin::Pin<&mut Sleep>) {
        let deadlines = [
            self.silent_at(),
            self.unwritten_at(),
            self.unfinished_at(),
            self.idle_at(),
        ];
        let far = Instant::now() + Duration::from_secs(3_600);
        let nearest = deadlines.into_iter().flatten().min().unwrap_or(far);
        if nearest < timer.deadline() || timer.is_elapsed() {
            timer.as_mut().reset(nearest);
        }
    }

    pub(super) fn overdue(&mut self) -> Option<Ending> {
        let now = Instant::now();
        let is_past = |deadline: Option<Instant>| deadline.is_some_and(|at| at <= now);
        if is_past(self.unwritten_at()) {
            return Some(Ending::WriteTimeout);
        }
        if is_past(self.silent_at()) {
            return Some(Ending::KeepAlive);
        }
        if is_past(self.unfinished_at()) {
            return Some(Ending::PacketTimeout);
        }
        if is_past(self.idle_at()) {
            self.inbox.shrink();
            self.out = BytesMut::new();
        }
        None
    }

    /// 1.5 times the keep-alive without a byte (MQTT-3.1.2-22). The time while the door itself does
    /// not read is not the client's.
    pub(super) fn silent_at(&mut self) -> Option<Instant> {
        if !self.may_read() || !self.inbox.has_room(self.wanted.max(1)) {
            self.heard = Instant::now();
        }
        self.keep_alive
            .map(|keep_alive| self.heard + keep_alive * 3 / 2)
    }

    pub(super) fn unwritten_at(&mut self) -> Option<Instant> {
        if self.out.is_empty() && self.is_flushed {
            self.wrote = Instant::now();
            return None;
        }
        Some(self.wrote + Duration::from_secs(self.door.limits.write_s))
    }

    pub(super) fn unfinished_at(&self) -> Option<Instant> {
        self.packet_begun
            .map(|begun| begun + Duration::from_secs(self.door.limits.packet_s))
    }

    pub(super) fn idle_at(&self) -> Option<Instant> {
        let is_idle = self.in_flight.is_empty() && self.inbox.is_empty() && self.out.is_empty();
        (is_idle && self.inbox.is_large()).then(|| self.heard + IDLE)
    }
}
