//! PostgreSQL as somebody starts it by hand, with the commands of `SCRIPT`, on volumes of the
//! kind and in the pool that Coffer has its own in.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::namespace::{Namespace, inside};
use crate::process::{Program, stop, tail, wait_closely};

/// What is done by hand, as one would type it: `init DIR TREE UID PORT` makes an empty volume and
/// does initdb and start; `clone DIR TREE UID PORT TEMPLATE [WORD...]` clones a template and
/// starts, with more words.
///
/// DIR lies in the pool that Coffer's own volumes lie in. TREE is the engine root they run from.
/// The volume is of their kind: an XFS in a file behind a loop device with direct I/O and sectors
/// of 4096 bytes. With `init` it is made and mounted first, and nothing more is done until a line
/// comes through DIR/go: what is compared is initdb and start. The process becomes the postmaster,
/// in a mount namespace of its own, so that its end takes everything away but DIR. Files in
/// DIR/files are the engine's own in its `/run`.
const SCRIPT: &str = r#"
set -eu
how=$1 dir=$2 tree=$3 uid=$4 port=$5
mkdir -p "$dir/root"
case $how in
init)
  truncate -s 1G "$dir/volume.img"
  mkfs.xfs -q -f -s size=4096 -m reflink=1 -d agcount=2 "$dir/volume.img"
  ;;
clone)
  cp --reflink=auto "$6" "$dir/volume.img"
  shift
  ;;
esac
shift 5
device=$(losetup --find --show --direct-io=on --sector-size 4096 "$dir/volume.img")
mount --bind "$tree" "$dir/root"
mount -o nouuid,discard "$device" "$dir/root/data"
losetup --detach "$device" # when it is unmounted
mount -t tmpfs tmpfs "$dir/root/run"
mount -t tmpfs tmpfs "$dir/root/tmp"
mount --bind /dev "$dir/root/dev"
mount -t tmpfs -o mode=1777 tmpfs "$dir/root/dev/shm"
echo "engine:x:$uid:$uid::/:/bin/sh" >"$dir/passwd" # initdb looks itself up
mount --bind "$dir/passwd" "$dir/root/etc/passwd"
data=/data/engine/pgdata
mkdir -p "$dir/root/data/engine"
chown -R "$uid:$uid" "$dir/root/data/engine"
printf 'local all all trust\nhost all all 127.0.0.1/32 trust\n' >"$dir/root/run/hba"
chmod 0644 "$dir/root/run/hba"
if [ -d "$dir/files" ]; then
  cp "$dir"/files/* "$dir/root/run/"
  chown -R "$uid:$uid" "$dir/root/run"
  chmod 0600 "$dir"/root/run/*
fi
version=$(ls "$dir/root/usr/lib/postgresql")
bin=/usr/lib/postgresql/$version/bin
as="chroot --userspec=$uid:$uid $dir/root"
export LC_ALL=C.UTF-8 TZ=UTC PATH=/usr/bin:/bin:/usr/sbin:/sbin
if [ "$how" = init ]; then
  mkfifo "$dir/go.new"
  mv "$dir/go.new" "$dir/go"
  read -r _ <"$dir/go"
  $as "$bin/initdb" -D $data -U coffer -E UTF8 --locale=C.UTF-8 --locale-provider=builtin \
    --builtin-locale=C.UTF-8 --data-checksums --auth=trust >/dev/null
fi
exec $as "$bin/postgres" -D $data -c "port=$port" -c listen_addresses=127.0.0.1 \
  -c hba_file=/run/hba -c unix_socket_directories=/tmp -c wal_level=replica -c summarize_wal=on "$@"
"#;

/// A user that nobody is.
const UID: &str = "61817";
/// Longest time for anything by hand.
const LIMIT: Duration = Duration::from_secs(60);
/// How often it is looked whether it answers.
const PACE: Duration = Duration::from_millis(5);

/// Where PostgreSQL can be started by hand.
#[derive(Debug, Clone)]
pub struct Ground {
    /// The pool that Coffer's volumes lie in.
    pool: PathBuf,
    /// The template that its volumes begin as.
    template: String,
    /// The engine root that they run from.
    tree: String,
}

/// A PostgreSQL by hand; ended and removed when dropped.
#[derive(Debug)]
pub struct ByHand {
    child: Child,
    dir: PathBuf,
    port: u16,
}

impl Ground {
    /// That of the Coffer in this state directory, which has made an instance before.
    pub fn of(state: &Path) -> Result<Self> {
        // In mode `cow` the pool is mounted in Coffer's own directory.
        let pools = ["local/pool", "pool"].map(|dir| state.join(dir));
        let found = pools
            .into_iter()
            .find_map(|pool| Some((template_in(&pool)?, pool)));
        let (template, pool) = found.context("find the pool with the template")?;
        let name = template.file_name().unwrap_or_default().to_string_lossy();
        let (root, _) = name.split_once('-').context("read the template's name")?;
        Ok(Self {
            template: template.display().to_string(),
            tree: format!("/var/cache/coffer/roots/{root}/tree"),
            pool,
        })
    }

    /// An empty volume; initdb and start wait for [`ByHand::go`].
    pub fn init(&self, name: &str) -> Result<ByHand> {
        let hand = self.start(None, "init", name, free_port()?, &[])?;
        let go = hand.dir.join("go");
        wait_closely("a volume by hand", LIMIT, PACE, || {
            Ok(go.exists().then_some(()))
        })
        .with_context(|| hand.said())?;
        Ok(hand)
    }

    /// A clone of the template, and start.
    pub fn clone_template(&self, name: &str) -> Result<ByHand> {
        self.start(None, "clone", name, free_port()?, &[&self.template])
    }

    /// The same in a namespace, with files beside it (in its `/run`) and more settings.
    pub fn clone_in(
        &self,
        namespace: &Namespace,
        name: &str,
        files: &[(&str, Vec<u8>)],
        settings: &[&str],
    ) -> Result<ByHand> {
        let dir = self.pool.join(format!("by-hand-{name}/files"));
        fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        for (file, content) in files {
            fs::write(dir.join(file), content).with_context(|| format!("write {file}"))?;
        }
        let words = [&[self.template.as_str()], settings].concat();
        self.start(Some(namespace), "clone", name, 5432, &words)
    }

    fn start(
        &self,
        namespace: Option<&Namespace>,
        how: &str,
        name: &str,
        port: u16,
        more: &[&str],
    ) -> Result<ByHand> {
        let dir = self.pool.join(format!("by-hand-{name}"));
        fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        let (at, number) = (dir.display().to_string(), port.to_string());
        let shell = ["unshare", "--mount", "--propagation", "private", "sh"];
        let words = ["-c", SCRIPT, "by-hand", how, &at, &self.tree, UID, &number];
        let words = [&shell[..], &words[..], more].concat();
        let program = match namespace {
            Some(namespace) => inside(&namespace.path(), &words),
            None => Program::new(words[0], &words[1..]),
        };
        let child = program.start(&dir.join("log"))?;
        Ok(ByHand { child, dir, port })
    }
}

impl ByHand {
    /// Lets initdb begin.
    pub fn go(&self) -> Result<()> {
        fs::write(self.dir.join("go"), "\n").context("let initdb begin")
    }

    /// Waits until it answers a query, over loopback in this namespace.
    pub fn answered(&mut self) -> Result<()> {
        let port = self.port;
        // Cheaper than a client, as long as nobody listens.
        let is_there = move || TcpStream::connect(("127.0.0.1", port)).is_ok();
        self.until_answer(is_there, |words| Program::new(words[0], &words[1..]))
    }

    /// Waits until it answers a query, over loopback in another namespace.
    pub fn answered_in(&mut self, namespace: &Namespace) -> Result<()> {
        self.until_answer(|| true, |words| namespace.program(words))
    }

    fn until_answer(
        &mut self,
        is_there: impl Fn() -> bool,
        program: impl Fn(&[&str]) -> Program,
    ) -> Result<()> {
        let child = &mut self.child;
        let line = format!(
            "host=127.0.0.1 port={} user=coffer dbname=template1",
            self.port
        );
        let words = ["psql", "-X", "-q", "-At", "-d", &line, "-c", "SELECT 1"];
        let answered = wait_closely("an answer by hand", LIMIT, PACE, || {
            if let Some(status) = child.try_wait().context("look at a process")? {
                bail!("it ended with {status}");
            }
            Ok((is_there() && program(&words).succeeds()).then_some(()))
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

fn template_in(pool: &Path) -> Option<PathBuf> {
    let mut paths = fs::read_dir(pool.join("templates"))
        .ok()?
        .flatten()
        .map(|entry| entry.path());
    paths.find(|path| path.extension().is_some_and(|end| end == "img"))
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
    Ok(listener.local_addr().context("read a port")?.port())
}
