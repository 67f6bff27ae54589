//! A short, deterministic run of a target: its seeds, and mutations of them.

use std::time::{Duration, Instant};

/// What any of them may take, in debug builds on a busy machine.
const LONGEST: Duration = Duration::from_secs(10);

/// A generator of its own, so that a failure repeats.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit.max(1)
    }
}

/// Bytes that decide something in one format or another.
const TELLING: [&[u8]; 12] = [
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\x80",
    b"[",
    b"{{",
    b"{%",
    b"-",
    b"\"",
    b"9999999999",
    b"null",
    b"\xf0\x9f\x90\x9d",
];

/// Gives the target its seeds, which it has to accept, and this many mutations; `HIVEMIND_FUZZ_ROUNDS` times as many,
/// each
/// round others. A seed that is refused at its first byte leads nowhere.
pub fn short_run(seeds: &[Vec<u8>], mutations: usize, run: impl Fn(&[u8]) -> bool) {
    let run = |data: &[u8]| {
        let started = Instant::now();
        let is_accepted = run(data);
        let took = started.elapsed();
        assert!(took < LONGEST, "{took:?} for {:?}", data.escape_ascii().to_string());
        is_accepted
    };
    for seed in seeds {
        assert!(run(seed), "this seed is refused: {}", seed.escape_ascii());
    }
    let rounds = std::env::var("HIVEMIND_FUZZ_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1);
    for round in 0..rounds {
        mutated(seeds, mutations, Numbers(7 + round), &run);
    }
}

fn mutated(seeds: &[Vec<u8>], mutations: usize, mut numbers: Numbers, run: &impl Fn(&[u8]) -> bool) {
    for _ in 0..mutations {
        let mut data = seeds[numbers.below(seeds.len())].clone();
        for _ in 0..=numbers.below(4) {
            let at = numbers.below(data.len() + 1);
            let end = (at + numbers.below(16)).min(data.len());
            match numbers.below(6) {
                0 if at < data.len() => data[at] ^= 1 << numbers.below(8),
                1 if at < data.len() => data[at] = numbers.below(256) as u8,
                2 => drop(data.drain(at..end)),
                3 => drop(data.splice(at..at, TELLING[numbers.below(TELLING.len())].iter().copied())),
                4 => {
                    let copy = data[at..end].to_vec();
                    let to = numbers.below(data.len() + 1);
                    drop(data.splice(to..to, copy));
                }
                _ => {
                    let other = &seeds[numbers.below(seeds.len())];
                    data.truncate(at);
                    data.extend_from_slice(&other[numbers.below(other.len() + 1)..]);
                }
            }
        }
        run(&data);
    }
}
