//! Reads a JSON value into a wire type more strictly than serde does by itself, and says what does
//! not fit in the words of jsonschema, which Trove's clients show to people.
//!
//! serde's derive takes an array for a struct, its elements for the fields in order. No client
//! sends that on purpose, so it is refused as the wrong type that it is.

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{self, Deserializer, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

/// Longest value shown in a message; unit: characters.
const SHOWN_CHARS_MAX: usize = 200;

/// Stands for what no message shows.
const HIDDEN: &str = "'***'";

/// A value that is read strictly.
#[derive(Debug, Clone, Copy)]
pub(super) struct Strict<'de>(pub(super) &'de Value);

impl<'de> IntoDeserializer<'de, serde_json::Error> for Strict<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Strict<'de> {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self.0 {
            Value::Array(items) => {
                visitor.visit_seq(SeqDeserializer::new(items.iter().map(Strict)))
            }
            Value::Object(fields) => {
                let fields = fields
                    .iter()
                    .map(|(key, value)| (key.as_str(), Strict(value)));
                visitor.visit_map(MapDeserializer::new(fields))
            }
            plain => plain.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        match self.0 {
            Value::Array(_) => Err(de::Error::invalid_type(Unexpected::Seq, &visitor)),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

/// What is wrong at `path` of `body`: serde's `message` in jsonschema's words, where it has some.
pub(super) fn in_words(message: &str, path: &Path, body: &Value) -> String {
    if let Some(field) = quoted_after(message, "missing field `") {
        return format!("'{field}' is a required property");
    }
    if let Some(field) = quoted_after(message, "unknown field `") {
        return format!("Additional properties are not allowed ('{field}' was unexpected)");
    }
    let is_secret = matches!(path.iter().next_back(), Some(Segment::Map { key }) if hides(key));
    let found = at(path, body).map(|value| match is_secret {
        true => HIDDEN.to_owned(),
        false => cut(&repr(value)),
    });
    if message.starts_with("data did not match any variant") {
        let found = found.unwrap_or_default();
        return format!("{found} is not valid under any of the given schemas");
    }
    let expected = message
        .strip_prefix("invalid type: ")
        .and_then(|rest| types(rest.rsplit_once(", expected ")?.1));
    match (found, expected) {
        (Some(found), Some(types)) => format!("{found} is not of type {types}"),
        _ => cut(message),
    }
}

fn quoted_after<'a>(message: &'a str, head: &str) -> Option<&'a str> {
    message.strip_prefix(head)?.split('`').next()
}

/// jsonschema's names of the types that serde expected.
fn types(expected: &str) -> Option<&'static str> {
    Some(match expected {
        "a string" => "'string'",
        "a boolean" => "'boolean'",
        "a sequence" => "'array'",
        "a map" => "'object'",
        "a string or an integer" => "'string', 'integer'",
        "an integer or a string of digits" => "'integer', 'string'",
        "a list or an object" => "'array', 'object'",
        "an object or a size" => "'object', 'integer', 'string'",
        "an object or an id" => "'object', 'integer', 'string'",
        "i64" | "u64" | "i32" | "u32" | "u16" => "'integer'",
        other if other.starts_with("struct ") => "'object'",
        _ => return None,
    })
}

/// The value at a path.
fn at<'a>(path: &Path, body: &'a Value) -> Option<&'a Value> {
    let mut value = body;
    for segment in path {
        value = match segment {
            Segment::Map { key } => value.get(key)?,
            Segment::Seq { index } => value.get(index)?,
            Segment::Enum { .. } | Segment::Unknown => return None,
        };
    }
    Some(value)
}

/// The value as Python writes it, which is what jsonschema shows.
fn repr(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!(
            "'{}'",
            text.escape_debug().to_string().replace("\\\"", "\"")
        ),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().take(8).map(repr).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(fields) => {
            let field = |(key, value): (&String, &Value)| match hides(key) {
                true => format!("'{key}': {HIDDEN}"),
                false => format!("'{key}': {}", repr(value)),
            };
            let fields: Vec<_> = fields.iter().take(8).map(field).collect();
            format!("{{{}}}", fields.join(", "))
        }
    }
}

/// Whether the value of a key is nothing for a message.
fn hides(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    key.contains("password") || key == "token"
}

fn cut(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(SHOWN_CHARS_MAX)
        .collect()
}
