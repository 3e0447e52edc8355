//! Rejects the undocumented forms of JSON values that serde's derives accept.
//!
//! A derive reads a struct not only from an object but also from an array of its values, and
//! an enum's variant not only from `"name"` but also from `{"name":null}`. Use these
//! functions in `#[serde(deserialize_with = "…")]` for fields of such types.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

/// Deserializes a struct from an object only.
///
/// # Errors
///
/// Returns an error if the value is not a valid object.
pub(crate) fn object<'de, T, D>(from: D) -> Result<T, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Object::deserialize(from).map(|Object(value)| value)
}

/// Deserializes a struct from an object, or `None` from null. A field that may be absent
/// also needs `#[serde(default)]`.
///
/// # Errors
///
/// Returns an error if the value is neither null nor a valid object.
pub(crate) fn object_or_null<'de, T, D>(from: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    let value = Option::<Object<T>>::deserialize(from)?;
    Ok(value.map(|Object(value)| value))
}

/// Deserializes structs from an array of objects.
///
/// # Errors
///
/// Returns an error if the value is not an array of valid objects.
pub(crate) fn objects<'de, T, D>(from: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    let values = Vec::<Object<T>>::deserialize(from)?;
    Ok(values.into_iter().map(|Object(value)| value).collect())
}

/// Deserializes an enum without fields from the name of a variant only.
///
/// # Errors
///
/// Returns an error if the value is not a string, or not the name of a variant.
pub(crate) fn name<'de, T, D>(from: D) -> Result<T, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    from.deserialize_str(NameVisitor(PhantomData))
}

struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(ObjectVisitor(PhantomData)).map(Self)
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

struct NameVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for NameVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<T, E> {
        T::deserialize(StrDeserializer::new(name))
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Point {
        x: u8,
        y: Option<u8>,
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Colour {
        Red,
        #[serde(other)]
        Unknown,
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Of {
        #[serde(deserialize_with = "object")]
        one: Point,
        #[serde(default, deserialize_with = "object_or_null")]
        maybe: Option<Point>,
        #[serde(default, deserialize_with = "objects")]
        many: Vec<Point>,
        #[serde(deserialize_with = "name")]
        colour: Colour,
    }

    /// The derive of a tagged enum buffers its fields and deserializes them from the buffer.
    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(tag = "type", rename_all = "lowercase")]
    enum Tagged {
        Of(Of),
    }

    /// Deserializes the fields directly and from a buffer.
    fn read(fields: &str) -> Result<Of, String> {
        let direct = serde_json::from_str::<Of>(&format!("{{{fields}}}"));
        let tagged = serde_json::from_str(&format!(r#"{{"type":"of",{fields}}}"#));
        match (direct, tagged) {
            (Ok(direct), Ok(Tagged::Of(tagged))) => {
                assert_eq!(direct, tagged);
                Ok(direct)
            }
            (Err(direct), Err(_)) => Err(direct.to_string()),
            (direct, tagged) => panic!("{fields}: {direct:?}, {tagged:?}"),
        }
    }

    #[test]
    fn documented_form_is_accepted() {
        let point = |y| Point { x: 1, y };
        for (fields, expected) in [
            (
                r#""one":{"x":1},"colour":"red""#,
                Of {
                    one: point(None),
                    maybe: None,
                    many: Vec::new(),
                    colour: Colour::Red,
                },
            ),
            (
                r#""one":{"x":1,"new":[1],"y":2},"maybe":null,"many":[],"colour":"mauve""#,
                Of {
                    one: point(Some(2)),
                    maybe: None,
                    many: Vec::new(),
                    colour: Colour::Unknown,
                },
            ),
            (
                r#""colour":"\u0072ed","many":[{"x":1},{"y":3,"x":1}],"maybe":{"x":1},"one":{"x":1}"#,
                Of {
                    one: point(None),
                    maybe: Some(point(None)),
                    many: vec![point(None), point(Some(3))],
                    colour: Colour::Red,
                },
            ),
        ] {
            assert_eq!(read(fields), Ok(expected), "{fields}");
        }
    }

    #[test]
    fn other_forms_are_rejected() {
        let valid = r#""one":{"x":1},"maybe":{"x":1},"many":[{"x":1}],"colour":"red""#;
        assert!(read(valid).is_ok());
        for (from, to, why) in [
            (r#""one":{"x":1}"#, r#""one":[1,2]"#, "expected an object"),
            (r#""one":{"x":1}"#, r#""one":[[1,2]]"#, "expected an object"),
            (r#""one":{"x":1}"#, r#""one":null"#, "expected an object"),
            (r#""one":{"x":1}"#, r#""one":{}"#, "missing field `x`"),
            (r#""one":{"x":1},"#, "", "missing field `one`"),
            (
                r#""maybe":{"x":1}"#,
                r#""maybe":[1,2]"#,
                "expected an object",
            ),
            (r#"[{"x":1}]"#, "[[1,2]]", "expected an object"),
            (r#"[{"x":1}]"#, "[null]", "expected an object"),
            (r#"[{"x":1}]"#, r#"{"x":1}"#, "expected a sequence"),
            (r#"[{"x":1}]"#, "null", "expected a sequence"),
            (r#""red""#, r#"{"red":null}"#, "expected a name"),
            (r#""red""#, r#"["red"]"#, "expected a name"),
            (r#""red""#, "0", "expected a name"),
            (r#""red""#, "null", "expected a name"),
        ] {
            let fields = valid.replace(from, to);
            assert_ne!(fields, valid, "{from}");
            let error = read(&fields).unwrap_err();
            assert!(error.contains(why), "{fields}: {error}");
        }
    }
}
