//! Sessions that end while they are being handed over, and other cases of the actor.

use hive_model::{KvLayout, SessionOptions};

use super::*;
use crate::copies::Copies;
use hive_protocol::{Arithmetic, RingId, StageId};

const SESSION: u128 = 7;

fn actor() -> (Actor, std::io::PipeReader) {
    actor_of(true)
}

fn actor_of(is_recurrent: bool) -> (Actor, std::io::PipeReader) {
    let (worker, orders) = Worker::that_only_listens();
    let (commands, _) = mpsc::channel(1);
    let tenancy = Tenancy { is_guest: true, is_whole: false, context: 64, is_recurrent };
    let activity = Activity::new(Arithmetic::Exact, Copies::default());
    (Actor::new(worker, 0, tenancy, activity, commands.downgrade(), Tasks::default()), orders)
}

fn spec() -> SessionSpec {
    SessionSpec {
        session: SESSION,
        answer: 1,
        options: SessionOptions::default(),
        end_tokens: vec![2],
        last_position: 10,
        continues: None,
    }
}

/// A session arrives; returns the result of taking it in.
fn comes(actor: &mut Actor) -> oneshot::Receiver<Result<(), String>> {
    let state = CarriedSession { position: 3, answer: Vec::new(), layout: KvLayout::Fast };
    let (answer, answered) = oneshot::channel();
    actor.take_in(Transit::new(spec(), false, state), answer);
    answered
}

async fn is_asked(actor: &mut Actor, request: fn(StageId, u128) -> Request) {
    let stage = StageId { ring: RingId(1), index: 0 };
    actor.asked(request(stage, SESSION)).await.unwrap();
}

async fn is_here(actor: &mut Actor) {
    actor.said(FromWorker::Imported(SessionId(SESSION), Ok(()))).await;
}

fn is_kept(actor: &Actor) -> Option<bool> {
    actor.sessions.get(&SESSION).map(|open| open.retained)
}

#[tokio::test]
async fn a_session_that_comes_goes_on() {
    let (mut actor, _orders) = actor();
    let answered = comes(&mut actor);
    is_here(&mut actor).await;
    assert_eq!((answered.await.unwrap(), is_kept(&actor)), (Ok(()), Some(false)));
    is_asked(&mut actor, Request::Retain).await;
    assert_eq!(is_kept(&actor), Some(true));
    is_asked(&mut actor, Request::Close).await;
    assert_eq!(is_kept(&actor), None);
}

#[tokio::test]
async fn an_answer_that_is_done_before_its_session_comes_is_not_waited_for() {
    let (mut actor, _orders) = actor();
    is_asked(&mut actor, Request::Retain).await;
    let answered = comes(&mut actor);
    is_here(&mut actor).await;
    assert_eq!((answered.await.unwrap(), is_kept(&actor)), (Ok(()), Some(true)));
}

#[tokio::test]
async fn an_answer_that_is_done_while_its_session_comes_is_not_waited_for() {
    let (mut actor, _orders) = actor();
    let answered = comes(&mut actor);
    is_asked(&mut actor, Request::Retain).await;
    is_here(&mut actor).await;
    assert_eq!((answered.await.unwrap(), is_kept(&actor)), (Ok(()), Some(true)));
}

#[tokio::test]
async fn a_session_that_was_closed_before_it_came_does_not_come_and_is_not_opened() {
    let (mut actor, _orders) = actor();
    is_asked(&mut actor, Request::Retain).await;
    is_asked(&mut actor, Request::Close).await;
    let answered = comes(&mut actor);
    assert_eq!(answered.await.unwrap(), Err("it was closed on the way".to_owned()));
    assert!(actor.open(spec()).is_err());
    is_here(&mut actor).await;
    assert_eq!(is_kept(&actor), None);
}

#[tokio::test]
async fn a_session_that_is_closed_while_it_comes_is_gone() {
    let (mut actor, _orders) = actor();
    let answered = comes(&mut actor);
    is_asked(&mut actor, Request::Close).await;
    is_here(&mut actor).await;
    assert!(answered.await.is_err());
    assert_eq!(is_kept(&actor), None);
}

/// An actor whose session is to be continued by another one at position 5, and the answer that its opener waits for.
fn continued() -> (Actor, std::io::PipeReader, oneshot::Receiver<Result<Reply, String>>) {
    continued_on(true, 5)
}

fn continued_on(
    is_recurrent: bool,
    position: u32,
) -> (Actor, std::io::PipeReader, oneshot::Receiver<Result<Reply, String>>) {
    let (mut actor, orders) = actor_of(is_recurrent);
    actor.open(spec()).unwrap();
    actor.sessions.get_mut(&SESSION).unwrap().next = 9;
    let (answer, answered) = oneshot::channel();
    let continues = Some(Continued { session: SESSION, position });
    actor.open_asked(SessionSpec { session: 8, continues, ..spec() }, answer);
    (actor, orders, answered)
}

#[tokio::test]
async fn a_session_continues_where_the_worker_says_which_may_be_earlier_than_asked() {
    for reached in [5, 3, 0] {
        let (mut actor, _orders, mut answered) = continued();
        assert!(answered.try_recv().is_err(), "the worker was not waited for");
        actor.said(FromWorker::Adopted(SessionId(8), reached)).await;
        assert_eq!(answered.await.unwrap(), Ok(Reply::At(reached)));
        assert_eq!(actor.sessions.iter().map(|(id, open)| (*id, open.next)).collect::<Vec<_>>(), [(8, reached)]);
    }
}

#[tokio::test]
async fn keys_and_values_are_continued_without_waiting_for_the_worker() {
    let (actor, _orders, mut answered) = continued_on(false, 5);
    assert_eq!(answered.try_recv().unwrap(), Ok(Reply::At(5)));
    assert_eq!(actor.sessions.iter().map(|(id, open)| (*id, open.next)).collect::<Vec<_>>(), [(8, 5)]);
}

#[tokio::test]
async fn a_session_is_not_continued_past_its_end() {
    // The prompt is then read from its beginning.
    let (actor, _orders, mut answered) = continued_on(true, 10);
    assert_eq!(answered.try_recv().unwrap(), Ok(Reply::At(0)));
    assert!(actor.adopting.is_empty() && actor.sessions.contains_key(&SESSION));
}

#[tokio::test]
async fn sessions_that_are_being_continued_count_among_those_that_are_open() {
    let (mut actor, _orders, _answered) = continued();
    let options = |tokens| SessionOptions { prompt: vec![1; tokens], ..SessionOptions::default() };
    actor.tenancy.context = usize::MAX;
    let half = MOST_SPEC_BYTES / size_of::<u32>() / 2;
    actor.sessions.insert(
        30,
        Open { spec: spec(), next: 3, asked: 0, retained: false, sent: Sent::default(), received: Received::default() },
    );
    let (answer, _answered) = oneshot::channel();
    let continues = Some(Continued { session: 30, position: 1 });
    actor.open_asked(SessionSpec { session: 31, continues, options: options(half), ..spec() }, answer);
    assert!(actor.adopting.contains_key(&31));
    assert!(actor.fits(&options(half), &[]).unwrap_err().contains("no room"));
}

#[tokio::test]
async fn a_session_that_cannot_be_continued_is_refused_and_one_that_is_closed_meanwhile_is_not_opened() {
    let (mut actor, _orders, answered) = continued();
    let why = "no such cache".to_owned();
    let failed = FromWorker::Failed { session: SessionId(8), position: None, why, blame: Blame::Request };
    actor.said(failed).await;
    assert_eq!(answered.await.unwrap(), Err("no such cache".to_owned()));
    let (mut actor, _orders, answered) = continued();
    actor.close(8);
    assert!(answered.await.is_err());
    actor.said(FromWorker::Adopted(SessionId(8), 5)).await;
    assert!(actor.sessions.is_empty());
}

/// An actor with an open session, the frames its coordinator would see, and its orders.
fn with_session(index: u32) -> (Actor, mpsc::Receiver<Frame>, std::io::PipeReader) {
    let (mut actor, orders) = actor();
    actor.index = index;
    let (coordinator, frames) = mpsc::channel(8);
    let coordinator = Destination::Local(coordinator);
    actor.routes = Some(Routes { epoch: 0, next: None, first: None, coordinator });
    actor.open(spec()).unwrap();
    (actor, frames, orders)
}

fn rows(position: u32, rows: u32) -> Frame {
    let payload = vec![0; rows as usize * 4].into();
    Frame { rows, payload, ..crate::stage::prompt_frame(SESSION, position, &[0], false) }
}

#[tokio::test]
async fn rows_past_the_last_position_are_the_senders_fault() {
    for (index, kind, fault) in
        [(2, Kind::Tokens, Fault::Stage(1)), (0, Kind::Token, Fault::LastStage), (0, Kind::Tokens, Fault::Request)]
    {
        let (mut actor, mut frames, _orders) = with_session(index);
        actor.sessions.get_mut(&SESSION).unwrap().next = u32::MAX - 1;
        actor.frame(Frame { kind, ..rows(u32::MAX - 1, 2) }).await;
        let failure = super::super::frames::failure_of(&frames.try_recv().unwrap());
        assert_eq!(failure.fault, fault);
        assert_eq!(actor.sessions[&SESSION].next, u32::MAX - 1);
        actor.frame(rows(u32::MAX - 1, 1)).await;
        assert_eq!(actor.sessions[&SESSION].next, u32::MAX);
    }
}

#[tokio::test]
async fn a_session_that_failed_waits_for_the_same_position_again() {
    let (mut actor, mut frames, _orders) = with_session(1);
    for position in 0..3 {
        actor.frame(rows(position, 1)).await;
    }
    assert_eq!(actor.sessions[&SESSION].next, 3);
    let (session, why) = (SessionId(SESSION), "not finite".to_owned());
    actor.said(FromWorker::Failed { session, position: Some(1), why, blame: Blame::Previous }).await;
    let failure = super::super::frames::failure_of(&frames.try_recv().unwrap());
    assert_eq!((failure.fault, actor.sessions[&SESSION].next), (Fault::Stage(0), 1));
}

#[tokio::test]
async fn what_the_coordinator_asked_is_not_held_against_the_last_stage() {
    let (mut actor, mut frames, _orders) = with_session(0);
    actor.frame(rows(0, 2)).await;
    actor.frame(Frame { kind: Kind::Token, ..rows(2, 1) }).await;
    for (position, fault) in [(2, Fault::LastStage), (1, Fault::Request)] {
        let (session, why) = (SessionId(SESSION), "no such token".to_owned());
        actor.said(FromWorker::Failed { session, position: Some(position), why, blame: Blame::Previous }).await;
        let failure = super::super::frames::failure_of(&frames.try_recv().unwrap());
        assert_eq!(failure.fault, fault, "at {position}");
    }
}

#[tokio::test]
async fn rows_that_come_again_after_a_failure_are_compared_as_they_came_last() {
    let (mut actor, _frames, _orders) = with_session(1);
    actor.frame(crate::stage::prompt_frame(SESSION, 0, &[5, 6, 7], false)).await;
    let (session, why) = (SessionId(SESSION), "not finite".to_owned());
    actor.said(FromWorker::Failed { session, position: Some(1), why, blame: Blame::Previous }).await;
    actor.frame(crate::stage::prompt_frame(SESSION, 1, &[8, 9], false)).await;
    let stage = StageId { ring: RingId(1), index: 1 };
    let digests = actor.asked(Request::Digests(stage, Span { session: SESSION, rows: 0..3 })).await;
    assert_eq!(digests, Ok(Reply::Digests(hive_protocol::token_digests(&[5, 8, 9]))));
}

#[tokio::test]
async fn a_session_that_nobody_waits_for_is_owed_nothing() {
    let (mut actor, frames, _orders) = with_session(1);
    drop(frames);
    actor.frame(rows(0, 2)).await;
    let sampled = hive_model::sampling::Sampled { token: 3, logprob: None, top: Vec::new() };
    let output = Output::Token(sampled);
    actor.said(FromWorker::Output { session: SessionId(SESSION), position: 0, rows: 1, sample: true, output }).await;
    assert_eq!(is_kept(&actor), None);
    actor.said(FromWorker::Checked).await;
    assert_eq!(actor.activity.pulse(true, Instant::now()).owed_rows, 0);
}

#[tokio::test]
async fn what_a_stage_was_given_can_be_compared() {
    let (mut actor, _orders) = actor();
    actor.open(spec()).unwrap();
    let stage = StageId { ring: RingId(1), index: 0 };
    let asked = |rows| Request::Digests(stage, Span { session: SESSION, rows });
    actor.frame(crate::stage::prompt_frame(SESSION, 0, &[5, 6], false)).await;
    // The rows arrive again, with one more.
    actor.frame(crate::stage::prompt_frame(SESSION, 0, &[5, 6, 7], true)).await;
    let expected = hive_protocol::token_digests(&[5, 6, 7]);
    assert_eq!(actor.asked(asked(0..3)).await, Ok(Reply::Digests(expected)));
    assert!(actor.asked(asked(0..4)).await.is_err());
}

#[tokio::test]
async fn rows_that_are_computed_once_more_go_to_whoever_asked() {
    let (mut actor, _orders) = actor();
    let (answer, mut answered) = oneshot::channel();
    let input = hive_model::shard::Input::Tokens(vec![5, 6]);
    let wanted = Recompute { session: 9, options: SessionOptions::default(), position: 0, input, sample: true };
    actor.recompute(wanted.clone(), answer);
    let token = hive_model::sampling::Sampled { token: 3, logprob: None, top: Vec::new() };
    let output = Output::Token(token);
    actor.said(FromWorker::Output { session: SessionId(9), position: 0, rows: 2, sample: true, output }).await;
    assert_eq!(answered.try_recv().unwrap(), Ok(Reply::Recomputed { digests: Vec::new(), token: Some(3) }));
    assert_eq!(actor.usage.tokens.load(Ordering::Relaxed), 2, "they count as work of this machine");
    // A conversation's session cannot be recomputed in.
    actor.open(spec()).unwrap();
    let (answer, mut answered) = oneshot::channel();
    actor.recompute(Recompute { session: SESSION, ..wanted }, answer);
    assert!(answered.try_recv().unwrap().is_err());
}

#[tokio::test]
async fn what_is_computed_once_more_keeps_to_the_limits_of_a_session() {
    let (mut actor, _orders) = actor();
    let wanted = |prompt: usize, position: u32, rows: usize, temperature: f32| {
        let options = SessionOptions {
            prompt: vec![1; prompt],
            sampling: hive_model::Sampling { temperature, ..hive_model::Sampling::default() },
            ..SessionOptions::default()
        };
        let input = hive_model::shard::Input::Tokens(vec![5; rows]);
        Recompute { session: 9, options, position, input, sample: true }
    };
    for beyond in [wanted(65, 0, 1, 0.0), wanted(0, 0, 65, 0.0), wanted(0, 0, 1, -1.0)] {
        let (answer, mut answered) = oneshot::channel();
        actor.recompute(beyond, answer);
        assert!(answered.try_recv().unwrap().is_err());
    }
    let (answer, mut answered) = oneshot::channel();
    actor.recompute(wanted(0, 0, 64, 0.0), answer);
    assert!(answered.try_recv().is_err(), "it is being computed");
}

#[tokio::test]
async fn an_answer_of_a_whole_model_goes_on_by_itself_until_its_last_token() {
    let (mut actor, mut frames, _orders) = with_session(0);
    actor.tenancy.is_whole = true;
    // It is its own first stage, and nobody empties its queue while it is busy.
    let (first, _queue) = mpsc::channel(1);
    first.try_send(rows(9, 1)).unwrap();
    actor.routes.as_mut().unwrap().first = Some(Destination::Local(first));
    actor.frame(rows(0, 4)).await;
    let token = |position, rows, token| FromWorker::Output {
        session: SessionId(SESSION),
        position,
        rows,
        sample: true,
        output: Output::Token(hive_model::sampling::Sampled { token, logprob: None, top: Vec::new() }),
    };
    actor.said(token(0, 4, 11)).await;
    assert_eq!(actor.sessions[&SESSION].next, 5, "the worker has taken the token");
    let sent = frames.try_recv().unwrap();
    assert_eq!((sent.kind, sent.position), (Kind::Token, 4));
    // Replayed to it, it is known.
    actor.frame(sent).await;
    assert_eq!(actor.sessions[&SESSION].next, 5);
    actor.said(token(4, 1, 2)).await;
    assert!(frames.try_recv().unwrap().last);
    assert_eq!(actor.sessions[&SESSION].next, 5, "the last token is no input");
}
