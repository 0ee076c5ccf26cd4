//! Applications against a registry of the test's own.

use backtide_model::{ElementName, ProductKey, Storage};
use sha2::{Digest, Sha256};

use super::*;
use crate::registry::{self, Form, Run, StoredTypes};

const NOW_MS: i64 = 1_700_000_000_000;
const KEYS: &str = "\
kind: AccessKey
name: analytics
key: 11111111-2222-3333-4444-555555555555
rights: [query, manage]
---
kind: AccessKey
name: reader
";

struct NothingStored;

impl StoredTypes for NothingStored {
    fn stored_as(&self, _: &ProductKey, _: &ElementName) -> Option<Storage> {
        None
    }
}

struct World {
    _dir: tempfile::TempDir,
    registry: Arc<Registry>,
    clock: Clock,
    applications: Applications,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::stopped(NOW_MS);
        let registry = Registry::open(dir.path(), Arc::new(NothingStored), clock.clone()).unwrap();
        registry
            .apply(registry::read(KEYS, Form::Yaml).unwrap(), Run::Commit)
            .unwrap();
        let registry = Arc::new(registry);
        let file = dir.path().join("application-rsa.key");
        let applications = Applications::new(Arc::clone(&registry), clock.clone(), file);
        Self {
            _dir: dir,
            registry,
            clock,
            applications,
        }
    }

    fn key(&self, name: &str) -> Arc<AccessKey> {
        Arc::clone(self.registry.current().access_key(name).unwrap())
    }

    fn secret(&self, name: &str) -> String {
        self.key(name).secret().unwrap().text().to_owned()
    }

    fn ask(&self, name: &str, secret: &str, timestamp_ms: i64) -> Result<String, Denied> {
        let (key, timestamp) = (self.key(name).key.clone(), timestamp_ms.to_string());
        let encryption = hex::encode(Sha256::digest(format!("{key}{timestamp}{secret}")));
        let asked = self
            .applications
            .token(&key, &timestamp, &encryption, None, None);
        asked.map(|(token, _)| token)
    }

    fn call(
        &self,
        shown: Shown<'_>,
        right: Right,
        changes: bool,
    ) -> Result<Arc<AccessKey>, Denied> {
        let claim = self.applications.identify(shown, None)?;
        let said = Said::default();
        self.applications
            .confirm(&claim, &said, &[right], changes, None)
    }

    /// A call without parameters, signed in generation B.
    fn signed(&self, token: &str, at_ms: i64, changes: bool) -> Result<Arc<AccessKey>, Denied> {
        let timestamp = at_ms.to_string();
        let text = format!("{token}{timestamp}{}", self.secret("analytics"));
        let signature = hex::encode(Sha256::digest(text));
        let shown = Shown::Signed {
            token,
            timestamp: &timestamp,
            signature: &signature,
        };
        self.call(shown, Right::Manage, changes)
    }
}

#[test]
fn a_token_is_the_same_until_it_expires_and_outlives_a_restart() {
    let world = World::new();
    let secret = world.secret("analytics");
    let token = world.ask("analytics", &secret, NOW_MS).unwrap();
    assert_eq!(
        world.ask("analytics", &secret, NOW_MS + 1),
        Ok(token.clone())
    );
    let file = world._dir.path().join("application-rsa.key");
    let again = Applications::new(Arc::clone(&world.registry), world.clock.clone(), file);
    assert!(again.identify(Shown::Token(&token), None).is_ok());
    world.clock.set(NOW_MS + 7_200_000);
    assert_eq!(
        world.call(Shown::Token(&token), Right::Query, false).err(),
        Some(Denied::Token)
    );
    let next = world.ask("analytics", &secret, NOW_MS + 7_200_000).unwrap();
    assert_ne!(next, token);
}

#[test]
fn a_request_for_a_token_is_taken_once_and_only_in_its_time() {
    let world = World::new();
    let secret = world.secret("analytics");
    world.ask("analytics", &secret, NOW_MS).unwrap();
    assert_eq!(
        world.ask("analytics", &secret, NOW_MS),
        Err(Denied::Repeated)
    );
    let late = NOW_MS - window_ms() - 1;
    assert_eq!(world.ask("analytics", &secret, late), Err(Denied::Stale));
    assert_eq!(
        world.ask("analytics", "guess", NOW_MS),
        Err(Denied::Signature)
    );
    let unknown = world.applications.token("none", "1", "", None, None);
    assert_eq!(unknown, Err(Denied::UnknownKey));
}

#[test]
fn a_signed_call_that_changes_something_is_taken_once() {
    let world = World::new();
    let token = world
        .ask("analytics", &world.secret("analytics"), NOW_MS)
        .unwrap();
    for _ in 0..2 {
        assert!(world.signed(&token, NOW_MS, false).is_ok());
    }
    assert!(world.signed(&token, NOW_MS, true).is_ok());
    assert_eq!(
        world.signed(&token, NOW_MS, true).err(),
        Some(Denied::Repeated)
    );
    assert!(world.signed(&token, NOW_MS + 1, true).is_ok());
    world.clock.set(NOW_MS + window_ms() + 2);
    assert_eq!(
        world.signed(&token, NOW_MS, true).err(),
        Some(Denied::Stale)
    );
}

#[test]
fn rights_are_those_of_the_key_and_none_unless_given() {
    let world = World::new();
    for (name, right, expected) in [
        ("analytics", Right::Query, true),
        ("analytics", Right::Integrate, false),
        ("reader", Right::Query, false),
    ] {
        let token = world
            .ask(name, &world.secret(name), NOW_MS)
            .unwrap_or_else(|_| world.ask(name, &world.secret(name), NOW_MS + 1).unwrap());
        let called = world.call(Shown::Token(&token), right, false);
        assert_eq!(called.is_ok(), expected, "{name} {right:?}");
    }
}

#[test]
fn a_rotated_secret_ends_with_its_overlap_and_a_revoked_one_at_once() {
    let world = World::new();
    let token = world
        .ask("analytics", &world.secret("analytics"), NOW_MS)
        .unwrap();
    let passes = || {
        world
            .call(Shown::Token(&token), Right::Query, false)
            .is_ok()
    };
    world
        .registry
        .rotate_access_key("analytics", 1_000)
        .unwrap();
    assert!(passes());
    world.clock.set(NOW_MS + 1_000);
    assert!(!passes());
    let token = world
        .ask("analytics", &world.secret("analytics"), NOW_MS + 1_000)
        .unwrap();
    world.registry.revoke_access_key("analytics").unwrap();
    let denied = world.call(Shown::Token(&token), Right::Query, false);
    assert_eq!(denied.err(), Some(Denied::Token));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_asks_too_fast_and_an_address_that_guesses_are_slowed_down() {
    let world = World::new();
    let token = world
        .ask("analytics", &world.secret("analytics"), NOW_MS)
        .unwrap();
    let mut passed = 0;
    while world
        .call(Shown::Token(&token), Right::Query, false)
        .is_ok()
    {
        passed += 1;
    }
    assert_eq!(passed, limits::APPLICATION_REQUESTS_BURST);
    tokio::time::advance(Duration::from_millis(limits::APPLICATION_REQUEST_REFILL_MS)).await;
    assert!(
        world
            .call(Shown::Token(&token), Right::Query, false)
            .is_ok()
    );

    let address = Some("192.0.2.1".parse().unwrap());
    let mut denied = None;
    for _ in 0..=limits::APPLICATION_FAILURES_BURST {
        denied = world
            .applications
            .identify(Shown::Token("bt1.guess"), address)
            .err();
    }
    assert_eq!(denied, Some(Denied::Throttled));
    let elsewhere = Some("192.0.2.2".parse().unwrap());
    assert!(
        world
            .applications
            .identify(Shown::Token(&token), elsewhere)
            .is_ok()
    );
}
