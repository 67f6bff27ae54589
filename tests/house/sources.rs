//! The arrows between the files of one crate, read from its sources.
//!
//! An arrow goes from the file in which a name is used to the file that **defines** it:
//!
//! - A path is followed through every re-export on its way. `use crate::Ring` points at `ring.rs`, where `Ring` is, and not
//!   at `lib.rs`, which only passes the name on.
//! - So a file that re-exports (`pub use child::Name`) draws no arrow for that: a child may use its parent, and the parent
//!   show what its children have. If the file uses the name in its own code as well, that is an arrow.
//! - `use` of a module alone draws none; the paths that begin with it do.
//! - `use module::*` points at the module itself.
//! - A method call draws none: which file's `impl` it enters is the compiler's knowledge. That keeps the `impl` blocks of one
//!   type in several files from being a circle with the file of the type.
//!
//! `mod` declarations draw no arrow, and `#[cfg(test)]` items are left out with all that is in them. Macros are looked into
//! as if their arguments were code.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// What begins the definition of a name.
const DEFINES: [&str; 9] = ["struct", "enum", "union", "trait", "fn", "const", "static", "type", "macro_rules"];
/// What may stand between such a word and the name.
const BETWEEN: [&str; 5] = ["mut", "fn", "unsafe", "async", "extern"];

/// A crate's files, and which of them uses which.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// Paths from the crate's folder.
    pub(crate) files: Vec<String>,
    /// From a file to another, by their places in the list, with a path that was written.
    pub(crate) arrows: BTreeMap<(usize, usize), String>,
    /// Names in the code, and the file that each stands in first; names in tests are none.
    pub(crate) names: BTreeMap<String, usize>,
    /// Names that are defined in the crate.
    pub(crate) items: BTreeSet<String>,
}

impl Sources {
    /// Reads the sources of the crate in a folder.
    pub(crate) fn read(folder: &Path) -> Self {
        let mut sources = Self::default();
        for root in ["src/lib.rs", "src/main.rs", "build/main.rs"] {
            let root = folder.join(root);
            if root.exists() {
                let mut tree = Tree { folder, files: std::mem::take(&mut sources.files), modules: Vec::new() };
                tree.read_file(&root, root.parent().unwrap(), None);
                tree.draw(&mut sources.arrows);
                tree.name(&mut sources.names);
                sources.items.extend(tree.modules.iter().flat_map(|module| module.items.iter().cloned()));
                sources.files = tree.files;
            }
        }
        sources
    }
}

#[derive(Debug, Default)]
struct Module {
    file: usize,
    parent: Option<usize>,
    children: BTreeMap<String, usize>,
    /// Names that are defined in it.
    items: BTreeSet<String>,
    uses: Vec<Use>,
    /// Paths of two names or more in its code.
    paths: BTreeSet<Vec<String>>,
    /// Single names in its code.
    words: BTreeSet<String>,
}

#[derive(Debug, Clone)]
struct Use {
    path: Vec<String>,
    /// The name it has here; nothing for `*`.
    name: Option<String>,
    is_public: bool,
}

#[derive(Debug, Clone, Copy)]
enum Target {
    /// A module.
    Module(usize),
    /// Something that is defined in this module.
    Item(usize),
}

/// The modules of one target; the first is its root.
struct Tree<'a> {
    folder: &'a Path,
    files: Vec<String>,
    modules: Vec<Module>,
}

/// Names on the way of a resolution, so that two modules which re-export each other end it.
type Seen = BTreeSet<(usize, String)>;

impl Tree<'_> {
    /// Reads a file as a module. Its children are in `folder`.
    fn read_file(&mut self, file: &Path, folder: &Path, parent: Option<usize>) -> usize {
        let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let tokens: TokenStream = text.parse().unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let name = file.strip_prefix(self.folder).unwrap_or(file);
        self.files.push(name.display().to_string());
        self.read_module(tokens, self.files.len() - 1, folder, parent)
    }

    fn read_module(&mut self, tokens: TokenStream, file: usize, folder: &Path, parent: Option<usize>) -> usize {
        let module = self.modules.len();
        self.modules.push(Module { file, parent, ..Module::default() });
        self.read(module, tokens, Some(folder));
        module
    }

    /// Reads code of a module; `folder` is known where items may be declared.
    fn read(&mut self, module: usize, tokens: TokenStream, folder: Option<&Path>) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let (mut at, mut is_public) = (0, false);
        while at < tokens.len() {
            let start = at;
            at += 1;
            let word = match &tokens[start] {
                TokenTree::Group(group) => {
                    self.read(module, group.stream(), None);
                    continue;
                }
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    if is_for_tests(tokens.get(at)) {
                        at = end_of_item(&tokens, at + 1);
                    }
                    continue;
                }
                TokenTree::Ident(word) => word.to_string(),
                _ => continue,
            };
            match word.as_str() {
                "pub" => {
                    at += usize::from(group(tokens.get(at), Delimiter::Parenthesis).is_some());
                    is_public = true;
                    continue;
                }
                "use" if !is_punct(tokens.get(at), '<') => {
                    let end = (at..tokens.len()).find(|&at| is_punct(tokens.get(at), ';')).unwrap_or(tokens.len());
                    self.modules[module].uses.extend(uses(&tokens[at..end], is_public));
                    at = end;
                }
                "mod" if folder.is_some() => {
                    let (Some(name), Some(folder)) = (ident(tokens.get(at)), folder) else { continue };
                    let inside = folder.join(&name);
                    let child = match group(tokens.get(at + 1), Delimiter::Brace) {
                        Some(code) => self.read_module(code, self.modules[module].file, &inside, Some(module)),
                        None => self.read_file(&file_of(folder, &name), &inside, Some(module)),
                    };
                    self.modules[module].children.insert(name, child);
                    at += 2;
                }
                word if folder.is_some() && DEFINES.contains(&word) => {
                    at += usize::from(is_punct(tokens.get(at), '!'));
                    while ident(tokens.get(at)).is_some_and(|word| BETWEEN.contains(&word.as_str())) {
                        at += 1;
                    }
                    self.modules[module].items.extend(ident(tokens.get(at)));
                    at += 1;
                }
                _ => at = self.read_path(module, &tokens, start),
            }
            is_public = false;
        }
    }

    /// Reads a name, or a path of several; gives the place after it.
    fn read_path(&mut self, module: usize, tokens: &[TokenTree], start: usize) -> usize {
        let before = |back: usize, punct| start >= back && is_punct(tokens.get(start - back), punct);
        let (mut at, mut path) = (start, Vec::new());
        while let Some(name) = ident(tokens.get(at)) {
            path.push(name);
            at += 1;
            if !is_punct(tokens.get(at), ':') || !is_punct(tokens.get(at + 1), ':') {
                break;
            }
            at += 2;
        }
        let is_member = before(1, '.') && !before(2, '.');
        let goes_on = before(1, ':') && before(2, ':');
        if !is_member && !goes_on {
            let Module { paths, words, .. } = &mut self.modules[module];
            if let [word] = path.as_slice() { _ = words.insert(word.clone()) } else { _ = paths.insert(path) }
        }
        at
    }

    fn name(&self, names: &mut BTreeMap<String, usize>) {
        for module in &self.modules {
            let used = module.uses.iter().flat_map(|used| &used.path);
            for name in module.words.iter().chain(module.paths.iter().flatten()).chain(used).chain(&module.items) {
                names.entry(name.clone()).or_insert(module.file);
            }
        }
    }

    fn draw(&self, arrows: &mut BTreeMap<(usize, usize), String>) {
        for (here, module) in self.modules.iter().enumerate() {
            let mut arrow = |path: &[String], to: usize| {
                let to = self.modules[to].file;
                if to != module.file {
                    arrows.entry((module.file, to)).or_insert_with(|| path.join("::"));
                }
            };
            for path in &module.paths {
                for target in self.resolve(here, path, &mut Seen::new()) {
                    if let Target::Item(to) = target {
                        arrow(path, to);
                    }
                }
            }
            for Use { path, name, is_public } in &module.uses {
                let is_used = !is_public || name.as_ref().is_some_and(|name| module.words.contains(name));
                for target in self.resolve(here, path, &mut Seen::new()) {
                    match target {
                        Target::Item(to) if is_used => arrow(path, to),
                        Target::Module(to) if name.is_none() && is_used => arrow(path, to),
                        _ => {}
                    }
                }
            }
        }
    }

    /// What a path means in a module; nothing where that is in another crate.
    fn resolve(&self, here: usize, path: &[String], seen: &mut Seen) -> Vec<Target> {
        let Some((first, rest)) = path.split_first() else { return Vec::new() };
        match first.as_str() {
            "crate" => self.walk(0, rest, seen),
            "self" => self.walk(here, rest, seen),
            "super" => self.walk(self.modules[here].parent.unwrap_or(0), rest, seen),
            name => self.go_on(self.look_up(here, name, seen).unwrap_or_default(), rest, seen),
        }
    }

    fn walk(&self, module: usize, path: &[String], seen: &mut Seen) -> Vec<Target> {
        match path.split_first() {
            None => vec![Target::Module(module)],
            Some((first, rest)) if first == "super" => self.walk(self.modules[module].parent.unwrap_or(0), rest, seen),
            // A name that is not seen to be defined is made by a macro.
            Some((first, rest)) => {
                let found = self.look_up(module, first, seen).unwrap_or_else(|| vec![Target::Item(module)]);
                self.go_on(found, rest, seen)
            }
        }
    }

    fn go_on(&self, from: Vec<Target>, rest: &[String], seen: &mut Seen) -> Vec<Target> {
        if rest.is_empty() {
            return from;
        }
        let modules: Vec<usize> = from
            .iter()
            .filter_map(|target| if let Target::Module(module) = target { Some(*module) } else { None })
            .collect();
        // Of a module and a function with one name, the path goes through the module.
        if modules.is_empty() {
            from
        } else {
            modules.into_iter().flat_map(|module| self.walk(module, rest, seen)).collect()
        }
    }

    /// Everything of a name in a module; `None` where there is nothing.
    fn look_up(&self, module: usize, name: &str, seen: &mut Seen) -> Option<Vec<Target>> {
        if !seen.insert((module, name.to_owned())) {
            return Some(Vec::new());
        }
        let Module { children, items, uses, .. } = &self.modules[module];
        let mut found: Option<Vec<Target>> = None;
        if let Some(child) = children.get(name) {
            found.get_or_insert_default().push(Target::Module(*child));
        }
        if items.contains(name) {
            found.get_or_insert_default().push(Target::Item(module));
        }
        for Use { path, .. } in uses.iter().filter(|one| one.name.as_deref() == Some(name)) {
            // The name of a crate, `use hive_host` or `use hive_net::border`, leads out of this one.
            let targets = self.resolve_use(module, name, path, seen);
            found.get_or_insert_default().extend(targets);
        }
        if found.is_none() {
            for Use { path, .. } in uses.iter().filter(|one| one.name.is_none()) {
                for target in self.resolve(module, path, seen) {
                    if let Target::Module(globbed) = target
                        && let Some(targets) = self.look_up(globbed, name, seen)
                    {
                        found.get_or_insert_default().extend(targets);
                    }
                }
            }
        }
        found
    }

    /// What a `use` brings in. `use choose::choose` begins with the module of that name, not with itself.
    fn resolve_use(&self, module: usize, name: &str, path: &[String], seen: &mut Seen) -> Vec<Target> {
        match self.modules[module].children.get(name) {
            Some(child) if path.len() > 1 && path[0] == name => self.walk(*child, &path[1..], seen),
            _ => self.resolve(module, path, seen),
        }
    }
}

fn file_of(folder: &Path, name: &str) -> PathBuf {
    let file = folder.join(format!("{name}.rs"));
    if file.exists() { file } else { folder.join(name).join("mod.rs") }
}

fn ident(token: Option<&TokenTree>) -> Option<String> {
    if let Some(TokenTree::Ident(ident)) = token { Some(ident.to_string()) } else { None }
}

fn is_punct(token: Option<&TokenTree>, punct: char) -> bool {
    matches!(token, Some(TokenTree::Punct(found)) if found.as_char() == punct)
}

fn group(token: Option<&TokenTree>, delimiter: Delimiter) -> Option<TokenStream> {
    match token {
        Some(TokenTree::Group(group)) if group.delimiter() == delimiter => Some(group.stream()),
        _ => None,
    }
}

/// Whether an attribute says that what follows is compiled for tests only.
fn is_for_tests(attribute: Option<&TokenTree>) -> bool {
    let Some(attribute) = group(attribute, Delimiter::Bracket) else { return false };
    let text: String = attribute.to_string().split_whitespace().collect();
    text == "cfg(test)" || text.starts_with("cfg(all(test,")
}

/// The place after the item, field or statement that begins at `at`.
fn end_of_item(tokens: &[TokenTree], mut at: usize) -> usize {
    // In `use a::{b};` and `const A: B = B { };`, braces end nothing.
    let words = |word: &str| ["use", "const", "static", "type", "let"].contains(&word);
    let mut to_semicolon = false;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Ident(word) if words(&word.to_string()) => to_semicolon = true,
            TokenTree::Ident(word) if word == "fn" => to_semicolon = false,
            TokenTree::Punct(punct) if punct.as_char() == ';' => return at + 1,
            TokenTree::Punct(punct) if punct.as_char() == ',' && !to_semicolon => return at + 1,
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace && !to_semicolon => return at + 1,
            _ => {}
        }
        at += 1;
    }
    at
}

/// The names of a `use`, from the tokens between `use` and the semicolon.
fn uses(tokens: &[TokenTree], is_public: bool) -> Vec<Use> {
    let (mut found, mut stack) = (Vec::new(), vec![(Vec::new(), tokens.to_vec())]);
    while let Some((prefix, tokens)) = stack.pop() {
        for part in tokens.split(|token| is_punct(Some(token), ',')) {
            let (mut path, mut name, mut is_glob) = (prefix.clone(), None, false);
            let mut parts = part.iter();
            while let Some(token) = parts.next() {
                match token {
                    TokenTree::Ident(word) if word == "as" => name = ident(parts.next()),
                    TokenTree::Ident(word) if word == "self" && !path.is_empty() => {}
                    TokenTree::Ident(word) => path.push(word.to_string()),
                    TokenTree::Punct(punct) if punct.as_char() == '*' => is_glob = true,
                    TokenTree::Group(group) => stack.push((path.split_off(0), group.stream().into_iter().collect())),
                    _ => {}
                }
            }
            if let Some(last) = path.last() {
                let name = if is_glob { None } else { name.or_else(|| Some(last.clone())) };
                found.push(Use { path, name, is_public });
            }
        }
    }
    found
}
