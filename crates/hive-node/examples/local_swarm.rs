//! Runs the starter model on three nodes on this machine and asks it a question:
//! `cargo run -p hive-node --example local_swarm`. The nodes talk over loopback as they would over a network.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};

use hive_node::{Event, LocalSwarm, Message, ModelSource, Request, RingOptions, SwarmOptions, models, worker};

fn main() -> Result<(), Box<dyn Error>> {
    // A node starts its workers from its own executable.
    if std::env::args().nth(1).as_deref() == Some(worker::SUBCOMMAND) {
        return Ok(worker::serve()?);
    }
    hive_node::runtime()?.block_on(answer("What is the capital of France?"))
}

async fn answer(question: &str) -> Result<(), Box<dyn Error>> {
    // No name means the starter model. A worker of its own reads its headers, tokenizer and chat template.
    let model = models::open(None).await?;
    let ring = RingOptions::new(ModelSource::Path(model.path().to_owned()));
    let options = SwarmOptions { stages: 3, bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), ring };
    let swarm = LocalSwarm::start(model, options, |_layers_loaded| ()).await?;
    for stage in &swarm.plan().stages {
        println!("stage {}: layers {:?}", stage.machine + 1, stage.layers);
    }

    let request = Request { max_tokens: Some(40), ..Request::new(vec![Message::new("user", question)]) };
    let mut events = swarm.ring().generate(&request).await?;
    let mut answer = String::new();
    while let Some(event) = events.recv().await {
        match event {
            Event::Token { text, .. } => answer += &text,
            Event::Finished { text, summary } => {
                println!("{answer}{text}");
                println!("{:.0} tokens a second", summary.decode_tokens_per_s());
            }
            Event::Failed(why) => return Err(why.into()),
            Event::Reading { .. } | Event::Recovering(_) => {}
        }
    }
    swarm.stop().await;
    Ok(())
}
