//! The messages of a conversation as a tree: which are shown, and which versions a message has.

use std::collections::HashMap;

/// A message's place: its ID and that of the message before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) id: String,
    pub(crate) parent: Option<String>,
}

/// A conversation's messages in the order in which they were written, which puts a parent before its children.
#[derive(Debug)]
pub(crate) struct Branches<'a> {
    places: &'a [Place],
    by_id: HashMap<&'a str, usize>,
}

impl<'a> Branches<'a> {
    pub(crate) fn new(places: &'a [Place]) -> Self {
        let by_id = places.iter().enumerate().map(|(index, place)| (place.id.as_str(), index)).collect();
        Self { places, by_id }
    }

    fn parent(&self, index: usize) -> Option<usize> {
        let parent = self.places[index].parent.as_deref()?;
        // A parent comes first; anything else in a damaged file is no parent, so that no walk is endless.
        self.by_id.get(parent).copied().filter(|&parent| parent < index)
    }

    /// The indices of the messages from the first to `leaf`; to the newest message if there is no such leaf.
    pub(crate) fn path(&self, leaf: Option<&str>) -> Vec<usize> {
        let known = leaf.and_then(|leaf| self.by_id.get(leaf)).copied();
        let mut at = known.or_else(|| self.places.len().checked_sub(1));
        let mut path = Vec::new();
        while let Some(index) = at {
            path.push(index);
            at = self.parent(index);
        }
        path.reverse();
        path
    }

    /// All versions of the message at `index`, oldest first.
    pub(crate) fn versions(&self, index: usize) -> Vec<String> {
        let parent = self.parent(index);
        let siblings = (0..self.places.len()).filter(|&other| self.parent(other) == parent);
        siblings.map(|sibling| self.places[sibling].id.clone()).collect()
    }

    /// The newest message below `id`, or `id` itself: the message shown when this version is chosen.
    pub(crate) fn newest_below(&self, id: &str) -> Option<&'a str> {
        let mut at = *self.by_id.get(id)?;
        while let Some(child) = (at + 1..self.places.len()).rev().find(|&child| self.parent(child) == Some(at)) {
            at = child;
        }
        Some(&self.places[at].id)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn places(list: &[(&str, &str)]) -> Vec<Place> {
        let place = |&(id, parent): &(&str, &str)| Place {
            id: id.to_owned(),
            parent: (!parent.is_empty()).then(|| parent.to_owned()),
        };
        list.iter().map(place).collect()
    }

    fn ids(places: &[Place], path: Vec<usize>) -> String {
        path.into_iter().map(|index| places[index].id.as_str()).collect()
    }

    #[test]
    fn a_leaf_names_the_branch_that_is_shown() {
        // a answers to b or to c; below b there are d and e, below c there is f.
        let tree = places(&[("a", ""), ("b", "a"), ("d", "b"), ("c", "a"), ("f", "c"), ("e", "b")]);
        let branches = Branches::new(&tree);
        assert_eq!(ids(&tree, branches.path(Some("d"))), "abd");
        assert_eq!(ids(&tree, branches.path(Some("f"))), "acf");
        assert_eq!(ids(&tree, branches.path(Some("gone"))), "abe", "the newest, where the leaf is unknown");
        assert_eq!(ids(&tree, branches.path(None)), "abe");
        assert_eq!(branches.versions(1), ["b", "c"]);
        assert_eq!(branches.versions(0), ["a"]);
        assert_eq!(branches.newest_below("b"), Some("e"));
        assert_eq!(branches.newest_below("a"), Some("f"), "its newest version, and the newest below that");
        assert_eq!(branches.newest_below("f"), Some("f"));
        assert_eq!(branches.newest_below("x"), None);
        assert_eq!(Branches::new(&[]).path(None), Vec::<usize>::new());
    }

    #[test]
    fn a_first_question_has_versions_and_a_damaged_tree_ends() {
        let tree = places(&[("a", ""), ("b", "a"), ("c", "")]);
        assert_eq!(Branches::new(&tree).versions(2), ["a", "c"]);
        let circle = places(&[("a", "b"), ("b", "a"), ("c", "c"), ("d", "nobody")]);
        let branches = Branches::new(&circle);
        assert_eq!(ids(&circle, branches.path(Some("b"))), "ab");
        assert_eq!(ids(&circle, branches.path(Some("c"))), "c");
        assert_eq!(branches.newest_below("c"), Some("c"));
    }
}
