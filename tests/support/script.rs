//! Programs that are scripts.

use std::path::Path;

use crate::support::command;

/// A program of these lines. Another process writes it: were it open for writing
/// here, a child of another thread could inherit that, and running it would fail
/// with "text file busy".
pub(crate) fn script(path: &Path, text: &str) {
    let status = command(Path::new("/bin/sh"))
        .args(["-c", r#"printf %s "$1" > "$2" && chmod 755 "$2""#, "sh"])
        .args([text.as_ref(), path.as_os_str()])
        .status()
        .unwrap();
    assert!(status.success());
}
