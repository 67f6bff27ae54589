//! Sanitizes text from other machines: every foreign string passes through here once, where it enters.
//!
//! Names, refusals and reasons of other machines end up in terminals, windows and logs. Sanitized text is one line that
//! moves no cursor, reverses nothing, hides nothing, and fits a known number of columns:
//!
//! - control, format, line-separator, private-use and unassigned characters are dropped, zero-width ones and tags among
//!   them; line breaks and characters that only look blank become spaces, and a run of spaces becomes one;
//! - a character carries at most four marks: combining marks, and letters that take no column of their own, such as the
//!   vowels of a decomposed Korean syllable;
//! - text that does not fit is cut, and ends in "…";
//! - text with a word that mixes alphabets, such as Latin with a Cyrillic "о", begins with `⚠`. Latin beside
//!   Chinese, Japanese or Korean is normal there, and is not marked.
//!
//! Invariant: every function is idempotent.

use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};
use unicode_security::mixed_script::AugmentedScriptSet;
use unicode_width::UnicodeWidthChar;

/// Width of a name in a list, in columns.
pub const NAME_COLUMNS: usize = 32;

/// Maximum width of a refusal or a reason, in columns: a few sentences.
pub const REASON_COLUMNS: usize = 400;

/// Prefix of text in which a word mixes alphabets and may imitate another word.
const MIXED: char = '⚠';

/// Replaces text that was cut.
const CUT: char = '…';

/// Combining marks per character. Vietnamese needs two, pointed Hebrew three.
const STACKED_MARKS: usize = 4;

/// Shown for a machine without a name, or with one that cannot be shown.
const NO_NAME: &str = "a machine without a name";

/// A machine's name, safe to show.
pub fn name(foreign: &str) -> String {
    let shown = marked(foreign, NAME_COLUMNS);
    if shown.is_empty() { NO_NAME.to_owned() } else { shown }
}

/// A short label: a version, a processor, a kind of system.
pub fn label(foreign: &str) -> String {
    marked(foreign, NAME_COLUMNS)
}

/// Why another machine, or a process that parsed a stranger's file, failed or refused.
pub fn reason(foreign: &str) -> String {
    let shown = marked(foreign, REASON_COLUMNS);
    if shown.is_empty() { "it gave no reason".to_owned() } else { shown }
}

/// Any text as one line of at most `columns`, without a mark: for messages that quote foreign text.
pub fn line(text: &str, columns: usize) -> String {
    cut(&one_line(text), columns)
}

/// Whether a name is safe to show unchanged. Names that programs look up, such as a model's, are accepted whole or
/// rejected.
pub fn is_plain(name: &str) -> bool {
    !name.is_empty() && one_line(name) == name && !mixes_scripts(name)
}

/// Text cut and padded with spaces to exactly `columns`: a cell of a table.
pub fn cell(text: &str, columns: usize) -> String {
    let text = cut(&one_line(text), columns);
    let blank = " ".repeat(columns.saturating_sub(width(&text)));
    text + &blank
}

fn marked(foreign: &str, columns: usize) -> String {
    // A leading mark in the text counts as our own, so that marking is idempotent.
    let came_marked = one_line(foreign).starts_with(MIXED);
    let text = one_line(&foreign.replace(MIXED, " "));
    if text.is_empty() || !(came_marked || mixes_scripts(&text)) {
        return cut(&text, columns);
    }
    let mark = format!("{MIXED} ");
    let left = columns.saturating_sub(width(&mark));
    mark + &cut(&text, left)
}

/// Drops characters that are invisible or affect their surroundings, and collapses every run of blanks into one space.
fn one_line(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    // A mark at the beginning would attach to whatever is shown before this text.
    let mut marks = STACKED_MARKS;
    for c in text.chars() {
        match kind(c) {
            Kind::Dropped => {}
            Kind::Blank => {
                if !shown.is_empty() && !shown.ends_with(' ') {
                    shown.push(' ');
                }
                marks = STACKED_MARKS;
            }
            Kind::Mark => {
                if marks < STACKED_MARKS {
                    shown.push(c);
                    marks += 1;
                }
            }
            Kind::Shown => {
                shown.push(c);
                marks = 0;
            }
        }
    }
    shown.truncate(shown.trim_end().len());
    shown
}

#[derive(PartialEq)]
enum Kind {
    Shown,
    /// Attaches to the character before it.
    Mark,
    Blank,
    Dropped,
}

fn kind(c: char) -> Kind {
    match c {
        // Includes letters and symbols without ink: Hangul fillers, the empty Braille pattern, the null notehead.
        '\n' | '\r' | '\t' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}'
        | '\u{2800}' | '\u{1d159}' => {
            return Kind::Blank;
        }
        // Marks without ink, or that only select glyphs: the grapheme joiner, Khmer's inherent vowels, variation
        // selectors.
        '\u{34f}'
        | '\u{17b4}'
        | '\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{e0000}'..='\u{e0fff}' => return Kind::Dropped,
        _ => {}
    }
    match c.general_category() {
        GeneralCategory::Control
        | GeneralCategory::Format
        | GeneralCategory::PrivateUse
        | GeneralCategory::Surrogate
        | GeneralCategory::Unassigned => Kind::Dropped,
        GeneralCategory::SpaceSeparator | GeneralCategory::LineSeparator | GeneralCategory::ParagraphSeparator => {
            Kind::Blank
        }
        GeneralCategory::NonspacingMark | GeneralCategory::EnclosingMark => Kind::Mark,
        // Characters without a column could be stacked without limit.
        _ if c.width() == Some(0) => Kind::Mark,
        _ => Kind::Shown,
    }
}

/// Width of sanitized text, in columns of a terminal that is not configured for East Asia, where some characters of
/// other scripts take two.
fn width(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut left = columns.saturating_sub(1);
    let fits = |c: &char| {
        let Some(rest) = left.checked_sub(c.width().unwrap_or(0)) else { return false };
        left = rest;
        true
    };
    let kept: String = text.chars().take_while(fits).collect();
    format!("{}{CUT}", kept.trim_end())
}

/// Whether a word of this text mixes alphabets in a way that nobody writes.
fn mixes_scripts(text: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric() && !matches!(kind(c), Kind::Mark)).any(word_mixes_scripts)
}

fn word_mixes_scripts(word: &str) -> bool {
    if !AugmentedScriptSet::for_str(word).is_empty() {
        return false;
    }
    let others: String = word.chars().filter(|c| !is_latin(*c)).collect();
    let rest = AugmentedScriptSet::for_str(&others);
    !(rest.hanb || rest.jpan || rest.kore)
}

fn is_latin(c: char) -> bool {
    use unicode_script::{Script, UnicodeScript};
    c.script() == Script::Latin
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escape_sequences_line_breaks_and_what_cannot_be_seen_do_not_get_in() {
        assert_eq!(name(" Ann's\u{1b}[31m Mac\n"), "Ann's[31m Mac");
        assert_eq!(name("a\u{9b}31mb\u{7f}\0\u{8}c"), "a31mbc");
        assert_eq!(reason("no\nyes\r\u{2028}maybe\u{2029}\u{85}end"), "no yes maybe end");
        // Order and direction, zero width, soft hyphens, tags, private use, unassigned, noncharacters.
        let hidden = "s\u{202e}t\u{2066}u\u{200b}d\u{200d}\u{feff}i\u{ad}\u{e0041}\u{e007f}o\u{e000}\u{f0000}\u{378}\u{fffe}\u{61c}\u{2060}\u{180e}";
        assert_eq!(name(hidden), "studio");
        assert_eq!(name("a\u{3164}\u{3164}\u{2800}\u{a0}\u{3000}b\u{ffa0}"), "a b");
        assert_eq!(name("\n\u{200b}"), NO_NAME);
        assert_eq!(reason("\u{1b}"), "it gave no reason");
    }

    #[test]
    fn a_name_forges_no_row() {
        let forged = name("mac-mini sister-return-cause          code 482 915");
        assert_eq!(forged, "mac-mini sister-return-cause co…");
        assert_eq!(width(&forged), NAME_COLUMNS);
        assert_eq!(name(&"é".repeat(500)), "é".repeat(31) + "…");
        // Two columns each; one that would exceed the limit by a column is dropped.
        assert_eq!(name(&"語".repeat(500)), "語".repeat(15) + "…");
        assert_eq!(cell("語語", 6), "語語  ");
        assert_eq!(cell("abcdef", 4), "abc…");
    }

    #[test]
    fn marks_do_not_pile_up_and_stand_on_nothing_else() {
        let tall = name(&("a".to_owned() + &"\u{301}".repeat(1000) + "b"));
        assert_eq!(tall, "a".to_owned() + &"\u{301}".repeat(STACKED_MARKS) + "b");
        assert_eq!(name("\u{301}\u{20dd}ann"), "ann");
        assert_eq!(name("a \u{301}b"), "a b");
    }

    #[test]
    fn a_name_ends_also_where_its_letters_take_no_column() {
        // A decomposed Korean syllable.
        let spelt = "\u{1112}\u{1161}\u{11ab}";
        assert_eq!((name(spelt), width(spelt)), (spelt.to_owned(), 2));
        for joined in ["\u{1161}", "\u{11a8}", "\u{d7b0}", "\u{d7cb}", "\u{9be}", "\u{1d165}"] {
            let long = line(&("a".to_owned() + &joined.repeat(5000) + "b"), NAME_COLUMNS);
            assert_eq!(long, "a".to_owned() + &joined.repeat(STACKED_MARKS) + "b", "{}", joined.escape_unicode());
        }
        let endless = ('\0'..=char::MAX).find(|c| kind(*c) == Kind::Shown && c.width().unwrap_or(0) == 0);
        assert_eq!(endless, None);
    }

    #[test]
    fn words_that_mix_alphabets_are_marked() {
        assert_eq!(name("studi\u{43e}"), "⚠ studi\u{43e}");
        assert_eq!(name("my mac-m\u{456}ni"), "⚠ my mac-m\u{456}ni");
        assert_eq!(name("\u{3b1}nn"), "⚠ \u{3b1}nn");
        assert_eq!(name("⚠⚠ ann"), "⚠ ann");
        for honest in [
            "Ann's Mac mini",
            "Мак Анны",
            "Jürgen-2",
            "Annの Mac",
            "AnnのiMac",
            "서울PC",
            "李mac",
            "Ελένη",
            "مكتب 2",
            "राम",
        ] {
            assert_eq!(name(honest), honest);
        }
        // Each word uses one alphabet.
        assert_eq!(name("Mac Анны"), "Mac Анны");
        assert_eq!(reason("the \u{430}pp is old"), "⚠ the \u{430}pp is old");
        let long = name(&("studi\u{43e} ".to_owned() + &"x".repeat(99)));
        assert!(long.starts_with('⚠') && width(&long) == NAME_COLUMNS, "{long}");
    }

    #[test]
    fn names_to_look_things_up_by_are_plain_or_not_taken() {
        assert!(is_plain("mlx-community/Llama-3.2-1B-Instruct-4bit"));
        for foreign in ["", "a\u{1b}b", "a  b", " a", "a\u{202e}b", "ll\u{430}ma"] {
            assert!(!is_plain(foreign), "{foreign:?}");
        }
    }

    proptest! {
        #[test]
        fn what_has_passed_once_passes_unchanged(text in "\\PC{0,80}|(.|\\n){0,80}|[ a\u{43e}\u{301}\u{1161}\u{11a8}語⚠…\u{202e}]{0,80}") {
            let once = name(&text);
            prop_assert_eq!(name(&once), once.clone());
            prop_assert!(width(&once) <= NAME_COLUMNS, "{}", width(&once));
            prop_assert!(!once.chars().any(char::is_control));
            let why = reason(&text);
            prop_assert_eq!(reason(&why), why.clone());
            prop_assert_eq!(cell(&text, 9).chars().map(|c| c.width().unwrap_or(0)).sum::<usize>(), 9);
        }
    }
}
