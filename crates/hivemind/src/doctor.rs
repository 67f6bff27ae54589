//! `hivemind doctor`: reports this machine's abilities and problems.

use hive_node::doctor::{Check, Health, examine};
use serde_json::json;

use crate::{Failure, output};

pub(crate) async fn run(as_json: bool) -> Result<(), Failure> {
    let checks = examine().await;
    if as_json {
        let checks: Vec<_> = checks.iter().map(to_json).collect();
        output::line(json!({ "version": env!("CARGO_PKG_VERSION"), "checks": checks }));
    } else {
        for check in &checks {
            let (mark, advice) = match &check.health {
                Health::Good => ("ok", None),
                Health::Notice(advice) => ("note", Some(advice)),
                Health::Bad(advice) => ("BAD", Some(advice)),
            };
            output::line(format_args!("{mark:<5} {:<8} {}", check.subject, check.finding));
            if let Some(advice) = advice {
                output::line(format_args!("               {advice}"));
            }
        }
    }
    let bad = checks.iter().filter(|check| matches!(check.health, Health::Bad(_))).count();
    if bad > 0 { Err(Failure::new(format_args!("{bad} of {} checks failed", checks.len()))) } else { Ok(()) }
}

fn to_json(check: &Check) -> serde_json::Value {
    let (health, advice) = match &check.health {
        Health::Good => ("good", None),
        Health::Notice(advice) => ("notice", Some(advice)),
        Health::Bad(advice) => ("bad", Some(advice)),
    };
    json!({ "subject": check.subject, "finding": check.finding, "health": health, "advice": advice })
}
