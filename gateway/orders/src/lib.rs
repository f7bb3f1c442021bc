//! The order gateway: the one door through which every command enters
