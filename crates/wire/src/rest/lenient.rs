//! Leaves that clients write in more than one form, read into one.
//!
//! python-troveclient sends flavor ids as integers, openstacksdk a volume as a bare integer, one
//! user as an object instead of a list. What is read here is a shape, not yet a valid value.

use std::fmt;

use serde::de::{self, Deserialize, DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Serialize, Serializer};
use serde_json::Value;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

fn one_of(types: &[Type]) -> RefOr<Schema> {
    let mut any = OneOfBuilder::new();
    for kind in types {
        any = any.item(ObjectBuilder::new().schema_type(kind.clone()));
    }
    any.into()
}

/// Text, or a whole number read as its digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(pub String);

impl Text {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

struct TextVisitor;

impl Visitor<'_> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or an integer")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Text, E> {
        Ok(Text(text.to_owned()))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Text, E> {
        Ok(Text(number.to_string()))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Text, E> {
        Ok(Text(number.to_string()))
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl PartialSchema for Text {
    fn schema() -> RefOr<Schema> {
        one_of(&[Type::String, Type::Integer])
    }
}

impl ToSchema for Text {}

/// A whole number, or text of its decimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number(pub i64);

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an integer or a string of digits")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Number, E> {
        let is_digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match text.parse() {
            Ok(number) if is_digits => Ok(Number(number)),
            _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
        }
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Number, E> {
        i64::try_from(number)
            .map(Number)
            .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(number), &self))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Number, E> {
        Ok(Number(number))
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor)
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(self.0)
    }
}

impl PartialSchema for Number {
    fn schema() -> RefOr<Schema> {
        one_of(&[Type::Integer, Type::String])
    }
}

impl ToSchema for Number {}

/// A list, or one element without its list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneOrMany<T>(pub Vec<T>);

struct OneOrManyVisitor<T>(std::marker::PhantomData<T>);

impl<'de, T: DeserializeOwned> Visitor<'de> for OneOrManyVisitor<T> {
    type Value = OneOrMany<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list or an object")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        Vec::deserialize(de::value::SeqAccessDeserializer::new(seq)).map(OneOrMany)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(de::value::MapAccessDeserializer::new(map)).map(|one| OneOrMany(vec![one]))
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrManyVisitor(std::marker::PhantomData))
    }
}

impl<T: Serialize> Serialize for OneOrMany<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// An object, or a plain value in its place.
#[derive(Debug)]
pub(crate) enum ObjectOr<T, P> {
    /// An object.
    Object(T),
    /// A plain value.
    Plain(P),
}

struct ObjectOrVisitor<T, P>(&'static str, std::marker::PhantomData<(T, P)>);

impl<'de, T: Deserialize<'de>, P: Deserialize<'de>> Visitor<'de> for ObjectOrVisitor<T, P> {
    type Value = ObjectOr<T, P>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(de::value::MapAccessDeserializer::new(map)).map(ObjectOr::Object)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        P::deserialize(de::value::StrDeserializer::new(text)).map(ObjectOr::Plain)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        P::deserialize(de::value::U64Deserializer::new(number)).map(ObjectOr::Plain)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
        P::deserialize(de::value::I64Deserializer::new(number)).map(ObjectOr::Plain)
    }
}

/// Reads an object or a plain value; `expecting` names both for messages.
pub(crate) fn object_or<'de, D, T, P>(
    deserializer: D,
    expecting: &'static str,
) -> Result<ObjectOr<T, P>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
    P: Deserialize<'de>,
{
    deserializer.deserialize_any(ObjectOrVisitor(expecting, std::marker::PhantomData))
}

/// Whether a key was there at all, `null` included, and with which value.
///
/// Use with `#[serde(default, deserialize_with = "…::present")]`.
pub fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// The value of a key that was there; `Some(None)` for `null`.
///
/// Use with `#[serde(default, deserialize_with = "…::given")]`.
pub fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_each_form_once() {
        let read = |text: &str| serde_json::from_str::<Text>(text).map(|text| text.0).ok();
        assert_eq!(read("\"6.1\"").as_deref(), Some("6.1"));
        assert_eq!(read("6").as_deref(), Some("6"));
        for bad in ["6.1", "null", "true", "[]", "{}"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn numbers_are_whole_and_decimal() {
        let read = |text: &str| {
            serde_json::from_str::<Number>(text)
                .map(|number| number.0)
                .ok()
        };
        assert_eq!(
            (read("5"), read("\"5\""), read("-1")),
            (Some(5), Some(5), Some(-1))
        );
        for bad in [
            "5.5",
            "\"5.5\"",
            "\"\"",
            "\"+5\"",
            "\"0x5\"",
            "true",
            "18446744073709551615",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn one_is_a_list_of_one() {
        let read = |text: &str| serde_json::from_str::<OneOrMany<Value>>(text).map(|list| list.0);
        assert_eq!(read("[{}, {}]").unwrap().len(), 2);
        assert_eq!(read("{\"a\": 1}").unwrap().len(), 1);
        assert!(read("3").is_err());
    }
}
