//! What a helper writes of a database: everything, or the difference to what its caller has.

use std::collections::BTreeMap;
use std::io::Write;

use opencode_sessions::internals::helper::Difference;
use opencode_sessions::internals::wire::{DatabaseState, End, Scan, SessionLine, Writer};
use opencode_sessions::session::{Session, SessionId};

/// The sessions of a database, by their ids.
pub(crate) type Database = BTreeMap<SessionId, Session>;

/// A listing of all sessions.
pub(crate) fn listing_of(database: &Database) -> Vec<u8> {
    let mut answer = Vec::new();
    let mut writer = Writer::new(&mut answer);
    writer.hello().unwrap();
    for session in database.values() {
        writer.session(session).unwrap();
    }
    let end = End::new(writer.sessions(), DatabaseState::Ready);
    writer.end(end).unwrap();
    answer
}

/// Writes a difference, from the line after the `hello` to the last line.
pub(crate) fn write_difference(
    database: &Database,
    difference: &mut Difference,
    mut writer: Writer<impl Write>,
) {
    let mut line = Vec::new();
    for (id, session) in database {
        line.clear();
        SessionLine::from(session).append_to(&mut line);
        let has = |line: &[u8]| difference.has_line(id.as_str(), line);
        writer.session_line_unless(&line, has).unwrap();
    }
    for gone in difference.gone() {
        writer.gone(gone).unwrap();
    }
    let mut end = End::new(writer.sessions() + writer.left_out(), DatabaseState::Ready);
    end.scan = Scan::NONE;
    end.difference = Some(difference.counts(writer.sessions()));
    writer.end(end).unwrap();
}
