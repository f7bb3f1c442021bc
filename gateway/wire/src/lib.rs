//! The binary protocol: schema, frames and the session, without sockets
