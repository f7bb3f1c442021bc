//! Simulated suppliers: real OpenAI-shaped HTTP servers with settable faults
