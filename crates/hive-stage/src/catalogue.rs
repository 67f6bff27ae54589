//! The catalogue of the models on this machine's disk.
//!
//! A name in a cache says little: the weights may be missing, or the model may have no chat template. So a process of
//! its own (`worker/text.rs`) opens each model once, and again when its files change. The result decides which models
//! are listed, planned with and announced to other machines. Its digest finds a model that another machine knows by
//! another name. A file that someone here has opened by path is listed from then on.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex as AsyncMutex, Notify};

use crate::models::{self, FindError};
use crate::runtime::aside;
use hive_model::AtLoad;
use hive_peers::Membership;
use hive_peers::data::DataFolder;
use hive_protocol::ModelCopy;
use hive_text::split::files_of;
use hive_worker::text::{Model, TextError};

const FILE: &str = "models.json";

/// Interval between two scans of the disk.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// How long a result counts if the process that read the model died or hung.
const UNSETTLED_FOR: Duration = Duration::from_mins(1);

/// The number of files opened by path that are remembered, the latest ones.
const MOST_OPENED: usize = 64;

/// What kind of model a path holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nature {
    /// It can answer.
    Usable(String),
    /// Its layers can be computed, but it cannot chat.
    Mute(String, TextError),
    /// It cannot be loaded.
    Unusable(TextError),
}

impl Nature {
    /// Identifies the model on every machine; `None` if it cannot be loaded.
    pub fn digest(&self) -> Option<&String> {
        match self {
            Self::Usable(digest) | Self::Mute(digest, _) => Some(digest),
            Self::Unusable(_) => None,
        }
    }

    /// Whether the result comes from the files, and not from the death of the process that read them, which may have
    /// run out of memory.
    fn is_settled(&self) -> bool {
        !matches!(self.fault(), Some(TextError::Died(_) | TextError::Late(_)))
    }

    /// Why it cannot answer, if it cannot.
    pub fn fault(&self) -> Option<&TextError> {
        match self {
            Self::Usable(_) => None,
            Self::Mute(_, why) | Self::Unusable(why) => Some(why),
        }
    }
}

/// Changes whenever the files do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp(String);

impl Stamp {
    /// Of a file, of all parts of a split one, or of all files in a folder; `None` if it does not exist.
    fn of(path: &Path) -> Option<Self> {
        // While more of it comes, it stays the same model.
        if let Some(copy) = models::parts_at(path) {
            return copy.known().map(|known| Self(format!("{} {}", copy.manifest().key(), known.digest)));
        }
        let about = std::fs::metadata(path).ok()?;
        let mut names: Vec<OsString> = Vec::new();
        if about.is_dir() {
            names.extend(std::fs::read_dir(path).ok()?.flatten().map(|entry| entry.file_name()));
            names.sort();
        }
        let mut hasher = Sha256::new();
        for file in names.iter().map(|name| path.join(name)).chain(files_of(path)) {
            // A link counts as its target.
            let Ok(about) = std::fs::metadata(&file) else { continue };
            hasher.update(file.as_os_str().as_encoded_bytes());
            let (size, times) = (if about.is_dir() { 0 } else { about.len() }, (about.mtime(), about.mtime_nsec()));
            hasher.update(format!(" {} {} {size} {times:?} ", about.dev(), about.ino()));
        }
        Some(Self(HEXLOWER.encode(&hasher.finalize()[..16])))
    }
}

/// The result for a model: for which files, and when.
#[derive(Debug, Clone)]
struct Entry {
    stamp: Stamp,
    nature: Nature,
    at: Instant,
}

impl Entry {
    fn new(stamp: Stamp, nature: Nature) -> Self {
        Self { stamp, nature, at: Instant::now() }
    }

    /// Whether the result is still recent enough. Memory that ran short may be available again.
    fn counts(&self, now: Instant) -> bool {
        self.nature.is_settled() || now.duration_since(self.at) < UNSETTLED_FOR
    }
}

/// A model on the disk: its name and path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// `None` for a file that was opened by path.
    pub name: Option<String>,
    /// Its path.
    pub path: PathBuf,
}

/// The models announced to other machines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// Names of the models that can answer.
    pub names: Vec<String>,
    pub copies: Vec<ModelCopy>,
}

/// What is saved of the catalogue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    /// The version of HiveMind that computed the digests.
    version: String,
    /// Paths that were opened directly, the latest last.
    opened: Vec<PathBuf>,
    usable: BTreeMap<PathBuf, KeptEntry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct KeptEntry {
    stamp: Stamp,
    digest: String,
}

/// The catalogue of the models on this machine's disk.
#[derive(Debug, Default)]
pub struct Catalogue {
    entries: Mutex<BTreeMap<PathBuf, Entry>>,
    by_path: Mutex<Vec<PathBuf>>,
    /// By digest, the path that someone here opened last.
    latest: Mutex<BTreeMap<String, PathBuf>>,
    /// The announcement, once every model has been opened.
    told: Mutex<Option<Told>>,
    /// Models are opened one at a time: nobody waits for this.
    opening: AsyncMutex<()>,
    on_disk: Mutex<Kept>,
    /// Wakes `run` when there is something new to scan.
    news: Notify,
    at_load: Mutex<Option<AtLoad>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Catalogue {
    /// Starts from the saved results of this version. A file that cannot be read does not prevent the start.
    pub fn kept(data: &DataFolder) -> Self {
        let read = data.read::<Kept>(FILE);
        let read = read.inspect_err(|error| tracing::warn!("the models on this disk are looked at again: {error}"));
        let kept = read.ok().flatten().unwrap_or_default();
        let is_current = kept.version == env!("CARGO_PKG_VERSION");
        let entry = |(path, KeptEntry { stamp, digest }): (PathBuf, KeptEntry)| {
            (path, Entry::new(stamp, Nature::Usable(digest)))
        };
        let entries = kept.usable.clone().into_iter().filter(|_| is_current).map(entry).collect();
        Self {
            entries: Mutex::new(entries),
            by_path: Mutex::new(kept.opened.clone()),
            on_disk: Mutex::new(kept),
            ..Self::default()
        }
    }

    /// Every model on the disk.
    pub fn places(&self) -> Vec<Place> {
        let named = models::names().into_iter().filter_map(|name| {
            let path = models::path(&name).ok()?;
            Some(Place { name: Some(name), path: std::path::absolute(&path).unwrap_or(path) })
        });
        let mut places: Vec<Place> = named.collect();
        let is_new = |path: &PathBuf| places.iter().all(|place| place.path != *path);
        let parts: Vec<_> = models::in_parts().into_iter().filter(|(path, _)| is_new(path)).collect();
        places.extend(parts.into_iter().map(|(path, name)| Place { name, path }));
        let opened = lock(&self.by_path).clone();
        let is_there = |path: &PathBuf| path.exists() && places.iter().all(|place| place.path != *path);
        let opened: Vec<_> = opened.into_iter().filter(is_there).collect();
        places.extend(opened.into_iter().map(|path| Place { name: None, path }));
        places
    }

    /// The path with this digest that someone here opened last, if it still holds that model.
    pub(crate) fn opened_as(&self, digest: &str) -> Option<PathBuf> {
        let path = lock(&self.latest).get(digest).cloned()?;
        let is_it = |nature: Nature| nature.digest().is_some_and(|known| known == digest);
        self.known(&path).is_some_and(is_it).then_some(path)
    }

    /// Records that someone here opened this path, which holds a model with this digest.
    pub(crate) fn opened(&self, path: &Path, digest: &str) {
        lock(&self.latest).insert(digest.to_owned(), path.to_owned());
    }

    /// Whether a path may hold the model with this digest, as far as the catalogue knows.
    pub(crate) fn may_be(&self, path: &Path, digest: &str) -> bool {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        // The death of the process that read it says nothing about the model.
        self.known(&path)
            .filter(Nature::is_settled)
            .is_none_or(|nature| nature.digest().is_some_and(|known| known == digest))
    }

    /// The result for a path, if it is known for the files as they are now.
    fn known(&self, path: &Path) -> Option<Nature> {
        let entry = lock(&self.entries).get(path).filter(|entry| entry.counts(Instant::now())).cloned()?;
        (Stamp::of(path)? == entry.stamp).then_some(entry.nature)
    }

    fn note(&self, path: &Path, stamp: Option<Stamp>, nature: Nature) {
        if let Some(stamp) = stamp {
            lock(&self.entries).insert(path.to_owned(), Entry::new(stamp, nature));
        }
    }

    /// Has the disk scanned now.
    pub(crate) fn look_again(&self) {
        self.news.notify_one();
    }

    /// Records that someone here opened a model by path.
    fn opened_by_path(&self, path: &Path) {
        let mut opened = lock(&self.by_path);
        if opened.last().is_some_and(|last| last == path) {
            return;
        }
        opened.retain(|other| other != path);
        opened.push(path.to_owned());
        let too_many = opened.len().saturating_sub(MOST_OPENED);
        opened.drain(..too_many);
        drop(opened);
        self.news.notify_one();
    }

    /// Whether a path is listed because someone here opened it.
    pub fn has_opened(&self, path: &Path) -> bool {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        lock(&self.by_path).contains(&path)
    }

    /// Takes a path that someone here opened off the list; its files stay.
    pub fn take_off(&self, path: &Path) {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        lock(&self.by_path).retain(|opened| *opened != path);
        lock(&self.latest).retain(|_, opened| *opened != path);
        lock(&self.entries).remove(&path);
        self.news.notify_one();
    }

    /// The path of the model with this digest, if it is on this disk; preferably of a whole one.
    pub(crate) fn path_of(&self, digest: &str) -> Option<PathBuf> {
        let (parts, whole): (Vec<_>, Vec<_>) =
            self.paths_of(digest).into_iter().partition(|path| models::parts_at(path).is_some());
        whole.into_iter().chain(parts).next()
    }

    /// Every path with the model with this digest.
    pub(crate) fn paths_of(&self, digest: &str) -> Vec<PathBuf> {
        let entries = lock(&self.entries).clone();
        let is_it = |entry: &Entry| entry.nature.digest().is_some_and(|known| known == digest);
        let found =
            entries.into_iter().filter(|(path, entry)| is_it(entry) && Stamp::of(path).as_ref() == Some(&entry.stamp));
        found.map(|(path, _)| path).collect()
    }

    /// The result for a path; opens the model if it is unknown. An error means that no process could be started for
    /// that.
    pub async fn nature(&self, path: &Path) -> Result<Nature, TextError> {
        if let Some(nature) = aside(|| self.known(path)) {
            return Ok(nature);
        }
        let _opening_lock = self.opening.lock().await;
        if let Some(nature) = aside(|| self.known(path)) {
            return Ok(nature);
        }
        self.open(path).await.map(|(nature, _)| nature)
    }

    /// Opens a model and records the result.
    async fn open(&self, path: &Path) -> Result<(Nature, Option<Model>), TextError> {
        // Taken before reading, so that a change in the meantime is noticed.
        let stamp = aside(|| Stamp::of(path));
        let (nature, model) = match models::open_at(path).await {
            Err(TextError::Start(why)) => return Err(TextError::Start(why)),
            Err(why) => (Nature::Unusable(why), None),
            Ok(model) => {
                let digest = model.card().digest.clone();
                match model.can_converse().await {
                    Err(TextError::Start(why)) => return Err(TextError::Start(why)),
                    Err(why) => (Nature::Mute(digest, why), None),
                    Ok(()) => (Nature::Usable(digest), Some(model)),
                }
            }
        };
        self.note(path, stamp, nature.clone());
        Ok((nature, model))
    }

    /// The announcement to other machines; `None` until every model has been opened.
    pub fn told(&self) -> Option<Told> {
        lock(&self.told).clone()
    }

    /// What to save, if it differs from what is saved.
    fn to_keep(&self) -> Option<Kept> {
        let entries = lock(&self.entries).clone();
        let usable = entries.into_iter().filter_map(|(path, Entry { stamp, nature, .. })| match nature {
            Nature::Usable(digest) if path.exists() => Some((path, KeptEntry { stamp, digest })),
            _ => None,
        });
        let (version, opened) = (env!("CARGO_PKG_VERSION").to_owned(), lock(&self.by_path).clone());
        let kept = Kept { version, opened, usable: usable.collect() };
        (*lock(&self.on_disk) != kept).then_some(kept)
    }
}

impl Catalogue {
    /// Opens a model for people and programs here, by name or path. The error says why a model cannot answer.
    pub async fn open_model(&self, name: Option<&str>) -> Result<Model, FindError> {
        let name = name.unwrap_or(models::starter_name());
        let (path, known) = aside(|| {
            let path = models::path(name)?;
            let path = std::path::absolute(&path).unwrap_or(path);
            let known = self.known(&path);
            Ok::<_, FindError>((path, known))
        })?;
        let model = match known.filter(Nature::is_settled) {
            Some(nature) if nature.fault().is_none() => models::open_at(&path).await?,
            Some(Nature::Mute(_, why) | Nature::Unusable(why)) => return Err(why.into()),
            _ => {
                let (nature, model) = self.open(&path).await?;
                match (model, nature) {
                    (Some(model), _) => model,
                    (None, Nature::Mute(_, why) | Nature::Unusable(why)) => return Err(why.into()),
                    (None, Nature::Usable(_)) => models::open_at(&path).await?,
                }
            }
        };
        self.opened(&path, &model.card().digest);
        if models::is_path(name) && aside(|| models::exact_name(&path)).is_none() {
            self.opened_by_path(&path);
        }
        Ok(model.quantized(self.at_load()))
    }

    /// Sets how models that are opened from now on are quantized as they are loaded.
    pub fn quantize_at_load(&self, at_load: Option<AtLoad>) {
        *lock(&self.at_load) = at_load;
    }

    /// How models are quantized as they are loaded.
    pub(crate) fn at_load(&self) -> Option<AtLoad> {
        *lock(&self.at_load)
    }

    /// Opens every new model and updates the announcement.
    async fn take_stock(&self, member: &Membership) {
        let (mut told, mut is_all) = (Told::default(), true);
        for Place { name, path } in aside(|| self.places()) {
            match self.nature(&path).await {
                Ok(nature) => {
                    told.names.extend(name.clone().filter(|_| nature.fault().is_none()));
                    let exact = |name| aside(|| models::exact_name(&path)).unwrap_or(name);
                    told.copies.push(ModelCopy { name: name.map(exact), digest: nature.digest().cloned() });
                }
                Err(why) => {
                    tracing::debug!("a model could not be looked at: {why}");
                    is_all = false;
                }
            }
        }
        if is_all {
            *lock(&self.told) = Some(told);
        }
        if let Some(kept) = aside(|| self.to_keep()) {
            match member.save(FILE, &kept) {
                Ok(()) => *lock(&self.on_disk) = kept,
                Err(error) => tracing::debug!("what is known of the models here was not kept: {error}"),
            }
        }
    }

    /// Scans the models on the disk until the node stops.
    pub async fn run(&self, member: &Membership) {
        loop {
            tokio::select! {
                () = self.take_stock(member) => {}
                () = member.stopping() => return,
            }
            tokio::select! {
                () = tokio::time::sleep(POLL_INTERVAL) => {}
                () = self.news.notified() => {}
                () = member.stopping() => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hive_worker::text::TextFault;

    #[test]
    fn files_that_change_are_looked_at_again_and_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("model");
        std::fs::create_dir(&model).unwrap();
        std::fs::write(model.join("config.json"), "{}").unwrap();
        let catalogue = Catalogue::default();
        let nature = Nature::Usable("11".to_owned());
        let nature_of_parts = Nature::Unusable(TextError::Fault(TextFault::File, "a part is missing".to_owned()));
        catalogue.note(&model, Stamp::of(&model), nature.clone());
        assert_eq!(catalogue.known(&model), Some(nature));
        assert_eq!(catalogue.path_of("11"), Some(model.clone()));
        assert_eq!(catalogue.path_of("22"), None);
        std::fs::write(model.join("config.json"), "{ }").unwrap();
        assert_eq!((catalogue.known(&model), catalogue.path_of("11")), (None, None));
        let parts = [1, 2].map(|part| folder.path().join(format!("model-0000{part}-of-00002.gguf")));
        std::fs::write(&parts[0], "GGUF").unwrap();
        catalogue.note(&parts[0], Stamp::of(&parts[0]), nature_of_parts.clone());
        assert_eq!(catalogue.known(&parts[0]), Some(nature_of_parts));
        std::fs::write(&parts[1], "GGUF").unwrap();
        assert_eq!(catalogue.known(&parts[0]), None, "the part that was missing came");
        catalogue.note(&model, Stamp::of(&model), Nature::Usable("22".to_owned()));
        std::fs::write(model.join("model.safetensors"), "").unwrap();
        assert_eq!(catalogue.known(&model), None, "a file came");
        std::fs::remove_dir_all(&model).unwrap();
        assert_eq!(catalogue.known(&model), None);
    }

    #[test]
    fn what_happened_to_the_process_that_reads_a_model_counts_for_a_minute() {
        let stamp = || Stamp(String::new());
        let short_of_memory = Entry::new(stamp(), Nature::Unusable(TextError::Died("killed".to_owned())));
        let (soon, later) = (short_of_memory.at + UNSETTLED_FOR / 2, short_of_memory.at + UNSETTLED_FOR);
        assert!(short_of_memory.counts(soon) && !short_of_memory.counts(later));
        let damaged = TextError::Fault(TextFault::File, "damaged".to_owned());
        assert!(Entry { nature: Nature::Unusable(damaged), ..short_of_memory }.counts(later));
    }

    #[test]
    fn files_that_became_another_model_are_not_taken_for_what_was_opened() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("model.gguf");
        std::fs::write(&file, "GGUF").unwrap();
        let catalogue = Catalogue::default();
        catalogue.note(&file, Stamp::of(&file), Nature::Usable("11".to_owned()));
        catalogue.opened(&file, "11");
        assert_eq!(catalogue.opened_as("11"), Some(file.clone()));
        std::fs::write(&file, "GGUF of another model").unwrap();
        assert_eq!(catalogue.opened_as("11"), None);
    }

    #[test]
    fn what_was_found_out_is_kept_and_what_another_version_found_out_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("model.gguf");
        std::fs::write(&file, "GGUF").unwrap();
        let data = DataFolder::open(folder.path()).unwrap();
        let catalogue = Catalogue::default();
        catalogue.note(&file, Stamp::of(&file), Nature::Usable("11".to_owned()));
        catalogue.opened_by_path(&file);
        catalogue.opened_by_path(&file);
        let kept = catalogue.to_keep().unwrap();
        data.write(FILE, &kept).unwrap();
        let again = Catalogue::kept(&data);
        assert_eq!(again.path_of("11"), Some(file.clone()));
        assert_eq!(again.to_keep(), None, "there is nothing new to keep");
        assert!(again.places().contains(&Place { name: None, path: file.clone() }));
        data.write(FILE, &Kept { version: "0.0.0".to_owned(), ..kept }).unwrap();
        let newer = Catalogue::kept(&data);
        assert_eq!(newer.path_of("11"), None);
        assert!(newer.places().iter().any(|place| place.path == file), "it is looked at again");
        std::fs::write(folder.path().join(FILE), "[").unwrap();
        assert_eq!(Catalogue::kept(&data).path_of("11"), None);
    }

    #[test]
    fn a_path_that_was_opened_is_listed_until_it_is_taken_off_and_its_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("model.gguf");
        std::fs::write(&file, "GGUF").unwrap();
        let data = DataFolder::open(folder.path()).unwrap();
        let catalogue = Catalogue::default();
        let is_listed = |catalogue: &Catalogue| catalogue.places().iter().any(|place| place.path == file);
        assert!(!catalogue.has_opened(&file) && !is_listed(&catalogue));
        catalogue.opened_by_path(&file);
        catalogue.opened(&file, "11");
        assert!(catalogue.has_opened(&file) && is_listed(&catalogue));
        data.write(FILE, &catalogue.to_keep().unwrap()).unwrap();
        let again = Catalogue::kept(&data);
        again.take_off(&file);
        assert!(!again.has_opened(&file) && !is_listed(&again) && file.exists());
        data.write(FILE, &again.to_keep().unwrap()).unwrap();
        assert!(!Catalogue::kept(&data).has_opened(&file));
    }

    #[tokio::test]
    async fn a_model_without_weights_and_one_that_cannot_be_asked_say_why() {
        let folder = tempfile::tempdir().unwrap();
        let embedding = folder.path().join("embedding");
        std::fs::create_dir(&embedding).unwrap();
        std::fs::write(embedding.join("config.json"), r#"{"model_type": "bert"}"#).unwrap();
        let catalogue = Catalogue::default();
        let nature = catalogue.nature(&embedding).await.unwrap();
        let Nature::Unusable(TextError::Fault(TextFault::File, why)) = &nature else { panic!("{nature:?}") };
        assert!(why.contains("\"bert\" is not supported"), "{why}");
        assert_eq!(nature.digest(), None);
        assert_eq!(catalogue.known(&embedding), Some(nature));
        let starter = models::starter().unwrap();
        assert!(matches!(catalogue.nature(&starter).await.unwrap(), Nature::Usable(_)));
    }
}
