//! The inference tier: reserve, stream from a supplier, meter, settle
