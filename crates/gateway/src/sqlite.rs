//! What the gateway's own databases have in common: how they are opened, how full they are, and how they
//! go.

use std::{fs, io, path::Path};

use rusqlite::Connection;

/// What a commit survives. The process may be killed after any of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// Power loss too: every commit is synced before it returns.
    Full,
    /// Power loss may take the last commits; the file stays whole.
    Normal,
}

/// Opens a database or makes an empty one, with a write-ahead log so that readers never wait for
/// the writer. Two writers wait for each other for five seconds, SQLite's default here.
///
/// # Errors
/// It cannot be opened, or is no database.
pub fn open(path: &Path, sync: Sync) -> rusqlite::Result<Connection> {
    prepare(Connection::open(path)?, sync)
}

/// Bytes of a page where much is written at once: fewer system calls for the same bytes.
const LARGE_PAGE: u32 = 16 << 10;

/// As [`open`]; a new database has large pages.
///
/// # Errors
/// It cannot be opened, or is no database.
pub fn open_with_large_pages(path: &Path, sync: Sync) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "page_size", LARGE_PAGE)?;
    prepare(connection, sync)
}

fn prepare(connection: Connection, sync: Sync) -> rusqlite::Result<Connection> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // Said explicitly, whatever the library was built with.
    let synchronous = match sync {
        Sync::Full => "FULL",
        Sync::Normal => "NORMAL",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    Ok(connection)
}

/// Bytes of the pages in use; freed pages are used again.
///
/// # Errors
/// The file cannot be read.
pub fn bytes_used(connection: &Connection) -> rusqlite::Result<u64> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get(0));
    let (size, pages, free): (i64, i64, i64) = (
        pragma("page_size")?,
        pragma("page_count")?,
        pragma("freelist_count")?,
    );
    Ok(u64::try_from(size * (pages - free)).expect("no more pages are free than there are"))
}

/// Removes a database with what stands beside it; what cannot be removed is told in the log.
pub fn remove(path: &Path) {
    for ending in ["-wal", "-shm", ""] {
        let mut path = path.as_os_str().to_owned();
        path.push(ending);
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let path = Path::new(&path).display();
                tracing::warn!(%path, %error, "a file is left behind");
            }
        }
    }
}

/// The databases of a folder, by their names without the ending.
///
/// # Errors
/// The folder cannot be read.
pub fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_database = path.extension().is_some_and(|ending| ending == "db");
        let name = path.file_stem().and_then(|stem| stem.to_str());
        names.extend(name.filter(|_| is_database).map(str::to_owned));
    }
    Ok(names)
}
