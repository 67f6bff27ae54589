//! `hivemind models search`: models that can be fetched, and whether the machines that are here have room for them.

use std::io::IsTerminal;
use std::path::Path;

use hive_node::catalogue::{Catalogue, search};
use hive_types::{CatalogueModel, CatalogueVariant, CatalogueView, Fit, FitView, grouped};
use serde_json::json;
use unicode_width::UnicodeWidthStr;

use crate::client::Client;
use crate::output::megabytes;
use crate::{Failure, output};

pub(super) async fn run(words: &[String], context: Option<u64>, as_json: bool, folder: &Path) -> Result<(), Failure> {
    let words = words.join(" ");
    let client = Client::find(folder).await?;
    let found: CatalogueView = match &client {
        Some(client) => {
            let context = context.map(|context| ("context", context.to_string()));
            let query: Vec<_> = [("search", words.clone())].into_iter().chain(context).collect();
            client.get("/hive/v1/catalogue", &query).await?
        }
        None => without_a_node(&words, folder),
    };
    if let Some(problem) = &found.problem {
        output::warning(problem);
    }
    if as_json {
        output::line(json!({ "models": found.models }));
        return Ok(());
    }
    if found.models.is_empty() {
        output::line(format_args!("No model matches \"{words}\"."));
        output::note("Any other model of a family that runs can be fetched too: hivemind models get owner/name");
        return Ok(());
    }
    if client.is_none() {
        output::note("No node is running, so this does not say what fits. Start one with `hivemind node`.");
    }
    if std::io::stdout().is_terminal() {
        table(&found.models).iter().for_each(output::line);
    } else {
        found.models.iter().flat_map(plain).for_each(output::line);
    }
    Ok(())
}

fn without_a_node(words: &str, folder: &Path) -> CatalogueView {
    let catalogue = Catalogue::with_own(folder);
    let models = search(&catalogue, words).into_iter().map(|hit| hit.entry.view()).collect();
    CatalogueView { models, problem: catalogue.problem }
}

/// One line for each quantization, for programs and files.
fn plain(model: &CatalogueModel) -> impl Iterator<Item = String> {
    model.variants.iter().map(|variant| {
        let fit = verdict(&variant.fits).into_iter().chain(advice(&variant.fits));
        let parts = [model.name.clone(), size(variant)].into_iter().chain(fit).chain(speed(&variant.fits));
        let good_at = (!model.good_at.is_empty()).then(|| model.good_at.join(", "));
        let state = state(variant).map(str::to_owned);
        parts.chain(good_at).chain(state).chain([variant.model.clone()]).collect::<Vec<_>>().join(" · ")
    })
}

/// A row of the table, one for each quantization.
struct Row {
    cells: [String; 5],
    /// What stands below it: the name to fetch, which may be long, and advice.
    below: Vec<String>,
}

fn table(models: &[CatalogueModel]) -> Vec<String> {
    let head = ["MODEL", "SIZE", "FITS", "SPEED", "GOOD AT"].map(str::to_owned);
    let has_fits = models.iter().flat_map(|model| &model.variants).any(|variant| !variant.fits.is_empty());
    let rows: Vec<Row> = models.iter().flat_map(rows).collect();
    let all = || std::iter::once(&head).chain(rows.iter().map(|row| &row.cells));
    let width = |column: usize| all().map(|cells| cells[column].width()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &[String; 5]| {
        let cells = cells.iter().zip(&widths).enumerate();
        // Without a node, nothing fits or has a speed.
        let cells = cells.filter(|(column, _)| has_fits || !matches!(column, 2 | 3));
        let cells = cells.map(|(_, (text, width))| format!("{text}{}", " ".repeat(width - text.width())));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(&head)];
    for Row { cells, below } in &rows {
        lines.push(line(cells));
        lines.extend(below.iter().map(|text| format!("    {text}")));
    }
    lines
}

fn rows(model: &CatalogueModel) -> impl Iterator<Item = Row> {
    model.variants.iter().enumerate().map(|(index, variant)| {
        let once = |text: &str| if index == 0 { text.to_owned() } else { String::new() };
        let state = state(variant).map(|state| format!(" ({state})")).unwrap_or_default();
        Row {
            cells: [
                once(&model.name),
                size(variant),
                verdict(&variant.fits).unwrap_or_default(),
                speed(&variant.fits).unwrap_or_default(),
                once(&model.good_at.join(", ")),
            ],
            below: [format!("{}{state}", variant.model)].into_iter().chain(advice(&variant.fits)).collect(),
        }
    })
}

fn size(variant: &CatalogueVariant) -> String {
    let about = if variant.approximate { "about " } else { "" };
    format!("{about}{}, {}", megabytes(variant.bytes), variant.quantization)
}

fn state(variant: &CatalogueVariant) -> Option<&'static str> {
    if variant.loaded { Some("loaded") } else { variant.on_disk.then_some("downloaded") }
}

/// The verdict on the shortest conversation, and the longest for which there is room.
fn verdict(fits: &[FitView]) -> Option<String> {
    let longest = fits.iter().map(|fit| fit.room_tokens).max().unwrap_or_default();
    let up_to = if longest > 0 { format!(", up to {} tokens", grouped(longest)) } else { String::new() };
    match &fits.first()?.fit {
        Fit::Comfortable => Some(format!("yes{up_to}")),
        Fit::Snug { machine, left_bytes } => Some(format!("just, {} left on {machine}{up_to}", megabytes(*left_bytes))),
        Fit::NeedsMore { bytes, .. } => Some(format!("no, needs {} more", megabytes(*bytes))),
        Fit::Unknown => None,
    }
}

fn advice(fits: &[FitView]) -> Option<String> {
    match &fits.first()?.fit {
        Fit::NeedsMore { advice, .. } => Some(advice.clone()),
        _ => None,
    }
}

fn speed(fits: &[FitView]) -> Option<String> {
    let rate = fits.first()?.decode_tokens_per_s?;
    Some(if rate < 10.0 { format!("{rate:.1} tok/s") } else { format!("{rate:.0} tok/s") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(context: u64, fit: Fit, rate: Option<f64>) -> FitView {
        let room_tokens = if rate.is_some() { context + 1000 } else { 0 };
        FitView { context, fit, machines: Vec::new(), room_tokens, decode_tokens_per_s: rate }
    }

    fn models() -> Vec<CatalogueModel> {
        let variant = |model: &str, bytes: u64, fits: Vec<FitView>| CatalogueVariant {
            model: model.to_owned(),
            quantization: "4-bit".to_owned(),
            bytes,
            fits,
            ..CatalogueVariant::default()
        };
        let more = || Fit::NeedsMore { bytes: 6_000_000_000, advice: "share 6 GB more on attic".to_owned() };
        let snug = Fit::Snug { machine: "attic".to_owned(), left_bytes: 500_000_000 };
        let small = variant(
            "o/small-4bit",
            5_000_000_000,
            vec![
                fit(4096, Fit::Comfortable, Some(42.4)),
                fit(32_768, snug.clone(), Some(41.0)),
                fit(131_072, more(), None),
            ],
        );
        let large = variant("o/small-8bit", 9_000_000_000, vec![fit(4096, snug, Some(9.26))]);
        let huge = variant("o/huge-4bit", 90_000_000_000, vec![fit(4096, more(), None)]);
        let model = |name: &str, good_at: &[&str], variants: Vec<CatalogueVariant>| CatalogueModel {
            name: name.to_owned(),
            good_at: good_at.iter().map(|word| (*word).to_owned()).collect(),
            variants,
            ..CatalogueModel::default()
        };
        let large = CatalogueVariant { approximate: true, on_disk: true, ..large };
        vec![model("Small", &["chat", "code"], vec![small, large]), model("Huge", &[], vec![huge])]
    }

    #[test]
    fn a_terminal_gets_a_table_with_the_name_to_fetch_below_each_row() {
        let expected = [
            "MODEL  SIZE                 FITS                                             SPEED      GOOD AT",
            "Small  5.0 GB, 4-bit        yes, up to 33,768 tokens                         42 tok/s   chat, code",
            "    o/small-4bit",
            "       about 9.0 GB, 4-bit  just, 500.0 MB left on attic, up to 5,096 tokens  9.3 tok/s",
            "    o/small-8bit (downloaded)",
            "Huge   90.0 GB, 4-bit       no, needs 6.0 GB more",
            "    o/huge-4bit",
            "    share 6 GB more on attic",
        ];
        let squeezed = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let found = table(&models());
        let same = found.iter().map(|line| squeezed(line)).eq(expected.iter().map(|line| squeezed(line)));
        assert!(same, "{found:#?}");
        // Columns stand below each other.
        let starts = |line: usize, text: &str| found[line].find(text).unwrap();
        assert_eq!(starts(0, "FITS"), starts(1, "yes"));
        assert_eq!([starts(0, "SPEED"); 2], [starts(1, "42 tok/s"), starts(3, "9.3 tok/s")]);
    }

    #[test]
    fn what_fits_is_left_out_where_no_node_says_it() {
        let mut models = models();
        models.iter_mut().flat_map(|model| &mut model.variants).for_each(|variant| variant.fits.clear());
        let found = table(&models);
        assert_eq!(found[0].split_whitespace().collect::<Vec<_>>(), ["MODEL", "SIZE", "GOOD", "AT"]);
        assert!(found[1].ends_with("5.0 GB, 4-bit        chat, code"), "{found:#?}");
    }

    #[test]
    fn a_file_gets_one_line_for_each_quantization() {
        let lines: Vec<String> = models().iter().flat_map(plain).collect();
        assert_eq!(
            lines,
            [
                "Small · 5.0 GB, 4-bit · yes, up to 33,768 tokens · 42 tok/s · chat, code · o/small-4bit",
                "Small · about 9.0 GB, 4-bit · just, 500.0 MB left on attic, up to 5,096 tokens · 9.3 tok/s · chat, code · \
             downloaded · o/small-8bit",
                "Huge · 90.0 GB, 4-bit · no, needs 6.0 GB more · share 6 GB more on attic · o/huge-4bit",
            ]
        );
    }
}
