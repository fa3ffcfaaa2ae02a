//! Flavors, volume types and zones: what sizes and places the operator offers.

use coffer_core::flavor::{Flavor, VolumeType, Zone};
use coffer_core::id::FlavorId;
use coffer_core::name::Name;
use coffer_core::units::IoLimits;
use coffer_store::flavor::FlavorChange;
use coffer_store::volume_type::VolumeTypeChange;

use super::AppState;
use crate::error::{Error, Result};

/// Bounds of a flavor: memory in MiB, CPUs, disk in GiB.
const MEMORY_MIB: std::ops::RangeInclusive<u32> = 64..=16 * 1024 * 1024;
const VCPUS: std::ops::RangeInclusive<u32> = 1..=1_024;
const DISK_GIB: std::ops::RangeInclusive<u32> = 0..=65_536;

fn check(flavor: &Flavor) -> Result<()> {
    let within = |field: &str, value: u32, range: &std::ops::RangeInclusive<u32>| {
        if range.contains(&value) {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "flavor['{field}'] {value} is not within {} and {}",
            range.start(),
            range.end()
        )))
    };
    within("ram", flavor.memory_mib, &MEMORY_MIB)?;
    within("vcpus", flavor.vcpus, &VCPUS)?;
    within("disk", flavor.disk_gib, &DISK_GIB)
}

/// Every flavor.
pub async fn list_flavors(app: &AppState) -> Result<Vec<Flavor>> {
    Ok(app.store.list_flavors().await?)
}

/// The flavor with this id.
pub async fn get_flavor(app: &AppState, text: &str) -> Result<Flavor> {
    let missing = || Error::not_found("flavor", text);
    let id: FlavorId = text.parse().map_err(|_| missing())?;
    app.store.find_flavor(&id).await?.ok_or_else(missing)
}

/// Makes a flavor.
pub async fn create_flavor(app: &AppState, flavor: Flavor) -> Result<Flavor> {
    check(&flavor)?;
    app.store.insert_flavor(&flavor).await?;
    Ok(flavor)
}

/// Changes a flavor; its sizes only while no instance has it.
pub async fn update_flavor(app: &AppState, text: &str, change: FlavorChange) -> Result<Flavor> {
    let old = get_flavor(app, text).await?;
    let changed = Flavor {
        name: change.name.clone().unwrap_or(old.name),
        memory_mib: change.memory_mib.unwrap_or(old.memory_mib),
        vcpus: change.vcpus.unwrap_or(old.vcpus),
        disk_gib: change.disk_gib.unwrap_or(old.disk_gib),
        ..old
    };
    check(&changed)?;
    app.store.update_flavor(&changed.id, &change).await?;
    get_flavor(app, text).await
}

/// Deletes a flavor that no instance has.
pub async fn delete_flavor(app: &AppState, text: &str) -> Result<()> {
    let flavor = get_flavor(app, text).await?;
    Ok(app.store.delete_flavor(&flavor.id).await?)
}

/// Every volume type.
pub async fn list_volume_types(app: &AppState) -> Result<Vec<VolumeType>> {
    Ok(app.store.list_volume_types().await?)
}

/// The volume type of this name.
pub async fn get_volume_type(app: &AppState, text: &str) -> Result<VolumeType> {
    let missing = || Error::not_found("volume type", text);
    let name = Name::parse("name", text).map_err(|_| missing())?;
    app.store
        .find_volume_type(name.as_str())
        .await?
        .ok_or_else(missing)
}

/// Makes a volume type.
pub async fn create_volume_type(
    app: &AppState,
    name: Name,
    description: String,
    io: IoLimits,
) -> Result<VolumeType> {
    let volume_type = VolumeType {
        name,
        description,
        io,
        created_at: app.clock.now(),
    };
    app.store.insert_volume_type(&volume_type).await?;
    Ok(volume_type)
}

/// Changes a volume type. Its limits reach an instance when a task asks the provider for its server
/// again: a restart, a start, a recovery.
pub async fn update_volume_type(
    app: &AppState,
    text: &str,
    change: VolumeTypeChange,
) -> Result<VolumeType> {
    let old = get_volume_type(app, text).await?;
    app.store
        .update_volume_type(old.name.as_str(), &change)
        .await?;
    get_volume_type(app, text).await
}

/// Deletes a volume type that no instance has.
pub async fn delete_volume_type(app: &AppState, text: &str) -> Result<()> {
    let volume_type = get_volume_type(app, text).await?;
    Ok(app
        .store
        .delete_volume_type(volume_type.name.as_str())
        .await?)
}

/// Every zone.
pub async fn list_zones(app: &AppState) -> Result<Vec<Zone>> {
    Ok(app.store.list_zones().await?)
}

/// The zone of this name.
pub async fn get_zone(app: &AppState, text: &str) -> Result<Zone> {
    let missing = || Error::not_found("zone", text);
    let name = Name::parse("name", text).map_err(|_| missing())?;
    app.store
        .find_zone(name.as_str())
        .await?
        .ok_or_else(missing)
}

/// Makes a zone.
pub async fn create_zone(app: &AppState, name: Name) -> Result<Zone> {
    let zone = Zone {
        name,
        created_at: app.clock.now(),
    };
    app.store.insert_zone(&zone).await?;
    Ok(zone)
}

/// Gives a zone another name.
pub async fn rename_zone(app: &AppState, text: &str, new_name: Name) -> Result<Zone> {
    let mut zone = get_zone(app, text).await?;
    app.store.rename_zone(zone.name.as_str(), &new_name).await?;
    zone.name = new_name;
    Ok(zone)
}

/// Deletes a zone that no instance names.
pub async fn delete_zone(app: &AppState, text: &str) -> Result<()> {
    let zone = get_zone(app, text).await?;
    Ok(app.store.delete_zone(zone.name.as_str()).await?)
}
