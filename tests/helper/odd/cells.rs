//! What a cell can hold, whatever its column.

use super::Random;

/// An SQL expression of a value.
pub(super) type Sql = String;

/// The ids of sessions, so few that tables have the same ones.
pub(super) fn id(random: &mut Random) -> Sql {
    match random.below(40) {
        0 => "NULL".to_owned(),
        1 => "17".to_owned(),
        2 => "2.5".to_owned(),
        3 => "x'7365735f61'".to_owned(),
        4 => text(b"ses_\xff"),
        5 => text(&[b'i'; 256]),
        6 => text(&[b'i'; 257]),
        7 => text("é".repeat(129).as_bytes()),
        8 => text(b"ses_\n"),
        9 => text(b"ses_\0a"),
        10 => text("ses_\u{9b}".as_bytes()),
        11 => text(b""),
        12 => text(b"SES_0003"),
        13 => text("ses_🚀\u{202e}".as_bytes()),
        14 => text(b"12"),
        15 => large(random),
        _ => format!("'ses_{:04}'", random.below(24)),
    }
}

/// A value for a column in which OpenCode stores this.
pub(super) fn cell(kind: &str, random: &mut Random) -> Sql {
    if random.one_in(9) {
        return any(random);
    }
    match kind {
        "id" => id(random),
        "time" => time(random),
        "number" => random.below(2_000_000).to_string(),
        "real" => format!("{}.5", random.below(100)),
        "title" => title(random),
        "model" => model(random),
        "project" => random
            .pick(&["'p0'", "'p1'", "'p2'", "'global'", "'P1'", "''", "'none'"])
            .to_string(),
        "directory" => random.pick(&["'/w'", "'/home/me/a'", "'/w/é'"]).to_string(),
        "null" => "NULL".to_owned(),
        _ => format!("'{kind} {}'", random.below(5)),
    }
}

fn time(random: &mut Random) -> Sql {
    match random.below(12) {
        0 => "0".to_owned(),
        1 => "0.5".to_owned(),
        2 => "-0.25".to_owned(),
        3 => format!("-{}", random.below(9)),
        4 => format!("{}.75", random.below(9)),
        5 => "9223372036854775807".to_owned(),
        6 => "-9223372036854775808".to_owned(),
        7 => random.pick(&["1e300", "-1e300", "9e999"]).to_string(),
        _ => random.below(8).to_string(),
    }
}

fn title(random: &mut Random) -> Sql {
    match random.below(6) {
        0 => "'New session - 2026-11-22T09:14:59.002Z'".to_owned(),
        1 => text("\u{1b}[31m\"\\\u{7f}\u{202e}日本🚀\t\n".as_bytes()),
        2 => text("\u{200b}".as_bytes()),
        _ => format!("'Title {}'", random.below(9)),
    }
}

fn model(random: &mut Random) -> Sql {
    let long = format!(r#"{{"id":"{}","providerID":"p"}}"#, "m".repeat(5000));
    let all = [
        br#"{"id":"m","providerID":"p"}"#.as_slice(),
        br#"{"id":"m","providerID":"p","variant":"v","more":[1,{"a":null}]}"#,
        br#"{"id":"m\u0000\n\ud83d\ude80","providerID":"","variant":null}"#,
        br#"{"id":"m"}"#,
        br#"{"id":"m","id":"n","providerID":"p"}"#,
        b"{\"id\":\"\xff\",\"providerID\":\"p\"}",
        b"{\"id\":\"m\",\"providerID\":\"p\",\"x\":\"\xff\"}",
        long.as_bytes(),
    ];
    let json: &[u8] = all[random.below(all.len())];
    text(json)
}

/// Any value of any type.
fn any(random: &mut Random) -> Sql {
    match random.below(16) {
        0 | 1 => "NULL".to_owned(),
        2 => random.below(9).to_string(),
        3 => "1.5".to_owned(),
        4 => "x''".to_owned(),
        5 => "x'61'".to_owned(),
        6 => text(b"opencode-lister: a large text"),
        7 => text(b""),
        8 => text(b" \t\n\x0c\r"),
        9 => text(b"\x0b"),
        10 => text(b"a\xff\xfeb\0c"),
        11 => "CAST('opencode-lister: a large text' AS BLOB)".to_owned(),
        12 => around(random, 4096),
        13 => text(b"0"),
        14 if random.one_in(2) => large(random),
        _ => text("é\u{2028}\"".as_bytes()),
    }
}

/// A text about as long as a limit.
fn around(random: &mut Random, limit: usize) -> Sql {
    let len = limit + random.below(10) - 5;
    let fill = *random.pick(&["x", "é", " ", "\u{20ac}"]);
    let mut bytes = fill.repeat(len / fill.len() + 1).into_bytes();
    bytes.truncate(len);
    text(&bytes)
}

/// A text or BLOB that is larger than what is loaded, or nearly so.
fn large(random: &mut Random) -> Sql {
    let bytes = match random.below(16) {
        0 => 1 << 20,
        1 => 200_000,
        2 => 65_535,
        3 => 65_537,
        _ => 65_536 + random.below(3),
    };
    let filled = |byte: char| format!("printf('%.{bytes}c', '{byte}')");
    match random.below(6) {
        0 => format!("zeroblob({bytes})"),
        1 => format!("CAST(zeroblob({bytes}) AS TEXT)"),
        2 => filled(' '),
        3 => format!("'é' || {}", filled('x')),
        _ => filled('y'),
    }
}

fn text(bytes: &[u8]) -> Sql {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("CAST(x'{hex}' AS TEXT)")
}
