//! The read buffer of one connection, and the account of all of them.
//!
//! Payloads are slices of the buffer: a buffer stays alive while one of its slices does. So what is
//! charged against the process's bound is the buffer, for as long as the connection or a burst in
//! flight holds it. The first 4 KiB of a connection are free: the cap of connections bounds them.

use std::{io, sync::Arc};

use bytes::{BufMut as _, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    sync::{OwnedSemaphorePermit, Semaphore},
};

/// What every connection has at all times.
pub(super) const SMALL: usize = 4 * 1024;
/// Below so much free space a read is not worth its call.
const READ_MIN: usize = 1024;
/// Always left free: the codec reserves a few bytes after each packet, and would allocate.
const SPARE: usize = 8;

pub(super) struct Inbox {
    buffer: BytesMut,
    charge: Option<Arc<Charge>>,
    /// The size of the next buffer, by how full the last ones became.
    target: usize,
    target_max: usize,
    account: Arc<Semaphore>,
}

/// A buffer's part of the process's bound, given back when nobody holds the buffer.
pub(super) struct Charge {
    _kib: OwnedSemaphorePermit,
}

impl Inbox {
    pub(super) fn new(account: Arc<Semaphore>, target_max: usize) -> Self {
        let buffer = BytesMut::with_capacity(SMALL + SPARE);
        Self {
            buffer,
            charge: None,
            target: SMALL,
            target_max,
            account,
        }
    }

    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    pub(super) fn len(&self) -> usize {
        self.buffer.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// What a burst holds as long as its payloads are slices of this buffer.
    pub(super) fn charge(&self) -> Option<Arc<Charge>> {
        self.charge.clone()
    }

    pub(super) fn is_large(&self) -> bool {
        self.charge.is_some()
    }

    /// Whether so many more bytes fit.
    pub(super) fn has_room(&self, wanted: usize) -> bool {
        self.free() >= wanted.max(READ_MIN)
    }

    fn free(&self) -> usize {
        (self.buffer.capacity() - self.buffer.len()).saturating_sub(SPARE)
    }

    /// Makes room for so many more bytes; waits while the process's buffers are used up.
    pub(super) async fn make_room(&mut self, wanted: usize) {
        let wanted = wanted.max(READ_MIN) + SPARE;
        if self.buffer.try_reclaim(wanted) {
            return;
        }
        if self.buffer.is_empty() {
            // Only bursts hold it from here on: who waits for a buffer must not keep another.
            self.buffer = BytesMut::new();
            self.charge = None;
        }
        let needed = self.buffer.len() + wanted;
        let size = needed.max(self.target);
        if size <= SMALL {
            return self.replace(SMALL, None);
        }
        if let Ok(permit) = Arc::clone(&self.account).try_acquire_many_owned(kib(size)) {
            return self.replace(size, Some(Arc::new(Charge { _kib: permit })));
        }
        if needed <= SMALL {
            return self.replace(SMALL, None);
        }
        let permit = Arc::clone(&self.account)
            .acquire_many_owned(kib(needed))
            .await;
        let permit = permit.expect("the account of buffers is never closed");
        self.replace(needed, Some(Arc::new(Charge { _kib: permit })));
    }

    /// Gives a large buffer back, when it is empty.
    pub(super) fn shrink(&mut self) {
        self.target = SMALL;
        if self.buffer.is_empty() {
            self.replace(SMALL, None);
        }
    }

    fn replace(&mut self, size: usize, charge: Option<Arc<Charge>>) {
        let mut buffer = BytesMut::with_capacity(size);
        buffer.extend_from_slice(&self.buffer);
        self.buffer = buffer;
        self.charge = charge;
    }

    /// One read into the free space. Nothing is lost when it is dropped half-way.
    pub(super) async fn read<R: AsyncRead + Unpin>(&mut self, reader: &mut R) -> io::Result<usize> {
        let free = self.free();
        let read = reader.read_buf(&mut (&mut self.buffer).limit(free)).await?;
        if read == free {
            self.target = (self.target * 2).min(self.target_max);
        } else if read < self.target / 4 {
            self.target = (self.target / 2).max(SMALL);
        }
        Ok(read)
    }
}

fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_large_buffer_is_charged_until_its_last_slice_is_gone() {
        let account = Arc::new(Semaphore::new(1024));
        let mut inbox = Inbox::new(Arc::clone(&account), 64 * 1024);
        inbox.make_room(100 * 1024).await;
        let charged = 1024 - account.available_permits();
        assert!((100..=103).contains(&charged), "{charged} KiB");
        let held = inbox.charge();
        inbox.buffer().extend_from_slice(b"payload");
        let slice = inbox.buffer().split_to(7).freeze();
        inbox.shrink();
        assert_eq!(
            account.available_permits(),
            1024 - charged,
            "a burst holds it"
        );
        drop((slice, held));
        assert_eq!(account.available_permits(), 1024);
    }

    #[tokio::test]
    async fn a_busy_connection_gets_larger_buffers_up_to_the_cap() {
        let account = Arc::new(Semaphore::new(1024));
        let mut inbox = Inbox::new(account, 64 * 1024);
        let stream = vec![0_u8; 1024 * 1024];
        let mut reader = &stream[..];
        for _ in 0..20 {
            if !inbox.has_room(1) {
                inbox.make_room(1).await;
            }
            inbox.read(&mut reader).await.unwrap();
            let whole = inbox.len();
            let held = inbox.buffer().split_to(whole).freeze();
            drop(held);
        }
        assert_eq!(inbox.target, 64 * 1024);
    }
}
