//! The driver on a ring whose only stage is on a machine that the test plays.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hive_net::{Channel, Endpoint, Incoming, Protocol};
use hive_protocol::{Pulse, Reply, Request};
use hive_stage::testing::{Machine, failed_frame};
use hive_stage::{Fault, failure_of};
use hive_types::{Loss, Trouble};
use tokio::sync::mpsc;

use super::*;
use crate::ring::failover::FaultOrigin;
use crate::ring::sessions::dispatch;
use crate::testing::{endpoint, ring_on};

/// Longer than anything here takes, and shorter than a load that is not cancelled.
const SOON: Duration = Duration::from_secs(20);

/// A machine whose workers die when the test wants it.
#[derive(Clone)]
struct Bob {
    endpoint: Endpoint,
    loads: Arc<AtomicUsize>,
    unloads: Arc<AtomicUsize>,
    /// Whether the worker of its stage has died.
    is_dead: Arc<AtomicBool>,
    /// Whether it takes for ever to load the stage again.
    is_slow: Arc<AtomicBool>,
}

impl Bob {
    async fn serve(self, mut incoming: mpsc::Receiver<Incoming>) {
        while let Some(Incoming { protocol, channel, .. }) = incoming.recv().await {
            if protocol == Protocol::Control {
                tokio::spawn(self.clone().answer(channel));
            }
        }
    }

    async fn answer(self, mut channel: Channel) {
        let Ok(Some(request)) = channel.read_message().await else { return };
        let answer = match request {
            Request::Load(..) => {
                let loads = self.loads.fetch_add(1, Ordering::Relaxed) + 1;
                if self.is_slow.load(Ordering::Relaxed) {
                    return std::future::pending().await;
                }
                self.is_dead.store(false, Ordering::Relaxed);
                Reply::Loaded(format!("worker {loads}"))
            }
            Request::Unload(_) => {
                self.unloads.fetch_add(1, Ordering::Relaxed);
                Reply::Done
            }
            Request::Check(_) if self.is_dead.load(Ordering::Relaxed) => Reply::Refused("no such stage".to_owned()),
            Request::Check(_) => Reply::Pulse(Pulse { passed: true, ..Pulse::default() }),
            _ => Reply::Done,
        };
        let _ = channel.write_message(&answer).await;
        channel.finish();
    }

    async fn reaches(&self, count: &AtomicUsize, times: usize) {
        let reached = async {
            while count.load(Ordering::Relaxed) < times {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(SOON, reached).await.expect("it is asked soon");
    }
}

async fn start() -> (Machine, Bob, Ring) {
    let ann = Machine::start("ann").await;
    let (endpoint, incoming) = endpoint().await;
    let bob = Bob {
        endpoint,
        loads: Arc::default(),
        unloads: Arc::default(),
        is_dead: Arc::default(),
        is_slow: Arc::default(),
    };
    tokio::spawn(bob.clone().serve(incoming));
    let ring = ring_on(&ann, "bob", &bob.endpoint).await;
    (ann, bob, ring)
}

async fn stop(ann: &Machine, bob: &Bob) {
    bob.endpoint.close().await;
    ann.stop().await;
}

/// Until the failover has asked for the lost stage to be loaded again, which takes for ever.
async fn fail_over_for_ever(bob: &Bob, ring: &Ring) {
    bob.is_slow.store(true, Ordering::Relaxed);
    bob.is_dead.store(true, Ordering::Relaxed);
    ring.report_fault(0, "nothing comes".to_owned());
    bob.reaches(&bob.loads, 2).await;
    let lost = Trouble::Lost { machine: "bob".to_owned(), loss: Loss::Failed };
    assert_eq!(ring.state().borrow().health, Health::FailingOver(lost));
}

#[tokio::test]
async fn a_stage_whose_worker_died_is_loaded_again_and_in_the_ring() {
    let (ann, bob, ring) = start().await;
    bob.is_dead.store(true, Ordering::Relaxed);
    ring.report_fault(0, "nothing comes".to_owned());
    let mut state = ring.state();
    let whole = state.wait_for(|state| state.epoch == 1 && state.health == Health::Whole);
    tokio::time::timeout(SOON, whole).await.expect("it fails over").unwrap();
    assert_eq!(ring.stages()[0].device, "worker 2");
    stop(&ann, &bob).await;
}

#[tokio::test]
async fn a_ring_that_is_unloaded_during_failover_does_not_wait_for_the_load() {
    let (ann, bob, ring) = start().await;
    fail_over_for_ever(&bob, &ring).await;
    tokio::time::timeout(SOON, ring.unload()).await.expect("it is unloaded");
    assert!(bob.unloads.load(Ordering::Relaxed) > 0, "it may have loaded the stage");
    let weak = Arc::downgrade(&ring.inner);
    drop(ring);
    let dropped = async {
        while weak.strong_count() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, dropped).await.expect("no task is left");
    stop(&ann, &bob).await;
}

#[tokio::test]
async fn a_ring_that_is_superseded_during_failover_stops_it_and_stays_superseded() {
    let (ann, bob, ring) = start().await;
    fail_over_for_ever(&bob, &ring).await;
    ring.supersede();
    bob.reaches(&bob.unloads, 1).await;
    assert_eq!(ring.state().borrow().health, Health::Superseded);
    tokio::time::timeout(SOON, ring.unload()).await.expect("it is unloaded");
    stop(&ann, &bob).await;
}

#[tokio::test]
async fn a_task_that_panics_abandons_the_ring() {
    let (ann, bob, ring) = start().await;
    let (_reports, reported) = mpsc::channel(1);
    let mut driver = Driver::new(&ring, reported);
    let report = FaultReport { epoch: 0, origin: FaultOrigin::Link, why: "nothing comes".to_owned() };
    let waits_for = driver.failover.on(Event::Reported(report), Instant::now());
    assert!(matches!(waits_for[..], [Action::Start(_, Task::Observe)]));
    driver.in_use = Some(ring.clone());
    driver.tasks.spawn(async { panic!("on purpose") });
    tokio::time::timeout(SOON, driver.run()).await.expect("it ends");
    assert!(ring.is_abandoned());
    stop(&ann, &bob).await;
}

#[tokio::test]
async fn a_stage_is_not_loaded_on_a_machine_before_it_is_unloaded_there() {
    let (ann, bob, ring) = start().await;
    let placement = ring.stages()[0].placement.clone();
    let holder = Holder { stage: 0, machine: placement.addr.id() };
    let (unloaded, is_unloaded) = tokio::sync::oneshot::channel::<()>();
    let unloading = tokio::spawn(async move { drop(is_unloaded.await) });
    let check = Request::Check(ring.inner.stage_id(0));
    let load = tokio::spawn(tasks::load(ring.clone(), holder, placement.clone(), Some(unloading)));
    // A load that does not wait is asked for before the second of these, and arrives before its answer.
    for _ in 0..3 {
        ann.ask(&placement.addr, check.clone(), |_| ()).await.unwrap();
    }
    assert_eq!(bob.loads.load(Ordering::Relaxed), 1);
    unloaded.send(()).unwrap();
    let (outcome, _) = load.await.unwrap();
    assert_eq!((outcome, bob.loads.load(Ordering::Relaxed)), (Outcome::Loaded(holder), 2));
    stop(&ann, &bob).await;
}

#[tokio::test]
async fn a_conversation_that_fails_on_two_machines_is_told_so_and_none_is_left_out_for_it() {
    let (ann, bob, ring) = start().await;
    let left_out = || ann.membership().trust().quarantined_for(bob.endpoint.id()).is_some();
    let (frames, queue) = mpsc::channel(8);
    tokio::spawn(dispatch(queue, Arc::downgrade(&ring.inner)));
    let ((session, mut own), (other, mut others)) = (ring.new_session(None, None), ring.new_session(None, None));
    let failed = |session, epoch| failed_frame(session, epoch, Fault::Stage(0), "numbers that are not finite");
    // At first, the machine is to blame.
    frames.send(failed(session, 0)).await.unwrap();
    let mut state = ring.state();
    let abandoned = state.wait_for(|state| matches!(state.health, Health::Abandoned(_)));
    tokio::time::timeout(SOON, abandoned).await.expect("nobody else has the model").unwrap();
    assert!(left_out() && own.is_empty());
    assert!(ring.failure(session).is_some() && ring.failure(other).is_none());
    // Another machine fails as well, while it is only the first failure of the other conversation.
    frames.send(failed(other, 1)).await.unwrap();
    frames.send(failed(session, 1)).await.unwrap();
    let frame = tokio::time::timeout(SOON, own.recv()).await.expect("it is told").unwrap();
    assert_eq!(failure_of(&frame).fault, Fault::Stage(0));
    assert!(!left_out());
    assert!(others.try_recv().is_err());
    stop(&ann, &bob).await;
}
