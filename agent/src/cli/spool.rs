//! `exogate spool`: notifications that wait, and those that were given up.

use std::process::ExitCode;

use super::{Failure, File, ago, print_json};
use crate::{
    admin::{
        api::{
            Status,
            relay::{DeadLetter, Message, RecordId, Relay, Selection, SpoolAnswer, SpoolOrder},
        },
        client,
    },
    config::Config,
};

/// Dead letters that are asked for at once.
const PAGE: usize = 500;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Show what waits for delivery, and what was given up
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List dead letters: notifications that were accepted and could not be delivered
    List {
        /// Only those of this route
        #[arg(long, value_name = "NAME")]
        route: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a notification that waits or is a dead letter, with its content
    Show {
        /// Its id
        id: RecordId,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Deliver dead letters once more, under their old ids
    Replay(Which),
    /// Print dead letters with their content, as one JSON object a line
    Export(Which),
    /// Remove dead letters for good
    Purge(Which),
}

/// Which dead letters are meant.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct Which {
    /// The one with this id
    id: Option<RecordId>,
    /// Those of this route
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// Every one
    #[arg(long)]
    all: bool,
}

impl Which {
    fn selection(self) -> Selection {
        match (self.id, self.route) {
            (Some(id), _) => Selection::One(id),
            (None, Some(route)) => Selection::Route(route),
            (None, None) => Selection::All,
        }
    }
}

pub(super) async fn run(file: &File, command: Command) -> Result<ExitCode, Failure> {
    let config = file.load_to_ask()?;
    match command {
        Command::Status { json } => status(&config, json).await,
        Command::List { route, json } => list(&config, route, json).await,
        Command::Show { id, json } => {
            let message = show(&config, id).await?;
            if json { print_json(&message) } else { print(&message) }
        }
        Command::Replay(which) => {
            let order = SpoolOrder::Replay { selection: which.selection() };
            done(&config, &order, "will be delivered once more").await
        }
        Command::Purge(which) => {
            let order = SpoolOrder::Purge { selection: which.selection() };
            done(&config, &order, "removed").await
        }
        Command::Export(which) => export(&config, which.selection()).await,
    }
}

async fn ask(config: &Config, order: &SpoolOrder) -> Result<SpoolAnswer, Failure> {
    client::post(&config.admin.socket, "/v1/spool", order).await.map_err(Failure::new)
}

async fn status(config: &Config, json: bool) -> Result<ExitCode, Failure> {
    let status: Status =
        client::get(&config.admin.socket, "/v1/status").await.map_err(Failure::new)?;
    let Some(Relay { routes, .. }) = status.relay else {
        return Err(Failure::new("there is no relay: the configuration has no [[listener]]"));
    };
    if json {
        return print_json(&routes);
    }
    for route in routes {
        say!(
            "{:<20} {} waiting ({} bytes), oldest {}, {} dead letters",
            route.name,
            route.waiting,
            route.waiting_bytes,
            route.oldest.as_deref().map_or_else(|| "none".to_owned(), |time| ago(Some(time))),
            route.dead_letters
        );
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(config: &Config, route: Option<String>, json: bool) -> Result<ExitCode, Failure> {
    let selection = route.map_or(Selection::All, Selection::Route);
    let letters = dead_letters(config, selection).await?;
    if json {
        return print_json(&letters);
    }
    for letter in &letters {
        let death = match &letter.death {
            crate::relay::spool::Death::Refused { status } => format!("refused with {status}"),
            crate::relay::spool::Death::Expired { last } => format!("expired; last: {last}"),
            crate::relay::spool::Death::NoRoute => "its route is gone".to_owned(),
            crate::relay::spool::Death::Unreadable { problem } => format!("unreadable: {problem}"),
        };
        say!("{} {} accepted {}: {death}", letter.id, letter.route, letter.accepted);
    }
    if letters.is_empty() {
        say!("there are no dead letters");
    }
    Ok(ExitCode::SUCCESS)
}

async fn dead_letters(config: &Config, selection: Selection) -> Result<Vec<DeadLetter>, Failure> {
    let mut letters: Vec<DeadLetter> = Vec::new();
    loop {
        let order = SpoolOrder::List {
            selection: selection.clone(),
            after: letters.last().map(|letter| letter.id),
            most: PAGE,
        };
        let SpoolAnswer::Listed { dead_letters } = ask(config, &order).await? else {
            return Err(unexpected());
        };
        if dead_letters.is_empty() {
            return Ok(letters);
        }
        letters.extend(dead_letters);
    }
}

async fn show(config: &Config, id: RecordId) -> Result<Message, Failure> {
    match ask(config, &SpoolOrder::Show { id }).await? {
        SpoolAnswer::Shown(message) => Ok(*message),
        _ => Err(unexpected()),
    }
}

async fn done(config: &Config, order: &SpoolOrder, what: &str) -> Result<ExitCode, Failure> {
    let SpoolAnswer::Done { count } = ask(config, order).await? else {
        return Err(unexpected());
    };
    let letters = if count == 1 { "dead letter" } else { "dead letters" };
    say!("{count} {letters} {what}");
    Ok(ExitCode::SUCCESS)
}

async fn export(config: &Config, selection: Selection) -> Result<ExitCode, Failure> {
    for letter in dead_letters(config, selection).await? {
        let message = show(config, letter.id).await?;
        say!("{}", serde_json::to_string(&message).map_err(Failure::new)?);
    }
    Ok(ExitCode::SUCCESS)
}

fn print(message: &Message) -> Result<ExitCode, Failure> {
    say!("id      {}", message.id);
    say!("route   {}", message.route);
    say!("target  {}", message.target);
    if let Some(source) = message.source {
        say!("source  {source}");
    }
    for (name, value) in &message.headers {
        say!("header  {name}: {value}");
    }
    say!("");
    match (&message.body, &message.body_hex) {
        (Some(body), _) => say!("{body}"),
        (None, Some(digits)) => say!("{digits}"),
        (None, None) => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn unexpected() -> Failure {
    Failure::new("the agent answered another question; is it of another version?")
}
