//! Replays real order flow and real request traces against a venue
