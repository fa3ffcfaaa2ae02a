//! The Debian package: staged from what was built, made by dpkg-deb, and looked at by those who
//! would have to install it. `packaging/` holds what goes into it beside the programs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::process::Program;
use crate::{built, runners};

/// Programs that are shipped.
const PROGRAMS: [&str; 2] = ["coffer", "coffer-guest"];
/// Documents that go along, from the top of the tree.
const DOCUMENTS: [&str; 9] = [
    "README.md",
    "ARCHITECTURE.md",
    "docs/comparison.md",
    "docs/config.md",
    "docs/dependencies.md",
    "docs/engines.md",
    "docs/operations.md",
    "docs/security.md",
    "docs/upgrades.md",
];
/// Scripts that dpkg runs.
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// Builds the programs and the package; gives the package's path.
pub fn run(root: &Path) -> Result<PathBuf> {
    let dir = built()?.join("package");
    runners::build(root, &dir.with_extension("build.log"))?;
    make(root, &dir)
}

/// Makes the package of what is built, in this directory, which is emptied.
fn make(root: &Path, dir: &Path) -> Result<PathBuf> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("empty {}", dir.display()))?;
    }
    let tree = dir.join("tree");
    let packaging = root.join("packaging");
    for program in PROGRAMS {
        let target = tree.join("usr/bin").join(program);
        put(&built()?.join(program), &target, 0o755)?;
        let path = target.display().to_string();
        let words = ["--remove-section=.comment", "--remove-section=.note", &path];
        Program::new("strip", &words).output()?;
    }
    let systemd = packaging.join("systemd");
    put_below(&systemd, &tree.join("usr/lib/systemd/system"))?;
    put(
        &packaging.join("coffer.toml"),
        &tree.join("etc/coffer/coffer.toml"),
        0o644,
    )?;
    let doc = tree.join("usr/share/doc/coffer");
    for document in DOCUMENTS {
        let name = Path::new(document)
            .file_name()
            .context("a document has a name")?;
        put(&root.join(document), &doc.join(name), 0o644)?;
    }
    let debian = packaging.join("debian");
    put(&debian.join("copyright"), &doc.join("copyright"), 0o644)?;
    let overrides = tree.join("usr/share/lintian/overrides/coffer");
    put(&debian.join("lintian-overrides"), &overrides, 0o644)?;
    changelog(&debian, &doc)?;
    control(&debian, &tree)?;
    let package = dir.join(format!("coffer_{}_{}.deb", version(), architecture()?));
    let [tree, out] = [&tree, &package].map(|path| path.display().to_string());
    let words = ["--build", "--root-owner-group", "-Zxz", "-z1", &tree, &out];
    Program::new("dpkg-deb", &words).output()?;
    Ok(package)
}

fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

fn architecture() -> Result<String> {
    let printed = Program::new("dpkg", &["--print-architecture"]).output()?;
    Ok(printed.trim().to_owned())
}

fn put(from: &Path, to: &Path, mode: u32) -> Result<()> {
    if let Some(dir) = to.parent() {
        make_dirs(dir)?;
    }
    fs::copy(from, to).with_context(|| format!("copy {}", from.display()))?;
    set_mode(to, mode)
}

/// Directories that are readable for all, whatever the mask of whoever packs.
fn make_dirs(dir: &Path) -> Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(above) = dir.parent() {
        make_dirs(above)?;
    }
    fs::create_dir(dir).with_context(|| format!("make {}", dir.display()))?;
    set_mode(dir, 0o755)
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    let mode = fs::Permissions::from_mode(mode);
    fs::set_permissions(path, mode).with_context(|| format!("set the mode of {}", path.display()))
}

fn put_below(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("list {}", from.display()))? {
        let path = entry?.path();
        let target = to.join(path.file_name().context("an entry has a name")?);
        match path.is_dir() {
            true => put_below(&path, &target)?,
            false => put(&path, &target, 0o644)?,
        }
    }
    Ok(())
}

fn filled(path: &Path, size_kib: u64) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    Ok(text
        .replace("@VERSION@", version())
        .replace("@ARCHITECTURE@", &architecture()?)
        .replace("@SIZE@", &size_kib.to_string()))
}

fn changelog(debian: &Path, doc: &Path) -> Result<()> {
    let path = doc.join("changelog");
    fs::write(&path, filled(&debian.join("changelog"), 0)?)?;
    set_mode(&path, 0o644)?;
    let name = path.display().to_string();
    Program::new("gzip", &["-9n", &name]).output().map(drop)
}

fn control(debian: &Path, tree: &Path) -> Result<()> {
    let mut files = Vec::new();
    files_below(tree, &mut files)?;
    files.sort();
    let mut size = 0;
    let mut sums = String::new();
    for file in &files {
        size += fs::metadata(file)?.len().div_ceil(1024);
        let path = file.display().to_string();
        let printed = Program::new("md5sum", &[&path]).output()?;
        let sum = printed.split(' ').next().context("md5sum prints a sum")?;
        let name = file.strip_prefix(tree)?.display();
        sums.push_str(&format!("{sum}  {name}\n"));
    }
    let to = tree.join("DEBIAN");
    make_dirs(&to)?;
    fs::write(to.join("control"), filled(&debian.join("control"), size)?)?;
    fs::write(to.join("md5sums"), sums)?;
    for name in ["control", "md5sums"] {
        set_mode(&to.join(name), 0o644)?;
    }
    put(&debian.join("conffiles"), &to.join("conffiles"), 0o644)?;
    for script in SCRIPTS {
        put(&debian.join(script), &to.join(script), 0o755)?;
    }
    Ok(())
}

fn files_below(dir: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry?.path();
        match path.is_dir() {
            true => files_below(&path, found)?,
            false => found.push(path),
        }
    }
    Ok(())
}

/// Makes the package of what is built, and lets systemd, lintian and dpkg look at it; gives how
/// many looked.
pub fn check(root: &Path, log: &Path) -> Result<u64> {
    let dir = built()?.join("package");
    let package = make(root, &dir)?;
    units(&dir, &package, log)?;
    lintian(&dir, &package, log)?;
    install(&dir, &package, log)?;
    Ok(3)
}

/// The units, with the programs where they were built: systemd wants them to be there.
fn units(dir: &Path, _package: &Path, log: &Path) -> Result<()> {
    let (from, to) = (dir.join("tree/usr/lib/systemd/system"), dir.join("units"));
    put_below(&from, &to)?;
    let program = built()?.join("coffer").display().to_string();
    let mut names = Vec::new();
    for entry in fs::read_dir(&to)? {
        let path = entry?.path();
        if !path.is_file() {
            continue;
        }
        let text = fs::read_to_string(&path)?.replace("/usr/bin/coffer", &program);
        fs::write(&path, text)?;
        let name = path.display().to_string();
        names.push(name.replace("coffer@.service", "coffer@api.service"));
    }
    // A template is looked at as one of its instances.
    fs::rename(to.join("coffer@.service"), to.join("coffer@api.service"))?;
    let words: Vec<&str> = ["verify", "--man=no", "--recursive-errors=no"]
        .into_iter()
        .chain(names.iter().map(String::as_str))
        .collect();
    Program::new("systemd-analyze", &words)
        .logged(log)
        .context("systemd finds fault with the units")?;
    let said = fs::read_to_string(log).unwrap_or_default();
    let ours: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("coffer"))
        .collect();
    ensure!(ours.is_empty(), "systemd says of the units: {ours:#?}");
    Ok(())
}

fn lintian(_dir: &Path, package: &Path, log: &Path) -> Result<()> {
    let path = package.display().to_string();
    let words = [
        "--allow-root",
        "--fail-on",
        "error,warning",
        "--suppress-tags",
    ];
    // Debian's own release names and standards are no concern of a package made outside it.
    let words = [&words[..], &["bad-distribution-in-changes-file", &path]].concat();
    Program::new("lintian", &words)
        .logged(log)
        .context("lintian finds fault with the package")
}

/// Installs it into an empty root, as dpkg does, and removes it: its configuration stays until it
/// is purged, and the state stays after that.
fn install(dir: &Path, package: &Path, log: &Path) -> Result<()> {
    let root = dir.join("root");
    for below in [
        "var/lib/dpkg/info",
        "var/lib/dpkg/updates",
        "var/log",
        "tmp",
    ] {
        fs::create_dir_all(root.join(below))?;
    }
    for file in ["status", "available"] {
        fs::write(root.join("var/lib/dpkg").join(file), "")?;
    }
    let dpkg = |words: &[&str]| {
        let place = format!("--root={}", root.display());
        let base = [
            place.as_str(),
            "--force-depends",
            "--force-script-chrootless",
        ];
        let words: Vec<&str> = base.iter().chain(words).copied().collect();
        Program::new("dpkg", &words).logged(log)
    };
    dpkg(&["--install", &package.display().to_string()]).context("install the package")?;
    for wanted in [
        "usr/bin/coffer",
        "usr/bin/coffer-guest",
        "usr/lib/systemd/system/coffer.service",
        "etc/coffer/coffer.toml",
        "usr/share/doc/coffer/operations.md",
        "var/lib/coffer",
    ] {
        ensure!(root.join(wanted).exists(), "{wanted} was not installed");
    }
    let mode = fs::metadata(root.join("var/lib/coffer"))?
        .permissions()
        .mode();
    ensure!(mode & 0o777 == 0o700, "the state directory is open");
    let (program, config) = (
        root.join("usr/bin/coffer"),
        root.join("etc/coffer/coffer.toml"),
    );
    let words = ["config", "--config", &config.display().to_string()];
    let holds = Program::new(program, &words).output()?;
    ensure!(
        holds.contains("/var/lib/coffer"),
        "the configuration is read: {holds}"
    );
    fs::write(root.join("var/lib/coffer/coffer.db"), "kept")?;
    dpkg(&["--remove", "coffer"]).context("remove the package")?;
    ensure!(config.exists(), "removing it took the configuration");
    dpkg(&["--purge", "coffer"]).context("purge the package")?;
    if config.exists() || !root.join("var/lib/coffer/coffer.db").exists() {
        bail!("a purge takes the configuration and leaves the state");
    }
    Ok(())
}
