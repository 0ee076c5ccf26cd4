//! Why nothing was changed, or nothing could be opened.

use std::fmt;

use super::{Fault, Kind, records::RecordsError};
use crate::secrets::SecretError;

/// Faults and users named in one refusal; the rest is counted.
pub const NAMED_MAX: usize = 100;

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The documents, or what they would change, are wrong. At most [`NAMED_MAX`] faults, in file
    /// order, and how many more.
    #[error("{} of the documents cannot be applied; nothing was changed", faults.len() + more)]
    Faults { faults: Vec<Fault>, more: usize },
    #[error("{kind} {name} is not declared")]
    NotFound { kind: Kind, name: String },
    #[error("device {name} is declared for several products: {}; name one", products.join(", "))]
    Ambiguous { name: String, products: Vec<String> },
    /// At most [`NAMED_MAX`] users, and how many more.
    #[error("{kind} {name} is used by {}", listed(users, *more))]
    InUse {
        kind: Kind,
        name: String,
        users: Vec<User>,
        more: usize,
    },
    #[error("{0}")]
    Conflict(String),
    #[error(transparent)]
    Records(#[from] RecordsError),
}

impl Refused {
    pub fn not_found(kind: Kind, name: &str) -> Self {
        Self::NotFound {
            kind,
            name: name.to_owned(),
        }
    }
}

fn listed(users: &[User], more: usize) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<String> = users.iter().take(SHOWN).map(User::to_string).collect();
    match users.len().saturating_sub(SHOWN) + more {
        0 => shown.join(", "),
        rest => format!("{} and {rest} more", shown.join(", ")),
    }
}

/// Faults in file order, as many as are worth reading.
pub fn refused(mut faults: Vec<Fault>) -> Refused {
    faults.sort_by_key(|fault| fault.place.document);
    let more = faults.len().saturating_sub(NAMED_MAX);
    faults.truncate(NAMED_MAX);
    Refused::Faults { faults, more }
}

/// An object that uses another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub kind: Kind,
    pub name: String,
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// Why the registry cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Records(#[from] RecordsError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("registry record {object} is damaged: {reason}")]
    Damaged { object: String, reason: String },
}
