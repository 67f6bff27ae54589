//! The rules of the house: which crate may use which, and that no files of a crate use each other in a circle.
//!
//! Read from the manifests and the sources as they lie in the repository. `house/sources.rs` says what counts as a use.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "house/circles.rs"]
mod circles;
#[path = "house/sources.rs"]
mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use circles::{Circle, circles};
use sources::Sources;

/// The floors of the house, from the top. A crate uses crates of lower floors only, and none of its own.
const FLOORS: [&[&str]; 15] = [
    &["hivemind", "hivemind-app"],
    &["hive-api"],
    &["hive-mind", "hive-view"],
    &["hive-node"],
    &["hive-serving"],
    &["hive-ring"],
    &["hive-stage"],
    &["hive-worker", "hive-peers", "hive-store"],
    &["hive-audit"],
    &["hive-protocol", "hive-quantize"],
    &["hive-model", "hive-net", "hive-plan", "hive-host"],
    &["hive-weights"],
    &["hive-text", "hive-catalogue"],
    &["hive-types", "hive-kernels"],
    &["mlx-sys", "hive-features"],
];

/// What lies above the node knows the node, and of what is below it only these: what this machine is, the values that
/// everybody shares, and how the build finds MLX. Tests may know more.
const ABOVE_THE_NODE: [&str; 5] = ["hivemind", "hivemind-app", "hive-api", "hive-view", "hive-mind"];
const KNOWN_ABOVE: [&str; 4] = ["hive-host", "hive-types", "hive-features", "mlx-sys"];

/// What a crate of the node does not know of: who defines it, its name, and who does not name it. The rules of floors alone
/// would let a crate have a thing of its own by that name.
const UNKNOWN_BELOW: [(&str, &str, &[&str]); 6] = [
    ("hive-node", "Node", &["hive-serving", "hive-ring", "hive-stage", "hive-peers", "hive-worker", "hive-protocol"]),
    ("hive-serving", "Serving", &["hive-ring", "hive-stage", "hive-peers", "hive-worker", "hive-protocol"]),
    ("hive-serving", "ModelRequest", &["hive-ring", "hive-stage", "hive-peers", "hive-worker", "hive-protocol"]),
    ("hive-ring", "Ring", &["hive-stage", "hive-peers", "hive-worker", "hive-protocol"]),
    ("hive-stage", "StageHost", &["hive-peers", "hive-worker", "hive-protocol"]),
    ("hive-protocol", "StageId", &["hive-peers", "hive-worker"]),
];

/// The largest part of the Rust that one crate may be.
const LARGEST_PERCENT: usize = 16;

/// One crate uses another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Arrow {
    from: String,
    to: String,
    /// Whether only its tests and examples do.
    is_for_tests: bool,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The workspace's crates, each with its folder and its manifest.
fn crates() -> BTreeMap<String, (PathBuf, toml::Table)> {
    let folders = std::fs::read_dir(root().join("crates")).unwrap().map(|entry| entry.unwrap().path());
    let manifest = |folder: PathBuf| {
        let text = std::fs::read_to_string(folder.join("Cargo.toml")).ok()?;
        let manifest: toml::Table = text.parse().unwrap();
        Some((manifest["package"]["name"].as_str().unwrap().to_owned(), (folder, manifest)))
    };
    folders.chain([root().join("src-tauri")]).filter_map(manifest).collect()
}

/// Which crate uses which, as their manifests say.
fn arrows() -> BTreeSet<Arrow> {
    let crates = crates();
    let mut found = BTreeSet::new();
    for (from, (_, manifest)) in &crates {
        let targets = manifest.get("target").and_then(toml::Value::as_table).into_iter().flatten();
        let tables = targets.filter_map(|(_, target)| target.as_table()).chain([manifest]);
        for table in tables {
            for (section, is_for_tests) in
                [("dependencies", false), ("build-dependencies", false), ("dev-dependencies", true)]
            {
                let names = table.get(section).and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::keys);
                let names = names.filter(|name| crates.contains_key(*name));
                found.extend(names.map(|to| Arrow { from: from.clone(), to: to.clone(), is_for_tests }));
            }
        }
    }
    found
}

/// What is wrong with an arrow between crates, if anything is.
fn wrong(Arrow { from, to, is_for_tests }: &Arrow) -> Option<String> {
    let floor = |name: &str| FLOORS.iter().position(|floor| floor.contains(&name));
    let (Some(upper), Some(lower)) = (floor(from), floor(to)) else {
        return Some(format!("{from} → {to}: one of them has no floor; give it one in FLOORS"));
    };
    if upper >= lower {
        return Some(format!("{from} → {to}: runs up, or along a floor"));
    }
    let is_below_the_node = floor("hive-node").is_some_and(|node| lower > node);
    let is_too_deep =
        ABOVE_THE_NODE.contains(&from.as_str()) && is_below_the_node && !KNOWN_ABOVE.contains(&to.as_str());
    (is_too_deep && !is_for_tests).then(|| format!("{from} → {to}: what lies above hive-node knows nothing below it"))
}

/// The files of a circle, and a shortest way round, as people read it.
fn described(sources: &Sources, circle: &Circle) -> String {
    let Circle { members, way } = circle;
    let ends = way.iter().zip(way.iter().cycle().skip(1));
    let way: Vec<String> = ends
        .map(|(from, to)| {
            let path = &sources.arrows[&(*from, *to)];
            format!("    {} → {}   {path}", sources.files[*from], sources.files[*to])
        })
        .collect();
    let members: Vec<&str> = members.iter().map(|file| sources.files[*file].as_str()).collect();
    format!("  {} files: {}\n  shortest:\n{}", members.len(), members.join(", "), way.join("\n"))
}

fn circles_of(sources: &Sources) -> Vec<Circle> {
    circles(sources.files.len(), &sources.arrows.keys().copied().collect())
}

#[test]
fn arrows_between_crates_run_down_only() {
    let arrows = arrows();
    assert!(arrows.len() > 20, "the manifests were not read: {arrows:?}");
    let wrong: Vec<String> = arrows.iter().filter_map(wrong).collect();
    assert!(wrong.is_empty(), "crates use each other against the rules of the house:\n{}", wrong.join("\n"));
}

#[test]
fn an_arrow_between_crates_that_is_turned_round_is_found() {
    for Arrow { from, to, is_for_tests } in arrows() {
        let turned = Arrow { from: to, to: from, is_for_tests };
        assert!(wrong(&turned).is_some(), "{turned:?}");
    }
}

#[test]
fn no_files_of_a_crate_use_each_other_in_a_circle() {
    let mut found = Vec::new();
    for (name, (folder, _)) in crates() {
        let sources = Sources::read(&folder);
        assert!(!sources.files.is_empty(), "the sources of {name} were not read");
        let circles = circles_of(&sources);
        found.extend(circles.iter().map(|circle| format!("{name}: {}", described(&sources, circle))));
    }
    assert!(
        found.is_empty(),
        "files use each other in a circle. Move what both need (most often a type) to a file of its own.\n{}",
        found.join("\n")
    );
}

#[test]
fn a_floor_of_the_node_does_not_name_what_is_above_it() {
    let crates = crates();
    let sources = |name: &str| Sources::read(&crates[name].0);
    for (owner, thing, unaware) in UNKNOWN_BELOW {
        assert!(sources(owner).items.contains(thing), "{owner} has no {thing} any more: the rule means nothing");
        for name in unaware {
            let sources = sources(name);
            let file = sources.names.get(thing).map(|file| &sources.files[*file]);
            assert_eq!(file, None, "{name} knows of {thing}, which is {owner}'s");
        }
    }
}

#[test]
fn no_crate_is_too_large_to_be_one_room() {
    fn lines(folder: &Path) -> usize {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries
            .filter(|path| !path.ends_with("target") && !path.ends_with("mlx-c-source"))
            .map(|path| match path.extension() {
                _ if path.is_dir() => lines(&path),
                Some(rust) if rust == "rs" => std::fs::read_to_string(&path).unwrap().lines().count(),
                _ => 0,
            })
            .sum()
    }
    let of_crates: BTreeMap<String, usize> =
        crates().into_iter().map(|(name, (folder, _))| (name, lines(&folder))).collect();
    let all: usize = of_crates.values().sum::<usize>() + lines(&root().join("tests"));
    let (name, largest) = of_crates.iter().max_by_key(|(_, lines)| **lines).unwrap();
    println!("{name} is the largest crate: {largest} of {all} lines");
    assert!(largest * 100 <= all * LARGEST_PERCENT, "{name} has {largest} of {all} lines; give a part of it a crate");
}

#[test]
fn an_arrow_between_files_that_is_turned_round_is_found() {
    for (name, (folder, _)) in crates() {
        let sources = Sources::read(&folder);
        let arrows: BTreeSet<(usize, usize)> = sources.arrows.keys().copied().collect();
        let before = circles_of(&sources);
        let is_in_one = |from, to| before.iter().any(|one| one.members.contains(&from) && one.members.contains(&to));
        for (from, to) in arrows.iter().copied().filter(|(from, to)| !is_in_one(*from, *to)) {
            let mut turned = arrows.clone();
            turned.insert((to, from));
            let found = circles(sources.files.len(), &turned);
            let closes = |circle: &Circle| circle.members.contains(&from) && circle.members.contains(&to);
            assert!(found.iter().any(closes), "{name}: {} ⇄ {}", sources.files[from], sources.files[to]);
        }
    }
}

/// Two files that use each other: seen through a re-export, a macro, a `use` in a function and a path in code, and not
/// in tests, in `mod` declarations, or where a parent only passes a name on.
#[test]
fn a_use_is_seen_however_it_is_written() {
    let uses = |parent: &str, child: &str| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("src/parent")).unwrap();
        let write = |file: &str, text: &str| std::fs::write(folder.path().join("src").join(file), text).unwrap();
        write("lib.rs", "mod other;\nmod parent;\npub use parent::{Child, Parent};\n");
        write("other.rs", "pub struct Other;\n");
        write("parent.rs", &format!("mod child;\npub use child::Child;\npub struct Parent;\n{parent}"));
        write("parent/child.rs", &format!("pub struct Child;\n{child}"));
        let sources = Sources::read(folder.path());
        let name = |file: usize| sources.files[file].trim_start_matches("src/").trim_end_matches(".rs").to_owned();
        sources.arrows.keys().map(|(from, to)| format!("{} → {}", name(*from), name(*to))).collect::<Vec<_>>()
    };
    let (to_parent, to_child) = ("parent/child → parent", "parent → parent/child");
    assert_eq!(uses("", ""), Vec::<String>::new());
    assert_eq!(uses("", "use super::Parent;\n"), [to_parent]);
    assert_eq!(uses("", "use crate::Parent;\n"), [to_parent], "through a re-export");
    assert_eq!(
        uses("", "fn f() { use crate::{other::Other as O, parent::*}; }\n"),
        ["parent/child → other", to_parent]
    );
    assert_eq!(uses("", "fn f() { println!(\"{:?}\", super::Parent) }\n"), [to_parent], "in a macro");
    assert_eq!(uses("fn f(child: Child) {}\n", ""), [to_child], "a name that is passed on and used");
    assert_eq!(uses("fn f() { child::Child::new() }\n", "use super::Parent;\n"), [to_child, to_parent]);
    assert_eq!(uses("fn f(x: X) { x.Child; }\n", "use super::child::Child as Same;\n"), Vec::<String>::new());
    assert_eq!(uses("", "#[cfg(test)]\nmod tests { use super::super::Parent; }\n"), Vec::<String>::new());
    assert_eq!(
        uses("", "#[cfg(test)]\nuse super::{Parent};\nfn f() { crate::other::Other; }\n"),
        ["parent/child → other"]
    );
    assert_eq!(uses("", "mod inside { use super::super::Parent; }\n"), [to_parent]);
    assert_eq!(uses("", "use hive_other::Parent;\n// super::Parent\n"), Vec::<String>::new());
}
