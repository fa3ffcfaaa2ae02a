//! Engine roots: a build that is killed leaves nothing that is taken for a root, and the next one
//! comes to its end; the roots of a suite share its base; a root in use is not removed.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use coffer_testkit::counts::is_soak;
use e2e::coffer::{Coffer, binary};
use e2e::run::{Ended, Program};

/// Two small roots of one suite: their names, each that of its one package.
const NAMES: [&str; 2] = ["ed", "tree"];
/// What ten versions may take on disk; unit: bytes.
const ALL_BYTES_MAX: u64 = 2_500_000_000;
/// The least that a root has in common with its base; unit: bytes.
const SHARED_BYTES_MIN: u64 = 60_000_000;

/// A directory of roots of its own, and recipes.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("coffer-roots-")
            .tempdir_in("/var/tmp")?;
        for name in NAMES {
            let text = format!(
                "name = \"{name}\"\nengine = \"postgresql\"\nversion = \"0\"\n\
                 suite = \"bookworm\"\npackages = [\"{name}\"]\n\
                 excludes = [\"/usr/share/doc/*\", \"/usr/share/man/*\"]\n"
            );
            std::fs::write(dir.path().join(format!("{name}.toml")), text)?;
        }
        Ok(Self { dir })
    }

    fn words(&self, verb: &[&str]) -> Vec<String> {
        let at = |name: &str| self.dir.path().join(name).display().to_string();
        let roots = format!("local.roots_dir={}", at("roots"));
        let mut words = vec!["image".to_owned(), "--state-dir".to_owned(), at("state")];
        words.extend(["--set".to_owned(), roots]);
        words.extend(verb.iter().map(|&word| word.to_owned()));
        words
    }

    fn run(&self, verb: &[&str]) -> Result<Ended> {
        let coffer = binary("coffer")?.display().to_string();
        Program::new(&coffer, self.words(verb))
            .limit_seconds(300)
            .run()
    }

    fn recipe(&self, name: &str) -> String {
        let path = self.dir.path().join(format!("{name}.toml"));
        path.display().to_string()
    }

    fn roots(&self) -> PathBuf {
        self.dir.path().join("roots")
    }

    /// Builds a root; what it told on the way, and its checksum.
    fn build(&self, name: &str) -> Result<(String, String)> {
        let built = self.run(&["build", &self.recipe(name)])?;
        Ok((built.err.clone(), built.ok()?.trim().to_owned()))
    }

    /// Starts a build and kills it as a power cut would, when it says this. Nothing is taken for a
    /// root then.
    fn kill_at(&self, said: &str) -> Result<()> {
        self.kill_when_it_says(said)?;
        let listed = self.listed()?;
        ensure!(listed == serde_json::json!([]), "half a root: {listed}");
        Ok(())
    }

    fn kill_when_it_says(&self, said: &str) -> Result<()> {
        let mut child = self.begin()?;
        let out = child.stderr.take().context("its output is a pipe")?;
        let mut lines = BufReader::new(out)
            .lines()
            .map_while(std::result::Result::ok);
        let is_said = lines.any(|line| line.contains(said));
        child.kill().context("kill the build")?;
        child.wait().context("wait for the build")?;
        ensure!(is_said, "the build never said '{said}'");
        Ok(())
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "what is killed has to be a child"
    )]
    fn begin(&self) -> Result<Child> {
        Command::new(binary("coffer")?)
            .args(self.words(&["build", &self.recipe(NAMES[0])]))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("start a build")
    }

    fn listed(&self) -> Result<serde_json::Value> {
        let coffer = binary("coffer")?.display().to_string();
        let words = ["--json".to_owned()]
            .into_iter()
            .chain(self.words(&["list"]));
        Program::new(&coffer, words).run()?.json()
    }
}

#[test]
fn a_killed_build_is_taken_up_and_a_suite_has_one_base() -> Result<()> {
    let place = Place::new()?;
    place.kill_at("base-bookworm: installing")?;
    // Again, at the end this time: what was bootstrapped is whole, and only not yet in its place.
    place.kill_at("base-bookworm: removing what belongs to no instance")?;
    // Now two roots at once over what is there of their base, and one of them is killed as well.
    let (first, second) = std::thread::scope(|scope| {
        let beside = scope.spawn(|| place.build(NAMES[1]));
        let killed = place.kill_when_it_says(&format!("{}: installing", place.recipe(NAMES[0])));
        let second = beside.join().expect("a build reports, and does not panic");
        (killed, second)
    });
    first?;
    let (told, second) = second?;
    ensure!(
        !told.contains("base-bookworm: installing"),
        "the base was bootstrapped twice: {told}"
    );
    ensure!(told.contains("checksumming"), "no progress: {told}");
    place.kill_when_it_says("removing what belongs to no instance")?;
    ensure!(place.listed()?.as_array().is_some_and(|all| all.len() == 1));
    let (told, first) = place.build(NAMES[0])?;
    ensure!(!told.contains("installing"), "it was done twice: {told}");
    let again = place.run(&["build", &place.recipe(NAMES[0])])?;
    ensure!(again.clone().ok()?.trim() == first, "{again:?}");
    ensure!(again.err.is_empty(), "built again: {again:?}");
    let left = leftovers(&place.roots())?;
    ensure!(left.is_empty(), "left of the killed builds: {left:?}");

    share_one_base(&place, [&first, &second])?;
    mend_what_is_shared(&place, [&first, &second])?;
    place.run(&["remove", NAMES[0]])?.ok()?;
    place
        .run(&["verify", &second])?
        .ok()
        .err()
        .context("it is damaged still")?;
    place.run(&["remove", NAMES[1]])?.ok()?;
    ensure!(place.listed()? == serde_json::json!([]));
    let bases = bases(&place.roots())?;
    ensure!(
        bases.is_empty(),
        "a base goes with its last root: {bases:?}"
    );
    let kept = std::fs::read_dir(place.roots().join(".packages"))?.count();
    ensure!(kept == 0, "and the suite's package files with it");
    Ok(())
}

/// The roots have their base's files, and each what it installed.
fn share_one_base(place: &Place, roots: [&str; 2]) -> Result<()> {
    let bases = bases(&place.roots())?;
    ensure!(bases.len() == 1, "one suite, one base: {bases:?}");
    for (root, name) in roots.into_iter().zip(NAMES) {
        place.run(&["verify", root])?.ok()?;
        let tree = place.roots().join(root).join("tree");
        ensure!(tree.join("usr/bin").join(name).exists(), "{name}");
        ensure!(
            inode(&tree.join("usr/bin/dpkg"))? == inode(&bases[0].join("tree/usr/bin/dpkg"))?,
            "what was left as it was is the base's own file"
        );
    }
    let own = on_disk(&bases[0..1])?;
    let all = on_disk(&[place.roots()])?;
    let packages = on_disk(&[place.roots().join(".packages")])?;
    ensure!(
        packages > 10_000_000,
        "fetched packages are kept: {packages}"
    );
    ensure!(
        all - packages < own + own / 3,
        "{all} bytes, {own} of them the base, {packages} packages"
    );
    Ok(())
}

/// Damage to a shared file is found in both roots; building one of them mends that one.
fn mend_what_is_shared(place: &Place, roots: [&str; 2]) -> Result<()> {
    let file = place.roots().join(roots[1]).join("tree/usr/bin/dpkg");
    let length = std::fs::metadata(&file)?.len();
    std::fs::write(&file, vec![0; usize::try_from(length)?])?;
    for root in roots {
        let verified = place.run(&["verify", root])?;
        ensure!(
            verified.code != 0 && verified.err.contains("/usr/bin/dpkg was changed"),
            "{verified:?}"
        );
    }
    let (told, mended) = place.build(NAMES[0])?;
    ensure!(mended == roots[0], "the same packages make the same root");
    ensure!(told.contains("base-bookworm: installing"), "{told}");
    place.run(&["verify", roots[0]])?.ok()?;
    Ok(())
}

#[test]
fn all_roots_of_this_machine_are_small() -> Result<()> {
    let shared = Path::new("/var/cache/coffer/roots");
    let (mut counted, mut names) = (Vec::new(), Vec::new());
    for link in std::fs::read_dir(shared.join(".recipes"))?.flatten() {
        let Ok(root) = std::fs::canonicalize(link.path()) else {
            continue;
        };
        let text = std::fs::read(root.join("manifest.json"))?;
        let manifest: serde_json::Value = serde_json::from_slice(&text)?;
        // What an older Coffer built stands alone.
        let Some(base) = manifest["base"].as_str() else {
            continue;
        };
        let same = manifest["shared_bytes"].as_u64().unwrap_or(0);
        ensure!(same >= SHARED_BYTES_MIN, "{manifest}");
        counted.extend([root, shared.join(".bases").join(base)]);
        let name = manifest["recipe"]["name"].as_str();
        names.push(name.context("a manifest names its recipe")?.to_owned());
    }
    ensure!(!names.is_empty(), "no root is built here");
    let all = recipes()?;
    let missing: Vec<_> = all.iter().filter(|name| !names.contains(name)).collect();
    // The soak builds them all first; a run of the tests has one of each engine.
    ensure!(!is_soak() || missing.is_empty(), "not built: {missing:?}");
    let bytes = on_disk(&counted)?;
    let (there, wanted) = (all.len() - missing.len(), all.len());
    println!("{bytes} bytes for {there} of {wanted} versions; not here: {missing:?}");
    ensure!(bytes < ALL_BYTES_MAX, "{bytes} bytes for {names:?}");
    Ok(())
}

/// Names of the project's recipes.
fn recipes() -> Result<Vec<String>> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../images");
    let paths = std::fs::read_dir(dir)?.flatten().map(|entry| entry.path());
    let recipes = paths.filter(|path| path.extension().is_some_and(|e| e == "toml"));
    let name = |path: PathBuf| Some(path.file_stem()?.to_str()?.to_owned());
    Ok(recipes.filter_map(name).collect())
}

/// Working directories among the roots.
fn leftovers(roots: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for dir in [roots.to_owned(), roots.join(".bases")] {
        let entries = std::fs::read_dir(dir)?.flatten();
        names.extend(entries.map(|entry| entry.file_name().to_string_lossy().into_owned()));
    }
    names.retain(|n| n.starts_with(".build") || n.starts_with(".removed"));
    Ok(names)
}

/// Directories of whole bases.
fn bases(roots: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(roots.join(".bases"))?.flatten();
    let paths = entries.map(|entry| entry.path());
    Ok(paths.filter(|path| path.join("tree").is_dir()).collect())
}

fn inode(file: &Path) -> Result<u64> {
    Ok(std::fs::metadata(file)?.ino())
}

/// What directories take on disk together, a file with several names once.
fn on_disk(dirs: &[PathBuf]) -> Result<u64> {
    let words = ["-s", "-c", "-B1"].map(str::to_owned).into_iter();
    let words = words.chain(dirs.iter().map(|dir| dir.display().to_string()));
    let told = Program::new("du", words).run()?.ok()?;
    let last = told.lines().last().context("du says nothing")?;
    let number = last.split_whitespace().next().context("du says a number")?;
    Ok(number.parse()?)
}

#[test]
fn a_root_in_use_is_not_removed() -> Result<()> {
    let coffer = Coffer::start()?;
    let db = coffer.create("db1")?;
    let dir = coffer.dir().display().to_string();
    let remove = || coffer.coffer(&["image", "--state-dir", &dir, "remove", "postgresql-17"]);
    let refused = remove()?;
    let names_it = refused.err.contains(&format!("instance db1 ({})", db.id));
    ensure!(refused.code != 0 && names_it, "{refused:?}");
    // It is the store that knows: also when nothing runs.
    ensure!(
        refused.err.contains("delete what uses it first"),
        "{refused:?}"
    );
    db.psql("SELECT 1")?.ok()?;
    Ok(())
}
