//! Copies of the engine fed from the committed log, and the seat of consensus
