//! How far a family's answers are from mlx-lm's: the fixtures of `tests/oracle/families`, computed in every way that a
//! swarm may compute them.

use std::collections::BTreeMap;
use std::ops::Range;

use hive_model::sampling::Sampled;
use hive_model::shard::{Input, Output};
use hive_model::{Compute, Footprint, Sampling, SessionId, SessionOptions, Shard, ShardOptions, Slot};
use hive_weights::ModelFiles;
use serde_json::Value;

/// The folder of the fixtures.
pub const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/oracle/families");

/// The largest difference allowed, in shares of the largest logit.
const TOLERANCE: f32 = 1e-3;

/// The length of a chunk of the prompt. Several of the reference's logits are after the end of one.
const CHUNK: usize = 7;

/// Tokens of the answer after which a session is rolled back, and after which it is carried elsewhere.
const ROLLED_BACK: usize = 9;
const CARRIED: usize = 13;

/// Tokens of the prompt with which the next turn begins, too.
const ADOPTED: usize = 31;

/// The reference of one family.
pub struct Fixture(Value);

impl Fixture {
    pub fn read(family: &str) -> Self {
        let text = std::fs::read_to_string(format!("{FIXTURES}/{family}.json")).unwrap();
        Self(serde_json::from_str(&text).unwrap())
    }

    pub fn variants(&self) -> &[Value] {
        self.0["variants"].as_array().unwrap()
    }
}

/// What mlx-lm says about one variant.
struct Reference {
    name: String,
    prompt: Vec<u32>,
    decoded: Vec<u32>,
    logits: BTreeMap<usize, Vec<f32>>,
    largest: f32,
}

impl Reference {
    fn new(variant: &Value) -> Self {
        let ids = |key: &str| variant[key].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        let row = |row: &Value| row.as_array().unwrap().iter().map(|n| n.as_f64().unwrap() as f32).collect();
        let logits: BTreeMap<usize, Vec<f32>> = variant["logits"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(at, logits)| (at.parse().unwrap(), row(logits)))
            .collect();
        let largest = logits.values().flatten().fold(0f32, |largest, logit| largest.max(logit.abs()));
        let name = variant["name"].to_string();
        Self { name, prompt: ids("tokens"), decoded: ids("decoded"), logits, largest }
    }

    /// The token at a position of the conversation.
    fn token(&self, position: usize) -> u32 {
        *self.prompt.get(position).unwrap_or_else(|| &self.decoded[position - self.prompt.len()])
    }

    /// The position of the answer's last token, which need not be computed.
    fn end(&self) -> usize {
        self.prompt.len() + self.decoded.len() - 1
    }

    /// How far logits are off, in shares of the largest.
    fn error(&self, at: usize, logits: &[f32]) -> f32 {
        let expected = &self.logits[&at];
        assert_eq!(logits.len(), expected.len());
        logits.iter().zip(expected).fold(0.0, |worst: f32, (a, b)| worst.max((a - b).abs())) / self.largest
    }

    /// The same for the log probabilities of all tokens.
    fn error_of_probabilities(&self, at: usize, top: &[(u32, f32)]) -> f32 {
        let expected = &self.logits[&at];
        assert_eq!(top.len(), expected.len(), "the alternatives are the whole vocabulary");
        let normalizer = expected.iter().map(|logit| logit.exp()).sum::<f32>().ln();
        let off = top.iter().map(|(id, logprob)| (logprob - (expected[*id as usize] - normalizer)).abs());
        off.fold(0.0, f32::max) / self.largest
    }
}

/// All shards of a model that are needed for some cuts, each loaded once.
struct Shards {
    loaded: BTreeMap<(usize, usize), Shard>,
    /// What was computed so far, by position. With the fast kernels, it is the same to the bit in every way.
    bits: BTreeMap<usize, Vec<(u32, f32)>>,
}

impl Shards {
    fn load(files: &ModelFiles, cuts: &[Vec<Range<usize>>], compute: Compute) -> Self {
        let mut loaded = BTreeMap::new();
        for layers in cuts.iter().flatten() {
            loaded.entry((layers.start, layers.end)).or_insert_with(|| {
                Shard::load(files, &ShardOptions { layers: layers.clone(), compute }, |_| ()).unwrap()
            });
        }
        Self { loaded, bits: BTreeMap::new() }
    }

    fn stage(&mut self, layers: &Range<usize>) -> &mut Shard {
        self.loaded.get_mut(&(layers.start, layers.end)).unwrap()
    }

    fn is_fast(&self) -> bool {
        self.loaded.values().all(Shard::is_fast)
    }

    fn open(&mut self, cut: &[Range<usize>], session: SessionId, logprobs: Option<u8>) {
        for layers in cut {
            self.stage(layers).open(session, options(logprobs)).unwrap();
        }
    }

    fn close(&mut self, cut: &[Range<usize>], session: SessionId) {
        for layers in cut {
            self.stage(layers).close(session);
        }
    }

    /// Computes tokens and samples the next.
    fn step(&mut self, cut: &[Range<usize>], session: SessionId, position: usize, tokens: &[u32]) -> Sampled {
        let mut input = Input::Tokens(tokens.to_vec());
        for layers in cut {
            let slot = Slot { session, position, input, sample: true };
            match self.stage(layers).forward(&[slot]).remove(0).unwrap() {
                Output::Hidden(hidden) => input = Input::Hidden(hidden),
                Output::Token(sampled) => return sampled,
                Output::Nothing => break,
            }
        }
        panic!("the last stage of {cut:?} has sampled nothing");
    }

    /// Takes a session back to a position that all stages can reach, `wanted` or before, and returns it.
    fn roll_back(&mut self, cut: &[Range<usize>], session: SessionId, mut wanted: usize) -> usize {
        loop {
            let reached = cut.iter().map(|layers| {
                let stage = self.stage(layers);
                stage.rollback(session, wanted).unwrap();
                stage.position(session).unwrap()
            });
            let reached: Vec<usize> = reached.collect();
            assert!(reached.iter().all(|position| *position <= wanted), "{reached:?} instead of {wanted}");
            let first = *reached.iter().min().unwrap();
            if reached.iter().all(|position| *position == first) {
                return first;
            }
            wanted = first;
        }
    }

    /// Begins the next turn of a conversation with what was computed for the last one, up to `wanted` or before.
    fn adopt(&mut self, cut: &[Range<usize>], from: SessionId, to: SessionId, wanted: usize) -> usize {
        for layers in cut {
            self.stage(layers).adopt(from, to, wanted, options(Some(u8::MAX))).unwrap();
        }
        let reached = cut.iter().map(|layers| self.stage(layers).position(to).unwrap()).min().unwrap();
        assert!(reached <= wanted, "{reached} instead of {wanted}");
        self.roll_back(cut, to, reached)
    }

    /// Carries a session to a new one, as if its stages were replaced.
    fn carry(&mut self, cut: &[Range<usize>], from: SessionId, to: SessionId) {
        for layers in cut {
            let stage = self.stage(layers);
            let carried = stage.export(from).unwrap();
            let caches: Vec<_> = (0..layers.len()).map(|layer| stage.export_kv(from, layer).unwrap()).collect();
            stage.close(from);
            stage.import_kv(to, options(Some(u8::MAX)), carried, &caches).unwrap();
        }
    }
}

fn options(logprobs: Option<u8>) -> SessionOptions {
    SessionOptions { sampling: Sampling { logprobs, ..Sampling::default() }, ..SessionOptions::default() }
}

/// Every cut of the layers into one, two or three stages, where the model can be cut.
fn cuts(layers: usize, variant: &Value) -> Vec<Vec<Range<usize>>> {
    let uncut = variant["uncut"].as_array().unwrap();
    let places: Vec<usize> = (1..layers).filter(|at| !uncut.contains(&Value::from(*at))).collect();
    let two = places.iter().map(|&at| vec![0..at, at..layers]);
    let three =
        places.iter().flat_map(|&a| places.iter().filter(move |b| a < **b).map(move |&b| vec![0..a, a..b, b..layers]));
    std::iter::once(std::iter::once(0..layers).collect()).chain(two).chain(three).collect()
}

/// One conversation, and how far its logits were off at worst.
struct Conversation<'a> {
    reference: &'a Reference,
    shards: &'a mut Shards,
    cut: &'a [Range<usize>],
    session: SessionId,
    worst: f32,
}
impl Conversation<'_> {
    /// Computes the tokens of these positions in one go, and checks what is said to follow.
    fn advance(&mut self, positions: Range<usize>) {
        let tokens: Vec<u32> = positions.clone().map(|position| self.reference.token(position)).collect();
        let sampled = self.shards.step(self.cut, self.session, positions.start, &tokens);
        self.check(positions.end - 1, &sampled);
    }

    /// Checks what was sampled after a token.
    fn check(&mut self, at: usize, sampled: &Sampled) {
        if at + 1 >= self.reference.prompt.len() {
            assert_eq!(sampled.token, self.reference.token(at + 1), "the token after {at} on {:?}", self.cut);
        }
        if !sampled.top.is_empty() && self.reference.logits.contains_key(&at) {
            let error = self.reference.error_of_probabilities(at, &sampled.top);
            assert!(error < TOLERANCE, "after {at} on {:?}: off by {error}", self.cut);
            self.worst = self.worst.max(error);
        }
        if self.shards.is_fast() && !sampled.top.is_empty() {
            let before = self.shards.bits.entry(at).or_insert_with(|| sampled.top.clone());
            assert!(*before == sampled.top, "after {at} on {:?}: other bits than on another way", self.cut);
        }
    }

    /// Computes up to `end`: the prompt in chunks, the answer token by token.
    fn go_on(&mut self, from: usize, end: usize, chunk: usize) {
        let mut position = from;
        while position < end {
            let prompt = self.reference.prompt.len();
            let next = if position < prompt { prompt.min(position + chunk) } else { position + 1 };
            self.advance(position..next);
            position = next;
        }
    }
}

/// What a variant computed on the cuts into a number of stages.
pub struct Agreement {
    pub compute: Compute,
    pub stages: usize,
    pub cuts: usize,
    /// The largest difference of any logit, in shares of the largest.
    pub worst: f32,
}

/// Computes a variant in every way.
///
/// # Panics
/// Another token follows than by mlx-lm, or logits are off by more than a thousandth of the largest.
pub fn check(files: &ModelFiles, variant: &Value) -> Vec<Agreement> {
    let reference = Reference::new(variant);
    let cuts = cuts(files.config().layers, variant);
    let uncut = variant["uncut"].as_array().unwrap().iter().map(|at| at.as_u64().unwrap() as usize);
    assert!(uncut.eq(files.config().uncut()), "{}: where the model is not cut", reference.name);
    let mut agreements: Vec<Agreement> = Vec::new();
    for compute in [Compute::Plain, Compute::Fast] {
        let mut shards = Shards::load(files, &cuts, compute);
        // The fast kernels need heads of a multiple of their width; others are computed with the plain ones.
        if compute == Compute::Fast && !shards.is_fast() {
            break;
        }
        // What a plan counts with is what a loaded model takes.
        let planned = Footprint::of(files, compute).unwrap();
        let held = shards.stage(&cuts[0][0]).weight_bytes() as u64;
        assert_eq!(planned.weight_bytes(0..files.config().layers), held, "{}, {compute:?}", reference.name);
        whole_model(&reference, &mut shards, &cuts[0]);
        for cut in &cuts {
            let worst = conversations(&reference, &mut shards, cut);
            match agreements.last_mut().filter(|last| last.compute == compute && last.stages == cut.len()) {
                Some(last) => {
                    last.cuts += 1;
                    last.worst = last.worst.max(worst);
                }
                None => agreements.push(Agreement { compute, stages: cut.len(), cuts: 1, worst }),
            }
        }
    }
    agreements
}

/// The logits themselves, and an answer without probabilities, which the device may sample.
fn whole_model(reference: &Reference, shards: &mut Shards, cut: &[Range<usize>]) {
    for at in reference.logits.keys() {
        let tokens: Vec<u32> = (0..=*at).map(|position| reference.token(position)).collect();
        let error = reference.error(*at, &shards.stage(&cut[0]).logits_of(&tokens).unwrap());
        assert!(error < TOLERANCE, "{}: the logits after {at} are off by {error}", reference.name);
    }
    let session = SessionId(1);
    shards.open(cut, session, None);
    let mut conversation = Conversation { reference, shards, cut, session, worst: 0.0 };
    conversation.go_on(0, reference.end(), usize::MAX);
    together(reference, shards, cut);
    shards.open(cut, session, None);
    let ahead = run_ahead(reference, shards.stage(&cut[0]), session);
    Conversation { reference, shards, cut, session, worst: 0.0 }.go_on(ahead, reference.end(), usize::MAX);
    shards.close(cut, session);
}

/// Beside another conversation, in the same batches.
fn together(reference: &Reference, shards: &mut Shards, cut: &[Range<usize>]) {
    let (session, beside) = (SessionId(1), SessionId(2));
    for session in [session, beside] {
        shards.open(cut, session, Some(u8::MAX));
    }
    let mut conversation = Conversation { reference, shards, cut, session, worst: 0.0 };
    let slot =
        |session, position, tokens: Vec<u32>| Slot { session, position, input: Input::Tokens(tokens), sample: true };
    // The other one began earlier, with the same words in another order.
    let mut other: Vec<u32> = reference.prompt.iter().rev().copied().collect();
    let mut read = 0;
    for end in (reference.prompt.len() / 2..other.len()).step_by(CHUNK) {
        conversation.shards.stage(&cut[0]).forward(&[slot(beside, read, other[read..end].to_vec())]).remove(0).unwrap();
        read = end;
    }
    let mut position = 0;
    while position < reference.end() {
        let next = reference.prompt.len().max(position + 1);
        let tokens = (position..next).map(|position| reference.token(position)).collect();
        let batch = [slot(beside, read, other[read..].to_vec()), slot(session, position, tokens)];
        let outputs = conversation.shards.stage(&cut[0]).forward(&batch).into_iter().map(Result::unwrap);
        let outputs: Vec<Output> = outputs.collect();
        let [Output::Token(theirs), Output::Token(ours)] = outputs.as_slice() else { panic!("{outputs:?}") };
        conversation.check(next - 1, ours);
        read = other.len();
        other.push(theirs.token);
        position = next;
    }
    shards.close(cut, session);
    shards.close(cut, beside);
}

/// Computes the prompt and some tokens, each begun before the one before it is read, and one in vain. Returns the
/// position after the last one that was read.
fn run_ahead(reference: &Reference, shard: &mut Shard, session: SessionId) -> usize {
    let start = reference.prompt.len();
    let slot =
        |position, tokens: &[u32]| Slot { session, position, input: Input::Tokens(tokens.to_vec()), sample: true };
    shard.forward(&[slot(0, &reference.prompt)]).remove(0).unwrap();
    let first = [slot(start, &[reference.token(start)])];
    if !shard.can_run_ahead(&first) {
        return start;
    }
    let mut step = shard.start(&first).unwrap();
    for position in start..start + ROLLED_BACK {
        let after = shard.start_after(&step).unwrap().unwrap();
        let (_, at, output) = shard.finish(&step, |_| true).remove(0);
        let Output::Token(sampled) = output.unwrap() else { panic!("nothing was sampled") };
        assert_eq!((at, sampled.token), (position, reference.token(position + 1)), "begun before the last was read");
        step = after;
    }
    assert!(shard.finish(&step, |_| false).is_empty());
    start + ROLLED_BACK
}

/// The prompt whole and in chunks, the answer rolled back and carried elsewhere, the next turn with the same beginning.
fn conversations(reference: &Reference, shards: &mut Shards, cut: &[Range<usize>]) -> f32 {
    let (session, elsewhere, prompt) = (SessionId(1), SessionId(2), reference.prompt.len());
    shards.open(cut, session, Some(u8::MAX));
    let mut conversation = Conversation { reference, shards, cut, session, worst: 0.0 };
    // The harder half is enough for every day on three stages, and with the plain kernels, which are slow, on two.
    let most = if conversation.shards.is_fast() { 2 } else { 1 };
    let all = cut.len() <= most || std::env::var_os("HIVEMIND_TEST_LONG").is_some();
    if all {
        conversation.go_on(0, reference.end(), prompt);
        let reached = conversation.shards.roll_back(cut, session, prompt + ROLLED_BACK);
        conversation.go_on(reached, reference.end(), CHUNK);
        conversation.shards.open(cut, session, Some(u8::MAX));
    }
    conversation.go_on(0, prompt + CARRIED, CHUNK);
    conversation.shards.carry(cut, session, elsewhere);
    conversation.session = elsewhere;
    conversation.go_on(prompt + CARRIED, reference.end(), CHUNK);
    if all {
        let reached = conversation.shards.adopt(cut, elsewhere, session, ADOPTED);
        conversation.session = session;
        conversation.go_on(reached, reference.end(), prompt);
    }
    let (worst, last) = (conversation.worst, conversation.session);
    shards.close(cut, last);
    worst
}

/// Prints the table of `docs/agreement.md`.
pub fn print_table(families: &[&str]) {
    let columns = ["1 stage", "2 stages", "3 stages"];
    let of = |kernels: &str| columns.map(|stages| format!("{kernels}, {stages}")).join(" | ");
    println!("\n| family | variant | cuts | {} | {} |", of("plain"), of("fast"));
    println!("|---|---|---|{}", "---|".repeat(2 * columns.len()));
    for family in families {
        let fixture = Fixture::read(family);
        for variant in fixture.variants() {
            let folder = tempfile::tempdir().unwrap();
            super::formula::write(variant, folder.path());
            let agreements = check(&ModelFiles::open(folder.path()).unwrap(), variant);
            let worst = |compute, stages| {
                let found = agreements.iter().find(|one| (one.compute, one.stages) == (compute, stages));
                found.map_or("—".to_owned(), |one| format!("{:.0e}", one.worst))
            };
            let numbers =
                [Compute::Plain, Compute::Fast].map(|compute| [1, 2, 3].map(|n| worst(compute, n)).join(" | "));
            let cuts: usize = agreements.iter().filter(|one| one.compute == Compute::Plain).map(|one| one.cuts).sum();
            println!("| {family} | {} | {cuts} | {} |", variant["name"].as_str().unwrap(), numbers.join(" | "));
        }
    }
}
