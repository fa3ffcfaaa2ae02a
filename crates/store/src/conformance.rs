//! The conformance suite: what the store promises, asked of SQLite and PostgreSQL alike, and of
//! SQLite in memory, on which simulation runs.
//!
//! Not part of the library: `tests/it` includes it and gives each case a database of its own.

use std::pin::Pin;

#[path = "conformance/catalogue.rs"]
mod catalogue;
#[path = "conformance/conductor.rs"]
mod conductor;
#[path = "conformance/identity.rs"]
mod identity;
#[path = "conformance/instances.rs"]
mod instances;
#[path = "conformance/isolation.rs"]
mod isolation;
#[path = "conformance/locks.rs"]
mod locks;
#[path = "conformance/restored.rs"]
mod restored;
#[path = "conformance/retention.rs"]
mod retention;
#[path = "conformance/shared.rs"]
mod shared;
#[path = "conformance/storms.rs"]
mod storms;
#[path = "conformance/tasks.rs"]
mod tasks;
#[path = "conformance/trackers.rs"]
mod trackers;
#[path = "conformance/world.rs"]
mod world;

/// A case under way.
type Case<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

macro_rules! on {
    ($fixture:ident: $($module:ident: $($case:ident),* $(,)?;)*) => {
        $(mod $module {$(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let fixture = crate::fixture::Fixture::$fixture().await;
                super::super::boxed::$module::$case(&fixture).await;
            }
        )*})*
    };
}

macro_rules! boxed {
    ($($module:ident: $($case:ident),* $(,)?;)*) => {
        $(pub(super) mod $module {$(
            pub(in super::super) fn $case(
                fixture: &crate::fixture::Fixture,
            ) -> super::super::Case<'_> {
                Box::pin(super::super::$module::$case(fixture))
            }
        )*})*
    };
}

macro_rules! suite {
    ($($cases:tt)*) => {
        /// The cases, boxed here: what is awaited in three modules is compiled three times.
        mod boxed { boxed! { $($cases)* } }
        mod sqlite { on! { sqlite: $($cases)* } }
        mod postgres { on! { postgres: $($cases)* } }
        mod memory { on! { memory: $($cases)* } }
    };
}

#[tokio::test]
async fn sqlite_names_damaged_rows() {
    shared::damaged_rows_are_named(&crate::fixture::Fixture::sqlite().await).await;
}

#[tokio::test]
async fn postgres_names_damaged_rows() {
    shared::damaged_rows_are_named(&crate::fixture::Fixture::postgres().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_levels_are_the_store_s() {
    let mut fixture = crate::fixture::Fixture::postgres().await;
    isolation::levels_do_not_follow_the_server(&mut fixture).await;
}

suite! {
    identity:
        tenants_are_kept, users_are_kept, roles_are_held_in_projects,
        tokens_carry_what_they_stand_for,
        projects_with_instances_stay;
    catalogue:
        flavors_types_and_zones_are_kept, volume_types_keep_their_limits,
        datastores_and_versions_are_kept, roots_are_kept, what_is_used_stays, networks_are_kept;
    instances:
        creation_writes_everything, pages_are_stable, a_rename_stays_in_its_project,
        quota_excess_writes_nothing, foreign_networks_are_refused, addresses_run_out,
        a_task_begins_once, deletion_begins_in_every_state, deletion_ends_everything,
        late_commits_do_not_revive, specs_change, primaries_need_a_newer_generation,
        endpoints_hold_their_addresses;
    tasks:
        claims_follow_priority_and_time, commits_compare, commits_are_atomic, history_is_kept,
        leases_move_and_are_stolen, tasks_are_given_back, signals_end_waits, commits_wake,
        commits_wake_other_processes, waits_are_kept, nothing_is_late_for_lying_about;
    locks:
        exclusive_excludes, all_or_none, own_locks_count_as_held, preemption_tells_lesser_holders,
        release_wakes_the_blocked;
    conductor:
        observations_write_only_changes, no_number_of_a_guest_keeps_others_unheard,
        loss_changes_only_health, health_ends_waits,
        links_are_pinned_once, inventories_are_replaced_and_paged,
        older_inventories_are_ignored, one_process_holds_a_role;
    trackers:
        trackers_live_by_their_counter, a_grant_is_used_once_for_what_it_names,
        a_grant_ends_by_its_tracker_s_counter, one_use_of_a_grant;
    restored:
        a_mark_stays_until_it_is_settled, old_tasks_end_and_let_go,
        what_became_of_instances_is_written, lost_instances_are_adopted,
        what_is_adopted_is_told_apart, logins_of_then_are_over,
        keys_are_replaced_and_destroyed_at_last;
    shared:
        secrets_name_their_keys, keys_go_with_their_project, settings_are_shared,
        events_and_audit_keep_their_actor, quotas_have_defaults;
    retention:
        old_tasks_go_and_the_newest_of_a_kind_stays, old_steps_of_a_task_without_end_go,
        old_events_and_audit_lines_go, deleted_instances_go_last;
    storms:
        quota_is_never_exceeded, names_are_taken_once, one_default_network, addresses_are_unique,
        one_exclusive_holder, one_primary_per_generation, tasks_are_claimed_once,
        published_addresses_are_unique, the_first_setting_wins, the_first_key_wins,
        one_task_begins, one_delete_begins, one_thief, one_commit_per_version, one_role_holder;
}
