//! Finds models in a Hugging Face cache by the names that people write.
//!
//! Most names are `owner/name`: the revision downloaded as `main`, and the only model in it. If that is ambiguous, more
//! is needed: `owner/name@revision` names a branch, a tag or the beginning of a commit. Of several GGUF files,
//! `owner/name:Q4_0` names the one with this quantization, as in llama.cpp and Ollama, and `owner/name/file.gguf` names
//! a file. A name is compared with the entries of the cache and never used as a path, so no name leads out of it.

use std::path::{Path, PathBuf};

use hive_store::gguf_name::{self, bare, end_of_revision, has_label, is_gguf, joined, label, part_of};

/// Hosts that may precede the owner.
const HUBS: [&str; 3] = ["hf.co/", "huggingface.co/", "www.huggingface.co/"];
/// The prefix of a model repository's folder in the cache.
const PREFIX: &str = "models--";
/// The default revision.
const MAIN: &str = "main";
/// The shortest abbreviation of a commit.
const SHORTEST_COMMIT: usize = 6;
/// The number of a commit's letters that are shown.
const SHOWN_COMMIT: usize = 12;
/// The maximum depth of GGUF files in a repository: some have a folder per quantization.
const DEPTH: usize = 2;
/// The maximum number of files considered per repository.
const MOST_FILES: usize = 1000;

/// Why a name matches no model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unfound {
    /// There is no such repository.
    Nothing,
    /// The repository is there, but not the named revision or file; holds the names of those that are.
    Other(Vec<String>),
    /// The repository has several models; holds their names.
    Several(Vec<String>),
}

/// A parsed name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Written<'a> {
    owner: &'a str,
    name: &'a str,
    revision: Option<&'a str>,
    part: Part<'a>,
}

/// The model within a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part<'a> {
    /// The only one.
    Only,
    /// The GGUF file with this quantization in its name.
    Label(&'a str),
    /// The GGUF file with this name.
    File(&'a str),
}

impl<'a> Written<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let text = HUBS.into_iter().find_map(|hub| text.strip_prefix(hub)).unwrap_or(text);
        let (owner, rest) = text.split_once('/')?;
        let end = rest.find(['@', ':', '/']).unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        let (revision, rest) = match rest.strip_prefix('@') {
            Some(rest) => {
                let (revision, rest) = rest.split_at(end_of_revision(rest));
                (Some(revision), rest)
            }
            None => (None, rest),
        };
        let part = match rest.split_at_checked(1) {
            None => Part::Only,
            Some((":", label)) if !label.is_empty() => Part::Label(label),
            Some(("/", file)) if is_gguf(file) => Part::File(file),
            Some(_) => return None,
        };
        let is_plain = is_plain(owner) && is_plain(name) && revision.is_none_or(|it| it.split('/').all(is_plain));
        is_plain.then_some(Self { owner, name, revision, part })
    }

    fn folder(&self, cache: &Path) -> PathBuf {
        cache.join(format!("{PREFIX}{}--{}", self.owner, self.name))
    }
}

/// Whether a part has only characters that names on the hub have; none of them leads out of a folder.
fn is_plain(part: &str) -> bool {
    part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// Whether a model on a hub may have this name.
pub(crate) fn is_of_a_hub(name: &str) -> bool {
    Written::read(name).is_some()
}

/// Finds the folder or file of a model in a cache, by name.
pub(crate) fn find(cache: &Path, name: &str) -> Result<PathBuf, Unfound> {
    let written = Written::read(name).ok_or(Unfound::Nothing)?;
    let folder = written.folder(cache);
    let snapshot = snapshot(&folder, written.revision).map_err(|known| {
        let name = |revision: String| format!("{}/{}@{revision}", written.owner, written.name);
        let known: Vec<String> = known.into_iter().map(name).collect();
        match written.revision {
            _ if known.is_empty() => Unfound::Nothing,
            Some(_) => Unfound::Other(known),
            None => Unfound::Several(known),
        }
    })?;
    let contents = Contents::of(&snapshot, DEPTH);
    let base = base(&written, &folder, &snapshot);
    contents.choose(written.part, &base).map(|file| file.map_or(snapshot.clone(), |file| snapshot.join(file)))
}

/// Repository and revision as displayed; the default revision is not shown.
fn base(written: &Written, folder: &Path, snapshot: &Path) -> String {
    let name = format!("{}/{}", written.owner, written.name);
    let is_usual = self::snapshot(folder, None).is_ok_and(|usual| usual == snapshot);
    if is_usual { name } else { format!("{name}@{}", revision_of(folder, snapshot)) }
}

/// The display name of a snapshot: its branch or tag, or its commit.
fn revision_of(folder: &Path, snapshot: &Path) -> String {
    let commit = snapshot.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let named =
        references(folder).into_iter().find(|(name, of)| *of == commit && is_readable(name)).map(|(name, _)| name);
    named.unwrap_or_else(|| commit.chars().take(SHOWN_COMMIT).collect())
}

/// Whether a branch or tag remains unambiguous with a label or file after it.
fn is_readable(revision: &str) -> bool {
    ["", ":Q4_0", "/a.gguf"].into_iter().all(|part| {
        let name = format!("owner/name@{revision}{part}");
        Written::read(&name).is_some_and(|written| written.revision == Some(revision))
    })
}

/// The folder of a revision; without one, that of `main`, or of the only one. The error holds the known revisions.
fn snapshot(folder: &Path, revision: Option<&str>) -> Result<PathBuf, Vec<String>> {
    let snapshots = folder.join("snapshots");
    let commits: Vec<String> = entries(&snapshots, Path::is_dir);
    let references = references(folder);
    let of = |name: &str| references.iter().find(|(known, _)| known == name).map(|(_, commit)| commit.as_str());
    let begins = |with: &str| {
        let fits = |commit: &&String| *commit == with || (with.len() >= SHORTEST_COMMIT && commit.starts_with(with));
        let mut found = commits.iter().filter(fits);
        found.next().filter(|_| found.next().is_none()).map(String::as_str)
    };
    let commit = match (revision, commits.as_slice()) {
        (Some(revision), _) => of(revision).or_else(|| begins(revision)),
        (None, commits) => of(MAIN).filter(|main| commits.iter().any(|commit| commit == main)).or(match commits {
            [only] => Some(only.as_str()),
            _ => None,
        }),
    };
    match commit.map(|commit| snapshots.join(commit)).filter(|snapshot| snapshot.is_dir()) {
        Some(snapshot) => Ok(snapshot),
        None => Err(commits.iter().map(|commit| revision_of(folder, &snapshots.join(commit))).collect()),
    }
}

/// The branches and tags in the cache, with their commits.
fn references(folder: &Path) -> Vec<(String, String)> {
    let root = folder.join("refs");
    files(&root, "", DEPTH)
        .into_iter()
        .filter_map(|name| {
            let commit = std::fs::read_to_string(root.join(&name)).ok()?.trim().to_owned();
            // A commit is never a path.
            is_plain(&commit).then_some((name, commit))
        })
        .collect()
}

/// The possible models in a folder.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    /// Whether the folder itself is a model in the format of Hugging Face and MLX.
    folder: bool,
    /// Whether it has a `config.json`, with or without weights.
    config: bool,
    /// The GGUF files that are models, as paths relative to the folder.
    ggufs: Vec<String>,
}

impl Contents {
    /// Scans a folder, and its subfolders to this depth, for models.
    pub(crate) fn of(folder: &Path, depth: usize) -> Self {
        let all = files(folder, "", depth);
        let config = all.iter().any(|file| file == "config.json");
        let has_weights = all.iter().any(|file| !file.contains('/') && file.ends_with(".safetensors"));
        let ggufs = all.into_iter().filter(|file| is_model(file)).collect();
        Self { folder: config && has_weights, config, ggufs }
    }

    /// The file of a part; `None` means the folder itself, which reports missing files when it is opened.
    fn choose(&self, part: Part, base: &str) -> Result<Option<&str>, Unfound> {
        let fitting: Vec<&str> = match part {
            Part::Only if self.folder || self.ggufs.is_empty() => return Ok(None),
            Part::Only => self.ggufs.iter().map(String::as_str).collect(),
            Part::Label(label) => self.labelled(label),
            Part::File(file) => self.called(file),
        };
        match fitting.as_slice() {
            [only] => Ok(Some(only)),
            [] => Err(Unfound::Other(self.names(base))),
            several => Err(Unfound::Several(several.iter().map(|file| self.name(base, file)).collect())),
        }
    }

    /// The only GGUF file of a folder that is not itself a model. The error holds the files if there are several.
    pub(crate) fn only_gguf(&self) -> Result<Option<&str>, &[String]> {
        match self.ggufs.as_slice() {
            [only] if !self.folder => Ok(Some(only)),
            several if !self.config && !several.is_empty() => Err(several),
            _ => Ok(None),
        }
    }

    fn labelled(&self, label: &str) -> Vec<&str> {
        self.ggufs.iter().filter(|file| has_label(file, label)).map(String::as_str).collect()
    }

    /// By relative path, else by file name; and the first part of a split model by its name without the number as well.
    fn called(&self, wanted: &str) -> Vec<&str> {
        let by = |fits: &dyn Fn(&str) -> bool| -> Vec<&str> {
            self.ggufs.iter().map(String::as_str).filter(|file| fits(file)).collect()
        };
        let last = |file: &str| file.rsplit('/').next() == Some(wanted);
        let fits: [&dyn Fn(&str) -> bool; 4] =
            [&|file| file == wanted, &last, &|file| joined(file) == wanted, &|file| last(&joined(file))];
        fits.into_iter().map(by).find(|found| !found.is_empty()).unwrap_or_default()
    }

    /// The names of all models that can be loaded.
    fn names(&self, base: &str) -> Vec<String> {
        // A folder without weights is listed if there is nothing else: it is being downloaded.
        let whole = (self.folder || (self.config && self.ggufs.is_empty())).then(|| base.to_owned());
        whole.into_iter().chain(self.ggufs.iter().map(|file| self.name(base, file))).collect()
    }

    /// The shortest unambiguous name of a file.
    fn name(&self, base: &str, file: &str) -> String {
        if self.ggufs.len() == 1 && !self.folder {
            return base.to_owned();
        }
        match label(file).filter(|label| self.labelled(label).len() == 1) {
            Some(label) => format!("{base}:{label}"),
            None => format!(
                "{base}/{}",
                Some(joined(file)).filter(|name| self.called(name) == [file]).as_deref().unwrap_or(file)
            ),
        }
    }
}

/// Whether a GGUF file is a model of its own: neither a vision projector nor an importance matrix, and of a split model
/// only the first part.
fn is_model(file: &str) -> bool {
    gguf_name::is_model(file) && part_of(file).is_none_or(|(number, _)| number == 1)
}

/// The names of all models in a cache.
pub(crate) fn names(cache: &Path) -> Vec<String> {
    let mut names: Vec<String> = repositories(cache)
        .into_iter()
        .flat_map(|(owner, name)| {
            let written = Written { owner: &owner, name: &name, revision: None, part: Part::Only };
            let folder = written.folder(cache);
            let contents =
                |snapshot: PathBuf| Contents::of(&snapshot, DEPTH).names(&base(&written, &folder, &snapshot));
            shown_snapshots(&folder).into_iter().flat_map(contents).collect::<Vec<_>>()
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

/// The default snapshot and those of branches and tags; all of them if there is no default.
fn shown_snapshots(folder: &Path) -> Vec<PathBuf> {
    let snapshots = folder.join("snapshots");
    let others: Vec<String> = match snapshot(folder, None) {
        Ok(_) => references(folder).into_iter().map(|(_, commit)| commit).collect(),
        Err(_) => entries(&snapshots, Path::is_dir),
    };
    let others = others.into_iter().map(|commit| snapshots.join(commit)).filter(|path| path.is_dir());
    let mut shown: Vec<PathBuf> = snapshot(folder, None).into_iter().chain(others).collect();
    shown.sort();
    shown.dedup();
    shown
}

/// Owners and names of the repositories in a cache. Other folders were not downloaded from the hub.
fn repositories(cache: &Path) -> Vec<(String, String)> {
    let read = |folder: String| {
        let (owner, name) = folder.strip_prefix(PREFIX)?.split_once("--")?;
        (is_plain(owner) && is_plain(name)).then(|| (owner.to_owned(), name.to_owned()))
    };
    entries(cache, |_| true).into_iter().filter_map(read).collect()
}

/// The shortest name of the model at a path in a cache; `None` outside the cache.
pub(crate) fn name_at(cache: &Path, path: &Path) -> Option<String> {
    let (folder, snapshot, file) = taken_apart(cache, path)?;
    let (owner, name) = folder.file_name()?.to_str()?.strip_prefix(PREFIX)?.split_once("--")?;
    let written = Written { owner, name, revision: None, part: Part::Only };
    let base = base(&written, &folder, &snapshot);
    Some(match file {
        Some(file) => Contents::of(&snapshot, DEPTH).name(&base, &file),
        None => base,
    })
}

/// The name by which other machines find the model at this path, whatever else their caches hold.
pub(crate) fn exact_name_at(cache: &Path, path: &Path) -> Option<String> {
    let (folder, snapshot, file) = taken_apart(cache, path)?;
    let (owner, name) = folder.file_name()?.to_str()?.strip_prefix(PREFIX)?.split_once("--")?;
    let base = base(&Written { owner, name, revision: None, part: Part::Only }, &folder, &snapshot);
    Some(file.map_or(base.clone(), |file| format!("{base}/{file}")))
}

/// Splits a path in a cache into its repository, its snapshot, and the file within.
fn taken_apart(cache: &Path, path: &Path) -> Option<(PathBuf, PathBuf, Option<String>)> {
    let inner = path.strip_prefix(cache).ok()?.to_str()?;
    let mut parts = inner.splitn(4, '/');
    let (folder, snapshots, commit) = (parts.next()?, parts.next()?, parts.next()?);
    let file = parts.next().map(str::to_owned);
    let is_repository =
        folder.strip_prefix(PREFIX).is_some_and(is_plain) && snapshots == "snapshots" && is_plain(commit);
    let is_within = file.as_ref().is_none_or(|file| file.split('/').all(|part| !part.starts_with('.')));
    let folder = cache.join(folder);
    let snapshot = folder.join(snapshots).join(commit);
    (is_repository && is_within).then_some((folder, snapshot, file))
}

/// The files to delete with the model at this path: the whole repository if there is nothing else in it, else the
/// model's own files and the blobs that only they link to.
pub(crate) fn files_of(cache: &Path, path: &Path) -> Option<Vec<PathBuf>> {
    let (folder, snapshot, file) = taken_apart(cache, path)?;
    if file.as_ref().is_some_and(|file| !is_model(file)) {
        return None;
    }
    let snapshots = folder.join("snapshots");
    let listed = |commit: String| {
        let snapshot = snapshots.join(commit);
        let files = files(&snapshot, "", DEPTH);
        (snapshot, files)
    };
    let revisions: Vec<(PathBuf, Vec<String>)> = entries(&snapshots, Path::is_dir).into_iter().map(listed).collect();
    let is_alone = Contents::of(&snapshot, DEPTH).names("").len() <= 1;
    if is_alone && revisions.len() == 1 {
        return Some(vec![folder]);
    }
    let is_own = |other: &String| match &file {
        // All parts of a split model are deleted together.
        Some(file) => other == file || (part_of(file).is_some() && is_gguf(other) && bare(other) == bare(file)),
        None => is_alone || !is_gguf(other),
    };
    let own: Vec<PathBuf> =
        files(&snapshot, "", DEPTH).iter().filter(|file| is_own(file)).map(|file| snapshot.join(file)).collect();
    let blobs = std::fs::canonicalize(folder.join("blobs")).unwrap_or_else(|_| folder.join("blobs"));
    let blob = |link: &PathBuf| std::fs::canonicalize(link).ok().filter(|blob| blob.starts_with(&blobs));
    let all = revisions.iter().flat_map(|(snapshot, files)| files.iter().map(|file| snapshot.join(file)));
    let shared: Vec<PathBuf> = all.filter(|link| !own.contains(link)).filter_map(|link| blob(&link)).collect();
    // If a list was truncated, other links to a blob may be unknown.
    let is_known = revisions.iter().all(|(_, files)| files.len() < MOST_FILES);
    let downloads = own.iter().filter(|_| is_known).filter_map(blob).filter(|blob| !shared.contains(blob));
    let mut gone: Vec<PathBuf> = downloads.collect();
    if file.is_none() && is_alone {
        let commit = snapshot.file_name().map(|name| name.to_string_lossy().into_owned());
        let named = references(&folder).into_iter().filter(|(_, of)| Some(of) == commit.as_ref());
        gone.extend(named.map(|(name, _)| folder.join("refs").join(name)));
        gone.push(snapshot);
    } else {
        gone.extend(own);
    }
    Some(gone)
}

/// The visible entries of a folder for which `is_wanted` holds, sorted.
fn entries(folder: &Path, is_wanted: impl Fn(&Path) -> bool) -> Vec<String> {
    let listed = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let shown = listed.filter_map(|entry| entry.file_name().into_string().ok().filter(|name| !name.starts_with('.')));
    let mut wanted: Vec<String> = shown.filter(|name| is_wanted(&folder.join(name))).collect();
    wanted.sort();
    wanted
}

/// The files of a folder and its subfolders to this depth, as relative paths.
fn files(folder: &Path, way: &str, depth: usize) -> Vec<String> {
    let mut found = Vec::new();
    for name in entries(folder, |_| true) {
        let path = folder.join(&name);
        if path.is_file() {
            found.push(format!("{way}{name}"));
        } else if depth > 0 && path.is_dir() {
            found.extend(files(&path, &format!("{way}{name}/"), depth - 1));
        }
        if found.len() >= MOST_FILES {
            found.truncate(MOST_FILES);
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "abc0123456789abc0123456789abc0123456789a";
    const DEF: &str = "def0123456789def0123456789def0123456789d";

    /// A cache with the files of one repository, `someone/model`, laid out as by `huggingface_hub`.
    struct Cache(tempfile::TempDir);

    impl Cache {
        fn of(files: &[(&str, &str)], references: &[(&str, &str)]) -> Self {
            let cache = Self(tempfile::tempdir().unwrap());
            let blobs = cache.folder().join("blobs");
            std::fs::create_dir_all(&blobs).unwrap();
            for (at, (commit, file)) in files.iter().enumerate() {
                let link = cache.folder().join("snapshots").join(commit).join(file);
                std::fs::create_dir_all(link.parent().unwrap()).unwrap();
                // A file that two commits share is one blob.
                let blob = blobs.join(files.iter().position(|(_, other)| other == file).unwrap_or(at).to_string());
                std::fs::write(&blob, "x").unwrap();
                std::os::unix::fs::symlink(blob, link).unwrap();
            }
            for (name, commit) in references {
                let reference = cache.folder().join("refs").join(name);
                std::fs::create_dir_all(reference.parent().unwrap()).unwrap();
                std::fs::write(reference, commit).unwrap();
            }
            cache
        }

        fn path(&self) -> &Path {
            self.0.path()
        }

        fn folder(&self) -> PathBuf {
            self.path().join("models--someone--model")
        }

        fn at(&self, commit: &str) -> PathBuf {
            self.folder().join("snapshots").join(commit)
        }

        fn find(&self, name: &str) -> Result<PathBuf, Unfound> {
            find(self.path(), name)
        }

        /// Every listed name is found, and what is found has that name.
        fn agrees(&self) -> Vec<String> {
            let listed = names(self.path());
            for name in &listed {
                let found = self.find(name).unwrap();
                assert_eq!(name_at(self.path(), &found).as_ref(), Some(name));
                assert_eq!(self.find(&exact_name_at(self.path(), &found).unwrap()), Ok(found));
            }
            listed
        }
    }

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_repository_with_one_gguf_is_that_model() {
        let beside = ["README.md", "config.json", "mmproj-model-f16.gguf", "model.imatrix.gguf", "._model-Q4_0.gguf"];
        let mut files: Vec<_> = beside.map(|file| (ABC, file)).to_vec();
        files.push((ABC, "model-Q4_0.gguf"));
        let cache = Cache::of(&files, &[("main", ABC)]);
        assert_eq!(cache.agrees(), ["someone/model"]);
        let file = cache.at(ABC).join("model-Q4_0.gguf");
        for name in [
            "someone/model",
            "someone/model:Q4_0",
            "someone/model:q4_0",
            "someone/model/model-Q4_0.gguf",
            "hf.co/someone/model:Q4_0",
            "someone/model@main",
            "someone/model@main:Q4_0",
            "someone/model@abc012/model-Q4_0.gguf",
        ] {
            assert_eq!(cache.find(name), Ok(file.clone()), "{name}");
        }
        assert_eq!(cache.find("someone/model:Q8_0"), Err(Unfound::Other(texts(&["someone/model"]))));
        assert_eq!(cache.find("someone/other"), Err(Unfound::Nothing));
    }

    #[test]
    fn of_several_ggufs_the_one_that_is_named_is_meant() {
        let names = [
            "model-Q4_0.gguf",
            "model-Q4_K_M.gguf",
            "model-UD-Q4_K_M.gguf",
            "model.q8_0.gguf",
            "plain.gguf",
            "BF16/model-BF16-00001-of-00002.gguf",
            "BF16/model-BF16-00002-of-00002.gguf",
        ];
        let cache = Cache::of(&names.map(|file| (ABC, file)), &[("main", ABC)]);
        let choices = texts(&[
            "someone/model/model-Q4_K_M.gguf",
            "someone/model/model-UD-Q4_K_M.gguf",
            "someone/model/plain.gguf",
            "someone/model:BF16",
            "someone/model:Q4_0",
            "someone/model:Q8_0",
        ]);
        assert_eq!(cache.agrees(), choices);
        let Err(Unfound::Several(mut told)) = cache.find("someone/model") else { panic!("one of several was taken") };
        told.sort();
        assert_eq!(told, choices);
        assert_eq!(cache.find("someone/model:UD-Q4_K_M"), Ok(cache.at(ABC).join("model-UD-Q4_K_M.gguf")));
        assert_eq!(cache.find("someone/model:BF16"), Ok(cache.at(ABC).join(names[5])));
        assert_eq!(cache.find("someone/model/model.q8_0.gguf"), Ok(cache.at(ABC).join("model.q8_0.gguf")));
        assert!(matches!(cache.find("someone/model:Q4_K_M"), Err(Unfound::Several(two)) if two.len() == 2));
        for nothing in ["someone/model:4_0", "someone/model:Q4", "someone/model:Q4_0_4", "someone/model/Q4_0.gguf"] {
            assert!(matches!(cache.find(nothing), Err(Unfound::Other(all)) if all.len() == 6), "{nothing}");
        }
    }

    #[test]
    fn a_split_model_is_listed_once_without_the_number_of_its_first_part() {
        let first = "deep/plain-00001-of-00002.gguf";
        let parts = [first, "deep/plain-00002-of-00002.gguf"];
        let files: Vec<_> = parts.into_iter().chain(["other.gguf"]).map(|file| (ABC, file)).collect();
        let cache = Cache::of(&files, &[("main", ABC)]);
        assert_eq!(cache.agrees(), ["someone/model/deep/plain.gguf", "someone/model/other.gguf"]);
        for name in ["someone/model/plain.gguf", "someone/model/plain-00001-of-00002.gguf"] {
            assert_eq!(cache.find(name), Ok(cache.at(ABC).join(first)), "{name}");
        }
        // A file that has this name already keeps it.
        let files: Vec<_> = parts.into_iter().chain(["deep/plain.gguf"]).map(|file| (ABC, file)).collect();
        let cache = Cache::of(&files, &[("main", ABC)]);
        assert_eq!(cache.agrees(), ["someone/model/deep/plain-00001-of-00002.gguf", "someone/model/deep/plain.gguf"]);
    }

    #[test]
    fn a_folder_with_weights_is_the_model_and_its_ggufs_have_names_of_their_own() {
        let files = ["config.json", "model.safetensors", "gguf/model-Q4_0.gguf"].map(|file| (ABC, file));
        let cache = Cache::of(&files, &[("main", ABC)]);
        assert_eq!(cache.agrees(), ["someone/model", "someone/model:Q4_0"]);
        assert_eq!(cache.find("someone/model"), Ok(cache.at(ABC)));
    }

    #[test]
    fn the_revision_that_is_named_is_meant_and_the_only_one_needs_no_name() {
        let both = [(ABC, "config.json"), (ABC, "a.safetensors"), (DEF, "config.json"), (DEF, "a.safetensors")];
        let cache = Cache::of(&both, &[("main", ABC), ("refs/pr/1", DEF), ("4bit", DEF)]);
        assert_eq!(cache.agrees(), ["someone/model", "someone/model@4bit"]);
        for name in ["someone/model", "someone/model@main", "someone/model@abc012", &format!("someone/model@{ABC}")] {
            assert_eq!(cache.find(name), Ok(cache.at(ABC)), "{name}");
        }
        for name in ["someone/model@4bit", "someone/model@refs/pr/1", "someone/model@def0123"] {
            assert_eq!(cache.find(name), Ok(cache.at(DEF)), "{name}");
        }
        let known = texts(&["someone/model@main", "someone/model@4bit"]);
        for name in ["someone/model@8bit", "someone/model@ab", "someone/model@0123456"] {
            assert_eq!(cache.find(name), Err(Unfound::Other(known.clone())), "{name}");
        }

        // Downloaded by its commit, or from a branch only.
        for references in [&[][..], &[("4bit", ABC)], &[("main", DEF)]] {
            let cache = Cache::of(&both[..2], references);
            assert_eq!(cache.agrees(), ["someone/model"], "{references:?}");
            assert_eq!(cache.find("someone/model"), Ok(cache.at(ABC)));
        }
        let cache = Cache::of(&both, &[("4bit", DEF)]);
        let several = texts(&["someone/model@abc012345678", "someone/model@4bit"]);
        assert_eq!(cache.find("someone/model"), Err(Unfound::Several(several)));
        assert_eq!(cache.agrees(), ["someone/model@4bit", "someone/model@abc012345678"]);
        assert_eq!(Cache::of(&both, &[]).agrees(), ["someone/model@abc012345678", "someone/model@def012345678"]);
    }

    #[test]
    fn a_branch_that_a_name_cannot_hold_is_shown_by_its_commit() {
        for branch in ["feature/x", "v1+cu"] {
            let files = [(ABC, "config.json"), (ABC, "a.safetensors"), (DEF, "b.Q4_0.gguf"), (DEF, "b.Q8_0.gguf")];
            let cache = Cache::of(&files, &[("main", ABC), (branch, DEF)]);
            let expected = ["someone/model", "someone/model@def012345678:Q4_0", "someone/model@def012345678:Q8_0"];
            assert_eq!(cache.agrees(), expected, "{branch}");
        }
    }

    #[test]
    fn no_name_leads_out_of_the_cache() {
        let cache = Cache::of(&[(ABC, "model-Q4_0.gguf")], &[("main", ABC)]);
        std::fs::write(cache.path().join("secret.gguf"), "x").unwrap();
        std::fs::write(cache.folder().join("refs/out"), "../../..").unwrap();
        for name in [
            "someone/model/../../../../secret.gguf",
            "someone/model/snapshots/../../secret.gguf",
            "someone/model@../../..",
            "someone/model@out",
            "someone/model@/main",
            "someone/model@",
            "someone/model:",
            "someone/model/",
            "someone/model//",
            "../secret.gguf",
            "/secret.gguf",
            "hf.co/../secret.gguf",
            "someone/model@main/../../../secret.gguf",
        ] {
            assert!(cache.find(name).is_err(), "{name}");
        }
    }

    #[test]
    fn nothing_is_removed_that_is_no_model_of_the_cache() {
        let files = [(ABC, "model-Q4_0.gguf"), (ABC, "README.md"), (ABC, "aé€.x")];
        let cache = Cache::of(&files, &[("main", ABC)]);
        std::fs::create_dir_all(cache.path().join("snapshots/only")).unwrap();
        for way in [
            "../snapshots/only",
            "models--someone--model/snapshots/..",
            "models--someone--model/snapshots/../../secret.gguf",
            "models--someone--model/refs/main",
            "models--someone--model",
            &format!("models--someone--model/snapshots/{ABC}/README.md"),
            &format!("models--someone--model/snapshots/{ABC}/aé€.x"),
            "",
        ] {
            assert_eq!(files_of(cache.path(), &cache.path().join(way)), None, "{way}");
        }
        assert_eq!(files_of(&cache.path().join("other"), &cache.at(ABC)), None);
    }

    #[test]
    fn what_is_removed_takes_nothing_of_another_model_with_it() {
        let left = |cache: &Cache, name: &str| {
            let path = cache.find(name).unwrap();
            for gone in files_of(cache.path(), &path).unwrap() {
                if gone.is_dir() {
                    std::fs::remove_dir_all(gone).unwrap();
                } else {
                    std::fs::remove_file(gone).unwrap();
                }
            }
            (cache.agrees(), entries(&cache.folder().join("blobs"), |_| true).len())
        };
        let cache = Cache::of(&[(ABC, "a-Q4_0.gguf"), (ABC, "a-Q8_0.gguf"), (ABC, "README.md")], &[("main", ABC)]);
        assert_eq!(left(&cache, "someone/model:Q4_0"), (texts(&["someone/model"]), 2));
        assert_eq!(left(&cache, "someone/model"), (Vec::new(), 0));
        assert!(!cache.folder().exists(), "the last one takes the repository with it");

        // A folder that is a model is deleted without the files beside it that are models of their own.
        let files = [(ABC, "config.json"), (ABC, "model.safetensors"), (ABC, "gguf/model-Q4_0.gguf")];
        let cache = Cache::of(&files, &[("main", ABC)]);
        assert_eq!(left(&cache, "someone/model"), (texts(&["someone/model"]), 1));
        assert_eq!(cache.find("someone/model"), Ok(cache.at(ABC).join("gguf/model-Q4_0.gguf")));

        // Two revisions share the files that did not change.
        let files = [(ABC, "config.json"), (ABC, "old.safetensors"), (DEF, "config.json"), (DEF, "new.safetensors")];
        let cache = Cache::of(&files, &[("main", ABC), ("4bit", DEF)]);
        assert_eq!(left(&cache, "someone/model@4bit"), (texts(&["someone/model"]), 2));
        assert!(!cache.folder().join("refs/4bit").exists());
    }
}
