//! What the main process asks of the helper beyond its arguments.
//!
//! Arguments may pass through another machine's shell (`ssh`, `docker exec`),
//! so they hold only plain characters; a text goes as one JSON line on the
//! helper's standard input, with `--request-stdin`.

use serde::{Deserialize, Serialize};

use super::parse::parse;
use crate::marker_text::MarkerText;
use crate::session::SessionId;

/// What a helper says whose standard input has ended before its request, or, with
/// `--parent-pipe`, before it was done. Its launcher looks for it on standard error and in
/// an `error`: where it has not ended the input itself, the command between them does not
/// pass it on.
pub const STDIN_ENDED: &str = "standard input has ended: the program that launched this helper is \
     gone, or its standard input is not passed on to here";

/// A request. Unlike the helper's lines it is strict: a helper that does not
/// know a field must not answer as if it had not been there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// One listing.
    List {
        /// The marker to look for, instead of the default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        marker: Option<MarkerText>,
    },
    /// The sessions with these ids.
    Get {
        /// At most [`limits::IDS`](super::limits::IDS).
        ids: Vec<SessionId>,
    },
    /// The roots of these.
    Roots {
        /// At most [`limits::IDS`](super::limits::IDS).
        ids: Vec<SessionId>,
    },
}

impl Request {
    /// Parses a request line, given without its line end.
    ///
    /// # Errors
    ///
    /// Returns an error if the line is not exactly one JSON object, or not a known
    /// request; the message is for people.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        parse(line).map_err(|error| format!("invalid request: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_is_exactly_one_known_object() {
        for known in [
            r#"{"type":"list"}"#,
            r#"{"type":"list","marker":null}"#,
            r#"{ "marker" : "0123456789abcdef" , "type" : "list" }"#,
            r#"{"type":"get","ids":["a","b"]}"#,
            r#"{"type":"roots","ids":[]}"#,
        ] {
            assert!(Request::parse(known.as_bytes()).is_ok(), "{known}");
        }
        for (line, why) in [
            (r#"{"type":"list","colour":1}"#, "unknown field `colour`"),
            (
                r#"{"type":"list","marker":"short"}"#,
                "16 to 200 characters",
            ),
            (
                r#"{"type":"list","marker":["0123456789abcdef"]}"#,
                "invalid type",
            ),
            (
                r#"{"type":"list","marker":{"0123456789abcdef":null}}"#,
                "invalid type",
            ),
            (r#"{"type":"sing"}"#, "unknown variant `sing`"),
            (r#"{"type":0}"#, "invalid type"),
            (r#"{"type":["list"]}"#, "invalid type"),
            (r#"{"type":{"list":null}}"#, "invalid type"),
            (r#"{"type":"get"}"#, "missing field `ids`"),
            (r#"{"type":"get","ids":"a"}"#, "invalid type"),
            (r#"{"type":"get","ids":{"0":"a"}}"#, "invalid type"),
            (r#"{"type":"get","ids":[["a"]]}"#, "invalid type"),
            (r#"{"type":"get","ids":[""]}"#, "empty"),
            (
                r#"{"type":"roots","ids":["a"],"ids":["b"]}"#,
                "duplicate field",
            ),
            (r#"["list",{"marker":null}]"#, "not an object"),
            (r#"["get",{"ids":["a"]}]"#, "not an object"),
            (r#"["get",["a"]]"#, "not an object"),
            (r#""list""#, "not an object"),
            ("", "not an object"),
            ("{\"type\":\"list\"}\r", "CR LF"),
            ("{\"type\":\"list\"} ", "blanks"),
            (" {\"type\":\"list\"}", "blanks"),
            ("\t{\"type\":\"list\"}\r", "blanks"),
            ("{\"type\":\"list\"}{}", "trailing characters"),
        ] {
            let error = Request::parse(line.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{line}: {error}");
            assert!(error.starts_with("invalid request: "), "{error}");
        }
    }
}
