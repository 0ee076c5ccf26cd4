//! Passwords: Argon2id with the crate's defaults (19 MiB, two passes), in PHC form.

use std::sync::LazyLock;

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};

use super::AccessError;

/// Length is what helps; no rule on characters does.
const CHARS_MIN: usize = 10;
/// Beyond, hashing would be work for nothing.
const BYTES_MAX: usize = 1_024;

/// What an unknown user's password is checked against, so that the answer takes as long.
static NOBODY: LazyLock<String> = LazyLock::new(|| {
    let random = hex::encode(crate::secrets::random::<32>());
    hash(&random).expect("64 characters are a fit password")
});

/// What is kept of a password.
///
/// # Errors
/// It is too short or too long.
pub(super) fn hash(password: &str) -> Result<String, AccessError> {
    if password.chars().count() < CHARS_MIN || password.len() > BYTES_MAX {
        return Err(AccessError::Invalid(format!(
            "a password has at least {CHARS_MIN} characters, and at most {BYTES_MAX} bytes"
        )));
    }
    let hash = Argon2::default()
        .hash_password(password.as_bytes())
        .map_err(|error| AccessError::Invalid(format!("the password cannot be hashed: {error}")))?;
    Ok(hash.to_string())
}

/// Whether it is the password of that hash; `None` is never so, and takes as long.
pub(super) fn verify(password: &str, hash: Option<&str>) -> bool {
    if password.len() > BYTES_MAX {
        return false;
    }
    let Ok(parsed) = PasswordHash::new(hash.unwrap_or(&NOBODY)) else {
        return false;
    };
    let fits = Argon2::default()
        .verify_password(password.as_bytes(), &parsed)
        .is_ok();
    fits && hash.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_verifies_against_its_own_hash_only() {
        let kept = hash("correct horse").unwrap();
        assert!(
            kept.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{kept}"
        );
        assert!(verify("correct horse", Some(&kept)));
        assert!(!verify("correct house", Some(&kept)));
        assert!(!verify("correct horse", None));
        assert_ne!(
            hash("correct horse").unwrap(),
            kept,
            "each has its own salt"
        );
    }

    #[test]
    fn short_and_huge_passwords_are_refused() {
        assert!(hash("123456789").is_err());
        assert!(hash(&"x".repeat(BYTES_MAX + 1)).is_err());
        assert!(hash("密码密码密码密码密码").is_ok());
    }
}
