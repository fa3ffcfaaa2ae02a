//! Engine roots: a build that is killed leaves nothing that is taken for a root, and the next one
//! comes to its end; a root in use is not removed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use e2e::coffer::{Coffer, binary};
use e2e::run::{Ended, Program};

/// The smallest root that there can be.
const RECIPE: &str = "name = \"smallest\"\nengine = \"postgresql\"\nversion = \"0\"\n\
                      suite = \"bookworm\"\npackages = [\"hostname\"]\n\
                      excludes = [\"/usr/share/doc/*\", \"/usr/share/man/*\"]\n";

/// A directory of roots of its own, and a recipe.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("coffer-roots-")
            .tempdir_in("/var/tmp")?;
        std::fs::write(dir.path().join("smallest.toml"), RECIPE)?;
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

    fn recipe(&self) -> String {
        self.dir.path().join("smallest.toml").display().to_string()
    }

    /// Starts a build and kills it as a power cut would, when it says this.
    fn kill_at(&self, said: &str) -> Result<()> {
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
            .args(self.words(&["build", &self.recipe()]))
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
fn a_killed_build_is_taken_up() -> Result<()> {
    let place = Place::new()?;
    place.kill_at("installing")?;
    ensure!(
        place.listed()? == serde_json::json!([]),
        "half a root is not listed"
    );
    // Again, at the end this time: what was bootstrapped is whole, and only not yet in its place.
    place.kill_at("removing what belongs to no instance")?;
    ensure!(
        place.listed()? == serde_json::json!([]),
        "no root without its checksum"
    );
    let built = place.run(&["build", &place.recipe()])?;
    let told = built.err.clone();
    let checksum = built.ok()?.trim().to_owned();
    ensure!(
        !told.contains("installing"),
        "it was bootstrapped twice: {told}"
    );
    ensure!(
        told.contains("checksumming"),
        "no progress was shown: {told}"
    );
    place.run(&["verify", &checksum])?.ok()?;
    let listed = place.listed()?;
    ensure!(listed[0]["checksum"] == checksum.as_str(), "{listed}");
    let again = place.run(&["build", &place.recipe()])?;
    ensure!(again.clone().ok()?.trim() == checksum, "{again:?}");
    ensure!(
        again.err.is_empty(),
        "what is there is not built again: {again:?}"
    );
    let left = leftovers(&place.dir.path().join("roots"))?;
    ensure!(left.is_empty(), "left of the killed builds: {left:?}");
    place.run(&["remove", "smallest"])?.ok()?;
    ensure!(
        place.listed()? == serde_json::json!([]),
        "a removed root is gone"
    );
    Ok(())
}

/// Working directories among the roots.
fn leftovers(roots: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(roots)?.flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    Ok(names
        .filter(|n| n.starts_with(".build") || n.starts_with(".removed"))
        .collect())
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
