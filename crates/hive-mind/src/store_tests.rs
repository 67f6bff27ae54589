#![allow(clippy::unwrap_used)]

use super::*;
use crate::presets::Preset;
use crate::prompt::Prompt;

fn ids(store: &Store, words: &str) -> Vec<String> {
    store.list(words).unwrap().into_iter().map(|entry| entry.id).collect()
}

/// A conversation with a question and a complete answer; returns the IDs of the conversation and the answer.
fn asked(store: &Store, question: &str, answer: &str) -> (String, Message) {
    let id = store.begin().unwrap().id;
    let begun = store.ask(&id, None, question, 7).unwrap().unwrap();
    let said = Message { text: answer.to_owned(), tokens: vec![1, 70_000], complete: true, ..begun };
    store.write(&id, &said).unwrap();
    (id, said)
}

fn texts(store: &Store, id: &str) -> Vec<String> {
    store.get(id).unwrap().unwrap().messages.into_iter().map(|message| message.text).collect()
}

#[test]
fn what_was_written_is_there_after_a_restart_newest_first() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (lisbon, answer) = asked(&store, "Plan a week in Lisbon", "Slow mornings");
    let (dates, _) = asked(&store, "A regex for dates", "Here");
    drop(store);
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(ids(&store, ""), [dates.clone(), lisbon.clone()]);
    let read = store.get(&lisbon).unwrap().unwrap();
    assert_eq!((read.title.as_str(), read.messages.len()), ("Plan a week in Lisbon", 2));
    assert_eq!(read.messages[1], Message { branches: vec![answer.id.clone()], ..answer });
    store.pin(&lisbon, true).unwrap();
    assert_eq!(ids(&store, ""), [lisbon, dates]);
}

#[test]
fn a_search_finds_words_in_any_script_and_says_where() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let lead = "word ".repeat(50);
    let (apples, answer) = asked(&store, "Ein Kuchen", &format!("{lead}\n\nmit ÄPFELN und Zimt"));
    asked(&store, "Dates", "A regex");
    let found = store.list(" äpfeln ").unwrap();
    assert_eq!((found.len(), &found[0].id, found[0].found.as_ref()), (1, &apples, Some(&answer.id)));
    assert!(found[0].snippet.starts_with('…') && found[0].snippet.contains("mit ÄPFELN und Zimt"), "{found:?}");
    store.rename(&apples, "Nachtisch").unwrap();
    assert_eq!((ids(&store, "nachTISCH"), ids(&store, "%"), ids(&store, "role")), (vec![apples], vec![], vec![]));
    let by_title = store.list("nachtisch").unwrap();
    assert_eq!((by_title[0].found.as_ref(), by_title[0].snippet.starts_with("word word")), (None, true));
    assert_eq!(store.list("").unwrap()[0].found, None);
    // Words need not stand together, but all of them in one message.
    let apart = store.list("zimt mit").unwrap();
    assert_eq!((apart.len(), apart[0].found.as_ref()), (1, Some(&answer.id)));
    assert!(store.list("zimt birnen").unwrap().is_empty());
}

#[test]
fn changes_of_one_thing_undo_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let id = store.begin().unwrap().id;
    store.draft(&id, "half a thought").unwrap();
    assert_eq!(store.begin().unwrap().draft, "half a thought", "a new chat keeps its draft");
    assert_ne!(store.create().unwrap().id, id, "a chat of its own leaves the draft alone");
    let answer = store.ask(&id, None, "  First line\nsecond", 7).unwrap().unwrap();
    store.rename(&id, "Mine").unwrap();
    store.draft(&id, "next").unwrap();
    store.instruct(&id, "Be brief").unwrap();
    let choices = Choices { temperature: 0.9, model: Some("big".to_owned()), ..Choices::default() };
    store.set_choices(&id, &choices).unwrap();
    store.write(&id, &Message { text: "Yes".to_owned(), ..answer }).unwrap();
    let read = store.get(&id).unwrap().unwrap();
    assert_eq!(
        (read.title.as_str(), read.draft.as_str(), read.system.as_str(), read.choices),
        ("Mine", "next", "Be brief", choices)
    );
    assert_eq!(texts(&store, &id), ["  First line\nsecond", "Yes"]);
    assert_ne!(store.begin().unwrap().id, id);
    let refused = store.rename("nobody", "x").unwrap_err();
    assert!(matches!(refused, StoreError::NoConversation(id) if id == "nobody"));
}

#[test]
fn an_edited_question_and_another_answer_are_branches() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (id, first) = asked(&store, "One?", "1");
    let second = store.ask(&id, None, "Two?", 7).unwrap().unwrap();
    store.write(&id, &Message { text: "2".to_owned(), complete: true, ..second }).unwrap();
    let question = store.get(&id).unwrap().unwrap().messages[0].id.clone();
    store.draft(&id, "kept").unwrap();
    let edited = store.ask(&id, Some(&question), "Uno?", 7).unwrap().unwrap();
    store.write(&id, &Message { text: "I".to_owned(), complete: true, ..edited.clone() }).unwrap();
    assert_eq!(texts(&store, &id), ["Uno?", "I"]);
    let now = store.get(&id).unwrap().unwrap();
    assert_eq!((now.messages[0].branches.len(), now.draft.as_str()), (2, "kept"));
    // Back to the first version: everything below it is there.
    store.choose(&id, &question).unwrap();
    assert_eq!(texts(&store, &id), ["One?", "1", "Two?", "2"]);
    let again = store.answer_again(&id, &first.id, 9).unwrap().unwrap();
    store.write(&id, &Message { text: "one".to_owned(), ..again.clone() }).unwrap();
    assert_eq!(texts(&store, &id), ["One?", "one"]);
    assert_eq!(store.get(&id).unwrap().unwrap().messages[1].branches, [first.id.clone(), again.id.clone()]);
    store.choose(&id, &first.id).unwrap();
    assert_eq!(texts(&store, &id), ["One?", "1", "Two?", "2"]);
    assert!(matches!(store.choose(&id, "nobody"), Err(StoreError::NoMessage(_))));
    assert!(store.answer_again(&id, "nobody", 9).unwrap().is_none());
    // Words of a branch that is not shown are found.
    assert_eq!(store.list("uno").unwrap()[0].id, id);
}

#[test]
fn an_answer_without_a_word_goes_and_its_question_stays() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (id, _) = asked(&store, "One?", "1");
    store.ask(&id, None, "Two?", 7).unwrap().unwrap();
    drop(store);
    // As after `kill -9` before the first word.
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(texts(&store, &id), ["One?", "1", "Two?"]);
    let question = store.get(&id).unwrap().unwrap().messages[2].id.clone();
    let again = store.answer_again(&id, &question, 7).unwrap().unwrap();
    store.drop_answer(&id, &again.id).unwrap();
    assert_eq!(texts(&store, &id), ["One?", "1", "Two?"]);
}

#[test]
fn deleting_can_be_undone_until_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (id, _) = asked(&store, "A secret", "xyzzy-plugh");
    store.delete(&id).unwrap();
    assert_eq!((ids(&store, ""), store.get(&id).unwrap()), (vec![], None));
    assert!(store.rename(&id, "x").is_err() && store.delete(&id).is_err());
    store.restore(&id).unwrap();
    assert_eq!(texts(&store, &id), ["A secret", "xyzzy-plugh"]);
    store.delete(&id).unwrap();
    drop(store);
    let store = Store::open(folder.path()).unwrap();
    assert!(store.restore(&id).is_err());
    drop(store);
    // Closing the last connection leaves one file, and no trace of the words in it.
    let file = std::fs::read(folder.path().join(FILE)).unwrap();
    assert!(!file.windows(11).any(|bytes| bytes == b"xyzzy-plugh"));
}

#[test]
fn conversations_of_version_1_are_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let old = Connection::open(folder.path().join(FILE)).unwrap();
    old.execute_batch(
        r#"CREATE TABLE conversation (
             id TEXT PRIMARY KEY, title TEXT NOT NULL, updated_s REAL NOT NULL, body TEXT NOT NULL
         ) STRICT;
         CREATE INDEX by_time ON conversation (updated_s DESC);
         INSERT INTO conversation VALUES ('a', 'Lisbon', 2.0, '{"id":"a","title":"Lisbon","system":"Be brief","draft":"next",
             "messages":[{"role":"user","text":"Plan","tokens":[],"note":null,"complete":true},
             {"role":"assistant","text":"Go","tokens":[5,6],"seed":9,"note":"20 tok/s","complete":false}],"updated_s":2.0}');
         INSERT INTO conversation VALUES ('b', 'Broken', 1.0, '{"id":"b"');
         PRAGMA user_version = 1;"#,
    )
    .unwrap();
    drop(old);
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(ids(&store, ""), ["a", "b"]);
    let read = store.get("a").unwrap().unwrap();
    assert_eq!(
        (read.system.as_str(), read.draft.as_str(), read.updated_s, read.began_s),
        ("Be brief", "next", 2.0, None)
    );
    let answer = &read.messages[1];
    assert_eq!(
        (answer.text.as_str(), &answer.tokens[..], answer.seed, answer.note.as_deref(), answer.complete),
        ("Go", &[5, 6][..], 9, Some("20 tok/s"), false)
    );
    assert_eq!(
        (texts(&store, "b"), store.get("b").unwrap().unwrap().title),
        (vec![r#"{"id":"b""#.to_owned()], "Broken".to_owned())
    );
}

#[test]
fn a_file_of_version_2_keeps_its_conversations_and_gets_prompts() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (id, _) = asked(&store, "Plan a week", "Go");
    let begun = store.begin().unwrap().id;
    let back = "DROP TABLE preset; DROP TABLE prompt; DROP TABLE setting; ALTER TABLE conversation DROP COLUMN named;
                ALTER TABLE message DROP COLUMN edit; PRAGMA user_version = 2;";
    store.connection().execute_batch(back).unwrap();
    drop(store);
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(
        (ids(&store, ""), texts(&store, &id)),
        (vec![id.clone()], vec!["Plan a week".to_owned(), "Go".to_owned()])
    );
    assert_eq!(store.prompts().unwrap().len(), 4);
    // A title may be a person's; that of a chat without a question is none.
    assert!(store.untitled(&id).unwrap().is_none() && store.untitled(&begun).unwrap().is_some());
}

#[test]
fn an_edited_question_is_there_after_a_restart_until_it_is_sent_or_emptied() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (id, _) = asked(&store, "Plan a week", "Go");
    let question = store.get(&id).unwrap().unwrap().messages[0].id.clone();
    store.edit(&id, &question, "Plan a month").unwrap();
    drop(store);
    let store = Store::open(folder.path()).unwrap();
    let edit = |store: &Store| store.get(&id).unwrap().unwrap().messages[0].edit.clone();
    assert_eq!(edit(&store).as_deref(), Some("Plan a month"));
    store.edit(&id, &question, "").unwrap();
    assert_eq!(edit(&store), None);
    store.edit(&id, &question, "Plan a year").unwrap();
    assert!(store.ask(&id, Some(&question), "Plan a year", 1).unwrap().is_some());
    store.choose(&id, &question).unwrap();
    assert_eq!((edit(&store), texts(&store, &id)[0].as_str()), (None, "Plan a week"));
    assert!(matches!(store.edit("none", &question, "x"), Err(StoreError::NoMessage(_))));
}

#[test]
fn presets_survive_a_restart_and_new_chats_begin_with_the_chosen_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let choices =
        Choices { temperature: 0.9, model: Some("big".to_owned()), max_tokens: Some(7), ..Choices::default() };
    let poet =
        Preset { id: "b".to_owned(), name: "poet".to_owned(), system: "Rhyme".to_owned(), choices, for_new: true };
    let brief =
        Preset { id: "a".to_owned(), name: "Übersetzer".to_owned(), system: "Brief".to_owned(), ..Preset::default() };
    let settings = |store: &Store| store.begin().map(|begun| (begun.system, begun.choices)).unwrap();
    let plain = settings(&store);
    store.put_preset(&brief).unwrap();
    assert_eq!(settings(&store), plain, "only the chosen one counts");
    store.put_preset(&poet).unwrap();
    // The chat that is begun already is as new chats are.
    assert_eq!(settings(&store), ("Rhyme".to_owned(), poet.choices.clone()));
    drop(store);
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(store.presets().unwrap(), [poet.clone(), brief.clone()]);
    assert_eq!(store.create().unwrap().system, "Rhyme");
    // Only one preset is for new chats, and what a person wrote stays.
    let id = store.begin().unwrap().id;
    store.instruct(&id, "Mine").unwrap();
    store.put_preset(&Preset { for_new: true, ..brief.clone() }).unwrap();
    assert_eq!(store.presets().unwrap().iter().map(|preset| preset.for_new).collect::<Vec<_>>(), [false, true]);
    assert_eq!(store.get(&id).unwrap().unwrap().system, "Mine");
    store.delete_preset("a").unwrap();
    assert_eq!(store.presets().unwrap(), [Preset { for_new: false, ..poet }]);
    let created = store.create().unwrap();
    assert_eq!((created.system, created.choices), plain);
}

#[test]
fn prompts_come_with_the_product_once_and_deleted_ones_stay_away() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let names = |store: &Store| store.prompts().unwrap().into_iter().map(|prompt| prompt.name).collect::<Vec<_>>();
    assert_eq!(names(&store), ["Explain simply", "Review this code", "Summarise", "Translate"]);
    store.delete_prompt("review").unwrap();
    let own = Prompt { id: "own".to_owned(), name: "ähnlich".to_owned(), text: "{{a}}".to_owned(), starter: false };
    store.put_prompt(&own).unwrap();
    let shorter = Prompt { id: "summarise".to_owned(), name: "Sum".to_owned(), ..own.clone() };
    store.put_prompt(&shorter).unwrap();
    drop(store);
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(names(&store), ["Explain simply", "Sum", "Translate", "ähnlich"]);
    let kept = store.prompts().unwrap();
    assert!(kept.contains(&own) && kept.contains(&shorter) && kept[0].starter);
}

#[test]
fn titles_are_on_until_they_are_switched_off() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    assert!(store.titles().unwrap());
    store.set_titles(false).unwrap();
    drop(store);
    let store = Store::open(folder.path()).unwrap();
    assert!(!store.titles().unwrap());
    store.set_titles(true).unwrap();
    assert!(store.titles().unwrap());
}

#[test]
fn only_its_owner_can_read_the_files_and_a_newer_one_is_left_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    asked(&store, "A", "b");
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", file.file_name());
    }
    store.connection().execute_batch("PRAGMA user_version = 99").unwrap();
    drop(store);
    let refused = Store::open(folder.path()).unwrap_err().to_string();
    assert!(refused.contains("newer HiveMind"), "{refused}");
}

#[test]
fn a_title_is_the_start_of_the_first_question() {
    assert_eq!(title("\n  Hello there \nmore"), "Hello there");
    let files = "````file=notes.md\n```\nfile\n```\n````\n\n```file=b.txt\nx\n```\n";
    assert_eq!(
        (title(&format!("{files}\nWhat is this?")), title(files)),
        ("What is this?".to_owned(), "notes.md".to_owned())
    );
    assert_eq!(title("```rust\nfn main() {}\n```"), "```rust");
    let long = title(&"ä".repeat(100));
    assert_eq!((long.chars().count(), long.ends_with('…')), (60, true));
}
