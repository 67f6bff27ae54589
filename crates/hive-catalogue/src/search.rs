//! Finds models by words: of a name, a family, a repository, a size, or a task that a model is good at.
//!
//! Every word must match somewhere. Better matches come first: a whole name, its beginning, a word of it, the beginning
//! of a word, any part, and last a word with one wrong letter. Models that match equally well keep their order.

use crate::catalogue::Catalogue;
use crate::model::CatalogueEntry;

/// A model that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit<'a> {
    /// The model.
    pub entry: &'a CatalogueEntry,
    /// How well it matches: more is better.
    pub score: u32,
}

/// All words together are the model's name.
const WHOLE_NAME: u32 = 1000;
/// All words together begin its name.
const START_OF_NAME: u32 = 500;
/// A word of its name.
const WORD_OF_NAME: u32 = 100;
/// The beginning of a word of its name.
const START_OF_WORD: u32 = 80;
/// Its size: "8b".
const SIZE: u32 = 70;
/// A word of its family, its quantizations' repositories, or its tasks.
const OTHER_WORD: u32 = 60;
/// The beginning of such a word.
const START_OF_OTHER_WORD: u32 = 45;
/// Letters anywhere in its name or a repository.
const PART: u32 = 30;
/// A word with one wrong letter.
const TYPO: u32 = 10;

/// A shorter word with one wrong letter could be anything.
const SHORTEST_TYPO: usize = 4;
/// By how much a model's parameters may differ from the size that people call it by.
const SIZE_TOLERANCE: f64 = 0.06;

/// The models that match all words, the best first; all of them if there are no words.
pub fn search<'a>(catalogue: &'a Catalogue, words: &str) -> Vec<Hit<'a>> {
    let wanted = words.to_lowercase();
    let wanted: Vec<&str> = wanted.split_whitespace().collect();
    let hit = |entry| Some(Hit { entry, score: score(entry, &wanted)? });
    let mut hits: Vec<Hit<'a>> = catalogue.entries.iter().filter_map(hit).collect();
    // Stable, so that equal ones keep their order.
    hits.sort_by_key(|hit| std::cmp::Reverse(hit.score));
    hits
}

/// How well a model matches; `None` if a word is nowhere in it.
fn score(entry: &CatalogueEntry, wanted: &[&str]) -> Option<u32> {
    if wanted.is_empty() {
        return Some(0);
    }
    let name = entry.name.to_lowercase();
    let repositories = entry.variants.iter().map(|variant| variant.model().to_lowercase());
    let others: Vec<String> = repositories
        .chain([entry.family.to_lowercase()])
        .chain(entry.good_at.iter().cloned())
        .chain(entry.tools.then(|| "tools".to_owned()))
        .chain(entry.thinking.then(|| "thinking".to_owned()))
        .collect();
    let all = wanted.iter().map(|word| score_of(word, entry, &name, &others)).sum::<Option<u32>>()?;
    let (name, wanted) = (squeezed(&name), squeezed(&wanted.concat()));
    let as_a_whole = match name.strip_prefix(&wanted) {
        Some("") => WHOLE_NAME,
        Some(_) => START_OF_NAME,
        None => 0,
    };
    Some(all + as_a_whole)
}

fn score_of(word: &str, entry: &CatalogueEntry, name: &str, others: &[String]) -> Option<u32> {
    let in_name = || words(name);
    let elsewhere = || others.iter().flat_map(|text| words(text).chain([text.as_str()]));
    let part = squeezed(word);
    let has_part = |text: &str| !part.is_empty() && squeezed(text).contains(&part);
    let is_near = |other: &str| word.chars().count() >= SHORTEST_TYPO && is_one_letter_off(word, other);
    // `8b` is neither in `80b` nor the beginning of `8bit`.
    let may_be_part = size(word).is_none();
    let found = if in_name().any(|other| other == word) {
        WORD_OF_NAME
    } else if may_be_part && in_name().any(|other| other.starts_with(word)) {
        START_OF_WORD
    } else if size(word).is_some_and(|size| (entry.parameters as f64 / size - 1.0).abs() < SIZE_TOLERANCE) {
        SIZE
    } else if elsewhere().any(|other| other == word) {
        OTHER_WORD
    } else if !may_be_part {
        return None;
    } else if elsewhere().any(|other| other.starts_with(word)) {
        START_OF_OTHER_WORD
    } else if has_part(name) || others.iter().any(|text| has_part(text)) {
        PART
    } else if in_name().chain(elsewhere()).any(is_near) {
        TYPO
    } else {
        return None;
    };
    Some(found)
}

/// The words of a name: `qwen3.5` is one, and so is `4bit` of `Qwen3.5-9B-4bit`.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', '-', '_', '/', ':']).filter(|word| !word.is_empty())
}

/// The letters and digits only: `gpt oss`, `gpt-oss` and `gptoss` are the same.
fn squeezed(text: &str) -> String {
    text.chars().filter(|letter| letter.is_alphanumeric() || *letter == '.').collect()
}

/// Parameters, if a word is a size such as `8b` or `0.6b`.
fn size(word: &str) -> Option<f64> {
    let billions = word.strip_suffix('b')?.parse::<f64>().ok()?;
    (billions > 0.0).then_some(billions * 1e9)
}

/// Whether one letter more, less or other, or two that changed places, is all that differs.
fn is_one_letter_off(word: &str, other: &str) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (word.chars().collect(), other.chars().collect());
    let same_start = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[same_start..], &b[same_start..]);
    let same_end = a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[..a.len() - same_end], &b[..b.len() - same_end]);
    match (a, b) {
        ([_], [_] | []) | ([], [_]) => true,
        ([first, second], [other_first, other_second]) => first == other_second && second == other_first,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(Catalogue::built_in);

    fn names(words: &str) -> Vec<String> {
        search(&CATALOGUE, words).into_iter().map(|hit| hit.entry.name.clone()).collect()
    }

    #[test]
    fn the_better_match_comes_first() {
        for (words, first) in [
            ("Qwen3 8B", "Qwen3 8B"),
            ("qwen3-8b", "Qwen3 8B"),
            ("gptoss", "gpt-oss 20B"),
            ("gpt oss 120b", "gpt-oss 120B"),
            ("llama 3.3", "Llama 3.3 70B Instruct"),
            ("llama3.3", "Llama 3.3 70B Instruct"),
            ("flash", "GLM 4.7 Flash"),
            ("glm air", "GLM 4.5 Air"),
            ("mlx-community/Qwen3-14B-4bit", "Qwen3 14B"),
            ("gemma4 31b", "Gemma 4 31B"),
            ("kimi_k2", "Kimi K2 Instruct"),
        ] {
            assert_eq!(names(words).first().map(String::as_str), Some(first), "{words}: {:?}", names(words));
        }
        // The whole name before names that begin with it, and those before names that only contain it.
        // Whatever the order of the entries is.
        let entries = CATALOGUE.entries.iter().rev().cloned().collect();
        let reversed = Catalogue { entries, problem: None };
        for catalogue in [&*CATALOGUE, &reversed] {
            let hits = search(catalogue, "qwen3 30b a3b");
            assert_eq!(hits[0].entry.name, "Qwen3 30B A3B");
            assert_eq!(hits[1].entry.name, "Qwen3 30B A3B Instruct 2507");
        }
        let qwen = names("qwen3 8b");
        let after = |name: &str| qwen.iter().position(|found| found == name).unwrap();
        assert!(after("Qwen3 8B") < after("DeepSeek R1 0528 Qwen3 8B"));
    }

    #[test]
    fn a_model_is_found_by_its_size_and_by_what_it_is_good_at() {
        let eights = names("8b");
        assert!(["Llama 3.1 8B Instruct", "Qwen3 8B"].iter().all(|name| eights.contains(&(*name).to_owned())));
        assert!(!eights.iter().any(|name| name.contains("70B")), "{eights:?}");
        assert!(names("15b").contains(&"Phi-4".to_owned()), "its 14.7 billions are nowhere in its name");
        let small = names("code tools");
        assert!(small.contains(&"Qwen3 Coder Next".to_owned()) && !small.contains(&"Phi-4".to_owned()));
        let small = names("small machines thinking");
        assert!(small.contains(&"Qwen3 0.6B".to_owned()) && !small.contains(&"Qwen3 32B".to_owned()));
    }

    #[test]
    fn one_wrong_letter_is_forgiven_and_two_are_not() {
        for words in ["mistrl", "mistrall", "mistrel", "msitral"] {
            assert!(names(words).contains(&"Mistral Nemo Instruct 2407".to_owned()), "{words}");
        }
        for words in ["mixtrel", "granit 8b", "reasoming"] {
            assert!(!names(words).is_empty(), "{words}");
        }
        assert_eq!(names("msitrel"), Vec::<String>::new());
        assert_eq!(names("phl"), Vec::<String>::new(), "three letters could be anything");
        assert_eq!(names("qwen3 horse"), Vec::<String>::new(), "every word must match");
        // A word that is right comes before one that is nearly so.
        assert!(names("mistral")[0].starts_with("Mistral"));
        assert!(names("mixtral")[0].starts_with("Mixtral"));
    }

    #[test]
    fn no_words_find_everything_in_its_order() {
        let all: Vec<_> = search(&CATALOGUE, " ").into_iter().map(|hit| hit.entry).collect();
        assert_eq!(all, CATALOGUE.entries.iter().collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn any_words_are_searched_for(words in ".{0,40}") {
            prop_assert!(search(&CATALOGUE, &words).len() <= CATALOGUE.entries.len());
        }

        #[test]
        fn a_name_finds_its_model_first(index in 0usize..60) {
            let name = &CATALOGUE.entries[index].name;
            prop_assert_eq!(&search(&CATALOGUE, name)[0].entry.name, name);
        }
    }
}
