//! Users, sessions and tokens over a file, with a clock that stands.

use super::*;
use crate::author::Via;

const START: i64 = 1_700_000_000_000;
const HOUR_MS: i64 = 3_600_000;

struct World {
    dir: tempfile::TempDir,
    clock: Clock,
    access: Arc<Access>,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::stopped(START);
        let access = Self::open(&dir, &clock);
        Self { dir, clock, access }
    }

    fn open(dir: &tempfile::TempDir, clock: &Clock) -> Arc<Access> {
        let path = dir.path().join("access.db");
        Arc::new(Access::open(&path, "t0ken".into(), clock.clone()).unwrap())
    }

    fn with_mei() -> Self {
        let world = Self::new();
        world
            .access
            .put_user("mei", Some(Role::Operator), Some("correct horse"))
            .unwrap();
        world
    }

    fn sign_in(&self) -> Opened {
        self.access
            .sign_in("mei", "correct horse", None, "a browser")
            .unwrap()
    }

    fn actions(&self) -> Vec<String> {
        let filter = TrailFilter {
            limit: 100,
            ..TrailFilter::default()
        };
        let trail = self.access.trail(&filter).unwrap();
        trail.deeds.into_iter().map(|deed| deed.action).collect()
    }
}

#[test]
fn a_session_outlives_a_restart_and_ends_when_nobody_uses_it() {
    let world = World::with_mei();
    let opened = world.sign_in();
    let again = World::open(&world.dir, &world.clock);
    let (caller, _) = again.session(&opened.cookie).unwrap();
    assert_eq!((caller.name.as_str(), caller.role), ("mei", Role::Operator));
    assert_eq!(caller.via, Via::Session);
    world.clock.set(START + 11 * HOUR_MS);
    assert!(again.session(&opened.cookie).is_some());
    world.clock.set(START + 22 * HOUR_MS);
    assert!(again.session(&opened.cookie).is_some(), "used meanwhile");
    world.clock.set(START + 34 * HOUR_MS);
    assert!(again.session(&opened.cookie).is_none());
}

#[test]
fn no_session_lives_longer_than_a_week() {
    let world = World::with_mei();
    let opened = world.sign_in();
    for hour in (10..168).step_by(10) {
        world.clock.set(START + hour * HOUR_MS);
        assert!(world.access.session(&opened.cookie).is_some(), "{hour}");
    }
    world.clock.set(START + 168 * HOUR_MS);
    assert!(world.access.session(&opened.cookie).is_none());
}

#[test]
fn a_wrong_password_and_an_unknown_user_are_told_alike_and_throttled() {
    let world = World::with_mei();
    let refused = |name: &str| {
        let outcome = world.access.sign_in(name, "wrong wrong", None, "");
        outcome.err().map(|error| error.to_string()).unwrap()
    };
    assert_eq!(refused("mei"), refused("nobody"));
    for _ in 0..4 {
        refused("mei");
    }
    assert!(refused("mei").contains("wait 1 s"));
    world.clock.set(START + 1_000);
    assert!(
        world
            .access
            .sign_in("mei", "correct horse", None, "")
            .is_ok()
    );
}

#[test]
fn a_new_password_ends_the_sessions_and_a_new_role_counts_at_once() {
    let world = World::with_mei();
    let opened = world.sign_in();
    world
        .access
        .put_user("mei", Some(Role::Viewer), None)
        .unwrap();
    let (caller, _) = world.access.session(&opened.cookie).unwrap();
    assert_eq!(caller.role, Role::Viewer);
    world
        .access
        .put_user("mei", None, Some("another horse"))
        .unwrap();
    assert!(world.access.session(&opened.cookie).is_none());
    assert!(
        world
            .access
            .sign_in("mei", "correct horse", None, "")
            .is_err()
    );
}

#[test]
fn deleting_a_user_or_a_session_closes_the_door() {
    let world = World::with_mei();
    let (first, second) = (world.sign_in(), world.sign_in());
    world.access.end_session(&first.session.id).unwrap();
    assert!(world.access.session(&first.cookie).is_none());
    world.access.remove_user("mei").unwrap();
    assert!(world.access.session(&second.cookie).is_none());
    assert!(World::open(&world.dir, &world.clock).sessions().is_empty());
}

#[test]
fn a_user_has_so_many_sessions_and_the_one_used_least_lately_goes() {
    let world = World::with_mei();
    let first = world.sign_in();
    for session in 1..=SESSIONS_PER_USER_MAX {
        world.clock.set(START + i64::try_from(session).unwrap());
        world.sign_in();
    }
    assert_eq!(world.access.sessions().len(), SESSIONS_PER_USER_MAX);
    assert!(world.access.session(&first.cookie).is_none());
}

#[test]
fn a_token_opens_until_it_expires_or_is_deleted() {
    let world = World::new();
    let (_, text) = world
        .access
        .make_token("ci", Role::Viewer, Some(START + 5))
        .unwrap();
    assert!(matches!(
        world.access.make_token("ci", Role::Admin, None),
        Err(AccessError::Taken(_))
    ));
    let again = World::open(&world.dir, &world.clock);
    assert_eq!(
        again.bearer(&text).map(|caller| caller.role),
        Some(Role::Viewer)
    );
    world.clock.set(START + 5);
    assert!(again.bearer(&text).is_none());
    let (_, text) = world.access.make_token("cd", Role::Admin, None).unwrap();
    world.access.remove_token("cd").unwrap();
    assert!(world.access.bearer(&text).is_none());
    assert!(
        world.access.bearer("t0ken").is_some(),
        "the admin token stays"
    );
    assert!(world.access.bearer("").is_none());
}

#[test]
fn the_trail_says_who_and_holds_no_secret() {
    let world = World::with_mei();
    world.sign_in();
    let (_, text) = world.access.make_token("ci", Role::Viewer, None).unwrap();
    assert_eq!(
        world.actions(),
        ["token created", "sign-in", "user created"]
    );
    let kept = std::fs::read(world.dir.path().join("access.db-wal")).unwrap();
    let kept = String::from_utf8_lossy(&kept);
    for secret in ["correct horse", &text] {
        assert!(!kept.contains(secret), "{secret}");
    }
}
