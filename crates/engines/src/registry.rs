//! The list of engines: one line each.

use crate::engine::Engine;

/// Every engine this build knows, in the order they are shown.
pub fn registry() -> &'static [&'static dyn Engine] {
    &[
        &crate::postgresql::Postgresql,
        &crate::mysql::MYSQL,
        &crate::mariadb::Mariadb,
        &crate::redis::REDIS,
        &crate::valkey::VALKEY,
        &crate::percona::PERCONA,
        &crate::pxc::PXC,
    ]
}

/// The engine of this name.
pub fn engine(name: &str) -> Option<&'static dyn Engine> {
    registry()
        .iter()
        .copied()
        .find(|engine| engine.name() == name)
}
