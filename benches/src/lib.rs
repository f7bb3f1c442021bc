//! Latency and throughput, told honestly
