//! What a host knows.

use std::collections::BTreeMap;

use serde_json::Value;

/// What follows from the events so far. Taking one checks that it goes with
/// those before it.
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) revision: u64,
    pub(crate) sessions: BTreeMap<String, Value>,
    pub(crate) health: BTreeMap<String, Value>,
    pub(crate) events: Vec<Value>,
}

impl Model {
    pub(crate) fn take(&mut self, event: Value) {
        let kind = event["type"].as_str().expect("an event has a type");
        match self.events.len() {
            0 => assert_eq!(kind, "hello", "{event}"),
            1 => assert_eq!(kind, "snapshot", "{event}"),
            _ => {}
        }
        assert!(
            self.events.last().is_none_or(|last| last["type"] != "bye"),
            "nothing comes after the bye: {event}"
        );
        match kind {
            "snapshot" => self.snapshot(&event),
            "change" => self.change(&event),
            "health" => {
                let new = event["health"].clone();
                let old = self.health.insert(text(&event["source"]), new.clone());
                assert_ne!(old, Some(new), "it is no news: {event}");
            }
            "hello" | "reply" | "bye" => {}
            other => panic!("an event of the type {other}"),
        }
        self.events.push(event);
    }

    fn snapshot(&mut self, event: &Value) {
        // Of another service than before, where that one has ended.
        let revision = event["revision"].as_u64().unwrap();
        let sessions = list(&event["sessions"]).iter().map(|session| {
            assert!(session["source"].is_string(), "{session}");
            (key(session), session.clone())
        });
        let sessions: BTreeMap<_, _> = sessions.collect();
        assert_eq!(
            sessions.len(),
            list(&event["sessions"]).len(),
            "each is there once"
        );
        self.sessions = sessions;
        self.revision = revision;
        self.health = list(&event["sources"])
            .iter()
            .map(|source| (text(&source["source"]), source["health"].clone()))
            .collect();
    }

    fn change(&mut self, event: &Value) {
        let revision = event["revision"].as_u64().unwrap();
        assert_eq!(revision, self.revision + 1, "{event}");
        self.revision = revision;
        let (upserted, removed) = (list(&event["upserted"]), list(&event["removed"]));
        assert!(
            !upserted.is_empty() || !removed.is_empty(),
            "nothing is no change"
        );
        for session in upserted {
            let old = self.sessions.insert(key(session), session.clone());
            assert_ne!(old.as_ref(), Some(session), "it was so before");
        }
        for gone in removed {
            assert!(self.sessions.remove(&text(gone)).is_some(), "{gone}");
        }
    }

    /// The ids of all sessions, sorted.
    pub(crate) fn ids(&self) -> Vec<&str> {
        self.sessions.keys().map(String::as_str).collect()
    }

    /// The health of the only source.
    pub(crate) fn only_health(&self) -> &Value {
        assert_eq!(self.health.len(), 1, "{:?}", self.health);
        self.health.values().next().unwrap()
    }

    /// The name of that health.
    pub(crate) fn state(&self) -> &str {
        self.only_health()["state"].as_str().unwrap()
    }

    /// The events of this type, from the one at `from`.
    pub(crate) fn of_type(&self, kind: &str, from: usize) -> Vec<&Value> {
        let events = self.events[from..].iter();
        events.filter(|event| event["type"] == kind).collect()
    }
}

pub(crate) fn key(session: &Value) -> String {
    text(&session["id"])
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}
