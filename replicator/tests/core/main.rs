//! The raft core from outside: its messages, its rules, and whole clusters of it under every fault a link or a disk can have.

mod cluster;
mod codec;
mod faults;
mod hostile;
mod rules;
