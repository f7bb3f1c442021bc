//! A market maker that quotes through the binary door
