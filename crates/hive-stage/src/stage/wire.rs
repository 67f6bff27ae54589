//! Golden bytes of what stages send each other besides numbers: reasons of failures, and the parts of a handover.

#[path = "../../../../tests/common/golden.rs"]
mod golden;

use std::path::Path;

use golden::Golden;
use hive_model::{CarriedSession, KvLayout, SessionOptions};
use hive_protocol::{SPEAKS, SessionSpec};
use hive_worker::Raw;

use super::frames::{Failure, Fault};
use super::transit::Part;

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

#[test]
fn what_stages_tell_each_other_has_the_bytes_that_other_versions_know() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire").join(SPEAKS.1.to_string());
    let mut golden = Golden::open(folder, "the newest version in `SPEAKS` (hive-protocol, control.rs)");
    golden.postcard_enum(parts().into_iter().map(|part| (format!("part-{}", part_name(&part)), part)));
    let faults = [Fault::Request, Fault::Stage(3), Fault::Link, Fault::LastStage];
    golden.postcard_enum(faults.map(|fault| (format!("fault-{}", fault_name(fault)), fault)));
    golden.postcard("failure", &Failure { fault: Fault::Stage(3), why: "lost".to_owned() });
    golden.finish();
}
