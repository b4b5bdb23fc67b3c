//! `lameduck copy-to`: what the webhook's init container does, in an image that has no `cp`.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::flag::Failure;
use super::run::self_exe;
use crate::exit;

/// Its name.
pub const COPY_VERB: &str = "copy-to";

/// Copies this program into a folder, where everybody may execute it. Under its own name only once it is whole.
pub fn copy_to(args: &[OsString]) -> Result<u8, Failure> {
    let failed = |message: String, status| Failure::Error { message, status };
    let [folder] = args else {
        return Err(failed(format!("{COPY_VERB}: expected a folder"), exit::USAGE));
    };
    let (whole, part) = (Path::new(folder).join("lameduck"), Path::new(folder).join(".lameduck.part"));
    let copied = fs::copy(self_exe(), &part)
        .and_then(|_| fs::set_permissions(&part, Permissions::from_mode(0o555)))
        .and_then(|()| fs::rename(&part, &whole));
    copied.map_err(|error| failed(format!("{}: {error}", whole.display()), exit::SETUP))?;
    Ok(exit::OK)
}
