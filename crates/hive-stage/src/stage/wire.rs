//! Golden bytes of what machines send each other besides requests, answers and numbers: reasons of failures, the parts of
//! a handover, and models.

#[path = "../../../../tests/common/golden.rs"]
mod golden;

use std::path::Path;

use golden::Golden;
use hive_model::{CarriedSession, KvLayout, SessionOptions};
use hive_protocol::{SPEAKS, SessionSpec};
use hive_store::{FileName, Manifest, ManifestFile, Origin};
use hive_worker::Raw;

use super::frames::{Failure, Fault};
use super::transit::Part;
use crate::fetching::message::TransferMessage;

/// The name of a part's file. A new part needs one, and an example below.
fn part_name(part: &Part) -> &'static str {
    match part {
        Part::Session(..) => "session",
        Part::Sent(_) => "sent",
        Part::Cache(_) => "cache",
        Part::LayerEnds => "layer-ends",
        Part::Whole => "whole",
    }
}

/// The name of a fault's file. A new fault needs one, and an example below.
fn fault_name(fault: Fault) -> &'static str {
    match fault {
        Fault::Request => "request",
        Fault::Stage(_) => "stage",
        Fault::Link => "link",
        Fault::LastStage => "last-stage",
    }
}

fn parts() -> Vec<Part> {
    let spec = SessionSpec {
        session: 0x1112,
        answer: 8,
        options: SessionOptions::default(),
        end_tokens: vec![2],
        last_position: 511,
        continues: None,
    };
    let state = CarriedSession { position: 300, answer: vec![(298, 70_000)], layout: KvLayout::Fast };
    vec![
        Part::Session(Box::new(spec), true, state),
        Part::Sent(Raw(vec![1, 2, 3])),
        Part::Cache(Raw(vec![4, 5])),
        Part::LayerEnds,
        Part::Whole,
    ]
}

/// The name of the file of a message that carries a model. A new message needs one, and an example below.
fn transfer_name(message: &TransferMessage) -> &'static str {
    match message {
        TransferMessage::Manifest(manifest) if manifest.origin.is_none() => "manifest-of-no-hub",
        TransferMessage::Manifest(_) => "manifest",
        TransferMessage::Piece { .. } => "piece",
        TransferMessage::End => "end",
        TransferMessage::Nothing => "nothing",
    }
}

fn transfer_messages() -> Vec<TransferMessage> {
    let file = |name: &str| FileName::new(name).unwrap();
    let of_size = |name: &str, bytes: u64| ManifestFile { name: file(name), bytes };
    let commit = "0123456789abcdef0123456789abcdef01234567".to_owned();
    let of_hub = Manifest {
        origin: Some(Origin { repository: "owner/name".to_owned(), commit }),
        digest: None,
        files: vec![of_size("config.json", 2), of_size("model.safetensors", 70_000)],
        gguf: None,
    };
    let of_no_hub = Manifest {
        origin: None,
        digest: Some("d1d1".to_owned()),
        files: vec![of_size("a.gguf", 4096)],
        gguf: Some(file("a.gguf")),
    };
    vec![
        TransferMessage::Manifest(Box::new(of_hub)),
        TransferMessage::Manifest(Box::new(of_no_hub)),
        TransferMessage::Piece { file: file("a.gguf"), at: 4096, bytes: Raw(vec![1, 2, 3]) },
        TransferMessage::End,
        TransferMessage::Nothing,
    ]
}

#[test]
fn what_stages_tell_each_other_has_the_bytes_that_other_versions_know() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire").join(SPEAKS.1.to_string());
    let mut golden = Golden::open(folder, "the newest version in `SPEAKS` (hive-protocol, control.rs)");
    golden.postcard_enum(parts().into_iter().map(|part| (format!("part-{}", part_name(&part)), part)));
    let faults = [Fault::Request, Fault::Stage(3), Fault::Link, Fault::LastStage];
    golden.postcard_enum(faults.map(|fault| (format!("fault-{}", fault_name(fault)), fault)));
    golden.postcard("failure", &Failure { fault: Fault::Stage(3), why: "lost".to_owned() });
    let transfer = transfer_messages().into_iter();
    golden.postcard_enum(transfer.map(|message| (format!("transfer-{}", transfer_name(&message)), message)));
    golden.finish();
}
