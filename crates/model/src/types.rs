//! The data types of a thing model (`mqtt-channel.md` §7.2): how each is read from JSON text, and
//! what it is stored as.

use serde::{Deserialize, Serialize};

use crate::Cell;

/// What a value is stored as. Several data types share a storage: an enum of numbers is an `Int`,
/// a timestamp a `Long`; dates, files, structs, arrays and maps are `Text`, the latter three as
/// canonical JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    Bool,
    Int,
    Long,
    Float,
    Double,
    Text,
}

impl Storage {
    pub fn of(cell: &Cell) -> Self {
        match cell {
            Cell::Bool(_) => Self::Bool,
            Cell::Int(_) => Self::Int,
            Cell::Long(_) => Self::Long,
            Cell::Float(_) => Self::Float,
            Cell::Double(_) => Self::Double,
            Cell::Text(_) => Self::Text,
        }
    }
}
