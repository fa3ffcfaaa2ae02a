//! The end of the host's power under writes. A volume is a file system in a file, as an instance's
//! is; its blocks as they are at one instant are what a cut leaves: everything that was flushed
//! below the volume's file system, and nothing that only its memory holds.
//!
//! With the settings of an instance every acknowledged commit is there after it. With settings
//! that defer the flush some are not, so that the cut does take what was not flushed.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use coffer_core::secret::Secret;
use coffer_engines::conformance::{self, Access, Fixture, World};
use coffer_engines::runtime::NewUser;
use coffer_engines::tool;

use super::direct::{Client, Direct, DirectWorld, Flush};
use super::{base_dir, enter_root};
use crate::support::process;

/// Sizes of the file system that can clone files, and of the volume in it.
const POOL: &str = "6G";
const VOLUME: &str = "2G";
/// Clients that write at once, and what they have written when the power goes.
const WRITERS: u64 = 3;
const WRITTEN_MIN: u64 = 400;
const IDENTITY: &str = "01890a5d-ac96-774b-bcce-b302099a8061";

/// A volume in a pool, both mounted for as long as this lives.
#[derive(Debug)]
struct Ground {
    pool: PathBuf,
    volume: PathBuf,
}

impl Ground {
    async fn lay(base: &Path) -> Self {
        let ground = Self {
            pool: base.join("pool"),
            volume: base.join("volume"),
        };
        format(&base.join("pool.img"), POOL).await;
        mount(&base.join("pool.img"), &ground.pool).await;
        format(&ground.image("volume"), VOLUME).await;
        mount(&ground.image("volume"), &ground.volume).await;
        ground
    }

    fn image(&self, name: &str) -> PathBuf {
        self.pool.join(format!("{name}.img"))
    }

    /// Keeps the volume's blocks as they are now. Nothing is written to them meanwhile.
    async fn cut(&self) {
        let names = ["volume", "cut"].map(|name| self.image(name).display().to_string());
        process::succeed(&["cp", "--reflink=always", &names[0], &names[1]]).await;
    }

    /// What was kept takes the volume's place.
    async fn come_back(&self) {
        process::succeed(&["umount", &self.volume.display().to_string()]).await;
        mount(&self.image("cut"), &self.volume).await;
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        for place in [&self.volume, &self.pool] {
            // After a failure a namespace that just ends may hold the volume for a moment more.
            process::run(&["umount", "--lazy", &place.display().to_string()]);
        }
    }
}

async fn format(image: &Path, size: &str) {
    let image = image.display().to_string();
    process::succeed(&["truncate", "-s", size, &image]).await;
    process::succeed(&["mkfs.xfs", "-q", "-m", "reflink=1", &image]).await;
}

async fn mount(image: &Path, place: &Path) {
    std::fs::create_dir_all(place).unwrap();
    let words = [image, place].map(|path| path.display().to_string());
    // A file system and its copy have one number.
    process::succeed(&["mount", "-o", "loop,nouuid", &words[0], &words[1]]).await;
}

/// Cuts the power of each version under writes: once as instances are, once with flushes deferred.
pub(super) async fn cut_each(client: &'static dyn Client, version: &'static str) {
    let (kept, acknowledged) = cut_power(client, version, Flush::AsCreated).await;
    eprintln!("as created: {acknowledged} acknowledged, {kept} there");
    assert!(
        kept >= acknowledged,
        "of {acknowledged} acknowledged commits {kept} are there"
    );
    let (kept, acknowledged) = cut_power(client, version, Flush::Deferred).await;
    eprintln!("flushes deferred: {acknowledged} acknowledged, {kept} there");
    assert!(
        kept < acknowledged,
        "the cut took nothing: it shows nothing"
    );
}

/// What is there after a cut, and what was acknowledged before it.
async fn cut_power(client: &'static dyn Client, version: &'static str, flush: Flush) -> (u64, u64) {
    let base = base_dir();
    let ground = Ground::lay(base.path()).await;
    let (mut holder, programs) = enter_root(client, version, base.path()).await;
    let world = DirectWorld::flushing(flush, &ground.volume, client, programs);
    let server = world.direct("cut").await;
    let there = serve(&world, &server, &ground.volume).await;
    let (acknowledged, all) = cut_under_writes(client, &server, &there, &ground).await;
    holder.kill().await.expect("leave the namespace");
    ground.come_back().await;

    let (mut holder, programs) = enter_root(client, version, base.path()).await;
    let server = server.moved_to(programs);
    clear(&world, &server);
    server.start().await;
    conformance::wait_answering(&world, &server).await;
    let kept = server.count(&there, "acked").await.expect("count");
    assert!(
        kept <= all + WRITERS,
        "{kept} are there, {all} were written"
    );
    assert!(server.stop().await, "it does not stop cleanly");
    holder.kill().await.expect("leave the namespace");
    (kept, acknowledged)
}

/// Starts the server with a user who has a table. What a template and a configuration are made of
/// is on the disk before, as it is in an instance.
pub(super) async fn serve(world: &DirectWorld, server: &Direct, volume: &Path) -> Access {
    let (runtime, host) = (world.runtime(), server.host());
    let made = runtime.personalise(host, IDENTITY).await;
    made.expect("personalise");
    process::succeed(&["sync", "-f", &volume.display().to_string()]).await;
    server.start().await;
    conformance::wait_answering(world, server).await;
    let secret = |text: &str| Secret::new(text.to_owned());
    let enabled = runtime.enable_root(host, &secret("root")).await;
    enabled.expect("enable root");
    let of = |user: &str, database: &str| Access {
        user: user.to_owned(),
        password: user.to_owned(),
        database: database.to_owned(),
    };
    let mut root = of(world.engine().root_user(), "");
    root.password = "root".to_owned();
    let kept = server.keeps_promises(&root).await;
    kept.expect("the settings are those that were rendered");
    let has_databases = world.engine().check_database("a", None, None).is_ok();
    let databases = has_databases.then(|| "a".to_owned());
    if let Some(name) = &databases {
        let database = (name.clone(), None, None);
        let created = runtime.create_databases(host, &[database]).await;
        created.expect("create a database");
    }
    let user = NewUser {
        name: "u1".to_owned(),
        host: None,
        password: secret("u1"),
        databases: databases.into_iter().collect(),
    };
    let created = runtime.create_users(host, &[user]).await;
    created.expect("create a user");
    let there = of("u1", "a");
    server.make(&there, "acked").await.expect("make a table");
    there
}

/// How many commits were acknowledged before the cut, and in all until the server was gone.
async fn cut_under_writes(
    client: &'static dyn Client,
    server: &Direct,
    there: &Access,
    ground: &Ground,
) -> (u64, u64) {
    let told = AtomicU64::new(0);
    let write = || client.write(server, there, "acked", u64::MAX, &told);
    let writers = async { tokio::join!(write(), write(), write()) };
    let cut = async {
        process::until("the writers get on", async || {
            told.load(Ordering::Relaxed) >= WRITTEN_MIN
        })
        .await;
        let acknowledged = told.load(Ordering::Relaxed);
        ground.cut().await;
        server.kill().await;
        acknowledged
    };
    let (acknowledged, _) = tokio::join!(cut, writers);
    (acknowledged, told.into_inner())
}

/// What is not on a volume is gone with the power, and what the agent clears before a start.
fn clear(world: &DirectWorld, server: &Direct) {
    for entry in std::fs::read_dir(&server.layout().run_dir)
        .unwrap()
        .flatten()
    {
        std::fs::remove_file(entry.path()).unwrap();
    }
    let locks = world.runtime().lock_files(server.host());
    let locks = locks.iter().map(|path| path.display().to_string());
    let words: Vec<String> = ["clear-locks".to_owned()]
        .into_iter()
        .chain(locks)
        .collect();
    tool::run(&words).expect("clear locks that say nothing");
}
