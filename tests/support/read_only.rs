//! The helper where it cannot write: to the directories of a database and to what is
//! in them. There are two ways, and a machine may have one of them or none.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::{self, output_when_free};

/// How directories are made such that cannot be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// By its mode and those of its files. Root may write everywhere, so root's
    /// helper runs as nobody.
    Mode,
    /// By read-only mounts of their own, for the helper alone.
    Mount,
}

pub(crate) const WAYS: [Way; 2] = [Way::Mode, Way::Mount];

/// Directories that the helper cannot write to while this lives.
pub(crate) struct ReadOnly {
    way: Way,
    directories: Vec<PathBuf>,
    /// Where the helper is that anybody may run, and may write to.
    pub(crate) place: tempfile::TempDir,
}

const MOUNTED: &str = r#"
while [ "$1" != -- ]; do
    mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" || exit 5
    shift
done
shift
exec "$@""#;

impl ReadOnly {
    /// `None` where this way is not possible here, which is said.
    pub(crate) fn new(way: Way, directories: &[&Path]) -> Option<Self> {
        let place = tempfile::tempdir().unwrap();
        let program = place.path().join("opencode-lister");
        fs::copy(support::lister(), &program).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(place.path(), Permissions::from_mode(0o777)).unwrap();
        let made = Self {
            way,
            directories: directories.iter().map(PathBuf::from).collect(),
            place,
        };
        if way == Way::Mode {
            made.set_modes(0o555, 0o444);
        }
        let works = made.is_read_only();
        if !works {
            support::skip(match way {
                Way::Mode => "a helper without rights: it can run or reach nothing here",
                Way::Mount => "private mounts: none can be made here",
            });
        }
        works.then_some(made)
    }

    /// What the helper prints.
    pub(crate) fn helper(&self, db: &Path, args: &[&str]) -> Output {
        let program = self.place.path().join("opencode-lister");
        let command = || {
            let mut command = self.command(&program);
            command.arg("--db").arg(db).args(args);
            command
        };
        output_when_free(command).unwrap()
    }

    fn is_read_only(&self) -> bool {
        self.directories.iter().all(|directory| {
            let probe = directory.join("probe");
            let mut touch = self.command(Path::new("sh"));
            // Reading must do, writing must not.
            let script = "ls \"$1\" >/dev/null || exit 3; ! touch \"$2\" 2>/dev/null";
            touch.args(["-c", script, "sh"]).args([directory, &probe]);
            let done = touch.output();
            let _ = fs::remove_file(probe);
            done.is_ok_and(|output| output.status.success())
                && self
                    .helper(&directory.join("nothing.db"), &[])
                    .status
                    .success()
        })
    }

    fn command(&self, program: &Path) -> Command {
        let is_root = rustix::process::geteuid().is_root();
        match self.way {
            Way::Mode => {
                let mut command = support::command(program);
                if is_root {
                    command.uid(65534).gid(65534);
                }
                command
            }
            Way::Mount => {
                let mut command = support::command(Path::new("unshare"));
                command.arg(if is_root { "-m" } else { "-rm" });
                command.args(["sh", "-c", MOUNTED, "sh"]);
                command.args(&self.directories).arg("--").arg(program);
                command
            }
        }
    }

    fn set_modes(&self, directories: u32, files: u32) {
        let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
        for directory in &self.directories {
            set(directory, 0o755).unwrap();
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if !path.is_symlink() {
                    set(&path, files).unwrap();
                }
            }
            set(directory, directories).unwrap();
        }
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        if self.way == Way::Mode {
            self.set_modes(0o755, 0o644);
        }
    }
}

/// Lets everybody into a directory.
pub(crate) fn reachable(directory: &Path) {
    fs::set_permissions(directory, Permissions::from_mode(0o755)).unwrap();
}
