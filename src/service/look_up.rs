//! The limits of looking up: each look-up launches a helper for every source.

/// So many at once.
pub(super) const MOST: usize = 8;
