//! Some blocks in a row, as they change hands between core and stages. Mostly it is one: that one needs no memory of its own.

use std::ops::Deref;
use std::slice;
use std::sync::Arc;

use crate::block::Block;

/// Blocks of the log, in order; read it as a slice.
#[derive(Clone, Debug, Default)]
pub struct Blocks(Held);

#[derive(Clone, Debug)]
enum Held {
    One(Arc<Block>),
    Any(Vec<Arc<Block>>),
}

impl Default for Held {
    fn default() -> Self {
        Self::Any(Vec::new())
    }
}

impl Blocks {
    /// Puts one behind the others.
    pub fn push(&mut self, block: Arc<Block>) {
        self.0 = match std::mem::take(&mut self.0) {
            Held::Any(blocks) if blocks.is_empty() => Held::One(block),
            Held::Any(mut blocks) => {
                blocks.push(block);
                Held::Any(blocks)
            }
            Held::One(first) => Held::Any(vec![first, block]),
        };
    }

    /// Lets all of them go.
    pub fn clear(&mut self) {
        self.0 = Held::default();
    }

    /// Hands each on, in order.
    pub fn each(self, mut take: impl FnMut(Arc<Block>)) {
        match self.0 {
            Held::One(block) => take(block),
            Held::Any(blocks) => blocks.into_iter().for_each(take),
        }
    }
}

impl Deref for Blocks {
    type Target = [Arc<Block>];

    fn deref(&self) -> &[Arc<Block>] {
        match &self.0 {
            Held::One(block) => slice::from_ref(block),
            Held::Any(blocks) => blocks,
        }
    }
}

impl From<Arc<Block>> for Blocks {
    fn from(block: Arc<Block>) -> Self {
        Self(Held::One(block))
    }
}

impl From<Vec<Arc<Block>>> for Blocks {
    fn from(blocks: Vec<Arc<Block>>) -> Self {
        Self(Held::Any(blocks))
    }
}

impl<'a> IntoIterator for &'a Blocks {
    type Item = &'a Arc<Block>;
    type IntoIter = slice::Iter<'a, Arc<Block>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Position;

    #[test]
    fn what_is_pushed_is_read_and_handed_on_in_order() {
        let mut blocks = Blocks::default();
        let mut before = Position::default();
        for count in 0..4_u64 {
            assert_eq!(blocks.len() as u64, count);
            let indexes: Vec<_> = blocks.iter().map(|block| block.header().index).collect();
            assert_eq!(indexes, (1..=count).collect::<Vec<_>>());
            let mut handed = Vec::new();
            blocks.clone().each(|block| handed.push(block.header().index));
            assert_eq!(handed, indexes);
            let block = Arc::new(Block::empty(&before, 1));
            before = block.position();
            blocks.push(block);
        }
        blocks.clear();
        assert!(blocks.is_empty());
    }
}
