//! A restart is exact at every step that a backend may die in: each state is put into ring and in-flight
//! region by hand, and the next backend must execute every request that was not published, once, and none
//! that was.
//!
//! `tests/kill.rs` meets these states by chance; here each one is met every time.

use firn_tests::client::{
    Client, ClientOptions, Completion, QueueInflight, Request, STATUS_IOERR, STATUS_OK,
};
use firn_tests::rig::{PATIENCE, Rig};

const MIB: u64 = 1 << 20;
const BLOCK: u32 = 4096;

/// Three writes in the ring that no backend has seen, and the region that the last one left.
struct Dead {
    rig: Rig,
    client: Client,
    region: QueueInflight,
    tags: [u16; 3],
    heads: [u16; 3],
}

/// Some traffic, so that indices and counters have moved; then the backend dies and the guest goes on.
fn dead() -> Dead {
    let mut rig = Rig::new().unwrap();
    let mut client = rig.attach("disk", MIB, ClientOptions::default()).unwrap();
    for block in 0..5u8 {
        let mut data = vec![block + 1; BLOCK as usize];
        let done = client
            .run(Request::write(8 * u64::from(block), BLOCK), &mut data)
            .unwrap();
        assert_eq!(done.status, STATUS_OK);
    }
    rig.server.kill().unwrap();
    client.hang_up();
    let region = client.inflight().unwrap().queue(0).unwrap();
    let queue = &mut client.queues[0];
    let tags = [0, 1, 2].map(|block| {
        let tag = queue.reserve().unwrap();
        queue.put_data(tag, 0, &[0x70 + block; BLOCK as usize]);
        queue.submit(tag, Request::write(8 * u64::from(block), BLOCK));
        tag
    });
    queue.publish();
    let heads = tags.map(|tag| queue.head_of(tag).unwrap());
    Dead {
        rig,
        client,
        region,
        tags,
        heads,
    }
}

impl Dead {
    /// Marks requests as taken, as if in this order.
    fn take(&self, requests: &[usize]) {
        for (counter, &at) in (100..).zip(requests) {
            self.region.set_counter(self.heads[at], counter);
            self.region.mark(self.heads[at], true);
        }
    }

    /// The next backend; returns what completes, all of what is in flight.
    fn revive(&mut self) -> Vec<Completion> {
        self.rig.server = self.rig.firn.start().unwrap();
        self.client.reconnect(PATIENCE).unwrap();
        let mut done = Vec::new();
        while self.client.in_flight() > 0 {
            assert!(
                self.client.wait(PATIENCE),
                "never completed: {:?}",
                self.client.queues[0].outstanding().collect::<Vec<_>>()
            );
            self.client.queues[0].poll(&mut done).unwrap();
        }
        // Nothing may come twice, now or later.
        let queue = &self.client.queues[0];
        assert_eq!(queue.used_idx(), queue.avail_idx());
        done
    }

    fn block(&mut self, block: u64) -> u8 {
        let mut data = vec![0; BLOCK as usize];
        assert_eq!(
            self.client
                .run(Request::read(8 * block, BLOCK), &mut data)
                .unwrap()
                .status,
            STATUS_OK
        );
        assert!(data.iter().all(|&b| b == data[0]));
        data[0]
    }

    fn assert_all_written(&mut self) {
        assert_eq!(
            [0, 1, 2, 3].map(|block| self.block(block)),
            [0x70, 0x71, 0x72, 4]
        );
        let region = &self.region;
        assert_eq!(region.marked(), [0u16; 0]);
        assert_eq!(region.used_idx(), self.client.queues[0].used_idx());
    }
}

#[test]
fn the_region_is_laid_out_as_specified() {
    let mut rig = Rig::new().unwrap();
    let options = ClientOptions {
        queues: 3,
        queue_size: 64,
        ..ClientOptions::default()
    };
    let mut client = rig.attach("disk", MIB, options).unwrap();
    let mut data = vec![1; BLOCK as usize];
    for _ in 0..70 {
        client.run(Request::write(0, BLOCK), &mut data).unwrap();
    }
    let region = client.inflight().unwrap();
    for (index, used) in [(0, 70), (1, 0), (2, 0)] {
        let queue = region.queue(index).unwrap();
        assert_eq!(
            (queue.version(), queue.desc_num(), queue.used_idx()),
            (1, 64, used),
            "queue {index}"
        );
        assert_eq!(queue.marked(), [0u16; 0]);
    }
}

#[test]
fn nothing_was_taken() {
    let mut dead = dead();
    let done = dead.revive();
    assert_eq!(done.len(), 3);
    dead.assert_all_written();
}

#[test]
fn a_counter_was_stored_but_nothing_marked() {
    let mut dead = dead();
    dead.region.set_counter(dead.heads[0], 100);
    assert_eq!(dead.revive().len(), 3);
    dead.assert_all_written();
}

#[test]
fn some_were_taken_and_nothing_published() {
    let mut dead = dead();
    dead.take(&[0, 1]);
    let done = dead.revive();
    assert_eq!(done.len(), 3);
    assert!(done.iter().all(|c| c.status == STATUS_OK));
    dead.assert_all_written();
}

#[test]
fn all_were_taken_and_used_elements_written_but_not_published() {
    let mut dead = dead();
    dead.take(&[0, 1, 2]);
    let queue = &dead.client.queues[0];
    let at = queue.layout().used + 4 + 8 * usize::from(queue.used_idx() % 128);
    queue
        .memory()
        .write(at, &u32::from(dead.heads[1]).to_le_bytes());
    dead.region.set_next(dead.heads[1], dead.heads[0]);
    dead.region.set_last_batch_head(dead.heads[1]);
    assert_eq!(dead.revive().len(), 3);
    dead.assert_all_written();
}

/// The one out of order was published, and the death came before its mark was cleared: executing it again
/// would overwrite what the guest may have written since.
#[test]
fn one_was_published_but_still_marked() {
    let mut dead = dead();
    dead.take(&[0, 1, 2]);
    dead.region.set_last_batch_head(dead.heads[1]);
    dead.client.queues[0].forge_status(dead.tags[1], STATUS_OK);
    dead.client.queues[0].forge_used(&[dead.heads[1]]);
    let done = dead.revive();
    assert_eq!(done.len(), 3);
    // It was never written by anybody: if it were now, it would have been executed after its publication.
    assert_eq!([0, 1, 2].map(|block| dead.block(block)), [0x70, 2, 0x72]);
}

#[test]
fn a_batch_of_two_was_published_and_half_cleared() {
    let mut dead = dead();
    dead.take(&[0, 1, 2]);
    dead.region.set_next(dead.heads[2], dead.heads[0]);
    dead.region.set_last_batch_head(dead.heads[2]);
    let queue = &dead.client.queues[0];
    queue.forge_status(dead.tags[0], STATUS_OK);
    queue.forge_status(dead.tags[2], STATUS_IOERR);
    queue.forge_used(&[dead.heads[0], dead.heads[2]]);
    dead.region.mark(dead.heads[2], false);
    let done = dead.revive();
    let status = |tag| done.iter().find(|c| c.tag == tag).unwrap().status;
    assert_eq!(dead.tags.map(status), [STATUS_OK, STATUS_OK, STATUS_IOERR]);
    assert_eq!([0, 1, 2].map(|block| dead.block(block)), [1, 0x71, 3]);
}

#[test]
fn a_batch_was_cleared_but_not_noted() {
    let mut dead = dead();
    dead.take(&[0, 1]);
    dead.region.set_last_batch_head(dead.heads[0]);
    dead.client.queues[0].forge_status(dead.tags[0], STATUS_OK);
    dead.client.queues[0].forge_used(&[dead.heads[0]]);
    dead.region.mark(dead.heads[0], false);
    assert_eq!(dead.revive().len(), 3);
    assert_eq!([0, 1, 2].map(|block| dead.block(block)), [1, 0x71, 0x72]);
}

/// Requests are executed again in the order in which they were taken, which the counters tell, not in that
/// of their heads.
#[test]
fn what_is_executed_again_keeps_its_order() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let mut rig = Rig::new().unwrap();
        let mut client = rig.attach("disk", MIB, ClientOptions::default()).unwrap();
        rig.server.kill().unwrap();
        client.hang_up();
        let region = client.inflight().unwrap().queue(0).unwrap();
        let queue = &mut client.queues[0];
        // Three writes to one block: the last one taken must win.
        for (at, counter) in (0u8..).zip(order) {
            let tag = queue.reserve().unwrap();
            queue.put_data(tag, 0, &[at; BLOCK as usize]);
            queue.submit(tag, Request::write(0, BLOCK));
            let head = queue.head_of(tag).unwrap();
            region.set_counter(head, 7 + counter);
            region.mark(head, true);
        }
        queue.publish();
        let winner = order.iter().position(|&counter| counter == 2).unwrap();
        rig.server = rig.firn.start().unwrap();
        client.reconnect(PATIENCE).unwrap();
        let mut done = Vec::new();
        while client.in_flight() > 0 {
            assert!(client.wait(PATIENCE));
            client.queues[0].poll(&mut done).unwrap();
        }
        let mut data = vec![0; BLOCK as usize];
        client.run(Request::read(0, BLOCK), &mut data).unwrap();
        assert_eq!(usize::from(data[0]), winner, "taken in the order {order:?}");
    }
}
