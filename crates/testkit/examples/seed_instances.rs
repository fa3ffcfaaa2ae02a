//! Fills a store with instances of one project: `seed_instances FILE PROJECT COUNT`.
//!
//! FILE is a SQLite file that has its tables; the instances have no links, so that a conductor has
//! nothing to hold, and name a provider that nobody is.

use std::error::Error;
use std::path::PathBuf;

use coffer_store::{Durability, Store, StoreOptions, StoreUrl};
use coffer_testkit::rows::Rows;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [file, tenant, count] = words.as_slice() else {
        return Err("give FILE PROJECT COUNT".into());
    };
    let url = StoreUrl::SqliteFile(PathBuf::from(file));
    let options = StoreOptions {
        durability: Durability::Off,
        ..StoreOptions::default()
    };
    let store = Store::open(&url, options).await?;
    let rows = Rows {
        tenant_id: tenant.parse()?,
        provider: "measured".to_owned(),
        keys: Vec::new(),
    };
    rows.write(&store, count.parse()?).await?;
    store.close().await;
    Ok(())
}
