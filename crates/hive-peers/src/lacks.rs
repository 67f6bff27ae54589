//! Whether another machine has a model: by its report of the models on its disk, and by its replies to load requests.
//!
//! Models are the same if their digests are, whatever their names. Lacking a model is not held against a machine.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hive_net::PeerId;
use hive_protocol::{ModelCopy, ModelSource, Profile, starter_name};
use hive_types::Reason;

/// How a machine lacks a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    /// It does not have the model.
    Missing,
    /// It has a different model of that name.
    Differs,
    /// It has a model of that name that it cannot use.
    Unusable,
}

/// How a machine lacks a model, by its profile; `None` also if the profile does not say, or the machine fetches missing
/// layers.
pub(crate) fn lack(profile: &Profile, source: &ModelSource) -> Option<Lack> {
    let (ModelSource::Named(name, digest), Some(copies)) = (source, &profile.copies) else { return None };
    if profile.fetches {
        return None;
    }
    if copies.iter().any(|copy| copy.digest.as_ref() == Some(digest)) {
        return None;
    }
    let name = name.as_deref().unwrap_or(starter_name());
    let namesake = copies.iter().find(|copy| copy.name.as_deref() == Some(name));
    Some(match namesake {
        Some(ModelCopy { digest: Some(_), .. }) => Lack::Differs,
        Some(ModelCopy { digest: None, .. }) => Lack::Unusable,
        None => Lack::Missing,
    })
}

/// How long a machine's reply that a model is missing overrides its profile, which may be out of date, or from a
/// version that lists no models.
const MISSING_REPORT_LIFETIME: Duration = Duration::from_secs(20);

/// Models that machines reported as missing when asked to load a part.
#[derive(Debug, Default)]
pub struct Lacks(Mutex<HashMap<(PeerId, String), Instant>>);

impl Lacks {
    /// Records that a machine reported the model as missing.
    pub fn note(&self, machine: PeerId, source: &ModelSource) {
        let ModelSource::Named(_, digest) = source else { return };
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|_, at| at.elapsed() < MISSING_REPORT_LIFETIME);
        told.insert((machine, digest.clone()), Instant::now());
    }

    /// How a machine lacks a model, by its profile and its replies.
    pub fn of(&self, machine: PeerId, profile: &Profile, source: &ModelSource) -> Option<Lack> {
        lack(profile, source).or_else(|| self.has_told(machine, source).then_some(Lack::Missing))
    }

    /// Whether a machine has reported a moment ago that it cannot have a model.
    pub fn has_told(&self, machine: PeerId, source: &ModelSource) -> bool {
        let ModelSource::Named(_, digest) = source else { return false };
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.get(&(machine, digest.clone())).is_some_and(|at| at.elapsed() < MISSING_REPORT_LIFETIME)
    }
}

/// A model that a machine of this name lacks, with the remedy.
pub fn lacking(machine: String, model: &ModelSource, lack: Lack) -> Reason {
    let model = model.name();
    let is_starter = model == starter_name();
    let is_repository = model.contains('/');
    match lack {
        Lack::Missing if is_starter => Reason::NoStarter { machine, model },
        Lack::Missing if is_repository => {
            let Download { folder, command } = download(&model);
            Reason::NoDownload { machine, model, folder, command }
        }
        Lack::Missing => Reason::NoFile { machine, model },
        Lack::Differs if is_starter => Reason::OtherStarter { machine, model },
        Lack::Differs => Reason::OtherModel { machine, model },
        Lack::Unusable => Reason::UnusableModel { machine, model },
    }
}

/// How to get a model into another machine's cache.
struct Download {
    /// The repository's folder in the cache.
    folder: String,
    /// The command that downloads it.
    command: String,
}

/// For `owner/name`, optionally followed by `@revision` or `/file`.
fn download(model: &str) -> Download {
    let (owner, rest) = model.split_once('/').unwrap_or(("", model));
    let (base, file) = rest.split_once('/').map_or((rest, None), |(base, file)| (base, Some(file)));
    let (name, revision) = base.split_once('@').map_or((base, None), |(name, revision)| (name, Some(revision)));
    // Of a split model, all parts.
    let part = |file: &str| file.replace("-00001-of-", "-*-of-");
    let file =
        file.map(|file| if part(file) == file { format!(" {file}") } else { format!(" --include '{}'", part(file)) });
    let file = file.unwrap_or_default();
    let revision = revision.map(|revision| format!(" --revision {revision}")).unwrap_or_default();
    Download {
        folder: format!("models--{owner}--{name}"),
        command: format!("hf download {owner}/{name}{file}{revision}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, digest: &str) -> ModelSource {
        ModelSource::Named(Some(name.to_owned()), digest.to_owned())
    }

    fn profile(copies: &[(Option<&str>, Option<&str>)]) -> Profile {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let copies = copies.iter().map(|&(name, digest)| ModelCopy { name: owned(name), digest: owned(digest) });
        Profile { copies: Some(copies.collect()), ..Profile::default() }
    }

    #[test]
    fn a_model_is_known_by_its_digest_and_not_by_its_name() {
        let there = profile(&[(Some("a/b"), Some("11")), (None, Some("22")), (Some("a/broken"), None)]);
        assert_eq!(lack(&there, &named("a/b", "11")), None);
        assert_eq!(lack(&there, &named("x/y", "11")), None, "it has another name there");
        assert_eq!(lack(&there, &named("file", "22")), None, "it has no name there");
        assert_eq!(lack(&there, &named("a/b", "33")), Some(Lack::Differs));
        assert_eq!(lack(&there, &named("a/c", "33")), Some(Lack::Missing));
        assert_eq!(lack(&there, &named("a/broken", "33")), Some(Lack::Unusable));
        assert_eq!(lack(&there, &ModelSource::Named(None, "33".to_owned())), Some(Lack::Missing));
        assert_eq!(lack(&Profile::default(), &named("a/b", "33")), None, "it does not say what it has");
    }

    #[test]
    fn what_a_machine_said_counts_for_a_while_where_its_disk_is_not_known() {
        let (lacks, machine) = (Lacks::default(), hive_net::Identity::generate().id());
        let silent = Profile::default();
        assert_eq!(lacks.of(machine, &silent, &named("a/b", "11")), None);
        lacks.note(machine, &named("a/b", "11"));
        assert_eq!(lacks.of(machine, &silent, &named("a/b", "11")), Some(Lack::Missing));
        assert_eq!(lacks.of(machine, &silent, &named("a/b", "22")), None);
        assert_eq!(lacks.of(machine, &profile(&[(Some("a/b"), Some("22"))]), &named("a/b", "11")), Some(Lack::Differs));
    }

    #[test]
    fn what_is_missing_is_said_with_what_to_do() {
        let words = |model: &ModelSource, lack| lacking("beta".to_owned(), model, lack).to_string();
        let missing = words(&named("owner/name", "1"), Lack::Missing);
        assert!(missing.starts_with("beta does not have owner/name: copy models--owner--name into"), "{missing}");
        assert!(missing.contains("`hf download owner/name` there"), "{missing}");
        let exact = words(&named("owner/name@4bit/model-Q4_0.gguf", "1"), Lack::Missing);
        assert!(exact.contains("`hf download owner/name model-Q4_0.gguf --revision 4bit` there"), "{exact}");
        let split = words(&named("owner/name/Q8_0/model-00001-of-00002.gguf", "1"), Lack::Missing);
        assert!(split.contains("`hf download owner/name --include 'Q8_0/model-*-of-00002.gguf'` there"), "{split}");
        let differs = words(&named("owner/name", "1"), Lack::Differs);
        assert!(differs.starts_with("beta's copy of owner/name differs from yours: "), "{differs}");
        let file = words(&named("tuned", "1"), Lack::Missing);
        assert!(file.contains("copy it there") && file.contains("models load PATH"), "{file}");
        let starter = words(&ModelSource::Named(None, "1".to_owned()), Lack::Differs);
        assert!(starter.ends_with("update HiveMind on both machines"), "{starter}");
    }
}
