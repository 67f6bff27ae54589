//! `hivemind chat`: one answer, a conversation in the terminal, or an answer to each line of a pipe.

use std::io::IsTerminal;

use hive_node::{Event, LocalSwarm, Message, Request, Sampling, Summary};
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};
use tokio::sync::mpsc;

use crate::arguments::ChatOptions;
use crate::{Failure, output, swarm};

pub(crate) async fn run(options: ChatOptions) -> Result<(), Failure> {
    let sampling = options.sampling.sampling();
    // A wrong setting is told before a model is loaded for it.
    sampling.check().map_err(Failure::usage)?;
    if options.max_tokens == Some(0) {
        return Err(Failure::usage("an answer of 0 tokens was asked for").hint("ask for at least 1"));
    }
    let swarm = swarm::start(&options.run).await?;
    let mut chat = Chat { swarm: &swarm, sampling, messages: Vec::new(), options: &options };
    if let Some(system) = &options.system {
        chat.messages.push(Message::new("system", system.clone()));
    }
    let result = match &options.prompt {
        Some(prompt) => chat.answer(prompt.clone()).await.map(|_| ()),
        None => chat.converse().await,
    };
    swarm.stop().await;
    result
}

struct Chat<'a> {
    swarm: &'a LocalSwarm,
    sampling: Sampling,
    messages: Vec<Message>,
    options: &'a ChatOptions,
}

/// How an answer came to its end.
enum End {
    Complete(Summary),
    /// Ctrl-C: the part that came stands.
    Stopped,
}

impl Chat<'_> {
    /// Turn after turn, until the input ends.
    async fn converse(&mut self) -> Result<(), Failure> {
        let interactive = std::io::stdin().is_terminal();
        if interactive {
            let ring = self.swarm.ring();
            output::note(format_args!("{} on {}", ring.files().name(), swarm::who(ring.stages())));
            output::note("Ctrl-C stops an answer, Ctrl-D ends.");
        }
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        loop {
            if interactive {
                output::piece("\n› ");
            }
            let Some(line) = next_line(&mut lines, interactive).await? else { return Ok(()) };
            if line.trim().is_empty() {
                continue;
            }
            match self.answer(line).await {
                Ok(End::Complete(summary)) if interactive => output::note(self.remark(&summary)),
                Ok(End::Complete(_)) => {}
                Ok(End::Stopped) => output::note("stopped"),
                // In a conversation a failed turn is not the end; in a pipe nobody would notice.
                Err(failure) if interactive => drop(crate::report(&failure)),
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Answers one message and keeps both in the conversation.
    async fn answer(&mut self, prompt: String) -> Result<End, Failure> {
        self.messages.push(Message::new("user", prompt));
        let request = Request {
            sampling: self.sampling.clone(),
            max_tokens: self.options.max_tokens,
            stop: self.options.stop.clone(),
            ..Request::new(self.messages.clone())
        };
        let events = self.swarm.ring().generate(request).await;
        let outcome = match events {
            Ok(events) => self.follow(events).await,
            Err(error) => Err(Failure::new(error)),
        };
        match outcome {
            Ok((text, end)) => {
                if self.options.json {
                    output::line(self.json(&text, &end));
                }
                self.messages.push(Message::new("assistant", text));
                Ok(end)
            }
            Err(failure) => {
                // The question was not answered, so it does not burden the next.
                self.messages.pop();
                Err(failure)
            }
        }
    }

    /// Shows an answer while it grows.
    async fn follow(&self, mut events: mpsc::Receiver<Event>) -> Result<(String, End), Failure> {
        let mut answer = String::new();
        let show = |text: &str| {
            if !self.options.json {
                output::piece(text);
            }
        };
        let end = loop {
            let event = tokio::select! {
                event = events.recv() => event,
                // Dropping the receiver, on return, cancels the answer everywhere.
                Ok(()) = tokio::signal::ctrl_c() => break End::Stopped,
            };
            match event {
                Some(Event::Token { text, .. }) => {
                    show(&text);
                    answer += &text;
                }
                Some(Event::Finished { text, summary }) => {
                    show(&text);
                    answer += &text;
                    break End::Complete(summary);
                }
                Some(Event::Failed(why)) => {
                    show("\n");
                    return Err(Failure::new(format_args!("the answer broke off: {why}")));
                }
                None => return Err(Failure::new("the answer broke off")),
            }
        };
        show("\n");
        Ok((answer, end))
    }

    /// Who computed, and how fast.
    fn remark(&self, summary: &Summary) -> String {
        format!(
            "{:.1} tok/s · {} · {:.1} s to first word",
            summary.decode_tokens_per_s(),
            swarm::who(self.swarm.ring().stages()),
            summary.time_to_first_token.as_secs_f64()
        )
    }

    fn json(&self, text: &str, end: &End) -> serde_json::Value {
        let stages = swarm::stages_json(self.swarm.ring().stages());
        match end {
            End::Complete(summary) => serde_json::json!({
                "text": text,
                "tokens": summary.tokens,
                "prompt_tokens": summary.prompt_tokens,
                "completion_tokens": summary.tokens.len(),
                "finish_reason": summary.finish_reason.as_str(),
                "ttft_ms": summary.time_to_first_token.as_secs_f64() * 1e3,
                "decode_tokens_per_s": summary.decode_tokens_per_s(),
                "stages": stages,
            }),
            End::Stopped => serde_json::json!({ "text": text, "finish_reason": "cancelled", "stages": stages }),
        }
    }
}

/// The next line of input. Ctrl-C at the prompt clears it, as in a shell.
async fn next_line(lines: &mut Lines<BufReader<Stdin>>, interactive: bool) -> Result<Option<String>, Failure> {
    loop {
        tokio::select! {
            line = lines.next_line() => {
                return line.map_err(|error| match error.kind() {
                    std::io::ErrorKind::InvalidData => {
                        Failure::new("the input is not UTF-8 text").hint("convert it first, for example with iconv")
                    }
                    _ => Failure::new(format_args!("cannot read the input: {error}")),
                });
            }
            Ok(()) = tokio::signal::ctrl_c(), if interactive => output::piece("\n› "),
        }
    }
}
