//! The embedded database as a file: a backup of it, and putting one into its place.
//!
//! A restore, under the lock that a server would hold:
//!
//! 1. The backup is copied to `latchkey.db.restoring` in the data folder and examined.
//! 2. The copy is migrated, the rule applied to it, and it is settled into one file.
//! 3. The present database is settled too, so that no `-wal` of it is left for the new one, and gets a second name under
//!    which it stays: `latchkey.db.before-…`.
//! 4. The new private keys are written, and one `rename` puts the copy into the place of the database.
//!
//! Whatever ends the program before that `rename`, the old database is what it was; from then on the new one is complete.
//! What a restore that was cut short leaves behind is removed by the next one.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::{Renewed, prepare};
use crate::{
    ambient::Ambient,
    db::{Db, OpenError, Schema, SqliteFault, SqliteFile, StoreError},
    keys::{self, KeyFiles, Renewal, RingError},
    secret::SecretBytes,
};

/// A backup was not taken, or not restored; then nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A file cannot be read or written.
    #[error("cannot {0} {1}")]
    Io(&'static str, PathBuf, #[source] io::Error),
    /// There is one already.
    #[error("{0} is there already; choose another name, or say --force")]
    Exists(PathBuf),
    /// It is a part of the database itself.
    #[error("{0} belongs to the database that is in use; choose another file")]
    InUse(PathBuf),
    /// What was written last is not in it.
    #[error(
        "{0} lies beside it: this is a database as it lay on the disk, without what was written last; \
         restore what `latchkey backup` made"
    )]
    HasJournal(PathBuf),
    /// It is no database of ours, is damaged, or somebody uses it.
    #[error("{0}")]
    Sqlite(PathBuf, #[source] SqliteFault),
    /// Its schema is that of a newer program.
    #[error("{0} was made by a newer Latchkey; take that one to restore it")]
    Newer(PathBuf),
    /// It cannot be migrated.
    #[error("cannot bring the schema of the backup up to date")]
    Open(#[from] OpenError),
    /// There is no server secret, and none can be made.
    #[error(transparent)]
    Keys(#[from] RingError),
    /// The rule.
    #[error("cannot write into the copy of the backup")]
    Store(#[from] StoreError),
}

/// A backup that was taken.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Its size.
    pub bytes: u64,
    /// How many people are in it.
    pub people: i64,
}

/// A file that goes away again unless it is kept.
struct Draft(Option<PathBuf>);

impl Draft {
    fn path(&self) -> &Path {
        self.0.as_deref().unwrap_or(Path::new(""))
    }

    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            remove(path);
        }
    }
}

/// Copies the database `live` as it is at this moment to `target`, which only its owner can read. What stands under this
/// name is whole and was examined; without `force` nothing is replaced.
///
/// # Errors
/// See [`FileError`].
pub async fn take(live: &Path, target: &Path, force: bool, ambient: &Ambient) -> Result<Taken, FileError> {
    if target.symlink_metadata().is_ok() {
        refuse_our_own(live, target)?;
        if !force {
            return Err(FileError::Exists(target.to_owned()));
        }
    }
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |fault| FileError::Sqlite(path, fault)
    };
    let draft = Draft(Some(beside(target, &format!(".{}", ambient.uuid()))));
    let path = draft.path();
    // SQLite would make it readable to whoever the umask lets.
    let file = create(path).map_err(|error| FileError::Io("write", path.to_owned(), error))?;
    let mut database = SqliteFile::open(live).await.map_err(failed(live))?;
    database.schema().await.map_err(failed(live))?;
    database.copy_into(path).await.map_err(failed(live))?;
    database.close().await.map_err(failed(live))?;

    let mut copy = SqliteFile::open(path).await.map_err(failed(path))?;
    copy.examine().await.map_err(failed(path))?;
    let people = copy.people().await.map_err(failed(path))?;
    copy.close().await.map_err(failed(path))?;
    let put = file.sync_all().and_then(|()| {
        if force {
            fs::rename(path, target)?;
        } else {
            // A second name does not replace what came there meanwhile; the first one goes with the draft.
            fs::hard_link(path, target)?;
            fs::remove_file(path)?;
        }
        sync_folder_of(target)
    });
    match put {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(FileError::Exists(target.to_owned()));
        }
        Err(error) => return Err(FileError::Io("write", target.to_owned(), error)),
    }
    draft.keep();
    let bytes = file.metadata().map(|metadata| metadata.len()).unwrap_or(0);
    Ok(Taken { bytes, people })
}

/// What a restore put where.
#[derive(Clone, Debug)]
pub struct Restored {
    /// What the rule did.
    pub renewed: Renewed,
    /// Where the database is that was there before, if there was one.
    pub kept: Option<PathBuf>,
}

/// Puts the backup `source` into the place of the database `live`. The caller holds the lock of the servers. Without
/// `secrets` those of the folder count; where it has none, one is made.
///
/// # Errors
/// See [`FileError`]; then the database is what it was.
pub async fn restore(
    source: &Path,
    live: &Path,
    renewal: &Renewal,
    files: &KeyFiles,
    secrets: Option<&[SecretBytes]>,
    ambient: &Ambient,
) -> Result<Restored, FileError> {
    refuse_our_own(live, source)?;
    let [wal, _, journal] = SqliteFile::companions(source);
    if let Some(journal) = [wal, journal].into_iter().find(|path| fs::metadata(path).is_ok_and(|found| found.len() > 0))
    {
        return Err(FileError::HasJournal(journal));
    }
    tidy(live).map_err(|error| FileError::Io("tidy up beside", live.to_owned(), error))?;
    let draft = Draft(Some(beside(live, ".restoring")));
    let path = draft.path();
    copy(source, path).map_err(|error| FileError::Io("copy", source.to_owned(), error))?;
    examine(path)
        .await
        .map_err(|fault| FileError::Sqlite(source.to_owned(), fault))?
        .ok_or_else(|| FileError::Newer(source.to_owned()))?;

    // Only now that the backup is found good: a refused restore leaves nothing behind.
    let secrets = keys::server_secrets(secrets, files, true, ambient)?;
    let db = Db::open_sqlite(path).await?;
    let renewed = async {
        db.migrate().await?;
        let (tx, renewed) = prepare(&db, renewal, &secrets, ambient).await?;
        tx.commit().await?;
        Ok::<_, FileError>(renewed)
    };
    let renewed = renewed.await;
    db.close().await;
    let renewed = renewed?;
    settle(path).await.map_err(|fault| FileError::Sqlite(path.to_owned(), fault))?;

    let put = async || {
        fs::File::open(path)?.sync_all()?;
        let present = Present::of(live, &ambient.now().to_string()).await?;
        renewal.save(files, ambient)?;
        let kept = present.put_aside()?;
        // From here on it is one step: whatever fails before leaves the old database with all its files.
        if let Err(error) = take_away(live).and_then(|()| fs::rename(path, live)) {
            tidy(live)?;
            return Err(error);
        }
        sync_folder_of(live)?;
        Ok::<_, io::Error>(kept)
    };
    let kept = put().await.map_err(|error| FileError::Io("replace", live.to_owned(), error))?;
    draft.keep();
    Ok(Restored { renewed, kept })
}

/// Whether the copy is whole, ours, and of a schema that this program knows: `None` when it is of a newer one.
async fn examine(path: &Path) -> Result<Option<()>, SqliteFault> {
    let mut copy = SqliteFile::open(path).await?;
    let schema = copy.schema().await?;
    copy.examine().await?;
    copy.close().await?;
    Ok((schema != Schema::Newer).then_some(()))
}

async fn settle(path: &Path) -> Result<(), SqliteFault> {
    SqliteFile::open(path).await?.settle().await
}

/// The database that is to be replaced.
struct Present<'a> {
    live: &'a Path,
    /// Its second name; `None` when there is no database.
    kept: Option<PathBuf>,
    /// Whether other files belong to it: it could not be put in order.
    has_companions: bool,
}

impl<'a> Present<'a> {
    /// Puts it in order, so that it is one file.
    async fn of(live: &'a Path, at: &str) -> io::Result<Self> {
        if !live.exists() {
            return Ok(Self { live, kept: None, has_companions: false });
        }
        let has_companions = match settle(live).await {
            Ok(()) => false,
            // It cannot be read, which may be why it is being replaced: all its files stay as they are, for who wants to
            // save what can be saved. Any other fault (a full disk, another process) is no reason to go on.
            Err(fault @ (SqliteFault::Damaged(_) | SqliteFault::Foreign)) => {
                tracing::warn!(%fault, "the present database cannot be put in order; its files are kept as they are");
                true
            }
            Err(fault) => return Err(io::Error::other(fault)),
        };
        let kept = beside(live, &format!(".before-{}", at.replace(':', "-")));
        Ok(Self { live, kept: Some(kept), has_companions })
    }

    /// Gives it a second name, and its companions.
    fn put_aside(self) -> io::Result<Option<PathBuf>> {
        if let Some(kept) = &self.kept {
            fs::hard_link(self.live, kept)?;
            for (from, to) in SqliteFile::companions(self.live).iter().zip(SqliteFile::companions(kept)) {
                if self.has_companions && from.exists() {
                    fs::hard_link(from, to)?;
                }
            }
            sync_folder_of(self.live)?;
        }
        Ok(self.kept)
    }
}

/// Sees to it that nothing is left that SQLite would apply to another database of this name.
fn take_away(live: &Path) -> io::Result<()> {
    for companion in SqliteFile::companions(live) {
        match fs::remove_file(companion) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Undoes what a restore left that was cut short: its copy goes, and a second name of the database that is in use, whose
/// companions get their own names back.
fn tidy(live: &Path) -> io::Result<()> {
    remove(&beside(live, ".restoring"));
    let Ok(present) = live.metadata() else { return Ok(()) };
    let (Some(folder), Some(name)) = (live.parent(), live.file_name()) else { return Ok(()) };
    let begin = format!("{}.before-", name.to_string_lossy());
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let is_second =
            entry.metadata().is_ok_and(|found| (found.dev(), found.ino()) == (present.dev(), present.ino()));
        let is_whole =
            !["-wal", "-shm", "-journal"].iter().any(|end| entry.file_name().to_string_lossy().ends_with(end));
        if is_second && is_whole && entry.file_name().to_string_lossy().starts_with(&begin) {
            for (kept, own) in SqliteFile::companions(&entry.path()).iter().zip(SqliteFile::companions(live)) {
                if kept.exists() && !own.exists() {
                    fs::rename(kept, own)?;
                } else if kept.exists() {
                    fs::remove_file(kept)?;
                }
            }
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Removes a database that nobody needs, as far as it is there.
fn remove(path: &Path) {
    for path in SqliteFile::companions(path).iter().map(PathBuf::as_path).chain([path]) {
        let _ = fs::remove_file(path);
    }
}

/// Refuses a file of the live database: a backup over it, or a restore of it, would be its end.
fn refuse_our_own(live: &Path, path: &Path) -> Result<(), FileError> {
    let Ok(found) = path.metadata() else { return Ok(()) };
    let companions = SqliteFile::companions(live);
    let own = companions.iter().map(PathBuf::as_path).chain([live]).filter_map(|path| path.metadata().ok());
    let is_own = own.into_iter().any(|own| (own.dev(), own.ino()) == (found.dev(), found.ino()));
    if is_own { Err(FileError::InUse(path.to_owned())) } else { Ok(()) }
}

/// `<path><end>`.
fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    PathBuf::from(name)
}

fn create(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut from = fs::File::open(from)?;
    io::copy(&mut from, &mut create(to)?).map(drop)
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restore_that_was_cut_short_gives_the_old_database_its_companions_back() {
        let folder = tempfile::tempdir().unwrap();
        let live = folder.path().join("latchkey.db");
        fs::write(&live, "pages").unwrap();
        let kept = beside(&live, ".before-2026");
        fs::hard_link(&live, &kept).unwrap();
        // It was moved away, and the rename did not come.
        fs::write(beside(&kept, "-wal"), "what was acknowledged last").unwrap();
        tidy(&live).unwrap();
        assert_eq!(fs::read_to_string(beside(&live, "-wal")).unwrap(), "what was acknowledged last");
        assert!(!kept.exists() && !beside(&kept, "-wal").exists());
    }
}
