//! What a file or folder is to HiveMind: a model that it can load, or why not. Only names are looked at; whether a model
//! can be used is found out when it is opened.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use hive_node::gguf_name::is_model;
use hive_node::split::files_of;
use serde::Serialize;
use specta::Type;

/// What a model's folder has, apart from its weights.
const CONFIG: &str = "config.json";

/// Extensions of weights in Python's pickle format, which can run any program when they are read.
const PICKLED: [&str; 6] = ["bin", "ckpt", "pickle", "pkl", "pt", "pth"];

/// The most names of a folder that are looked at.
const MOST_NAMES: usize = 10_000;

/// What a file or folder is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Type)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Finding {
    /// A model.
    Model {
        /// The path to load it by: of its folder, of its file, or of the first of its files.
        path: String,
    },
    /// A model in several files, of which some are missing.
    PartsMissing {
        /// How many are missing.
        missing: u32,
        /// How many there should be.
        of: u32,
    },
    /// A GGUF file that goes with a model and is none: what reads pictures, or what a quantization was made with.
    Companion,
    /// A folder with several GGUF models.
    Several,
    /// Weights without `config.json`.
    NoConfig,
    /// `config.json` without weights.
    NoWeights,
    /// Weights in Python's pickle format, which HiveMind never opens.
    Pickled,
    /// Nothing: it was deleted or moved meanwhile.
    Gone,
    /// Something that this user may not read.
    Closed,
    /// Something whose path a model cannot be named by: it is no text, or ends in a space.
    Unnameable,
    /// Something else.
    Other,
}

/// What lies at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    /// A file that can be read.
    File,
    /// A folder with these names.
    Folder(Vec<String>),
    /// It cannot be read, or is neither.
    Neither(Finding),
}

impl Seen {
    /// Looks at the disk. A file is opened to see whether it may be, and a pipe is not, since it would wait for a writer.
    pub(super) fn at(path: &Path) -> Self {
        let seen = std::fs::metadata(path).and_then(|about| {
            if about.is_dir() {
                // As a node looks at a folder: at files, and not at hidden ones.
                let files = std::fs::read_dir(path)?.flatten().take(MOST_NAMES).filter(|entry| entry.path().is_file());
                let names = files.map(|entry| entry.file_name().to_string_lossy().into_owned());
                Ok(Self::Folder(names.filter(|name| !name.starts_with('.')).collect()))
            } else if about.is_file() {
                std::fs::File::open(path).map(|_| Self::File)
            } else {
                Ok(Self::Neither(Finding::Other))
            }
        });
        seen.unwrap_or_else(|error| Self::Neither(unseen(error.kind())))
    }
}

/// Why something is not seen.
fn unseen(error: ErrorKind) -> Finding {
    match error {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Finding::Gone,
        ErrorKind::PermissionDenied => Finding::Closed,
        _ => Finding::Other,
    }
}

/// What is at a path, as far as `look` sees.
pub(super) fn found(path: &Path, look: &impl Fn(&Path) -> Seen) -> Finding {
    // Without what a file manager may write at the end.
    let path: PathBuf = path.components().collect();
    match look(&path) {
        Seen::Neither(why) => why,
        Seen::Folder(names) => in_folder(&path, &names, look),
        Seen::File => a_file(&path, look),
    }
}

fn a_file(path: &Path, look: &impl Fn(&Path) -> Seen) -> Finding {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match extension(&name).as_str() {
        "gguf" if !is_model(&name) => Finding::Companion,
        "gguf" => of_parts(path, look),
        // Whoever hands over a part of a folder means the folder.
        "safetensors" => folder_of(path, look).unwrap_or(Finding::NoConfig),
        _ if name == CONFIG => folder_of(path, look).unwrap_or(Finding::NoWeights),
        _ if is_pickled(&name) => Finding::Pickled,
        _ => Finding::Other,
    }
}

/// A GGUF model, from any of its files.
fn of_parts(path: &Path, look: &impl Fn(&Path) -> Seen) -> Finding {
    let files = files_of(path);
    let missing = files.iter().filter(|file| look(file) != Seen::File).count();
    match files.first() {
        Some(first) if missing == 0 => model(first),
        _ => Finding::PartsMissing { missing: missing as u32, of: files.len() as u32 },
    }
}

/// The model whose folder a file is in.
fn folder_of(path: &Path, look: &impl Fn(&Path) -> Seen) -> Option<Finding> {
    let folder = path.parent()?;
    match look(folder) {
        Seen::Folder(names) if is_model_folder(&names) => Some(model(folder)),
        _ => None,
    }
}

/// As a node finds the model of a folder: the folder itself, or else the only GGUF model in it.
fn in_folder(folder: &Path, names: &[String], look: &impl Fn(&Path) -> Seen) -> Finding {
    if is_model_folder(names) {
        return model(folder);
    }
    let ggufs =
        names.iter().filter(|name| is_model(name)).filter_map(|name| files_of(&folder.join(name)).into_iter().next());
    let ggufs: BTreeSet<PathBuf> = ggufs.collect();
    match ggufs.first() {
        Some(only) if ggufs.len() == 1 => of_parts(only, look),
        Some(_) => Finding::Several,
        None if names.iter().any(|name| extension(name) == "safetensors") => Finding::NoConfig,
        None if names.iter().any(|name| is_weights_of_python(name)) => Finding::Pickled,
        None if names.iter().any(|name| name == CONFIG) => Finding::NoWeights,
        None => Finding::Other,
    }
}

fn model(path: &Path) -> Finding {
    // A node trims the names that it is given.
    match path.to_str().filter(|path| path.trim() == *path) {
        Some(path) => Finding::Model { path: path.to_owned() },
        None => Finding::Unnameable,
    }
}

fn is_model_folder(names: &[String]) -> bool {
    names.iter().any(|name| name == CONFIG) && names.iter().any(|name| extension(name) == "safetensors")
}

fn is_pickled(name: &str) -> bool {
    PICKLED.contains(&extension(name).as_str())
}

/// Whether a file in a folder has weights of Python; any program may have files that end in `.bin`.
fn is_weights_of_python(name: &str) -> bool {
    is_pickled(name) && (extension(name) != "bin" || name.starts_with("pytorch_model"))
}

/// The extension in small letters; none for a name that is nothing else.
fn extension(name: &str) -> String {
    name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty()).map(|(_, end)| end.to_lowercase()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A disk of these files; a name that ends in a slash is a folder.
    fn disk(files: &[&str]) -> impl Fn(&Path) -> Seen {
        let mut seen: BTreeMap<PathBuf, Seen> = BTreeMap::new();
        for file in files {
            let path: PathBuf = Path::new(file).components().collect();
            seen.insert(path.clone(), if file.ends_with('/') { Seen::Folder(Vec::new()) } else { Seen::File });
            let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { continue };
            let name = name.to_string_lossy().into_owned();
            match seen.entry(folder.to_owned()).or_insert_with(|| Seen::Folder(Vec::new())) {
                Seen::Folder(names) => names.push(name),
                other => panic!("{other:?}"),
            }
        }
        move |path| seen.get(path).cloned().unwrap_or(Seen::Neither(Finding::Gone))
    }

    fn is(path: &str, files: &[&str]) -> Finding {
        found(Path::new(path), &disk(files))
    }

    fn model_at(path: &str) -> Finding {
        Finding::Model { path: path.to_owned() }
    }

    #[test]
    fn a_gguf_file_is_a_model_whatever_it_is_called() {
        for file in [
            "/m/a.gguf",
            "/m/A-Q4_0.GGUF",
            "/m/größer als 7 B.gguf",
            "/m/模型.gguf",
            "/m/two\nlines.gguf",
            "/m/.a.gguf",
        ] {
            assert_eq!(is(file, &[file]), model_at(file), "{file:?}");
        }
        for file in ["/m/mmproj-a-f16.gguf", "/m/a.imatrix.gguf", "/m/MMPROJ.gguf"] {
            assert_eq!(is(file, &[file]), Finding::Companion, "{file}");
        }
        for file in ["/m/gguf", "/m/.gguf", "/m/a.gguf.part", "/m/a.ggufx", "/m/notes.txt", "/m/a.", "/m/a"] {
            assert_eq!(is(file, &[file]), Finding::Other, "{file}");
        }
    }

    #[test]
    fn any_part_of_a_model_means_the_whole_and_says_how_much_is_missing() {
        let parts = ["/m/a-00001-of-00003.gguf", "/m/a-00002-of-00003.gguf", "/m/a-00003-of-00003.gguf"];
        for part in parts {
            assert_eq!(is(part, &parts), model_at(parts[0]));
        }
        assert_eq!(is("/m/", &parts), model_at(parts[0]));
        assert_eq!(is(parts[2], &parts[2..]), Finding::PartsMissing { missing: 2, of: 3 });
        assert_eq!(is("/m", &parts[1..]), Finding::PartsMissing { missing: 1, of: 3 });
    }

    #[test]
    fn a_folder_with_its_config_and_its_weights_is_a_model_and_so_is_what_is_taken_out_of_it() {
        let files = ["/m/config.json", "/m/model.safetensors", "/m/tokenizer.json", "/m/README.md"];
        for handed in ["/m", "/m/", "/m/config.json", "/m/model.safetensors"] {
            assert_eq!(is(handed, &files), model_at("/m"), "{handed}");
        }
        assert_eq!(is("/m/README.md", &files), Finding::Other);
        // GGUF files beside it are something else.
        assert_eq!(is("/m", &[&files[..], &["/m/a.gguf", "/m/b.gguf"]].concat()), model_at("/m"));
    }

    #[test]
    fn a_folder_that_is_no_model_says_what_it_lacks() {
        for (files, why) in [
            (&["/m/a.safetensors"][..], Finding::NoConfig),
            (&["/m/config.json"], Finding::NoWeights),
            (&["/m/config.json", "/m/pytorch_model.bin"], Finding::Pickled),
            (&["/m/config.json", "/m/consolidated.00.pth"], Finding::Pickled),
            (&["/m/firmware.bin", "/m/notes.txt"], Finding::Other),
            (&["/m/a.gguf", "/m/b.gguf"], Finding::Several),
            (&["/m/a.gguf", "/m/mmproj-a.gguf"], model_at("/m/a.gguf")),
            (&["/m/a.gguf", "/m/config.json"], model_at("/m/a.gguf")),
            (&["/m/mmproj-a.gguf"], Finding::Other),
            (&["/m/holiday.jpg"], Finding::Other),
            (&["/m/"], Finding::Other),
        ] {
            assert_eq!(is("/m", files), why, "{files:?}");
        }
        assert_eq!(is("/m/a.safetensors", &["/m/a.safetensors"]), Finding::NoConfig);
        // The settings of some other program.
        assert_eq!(is("/m/config.json", &["/m/config.json", "/m/a.gguf"]), Finding::NoWeights);
    }

    #[test]
    fn pickled_weights_are_never_opened() {
        for file in ["/m/pytorch_model.bin", "/m/a.pt", "/m/a.PTH", "/m/a.ckpt", "/m/a.pkl"] {
            assert_eq!(is(file, &[file]), Finding::Pickled, "{file}");
        }
    }

    #[test]
    fn a_path_that_cannot_be_said_is_not_said_wrongly() {
        use std::os::unix::ffi::OsStrExt;
        let bytes = Path::new(std::ffi::OsStr::from_bytes(b"/m/\xff.gguf"));
        assert_eq!(found(bytes, &|_| Seen::File), Finding::Unnameable);
        let names = vec!["config.json".to_owned(), "a.safetensors".to_owned()];
        assert_eq!(found(Path::new("/m/a "), &|_| Seen::Folder(names.clone())), Finding::Unnameable);
        assert_eq!(found(Path::new(""), &Seen::at), Finding::Gone);
        assert_eq!(found(Path::new("/"), &|_| Seen::Folder(Vec::new())), Finding::Other);
    }

    #[test]
    fn what_is_gone_closed_or_no_file_says_so() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(found(&home.path().join("a.gguf"), &Seen::at), Finding::Gone);
        let file = home.path().join("a.gguf");
        std::fs::write(&file, "GGUF").unwrap();
        assert_eq!(found(&file.join("b.gguf"), &Seen::at), Finding::Gone, "below a file");
        assert_eq!(found(&file, &Seen::at), model_at(file.to_str().unwrap()));
        assert_eq!(found(home.path(), &Seen::at), model_at(file.to_str().unwrap()));
        // A Mac writes hidden files beside others on some volumes.
        std::fs::write(home.path().join("._a.gguf"), "").unwrap();
        std::fs::create_dir(home.path().join("x.gguf")).unwrap();
        assert_eq!(found(home.path(), &Seen::at), model_at(file.to_str().unwrap()));
        assert_eq!(found(Path::new("/dev/zero"), &Seen::at), Finding::Other);
        let link = home.path().join("b.gguf");
        std::os::unix::fs::symlink(home.path().join("nothing"), &link).unwrap();
        assert_eq!(found(&link, &Seen::at), Finding::Gone, "a link to nothing");
        assert_eq!(unseen(ErrorKind::PermissionDenied), Finding::Closed);
        assert_eq!(unseen(ErrorKind::TimedOut), Finding::Other);
    }
}
