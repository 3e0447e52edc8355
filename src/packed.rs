//! Values held as few bytes: what a long-lived process keeps of ten thousand
//! sessions, and a listing on its way to it, takes a third of the memory so.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use bincode::de::{BorrowDecoder, Decoder};
use bincode::enc::Encoder;
use bincode::enc::write::Writer;
use bincode::error::{DecodeError, EncodeError};
use bincode::{BorrowDecode, Decode, Encode};
use serde::{Serialize, Serializer};

use crate::codec;

/// A value. Cloning it shares its bytes; it is equal to what has the same bytes.
pub struct Packed<T> {
    bytes: Arc<[u8]>,
    of: PhantomData<fn() -> T>,
}

impl<T> Packed<T> {
    /// How many bytes it has.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }
}

impl<T: Encode> Packed<T> {
    /// Packs a value.
    #[must_use]
    pub fn new(value: &T) -> Self {
        let mut bytes = Vec::with_capacity(codec::packed_length(value));
        codec::pack(value, &mut bytes);
        Self {
            bytes: bytes.into(),
            of: PhantomData,
        }
    }
}

impl<T: Decode<()>> Packed<T> {
    /// The value.
    #[must_use]
    pub fn unpack(&self) -> T {
        codec::unpack(&self.bytes).0
    }
}

impl<T> Clone for Packed<T> {
    fn clone(&self) -> Self {
        Self {
            bytes: Arc::clone(&self.bytes),
            of: PhantomData,
        }
    }
}

impl<T> PartialEq for Packed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl<T: Decode<()> + fmt::Debug> fmt::Debug for Packed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.unpack().fmt(f)
    }
}

/// As the value.
impl<T: Decode<()> + Serialize> Serialize for Packed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.unpack().serialize(serializer)
    }
}

/// As the value: it is encoded already.
impl<T> Encode for Packed<T> {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        encoder.writer().write(&self.bytes)
    }
}

impl<T: Encode + Decode<C>, C> Decode<C> for Packed<T> {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Ok(Self::new(&T::decode(decoder)?))
    }
}

impl<'de, T: Encode + Decode<C>, C> BorrowDecode<'de, C> for Packed<T> {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(
        decoder: &mut D,
    ) -> Result<Self, DecodeError> {
        Self::decode(decoder)
    }
}

/// The size of a list's blocks, in bytes: a list grows without being copied, and
/// what it gives back is of use for something else.
const BLOCK: usize = 64 << 10;

/// A list that is read from its beginning.
#[derive(Clone)]
pub struct PackedList<T> {
    /// No value goes over the end of a block.
    blocks: Vec<Vec<u8>>,
    len: usize,
    of: PhantomData<fn() -> T>,
}

impl<T> PackedList<T> {
    /// How many values it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True where it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<T: Encode> PackedList<T> {
    /// Adds a value.
    pub fn push(&mut self, value: &T) {
        let length = codec::packed_length(value);
        let has_room = |block: &&mut Vec<u8>| block.capacity() - block.len() >= length;
        match self.blocks.last_mut().filter(has_room) {
            Some(block) => codec::pack(value, block),
            None => {
                let mut block = Vec::with_capacity(BLOCK.max(length));
                codec::pack(value, &mut block);
                self.blocks.push(block);
            }
        }
        self.len += 1;
    }
}

impl<T: Decode<()>> PackedList<T> {
    /// Its values.
    pub fn iter(&self) -> impl Iterator<Item = T> {
        self.blocks.iter().flat_map(values)
    }

    /// Its values; a block goes when it was read.
    pub fn into_values(self) -> impl Iterator<Item = T> {
        self.blocks.into_iter().flat_map(values)
    }
}

/// The values of a block.
fn values<T: Decode<()>>(block: impl AsRef<[u8]>) -> impl Iterator<Item = T> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = block.as_ref().get(at..).filter(|rest| !rest.is_empty())?;
        let (value, length) = codec::unpack(rest);
        at += length;
        Some(value)
    })
}

impl<T> Default for PackedList<T> {
    fn default() -> Self {
        Self {
            blocks: Vec::new(),
            len: 0,
            of: PhantomData,
        }
    }
}

impl<T: Encode> FromIterator<T> for PackedList<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        let mut list = Self::default();
        for value in values {
            list.push(&value);
        }
        list
    }
}

impl<T: Decode<()> + PartialEq> PartialEq for PackedList<T> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<T: Decode<()> + fmt::Debug> fmt::Debug for PackedList<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_gives_back_what_was_put_in_also_over_the_ends_of_blocks() {
        let texts: Vec<String> = (0..2_000)
            .map(|n| "x".repeat(n * 37 % 500))
            .chain([String::new(), "y".repeat(3 * BLOCK), "z".to_owned()])
            .collect();
        let list: PackedList<String> = texts.iter().cloned().collect();
        assert_eq!(list.len(), texts.len());
        assert!(list.blocks.len() > 3);
        assert!(list.iter().eq(texts.iter().cloned()));
        assert!(list.into_values().eq(texts));
        assert!(PackedList::<String>::default().iter().next().is_none());
    }

    #[test]
    fn a_packed_value_is_in_a_file_as_the_value_is() {
        let kind = codec::Kind {
            magic: *b"TESTFILE",
            version: 1,
        };
        let values = vec![(1_u64, "one".to_owned()), (u64::MAX, String::new())];
        let packed: Vec<_> = values.iter().map(Packed::new).collect();
        let file = codec::encode(kind, &values).unwrap();
        assert_eq!(codec::encode(kind, &packed).unwrap(), file);
        let back: Vec<Packed<(u64, String)>> = codec::decode(kind, &file).unwrap();
        assert_eq!(back, packed);
        assert!(back.iter().map(Packed::unpack).eq(values));
    }
}
