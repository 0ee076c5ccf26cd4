//! Commands against a gateway's HTTP door on a free port.

use std::{
    cell::RefCell,
    io::{self, Write},
    path::Path,
    rc::Rc,
    sync::Arc,
};

use clap::Parser;
use tokio::{net::TcpListener, runtime::Runtime};

use super::{Arguments, Exit, Terminal, run};
use crate::{http::serve, secrets::AdminToken};

const FARM: &str = include_str!("../registry/farm.yaml");

/// A gateway with its data directory; dropped, it is gone.
struct World {
    dir: tempfile::TempDir,
    url: String,
    _runtime: Runtime,
}

#[derive(Clone, Default)]
struct Screen(Rc<RefCell<Vec<u8>>>);

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Screen {
    fn text(&self) -> String {
        String::from_utf8(self.0.borrow().clone()).unwrap()
    }
}

struct Said {
    exit: Exit,
    out: String,
    talk: String,
}

impl Said {
    /// What was printed, of a command that went well.
    fn ok(self) -> String {
        assert_eq!(self.exit, Exit::Ok, "{}", self.talk);
        self.out
    }
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let token = AdminToken::open(dir.path()).unwrap();
        // Rules run what their sinks do where they are made.
        let api = {
            let _inside = runtime.enter();
            crate::http::tests::api(dir.path(), token)
        };
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(serve(listener, Arc::new(api)));
        Self {
            dir,
            url,
            _runtime: runtime,
        }
    }

    fn say(&self, line: &[&str]) -> Said {
        let data_dir = self.dir.path().to_str().unwrap();
        let mut words = vec!["backtide", "--url", &self.url, "--data-dir", data_dir];
        words.extend(line);
        say(&words)
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

fn say(words: &[&str]) -> Said {
    let arguments = Arguments::try_parse_from(words).unwrap();
    let (out, talk) = (Screen::default(), Screen::default());
    let mut terminal = Terminal {
        out: Box::new(out.clone()),
        talk: Box::new(talk.clone()),
    };
    let exit = run(arguments, &mut terminal);
    Said {
        exit,
        out: out.text(),
        talk: talk.text(),
    }
}

#[test]
fn what_get_prints_apply_takes_unchanged() {
    let world = World::new();
    let farm = world.file("farm.yaml", FARM);
    let said = world.say(&["apply", "-f", &farm]);
    assert_eq!(
        said.ok(),
        "Model turbine created\nProduct wind-farm created\nDevice R80711 created\n\
         Channel scada-history created\n"
    );
    for form in ["yaml", "json", "ndjson"] {
        for kind in ["model", "product", "device", "channel"] {
            let text = world.say(&["get", kind, "-o", form]).ok();
            let file = world.file("again", &text);
            let said = world.say(&["apply", "-f", &file, "-o", "json"]).ok();
            let outcome: serde_json::Value = serde_json::from_str(&said).unwrap();
            assert_eq!(outcome["unchanged"], 1, "{form} {kind}: {text}");
        }
    }
    insta::assert_snapshot!(world.say(&["get", "models"]).ok());
    assert_eq!(
        world.say(&["get", "channels", "-o", "table"]).ok(),
        "NAME           PRODUCT    MODE    DESCRIPTION\nscada-history  wind-farm  strict\n"
    );
    let one = world.say(&["get", "device", "R80711", "-o", "json"]).ok();
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&one).unwrap()["key"],
        "R80711"
    );
}

#[test]
fn a_fault_is_told_with_its_file_and_line_and_nothing_is_changed() {
    let world = World::new();
    let farm = world.file("farm.yaml", FARM);
    let bad = world.file(
        "bad.yaml",
        "# a comment\nkind: Device\nname: lost\nproduct: none\n",
    );
    let said = world.say(&["apply", "-f", &farm, &bad]);
    assert_eq!(said.exit, Exit::Failed);
    assert!(
        said.talk
            .contains("bad.yaml:2: device lost: product none is not"),
        "{}",
        said.talk
    );
    assert!(said.talk.contains("nothing was changed"), "{}", said.talk);
    assert_eq!(world.say(&["get", "models"]).ok(), "");
    let said = world.say(&["apply", "-f", &farm, "--dry-run"]);
    assert!(
        said.talk
            .contains("4 created, 0 changed, 0 unchanged (dry run"),
        "{}",
        said.talk
    );
}

#[test]
fn a_channel_is_shown_rotated_paused_and_resumed() {
    let world = World::new();
    world
        .say(&["apply", "-f", &world.file("farm.yaml", FARM)])
        .ok();
    let show = || {
        let text = world
            .say(&["channel", "show", "scada-history", "-o", "json"])
            .ok();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    let before = show();
    let table = world.say(&["channel", "show", "scada-history"]).ok();
    assert!(
        table.contains(before["password"].as_str().unwrap()),
        "{table}"
    );
    let said = world.say(&["channel", "rotate", "scada-history", "--overlap", "90s"]);
    assert!(
        said.talk.contains("until 2023-11-14T22:14:50.000Z"),
        "{}",
        said.talk
    );
    assert_ne!(show()["secret"], before["secret"]);
    world.say(&["channel", "pause", "scada-history"]).ok();
    assert_eq!(show()["paused"], true);
    world.say(&["channel", "resume", "scada-history"]).ok();
    assert_eq!(show()["paused"], false);
}

#[test]
fn what_is_in_use_is_not_deleted() {
    let world = World::new();
    world
        .say(&["apply", "-f", &world.file("farm.yaml", FARM)])
        .ok();
    let said = world.say(&["delete", "product", "wind-farm"]);
    assert_eq!(said.exit, Exit::Failed);
    assert!(
        said.talk
            .contains("used by channel scada-history, device R80711"),
        "{}",
        said.talk
    );
    world.say(&["delete", "device", "R80711"]).ok();
    world.say(&["delete", "channel", "scada-history"]).ok();
    world.say(&["delete", "product", "wind-farm"]).ok();
    assert_eq!(
        world.say(&["get", "product", "wind-farm"]).exit,
        Exit::Failed
    );
}

#[test]
fn without_a_token_or_a_gateway_the_way_out_is_told() {
    let world = World::new();
    let said = say(&[
        "backtide",
        "--url",
        &world.url,
        "--data-dir",
        "/nowhere",
        "get",
        "models",
    ]);
    assert_eq!(said.exit, Exit::Failed);
    assert!(said.talk.contains("BACKTIDE_TOKEN"), "{}", said.talk);
    let said = say(&[
        "backtide",
        "--url",
        "http://127.0.0.1:9",
        "--token",
        "t",
        "get",
        "models",
    ]);
    assert_eq!(said.exit, Exit::Failed);
    assert!(
        said.talk.contains("no answer from http://127.0.0.1:9"),
        "{}",
        said.talk
    );
    assert_eq!(
        world.say(&["apply", "-f", "/nowhere.yaml"]).exit,
        Exit::Usage
    );
    assert_eq!(
        world.say(&["apply", "-f", &world.file("e", "")]).exit,
        Exit::Failed
    );
}

#[test]
fn usage_errors_and_help_end_as_promised() {
    let parse = |line: &str| super::parse(line.split(' ').map(Into::into)).map(|_| ());
    assert_eq!(parse("backtide get"), Err(Exit::Usage));
    assert_eq!(parse("backtide fly"), Err(Exit::Usage));
    assert_eq!(parse("backtide --version"), Err(Exit::Ok));
    assert_eq!(parse("backtide serve --mqtt 127.0.0.1:0"), Ok(()));
    assert_eq!(
        [Exit::Ok, Exit::Usage, Exit::Partial, Exit::Failed].map(Exit::code),
        [0, 1, 2, 3]
    );
    let said = say(&["backtide", "completions", "bash"]).ok();
    assert!(said.contains("_backtide"));
}

#[test]
fn the_configuration_is_checked_and_shown() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b.toml");
    let config = |text: &str, verb| {
        std::fs::write(&path, text).unwrap();
        say(&[
            "backtide",
            "config",
            verb,
            "--config",
            Path::to_str(&path).unwrap(),
        ])
    };
    assert_eq!(config("organization = \"o2\"", "check").exit, Exit::Ok);
    assert!(
        config("organization = \"o2\"", "show")
            .ok()
            .contains("organization = \"o2\"")
    );
    let said = config("organisation = \"o2\"", "check");
    assert_eq!(said.exit, Exit::Usage);
    assert!(said.talk.contains("organisation"), "{}", said.talk);
}
