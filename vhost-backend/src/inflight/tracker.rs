//! The heads of one running queue, in our memory and in the region.

use crate::virtq::ring::RingError;

use super::QueueRegion;

/// Which heads of one queue are in flight.
#[derive(Debug)]
pub struct Tracker {
    /// Nothing, if the front end has no such region: then only our own memory knows.
    region: Option<QueueRegion>,
    busy: Vec<bool>,
    count: u16,
    counter: u64,
    batch: Vec<u16>,
}

impl Tracker {
    /// For a queue of `size` descriptors; `counter` is the next request's.
    pub fn new(size: u16, region: Option<QueueRegion>, counter: u64) -> Self {
        let size = usize::from(size);
        Self {
            region,
            busy: vec![false; size],
            count: 0,
            counter,
            batch: Vec::with_capacity(size),
        }
    }

    /// Whether a restart finds what is in flight.
    pub fn persistent(&self) -> bool {
        self.region.is_some()
    }

    /// Heads taken and not given back.
    pub fn in_flight(&self) -> u16 {
        self.count
    }

    /// Steps 2 and 3 (module doc): a head that was taken from the avail ring.
    #[inline]
    pub fn begin(&mut self, head: u16) -> Result<(), RingError> {
        self.occupy(head)?;
        if let Some(region) = &self.region {
            region.set_counter(head, self.counter);
            region.set_inflight(head, true);
        }
        self.counter = self.counter.wrapping_add(1);
        Ok(())
    }

    /// A head that [`QueueRegion::recover`] found: it is marked and counted already.
    pub fn resume(&mut self, head: u16) -> Result<(), RingError> {
        self.occupy(head)
    }

    fn occupy(&mut self, head: u16) -> Result<(), RingError> {
        let busy = self
            .busy
            .get_mut(usize::from(head))
            .ok_or(RingError::Head(head))?;
        if std::mem::replace(busy, true) {
            return Err(RingError::HeadTwice(head));
        }
        self.count += 1;
        Ok(())
    }

    /// Step 6: a head whose used element is written and not yet published.
    #[inline]
    pub fn retire(&mut self, head: u16) {
        if let Some(region) = &self.region {
            region.push_batch(head);
        }
        self.batch.push(head);
    }

    /// Steps 8 and 9: what was retired has been published, and the used index is now `used`.
    #[inline]
    pub fn published(&mut self, used: u16) {
        for head in self.batch.drain(..) {
            if let Some(region) = &self.region {
                region.set_inflight(head, false);
            }
            release(&mut self.busy, &mut self.count, head);
        }
        if let Some(region) = &self.region {
            region.set_used_idx(used);
        }
    }

    /// A head that goes back to the avail ring: it had no effect and will be taken again as if for the first time.
    pub fn untake(&mut self, head: u16) {
        if let Some(region) = &self.region {
            region.set_inflight(head, false);
        }
        release(&mut self.busy, &mut self.count, head);
    }

    /// A head that stays marked for whoever serves the ring next.
    pub fn leave(&mut self, head: u16) {
        release(&mut self.busy, &mut self.count, head);
    }
}

fn release(busy: &mut [bool], count: &mut u16, head: u16) {
    if let Some(busy) = busy.get_mut(usize::from(head))
        && std::mem::replace(busy, false)
    {
        *count = count.saturating_sub(1);
    }
}
