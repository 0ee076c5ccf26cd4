//! How far a file is sent, on stderr: a bar for people, a line now and then for logs.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use super::delivery::{Sight, Tally};

const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows the progress of one delivery.
pub struct Progress<'a> {
    face: Face,
    talk: &'a mut dyn Write,
}

enum Face {
    Bar(ProgressBar),
    Lines { last: Instant },
}

impl<'a> Progress<'a> {
    pub fn new(talk: &'a mut dyn Write) -> Self {
        let face = if io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{bar:32} {percent:>3} %  {msg}")
                .expect("the template is one that indicatif knows");
            Face::Bar(ProgressBar::new(1).with_style(style))
        } else {
            Face::Lines {
                last: Instant::now(),
            }
        };
        Self { face, talk }
    }

    pub fn see(&mut self, sight: &Sight<'_>) {
        // Progress that cannot be shown stops nothing.
        match (&mut self.face, sight) {
            (Face::Bar(bar), Sight::Tick(tally)) => {
                bar.set_length(tally.meter.total.max(1));
                bar.set_position(tally.meter.done());
                bar.set_message(words(tally));
            }
            (Face::Bar(bar), Sight::Lost(reason)) => {
                bar.println(format!("link lost ({reason}), connecting again"));
            }
            (Face::Lines { last }, Sight::Tick(tally)) => {
                if last.elapsed() >= LINE_EVERY {
                    *last = Instant::now();
                    let percent = tally.meter.done() * 100 / tally.meter.total.max(1);
                    drop(writeln!(self.talk, "{percent} %  {}", words(tally)));
                }
            }
            (Face::Lines { .. }, Sight::Lost(reason)) => {
                drop(writeln!(
                    self.talk,
                    "link lost ({reason}), connecting again"
                ));
            }
        }
    }

    pub fn finish(&mut self) {
        if let Face::Bar(bar) = &self.face {
            bar.finish_and_clear();
        }
    }
}

fn words(tally: &Tally) -> String {
    format!(
        "{} rows, {} values answered, {:.0} values/s, {} rejected",
        tally.rows,
        tally.values,
        tally.rate(),
        tally.rejected
    )
}
