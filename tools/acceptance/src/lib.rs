//! The running venue under real clients, bad input and kill -9.
