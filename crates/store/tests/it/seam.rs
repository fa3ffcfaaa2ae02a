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

/// Whether an error is of a kind.
type IsIt = fn(&StoreError) -> bool;

/// What the server says of the place that it keeps the database on. SQLite's words are shown on
/// real disks, by `tests/e2e`.
#[tokio::test]
async fn what_is_wrong_with_the_place_of_the_database_is_told_apart_on_postgres() {
    let fixture = Fixture::postgres().await;
    fixture
        .raw(
            "CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS
                'BEGIN RAISE EXCEPTION ''as the test wants'' USING ERRCODE = NEW.value; END'",
        )
        .await;
    fixture
        .raw(
            "CREATE TRIGGER trouble BEFORE INSERT ON settings FOR EACH ROW
                EXECUTE FUNCTION trouble()",
        )
        .await;
    let kinds: [(&str, IsIt); 5] = [
        ("53100", |error| matches!(error, StoreError::Full(_))),
        ("25006", |error| matches!(error, StoreError::ReadOnly(_))),
        ("58030", |error| matches!(error, StoreError::Failing(_))),
        ("XX001", |error| matches!(error, StoreError::Damaged(_))),
        ("22012", |error| matches!(error, StoreError::Database(_))),
    ];
    for (code, is_it) in kinds {
        let refused = fixture.store().put_setting("a", code).await;
        assert!(refused.as_ref().is_err_and(is_it), "{code}: {refused:?}");
    }
    assert_eq!(fixture.store().get_setting("a").await.unwrap(), None);
    fixture.raw("DROP TRIGGER trouble ON settings").await;
    fixture.store().put_setting("a", "b").await.unwrap();
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
async fn processes_that_start_together_migrate_once() {
    let url = crate::postgres::new_database().await;
    let mut starts = tokio::task::JoinSet::new();
    for n in 0..8 {
        let url = url.clone();
        starts.spawn(async move {
            let options = StoreOptions {
                connections: 2,
                ..StoreOptions::default()
            };
            let store = Store::open_new_or_present(&url, options).await.unwrap();
            store.put_setting(&n.to_string(), "started").await.unwrap();
            store.close().await;
        });
    }
    assert_eq!(starts.join_all().await.len(), 8);
}

#[tokio::test]
async fn a_store_prints_no_password() {
    let fixture = Fixture::postgres().await;
    let shown = format!("{:?} {:?}", fixture.store(), fixture.store().subscribe());
    assert!(shown.contains("Postgres"), "{shown}");
    assert!(
        !shown.contains("host") && !shown.contains("password"),
        "{shown}"
    );
}
