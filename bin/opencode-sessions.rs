//! The main program; see `opencode_sessions::cli`.

fn main() -> std::process::ExitCode {
    opencode_sessions::cli::opencode_sessions()
}
