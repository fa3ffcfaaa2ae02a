//! What only concerns opening a store: migrations, options, files, addresses that are wrong.

use std::os::unix::fs::PermissionsExt;

use coffer_store::{Store, StoreError, StoreOptions, StoreUrl};

use crate::fixture::Fixture;

#[tokio::test]
async fn a_file_is_private_and_keeps_what_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("coffer.db");
    let url: StoreUrl = format!("sqlite:{}", path.display()).parse().unwrap();
    assert_eq!(url, StoreUrl::SqliteFile(path.clone()));
    for round in 0..2 {
        let store = Store::open(&url, StoreOptions::default()).await.unwrap();
        assert_eq!(
            store
                .put_setting_once("round", &round.to_string())
                .await
                .unwrap(),
            "0"
        );
        store.close().await;
    }
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[tokio::test]
async fn memory_is_a_store_of_its_own() {
    let url: StoreUrl = "sqlite::memory:".parse().unwrap();
    let one = Store::open(&url, StoreOptions::default()).await.unwrap();
    let two = Store::open(&url, StoreOptions::default()).await.unwrap();
    one.put_setting("a", "1").await.unwrap();
    assert_eq!(two.get_setting("a").await.unwrap(), None);
    assert_eq!(one.get_setting("a").await.unwrap().as_deref(), Some("1"));
}

#[tokio::test]
async fn urls_that_cannot_be_opened_say_why_and_no_password() {
    for bad in ["", "sqlite:", "mysql://x", "/var/lib/coffer.db"] {
        let error = bad.parse::<StoreUrl>().unwrap_err();
        assert!(matches!(error, StoreError::Open { .. }), "{bad}: {error}");
    }
    let url: StoreUrl = "postgres://coffer:hunter2@127.0.0.1:1/x?port=none"
        .parse()
        .unwrap();
    let error = Store::open(&url, StoreOptions::default())
        .await
        .unwrap_err();
    let shown = format!("{url} {url:?} {error} {error:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
    let url: StoreUrl = "sqlite:/nonexistent/coffer.db".parse().unwrap();
    let error = Store::open(&url, StoreOptions::default())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("/nonexistent/coffer.db"),
        "{error}"
    );
}

/// A history that differs from the binary's own is refused, on both databases.
async fn altered_history_is_refused(fixture: &Fixture) {
    fixture
        .raw("UPDATE schema_version SET checksum = CAST('' AS BYTEA)")
        .await;
    let reopened = Store::open(fixture.url(), StoreOptions::default()).await;
    assert!(
        matches!(reopened, Err(StoreError::Database(_))),
        "{reopened:?}"
    );
}

#[tokio::test]
async fn altered_history_is_refused_on_sqlite() {
    altered_history_is_refused(&Fixture::sqlite().await).await;
}

#[tokio::test]
async fn altered_history_is_refused_on_postgres() {
    altered_history_is_refused(&Fixture::postgres().await).await;
}

#[tokio::test]
async fn readers_of_a_file_cannot_write_and_writes_are_synced() {
    let directory = tempfile::tempdir().unwrap();
    let url = StoreUrl::SqliteFile(directory.path().join("coffer.db"));
    let store = Store::open(&url, StoreOptions::default()).await.unwrap();
    store.put_setting("a", "1").await.unwrap();
    let wal = directory.path().join("coffer.db-wal");
    assert!(
        std::fs::metadata(wal).unwrap().len() > 0,
        "the journal is a write-ahead log"
    );
}
