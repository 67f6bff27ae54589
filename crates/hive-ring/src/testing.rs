//! A ring whose only stage is on a machine that the test simulates.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use hive_model::Compute;
use hive_net::{Endpoint, EndpointOptions, Identity, Incoming};
use hive_peers::Placement;
use hive_plan::Plan;
use hive_protocol::ModelSource;
use hive_stage::planning;
use hive_stage::testing::Machine;
use hive_worker::text::ModelCard;
use tokio::sync::mpsc;

use crate::ring::{Ring, RingOptions};

/// The network of the simulated machine.
pub(crate) async fn endpoint() -> (Endpoint, mpsc::Receiver<Incoming>) {
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Endpoint::bind(EndpointOptions::new(Identity::generate(), loopback)).await.unwrap()
}

/// Approves the machine, which must be answering, and loads the starter model on it.
pub(crate) async fn ring_on(host: &Machine, name: &str, endpoint: &Endpoint) -> Ring {
    host.membership().allow(&endpoint.addr());
    endpoint.admission().approve(host.membership().id());
    let placement = Placement { name: name.to_owned(), addr: endpoint.addr(), gpu: false };
    let starter = PathBuf::from(std::env::var_os("HIVEMIND_STARTER").expect("`./dev test` says where the starter is"));
    let model = hive_stage::models::open_at(&starter).await.unwrap();
    let plan = one_stage(name, model.card());
    let options = RingOptions::new(ModelSource::Named(Some("no/such-model".to_owned()), String::new()));
    Ring::load(host, model, &plan, &[placement], options, |_| ()).await.unwrap()
}

/// A plan with the whole model on one machine.
fn one_stage(name: &str, model: &ModelCard) -> Plan {
    let form = planning::form(Compute::Auto, false);
    let machine = hive_plan::Machine { name: name.to_owned(), memory_bytes: u64::MAX, form };
    planning::plan_over(model, &[machine]).unwrap()
}
