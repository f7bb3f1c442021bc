//! Some blocks in a row, as they change hands between core and stages. Mostly it is one: that one needs no memory of its own.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::block::Block;

/// Blocks of the log, in order.
pub type Blocks = SmallVec<[Arc<Block>; 1]>;
