//! Places that clients compete for: bounded altogether, and for each address, so that one client
//! cannot take them all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A number of places; cheap to clone.
#[derive(Debug, Clone)]
pub struct Places {
    total: usize,
    per_address: usize,
    taken: Arc<Mutex<HashMap<String, usize>>>,
}

/// A place that is taken; given back when dropped.
#[derive(Debug)]
pub struct Place {
    places: Places,
    address: String,
}

impl Places {
    /// So many places, and so many of them for one address.
    pub fn new(total: usize, per_address: usize) -> Self {
        Self {
            total,
            per_address,
            taken: Arc::default(),
        }
    }

    /// Takes a place for this address; `None` when it has its share, or none is left.
    pub fn take(&self, address: &str) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let total: usize = taken.values().sum();
        let own = taken.get(address).copied().unwrap_or_default();
        if total >= self.total || own >= self.per_address {
            return None;
        }
        taken.insert(address.to_owned(), own + 1);
        Some(Place {
            places: self.clone(),
            address: address.to_owned(),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self
            .places
            .taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(&self.address) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                taken.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_takes_all_places() {
        let places = Places::new(5, 3);
        let held: Vec<_> = (0..3).filter_map(|_| places.take("a")).collect();
        assert!(held.len() == 3 && places.take("a").is_none());
        let others = (places.take("b"), places.take("c"));
        assert!(others.0.is_some() && others.1.is_some());
        assert!(places.take("d").is_none(), "more than there are");
        drop(others);
        assert!(places.take("a").is_none() && places.take("d").is_some());
        drop(held);
        assert!(places.take("a").is_some());
        assert!(places.taken.lock().unwrap().is_empty());
    }
}
