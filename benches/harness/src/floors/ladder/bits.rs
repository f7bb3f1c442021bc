//! Which levels have orders: three layers of bits, each of which says where 64 of the layer below have any.

/// Layers of the bits.
const LAYERS: u32 = 3;
/// Levels that they reach.
pub(super) const PRICES: usize = 64_usize.pow(LAYERS);

/// Which levels of one side have orders.
pub(super) struct Bits {
    layers: [Vec<u64>; LAYERS as usize],
}

impl Bits {
    pub(super) fn new(prices: usize) -> Self {
        let words = |layer: u32| prices.div_ceil(64_usize.pow(layer + 1)).max(1);
        Self { layers: [vec![0; words(0)], vec![0; words(1)], vec![0; words(2)]] }
    }

    pub(super) fn set(&mut self, price: u32) {
        let mut at = price as usize;
        for layer in &mut self.layers {
            layer[at / 64] |= 1 << (at % 64);
            at /= 64;
        }
    }

    pub(super) fn clear(&mut self, price: u32) {
        let mut at = price as usize;
        for layer in &mut self.layers {
            layer[at / 64] &= !(1 << (at % 64));
            if layer[at / 64] != 0 {
                return;
            }
            at /= 64;
        }
    }

    /// The set price nearest below or above, but not `price` itself.
    pub(super) fn next(&self, price: u32, down: bool) -> Option<u32> {
        let mut at = price as usize;
        for (nth, layer) in self.layers.iter().enumerate() {
            let (word, bit) = (at / 64, at % 64);
            let beyond = if down { (1_u64 << bit) - 1 } else { (u64::MAX - 1) << bit };
            let found = layer[word] & beyond;
            if found != 0 {
                let mut at = word * 64 + edge(found, down);
                for layer in self.layers[..nth].iter().rev() {
                    at = at * 64 + edge(layer[at], down);
                }
                return Some(at as u32);
            }
            at = word;
        }
        None
    }
}

fn edge(word: u64, highest: bool) -> usize {
    (if highest { 63 - word.leading_zeros() } else { word.trailing_zeros() }) as usize
}
