//! What could be worked out again from the rest of the state, kept only because that would take time.
//!
//! It says nothing of its own: it is never hashed, always equal, in no snapshot, and built anew where one is read.

use std::hash::{Hash, Hasher};
use std::ops::{Deref, DerefMut};

/// A part of the state that the rest of it implies.
#[derive(Clone, Debug, Default)]
pub(crate) struct Derived<T>(pub(crate) T);

impl<T> PartialEq for Derived<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<T> Eq for Derived<T> {}

impl<T> Hash for Derived<T> {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl<T> Deref for Derived<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Derived<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}
