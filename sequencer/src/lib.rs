//! One log: numbers, stamps, journals and replays every command
