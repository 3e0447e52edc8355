//! The request that the main process sends on the helper's standard input.
//!
//! Arguments may pass through another machine's shell (`ssh`, `docker exec`), so they hold
//! only plain characters. A request with text is one JSON line on standard input, with
//! `--request-stdin`.

use serde::{Deserialize, Serialize};

use super::Have;
use super::parse::parse;
use crate::marker_text::MarkerText;
use crate::session::SessionId;
use crate::strict;

/// The message of a helper whose standard input ended before its request, or, with
/// `--parent-pipe`, before it was done.
///
/// The main process searches for this text on standard error and in an `error` line: if it
/// holds the input open, the command between the two does not forward it. So the text must
/// not change between versions.
pub const STDIN_ENDED: &str = "standard input has ended: the program that launched this helper is \
     gone, or its standard input is not passed on to here";

/// A request. Unlike the helper's lines, a request is parsed strictly: a helper must not
/// ignore a field that it does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// Lists the sessions.
    List {
        /// The marker to search for, instead of the default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        marker: Option<MarkerText>,
        /// What the caller has, so that the helper sends only differences (protocol 2).
        #[serde(
            default,
            deserialize_with = "strict::object_or_null",
            skip_serializing_if = "Option::is_none"
        )]
        have: Option<Have>,
    },
    /// Looks up the sessions with these ids.
    Get {
        /// At most [`limits::IDS`](super::limits::IDS) ids.
        ids: Vec<SessionId>,
    },
    /// Looks up the roots of the sessions with these ids.
    Roots {
        /// At most [`limits::IDS`](super::limits::IDS) ids.
        ids: Vec<SessionId>,
    },
}

impl Request {
    /// Parses a request line without its line feed.
    ///
    /// # Errors
    ///
    /// Returns a message for people if the line is not exactly one JSON object, or not a
    /// known request.
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
            (r#"["list",{"marker":null}]"#, "expected a JSON object"),
            (r#"["get",{"ids":["a"]}]"#, "expected a JSON object"),
            (r#"["get",["a"]]"#, "expected a JSON object"),
            (r#""list""#, "expected a JSON object"),
            ("", "expected a JSON object"),
            ("{\"type\":\"list\"}\r", "CR LF"),
            ("{\"type\":\"list\"} ", "white space"),
            (" {\"type\":\"list\"}", "white space"),
            ("\t{\"type\":\"list\"}\r", "white space"),
            ("{\"type\":\"list\"}{}", "trailing characters"),
        ] {
            let error = Request::parse(line.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{line}: {error}");
            assert!(error.starts_with("invalid request: "), "{error}");
        }
    }
}
