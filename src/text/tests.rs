use std::ffi::OsStr;

use super::*;

fn utf16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(bytes).collect()
}

#[test]
fn utf16_is_decoded_with_and_without_a_byte_order_mark() {
    for text in [
        "There is no such distribution.\r\nError code: 1\r\n",
        "no line end",
        "Es gibt keine Distribution für „x“ – 100 € 🚀\r\n",
        // A character with the byte 10, and one with the byte 0.
        "上一个发行版不存在。\r\n请重试\r\n",
        "\r\n\r\nafter empty lines\r\n",
        "",
    ] {
        for order in [u16::to_le_bytes, u16::to_be_bytes] {
            let bytes = utf16(text, order);
            assert_eq!(decoded(&bytes), text);
            assert_eq!(begins_in_utf16(&bytes), !text.is_empty());
            let marked = utf16(&format!("\u{feff}{text}"), order);
            assert_eq!(decoded(&marked), text);
            // Between lines of UTF-8.
            let mixed = [b"Authorized use only\n", &*bytes, b""].concat();
            assert_eq!(decoded(&mixed), format!("Authorized use only\n{text}"));
            if text.ends_with('\n') {
                let mixed = [&*bytes, "naïve end\n".as_bytes()].concat();
                assert_eq!(decoded(&mixed), format!("{text}naïve end\n"));
            }
        }
    }
    // The last unit is truncated.
    let bytes = utf16("cut", u16::to_le_bytes);
    assert_eq!(decoded(&bytes[..5]), "cu");
}

#[test]
fn utf8_is_never_decoded_as_utf16() {
    for (bytes, text) in [
        (&b"plain\nlines\n"[..], "plain\nlines\n"),
        ("naïve 日本語\n".as_bytes(), "naïve 日本語\n"),
        (b"caf\xe9 au lait\n", "caf\u{fffd} au lait\n"),
        (b"\nOK\nno\n\xe9t\xe9\n", "\nOK\nno\n\u{fffd}t\u{fffd}\n"),
        (b"{\0\"type\":\"hello\"}", "{\0\"type\":\"hello\"}"),
        (b"list\0of\0names\0here", "list\0of\0names\0here"),
        (b"\0\0\0\0", "\0\0\0\0"),
        (b"\xff", "\u{fffd}"),
    ] {
        assert_eq!(decoded(bytes), text);
        assert!(!begins_in_utf16(bytes), "{text:?}");
    }
}

#[test]
fn escape_sequences_are_removed_by_every_function() {
    let hostile = "a\x1b]0;owned\x07b\u{9b}31mc\u{202e}d\nE\u{2028}f";
    for safe in [
        one_line(hostile),
        escaped(hostile),
        DisplayPath(Path::new(hostile)).to_string().into(),
    ] {
        assert!(!safe.chars().any(is_unsafe_on_terminal), "{safe:?}");
    }
}

#[test]
fn emoji_and_other_scripts_are_unchanged() {
    let title = "日本語 🚀 naïve 👩\u{200d}👩\u{200d}👧 ok";
    assert_eq!(one_line(title), title);
    assert_eq!(escaped(title), title);
}

#[test]
fn invisible_characters_are_dropped_or_marked() {
    // The text, as a prose line, as a name line.
    for (text, prose, name) in [
        ("plain  text", "plain text", "plain text"),
        ("a\u{200b}b", "ab", "a\u{fffd}b"),
        ("soft\u{ad}hyphen", "softhyphen", "soft\u{fffd}hyphen"),
        ("\u{3164}", "", "\u{fffd}"),
        ("a \u{2060} b", "a b", "a \u{fffd} b"),
        (
            "a\u{180e}\u{115f}\u{ffa0}b",
            "ab",
            "a\u{fffd}\u{fffd}\u{fffd}b",
        ),
        ("x\u{fff9}y\u{fffb}z", "xyz", "x\u{fffd}y\u{fffd}z"),
        ("t\u{e0041}\u{e007f}", "t", "t\u{fffd}\u{fffd}"),
        // A joiner or selector counts only where it has an effect.
        ("a\u{200d}b\u{fe0f}", "ab", "a\u{fffd}b\u{fffd}"),
        ("日\u{200d} x", "日 x", "日\u{fffd} x"),
        ("می\u{200c}خواهم", "می\u{200c}خواهم", "می\u{200c}خواهم"),
        ("❤\u{fe0f} ok", "❤\u{fe0f} ok", "❤\u{fe0f} ok"),
        (
            "👩\u{200d}👩\u{200d}👧 ok",
            "👩\u{200d}👩\u{200d}👧 ok",
            "👩\u{200d}👩\u{200d}👧 ok",
        ),
        ("\u{202e}\u{1b}x", "\u{fffd}\u{fffd}x", "\u{fffd}\u{fffd}x"),
    ] {
        assert_eq!(prose_line(text), prose, "{text:?}");
        assert_eq!(name_line(text), name, "{text:?}");
    }
}

#[test]
fn text_without_visible_characters_is_blank() {
    for blank in [
        "",
        " \t\u{3000}",
        "\u{200b}\u{2060}",
        "\u{3164}",
        "\u{ad}\u{180e}",
        "\u{e0001}\u{e0041}",
        "\u{fff9}\u{fffa}\u{fffb}",
        "\u{200d}\u{fe0f}",
        "\u{202e}\u{200e}",
        "\u{2800}",
    ] {
        assert!(is_blank(blank), "{blank:?}");
    }
    for visible in ["a", "\u{200b}a", "日", "🚀", "-", "\u{fffd}"] {
        assert!(!is_blank(visible), "{visible:?}");
    }
}

#[test]
fn cells_add_up_over_code_points() {
    for (text, expected) in [
        ("abc", 3),
        ("日本", 4),
        ("لا", 2),
        ("👩\u{200d}👩\u{200d}👧", 6),
        ("🇩🇪", 2),
        ("e\u{301}", 1),
        ("\u{2068}a\u{2069}", 1),
        ("\u{1b}\u{200b}", 0),
    ] {
        let sum: usize = text.chars().map(cells).sum();
        assert_eq!(sum, expected, "{text:?}");
    }
}

#[test]
fn white_space_is_collapsed_and_trimmed() {
    assert_eq!(one_line("  a \t b\r\n\n c "), "a b c");
}

#[test]
fn escaped_backslash_differs_from_escaped_tab() {
    assert_eq!(escaped("a\tb\\t"), "a\\tb\\\\t");
}

#[test]
fn path_with_special_characters_is_quoted_for_a_shell() {
    assert_eq!(DisplayPath(Path::new("/a/b-c.db")).to_string(), "/a/b-c.db");
    assert_eq!(
        DisplayPath(Path::new("/a b/$(x)")).to_string(),
        "'/a b/$(x)'"
    );
    assert_eq!(DisplayPath(Path::new("/it's")).to_string(), r"'/it'\''s'");
    assert_eq!(
        DisplayPath(Path::new("/a\x1b'")).to_string(),
        r"$'/a\x1b\''"
    );
    for (path, shown) in [
        ("/a\u{200b}b", r"$'/a\u200bb'"),
        ("/\u{3164}", r"$'/\u3164'"),
        ("/a\u{e0041}1", r"$'/a\U000e00411'"),
    ] {
        assert_eq!(DisplayPath(Path::new(path)).to_string(), shown);
    }
    let bytes = |bytes: &'static [u8]| Path::new(OsStr::from_bytes(bytes));
    assert_eq!(DisplayPath(bytes(b"/a\xff")).to_string(), r"$'/a\xff'");
}

#[test]
fn different_bytes_have_different_escapes() {
    let all: [(&[u8], &str); 8] = [
        (b"a\xff", r"a\xff"),
        (b"a\xfe", r"a\xfe"),
        (br"a\xff", r"a\\xff"),
        ("a\u{fffd}".as_bytes(), "a\u{fffd}"),
        // The first two bytes of three.
        (b"a\xe2\x82", r"a\xe2\x82"),
        (b"\xff\t\\\xff", r"\xff\t\\\xff"),
        (b"\t", r"\t"),
        (br"\t", r"\\t"),
    ];
    for (bytes, expected) in all {
        assert_eq!(escaped_bytes(bytes), expected);
    }
}

#[test]
fn cut_ends_at_a_character_boundary() {
    assert_eq!(cut("aé", 2), "a");
    assert_eq!(cut("aé", 3), "aé");
    assert_eq!(cut("aé", 99), "aé");
}
