//! The return codes of the channel (`mqtt-channel.md` §4.1) that Backtide can answer with.

use std::fmt;

use serde::{Serialize, Serializer};

/// What a reply says about its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// Every item is stored.
    Ok,
    /// The payload is over the limit.
    TooLarge,
    /// The client may not publish here.
    NoPermission,
    /// Raw bytes where JSON was due, or the reverse; the script failed.
    Undecodable,
    /// A value or an identifier does not fit the model.
    ModelMismatch,
    /// Not JSON, not an object, or a field is missing or of the wrong type.
    Malformed,
    /// `method` is absent or unknown.
    UnknownMethod,
    /// The payload is empty.
    Empty,
    /// The device is not registered under the product.
    UnknownDevice,
    /// `method` does not belong to the topic.
    MethodMismatch,
    /// The sender is over its quota.
    Throttled,
}

impl Code {
    pub const ALL: [Self; 11] = [
        Self::Ok,
        Self::TooLarge,
        Self::NoPermission,
        Self::Undecodable,
        Self::ModelMismatch,
        Self::Malformed,
        Self::UnknownMethod,
        Self::Empty,
        Self::UnknownDevice,
        Self::MethodMismatch,
        Self::Throttled,
    ];

    /// The number on the wire.
    pub const fn number(self) -> u16 {
        match self {
            Self::Ok => 200,
            Self::TooLarge => 1008,
            Self::NoPermission => 1009,
            Self::Undecodable => 1202,
            Self::ModelMismatch => 1204,
            Self::Malformed => 1220,
            Self::UnknownMethod => 1250,
            Self::Empty => 1251,
            Self::UnknownDevice => 1257,
            Self::MethodMismatch => 1260,
            Self::Throttled => 1274,
        }
    }

    /// The code behind a number on the wire or on disk.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(self.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_reads_back_from_its_number() {
        for code in Code::ALL {
            assert_eq!(Code::from_number(code.number()), Some(code));
        }
        assert_eq!(Code::from_number(1), None);
    }
}
