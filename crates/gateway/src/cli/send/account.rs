//! What of a run was there already, as the gateway tells it. Replies cannot: a commit never reads old
//! data, so that it is known only afterwards. What is not known is not told.

use std::io::{self, Write};

use backtide_model::Items;
use serde::{Deserialize, Serialize};

use super::delivery::Tally;
use crate::cli::{
    Failure,
    client::Client,
    compare::{self, Whose},
};

/// A run, and what the gateway says of it.
pub struct Account<'c> {
    client: Option<&'c Client>,
    whose: Whose,
    pub run: String,
    /// Events and attributes are not compared one by one.
    is_of_points: bool,
    pub compared: Option<Compared>,
}

/// Of the values of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Compared {
    /// There was nothing before. Told where it follows from the other figures: everything was taken as
    /// it was sent, once, and all is compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<u64>,
    pub repeated: u64,
    pub conflicts: u64,
    /// All is compared: there will not be more.
    pub complete: bool,
}

#[derive(Deserialize)]
struct Figures {
    durable: u64,
}

impl<'c> Account<'c> {
    /// Before the first message. Without a `client` the gateway is not asked.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn begin(
        client: Option<&'c Client>,
        channel: &str,
        run: String,
        items: Items,
    ) -> Result<Self, Failure> {
        let is_of_points = items == Items::Points;
        let client = client.filter(|_| is_of_points);
        let figures = client.map(|client| client.get::<Figures>("/api/v1/store", &[]));
        let after = figures.transpose()?.map(|figures| figures.durable);
        let whose = Whose {
            channel: (!channel.is_empty()).then(|| channel.to_owned()),
            messages: Some(format!("{run}-")),
            after: after.map(|after| after.to_string()),
            ..Whose::default()
        };
        Ok(Self {
            client,
            whose,
            run,
            is_of_points,
            compared: None,
        })
    }

    /// What the ids of the run's messages begin with.
    pub fn messages_begin(&self) -> String {
        format!("{}-", self.run)
    }

    /// After the last message. Where the gateway does not answer any more, nothing is known, unless it is
    /// waited for.
    ///
    /// # Errors
    /// It is waited for, and the gateway does not answer.
    pub fn compare(&mut self, tally: &Tally, wait: bool) -> Result<(), Failure> {
        let Some(client) = self.client else {
            return Ok(());
        };
        match compare::Compared::ask(client, &self.whose, wait) {
            Ok(found) => self.compared = Some(Compared::of(&found, tally)),
            Err(failure) if wait => return Err(failure),
            Err(_) => {}
        }
        Ok(())
    }

    /// Says it, and how to ask again.
    ///
    /// # Errors
    /// The writer's.
    pub fn tell(&self, talk: &mut dyn Write) -> io::Result<()> {
        if !self.is_of_points {
            return Ok(());
        }
        let asked = self.flags();
        let Some(found) = &self.compared else {
            return writeln!(
                talk,
                "how much of it was there already says, where the gateway's API is reached: \
                 backtide compare{asked}"
            );
        };
        let Compared {
            new,
            repeated,
            conflicts,
            complete,
        } = found;
        if !complete {
            return writeln!(
                talk,
                "not all is compared with what was there yet; that says, within a minute of quiet: \
                 backtide compare{asked}"
            );
        }
        let new = new.map_or_else(String::new, |new| format!("{new} are new, "));
        writeln!(
            talk,
            "of the values {new}{repeated} were there already, {conflicts} were other than what stood there"
        )?;
        if *conflicts > 0 {
            writeln!(talk, "see the conflicts with: backtide conflicts{asked}")?;
        }
        Ok(())
    }

    fn flags(&self) -> String {
        let flags = self.whose.asked().into_iter();
        flags
            .map(|(name, value)| format!(" --{name} {value}"))
            .collect()
    }
}

impl Compared {
    fn of(found: &compare::Compared, tally: &Tally) -> Self {
        let is_plain = found.complete
            && found.processed == 0
            && found.messages == tally.messages
            && tally.rejected == 0;
        let others = found.repeated + found.conflicts;
        Self {
            new: is_plain.then(|| tally.values.checked_sub(others)).flatten(),
            repeated: found.repeated,
            conflicts: found.conflicts,
            complete: found.complete,
        }
    }
}
