//! The file that a backup of the state is.
//!
//! One line that names the format, eight bytes with the length of the manifest (big endian), the
//! manifest as JSON, every part's bytes in the manifest's order, and the SHA-256 of all before in
//! hexadecimal digits. Each part has its own checksum in the manifest too, so that damage is named.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use coffer_control::passphrase::{Checksum, Stretching};
use coffer_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::refusal::refused;

/// First line of the file; its number grows when an older Coffer could not read it.
const HEAD: &[u8] = b"coffer state backup 1\n";
/// What the name of a backup ends in while it is written, before the writer's process id.
pub(crate) const PART: &str = "coffer-part-";
/// Length of a checksum in digits.
const DIGITS: usize = 64;
/// LIMIT: size of a manifest; unit: bytes.
const MANIFEST_MAX: u64 = 64 << 20;
/// LIMIT: size of a part that is read as a whole; unit: bytes.
const SMALL_MAX: u64 = 16 << 20;

/// What is in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    /// Version of the Coffer that made it.
    pub(crate) made_by: String,
    /// When.
    pub(crate) made_at: Timestamp,
    /// The tag of what this Coffer makes on its host.
    pub(crate) tag: String,
    /// Kind of the store: `sqlite` is within, `postgres` is not.
    pub(crate) store: String,
    /// Schema of the store.
    pub(crate) schema: i64,
    /// Name of the master key that the store needs.
    pub(crate) master_key: String,
    /// How the passphrase becomes the key of the part `sealed`, if there is one.
    pub(crate) stretching: Option<Stretching>,
    /// The parts, in their order.
    pub(crate) parts: Vec<Part>,
}

/// A part of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Part {
    /// Its name: a path below the state directory, or `sealed`, or `config.toml`.
    pub(crate) name: String,
    /// Its length.
    pub(crate) bytes: u64,
    /// Its SHA-256.
    pub(crate) sha256: String,
}

impl Manifest {
    /// What the sealed part is bound to.
    pub(crate) fn purpose(&self) -> String {
        format!("coffer state backup of {} at {}", self.tag, self.made_at)
    }
}

/// What goes into a part.
#[derive(Debug)]
pub(crate) enum Content {
    /// A file.
    File(PathBuf),
    /// Bytes.
    Bytes(Vec<u8>),
}

/// The checksum and length of what comes out of a reader.
fn measure(mut source: impl Read) -> std::io::Result<(String, u64)> {
    let (mut checksum, mut bytes) = (Checksum::default(), 0);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = source.read(&mut buffer)?;
        if count == 0 {
            return Ok((checksum.finish(), bytes));
        }
        checksum.update(&buffer[..count]);
        bytes += u64::try_from(count).unwrap_or(0);
    }
}

/// The entry of a part in the manifest.
pub(crate) fn part(name: &str, content: &Content) -> anyhow::Result<Part> {
    let measured = match content {
        Content::File(path) => File::open(path).and_then(measure),
        Content::Bytes(bytes) => measure(bytes.as_slice()),
    };
    let (sha256, bytes) = measured.with_context(|| format!("read {name} for the backup"))?;
    ensure!(
        bytes <= SMALL_MAX || matches!(content, Content::File(_)),
        "{name} has {bytes} bytes: more than a restore would read"
    );
    Ok(Part {
        name: name.to_owned(),
        bytes,
        sha256,
    })
}

/// Writes through to a file and keeps the checksum.
struct Summing<W> {
    inner: W,
    checksum: Checksum,
}

impl<W: Write> Write for Summing<W> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.checksum.update(&buffer[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// Writes a backup, whole or not at all, readable by its owner only. A file that is there is not
/// overwritten.
pub(crate) fn write(path: &Path, manifest: &Manifest, contents: &[Content]) -> anyhow::Result<()> {
    if path.exists() {
        let shown = path.display();
        return Err(refused(format!(
            "{shown} is there already: name another file"
        )));
    }
    let next = path.with_extension(format!("{PART}{}", std::process::id()));
    let written = write_all(&next, manifest, contents)
        .and_then(|()| fs::hard_link(&next, path).context("give the backup its name"))
        .and_then(|()| sync_dir(path));
    fs::remove_file(&next).ok();
    written.with_context(|| format!("write {}", path.display()))
}

fn write_all(path: &Path, manifest: &Manifest, contents: &[Content]) -> anyhow::Result<()> {
    // Nobody gives it another file to write to: a directory of backups may be open to others.
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let mut out = Summing {
        inner: BufWriter::new(file),
        checksum: Checksum::default(),
    };
    let text = serde_json::to_vec(manifest)?;
    let length = u64::try_from(text.len())?;
    ensure!(length <= MANIFEST_MAX, "its manifest would be too long");
    out.write_all(HEAD)?;
    out.write_all(&length.to_be_bytes())?;
    out.write_all(&text)?;
    for (part, content) in manifest.parts.iter().zip(contents) {
        let copied = match content {
            Content::File(path) => std::io::copy(&mut File::open(path)?, &mut out)?,
            Content::Bytes(bytes) => std::io::copy(&mut bytes.as_slice(), &mut out)?,
        };
        ensure!(
            copied == part.bytes,
            "{} changed while it was read",
            part.name
        );
    }
    let Summing {
        mut inner,
        checksum,
    } = out;
    inner.write_all(checksum.finish().as_bytes())?;
    let file = inner.into_inner().map_err(|e| e.into_error())?;
    Ok(file.sync_all()?)
}

/// Makes the names in the directory of `path` last.
pub(crate) fn sync_dir(path: &Path) -> anyhow::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let dir = dir.unwrap_or_else(|| Path::new("."));
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.with_context(|| format!("write {}", dir.display()))
}

/// A backup whose checksums were found right.
#[derive(Debug)]
pub(crate) struct Bundle {
    pub(crate) manifest: Manifest,
    file: File,
    /// Where the first part begins.
    begin: u64,
}

impl Bundle {
    /// Opens a backup and reads all of it: what is damaged is refused before anything is done.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        Self::read(path).with_context(|| format!("read the backup {shown}"))
    }

    fn read(path: &Path) -> anyhow::Result<Self> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut head = [0; HEAD.len()];
        let is_ours =
            file.read_exact(&mut head).is_ok() && head.starts_with(b"coffer state backup ");
        ensure!(is_ours, "it is not a backup of Coffer's state");
        ensure!(
            head == *HEAD,
            "it was made by a newer Coffer: restore it with that"
        );
        let digits = u64::try_from(DIGITS)?;
        let end = length.checked_sub(digits).context("it is cut off")?;
        file.rewind()?;
        let (sum, _) = measure(BufReader::new(&file).take(end))?;
        file.seek(SeekFrom::Start(end))?;
        let mut told = String::new();
        (&file).take(digits).read_to_string(&mut told)?;
        ensure!(
            sum == told,
            "it is damaged or cut off: its checksum does not fit"
        );
        let (manifest, begin) = manifest(&file)?;
        let mut lengths = manifest.parts.iter().map(|part| part.bytes);
        let told = lengths.try_fold(begin, u64::checked_add);
        ensure!(told == Some(end), "its parts are not as long as it says");
        let bundle = Self {
            manifest,
            file,
            begin,
        };
        for part in &bundle.manifest.parts {
            check_name(&part.name)?;
            let (sum, _) = measure(bundle.reader(&part.name)?)?;
            ensure!(sum == part.sha256, "its part {} is damaged", part.name);
        }
        Ok(bundle)
    }

    /// Whether there is a part of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.manifest.parts.iter().any(|part| part.name == name)
    }

    fn reader(&self, name: &str) -> anyhow::Result<impl Read> {
        let mut at = self.begin;
        for part in &self.manifest.parts {
            if part.name == name {
                (&self.file).seek(SeekFrom::Start(at))?;
                return Ok(BufReader::new(&self.file).take(part.bytes));
            }
            at += part.bytes;
        }
        bail!("the backup has no part {name}")
    }

    /// A small part.
    pub(crate) fn bytes(&self, name: &str) -> anyhow::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut reader = self.reader(name)?.take(SMALL_MAX + 1);
        let length = u64::try_from(reader.read_to_end(&mut bytes)?)?;
        ensure!(length <= SMALL_MAX, "the backup's part {name} is too long");
        Ok(bytes)
    }

    /// Writes a part into a file that only its owner can read, and onto the disk.
    pub(crate) fn extract(&self, name: &str, target: &Path) -> anyhow::Result<()> {
        if let Some(dir) = target.parent() {
            fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(target)
            .with_context(|| format!("write {}", target.display()))?;
        std::io::copy(&mut self.reader(name)?, &mut file)?;
        file.sync_all()
            .with_context(|| format!("write {}", target.display()))
    }
}

fn manifest(mut file: &File) -> anyhow::Result<(Manifest, u64)> {
    let head = u64::try_from(HEAD.len())?;
    file.seek(SeekFrom::Start(head))?;
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    let length = u64::from_be_bytes(length);
    ensure!(length <= MANIFEST_MAX, "its manifest is too long");
    let mut text = Vec::new();
    file.take(length).read_to_end(&mut text)?;
    let manifest = serde_json::from_slice(&text).context("read its manifest")?;
    Ok((manifest, head + 8 + length))
}

/// Parts lie below the state directory, and nowhere else.
fn check_name(name: &str) -> anyhow::Result<()> {
    let path = Path::new(name);
    let is_plain = |part| matches!(part, std::path::Component::Normal(_));
    ensure!(
        !name.is_empty() && path.components().all(is_plain),
        "its part '{name}' would lie outside the state directory"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(dir: &Path) -> PathBuf {
        let contents = [
            Content::Bytes(vec![7; 100_000]),
            Content::Bytes(b"b".to_vec()),
        ];
        let names = ["coffer.db", "local/servers/x.json"];
        let parts = names
            .iter()
            .zip(&contents)
            .map(|(name, c)| part(name, c).unwrap());
        let manifest = Manifest {
            made_by: "1".to_owned(),
            made_at: Timestamp::from_micros(1),
            tag: "abcde".to_owned(),
            store: "sqlite".to_owned(),
            schema: 2,
            master_key: String::new(),
            stretching: None,
            parts: parts.collect(),
        };
        let path = dir.join("b");
        write(&path, &manifest, &contents).unwrap();
        path
    }

    #[test]
    fn what_is_written_is_read_and_nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = sample(dir.path());
        let bundle = Bundle::open(&path).unwrap();
        assert_eq!(bundle.bytes("local/servers/x.json").unwrap(), b"b");
        let out = dir.path().join("new/out");
        bundle.extract("coffer.db", &out).unwrap();
        assert_eq!(fs::read(&out).unwrap(), vec![7; 100_000]);
        let again = write(&path, &bundle.manifest, &[]).unwrap_err();
        assert!(again.to_string().contains("is there already"), "{again}");
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            2,
            "no part is left"
        );
    }

    #[test]
    fn every_damaged_byte_and_every_cut_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = sample(dir.path());
        let whole = fs::read(&path).unwrap();
        let bad = dir.path().join("bad");
        let steps = (0..whole.len()).step_by(997).chain([whole.len() - 1]);
        for at in steps {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&bad, &damaged).unwrap();
            assert!(Bundle::open(&bad).is_err(), "byte {at}");
            fs::write(&bad, &whole[..at]).unwrap();
            assert!(Bundle::open(&bad).is_err(), "cut at {at}");
        }
        for outside in ["../x", "/etc/passwd", "", "a/../../b"] {
            assert!(check_name(outside).is_err(), "{outside}");
        }
    }
}
