//! The node's database, watched: when is what it holds one state of the node?
//!
//! LDK writes a channel when it changes and the list of all channels soon after, of its own accord. Killed between the
//! two it finds the list too old when it starts again, and closes the channel itself.

use std::path::PathBuf;
use std::process::abort;
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ldk_node::io::sqlite_store::SqliteStore;
use ldk_node::io::sqlite_store::{KV_TABLE_NAME, SQLITE_DB_FILE_NAME};
use ldk_node::lightning::io;
use ldk_node::lightning::util::async_poll::AsyncResult;
use ldk_node::lightning::util::persist::{
    KVStore, KVStoreSync, CHANNEL_MANAGER_PERSISTENCE_KEY, CHANNEL_MONITOR_PERSISTENCE_PRIMARY_NAMESPACE,
    CHANNEL_MONITOR_UPDATE_PERSISTENCE_PRIMARY_NAMESPACE,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// When the last writes began, counted in writes; `list_done` is the one of the list that is on disk.
#[derive(Default)]
struct Writes {
    count: u64,
    channel_begun: u64,
    channels_writing: u64,
    list_done: u64,
}

/// What a write is about, as far as it matters here.
#[derive(Clone, Copy)]
enum Kind {
    Channel,
    List(u64),
    Other,
}

#[derive(Clone, Default)]
pub struct Watch(Arc<Mutex<Writes>>);

impl Watch {
    /// Ends the process as SIGKILL would, at a moment when what is on disk is one state of the node.
    pub fn die_when_whole(&self) -> ! {
        let patience = Instant::now() + PATIENCE;
        loop {
            let writes = self.0.lock().unwrap(); // as long as we hold it no write begins
            let whole = writes.channels_writing == 0 && writes.list_done >= writes.channel_begun;
            if whole || Instant::now() > patience {
                abort();
            }
            drop(writes);
            sleep(Duration::from_millis(1));
        }
    }

    fn begin(&self, namespace: &str, key: &str) -> Kind {
        let mut writes = self.0.lock().unwrap();
        writes.count += 1;
        match namespace {
            CHANNEL_MONITOR_PERSISTENCE_PRIMARY_NAMESPACE | CHANNEL_MONITOR_UPDATE_PERSISTENCE_PRIMARY_NAMESPACE => {
                writes.channel_begun = writes.count;
                writes.channels_writing += 1;
                Kind::Channel
            }
            "" if key == CHANNEL_MANAGER_PERSISTENCE_KEY => Kind::List(writes.count),
            _ => Kind::Other,
        }
    }

    fn end(&self, kind: Kind, written: bool) {
        let mut writes = self.0.lock().unwrap();
        match kind {
            Kind::Channel => writes.channels_writing -= 1,
            Kind::List(begun) if written => writes.list_done = writes.list_done.max(begun),
            _ => {}
        }
    }
}

pub struct Store {
    inner: SqliteStore,
    watch: Watch,
}

impl Store {
    pub fn new(folder: PathBuf, watch: Watch) -> io::Result<Store> {
        let (file, table) = (SQLITE_DB_FILE_NAME.to_string(), KV_TABLE_NAME.to_string());
        let inner = SqliteStore::new(folder, Some(file), Some(table))?;
        Ok(Store { inner, watch })
    }
}

impl KVStore for Store {
    fn read(&self, first: &str, second: &str, key: &str) -> AsyncResult<'static, Vec<u8>, io::Error> {
        KVStore::read(&self.inner, first, second, key)
    }

    fn write(&self, first: &str, second: &str, key: &str, data: Vec<u8>) -> AsyncResult<'static, (), io::Error> {
        let (kind, watch) = (self.watch.begin(first, key), self.watch.clone());
        let writing = KVStore::write(&self.inner, first, second, key, data);
        Box::pin(async move {
            let written = writing.await;
            watch.end(kind, written.is_ok());
            written
        })
    }

    fn remove(&self, first: &str, second: &str, key: &str, lazy: bool) -> AsyncResult<'static, (), io::Error> {
        KVStore::remove(&self.inner, first, second, key, lazy)
    }

    fn list(&self, first: &str, second: &str) -> AsyncResult<'static, Vec<String>, io::Error> {
        KVStore::list(&self.inner, first, second)
    }
}

impl KVStoreSync for Store {
    fn read(&self, first: &str, second: &str, key: &str) -> io::Result<Vec<u8>> {
        KVStoreSync::read(&self.inner, first, second, key)
    }

    fn write(&self, first: &str, second: &str, key: &str, data: Vec<u8>) -> io::Result<()> {
        let kind = self.watch.begin(first, key);
        let written = KVStoreSync::write(&self.inner, first, second, key, data);
        self.watch.end(kind, written.is_ok());
        written
    }

    fn remove(&self, first: &str, second: &str, key: &str, lazy: bool) -> io::Result<()> {
        KVStoreSync::remove(&self.inner, first, second, key, lazy)
    }

    fn list(&self, first: &str, second: &str) -> io::Result<Vec<String>> {
        KVStoreSync::list(&self.inner, first, second)
    }
}
