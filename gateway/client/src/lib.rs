//! The client of the binary protocol: resume, resend, failover
