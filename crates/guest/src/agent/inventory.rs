//! What the engine holds, page by page.
//!
//! The pages of one counter come from one look at the engine, which is kept until its last page
//! was read; a page that begins anew looks anew.

use std::sync::{Arc, Mutex, PoisonError};

use coffer_engines::runtime::Inventory;
use coffer_wire::guest::v1::{Database, InventoryPage, User};

use crate::agent::Shared;
use crate::agent::routes::{Answer, Refused};
use crate::limits::{INVENTORY_PAGE_BYTES, INVENTORY_PAGE_MAX};

/// The look that is being paged through.
#[derive(Debug, Default)]
pub(crate) struct Cache(Mutex<Option<(u64, Arc<Inventory>)>>);

/// A page: databases first, then users; `after` is the number of entries before it.
pub(crate) async fn page(
    shared: &Shared,
    after: Option<&str>,
    limit: Option<usize>,
) -> Answer<InventoryPage> {
    let skip: usize = match after {
        None => 0,
        Some(text) => text
            .parse()
            .map_err(|_| Refused::bad_request("'after' is no page's next"))?,
    };
    let limit = limit
        .unwrap_or(INVENTORY_PAGE_MAX)
        .clamp(1, INVENTORY_PAGE_MAX);
    let (counter, found) = look(shared, skip > 0).await?;
    let page = cut(counter, &found, skip, limit);
    if page.next.is_none() {
        *shared
            .inventory
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
    }
    Ok(page)
}

async fn look(shared: &Shared, is_continued: bool) -> Answer<(u64, Arc<Inventory>)> {
    let kept = shared
        .inventory
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    if let Some(kept) = kept.filter(|_| is_continued) {
        return Ok(kept);
    }
    // Read before the look: what changes meanwhile raises the counter after it.
    let counter = shared.status.now().inventory_counter;
    let found = shared.runtime.inventory(shared.host.as_ref()).await;
    let found = Arc::new(found.map_err(|error| Refused::engine(&error))?);
    let kept = Some((counter, Arc::clone(&found)));
    *shared
        .inventory
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner) = kept;
    Ok((counter, found))
}

/// As many entries as a page may have, whose names together are not longer than it may be; at
/// least one.
fn fitting<T>(entries: impl Iterator<Item = T>, limit: usize, bytes: fn(&T) -> usize) -> Vec<T> {
    let mut taken = 0;
    let mut page = Vec::new();
    for entry in entries.take(limit) {
        taken += bytes(&entry);
        if taken > INVENTORY_PAGE_BYTES && !page.is_empty() {
            break;
        }
        page.push(entry);
    }
    page
}

fn database((name, character_set, collate): &(String, Option<String>, Option<String>)) -> Database {
    Database {
        name: name.clone(),
        character_set: character_set.clone(),
        collate: collate.clone(),
    }
}

fn user((name, host, databases): &(String, String, Vec<String>)) -> User {
    User {
        name: name.clone(),
        host: host.clone(),
        databases: databases.clone(),
    }
}

fn cut(counter: u64, found: &Inventory, skip: usize, limit: usize) -> InventoryPage {
    let left = found.databases.iter().skip(skip).map(database);
    let databases = fitting(left, limit, |one| one.name.len());
    let are_all = skip + databases.len() >= found.databases.len();
    let limit = if are_all { limit - databases.len() } else { 0 };
    let skipped = skip.saturating_sub(found.databases.len());
    let left = found.users.iter().skip(skipped).map(user);
    let users = fitting(left, limit, |one| {
        one.name.len() + one.databases.iter().map(String::len).sum::<usize>()
    });
    let end = skip + databases.len() + users.len();
    let is_last = end >= found.databases.len() + found.users.len();
    InventoryPage {
        counter,
        databases,
        users,
        is_root_enabled: found.is_root_enabled,
        next: (!is_last).then(|| end.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_hold_everything_once() {
        let names = |count: usize| (0..count).map(|i| format!("{i:03}"));
        for (databases, users) in [(0, 0), (3, 0), (0, 3), (5, 7)] {
            let found = Inventory {
                databases: names(databases).map(|name| (name, None, None)).collect(),
                users: names(users)
                    .map(|name| (name, "%".to_owned(), Vec::new()))
                    .collect(),
                is_root_enabled: false,
            };
            for limit in 1..=13 {
                let (mut skip, mut seen) = (0, (0, 0));
                loop {
                    let page = cut(1, &found, skip, limit);
                    assert!(page.databases.len() + page.users.len() <= limit);
                    seen = (seen.0 + page.databases.len(), seen.1 + page.users.len());
                    match page.next {
                        Some(next) => skip = next.parse().unwrap(),
                        None => break,
                    }
                }
                assert_eq!(seen, (databases, users), "limit {limit}");
            }
        }
    }
    #[test]
    fn pages_of_users_with_many_grants_are_short() {
        let databases: Vec<_> = (0..1_000).map(|i| format!("database-{i:050}")).collect();
        let user = |i: usize| (format!("{i:03}"), "%".to_owned(), databases.clone());
        let found = Inventory {
            databases: Vec::new(),
            users: (0..20).map(user).collect(),
            is_root_enabled: false,
        };
        let page = cut(1, &found, 0, 200);
        let bytes = serde_json::to_vec(&page).unwrap().len();
        assert!(bytes < 2 * INVENTORY_PAGE_BYTES, "{bytes}");
        assert_eq!(page.next, Some(page.users.len().to_string()));
        assert!((1..20).contains(&page.users.len()));
    }
}
