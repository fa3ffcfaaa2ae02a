//! Reads a guest's whole inventory, page by page, as of one change counter.

use coffer_store::inventory::{StoredDatabase, StoredInventory, StoredUser};
use coffer_wire::guest::v1::InventoryPage;

use crate::guest::{GuestAddress, GuestError, Guests, Result};
use crate::limits;

/// Times the reading begins again because the inventory changed meanwhile.
const RESTARTS_MAX: usize = 5;

/// The inventory of a guest.
pub async fn read(guests: &dyn Guests, guest: &GuestAddress) -> Result<StoredInventory> {
    for _ in 0..RESTARTS_MAX {
        if let Some(inventory) = read_once(guests, guest).await? {
            return Ok(inventory);
        }
    }
    Err(GuestError::Protocol {
        why: "the inventory changes faster than it is read".to_owned(),
    })
}

async fn read_once(guests: &dyn Guests, guest: &GuestAddress) -> Result<Option<StoredInventory>> {
    let mut page = guests
        .inventory(guest, None, limits::INVENTORY_PAGE)
        .await?;
    let counter = page.counter;
    let mut all = StoredInventory {
        counter,
        databases: Vec::new(),
        users: Vec::new(),
        is_root_enabled: page.is_root_enabled,
    };
    for _ in 0..limits::INVENTORY_PAGES_MAX {
        let next = page.next.clone();
        add(&mut all, page);
        let Some(after) = next else {
            return Ok(Some(all));
        };
        page = guests
            .inventory(guest, Some(&after), limits::INVENTORY_PAGE)
            .await?;
        if page.counter != counter {
            return Ok(None);
        }
    }
    Err(GuestError::Protocol {
        why: "the inventory has too many pages".to_owned(),
    })
}

fn add(all: &mut StoredInventory, page: InventoryPage) {
    all.databases
        .extend(page.databases.into_iter().map(|d| StoredDatabase {
            name: d.name,
            character_set: d.character_set.unwrap_or_default(),
            collate: d.collate.unwrap_or_default(),
        }));
    all.users.extend(page.users.into_iter().map(|u| StoredUser {
        name: u.name,
        host: u.host,
        databases: u.databases,
    }));
}
