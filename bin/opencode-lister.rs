//! The helper program; see `opencode_sessions::helper`.

fn main() -> std::process::ExitCode {
    opencode_sessions::cli::opencode_lister()
}
