//! The node and the catalogue: which models could be fetched, and whether the machines that are here have room for them.

use hive_catalogue::{Catalogue, search};
use hive_stage::aside;
use hive_types::{CatalogueModel, CatalogueQuery, CatalogueView, FitView};

use super::Node;

/// Lengths of conversations for which a fit is given, in tokens, besides the model's whole context.
const CONTEXTS: [u64; 2] = [4096, 32_768];

impl Node {
    /// The models of the catalogue that match, with their fit.
    pub fn catalogue(&self, query: &CatalogueQuery) -> CatalogueView {
        aside(|| {
            let folder = self.member().data().map(|data| data.path().to_owned());
            let catalogue = folder.map_or_else(Catalogue::built_in, |folder| Catalogue::with_own(&folder));
            let places = self.host().catalogue().places();
            let on_disk: Vec<String> = places.into_iter().filter_map(|place| place.name).collect();
            let loaded = self.serving().names();
            let room = self.serving().capacity_for(None);
            let view = |hit: hive_catalogue::Hit<'_>| {
                let mut view: CatalogueModel = hit.entry.view();
                let contexts = contexts(hit.entry.context, query.context);
                for (shown, variant) in view.variants.iter_mut().zip(&hit.entry.variants) {
                    shown.on_disk = on_disk.contains(&shown.model);
                    shown.loaded = loaded.contains(&shown.model);
                    let own = shown.loaded.then(|| self.serving().capacity_for(Some(&shown.model)));
                    let (needs, room) = (hit.entry.needs(variant), own.as_ref().unwrap_or(&room));
                    let fit = |context: &u64| {
                        let fit = room.fit(&needs, *context);
                        FitView { room_tokens: fit.room_tokens.min(hit.entry.context), ..fit }
                    };
                    shown.fits = contexts.iter().map(fit).collect();
                }
                view
            };
            let words = query.search.as_deref().unwrap_or_default();
            CatalogueView {
                models: search(&catalogue, words).into_iter().map(view).collect(),
                problem: catalogue.problem.clone(),
            }
        })
    }
}

/// The lengths for which a fit is given, none longer than the model's own.
fn contexts(most: u64, wanted: Option<u64>) -> Vec<u64> {
    if let Some(wanted) = wanted {
        return vec![wanted.clamp(1, most.max(1))];
    }
    let mut contexts: Vec<u64> = CONTEXTS.into_iter().filter(|context| *context < most).collect();
    contexts.push(most);
    contexts
}

#[cfg(test)]
mod tests {
    use super::*;
    use hive_store::ModelName;
    use hive_weights::ModelConfig;
    use serde_json::json;

    #[test]
    fn a_fit_is_given_for_no_conversation_longer_than_the_models_own() {
        assert_eq!(contexts(131_072, None), [4096, 32_768, 131_072]);
        assert_eq!(contexts(32_768, None), [4096, 32_768]);
        assert_eq!(contexts(2048, None), [2048]);
        assert_eq!([contexts(2048, Some(4096)), contexts(2048, Some(0))], [[2048], [1]]);
    }

    #[test]
    fn every_model_of_the_catalogue_can_be_asked_for_and_is_of_a_family_that_runs() {
        for entry in Catalogue::built_in().entries {
            assert!(runs(&entry.family), "{}: {}", entry.name, entry.family);
            for variant in &entry.variants {
                let name: ModelName = variant.model().parse().unwrap();
                assert_eq!(name.to_string(), variant.model());
            }
        }
        assert!(!runs("mamba"));
    }

    /// Whether a configuration of this family is refused for anything but its family.
    fn runs(family: &str) -> bool {
        let refusal = ModelConfig::from_json(&json!({ "model_type": family })).err().map(|error| error.to_string());
        !refusal.is_some_and(|refusal| refusal.contains(&format!("\"{family}\"")))
    }
}
