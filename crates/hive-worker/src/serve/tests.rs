//! Failing work in a batch, as the node sees it.

use std::collections::BTreeMap;
use std::io::pipe;

use hive_model::shard::{Input, Output};
use hive_model::{ActivationType, Compute, Hidden, Sampling};

use super::*;

#[path = "../../../hive-weights/tests/common/mod.rs"]
mod common;

use common::{HIDDEN, LAYERS, write_tiny_model};

/// A computer with a tiny model and sessions 0, 1 and 2, and the pipe with its replies.
fn computer(layers: Range<usize>, change: impl FnMut(&str, &mut [f32])) -> (WorkerLoop, std::io::PipeReader) {
    let (computer, theirs, _) = computer_with(Compute::Auto, layers, change);
    (computer, theirs)
}

/// The same with these kernels, and the pipe for orders.
fn computer_with(
    compute: Compute,
    layers: Range<usize>,
    change: impl FnMut(&str, &mut [f32]),
) -> (WorkerLoop, std::io::PipeReader, std::io::PipeWriter) {
    let folder = tempfile::tempdir().unwrap();
    write_tiny_model(folder.path(), change);
    let (theirs, ours) = pipe().unwrap();
    let (orders, writer) = pipe().unwrap();
    let orders = Orders { pipe: File::from(std::os::fd::OwnedFd::from(orders)), bytes: Vec::new(), unread: 0..0 };
    let mut computer = WorkerLoop {
        replies: File::from(std::os::fd::OwnedFd::from(ours)),
        orders,
        schedule: Schedule::default(),
        shard: None,
        report: WorkerReport::default(),
        imports: HashMap::new(),
        stalled: HashSet::new(),
        resting: HashSet::new(),
        endings: HashMap::new(),
    };
    let files = ModelFiles::open(folder.path()).unwrap();
    let options = ShardOptions { layers, compute };
    computer.shard = Some(Shard::load(&files, &options, |_| ()).unwrap());
    for session in 0..3 {
        computer.take(ToWorker::Open(SessionId(session), SessionOptions::default())).unwrap();
    }
    (computer, theirs, writer)
}

fn hidden(position: u32, number: f32) -> Input {
    let numbers = (0..HIDDEN).map(|at| if at == HIDDEN / 2 { number } else { (position as usize + at) as f32 / 64.0 });
    let bytes = numbers.flat_map(f32::to_le_bytes).collect();
    Input::Hidden(Hidden { activation: ActivationType::F32, rows: 1, width: HIDDEN, bytes })
}

fn work(session: u128, position: u32, input: Input) -> Work {
    Work { session: SessionId(session), position, sample: true, input }
}

/// The replies to a batch.
fn said(computer: &mut WorkerLoop, theirs: &mut std::io::PipeReader, batch: Vec<Work>) -> Vec<FromWorker> {
    computer.forward(batch).unwrap();
    // Ends the replies with a known message.
    computer.take(ToWorker::Report).unwrap();
    let mut all = Vec::new();
    loop {
        let mut prefix = [0; 4];
        theirs.read_exact(&mut prefix).unwrap();
        let mut message = vec![0; u32::from_le_bytes(prefix) as usize];
        theirs.read_exact(&mut message).unwrap();
        match postcard::from_bytes(&message).unwrap() {
            FromWorker::Report(_) => return all,
            message => all.push(message),
        }
    }
}

/// The session and its result: a token, or who is at fault and where the session is.
fn in_short(message: &FromWorker) -> (u128, Result<u32, (Blame, Option<u32>)>) {
    match message {
        FromWorker::Output { session, position, output: Output::Token(_), .. } => (session.0, Ok(*position)),
        FromWorker::Failed { session, position, blame, .. } => (session.0, Err((*blame, *position))),
        other => panic!("{other:?}"),
    }
}

#[test]
fn hidden_states_that_are_not_finite_are_the_senders_fault_and_the_others_have_their_tokens() {
    for place in 0..3 {
        let (mut computer, mut theirs) = computer(1..LAYERS, |_, _| ());
        for bad in [f32::NAN, f32::INFINITY] {
            let shard = computer.shard.as_ref().unwrap();
            let done = [0, 1, 2].map(|session| shard.position(SessionId(session)).unwrap() as u32);
            let batch = (0..3).zip(done);
            let batch = batch.map(|(id, at)| work(id, at, hidden(at, if id == place { bad } else { 0.5 }))).collect();
            let all: Vec<_> = said(&mut computer, &mut theirs, batch).iter().map(in_short).collect();
            let expected = (0..3).zip(done).map(|(session, at)| {
                let failed = (Blame::Previous, Some(at));
                (session, if session == place { Err(failed) } else { Ok(at) })
            });
            assert_eq!(all, expected.collect::<Vec<_>>());
        }
    }
}

#[test]
fn numbers_that_the_own_weights_spoil_are_the_own_fault() {
    let (mut computer, mut theirs) = computer(1..LAYERS, |name, numbers| {
        if name == "model.layers.1.mlp.down_proj.weight" {
            numbers[0] = f32::NAN;
        }
    });
    let all = said(&mut computer, &mut theirs, vec![work(1, 0, hidden(0, 0.5))]);
    assert_eq!(in_short(&all[0]), (1, Err((Blame::Own, Some(0)))));
}

#[test]
fn what_was_on_its_way_behind_a_failure_is_no_second_complaint() {
    let (mut computer, mut theirs) = computer(1..LAYERS, |_, _| ());
    let mut step = |position, number| -> Vec<_> {
        let batch = vec![work(0, position, hidden(position, number))];
        said(&mut computer, &mut theirs, batch).iter().map(in_short).collect()
    };
    assert_eq!(step(0, 0.5), [(0, Ok(0))]);
    assert_eq!(step(1, f32::NAN), [(0, Err((Blame::Previous, Some(1))))]);
    assert_eq!(step(2, 0.5), []);
    assert_eq!(step(3, f32::NAN), []);
    // It is resent after the ring has failed over, and continues.
    assert_eq!(step(1, 0.5), [(0, Ok(1))]);
    assert_eq!(step(2, 0.5), [(0, Ok(2))]);
    // A gap without an earlier failure is the requester's mistake.
    assert_eq!(step(9, 0.5), [(0, Err((Blame::Request, Some(3))))]);
}

#[test]
fn a_token_that_is_none_is_the_senders_fault() {
    let (mut computer, mut theirs) = computer(0..LAYERS, |_, _| ());
    let tokens = |token| Input::Tokens(vec![token]);
    let batch = vec![work(0, 0, tokens(3)), work(1, 0, tokens(u32::MAX))];
    let all: Vec<_> = said(&mut computer, &mut theirs, batch).iter().map(in_short).collect();
    assert_eq!(all, [(0, Ok(0)), (1, Err((Blame::Previous, Some(0))))]);
}

/// The sessions' tokens, with the positions that computed them, until all answers have ended.
fn answers(computer: &mut WorkerLoop, theirs: &mut std::io::PipeReader, first: Vec<Work>) -> Vec<BTreeMap<u32, u32>> {
    let mut answers = vec![BTreeMap::new(); 3];
    let mut batch = first;
    while !batch.is_empty() {
        for message in said(computer, theirs, batch) {
            let FromWorker::Output { session, position, output: Output::Token(sampled), .. } = message else {
                panic!("{message:?}")
            };
            assert_eq!(answers[session.0 as usize].insert(position, sampled.token), None, "{position} came twice");
        }
        batch = computer.schedule.next(Instant::now());
    }
    answers
}

/// Opens the sessions, two of them sampled, and lets their answers run ahead and end at these positions.
fn run_ahead(computer: &mut WorkerLoop, ends: [u32; 3]) {
    for (session, last_position) in (0..3).zip(ends) {
        let session = SessionId(session);
        let temperature = [0.0, 0.9, 1.5][session.0 as usize];
        let sampling = Sampling { temperature, top_k: 5 * session.0 as u32, seed: 7, ..Sampling::default() };
        computer.take(ToWorker::Open(session, SessionOptions { sampling, ..SessionOptions::default() })).unwrap();
        if last_position > 0 {
            computer.take(ToWorker::RunAhead(session, Ending { end_tokens: Vec::new(), last_position })).unwrap();
        }
    }
}

fn prompts() -> Vec<Work> {
    (0..3).map(|session| work(session, 0, Input::Tokens(vec![session as u32 + 3, 9, 4]))).collect()
}

#[test]
fn answers_run_ahead_until_each_ends_with_the_tokens_that_the_node_would_have_asked_for() {
    for compute in [Compute::Plain, Compute::Fast] {
        let ends = [20, 9, 14];
        let (mut computer, mut theirs, _writer) = computer_with(compute, 0..LAYERS, |_, _| ());
        run_ahead(&mut computer, ends);
        let by_themselves = answers(&mut computer, &mut theirs, prompts());
        run_ahead(&mut computer, [0; 3]);
        let mut asked = vec![BTreeMap::new(); 3];
        let mut batch = prompts();
        while !batch.is_empty() {
            let got = answers(&mut computer, &mut theirs, batch);
            batch = Vec::new();
            for (session, tokens) in got.into_iter().enumerate() {
                let Some((position, token)) = tokens.last_key_value() else { continue };
                let next = if *position == 0 { 3 } else { position + 1 };
                if next < ends[session] {
                    batch.push(work(session as u128, next, Input::Tokens(vec![*token])));
                }
                asked[session].extend(tokens);
            }
        }
        assert_eq!(by_themselves, asked, "{compute:?}");
        assert_eq!(
            by_themselves.iter().map(|tokens| tokens.keys().last().copied()).collect::<Vec<_>>(),
            ends.map(|end| Some(end - 1)),
            "the last token is at the last position"
        );
    }
}

#[test]
fn an_answer_ends_with_the_token_that_ends_it() {
    for compute in [Compute::Plain, Compute::Fast] {
        let (mut computer, mut theirs, _writer) = computer_with(compute, 0..LAYERS, |_, _| ());
        run_ahead(&mut computer, [30, 0, 0]);
        let first = || vec![prompts().remove(0)];
        let tokens = answers(&mut computer, &mut theirs, first()).remove(0);
        let end = *tokens.values().nth(6).unwrap();
        let until = tokens.values().position(|token| *token == end).unwrap();
        let session = SessionId(0);
        computer.take(ToWorker::Open(session, SessionOptions::default())).unwrap();
        computer.take(ToWorker::RunAhead(session, Ending { end_tokens: vec![end], last_position: 30 })).unwrap();
        let ended = answers(&mut computer, &mut theirs, first()).remove(0);
        assert!(ended.into_iter().eq(tokens.into_iter().take(until + 1)), "{compute:?}");
    }
}

#[test]
fn an_order_ends_the_running_ahead_and_a_closed_answer_says_no_more() {
    let (mut computer, mut theirs, mut writer) = computer_with(Compute::Plain, 0..LAYERS, |_, _| ());
    run_ahead(&mut computer, [400, 0, 0]);
    said(&mut computer, &mut theirs, vec![prompts().remove(0)]);
    let batch = computer.schedule.next(Instant::now());
    writer.write_all(&encode(&ToWorker::Close(SessionId(0))).unwrap()).unwrap();
    let outputs = said(&mut computer, &mut theirs, batch);
    assert!(outputs.len() <= 2, "{outputs:?}");
    let mut orders = VecDeque::new();
    computer.orders.take(&mut orders, false).unwrap();
    for order in orders {
        computer.take(order).unwrap();
    }
    assert!(computer.schedule.is_empty());
}

#[test]
fn a_model_that_computes_nonsense_ends_its_answers_once() {
    for compute in [Compute::Plain, Compute::Fast] {
        let (mut computer, mut theirs, _writer) = computer_with(compute, 0..LAYERS, |name, numbers| {
            if name == "model.norm.weight" {
                numbers[0] = f32::NAN;
            }
        });
        run_ahead(&mut computer, [30, 0, 0]);
        let all = said(&mut computer, &mut theirs, vec![prompts().remove(0)]);
        assert_eq!(all.iter().map(in_short).collect::<Vec<_>>(), [(0, Err((Blame::Own, Some(0))))], "{compute:?}");
        assert!(computer.schedule.is_empty());
    }
}
