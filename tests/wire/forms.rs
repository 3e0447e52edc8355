//! Values in another form than the one that is written.

use opencode_sessions::internals::wire::Violation;
use serde_json::{Value, json};

use crate::common::lines;
use crate::samples::{SAMPLES, golden};
use crate::support;

/// A place in a JSON value: the keys and positions that lead to it.
type Place = Vec<String>;

/// Every value within `value`, and where it is.
fn places(value: &Value, at: &Place, to: &mut Vec<(Place, Value)>) {
    let below = |key: String| [&at[..], &[key]].concat();
    match value {
        Value::Object(fields) => {
            for (key, field) in fields {
                places(field, &below(key.clone()), to);
            }
        }
        Value::Array(values) => {
            for (position, value) in values.iter().enumerate() {
                places(value, &below(position.to_string()), to);
            }
        }
        _ => {}
    }
    to.push((at.clone(), value.clone()));
}

/// The same value in forms that are not the documented one, among them all that serde's
/// derives read as well. The derives read an array in the order of the line.
fn other_forms(value: &Value, line: &str) -> Vec<Value> {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(key, _)| line.find(&format!("\"{key}\":")));
            let values: Vec<_> = fields.into_iter().map(|(_, value)| value).collect();
            vec![json!(values), json!([value]), json!(value.to_string())]
        }
        Value::Array(values) => {
            let mut fields = serde_json::Map::new();
            for (position, value) in values.iter().enumerate() {
                fields.insert(position.to_string(), value.clone());
            }
            vec![json!(fields), json!(value.to_string()), Value::Null]
        }
        Value::String(text) => vec![json!({text: null}), json!([text]), json!(0), json!(true)],
        Value::Number(number) => vec![json!(number.to_string()), json!([number]), json!(true)],
        Value::Bool(truth) => vec![json!(u8::from(*truth)), json!(truth.to_string())],
        Value::Null => Vec::new(),
    }
}

/// The samples have every struct and every enum of the wire, so a new one that is read
/// from another form as well fails here.
#[test]
fn value_in_another_form_is_rejected_in_every_field() {
    let _limit = support::limit(60);
    let mut tried = 0;
    for sample in SAMPLES {
        let output = golden(sample.name);
        let all: Vec<_> = output.lines().collect();
        for at in 0..all.len() {
            let line: Value = serde_json::from_str(all[at]).unwrap();
            let mut found = Vec::new();
            places(&line, &Place::new(), &mut found);
            for (place, value) in found {
                for other in other_forms(&value, all[at]) {
                    let mut changed = line.clone();
                    let pointer: String = place.iter().map(|key| format!("/{key}")).collect();
                    *changed.pointer_mut(&pointer).unwrap() = other;
                    let changed = changed.to_string();
                    let mut lines_now = all.clone();
                    lines_now[at] = &changed;
                    let violation = sample.refuses(&lines(&lines_now), &changed);
                    match violation {
                        Violation::NoHello(_) => assert_eq!(at, 0, "{changed}"),
                        Violation::Invalid { line, .. } => assert_eq!(line, at + 1, "{changed}"),
                        other => panic!("{changed}: {other}"),
                    }
                    tried += 1;
                }
            }
        }
    }
    assert!(tried > 300, "{tried}");
}
