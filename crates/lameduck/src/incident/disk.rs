//! Files of a run. An error says which, and what was to be done with it.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Broken;

fn at(what: &str, path: &Path) -> impl FnOnce(io::Error) -> Broken {
    let place = format!("{}: could not be {what}", path.display());
    move |error| Broken(format!("{place}: {error}"))
}

/// Makes a folder, and those above it.
pub fn folder(path: &Path) -> Result<(), Broken> {
    fs::create_dir_all(path).map_err(at("made", path))
}

/// Writes a file, and makes its folder; a script can be executed.
pub fn write(path: &Path, text: &str) -> Result<(), Broken> {
    if let Some(parent) = path.parent() {
        folder(parent)?;
    }
    fs::write(path, text).map_err(at("written", path))?;
    if text.starts_with("#!") {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(at("made executable", path))?;
    }
    Ok(())
}

/// An empty file to write to.
pub fn create(path: &Path) -> Result<fs::File, Broken> {
    fs::File::create(path).map_err(at("written", path))
}

/// A symbolic link at `place` to a file that is elsewhere.
pub fn link(to: &Path, place: &Path) -> Result<(), Broken> {
    if let Some(parent) = place.parent() {
        folder(parent)?;
    }
    std::os::unix::fs::symlink(to, place).map_err(at("made a link", place))
}

/// The text of a file; what is not text in it is replaced.
pub fn read(path: &Path) -> Result<String, Broken> {
    let bytes = fs::read(path).map_err(at("read", path))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What is in a folder, in order.
pub fn entries(path: &Path) -> Result<Vec<PathBuf>, Broken> {
    let entries = fs::read_dir(path).map_err(at("listed", path))?;
    let mut all = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<_>>>()
        .map_err(at("listed", path))?;
    all.sort();
    Ok(all)
}

/// Copies a file, or a folder with all that is in it, to a path.
pub fn copy(from: &Path, to: &Path) -> Result<(), Broken> {
    if from.is_dir() {
        folder(to)?;
        for entry in entries(from)? {
            copy(&entry, &to.join(entry.file_name().unwrap_or_default()))?;
        }
        return Ok(());
    }
    if let Some(parent) = to.parent() {
        folder(parent)?;
    }
    fs::copy(from, to).map(|_| ()).map_err(at(&format!("copied to {}", to.display()), from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_what_is_there_and_names_what_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("a"), dir.path().join("b"));
        write(&from.join("bin/run"), "#!/bin/sh\n").unwrap();
        write(&from.join("text"), "1\n").unwrap();
        copy(&from, &to).unwrap();
        assert_eq!(entries(&to).unwrap(), [to.join("bin"), to.join("text")]);
        assert_eq!(fs::metadata(to.join("bin/run")).unwrap().permissions().mode() & 0o777, 0o755);
        let Broken(why) = read(&from.join("none")).unwrap_err();
        assert!(why.contains("a/none: could not be read: No such file"), "{why}");
        let Broken(why) = copy(&from.join("none"), &to).unwrap_err();
        assert!(why.contains("a/none: could not be copied to "), "{why}");
    }
}
