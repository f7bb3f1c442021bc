//! The market itself: a pure function of state, command and stamped time
