//! Two machines pair over loopback, and one sends the other a frame: `cargo run -p hive-net --example pair_and_send`.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};

use hive_net::pairing::{self, Outcome};
use hive_net::stage::{Budget, Dial, Inlet, Outlet, Received};
use hive_net::{Element, Endpoint, EndpointOptions, Frame, Identity, Incoming, Kind, Pace, Protocol};
use tokio::sync::oneshot;

/// The first message of a stage stream says what its frames are for; in this example, any number will do.
const HELLO: u8 = 7;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = || EndpointOptions::new(Identity::generate(), SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let (ann, _) = Endpoint::bind(options()).await?;
    let (bob, mut channels) = Endpoint::bind(options()).await?;
    let bobs_address = bob.addr();

    // Strangers can only pair. Both owners see the same code, compare it and approve.
    let asks = pairing::ask(&ann, &bobs_address, "Ann's Mac", None);
    let answers = async {
        let Incoming { peer, channel, .. } = channels.recv().await.ok_or("the endpoint is closed")?;
        Ok::<_, Box<dyn Error>>(pairing::receive(peer, channel).await?.welcome(bob.id(), "Bob's Mac").await?)
    };
    let (at_ann, at_bob) = tokio::join!(asks, answers);
    let (at_ann, at_bob) = (at_ann?, at_bob?);
    println!("{} shows {}, {} shows {}", at_bob.name(), at_ann.code(), at_ann.name(), at_bob.code());
    let (ann_decides, anns_decision) = oneshot::channel();
    let (bob_decides, bobs_decision) = oneshot::channel();
    let _ = (ann_decides.send(true), bob_decides.send(true));
    let outcomes = tokio::join!(at_ann.settle(anns_decision), at_bob.settle(bobs_decision));
    assert_eq!(outcomes, (Outcome::Approved, Outcome::Approved));
    ann.admission().approve(bob.id());
    bob.admission().approve(ann.id());

    // An outlet redials whenever the connection breaks, and resends every frame without a receipt.
    let (from, to) = (ann.clone(), bobs_address);
    let dial: Dial = Box::new(move || {
        let (from, to) = (from.clone(), to.clone());
        Box::pin(async move {
            let mut channel = from.open(&to, Protocol::Stage).await?;
            channel.write_message(&HELLO).await?;
            Ok(channel)
        })
    });
    let mut outlet = Outlet::open(dial, Pace::default()).await?;
    let frame = Frame {
        kind: Kind::Hidden,
        element: Element::F32,
        sample: true,
        last: false,
        session: 1,
        epoch: 0,
        position: 0,
        rows: 1,
        width: 3,
        payload: [0.5f32, 1.0, -2.0].into_iter().flat_map(f32::to_le_bytes).collect(),
    };
    outlet.send(frame.clone()).await?;

    let mut channel = channels.recv().await.ok_or("the endpoint is closed")?.channel;
    assert_eq!(channel.read_first().await?, Some(HELLO));
    let mut inlet = Inlet::new(channel, Budget::new(1 << 20));
    let arrived = inlet.recv().await?.ok_or("no frame came")?;
    inlet.acknowledge(Received::of(&arrived)).await?;
    assert_eq!(arrived, frame);
    println!("a frame of {} × {} numbers arrived", arrived.rows, arrived.width);
    Ok(())
}
