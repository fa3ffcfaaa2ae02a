//! Engines as somebody starts them by hand, with the commands that stand here and beside each
//! engine in `engine.rs`, on volumes of the kind and in the pool that Coffer has its own in.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::client::{Client, Entry, Place, with_password};
use super::engine::{Engine, tree_of};
use super::namespace::{Namespace, inside};
use super::running::Likeness;
use crate::leftovers::names;
use crate::process::{Program, stop, tail, wait_closely};

/// What is done by hand, as one would type it: `init DIR TREE UID PORT GIB` makes an empty volume
/// and does what the engine does for an empty directory; `clone DIR TREE UID PORT GIB TEMPLATE
/// [WORD...]` clones a template and starts, with more words. The engine's own words come after it,
/// then [`START`].
///
/// DIR lies in the pool that Coffer's own volumes lie in. TREE is the engine root they run from.
/// The volume is of their kind: an XFS in a file behind a loop device with direct I/O and sectors
/// of 4096 bytes. With `init` it is made and mounted first, and nothing more is done until a line
/// comes through DIR/go: what is compared is the engine's own making and start. The process becomes
/// the server, in a mount namespace of its own, so that its end takes everything away but DIR.
/// Files in DIR/files are the engine's own in its `/run`.
const PREPARE: &str = r#"
set -eu
# A kernel without groups of sessions weighs processes one by one.
[ -z "${AUTOGROUP:-}" ] || echo "$AUTOGROUP" >/proc/self/autogroup || true
how=$1 dir=$2 tree=$3 uid=$4 port=$5 gib=$6
mkdir -p "$dir/root"
case $how in
init)
  truncate -s "${gib}G" "$dir/volume.img"
  mkfs.xfs -q -f -s size=4096 -m reflink=1 -d agcount=2 "$dir/volume.img"
  ;;
clone)
  cp --reflink=auto "$7" "$dir/volume.img"
  truncate -s "${gib}G" "$dir/volume.img"
  shift
  ;;
esac
shift 6
device=$(losetup --find --show --direct-io=on --sector-size 4096 "$dir/volume.img")
mount --bind "$tree" "$dir/root"
mount -o nouuid,discard "$device" "$dir/root/data"
losetup --detach "$device" # when it is unmounted
[ "$gib" = 1 ] || xfs_growfs "$dir/root/data" >/dev/null
mount -t tmpfs tmpfs "$dir/root/run"
mount -t tmpfs tmpfs "$dir/root/tmp"
mount --bind /dev "$dir/root/dev"
mount -t tmpfs -o mode=1777 tmpfs "$dir/root/dev/shm"
mount --bind /proc "$dir/root/proc"
echo "engine:x:$uid:$uid::/:/bin/sh" >"$dir/passwd" # initdb looks itself up
mount --bind "$dir/passwd" "$dir/root/etc/passwd"
mkdir -p "$dir/root/data/engine"
chown -R "$uid:$uid" "$dir/root/data/engine"
if [ -d "$dir/files" ]; then
  cp "$dir"/files/* "$dir/root/run/"
  chown -R "$uid:$uid" "$dir/root/run"
  chmod 0600 "$dir"/root/run/*
fi
as="chroot --userspec=$uid:$uid $dir/root"
export LC_ALL=C.UTF-8 TZ=UTC PATH=/usr/bin:/bin:/usr/sbin:/sbin
"#;

/// The variable that tells how its session weighs against others, as `nice` does, and the value
/// with which it weighs as two processors. An instance weighs its flavor's processors against the
/// clients beside it, and to be like one is to be weighed alike.
const WEIGHT: &str = "AUTOGROUP";
const AS_TWO: &str = "-3";

/// What comes last.
const START: &str = r#"
if [ "$how" = init ]; then
  mkfifo "$dir/go.new"
  mv "$dir/go.new" "$dir/go"
  read -r _ <"$dir/go"
  init
fi
serve "$@"
"#;

/// A user that nobody is.
const UID: &str = "61817";
/// Longest time for anything by hand.
const LIMIT: Duration = Duration::from_secs(60);
/// How often it is looked whether it answers.
const PACE: Duration = Duration::from_millis(5);

/// Where an engine can be started by hand.
#[derive(Debug, Clone)]
pub struct Ground {
    /// The pool that Coffer's volumes lie in.
    pool: PathBuf,
    /// The template that its volumes begin as.
    template: String,
    /// The engine, and the root that they run from.
    client: Client,
}

/// An engine by hand; ended and removed when dropped.
#[derive(Debug)]
pub struct ByHand {
    child: Child,
    dir: PathBuf,
    port: u16,
    client: Client,
}

impl Ground {
    /// That of the Coffer in this state directory, which has made an instance of the engine before.
    pub fn of(state: &Path, engine: &'static Engine) -> Result<Self> {
        // In mode `cow` the pool is mounted in Coffer's own directory.
        let pools = ["local/pool", "pool"].map(|dir| state.join(dir));
        let found = pools
            .into_iter()
            .find_map(|pool| Some((template_in(&pool, engine)?, pool)));
        let ((template, root), pool) = found.context("find the pool with the template")?;
        let tree = tree_of(&root);
        Ok(Self {
            template: template.display().to_string(),
            client: Client { engine, tree },
            pool,
        })
    }

    /// An empty volume; making the directory and start wait for [`ByHand::go`].
    pub fn init(&self, name: &str) -> Result<ByHand> {
        let hand = self.start(None, name, free_port()?, &["init", "1"])?;
        let go = hand.dir.join("go");
        wait_closely("a volume by hand", LIMIT, PACE, || {
            Ok(go.exists().then_some(()))
        })
        .with_context(|| hand.said())?;
        Ok(hand)
    }

    /// A clone of the template, and start.
    pub fn clone_template(&self, name: &str) -> Result<ByHand> {
        self.start(None, name, free_port()?, &["clone", "1", &self.template])
    }

    /// The same in a namespace, and like an instance, at the port that the engine's instances have.
    pub fn clone_in(
        &self,
        namespace: &Namespace,
        name: &str,
        likeness: &Likeness,
    ) -> Result<ByHand> {
        let dir = self.pool.join(format!("by-hand-{name}/files"));
        fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        for (file, content) in &likeness.files {
            fs::write(dir.join(file), content).with_context(|| format!("write {file}"))?;
        }
        let gib = likeness.volume_gib.to_string();
        let own = likeness.words.iter().map(String::as_str);
        let words = ["clone", &gib, &self.template].into_iter().chain(own);
        let port = self.client.engine.port;
        self.start(Some(namespace), name, port, &words.collect::<Vec<_>>())
    }

    /// Starts it: `how` is what is done, the size of the volume, and what belongs to it.
    fn start(
        &self,
        namespace: Option<&Namespace>,
        name: &str,
        port: u16,
        how: &[&str],
    ) -> Result<ByHand> {
        let [how, gib, more @ ..] = how else {
            bail!("what is done by hand was not said");
        };
        let dir = self.pool.join(format!("by-hand-{name}"));
        fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        let (at, port_word) = (dir.display().to_string(), port.to_string());
        let tree = self.client.tree.display().to_string();
        let script = format!("{PREPARE}{}{START}", self.client.engine.by_hand);
        let shell = ["unshare", "--mount", "--propagation", "private", "sh"];
        let words = [
            "-c", &script, "by-hand", how, &at, &tree, UID, &port_word, gib,
        ];
        let words = [&shell[..], &words[..], more].concat();
        let program = match namespace {
            Some(namespace) => inside(&namespace.path(), &words).with(WEIGHT, AS_TWO),
            None => Program::new(words[0], &words[1..]),
        };
        let child = program.start(&dir.join("log"))?;
        let client = self.client.clone();
        Ok(ByHand {
            child,
            dir,
            port,
            client,
        })
    }
}

impl ByHand {
    /// Lets the making of the directory begin.
    pub fn go(&self) -> Result<()> {
        fs::write(self.dir.join("go"), "\n").context("let it begin")
    }

    /// Waits until it answers a query, over loopback in this namespace.
    pub fn answered(&mut self) -> Result<()> {
        let port = self.port;
        // Cheaper than a client, as long as nobody listens.
        let is_there = move || TcpStream::connect(("127.0.0.1", port)).is_ok();
        let program = |words: &[&str]| Program::new(words[0], &words[1..]);
        self.until_answer(Entry::Open, is_there, program)
    }

    /// Waits until it answers a query, over loopback in another namespace.
    pub fn answered_in(&mut self, namespace: &Namespace, entry: Entry<'_>) -> Result<()> {
        self.until_answer(entry, || true, |words| namespace.program(words))
    }

    fn until_answer(
        &mut self,
        entry: Entry<'_>,
        is_there: impl Fn() -> bool,
        program: impl Fn(&[&str]) -> Program,
    ) -> Result<()> {
        let place = Place {
            address: "127.0.0.1",
            port: self.port,
            entry,
        };
        let words = self.client.question(place, &self.dir)?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (child, client) = (&mut self.child, &self.client);
        let is_answered = || {
            let said = with_password(program(&words)).output();
            said.is_ok_and(|said| client.is_answer(&said))
        };
        let answered = wait_closely("an answer by hand", LIMIT, PACE, || {
            if let Some(status) = child.try_wait().context("look at a process")? {
                bail!("it ended with {status}");
            }
            Ok((is_there() && is_answered()).then_some(()))
        });
        answered.with_context(|| self.said())
    }

    /// The end of what it said.
    pub fn said(&self) -> String {
        tail(&self.dir.join("log"))
    }

    /// Ends it and removes its files.
    pub fn remove(mut self) -> Result<()> {
        self.take_away()
    }

    fn take_away(&mut self) -> Result<()> {
        stop(&mut self.child, LIMIT)?;
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", self.dir.display()))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for ByHand {
    fn drop(&mut self) {
        // After a failure; `remove` tells of mistakes.
        let _ = self.take_away();
    }
}

/// The engine's template in a pool, and the root that it is of.
fn template_in(pool: &Path, engine: &Engine) -> Option<(PathBuf, String)> {
    let templates = pool.join("templates");
    let mut names = names(&templates).into_iter();
    names.find_map(|name| {
        let (root, _) = name.strip_suffix(".img")?.split_once('-')?;
        let found = engine.is_of(root).then(|| root.to_owned())?;
        Some((templates.join(&name), found))
    })
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
    Ok(listener.local_addr().context("read a port")?.port())
}
