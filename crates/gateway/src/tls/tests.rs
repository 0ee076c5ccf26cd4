use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::*;

/// 2026-01-01: certificates of the tests are valid for a year from here.
const NOW_MS: i64 = 1_767_225_600_000;

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Writes `name.pem` and `name.key`, valid from 2026 to 2027.
fn write(dir: &Path, name: &str, authority: &CertifiedIssuer<'static, KeyPair>) {
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    params.not_after = rcgen::date_time_ymd(2027, 1, 1);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    std::fs::write(dir.join(format!("{name}.pem")), certificate.pem()).unwrap();
    std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
}

fn files(dir: &Path) -> Files {
    Files {
        certificate: dir.join("server.pem"),
        key: dir.join("server.key"),
        client_ca: Some(dir.join("ca.pem")),
    }
}

/// A directory with everything that a door needs.
fn sound() -> (tempfile::TempDir, Files) {
    let dir = tempfile::tempdir().unwrap();
    let ca = authority("trial");
    std::fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
    write(dir.path(), "server", &ca);
    let files = files(dir.path());
    (dir, files)
}

#[test]
fn what_is_wrong_with_a_certificate_is_said_in_plain_words() {
    let (dir, files) = sound();
    files.check(NOW_MS + 1).unwrap();
    let expected = [
        (files.check(NOW_MS - DAY_MS), "not valid before 2026-01-01"),
        (
            files.check(NOW_MS + 366 * DAY_MS),
            "has expired on 2027-01-01",
        ),
    ];
    for (result, words) in expected {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    write(dir.path(), "other", &authority("other"));
    let with = |change: &dyn Fn(&mut Files)| {
        let mut files = files.clone();
        change(&mut files);
        files.check(NOW_MS + 1).unwrap_err().to_string()
    };
    let nowhere = dir.path().join("nowhere.pem");
    assert!(with(&|f| f.certificate = nowhere.clone()).contains("is not there"));
    assert!(with(&|f| f.key = dir.path().join("other.key")).contains("is not the key of"));
    assert!(with(&|f| f.key = f.certificate.clone()).contains("holds no private key"));
    assert!(with(&|f| f.certificate = f.key.clone()).contains("holds no certificate"));
    assert!(with(&|f| f.certificate = dir.path().into()).contains("cannot be read"));
    assert!(with(&|f| f.client_ca = Some(f.key.clone())).contains("mqtts.client_ca"));
}

#[test]
fn a_new_certificate_is_served_and_a_bad_one_keeps_the_old() {
    let (dir, files) = sound();
    let clock = Clock::stopped(NOW_MS + 1);
    let server = Server::open(files.clone(), &clock).unwrap();
    let first = server.current.load_full();
    server.look(NOW_MS + 1);
    assert!(Arc::ptr_eq(&first, &server.current.load_full()));

    std::fs::write(&files.key, "no key").unwrap();
    server.look(NOW_MS + 1);
    std::fs::remove_file(&files.certificate).unwrap();
    server.look(NOW_MS + 1);
    assert!(Arc::ptr_eq(&first, &server.current.load_full()));

    write(dir.path(), "server", &authority("new"));
    server.look(NOW_MS + 1);
    assert!(!Arc::ptr_eq(&first, &server.current.load_full()));
}
