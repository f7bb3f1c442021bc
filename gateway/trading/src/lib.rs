//! Trading and Platform HTTP APIs over a replica and the binary door
