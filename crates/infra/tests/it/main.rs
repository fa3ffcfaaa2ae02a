//! The local provider on the real kernel: sandboxes, networks, volumes, limits. Needs root.
//!
//! One program in three parts: started plainly it runs the tests, one after the other; started as
//! `sandbox-launch` it is the launcher (which must be a program with one thread); inside a sandbox
//! it is the guest (`init`, `bootstrap`). `cargo test -p coffer-infra --test it -- WORD` runs the
//! tests whose name holds WORD.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]
#![expect(
    clippy::disallowed_methods,
    reason = "tests use the host's own tools and clock"
)]

mod bare;
mod guest;
mod limits;
mod networks;
mod published;
mod recovery;
mod volumes;
mod walls;
mod world;

use std::path::Path;
use std::process::ExitCode;

use world::World;

/// A test: its name, and what it does on a world that is fresh for each mode.
type Test = (&'static str, fn(&World) -> world::Step<'_>);

const TESTS: &[Test] = &[
    ("conformance", |w| Box::pin(w.conformance())),
    ("conformance_from_the_network", |w| {
        Box::pin(w.conformance_from_the_network())
    }),
    ("networks_of_one_subnet_are_apart", |w| {
        Box::pin(networks::apart(w))
    }),
    ("members_speak_as_themselves", |w| {
        Box::pin(networks::spoofing(w))
    }),
    ("published_address", |w| Box::pin(networks::published(w))),
    ("published_pool_of_the_operator", |w| {
        Box::pin(published::pool_of_the_operator(w))
    }),
    ("published_ports_of_the_host", |w| {
        Box::pin(published::ports_of_the_host(w))
    }),
    ("clients_shut_out_are_cut", |w| Box::pin(published::cut(w))),
    ("a_move_that_is_cut_short_is_finished", |w| {
        Box::pin(published::cut_short(w))
    }),
    ("taken_addresses_are_explained", |w| {
        Box::pin(published::taken(w))
    }),
    ("volume_limit_and_growth", |w| {
        Box::pin(volumes::limit_and_growth(w))
    }),
    ("overcommit_is_refused", |w| {
        Box::pin(volumes::overcommit(w))
    }),
    ("snapshot_under_writes", |w| Box::pin(volumes::snapshot(w))),
    ("clones_share_blocks", |w| Box::pin(volumes::sharing(w))),
    ("volumes_have_large_sectors_and_direct_io", |w| {
        Box::pin(volumes::sectors(w))
    }),
    ("a_mode_is_chosen_where_none_is_named", |w| {
        Box::pin(volumes::automatic_mode(w))
    }),
    ("clones_belong_to_their_sandbox", |w| {
        Box::pin(volumes::owners(w))
    }),
    ("clones_get_their_own_uuid", |w| Box::pin(volumes::uuid(w))),
    ("memory_and_cpu_limits", |w| Box::pin(limits::enforced(w))),
    ("io_limits", |w| Box::pin(limits::io(w))),
    ("hostile_guest", |w| Box::pin(walls::hostile(w))),
    ("stubborn_guest_is_stopped", |w| {
        Box::pin(recovery::stubborn(w))
    }),
    ("hung_launcher_holds_nobody_else_up", |w| {
        Box::pin(recovery::hung_launcher(w))
    }),
    ("killed_guest_is_noticed", |w| Box::pin(recovery::killed(w))),
    ("many_at_once", |w| Box::pin(recovery::many(w))),
    ("killed_coffer_leaves_nothing", |w| {
        Box::pin(recovery::killed_coffer(w))
    }),
    ("rebuilds_after_reboot", |w| Box::pin(recovery::reboot(w))),
    ("broken_roots_are_explained", |w| {
        Box::pin(recovery::broken_root(w))
    }),
    ("remains_are_found_and_removed", |w| {
        Box::pin(recovery::remains(w))
    }),
    ("bare_host", |w| {
        bare::host(w);
        Box::pin(async {})
    }),
    ("figures", |w| Box::pin(w.figures())),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["sandbox-launch", spec] => coffer_infra::local::launch::main(Path::new(spec)),
        ["sandbox-relay", spec] => coffer_infra::local::relay::main(Path::new(spec)),
        ["sandbox-hold", dir] => coffer_infra::local::world::hold(Path::new(dir)),
        ["bare", dir, tag] => bare::run(dir, tag),
        ["churn", dir, tag, mode, seed] => recovery::churn(dir, tag, mode, seed),
        ["init"] => guest::init(),
        ["bootstrap"] => guest::bootstrap(),
        _ => world::run(TESTS, &words),
    }
}
