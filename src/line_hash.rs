//! Hashes of the lines of a listing, by which a caller and a helper compare what they have.
//!
//! A line is compared by [`HashKey::hash`], SipHash-1-3 with 128 bits
//! (<https://www.aumasson.jp/siphash/siphash.pdf>) and a key that the caller draws. Titles and
//! prompts are untrusted text, and without the key their authors cannot make two lines with one
//! hash. A set of lines is compared by the sum of their hashes
//! ([`SetHash`]), which changes with each line that is added or removed, whatever their order.
//!
//! Pure: no I/O. It cannot fail.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use siphasher::sip128::SipHasher13;

/// The size of a key and of a hash in bytes.
pub(crate) const HASH_BYTES: usize = 16;

/// The key of the hashes, known to one caller and to the helpers that it asks.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashKey(Hex);

impl HashKey {
    /// Draws a key at random.
    #[must_use]
    pub fn random() -> Self {
        // The standard library keys its hash maps with the system's random numbers.
        let half = || u128::from(RandomState::new().build_hasher().finish());
        Self(Hex(half() << 64 | half()))
    }

    /// Returns the key of these bytes.
    #[must_use]
    pub fn of(bytes: [u8; HASH_BYTES]) -> Self {
        Self(Hex(u128::from_be_bytes(bytes)))
    }

    /// Returns the hash of a text.
    #[must_use]
    pub fn hash(&self, text: &[u8]) -> LineHash {
        let hasher = SipHasher13::new_with_key(&self.0.0.to_be_bytes());
        LineHash(hasher.hash(text).as_u128().to_be_bytes())
    }

    /// Returns the bytes of the key.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HASH_BYTES] {
        self.0.0.to_be_bytes()
    }
}

/// Hides the key: a log is read by others.
impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey")
    }
}

/// The hash of the line of a session, or of an id.
// Bytes, so that a row is not aligned to sixteen of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LineHash([u8; HASH_BYTES]);

impl LineHash {
    /// Returns the hash with these bytes.
    #[must_use]
    pub fn of(bytes: [u8; HASH_BYTES]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes of the hash.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HASH_BYTES] {
        self.0
    }
}

impl Serialize for LineHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Hex(u128::from_be_bytes(self.0)).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for LineHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Hex::deserialize(deserializer).map(|Hex(hash)| Self(hash.to_be_bytes()))
    }
}

/// The hash of a set of lines: the sum of their hashes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetHash(Hex);

impl SetHash {
    /// Returns the hash of the set with this line.
    #[must_use]
    pub fn with(self, line: LineHash) -> Self {
        Self(Hex(self.0.0.wrapping_add(u128::from_be_bytes(line.0))))
    }

    /// Returns the hash of the set without this line.
    #[must_use]
    pub fn without(self, line: LineHash) -> Self {
        Self(Hex(self.0.0.wrapping_sub(u128::from_be_bytes(line.0))))
    }

    /// Returns the hash with these bytes.
    #[must_use]
    pub fn of(bytes: [u8; HASH_BYTES]) -> Self {
        Self(Hex(u128::from_be_bytes(bytes)))
    }

    /// Returns the bytes of the hash.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HASH_BYTES] {
        self.0.0.to_be_bytes()
    }
}

impl FromIterator<LineHash> for SetHash {
    fn from_iter<T: IntoIterator<Item = LineHash>>(lines: T) -> Self {
        lines.into_iter().fold(Self::default(), Self::with)
    }
}

/// 128 bits, in JSON a string of 32 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Hex(u128);

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:032x}", self.0))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let is_valid = text.len() == 2 * HASH_BYTES && text.bytes().all(is_hex);
        let value = u128::from_str_radix(&text, 16).ok().filter(|_| is_valid);
        let expected = "expected 32 lower-case hexadecimal digits";
        value.map(Self).ok_or_else(|| D::Error::custom(expected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference implementation's vectors are of SipHash-2-4; these pin the variant, the
    /// order of the bytes and the text form, so that programs of two versions agree.
    #[test]
    fn hash_and_its_text_form_stay_the_same() {
        let key = HashKey::of(std::array::from_fn(|at| u8::try_from(at).unwrap()));
        let hash = key.hash(b"{\"type\":\"session\"}");
        let set = SetHash::default().with(hash);
        let text = |value: &dyn Fn() -> serde_json::Result<String>| value().unwrap();
        assert_eq!(
            text(&|| serde_json::to_string(&key)),
            "\"000102030405060708090a0b0c0d0e0f\""
        );
        assert_eq!(
            text(&|| serde_json::to_string(&set)),
            "\"8d7abf4b64c53984ff2afab78de41fee\""
        );
        assert_eq!(set.to_bytes(), hash.to_bytes());
    }

    #[test]
    fn set_hash_follows_its_lines_in_any_order() {
        let key = HashKey::random();
        let lines = ["a", "b", "c"].map(|line| key.hash(line.as_bytes()));
        let set: SetHash = lines.into_iter().collect();
        assert_eq!(set, lines.into_iter().rev().collect());
        assert_ne!(set, lines[..2].iter().copied().collect());
        assert_eq!(set.without(lines[1]).with(lines[1]), set);
        assert_eq!(
            lines.into_iter().fold(set, SetHash::without),
            SetHash::default()
        );
    }

    #[test]
    fn hash_is_of_its_key_and_its_text() {
        let (one, other) = (HashKey::random(), HashKey::random());
        assert_ne!(one, other);
        assert_eq!(one.hash(b"a"), one.hash(b"a"));
        assert_ne!(one.hash(b"a"), one.hash(b"b"));
        assert_ne!(one.hash(b"a"), other.hash(b"a"));
        assert_eq!(HashKey::of(one.to_bytes()), one);
        assert_eq!(format!("{one:?}"), "HashKey");
    }

    #[test]
    fn text_form_is_exactly_32_digits() {
        for text in [
            "",
            "0",
            "g0000000000000000000000000000000",
            "+0000000000000000000000000000000",
            "000000000000000000000000000000000",
            "ABCDEF00000000000000000000000000",
        ] {
            let json = format!("\"{text}\"");
            assert!(serde_json::from_str::<SetHash>(&json).is_err(), "{text}");
        }
        let set: SetHash = serde_json::from_str("\"00000000000000000000000000000001\"").unwrap();
        assert_eq!(set.to_bytes()[15], 1);
    }
}
