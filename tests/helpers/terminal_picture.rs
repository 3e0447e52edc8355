//! Prints a picture (SVG) of a terminal with the output of a command.
//!
//! `terminal-picture COLUMNS PROMPT PROGRAM ARGUMENT…` runs PROGRAM on a terminal of that
//! width. PROMPT is the command line that the picture shows. Standard error is not in it.

#![allow(
    clippy::disallowed_methods,
    reason = "this program starts the command that it draws"
)]

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use anyhow::Context as _;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use unicode_width::UnicodeWidthStr as _;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || {
        arguments
            .next()
            .context("usage: terminal-picture COLUMNS PROMPT PROGRAM ARGUMENT…")
    };
    let (columns, prompt, program) = (next()?.parse()?, next()?, next()?);
    let output = on_a_terminal(columns, Command::new(program).args(arguments))?;
    let picture = picture(columns.into(), &prompt, &output);
    Ok(std::io::stdout().write_all(picture.as_bytes())?)
}

/// What the command prints on a terminal of this width.
fn on_a_terminal(columns: u16, command: &mut Command) -> anyhow::Result<String> {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let name = ptsname(&ours, Vec::new())?;
    let theirs = File::options()
        .read(true)
        .write(true)
        .open(name.to_str()?)?;
    let size = Winsize {
        ws_row: 50,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&theirs, size)?;
    let mut child = command
        .env("TERM", "xterm-256color")
        .stdin(Stdio::null())
        .stdout(theirs)
        .stderr(Stdio::null())
        .spawn()?;
    // It has the other end of the terminal.
    command.stdout(Stdio::null());
    let mut output = Vec::new();
    // Ends with an error once nobody has the other end.
    let _ = File::from(ours).read_to_end(&mut output);
    let status = child.wait()?;
    anyhow::ensure!(status.success(), "{command:?}: {status}");
    Ok(String::from_utf8(output)?.replace("\r\n", "\n"))
}

// ---- The picture, in pixels.

/// The width of a cell, in tenths.
const CELL: usize = 84;
const LINE: usize = 20;
const MARGIN: usize = 16;
const BAR: usize = 32;

/// How a run of text looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Style {
    bold: bool,
    dim: bool,
    /// One of the 16 colours.
    colour: Option<u8>,
}

impl Style {
    /// Takes the parameters of an SGR sequence.
    fn take(&mut self, parameters: &str) {
        for parameter in parameters.split(';') {
            match parameter.parse().unwrap_or(0) {
                0 => *self = Self::default(),
                1 => self.bold = true,
                2 => self.dim = true,
                22 => (self.bold, self.dim) = (false, false),
                colour @ 30..=37 => self.colour = Some(colour - 30),
                39 => self.colour = None,
                colour @ 90..=97 => self.colour = Some(colour - 90 + 8),
                _ => {}
            }
        }
    }

    fn attributes(self) -> String {
        const COLOURS: [&str; 16] = [
            "#484f58", "#ff7b72", "#3fb950", "#d29922", "#58a6ff", "#bc8cff", "#39c5cf", "#b1bac4",
            "#6e7681", "#ffa198", "#56d364", "#e3b341", "#79c0ff", "#d2a8ff", "#56d4dd", "#ffffff",
        ];
        let mut attributes = String::new();
        if self.bold {
            attributes.push_str(r#" font-weight="bold""#);
        }
        if self.dim {
            attributes.push_str(r#" opacity="0.6""#);
        }
        if let Some(colour) = self.colour {
            let colour = COLOURS[usize::from(colour)];
            attributes.push_str(&format!(r#" fill="{colour}""#));
        }
        attributes
    }
}

fn picture(columns: usize, prompt: &str, output: &str) -> String {
    let prompt = format!("\x1b[32m$\x1b[0m {prompt}");
    let lines: Vec<_> = std::iter::once(prompt.as_str())
        .chain(output.lines())
        .collect();
    let width = (columns * CELL).div_ceil(10) + 2 * MARGIN;
    let height = BAR + lines.len() * LINE + MARGIN;
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" aria-label="A terminal with a list of sessions">
<rect width="{width}" height="{height}" rx="8" fill="#0d1117"/>
<circle cx="18" cy="16" r="5" fill="#ff5f57"/><circle cx="36" cy="16" r="5" fill="#febc2e"/><circle cx="54" cy="16" r="5" fill="#28c840"/>
<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace" font-size="14" fill="#e6edf3">
"##
    );
    let mut style = Style::default();
    for (at, line) in lines.iter().enumerate() {
        let y = BAR + at * LINE + LINE - 6;
        for (column, style, text) in runs(line, &mut style) {
            let tenths = 10 * MARGIN + column * CELL;
            let (x, tenth) = (tenths / 10, tenths % 10);
            let attributes = style.attributes();
            // Writing to a string does not fail.
            let _ = writeln!(
                svg,
                r#"<text x="{x}.{tenth}" y="{y}"{attributes}>{}</text>"#,
                escaped(text)
            );
        }
    }
    svg.push_str("</g>\n</svg>\n");
    svg
}

/// The words of a line that stand apart, each at its own column, so that a font with other
/// widths moves none of those after it.
fn runs<'a>(line: &'a str, style: &mut Style) -> Vec<(usize, Style, &'a str)> {
    let mut runs = Vec::new();
    let mut column = 0;
    for (at, piece) in line.split("\x1b[").enumerate() {
        let text = match (at, piece.split_once('m')) {
            (0, _) | (_, None) => piece,
            (_, Some((parameters, text))) => {
                style.take(parameters);
                text
            }
        };
        let mut from = 0;
        for word in text.split_inclusive("  ") {
            let start = from + word.len() - word.trim_start().len();
            from += word.len();
            let trimmed = text[start..from].trim_end();
            if !trimmed.is_empty() {
                runs.push((
                    column + (word.width() - word.trim_start().width()),
                    *style,
                    trimmed,
                ));
            }
            column += word.width();
        }
    }
    runs
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
