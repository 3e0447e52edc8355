use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::json;
use crate::wire::Message;

#[test]
fn plain_text_has_no_byte_that_is_escaped() {
    for len in [1, 7, 8, 9, 16, 30] {
        for at in 0..len {
            for byte in 0..=u8::MAX {
                let mut text = vec![b'a'; len];
                text[at] = byte;
                let is_escaped = !matches!(byte, b' '..=b'~') || b"\"\\".contains(&byte);
                assert_eq!(is_plain(&text), !is_escaped, "{byte} at {at} of {len}");
            }
        }
    }
    assert!(is_plain(b""));
}

/// Texts of plain characters, and of any.
fn text() -> impl Strategy<Value = String> {
    let plain = vec(prop::char::range(' ', '~'), 0..20);
    let any = vec(any::<char>(), 0..6);
    let text = |characters: Vec<char>| characters.into_iter().collect();
    prop_oneof![plain, any, vec(prop::char::range('\0', '\u{a0}'), 0..12)].prop_map(text)
}

fn id() -> impl Strategy<Value = SessionId> {
    text().prop_filter_map("not an id", |id| SessionId::new(id).ok())
}

fn time() -> impl Strategy<Value = Option<Millis>> {
    option::of(any::<i64>().prop_map(Millis))
}

fn model() -> impl Strategy<Value = Option<Model>> {
    let model = (text(), text(), option::of(text()));
    option::of(model.prop_map(|(id, provider_id, variant)| Model {
        id,
        provider_id,
        variant,
    }))
}

fn session() -> impl Strategy<Value = Session> {
    let texts = vec(option::of(text()), 13);
    let times = vec(time(), 8);
    let flags = (any::<bool>(), any::<Option<bool>>(), any::<bool>());
    let cost = option::of(any::<f64>().prop_filter("not JSON", |cost| cost.is_finite()));
    let numbers = (any::<Option<[i64; 5]>>(), any::<Option<[i64; 3]>>(), cost);
    (id(), texts, times, flags, model(), numbers).prop_map(
        |(id, texts, times, (untitled, marked, is_v1), model, (tokens, summary, cost))| {
            let store = if is_v1 { Store::V1 } else { Store::V2 };
            let mut session = Session::new(id, store);
            let mut texts = texts.into_iter();
            let mut text = || texts.next().unwrap_or_default();
            session.directory = text();
            session.idle_outcome = text();
            session.worktree = text();
            session.forked_from = text();
            session.project_id = text();
            session.workspace_id = text();
            session.parent_id = text();
            session.share_url = text();
            session.title = text();
            session.slug = text();
            session.first_prompt = text();
            session.version = text();
            session.agent = text();
            let mut times = times.into_iter();
            let mut time = || times.next().unwrap_or_default();
            session.time_created = time();
            session.time_updated = time();
            session.time_archived = time();
            session.last_message_at = time();
            session.time_compacting = time();
            session.time_suspended = time();
            session.time_idle = time();
            session.time_viewed = time();
            (session.untitled, session.marked) = (untitled, marked);
            (session.model, session.cost) = (model, cost);
            session.tokens =
                tokens.map(
                    |[input, output, reasoning, cache_read, cache_write]| Tokens {
                        input,
                        output,
                        reasoning,
                        cache_read,
                        cache_write,
                    },
                );
            session.summary = summary.map(|[additions, deletions, files]| Summary {
                additions,
                deletions,
                files,
            });
            session
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn line_is_that_of_the_message(session in session()) {
        let mut line = Vec::new();
        SessionLine::from(&session).append_to(&mut line);
        let line = String::from_utf8(line).unwrap();
        prop_assert_eq!(SessionLine::from(&session).to_session().unwrap(), session.clone());
        let message = json::line(&Message::Session(Box::new(session)));
        prop_assert_eq!(line, String::from_utf8(message).unwrap());
    }
}
